"""The runner of an artifact's graph as it is timed: tuned settings if any, threads as asked, none of them spinning."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace

from deploy_attn.engines.base import Engine, Feeds, Runner, engine_class
from deploy_attn.engines.latency.machine import usable_cpus
from deploy_attn.engines.latency.result import Candidate
from deploy_attn.engines.onnxruntime import OnnxRuntimeCpu
from deploy_attn.engines.parity import graph_of
from deploy_attn.engines.settings import CPU, Settings
from deploy_attn.engines.settings_file import stored_settings
from deploy_attn.jetson.artifact import Artifact
from deploy_attn.jetson.errors import BadRequest, DeployAttnError, first_line


def timed_settings(artifact: Artifact, precision: str, threads: int | None) -> Settings:
    """onnxruntime's settings on a CPU: those that were tuned, else the defaults on one thread.

    Threads do not spin: those of one session would take the cores from the other.

    Args:
        threads: instead of the tuned number; None to keep it.

    Raises:
        BadRequest: more threads than there are processors, or stored settings of another artifact.
    """
    if threads is not None and not 1 <= threads <= usable_cpus():
        raise BadRequest(
            f"{threads} threads were asked for, and this process may use {usable_cpus()} processors. Possible are 1 to "
            "as many."
        )
    stored = stored_settings(artifact).get(precision)
    settings = stored or Settings(intra_op_threads=1, inter_op_threads=1)
    return replace(settings, intra_op_threads=threads or settings.intra_op_threads or 1, spinning=False)


def engine_settings(engine: str, artifact: Artifact, precision: str, threads: int | None) -> Settings | None:
    """Those that an engine is timed with: its fixed ones, else `timed_settings`; None where it has none.

    Raises:
        BadRequest: as `timed_settings`, or threads that the engine does not have.
    """
    found = engine_class(engine)
    if not issubclass(found, OnnxRuntimeCpu):
        return None
    if found.fixed is None:
        return timed_settings(artifact, precision, threads)
    if threads not in (None, found.fixed.intra_op_threads):
        raise BadRequest(
            f"{threads} threads were asked for, and {engine} runs on {found.fixed.intra_op_threads}. "
            "Leave --threads out."
        )
    return found.fixed


def rival_settings(engine: str, threads: int) -> Settings:
    """onnxruntime's defaults, on the engine's own provider: what a user has who sets no more than the threads."""
    provider = getattr(engine_class(engine), "provider", CPU)
    return Settings(provider, intra_op_threads=threads, inter_op_threads=1, spinning=False)


def timed_runner(artifact: Artifact, engine: str, precision: str, settings: Settings | None) -> Runner:
    """A runner of the graph of that precision, not active yet.

    Args:
        settings: as `engine_settings` gives them.

    Raises:
        BadRequest: the engine is unknown, or has nothing built of this graph.
    """
    listed = next(graph for graph in artifact.manifest["graphs"] if graph["precision"] == precision)
    found = engine_class(engine)
    if settings is not None and issubclass(found, OnnxRuntimeCpu):
        made: Engine = found(artifact, {precision: settings})
    else:
        made = found(artifact)
    run = next(iter(made.runs(graph_of(artifact, listed))), None)
    if run is None:
        raise BadRequest(
            f"{engine} has nothing built of {artifact.path} in {precision}. Build it: `deploy-attn build "
            f"{artifact.path} --engine {engine} --target TARGET --precision {precision}`."
        )
    return run.runner


def is_cpu(engine: str) -> bool:
    """Whether threads and settings of onnxruntime on a CPU are the engine's.

    Raises:
        BadRequest: no such engine.
    """
    return issubclass(engine_class(engine), OnnxRuntimeCpu)


def candidate_from_runner(label: str, runner: Runner, feeds: Feeds, held: ExitStack) -> Candidate:
    """A runner, made active until `held` ends, as something to time.

    Raises:
        BadRequest: it does not start, or does not take the feeds.
    """
    try:
        active = held.enter_context(runner)
        return Candidate(label, lambda: active.infer(feeds), active.conditions(), active.stopwatch(feeds))
    except DeployAttnError:
        raise
    except Exception as error:  # an engine raises types of its own; with --force any graph comes here
        raise BadRequest(f"{label} does not run: {first_line(error)}. `deploy-attn verify` says more.") from error
