"""The digits example: a trained network on real images keeps its accuracy through both graphs."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "digits" / "run.py"
POINTS = 0.2


def test_top1_survives_the_export(tmp_path: Path) -> None:
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, str(EXAMPLE), "--output", "out", "--target", "jetson-nano"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "PASS" in done.stdout
    assert "replaced  2 x cbam at attention, body_attention" in done.stdout
    lines = [line.rsplit(maxsplit=2) for line in done.stdout.splitlines() if line.startswith("top-1")]
    accuracies = [float(percent) for _, percent, _ in lines]
    assert len(accuracies) == 4
    assert min(accuracies) > 97
    assert max(accuracies) - min(accuracies) <= POINTS
    assert time.perf_counter() - started < 60
