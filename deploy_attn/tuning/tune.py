"""Settings of onnxruntime chosen by measurement, for one artifact on one machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from deploy_attn.engines.base import Feeds, Graph, engine_class
from deploy_attn.engines.denormals import can_zero_denormals
from deploy_attn.engines.latency.machine import machine, usable_cpus
from deploy_attn.engines.latency.protocol import Bench, Effort, Progress
from deploy_attn.engines.latency.protocol import compare as compare_candidates
from deploy_attn.engines.latency.result import Candidate, Comparison
from deploy_attn.engines.onnxruntime import OnnxRuntimeCpu, OnnxRuntimeRunner, Settings
from deploy_attn.engines.pairs import Paired
from deploy_attn.engines.parity import graph_of, verdict_of, verify
from deploy_attn.engines.settings import LEVELS
from deploy_attn.engines.settings_file import settings_document, settings_file
from deploy_attn.engines.verdict import Verdict
from deploy_attn.jetson.artifact import Artifact, open_artifact
from deploy_attn.jetson.errors import BadRequest, DeployAttnError, first_line
from deploy_attn.jetson.parity import check_manifest
from deploy_attn.jetson.verdict import failure
from deploy_attn.stored import check_can_keep, keep_text

ENGINE = "onnxruntime"
_FIXED = ("engine", "version", "provider")  # of a runner's conditions, what no setting changes
# Of a candidate, a second instance of it, and a baseline.
Compare = Callable[[Candidate, Candidate, Candidate], Comparison]


@dataclass(frozen=True)
class TuneOptions:
    """How to search.

    Attributes:
        engine: `onnxruntime`; others have no settings here.
        threads: counts to try; None for 1, 2, 4 ... up to the cores that this process may use, and all of them.
        seconds: about so long for each comparison.

    Raises:
        BadRequest: an engine without settings, or threads or seconds that cannot be.
    """

    engine: str = ENGINE
    threads: Sequence[int] | None = None
    seconds: float = 2.0

    def __post_init__(self) -> None:
        if self.engine != ENGINE:
            engine_class(self.engine)  # raises over an unknown one
            raise BadRequest(
                f"{self.engine} has no settings to tune: levels, threads and subnormal numbers are those of "
                f"{ENGINE} on a CPU. Tune with --engine {ENGINE}, or measure with "
                f"`deploy-attn bench DIR --engine {self.engine}`."
            )
        cores = usable_cpus()
        if self.threads is not None and (not self.threads or not all(1 <= count <= cores for count in self.threads)):
            counts = ", ".join(map(str, self.threads)) or "none"
            raise BadRequest(
                f"Asked for threads {counts}; this process may use {cores} cores, so counts are from 1 to {cores}."
            )
        if not 0 < self.seconds <= 3600:
            raise BadRequest(f"Asked for {self.seconds:g} seconds a comparison; possible is above 0 and up to 3600.")

    @property
    def counts(self) -> tuple[int, ...]:
        """Thread counts to try, each once, most first: the search starts from those, as onnxruntime by itself does."""
        cores = usable_cpus()
        doubled = (1 << power for power in range(cores.bit_length()))
        return tuple(sorted({*doubled, cores} if self.threads is None else set(self.threads), reverse=True))


def thread_counts(text: str) -> tuple[int, ...]:
    """Counts as the command line has them, as `1,2`.

    Raises:
        BadRequest: they are none.
    """
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise BadRequest(f"--threads {text!r} is not a list of counts, as in --threads 1,2.") from error


@dataclass(frozen=True)
class Tried:
    """Settings that were held against the best until then; `ratio` above 1 says that they are faster."""

    settings: Settings
    ratio: Paired | None
    kept: bool
    reason: str

    def as_dict(self) -> dict[str, Any]:
        return {
            "settings": self.settings.as_dict(),
            "ratio": None if self.ratio is None else self.ratio.as_dict(),
            "kept": self.kept,
            "reason": self.reason,
        }


@dataclass(frozen=True)
class Tuned:
    """The settings chosen for one graph, verified on every parity case, and what they won against."""

    settings: Settings
    tried: tuple[Tried, ...]

    def as_dict(self) -> dict[str, Any]:
        return {
            "settings": self.settings.as_dict(),
            "tried": [one.as_dict() for one in self.tried],
            "verified": True,
        }


@dataclass(frozen=True)
class Tuning:
    """What was chosen for an artifact, by precision, where it is kept, and the artifact's verdict with it."""

    file: Path
    precisions: Mapping[str, Tuned]
    conditions: Mapping[str, Any]
    verdict: Verdict

    @property
    def passed(self) -> bool:
        return self.verdict.passed

    def as_dict(self) -> dict[str, Any]:
        return {
            "passed": self.passed,
            "engine": ENGINE,
            "file": str(self.file),
            "precisions": {precision: tuned.as_dict() for precision, tuned in self.precisions.items()},
            "conditions": dict(self.conditions),
        }


def tune(
    folder: str | Path,
    options: TuneOptions | None = None,
    on_progress: Progress | None = None,
    compare: Compare | None = None,
) -> Tuning:
    """Chooses threads, optimisation level and what becomes of subnormal numbers, and stores them in the artifact.

    `engines.load`, `verify` and `bench` use what is stored. The search goes in stages:
    fewer threads, then other levels, then subnormal numbers as zero; each is held
    against the best until then on the first parity case, and stays only if it is
    faster by more than the control's error and every parity case holds with it.

    Args:
        on_progress: told `phase`, `step` and `steps` of each comparison.
        compare: how a candidate is measured; as `deploy-attn bench` does by default.

    Raises:
        BadRequest: not an artifact, nothing to tune, or a folder that cannot be written.
        DamagedArtifact: a file differs from the manifest.
        DeployAttnError: the artifact fails parity with the settings that the search starts from.
    """
    wanted = options or TuneOptions()
    artifact = open_artifact(str(folder))
    check_manifest(artifact)
    check_can_keep(settings_file(folder))
    measure = compare or comparing(wanted.seconds, on_progress)
    case = artifact.cases()[0]
    precisions = {
        listed["precision"]: _Search(artifact, graph_of(artifact, listed), case.inputs, measure).run(wanted.counts)
        for listed in artifact.manifest["graphs"]
    }
    conditions = {
        **{name: value for name, value in OnnxRuntimeRunner(b"").conditions().items() if name in _FIXED},
        **machine(),
        "case": case.name,
        "threads_tried": list(wanted.counts),
        "seconds_per_comparison": wanted.seconds,
    }
    documents = {precision: tuned.as_dict() for precision, tuned in precisions.items()}
    file = keep_text(settings_file(folder), settings_document(artifact, documents, conditions))
    return Tuning(file, precisions, conditions, verify(folder))


def comparing(seconds: float, on_progress: Progress | None = None) -> Compare:
    """The protocol of `deploy-attn bench`, for about so long each time."""
    effort, bench = Effort(seconds=seconds), Bench(on_progress=on_progress)
    return lambda candidate, twin, baseline: compare_candidates(candidate, twin, baseline, effort, bench)


class _Search:
    """The search for one graph."""

    def __init__(self, artifact: Artifact, graph: Graph, feeds: Feeds, compare: Compare) -> None:
        self._artifact = artifact
        self._graph = graph
        self._feeds = feeds
        self._compare = compare

    def run(self, counts: Sequence[int]) -> Tuned:
        best = Settings(intra_op_threads=counts[0], spinning=False)
        problem = self._problem(best)
        if problem:
            raise DeployAttnError(
                f"{self._artifact.path} fails parity before anything is tuned: {problem}. "
                f"`deploy-attn verify {self._artifact.path}` shows all of it; export it again."
            )
        tried: list[Tried] = []
        for stage in (self._threads, self._levels, self._denormals):
            for challenger in stage(best, counts):
                tried.append(self._against(challenger, best))
                best = challenger if tried[-1].kept else best
        return Tuned(best, tuple(tried))

    def _threads(self, best: Settings, counts: Sequence[int]) -> Iterator[Settings]:
        return (replace(best, intra_op_threads=count) for count in counts[1:])

    def _levels(self, best: Settings, counts: Sequence[int]) -> Iterator[Settings]:
        return (replace(best, level=level) for level in LEVELS if level != best.level)

    def _denormals(self, best: Settings, counts: Sequence[int]) -> Iterator[Settings]:
        return (replace(best, denormals_zero=True) for _ in range(can_zero_denormals()))

    def _against(self, challenger: Settings, best: Settings) -> Tried:
        try:
            with self._runner(challenger) as one, self._runner(challenger) as twin, self._runner(best) as other:
                sides = [(challenger, one), (challenger, twin), (best, other)]
                compared = self._compare(*(self._candidate(settings, runner) for settings, runner in sides))
        except DeployAttnError:
            raise
        except Exception as error:  # an engine may refuse a graph at one level and not at another
            return Tried(challenger, None, False, f"the engine refused it: {first_line(error)}")
        if compared.claim is None or compared.pairs.ratio <= 1:
            # What follows in a refusal is about options of `bench`.
            return Tried(challenger, compared.pairs, False, compared.refused.partition(". ")[0] or "it is slower")
        problem = self._problem(challenger)
        return Tried(challenger, compared.pairs, not problem, problem or compared.claim)

    def _runner(self, settings: Settings) -> OnnxRuntimeRunner:
        return OnnxRuntimeRunner(self._graph.content, settings=settings)

    def _candidate(self, settings: Settings, runner: OnnxRuntimeRunner) -> Candidate:
        return Candidate(
            label=f"{self._graph.precision}, {settings}",
            call=lambda: runner.infer(self._feeds),
            conditions=runner.conditions(),
            stopwatch=runner.stopwatch(self._feeds),
        )

    def _problem(self, settings: Settings) -> str:
        """The first check that does not hold under these settings; empty where all hold."""
        precision = self._graph.precision
        engine = OnnxRuntimeCpu(self._artifact, {precision: settings})
        verdict = verdict_of(self._artifact, ENGINE, engine, precision)
        failed = next((check for check in verdict.checks if not check.passed), None)
        return "" if failed is None else failure(failed)
