"""Who may use a folder beside whom."""

from __future__ import annotations

import fcntl
import sys
import threading
from pathlib import Path

import pytest

from deploy_attn.engines.folder_lock import locked


@pytest.mark.parametrize(
    ("held", "asked", "together"),
    [(False, False, True), (False, True, False), (True, False, False), (True, True, False)],
)
def test_readers_share_a_folder_and_a_writer_has_it_alone(
    tmp_path: Path, held: bool, asked: bool, together: bool
) -> None:
    entered = threading.Event()

    def enter() -> None:
        with locked(tmp_path, asked):
            entered.set()

    with locked(tmp_path, held):
        thread = threading.Thread(target=enter)
        thread.start()
        assert entered.wait(10 if together else 0.1) == together
    thread.join(10)
    assert entered.is_set()


def test_a_system_without_locks_goes_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fcntl", None)
    with locked(tmp_path, exclusive=True), locked(tmp_path, exclusive=True):
        pass


def test_a_file_system_without_locks_goes_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(descriptor: int, operation: int) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", refuses)
    with locked(tmp_path, exclusive=True), locked(tmp_path, exclusive=True):
        pass
