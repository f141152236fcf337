"""Vision attention out of PyTorch and onto a Jetson or a desktop GPU: right, fast, provably so.

Importing this package imports none of the heavy rooms: each public name is
loaded when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from deploy_attn import engines
    from deploy_attn.benching.bench import BenchOptions, BenchReport, bench
    from deploy_attn.benching.estimate import estimate_artifact
    from deploy_attn.building import build_engine
    from deploy_attn.engines.build import BuildReport
    from deploy_attn.engines.builder import BuildOptions
    from deploy_attn.engines.latency.protocol import Effort
    from deploy_attn.engines.parity import verify
    from deploy_attn.engines.target import load_target, target_names
    from deploy_attn.engines.verdict import Verdict
    from deploy_attn.export.linting.fix import FixReport, fix_model
    from deploy_attn.export.linting.lint import LintReport, lint
    from deploy_attn.exporting import ExportReport, export_artifact
    from deploy_attn.fusing.fuse import fuse
    from deploy_attn.jetson.errors import BadRequest, DamagedArtifact, DeployAttnError
    from deploy_attn.modules.catalogue import available
    from deploy_attn.modules.create import create
    from deploy_attn.remote.fleet import RemoteReport, run_remote
    from deploy_attn.remote.options import RemoteOptions
    from deploy_attn.reporting import Report, report
    from deploy_attn.request import ExportRequest
    from deploy_attn.rewriting.rewrite import Rewrite, rewrite
    from deploy_attn.tuning.tune import TuneOptions, Tuning, tune

__version__ = "0.1.0"

_HOMES = {
    "available": "deploy_attn.modules.catalogue",
    "bench": "deploy_attn.benching.bench",
    "BenchOptions": "deploy_attn.benching.bench",
    "BenchReport": "deploy_attn.benching.bench",
    "build_engine": "deploy_attn.building",
    "BuildOptions": "deploy_attn.engines.builder",
    "BuildReport": "deploy_attn.engines.build",
    "create": "deploy_attn.modules.create",
    "Effort": "deploy_attn.engines.latency.protocol",
    "run_remote": "deploy_attn.remote.fleet",
    "RemoteOptions": "deploy_attn.remote.options",
    "RemoteReport": "deploy_attn.remote.fleet",
    "report": "deploy_attn.reporting",
    "Report": "deploy_attn.reporting",
    "rewrite": "deploy_attn.rewriting.rewrite",
    "Rewrite": "deploy_attn.rewriting.rewrite",
    "tune": "deploy_attn.tuning.tune",
    "TuneOptions": "deploy_attn.tuning.tune",
    "Tuning": "deploy_attn.tuning.tune",
    "estimate_artifact": "deploy_attn.benching.estimate",
    "fuse": "deploy_attn.fusing.fuse",
    "export_artifact": "deploy_attn.exporting",
    "ExportRequest": "deploy_attn.request",
    "ExportReport": "deploy_attn.exporting",
    "verify": "deploy_attn.engines.parity",
    "Verdict": "deploy_attn.engines.verdict",
    "fix_model": "deploy_attn.export.linting.fix",
    "FixReport": "deploy_attn.export.linting.fix",
    "lint": "deploy_attn.export.linting.lint",
    "LintReport": "deploy_attn.export.linting.lint",
    "load_target": "deploy_attn.engines.target",
    "target_names": "deploy_attn.engines.target",
    "DeployAttnError": "deploy_attn.jetson.errors",
    "BadRequest": "deploy_attn.jetson.errors",
    "DamagedArtifact": "deploy_attn.jetson.errors",
}

__all__ = [
    "BadRequest",
    "BenchOptions",
    "BenchReport",
    "BuildOptions",
    "BuildReport",
    "DamagedArtifact",
    "DeployAttnError",
    "Effort",
    "ExportReport",
    "ExportRequest",
    "FixReport",
    "LintReport",
    "RemoteOptions",
    "RemoteReport",
    "Report",
    "Rewrite",
    "TuneOptions",
    "Tuning",
    "Verdict",
    "__version__",
    "available",
    "bench",
    "build_engine",
    "create",
    "engines",
    "estimate_artifact",
    "export_artifact",
    "fix_model",
    "fuse",
    "lint",
    "load_target",
    "report",
    "rewrite",
    "run_remote",
    "target_names",
    "tune",
    "verify",
]


def __getattr__(name: str) -> object:
    if name == "engines":
        return importlib.import_module(f"{__name__}.engines")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
