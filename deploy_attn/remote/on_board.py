# ruff: noqa: UP006, UP032, UP035, UP045, RUF005
"""The board's end of `remote`: takes a capsule, runs it, sends back what it left, cleans up. Python 3.6, alone.

The host sends this file as text over standard input, so that the board needs
nothing but SSH and a Python. After it comes one line of JSON, the request; then
the capsule, if it is not here yet; then a sign of life every few seconds. When
these stop, or the connection ends, the runner is ended too.

What is said goes to standard output, a line of JSON each behind MARK. Nothing
is written outside the request's folder: `capsules/SHA256.tar.gz`, which stay, at
most KEPT_CAPSULES of them, and one folder for this run, which does not. That may
be any folder of the user's, so nothing is removed whose name this program does
not give.
"""

import contextlib
import ctypes
import errno
import fcntl
import hashlib
import json
import os
import re
import select
import shutil
import signal
import stat
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from typing import Any, BinaryIO, Dict, Optional, Tuple

MARK = "@deploy-attn "
KEPT_CAPSULES = 8
LONGEST_LINE = 2000  # characters of progress
MOST_PROGRESS = 1 << 18  # characters shown; the log has the rest
MOST_VERDICT, MOST_LOG = 4 << 20, 2 << 20
SILENCE = 150.0  # seconds without a sign of life until the host counts as gone
GRACE = ((signal.SIGINT, 15.0), (signal.SIGTERM, 5.0), (signal.SIGKILL, 5.0))
STEP = 0.2  # seconds between looks at the runner

_RUN, _KEPT = "deploy-attn-run-", "deploy-attn-kept-"
_MADE_FOR_A_RUN = re.compile(_RUN + r"\w{8}")  # as mkdtemp names it
_CAPSULE = re.compile(r"[0-9a-f]{64}\.tar\.gz")
_PART = re.compile(_CAPSULE.pattern + r"\.[0-9]+\.part")

PR_SET_PDEATHSIG = 1  # of linux/prctl.h
_SPACE = (errno.ENOSPC, errno.EDQUOT)


class Refused(Exception):
    """The board cannot do what was asked; the sentence says why and what to do."""


class HostGone(Exception):
    """Nobody is there any more to run the capsule for."""


_speaking = threading.Lock()


def say(**news: Any) -> None:
    text = MARK + json.dumps(news, ensure_ascii=False) + "\n"
    with _speaking:
        sys.stdout.buffer.write(text.encode("utf-8", "surrogateescape"))  # as which paths have what is not ASCII
        sys.stdout.buffer.flush()


def main() -> int:
    stdin = sys.stdin.buffer
    request = json.loads(stdin.readline().decode("utf-8"))
    request["folder"] = os.fsdecode(request["folder"].encode("utf-8"))  # also where the locale knows ASCII alone
    for signum in (signal.SIGTERM, signal.SIGHUP, signal.SIGALRM):
        signal.signal(signum, leave)
    try:
        with Folder(request["folder"]) as folder:
            serve(request, folder, stdin)
    except Refused as refused:
        say(refused=str(refused))
    except OSError as error:
        if error.errno in (errno.EPIPE, errno.ECONNRESET):
            return 1
        say(refused=os_problem(error, request["folder"], request))
    except HostGone:
        return 1
    return 0


def leave(signum: int, frame: Any) -> None:
    """Unwinds the stack, so that the runner is ended and the folder cleaned."""
    sys.exit(128 + signum)


def serve(request: Dict[str, Any], folder: "Folder", stdin: BinaryIO) -> None:
    archive = os.path.join(folder.path, "capsules", request["sha256"] + ".tar.gz")
    there = os.path.isfile(archive) and sha256_of(archive) == request["sha256"]
    folder.check_space(request["unpacked_bytes"] + (0 if there else request["size"]))
    say(found={"there": there, "python": sys.version.split()[0]})
    if not there:
        receive(request, archive, stdin)
        say(copied=True)
    os.utime(archive, None)
    forget_old(archive)
    place = tempfile.mkdtemp(prefix=_KEPT if request["keep"] else _RUN, dir=folder.path)
    try:
        ended = run(unpacked(archive, place), request["arguments"], folder.lock)
        ended["kept"] = place if request["keep"] else None
    finally:
        if not request["keep"]:
            shutil.rmtree(place, ignore_errors=True)
    say(ended=ended)


class Folder:
    """The folder on the board, for one run at a time: two would spoil each other's timings."""

    def __init__(self, path: str) -> None:
        self.path = os.path.abspath(os.path.expanduser(path))
        self.lock = -1

    def __enter__(self) -> "Folder":
        os.makedirs(os.path.join(self.path, "capsules"), exist_ok=True)
        self.lock = os.open(os.path.join(self.path, "lock"), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self.lock)
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise
            raise Refused(
                "another run is under way in {} on this board, and two would spoil each other's timings. Wait for it "
                "to end, or name another folder with --remote-folder.".format(self.path)
            ) from error
        self.clean()
        return self

    def __exit__(self, *_: Any) -> None:
        os.close(self.lock)

    def clean(self) -> None:
        """What runs left that could not clean up: under the lock, nobody uses it."""
        for name in os.listdir(self.path):
            if _MADE_FOR_A_RUN.fullmatch(name):
                shutil.rmtree(os.path.join(self.path, name), ignore_errors=True)
        capsules = os.path.join(self.path, "capsules")
        for name in os.listdir(capsules):
            if _PART.fullmatch(name):
                os.unlink(os.path.join(capsules, name))

    def check_space(self, needed: int) -> None:
        free = shutil.disk_usage(self.path).free
        if free < needed:
            raise Refused(no_space(self.path, needed))


def receive(request: Dict[str, Any], archive: str, stdin: BinaryIO) -> None:
    """Writes the capsule beside its place, and moves it there only when it is the one that was announced."""
    draft = "{}.{}.part".format(archive, os.getpid())
    left, digest = request["size"], hashlib.sha256()
    try:
        with open(draft, "wb") as stream:
            while left:
                signal.alarm(int(SILENCE))
                block = stdin.read(min(left, 1 << 16))
                if not block:
                    raise HostGone()
                stream.write(block)
                digest.update(block)
                left -= len(block)
            stream.flush()
            os.fsync(stream.fileno())
        signal.alarm(0)
        if digest.hexdigest() != request["sha256"]:
            raise Refused("the capsule arrived damaged: its sha256 is not the one that was announced. Run it again.")
        os.replace(draft, archive)
    finally:
        if os.path.exists(draft):
            os.unlink(draft)


def forget_old(archive: str) -> None:
    """Removes the capsules longest unused, and never this one: the clock of a board may go back."""
    capsules, this = os.path.split(archive)
    others = [
        os.path.join(capsules, name) for name in os.listdir(capsules) if _CAPSULE.fullmatch(name) and name != this
    ]
    for file in sorted(others, key=os.path.getmtime, reverse=True)[KEPT_CAPSULES - 1 :]:
        os.unlink(file)


def unpacked(archive: str, place: str) -> str:
    """The capsule's own folder below `place`. The host looked into it; that nothing leaves `place` is sure here too."""
    with tarfile.open(archive, "r:gz") as tar:
        tar.extraction_filter = getattr(tarfile, "data_filter", None)  # which some versions ask for, and others lack
        for member in tar:
            parts = member.name.split("/")
            if not (member.isfile() or member.isdir()) or os.path.isabs(member.name) or ".." in parts:
                raise Refused("the capsule holds {!r}, which no capsule does.".format(member.name))
            tar.extract(member, place)
    (top,) = os.listdir(place)
    return os.path.join(place, top)


def run(folder: str, arguments: Any, lock: int) -> Dict[str, Any]:
    """Runs the capsule; how it ended, and what it left."""
    command = [sys.executable, "-u", "run.py"] + list(arguments)
    started = time.time()
    runner = subprocess.Popen(
        command,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        preexec_fn=end_with_parent,
        pass_fds=(lock,),  # held while the runner lives, also if this process does not
    )
    talk = Talk(runner)
    try:
        say(started=runner.pid)
        code = waited(runner)
    finally:
        end(runner)
    talk.finish()
    verdict, verdict_bytes = content(os.path.join(folder, "verdict.json"), MOST_VERDICT)
    log, log_bytes = content(os.path.join(folder, "run.log"), MOST_LOG, tail=True)
    return {
        "returncode": code,
        "seconds": round(time.time() - started, 3),
        "verdict": verdict,
        "verdict_bytes": verdict_bytes,
        "log": log,
        "log_bytes": log_bytes,
    }


def end_with_parent() -> None:
    """In the runner: Ctrl-C from Linux itself when this program is killed and can ask no more."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGINT)


class Talk(threading.Thread):
    """Passes on what the runner prints, up to a bound; reads all of it, so that the runner never waits."""

    def __init__(self, runner: Any) -> None:
        super().__init__(daemon=True)
        self.stream = runner.stdout
        self.start()

    def run(self) -> None:
        left = MOST_PROGRESS
        silent = False
        for line in iter(lambda: self.stream.readline(LONGEST_LINE), b""):
            text = line.decode("utf-8", "replace").rstrip("\r\n")
            if silent:
                continue
            left -= len(text) + 1
            silent = left < 0
            try:
                say(line="... more than is shown here; run.log has what the runner logged" if silent else text)
            except OSError:
                silent = True  # the main thread sees the same, and ends the runner

    def finish(self) -> None:
        """The last lines; a process that left the runner's group may keep the stream open."""
        self.join(2.0)


def waited(runner: Any) -> int:
    """The runner's return code; ends it when the host is gone."""
    heard = time.monotonic()
    while runner.poll() is None:
        ready, _, _ = select.select([0], [], [], STEP)
        if ready:
            if not os.read(0, 4096):
                raise HostGone()
            heard = time.monotonic()
        elif time.monotonic() - heard > SILENCE:
            raise HostGone()
    return int(runner.returncode)


def end(runner: Any) -> None:
    """Ends the runner as Ctrl-C would, then less politely, and whatever it left in its group."""
    for signum, seconds in GRACE if runner.poll() is None else ():
        to_group(runner, signum)
        try:
            runner.wait(seconds)
            break
        except subprocess.TimeoutExpired:
            pass
    to_group(runner, signal.SIGKILL)


def to_group(runner: Any, signum: int) -> None:
    try:
        os.killpg(runner.pid, signum)
    except OSError as error:
        if error.errno not in (errno.ESRCH, errno.EPERM):
            raise


def content(path: str, most: int, tail: bool = False) -> Tuple[Optional[str], int]:
    """The text of a plain file and its size; the text is None where there is none, or it is too large to send."""
    try:
        found = os.lstat(path)
    except OSError:
        return None, 0
    if not stat.S_ISREG(found.st_mode):
        return None, 0
    if found.st_size > most and not tail:
        return None, found.st_size
    with open(path, "rb") as stream:
        stream.seek(max(found.st_size - most, 0))
        return stream.read(most).decode("utf-8", "replace"), found.st_size


def sha256_of(path: str) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        for block in iter(lambda: stream.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def os_problem(error: OSError, folder: str, request: Dict[str, Any]) -> str:
    if error.errno in _SPACE:
        return no_space(os.path.abspath(os.path.expanduser(folder)), request["size"] + request["unpacked_bytes"])
    return "{}: {}. Name a folder that can be written with --remote-folder.".format(
        error.filename or folder, error.strerror or error
    )


def no_space(path: str, needed: int) -> str:
    try:
        free = "{:.1f} MiB are free".format(shutil.disk_usage(path).free / 1048576.0)
    except OSError:
        free = "the disk is full"
    return (
        "there is no space in {}: {}, and the capsule takes {:.1f} MiB with what it unpacks to. Make room on the "
        "board, or name a folder on another disk with --remote-folder.".format(path, free, needed / 1048576.0)
    )


if __name__ == "__main__":
    sys.exit(main())
