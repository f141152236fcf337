"""An artifact's graph in an engine, as a user's own program runs it."""

from __future__ import annotations

from pathlib import Path

from deploy_attn.engines.base import Runner, engine_class
from deploy_attn.engines.parity import graph_of
from deploy_attn.jetson.artifact import open_artifact
from deploy_attn.jetson.errors import BadRequest
from deploy_attn.jetson.parity import check_manifest


def load(path: str | Path, engine: str = "onnxruntime", precision: str | None = None) -> Runner:
    """The runner of an artifact's graph, with the settings that `deploy-attn tune` stored for it, or the defaults.

    >>> with load("out/cbam") as runner:  # doctest: +SKIP
    ...     outputs = runner.infer({"input": x})

    Hashes are checked; parity is not run again. `runner.conditions()` says which settings are used. They suit the
    machine that tuned; on another one, tune again.

    Args:
        path: a folder that `export` wrote.
        precision: `fp32` or `fp16`; None for FP32 in onnxruntime on a CPU, which computes FP16 graphs in FP32, and for
            FP16 elsewhere where the artifact and the engine have it.

    Raises:
        BadRequest: not an artifact, an unknown engine, a precision that the artifact or the engine does not have, or
            stored settings of another artifact. What the engine itself lacks is raised when the runner is entered.
        DamagedArtifact: a file differs from the manifest.
    """
    chosen = engine_class(engine)
    artifact = open_artifact(str(path))
    check_manifest(artifact)
    listed = {graph["precision"]: graph for graph in artifact.manifest["graphs"]}
    if precision is not None and precision not in listed:
        remedy = "Export it with --fp16." if precision == "fp16" else "Name one of these."
        raise BadRequest(f"{path} has no graph in {precision!r}; it has {' and '.join(listed)}. {remedy}")
    if precision not in (None, *chosen.prefers):
        raise BadRequest(f"{engine} runs {' and '.join(chosen.prefers)} only, and {precision} was asked for.")
    made = chosen(artifact)
    for name in (precision,) if precision else chosen.prefers:
        if name in listed:
            run = next(iter(made.runs(graph_of(artifact, listed[name]))), None)
            if run is not None:
                return run.runner
    wanted = precision or " or ".join(listed)
    raise BadRequest(f"{engine} has nothing built of {path} in {wanted}. Build it with `deploy-attn build`.")
