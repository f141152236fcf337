"""Stands in for a cell's process: no export, no measurement; what it does is told by the module's name.

It leaves a line in DEPLOY_ATTN_FAKE_LOG each time it starts and ends.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

FIGURES = {
    "median_ms": 0.25,
    "p90_ms": 0.5,
    "n": 30,
    "baseline": "naive",
    "ratio": {"median": 1.5, "p10": 1.4, "p90": 1.6, "pairs": 30, "error": 0.01},
    "claim": "1.5 times as fast",
    "refused": None,
}
OUTCOME = {
    "status": "done",
    "reason": "",
    "holds": True,
    "figures": FIGURES,
    "where": "nowhere",
    "made_with": {},
    "when": "2026-01-01T00:00:00+00:00",
    "seconds": 0.1,
}


def main(folder: Path) -> None:
    job = json.loads((folder / "job.json").read_text())
    name = job["cell"]["module"]
    told(f"begin {name} {job['cell']['precision']}")
    (folder / job["name"]).mkdir()
    (folder / job["name"] / "manifest.json").write_text(json.dumps({"of": name}))
    if name in ("family", "early"):
        has_a_child(os.environ["DEPLOY_ATTN_FAKE_HELD"])
    if name in ("crash", "family"):
        os.kill(os.getpid(), signal.SIGSEGV)
    if name == "memory":
        os.kill(os.getpid(), signal.SIGKILL)
    if name == "exits":
        sys.exit("said at the end")
    if name == "silent":
        return
    if name == "vanishes":
        shutil.rmtree(folder.parents[1])
        return
    if name == "slow":
        time.sleep(0.3)
    if name == "stuck":
        waits(folder)
    refused = {**OUTCOME, "status": "failed", "reason": "the module refuses it", "holds": None, "figures": None}
    (folder / "answer.json").write_text(json.dumps(refused if name == "refused" else OUTCOME))
    told(f"end {name} {job['cell']['precision']}")


def has_a_child(file: str) -> None:
    """One that outlives this process, and has a lock on a file as long as it lives."""
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(300)"], pass_fds=[descriptor])


def waits(folder: Path) -> None:
    """Until the file that DEPLOY_ATTN_FAKE_GO names is there, or whoever started this is gone."""
    os.set_blocking(0, False)
    while not os.path.exists(os.environ["DEPLOY_ATTN_FAKE_GO"]):
        with contextlib.suppress(BlockingIOError):
            if os.read(0, 1) == b"":
                told("orphan")
                sys.exit(1)
        time.sleep(0.02)


def told(line: str) -> None:
    with open(os.environ["DEPLOY_ATTN_FAKE_LOG"], "a") as log:
        log.write(f"{line} {os.getppid()}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
