"""From an artifact to an engine, with what the target would refuse or misread said first."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from deploy_attn.engines.build import BuildReport, prepare_build
from deploy_attn.engines.builder import BuildOptions, Progress
from deploy_attn.jetson.errors import DeployAttnError

if TYPE_CHECKING:
    from deploy_attn.export.linting.finding import Finding

_MOST_FINDINGS = 5


def build_engine(
    folder: str | Path,
    engine: str,
    target: str,
    options: BuildOptions | None = None,
    on_progress: Progress | None = None,
) -> BuildReport:
    """Builds an artifact's engine for a target, unless lint has errors for it.

    Arguments and what else is raised are those of `deploy_attn.engines.build.build_engine`, which does not lint.

    Raises:
        DeployAttnError: lint has errors, and nothing was built.
    """
    prepared = prepare_build(folder, engine, target, options)
    from deploy_attn.export.linting.lint import lint

    report = lint(folder, target)
    errors = [finding for finding in report.findings if finding.is_error]
    if errors:
        raise _spoken_against(folder, target, errors)
    return prepared.run(on_progress)


def _spoken_against(folder: str | Path, target: str, errors: Sequence[Finding]) -> DeployAttnError:
    shown = [
        f"{error.rule}: {error.node or 'the model'} ({error.effect}): {error.why} {error.remedy}"
        for error in errors[:_MOST_FINDINGS]
    ]
    more = [f"and {len(errors) - _MOST_FINDINGS} more"] if len(errors) > _MOST_FINDINGS else []
    heading = f"{folder} was not built: TensorRT on {target} would refuse its graph, or compute something else."
    advice = f"Export it with --target {target}. `deploy-attn lint {folder} --target {target}` lists everything."
    return DeployAttnError("\n  ".join([heading, *shown, *more]) + f"\n{advice}")
