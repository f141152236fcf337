"""Exports share a machine, a measurement has it to itself."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from deploy_attn.jetson.errors import DeployAttnError
from deploy_attn.sweeping.device import device


@pytest.mark.parametrize(
    ("held", "asked", "together"),
    [(False, False, True), (False, True, False), (True, False, False), (True, True, False)],
)
def test_who_may_run_beside_whom(tmp_path: Path, held: bool, asked: bool, together: bool) -> None:
    entered = threading.Event()

    def enter() -> None:
        with device(asked, tmp_path / "lock"):
            entered.set()

    with device(held, tmp_path / "lock"):
        thread = threading.Thread(target=enter)
        thread.start()
        assert entered.wait(10 if together else 0.1) == together
    thread.join(10)
    assert entered.is_set()


def test_a_lock_that_is_a_link_or_a_pipe_is_refused(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DeployAttnError, match="cannot be opened"), device(True, tmp_path / "link"):
        pass
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DeployAttnError, match=r"not a plain file of yours"), device(True, tmp_path / "pipe"):
        pass
    assert not (tmp_path / "elsewhere").exists()


def test_a_lock_that_another_user_laid_there_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getuid", lambda: os.stat(tmp_path).st_uid + 1)
    with pytest.raises(DeployAttnError, match=r"not a plain file of yours.*TMPDIR"), device(True, tmp_path / "lock"):
        pass
