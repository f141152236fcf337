"""The settings of onnxruntime for one graph, in stages: threads, level, subnormal numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from deploy_attn.engines.base import Feeds, Graph
from deploy_attn.engines.denormals import can_zero_denormals
from deploy_attn.engines.latency.result import Candidate, Comparison
from deploy_attn.engines.onnxruntime import OnnxRuntimeCpu, OnnxRuntimeRunner, Settings
from deploy_attn.engines.pairs import Paired
from deploy_attn.engines.parity import verdict_of
from deploy_attn.engines.settings import LEVELS
from deploy_attn.jetson.artifact import Artifact
from deploy_attn.jetson.errors import DeployAttnError, first_line
from deploy_attn.jetson.verdict import failure
from deploy_attn.tuning.decision import decision_of
from deploy_attn.tuning.turns import NotAtRest, Turns

ENGINE = "onnxruntime"
# Of a candidate, a second instance of it, and a baseline.
Compare = Callable[[Candidate, Candidate, Candidate], Comparison]


@dataclass(frozen=True)
class Tried:
    """Settings that were held against the best until then.

    Attributes:
        against: the best until then.
        ratio: of its time to theirs: above 1 they are faster. None where there was nothing to time.
        decided: whether the measurement tells that they are faster, or that they are not.
        error: of the ratio; None where there is none.
    """

    settings: Settings
    against: Settings
    ratio: Paired | None
    kept: bool
    reason: str
    decided: bool = True
    error: float | None = None

    def as_dict(self) -> dict[str, Any]:
        return {
            "settings": self.settings.as_dict(),
            "against": self.against.as_dict(),
            "ratio": None if self.ratio is None else self.ratio.as_dict(),
            "kept": self.kept,
            "error": None if self.error is None else round(self.error, 4),
            "decided": self.decided,
            "reason": self.reason,
        }


@dataclass(frozen=True)
class Tuned:
    """The settings chosen for one graph, verified on every parity case, and what they won against.

    Attributes:
        start: what the search started from, and what stands where nothing is faster beyond doubt.
    """

    settings: Settings
    start: Settings
    tried: tuple[Tried, ...]

    def as_dict(self) -> dict[str, Any]:
        return {
            "settings": self.settings.as_dict(),
            "start": self.start.as_dict(),
            "tried": [one.as_dict() for one in self.tried],
            "verified": True,
        }


class Search:
    """The settings of one graph: each that is tried is held against the best until then."""

    def __init__(self, artifact: Artifact, graph: Graph, feeds: Feeds, compare: Compare) -> None:
        self._artifact = artifact
        self._graph = graph
        self._feeds = feeds
        self._compare = compare

    def run(self, start: Settings, counts: Sequence[int]) -> Tuned:
        """What stands in the end.

        Args:
            start: what stands where nothing is faster beyond doubt.
            counts: of threads that do not spin.

        Raises:
            DeployAttnError: the graph fails parity with the settings that it starts from.
        """
        problem = self._problem(start)
        if problem:
            raise DeployAttnError(
                f"{self._artifact.path} fails parity before anything is tuned: {problem}. "
                f"`deploy-attn verify {self._artifact.path}` shows all of it; export it again."
            )
        tried: list[Tried] = []
        best = self._stage(_threads(start, counts), start, tried)
        calm = replace(best, spinning=False)
        tuned = self._stage(_levels(calm), calm, tried)
        tuned = self._stage(_denormals(tuned), tuned, tried)
        if best.spinning and tuned != calm:  # what holds without spinning is a guess where threads spin
            best = self._stage([replace(tuned, spinning=True)], best, tried)
        elif not best.spinning:
            best = tuned
        return Tuned(best, start, tuple(tried))

    def _stage(self, challengers: Iterable[Settings], best: Settings, tried: list[Tried]) -> Settings:
        """The best of these, each held against the best until then; what was tried is added."""
        for challenger in challengers:
            tried.append(self._against(challenger, best))
            best = challenger if tried[-1].kept else best
        return best

    def _against(self, challenger: Settings, best: Settings) -> Tried:
        turns = Turns(challenger.spinning or best.spinning)
        try:
            with self._runner(challenger) as one, self._runner(challenger) as twin, self._runner(best) as other:
                sides = [(challenger, one), (challenger, twin), (best, other)]
                compared = self._compare(*(self._candidate(settings, runner, turns) for settings, runner in sides))
        except NotAtRest as error:
            return Tried(challenger, best, None, False, f"not timed: {error}", decided=False)
        except DeployAttnError:
            raise
        except Exception as error:  # an engine may refuse a graph at one level and not at another
            return Tried(challenger, best, None, False, f"the engine refused it: {first_line(error)}")
        if compared.blocks.spoiled and challenger.intra_op_threads != best.intra_op_threads:
            reason = "other programs ran meanwhile, and they slow more threads most"
            return Tried(challenger, best, compared.pairs, False, reason, False, compared.error)
        found = decision_of(compared)
        problem = self._problem(challenger) if found.faster else ""
        kept = found.faster and not problem
        return Tried(challenger, best, compared.pairs, kept, problem or found.reason, found.decided, found.error)

    def _runner(self, settings: Settings) -> OnnxRuntimeRunner:
        return OnnxRuntimeRunner(self._graph.content, settings=settings)

    def _candidate(self, settings: Settings, runner: OnnxRuntimeRunner, turns: Turns) -> Candidate:
        return Candidate(
            label=f"{self._graph.precision}, {settings}",
            call=lambda: runner.infer(self._feeds),
            conditions=runner.conditions(),
            stopwatch=turns.of(runner.stopwatch(self._feeds)),
        )

    def _problem(self, settings: Settings) -> str:
        """The first check that does not hold under these settings; empty where all hold."""
        precision = self._graph.precision
        engine = OnnxRuntimeCpu(self._artifact, {precision: settings})
        verdict = verdict_of(self._artifact, ENGINE, engine, precision)
        failed = next((check for check in verdict.checks if not check.passed), None)
        return "" if failed is None else failure(failed)


def _threads(start: Settings, counts: Sequence[int]) -> Iterator[Settings]:
    calm = (replace(start, intra_op_threads=count, spinning=False) for count in counts)
    return (settings for settings in calm if settings != start)


def _levels(best: Settings) -> Iterator[Settings]:
    return (replace(best, level=level) for level in LEVELS if level != best.level)


def _denormals(best: Settings) -> Iterator[Settings]:
    return (replace(best, denormals_zero=True) for _ in range(can_zero_denormals()))
