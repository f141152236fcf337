"""Times that an artifact's folder holds, and which of them are of the target that a floor is told for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from deploy_attn.benching import file as bench_file
from deploy_attn.engines.base import ENGINES
from deploy_attn.engines.latency.machine import cpu_name
from deploy_attn.engines.latency.runners import is_cpu
from deploy_attn.engines.target import Target
from deploy_attn.jetson.artifact import SELF_HASH, Artifact
from deploy_attn.verdict_file import Times, VerdictFile, read_verdict

_VERDICTS = "verdict*.json"
_CAPABILITY = "device.compute_capability"
_ANOTHER_ARTIFACT = "it is of another artifact, or of this one before it was exported again"


@dataclass(frozen=True)
class Measured:
    """Times of one precision in one run of the artifact.

    `kind` is `compute` or `end to end` of a verdict, and the conditions of a bench.
    """

    file: Path
    where: str
    engine: str
    precision: str
    kind: str
    times: Times


@dataclass(frozen=True)
class Run:
    """Times, and why they are not of the artifact on the target; empty where they are."""

    measured: Measured
    foreign: str


def runs_of_boards(artifact: Artifact, target: Target) -> Iterator[Run]:
    """Of every verdict that has times.

    Raises:
        BadRequest: a file named as a verdict is none.
    """
    for file in sorted(Path(artifact.path).glob(_VERDICTS)):
        verdict = read_verdict(file)
        reason = _foreign_verdict(verdict, artifact, target)
        engine = f"{verdict.engine} {verdict.version}".rstrip()
        for precision, timing in verdict.timing.items():
            for kind, times in (("compute", timing.compute), ("end to end", timing.end_to_end)):
                if times is not None:
                    yield Run(Measured(file, verdict.where, engine, precision, kind, times), reason)


def runs_of_this_machine(artifact: Artifact, threads: int, cold: bool) -> Iterator[Run]:
    """Of the newest comparison of each kept question, on so many threads and in that cache regime.

    Raises:
        BadRequest: a file named as a bench is none.
    """
    for file in sorted(Path(artifact.path).glob(bench_file.BENCHES)):
        found = bench_file.read_bench(file)
        for one in found.comparisons:
            reason = (
                _foreign_bench(one, threads, cold)
                if found.artifact_sha256 == artifact.manifest[SELF_HASH]
                else _ANOTHER_ARTIFACT
            )
            latency, regime = (
                one.candidate.latency,
                f"{one.conditions.get('cache')} caches against {one.baseline.label}",
            )
            times = Times(latency.median, latency.p90, latency.p99, latency.n, 1)
            yield Run(Measured(file, "this machine", one.engine, one.precision, regime, times), reason)


def _foreign_verdict(verdict: VerdictFile, artifact: Artifact, target: Target) -> str:
    if verdict.artifact_sha256 != artifact.manifest[SELF_HASH]:
        return _ANOTHER_ARTIFACT
    if verdict.document.get("target") != target.name:
        return f"it is of a run for {verdict.document.get('target') or 'no target'}, and not for {target.name}"
    board = verdict.document.get("board")
    found = board.get("compute_capability") if isinstance(board, dict) else None
    wanted = target.value(_CAPABILITY)
    if wanted is not None and found != wanted:
        return f"{verdict.where} has compute capability {found or 'unknown'}, and {target.name} has {wanted}"
    return ""


def _foreign_bench(one: bench_file.Measured, threads: int, cold: bool) -> str:
    machine, found, cache = (one.conditions.get(key) for key in ("machine", "threads", "cache"))
    cpu = machine.get("cpu") if isinstance(machine, dict) else None
    if one.engine not in ENGINES or not is_cpu(one.engine):
        return f"it is of engine {one.engine}, which computes on no CPU"
    if cpu != cpu_name():
        return f"it is of {cpu or 'an unknown processor'}, and this is {cpu_name()}"
    if found != threads:
        return f"it is of {found} thread(s) and the floor of {threads}, which --threads decides"
    if cache != ("cold" if cold else "hot"):
        return f"it is of {cache} caches, which --cold decides"
    return ""
