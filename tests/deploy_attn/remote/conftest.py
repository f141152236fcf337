"""A board on the loopback address, and a user who can log in to it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import asyncssh
import pytest

from deploy_attn import ExportRequest, export_artifact
from deploy_attn.bundling import bundle
from tests.deploy_attn.remote.capsules import stand_in
from tests.deploy_attn.remote.sshd import Board, board_python, running


@dataclass(frozen=True)
class User:
    """Who runs the command: a home folder with a key."""

    home: Path
    key: asyncssh.SSHKey

    @property
    def ssh(self) -> Path:
        return self.home / ".ssh"

    def know(self, *lines: str) -> None:
        (self.ssh / "known_hosts").write_text("".join(lines), encoding="utf-8")

    def configure(self, text: str) -> None:
        (self.ssh / "config").write_text(text, encoding="utf-8")


@pytest.fixture(scope="session")
def python36() -> str:
    return board_python()


@pytest.fixture(scope="session")
def host_of_tests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Board]:
    with running(Board(tmp_path_factory.mktemp("board"))) as board:
        yield board


@pytest.fixture
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> User:
    home = tmp_path / "user"
    (home / ".ssh").mkdir(parents=True)
    key = asyncssh.generate_private_key("ssh-ed25519")
    (home / ".ssh" / "id_ed25519").write_bytes(key.export_private_key())
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    return User(home, key)


@pytest.fixture
def board(host_of_tests: Board, user: User, python36: str) -> Board:
    """A board that knows the user and that the user knows, with nothing on it."""
    host_of_tests.clear()
    host_of_tests.set_python(python36)
    host_of_tests.authorize(user.key)
    user.know(host_of_tests.known())
    return host_of_tests


@pytest.fixture
def second_board(board: Board, user: User, python36: str, tmp_path: Path) -> Iterator[Board]:
    folder = tmp_path / "second"
    folder.mkdir()
    with running(Board(folder)) as second:
        second.set_python(python36)
        second.authorize(user.key)
        user.know(board.known(), second.known())
        yield second


@pytest.fixture(scope="session")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("artifact") / "se"
    return export_artifact(ExportRequest("se", shape=(1, 16, 5, 6), target="jetson-nano", output=folder)).folder


@pytest.fixture(scope="session")
def real_capsule(artifact: Path) -> Path:
    return bundle(artifact, "jetson-nano").archive


@pytest.fixture
def capsule(real_capsule: Path, tmp_path: Path) -> Callable[[str], Path]:
    """Makes a capsule whose run.py is this text."""

    def make(run: str) -> Path:
        folder = tmp_path / f"capsule{len(os.listdir(tmp_path))}"
        folder.mkdir()
        return stand_in(real_capsule, folder, run)

    return make
