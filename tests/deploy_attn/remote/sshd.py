"""A board for the tests: a real sshd on the loopback address, with a Python 3.6 and a home folder of its own."""

from __future__ import annotations

import contextlib
import getpass
import importlib.machinery
import importlib.util
import os
import shlex
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncssh
import pytest

ROOT = Path(__file__).resolve().parents[3]
ROW = "py36-onnxruntime"
_TRIES, _START_SECONDS = 5, 10.0
_CONFIG = """\
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/authorized_keys
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
MaxStartups 100
PrintMotd no
PrintLastLog no
SetEnv HOME={folder}/home PATH={folder}/bin:/usr/bin:/bin
"""


@dataclass
class Board:
    """A host that answers to SSH; `python3` on it is `folder/bin/python3`."""

    folder: Path
    port: int = 0
    process: subprocess.Popen[bytes] | None = None
    host_key: asyncssh.SSHKey = field(default_factory=lambda: asyncssh.generate_private_key("ssh-ed25519"))

    @property
    def address(self) -> str:
        return f"{getpass.getuser()}@127.0.0.1:{self.port}"

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def cache(self) -> Path:
        return self.home / ".cache" / "deploy-attn"

    def capsules(self) -> list[str]:
        return sorted(file.name for file in (self.cache / "capsules").glob("*"))

    def left_behind(self) -> list[str]:
        """What lies in the board's cache but the capsules and the lock."""
        found = {file.name for file in self.cache.glob("*")} if self.cache.exists() else set()
        return sorted(found - {"capsules", "lock"})

    def known(self, port: int | None = None) -> str:
        """Its line of known_hosts, as by another port where a wire is before it."""
        return f"[127.0.0.1]:{port or self.port} {self.host_key.export_public_key().decode('ascii').strip()}\n"

    def clear(self) -> None:
        """As it was before anything ran on it."""
        shutil.rmtree(self.home, ignore_errors=True)
        self.home.mkdir()

    def pid(self) -> int:
        """Of a runner that told it; waits until it did."""
        file = self.home / "pid"
        wait_for(file.is_file)
        return int(file.read_text(encoding="ascii"))

    def authorize(self, key: asyncssh.SSHKey) -> None:
        (self.folder / "authorized_keys").write_bytes(key.export_public_key())

    def set_python(self, python: str, **environment: str) -> None:
        """What `python3` is on the board."""
        script = self.folder / "bin" / "python3"
        script.parent.mkdir(exist_ok=True)
        given = " ".join(f"{name}={shlex.quote(value)}" for name, value in environment.items())
        script.write_text(f'#!/bin/sh\n{given} exec {shlex.quote(python)} "$@"\n', encoding="utf-8")
        script.chmod(0o755)

    def start(self) -> None:
        """Starts sshd and waits until it listens."""
        (self.folder / "host_key").write_bytes(self.host_key.export_private_key())
        (self.folder / "host_key").chmod(0o600)
        self.home.mkdir(exist_ok=True)
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # sshd's own, which a service would make
        program = sshd_program()
        for _ in range(_TRIES):
            self.port = free_port()
            config = self.folder / "sshd_config"
            config.write_text(_CONFIG.format(port=self.port, folder=self.folder), encoding="utf-8")
            with (self.folder / "sshd.log").open("wb") as log:
                self.process = subprocess.Popen([program, "-D", "-e", "-f", str(config)], stderr=log)
            if self._listens():
                return
        pytest.fail(f"sshd does not start: {(self.folder / 'sshd.log').read_text(encoding='utf-8')}")

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait(10)

    def _listens(self) -> bool:
        assert self.process is not None
        until = time.monotonic() + _START_SECONDS
        while self.process.poll() is None and time.monotonic() < until:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return True
            time.sleep(0.02)
        self.stop()
        return False


class Wire:
    """A port that leads to a board's, until it is cut."""

    def __init__(self, board: Board, cut_after: int | None = None) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._sockets: list[socket.socket] = []
        self._to = board.port
        self.sent = 0  # bytes towards the board
        self.cut_after = cut_after
        threading.Thread(target=self._serve, daemon=True).start()

    def cut(self) -> None:
        for one in (self._listener, *self._sockets):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            near, _ = self._listener.accept()
            far = socket.create_connection(("127.0.0.1", self._to))
            self._sockets += [near, far]
            threading.Thread(target=self._pump, args=(far, near, False), daemon=True).start()
            self._pump(near, far, True)

    def _pump(self, source: socket.socket, goal: socket.socket, outward: bool) -> None:
        with contextlib.suppress(OSError):
            while block := source.recv(1 << 14):
                goal.sendall(block)
                self.sent += len(block) * outward
                if self.cut_after is not None and self.sent > self.cut_after:
                    break
        self.cut()


def sshd_program() -> str:
    """The path of sshd. Fails the test where there is none: what `remote` promises is tested against a real one."""
    found = shutil.which("sshd", path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"]))
    if found is None:
        pytest.fail("sshd is missing, and these tests run against a real one: apt-get install openssh-server")
    return found


def board_python() -> str:
    """Python 3.6 with numpy 1.16.6 and onnxruntime 1.10.0, as `.ci/interpreters` makes it."""
    interpreters = _interpreters()
    interpreter = interpreters.locate("3.6")
    if interpreter is None:
        if interpreters.may_be_missing():
            return sys.executable
        pytest.fail(interpreters.how_to_get("3.6"))
    (row,) = (one for one in interpreters.ROWS if one.name == ROW)
    interpreters.build_of(row).mkdir(parents=True, exist_ok=True)
    with interpreters.log_of(row).open("a", encoding="utf-8") as log:
        return str(interpreters.environment(row, interpreter, log))


def _interpreters() -> Any:
    loader = importlib.machinery.SourceFileLoader("ci_interpreters", str(ROOT / ".ci" / "interpreters"))
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[loader.name] = module  # where dataclasses look for it
    loader.exec_module(module)
    return module


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that ended and was not waited for does not."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as stream:
            return stream.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_for(what: Any, seconds: float = 10.0) -> None:
    """Waits until a call gives something true; fails where it does not in time."""
    until = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < until, f"{what} did not come true in {seconds:g} s"
        time.sleep(0.02)


@contextlib.contextmanager
def running(board: Board) -> Iterator[Board]:
    board.start()
    try:
        yield board
    finally:
        board.stop()
