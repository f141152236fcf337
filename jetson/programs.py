"""Programs of the board, started by a list and never by a shell, with an end in time."""

import os
import shutil
import signal
import subprocess
from typing import List, NamedTuple, Optional

# Where L4T has its tools. An SSH session that is no login has a PATH without /usr/sbin.
_FOLDERS = ("/usr/sbin", "/usr/bin", "/sbin", "/bin")

Finished = NamedTuple("Finished", [("code", int), ("output", str)])


class ProgramFailed(Exception):
    """The program could not be started or did not end; a part of a sentence."""


def find_program(name: str) -> Optional[str]:
    """Path of a program on PATH or where L4T keeps its own; None where there is none."""
    return shutil.which(name) or shutil.which(name, path=os.pathsep.join(_FOLDERS))


def run_program(command: List[str], seconds: float) -> Finished:
    """Exit code and output, errors with it. It gets no input, and a Ctrl-C does not reach it.

    Raises:
        ProgramFailed: it cannot be started, or it took longer than that and was ended.
    """
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    except OSError as error:
        raise ProgramFailed("{} cannot be started ({})".format(command[0], error.strerror or error)) from error
    try:
        output, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        raise ProgramFailed("{} did not end within {:g} s".format(" ".join(command), seconds)) from None
    finally:
        if process.poll() is None:
            end_program(process)
            process.communicate()
    return Finished(process.returncode, output.decode("utf-8", "replace"))


def end_program(process: "subprocess.Popen[bytes]") -> None:
    """Kills a program that has a session of its own, with what it started: that would hold its pipe open."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except OSError:
        process.kill()
