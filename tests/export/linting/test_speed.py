"""Lint of 1,000 nodes as a whole process: quick enough for an editor or a commit hook to run it each time."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.export.linting.graphs import model_of, node

NODES = 1000
BOUND = 1.5  # times `import onnx`, both as whole processes
PAIRS = 8
ROUNDS = 3


def thousand_nodes() -> bytes:
    """Blocks of convolution, gate and residual sum, as a network of attention modules has them."""
    nodes, now = [], "x"
    for block in range(NODES // 5):
        names = [f"{part}{block}" for part in ("conv", "mean", "gate", "scaled", "sum")]
        nodes += [
            node("Conv", f"{now} w b", names[0], f"/{block}/Conv"),
            node("ReduceMean", names[0], names[1], f"/{block}/ReduceMean", axes=[2, 3]),
            node("Sigmoid", names[1], names[2], f"/{block}/Sigmoid"),
            node("Mul", f"{names[0]} {names[2]}", names[3], f"/{block}/Mul"),
            node("Add", f"{names[3]} {now}", names[4], f"/{block}/Add"),
        ]
        now = names[4]
    shape = (1, 16, 32, 32)
    weights = {"w": np.ones((16, 16, 1, 1), np.float32), "b": np.zeros(16, np.float32)}
    content: bytes = model_of(nodes, {"x": shape}, {now: shape}, weights).SerializeToString()
    return content


@pytest.fixture
def compiled(tmp_path: Path) -> dict[str, str]:
    """The environment of an installed package: its modules are compiled once, as pip does."""
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": str(tmp_path / "compiled")}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    return environment


def test_lint_takes_little_more_than_importing_onnx(tmp_path: Path, compiled: dict[str, str]) -> None:
    file = tmp_path / "model.onnx"
    file.write_bytes(thousand_nodes())
    lint = [sys.executable, "-m", "deploy_attn", "lint", str(file), "--target", "jetson-nano"]
    imported = [sys.executable, "-c", "import onnx"]
    for command in (lint, imported):
        assert seconds(command, compiled) > 0  # compiles what is not compiled yet
    medians: list[float] = []
    while not medians or (min(medians) >= BOUND and len(medians) < ROUNDS):
        # Side by side, for the machine's clock changes; and again, for what else runs on it.
        ratios = [seconds(lint, compiled) / seconds(imported, compiled) for _ in range(PAIRS)]
        medians.append(statistics.median(ratios))
    assert min(medians) < BOUND, medians


def seconds(command: list[str], environment: dict[str, str]) -> float:
    """How long a command takes that ends well."""
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, check=False, env=environment)
    taken = time.perf_counter() - start
    assert done.returncode == 0, done.stderr
    return taken
