"""Fixtures of the command line's tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.deploy_attn.command_line import NETWORK


@pytest.fixture
def network(in_folder: Path) -> Path:
    """net.py in the current folder, with factories that work and some that do not."""
    file = in_folder / "net.py"
    file.write_text(NETWORK, encoding="utf-8")
    return file
