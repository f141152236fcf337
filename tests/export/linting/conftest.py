"""Fixtures of the tests of lint."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx
import pytest

Save = Callable[..., Path]


@pytest.fixture
def save(tmp_path: Path) -> Save:
    """Writes a model, or any bytes, as an ONNX file in a folder of its own; the file's path."""

    def write(model: onnx.ModelProto | bytes, name: str = "model.onnx") -> Path:
        file = tmp_path / name
        file.write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
        return file

    return write
