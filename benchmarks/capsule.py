"""What a capsule's runner costs beside onnxruntime: time to the first result, and memory.

    python benchmarks/capsule.py [--python PYTHON] [--pairs N]

Bundles cbam for the Jetson Nano and starts it N times with --engine onnxruntime,
each run beside a process that only imports onnxruntime, loads the same session
and runs it once. PYTHON is any interpreter with numpy and onnxruntime; on a
board's own, 3.6. Exits with 1 where the time is more than 1.3 times the bare
one, or the runner's memory is 60 MB or more above that of numpy and the session.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from deploy_attn import ExportRequest, export_artifact
from deploy_attn.bundling import bundle
from deploy_attn.jetson.capsule import unpack

MOST_TIMES, MOST_BYTES = 1.3, 60e6
BARE = """
import sys
import numpy as np
import onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
with np.load(sys.argv[2]) as arrays:
    feeds = {"input": arrays["normal/inputs/input"]}
session.run(None, feeds)
print("first result", flush=True)
"""
# Not ru_maxrss, which begins with what the parent had when it forked.
PEAK = """
import sys
with open("/proc/self/status") as stream:
    peak = [int(line.split()[1]) * 1024 for line in stream if line.startswith("VmHWM")][0]
sys.stderr.write("peak %d\\n" % peak)
"""
# The runner, and what it holds: its own launcher, then the peak of the process.
RUNNER = """
import os, sys
sys.argv[1:] = ["--engine", "onnxruntime", "--quick", "--duration", "0.1"]
here = os.path.dirname(os.path.abspath(sys.argv[0]))
sys.path.insert(0, here)
from jetson import findings
noting = findings.Findings.noting_first
def told(self, infer):
    noted = noting(self, infer)
    def run(feeds):
        first = self._first is None
        outputs = noted(feeds)
        if first:
            sys.stderr.write("first result\\n")
            sys.stderr.flush()
        return outputs
    return run
findings.Findings.noting_first = told
from jetson.run import main
code = main(sys.argv[1:], here)
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", default=sys.executable, help="the interpreter that runs the capsule")
    parser.add_argument("--pairs", type=int, default=15)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = made(Path(folder))
        (place / "bare.py").write_text(BARE + PEAK, encoding="utf-8")
        (place / "runner.py").write_text(RUNNER + PEAK + "sys.exit(code)", encoding="utf-8")
        graph, reference = (str(Path(folder) / "cbam" / name) for name in ("model.onnx", "reference.npz"))
        commands = {
            "bare": [asked.python, str(place / "bare.py"), graph, reference],
            "runner": [asked.python, str(place / "runner.py")],
        }
        measured(commands["bare"]), measured(commands["runner"])  # bytecode and files come from memory after that
        found: dict[str, list[tuple[float, int]]] = {"bare": [], "runner": []}
        for _ in range(asked.pairs):
            for name, command in commands.items():
                found[name].append(measured(command))
    return shown(found)


def made(folder: Path) -> Path:
    """The unpacked capsule."""
    request = ExportRequest("cbam", target="jetson-nano", output=folder / "cbam")
    report = bundle(export_artifact(request).folder, "jetson-nano", folder / "cbam.tar.gz")
    parts = ", ".join(f"{name} {size:,}" for name, size in report.parts.items())
    print(f"capsule: {report.size_bytes:,} bytes; before compression: {parts}")
    return Path(unpack(str(report.archive), str(folder)))


def measured(command: list[str]) -> tuple[float, int]:
    """Seconds from the start to the first result, and the peak of memory in bytes."""
    began = time.perf_counter()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, cwd="/"
    )
    seconds, lines = 0.0, []
    for line in process.stdout or ():
        if line.startswith("first result"):
            seconds = time.perf_counter() - began
        lines.append(line)
    if process.wait() != 0 or not seconds:
        raise SystemExit("".join(lines))
    peak = next(line for line in reversed(lines) if line.startswith("peak "))
    return seconds, int(peak.removeprefix("peak "))


def shown(found: dict[str, list[tuple[float, int]]]) -> int:
    seconds = {name: [one for one, _ in runs] for name, runs in found.items()}
    memory = {name: statistics.median(peak for _, peak in runs) for name, runs in found.items()}
    ratios = sorted(mine / bare for mine, bare in zip(seconds["runner"], seconds["bare"]))
    for name, times in seconds.items():
        print(
            f"{name}: first result after {statistics.median(times):.3f} s (n = {len(times)}, {min(times):.3f} to "
            f"{max(times):.3f}); peak memory {memory[name] / 1e6:.1f} MB"
        )
    ratio, more = statistics.median(ratios), memory["runner"] - memory["bare"]
    print(f"ratio of pairs: median {ratio:.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f}), of {MOST_TIMES} allowed")
    print(f"memory above the bare session: {more / 1e6:.1f} MB, of {MOST_BYTES / 1e6:.0f} allowed")
    return int(ratio > MOST_TIMES or more >= MOST_BYTES)


if __name__ == "__main__":
    sys.exit(main())
