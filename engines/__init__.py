"""Artifact -> running engine: targets, runners, parity. Never imports torch.

One runtime a file; `runner_for` finds it by name and imports it only then.
"""

if __name__ == "engines":
    raise ImportError("import deploy_attn.engines, not engines: this folder is the source of that subpackage")

from deploy_attn.engines.base import ENGINES, Runner, runner_for
from deploy_attn.engines.parity import verify
from deploy_attn.engines.target import Target, load_target, target_names
from deploy_attn.engines.tolerance import TOLERANCES, Tolerance
from deploy_attn.engines.verdict import Verdict

__all__ = [
    "ENGINES",
    "TOLERANCES",
    "Runner",
    "Target",
    "Tolerance",
    "Verdict",
    "load_target",
    "runner_for",
    "target_names",
    "verify",
]
