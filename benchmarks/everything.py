"""All that docs/performance.md tells, measured anew one after another, and the page written from it.

Run by hand on a quiet machine: `make measured`, or `python benchmarks/everything.py`; about an hour, or for
some steps only `--only forms floor`. It needs `pip install 'deploy-attn[cpu,rtx,dev,peers]'` and a C++ compiler. A step
starts when nothing else runs; what other processes took meanwhile is kept in docs/measured/quiet.json and told with the
conditions. A step that fails does not keep the next from running.

Exit code 1 if a step failed or something else ran meanwhile, 2 if the machine does not become quiet.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from cases import MEASURED, Results, machine

from deploy_attn.engines.latency.load import Load, load_between, read_load

HERE = Path(__file__).resolve().parent
# Name of what is measured -> the script that does, with its arguments, in the order of the page.
STEPS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "forms": ("forms.py",),
        "choice": ("forms.py", "--choice"),
        "peers": ("peers.py",),
        "floor": ("floor.py",),
        "networks": ("networks.py",),
        "fp16": ("fp16.py",),
        "ops": ("operators.py",),
        "kernels": ("kernels.py",),
    }
)
UNTIMED = frozenset({"fp16", "ops", "kernels"})
LOOK_S = 5.0
PATIENCE_S = 300.0


def main() -> int:
    """Measures step by step, writes the pages, and says what did not hold."""
    parser = argparse.ArgumentParser(description="Everything that docs/performance.md tells, measured anew.")
    parser.add_argument("--only", nargs="+", choices=list(STEPS), default=list(STEPS), help="only these steps")
    wanted: list[str] = parser.parse_args().only
    quiet = Results(MEASURED / "quiet.json", {"machine": machine()}, ("name",), [(name,) for name in wanted])
    failures = []
    for name in wanted:
        if name not in UNTIMED:
            wait_for_quiet()
        print(f"--- {' '.join(STEPS[name])}", flush=True)
        code, load = run(STEPS[name])
        if code:
            failures.append(f"{name}: exit code {code}")
        if name in UNTIMED or load is None:
            continue
        others, stolen = round(load.others, 3), round(load.stolen, 3)
        quiet.add({"name": name, "seconds": round(load.seconds), "others": others, "stolen": stolen})
        if load.reason:
            failures.append(f"{name}: {load.reason} meanwhile")
    generated = subprocess.run([sys.executable, str(HERE.parent / "docs" / "generate.py")], check=False).returncode
    print("\n".join(failures), file=sys.stderr)
    return 1 if failures or generated else 0


def run(step: tuple[str, ...]) -> tuple[int, Load | None]:
    """The exit code of a script, and what others used while it ran: all that was busy, less it and what it started."""
    script, *arguments = step
    # A thread that waits for work must not run while another graph is timed.
    environment = {"OMP_WAIT_POLICY": "PASSIVE", **os.environ}
    before = read_load()
    own = _children_s()
    code = subprocess.run([sys.executable, str(HERE / script), *arguments], env=environment, check=False).returncode
    own = _children_s() - own
    after = read_load()
    if after is not None:
        after = dataclasses.replace(after, own=after.own + own)
    return code, load_between(before, after)


def wait_for_quiet() -> None:
    """Returns when nothing else runs.

    Raises:
        SystemExit: it does not come to that.
    """
    for _ in range(int(PATIENCE_S / LOOK_S)):
        before = read_load()
        time.sleep(LOOK_S)
        load = load_between(before, read_load())
        if load is None or not load.reason:
            return
        print(f"waiting: {load.reason}", flush=True)
    print(f"The machine was not quiet for {PATIENCE_S:g} s. End what else runs, and start again.", file=sys.stderr)
    raise SystemExit(2)


def _children_s() -> float:
    times = os.times()
    return times.children_user + times.children_system


if __name__ == "__main__":
    sys.exit(main())
