"""Whole-process cost of the command line, as paired ratios to what it cannot do without.

Run by hand on a quiet machine, from an environment that holds a wheel of this
project: `python benchmarks/processes.py`. Each pair runs command and baseline in
random order; the ratio is taken within the pair, because a machine's speed
drifts between pairs. The bounds are the project's own.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

BIN = Path(sys.executable).parent
PASS = (sys.executable, "-c", "pass")
IMPORTS = (sys.executable, "-c", "import torch, onnx, onnxruntime")


@dataclass(frozen=True)
class Comparison:
    """A command against its baseline, with the most that it may cost relative to it."""

    name: str
    command: tuple[str, ...]
    baseline: tuple[str, ...]
    wall_bound: float
    memory_bound: float | None
    pairs: int


@dataclass(frozen=True)
class Cost:
    """One finished process, as the operating system accounts for it."""

    wall_s: float
    peak_kib: int


def main() -> int:
    """Exit code 1 if a median is over its bound."""
    parser = argparse.ArgumentParser(description="Whole-process cost of the command line.")
    parser.add_argument("--pairs", type=int, default=20, help="counted pairs of each comparison")
    pairs: int = parser.parse_args().pairs
    with tempfile.TemporaryDirectory() as folder:
        rows = [report(comparison) for comparison in comparisons(folder, pairs)]
    return 0 if all(rows) else 1


def comparisons(folder: str, pairs: int) -> list[Comparison]:
    tool = str(BIN / "deploy-attn")
    export = (tool, "export", "cbam", "--fp16", "-o", f"{folder}/cbam", "--force")
    return [
        Comparison("--help / pass", (tool, "--help"), PASS, 4.0, None, pairs),
        Comparison("list / pass", (tool, "list"), PASS, 4.0, None, pairs),
        Comparison("list --json / pass", (tool, "list", "--json"), PASS, 4.0, None, pairs),
        Comparison("export cbam --fp16 / imports", export, IMPORTS, 2.0, 1.5, pairs),
    ]


def report(comparison: Comparison) -> bool:
    """Runs the pairs, prints a line a figure, and says whether the medians are within bounds."""
    for warm_up in (comparison.command, comparison.baseline):
        cost(warm_up)
    walls, memories = [], []
    for _ in range(comparison.pairs):
        order = [comparison.command, comparison.baseline]
        random.shuffle(order)
        costs = {command: cost(command) for command in order}
        ours, base = costs[comparison.command], costs[comparison.baseline]
        walls.append(ours.wall_s / base.wall_s)
        memories.append(ours.peak_kib / base.peak_kib)
    held = _line(comparison.name, "wall", walls, comparison.wall_bound)
    if comparison.memory_bound is not None:
        held &= _line(comparison.name, "peak memory", memories, comparison.memory_bound)
    return held


def cost(command: tuple[str, ...]) -> Cost:
    """Runs a command with its output thrown away."""
    started = time.perf_counter()
    with Path(os.devnull).open("wb") as sink:
        pid = os.posix_spawn(command[0], command, os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, sink.fileno(), 1)])
        _, status, usage = os.wait4(pid, 0)
    if os.waitstatus_to_exitcode(status) != 0:
        raise RuntimeError(f"{' '.join(command)} exited with {os.waitstatus_to_exitcode(status)}")
    return Cost(time.perf_counter() - started, usage.ru_maxrss)


def _line(name: str, figure: str, ratios: list[float], bound: float) -> bool:
    median = statistics.median(ratios)
    verdict = "ok" if median <= bound else "OVER"
    spread = f"{min(ratios):.2f}..{max(ratios):.2f}"
    print(f"{name:<30} {figure:<12} median {median:5.2f}  ({spread}, n={len(ratios)})  bound {bound:g}  {verdict}")
    return median <= bound


if __name__ == "__main__":
    sys.exit(main())
