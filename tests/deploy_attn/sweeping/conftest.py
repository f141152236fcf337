"""Where fake cells log."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy_attn.sweeping.made_with import code_version
from tests.deploy_attn.sweeping.sweeps import GO, HELD, LOG, Fakes


@pytest.fixture(autouse=True)
def code_as_it_is() -> None:
    """Processes that a test starts read the sources when they start, which a person may have edited by then."""
    code_version.cache_clear()


@pytest.fixture
def fakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fakes:
    found = Fakes(tmp_path / "fakes.log", tmp_path / "go", tmp_path / "held")
    monkeypatch.setenv(LOG, str(found.log))
    monkeypatch.setenv(GO, str(found.go))
    monkeypatch.setenv(HELD, str(found.held))
    return found
