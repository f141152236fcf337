"""Is the exported one faster? An artifact against rivals, another artifact or itself, on the engine that is here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from deploy_attn.benching.record import Record, RecordFile
from deploy_attn.benching.roofs import Roofs, roofs_of
from deploy_attn.benching.subject import Subject, check_comparable, check_same, subject_from_folder
from deploy_attn.engines.latency.cache import Flush
from deploy_attn.engines.latency.protocol import ITSELF, Bench, Effort, Progress, compare, title_of
from deploy_attn.engines.latency.result import Candidate, Comparison
from deploy_attn.engines.latency.runners import (
    candidate_from_runner,
    engine_settings,
    is_cpu,
    rival_settings,
    timed_runner,
)
from deploy_attn.engines.settings import Settings
from deploy_attn.jetson.errors import BadRequest, DeployAttnError
from deploy_attn.jetson.parity import PRECISIONS
from deploy_attn.rivals.ground import OwnFiles, ground_of
from deploy_attn.rivals.in_torch import calm_openmp
from deploy_attn.rivals.rival import Ground, check_rivals, entrant_of
from deploy_attn.stored import check_can_keep

Opener = Callable[[ExitStack], Candidate]


@dataclass(frozen=True)
class BenchOptions:
    """What to measure, and against what.

    Attributes:
        engine: the artifact's.
        against: names of rivals.
        other: another artifact's folder instead; with neither, the artifact is timed by itself.
        precision: `fp32` or `fp16`; None for all that the artifact has.
        threads: of onnxruntime on a CPU and of rivals; None for what was tuned, else 1.
        effort: how long, and in which cache regime.
        force: also without a verdict that holds.
        files: the user's own, for rivals of a network that is not the catalogue's.

    Raises:
        BadRequest: both rivals and another artifact, files without rivals, a precision that there is none of, or a
            text for `against`.
    """

    engine: str = "onnxruntime"
    against: Sequence[str] = ()
    other: Path | None = None
    precision: str | None = None
    threads: int | None = None
    effort: Effort = field(default_factory=Effort)
    force: bool = False
    files: OwnFiles = field(default_factory=OwnFiles)

    def __post_init__(self) -> None:
        if isinstance(self.against, str):
            raise BadRequest(f"against is {self.against!r}, and not a sequence of names: write ({self.against!r},).")
        if self.other is not None and self.against:
            raise BadRequest(
                f"Both {self.other} and --against {','.join(self.against)} were given. Compare with another artifact "
                "or with rivals, one after the other."
            )
        if self.files != OwnFiles() and not self.against:
            raise BadRequest(
                "--source and --checkpoint are what rivals are made from. Add --against, or leave them out."
            )
        if self.precision not in (None, *PRECISIONS):
            raise BadRequest(f"There is no precision {self.precision!r}. Possible: {' or '.join(PRECISIONS)}.")


@dataclass(frozen=True)
class NotCompared:
    """A rival that could not be compared, and why."""

    precision: str
    baseline: str
    reason: str

    def as_dict(self) -> dict[str, str]:
        return {"precision": self.precision, "baseline": self.baseline, "reason": self.reason}


@dataclass(frozen=True)
class BenchReport:
    """What was measured, and where it is kept; `notes` are what a reader of the figures must know."""

    folder: Path
    name: str
    engine: str
    file: Path
    records: tuple[Record, ...]
    not_compared: tuple[NotCompared, ...]
    notes: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether all that was asked for was measured; which of two is faster is no matter of passing."""
        return not self.not_compared

    def as_dict(self) -> dict[str, Any]:
        return {
            "passed": self.passed,
            "folder": str(self.folder),
            "name": self.name,
            "engine": self.engine,
            "file": str(self.file),
            "comparisons": [record.as_dict() for record in self.records],
            "not_compared": [one.as_dict() for one in self.not_compared],
            "notes": list(self.notes),
        }


def bench(folder: str | Path, options: BenchOptions | None = None, on_progress: Progress | None = None) -> BenchReport:
    """Times an artifact, pair by pair, against each baseline, and keeps the results in its folder.

    Each precision and baseline is a comparison of its own with its own control, kept as soon as it is made. A rival
    whose output is not the artifact's, within the artifact's tolerance, is not timed.

    Args:
        on_progress: told `phase`, `step` and `steps` between blocks of pairs.

    Raises:
        BadRequest: not an artifact, no verdict of it that holds, an engine, rival or file that is not here, or options
            that do not fit.
        DamagedArtifact: a file differs from the manifest.
    """
    wanted = options or BenchOptions()
    cpu = is_cpu(wanted.engine)
    if not cpu and (wanted.threads is not None or wanted.effort.cold):
        asked = "--cold empties the caches of the CPU" if wanted.effort.cold else "--threads are those of the CPU"
        raise BadRequest(f"{wanted.engine} runs on a GPU, and {asked}. Leave that out.")
    check_rivals(wanted.against, wanted.engine, cpu)
    subject = subject_from_folder(Path(folder), wanted.engine, wanted.precision, wanted.force)
    other = None
    if wanted.other is not None:
        other = subject_from_folder(wanted.other, wanted.engine, wanted.precision, wanted.force)
        check_comparable(subject, other)
    if wanted.against:
        calm_openmp()
    return _Job(subject, other, wanted, cpu, roofs_of(subject), on_progress).run()


@dataclass(frozen=True)
class _Job:
    """One run of `bench`, whose request was checked."""

    subject: Subject
    other: Subject | None
    wanted: BenchOptions
    cpu: bool
    roofs: Roofs
    on_progress: Progress | None

    def run(self) -> BenchReport:
        subject = self.subject
        kept = RecordFile(subject.folder, self.wanted.engine, subject.name, subject.sha256)
        kept.kept()  # a file that is none, or a folder that takes none, is said before anything takes time
        check_can_keep(kept.file)
        records: list[Record] = []
        missed: list[NotCompared] = []
        for place, precision in enumerate(subject.precisions):
            for found in self._comparisons(precision, place):
                if isinstance(found, NotCompared):
                    missed.append(found)
                    continue
                records.append(Record.now(precision, found))
                kept.keep(records[-1])
        return BenchReport(
            subject.folder, subject.name, self.wanted.engine, kept.file, tuple(records), tuple(missed), self._notes()
        )

    def _comparisons(self, precision: str, before: int) -> Iterator[Comparison | NotCompared]:
        """Of one precision, one after another; beside the artifact and its twin one baseline is open at a time.

        Args:
            before: so many precisions were compared already.
        """
        settings = self._settings(self.subject, precision)
        self._check_holds(self.subject, precision, settings)
        flush = Flush(threads=settings.intra_op_threads) if settings and self.wanted.effort.cold else None
        conditions = self._conditions(settings)
        baselines = self._baselines(precision, settings)
        with ExitStack() as held:
            own, twin = (self._candidate(self.subject, precision, settings, held) for _ in range(2))
            for number, (label, opener) in enumerate(baselines.items(), 1 + before * len(baselines)):
                told = self._told(number, len(baselines) * len(self.subject.precisions))
                place = Bench(conditions, told, flush)
                title = title_of(own.label, label)
                place.say(title, 0, None)  # what is opened may take longer than what is timed
                with ExitStack() as beside:
                    try:
                        baseline = None if opener is None else opener(beside)
                    except DeployAttnError as error:
                        if self.other is not None:
                            raise
                        place.say(title, 1, 1)
                        yield NotCompared(precision, label, str(error))
                        continue
                    yield self._judged(compare(own, twin, baseline, self.wanted.effort, place))

    def _told(self, number: int, count: int) -> Progress | None:
        """Progress of one of several comparisons."""
        told = self.on_progress
        if told is None:
            return None
        return lambda event: told({**event, "phase": f"{number} of {count}: {event['phase']}"})

    def _settings(self, subject: Subject, precision: str) -> Settings | None:
        return engine_settings(self.wanted.engine, subject.artifact, precision, self.wanted.threads)

    def _candidate(self, subject: Subject, precision: str, settings: Settings | None, held: ExitStack) -> Candidate:
        runner = timed_runner(subject.artifact, self.wanted.engine, precision, settings)
        return candidate_from_runner(f"{subject.folder} {precision}", runner, subject.case.inputs, held)

    def _check_holds(self, subject: Subject, precision: str, settings: Settings | None) -> None:
        """Refuses what computes something else since its verdict: by another release, other settings, another build."""
        if subject.doubt:
            return
        runner = timed_runner(subject.artifact, self.wanted.engine, precision, settings)
        with ExitStack() as held:
            candidate_from_runner(f"{subject.folder} {precision}", runner, subject.case.inputs, held)
            try:
                check_same(runner.infer, subject, precision)
            except BadRequest as error:
                raise BadRequest(
                    f"{subject.folder} {precision}: {error} Its verdict does not hold any more; run `deploy-attn "
                    f"verify {subject.folder} --engine {self.wanted.engine}`."
                ) from error

    def _baselines(self, precision: str, settings: Settings | None) -> dict[str, Opener | None]:
        """What the artifact is compared with, by label; None for itself."""
        if self.other is not None:
            other = self.other
            own = self._settings(other, precision)
            self._check_holds(other, precision, own)
            return {f"{other.folder} {precision}": lambda held: self._candidate(other, precision, own, held)}
        if not self.wanted.against:
            return {ITSELF: None}
        threads = 1 if settings is None else settings.intra_op_threads
        beside = rival_settings(self.wanted.engine, threads)
        ground = ground_of(self.subject.artifact, self.subject.case, self.wanted.files, beside)
        return {name: self._rival(name, ground) for name in self.wanted.against}

    def _rival(self, name: str, ground: Ground) -> Opener:
        def opened(held: ExitStack) -> Candidate:
            entrant = entrant_of(name, ground, held)
            check_same(entrant.infer, self.subject)
            return entrant.candidate

        return opened

    def _judged(self, found: Comparison) -> Comparison:
        """Without a claim where a side may compute something else than it should."""
        doubts = [f"{one.folder}: {one.doubt}" for one in (self.subject, self.other) if one is not None and one.doubt]
        if not doubts:
            return found
        return replace(found, claim=None, refused=f"A time of what may be wrong bears no claim ({'; '.join(doubts)}).")

    def _conditions(self, settings: Settings | None) -> dict[str, Any]:
        case = self.subject.case
        return {
            "case": case.name,
            "inputs": {name: list(array.shape) for name, array in case.inputs.items()},
            "threads": None if settings is None else settings.intra_op_threads,
            "spinning": None if settings is None else settings.spinning,
            "denormals_zero": None if settings is None else settings.denormals_zero,
            "limits": None if settings is None else self.roofs.on(settings.intra_op_threads),
            "forced": self.subject.doubt or None,
        }

    def _notes(self) -> tuple[str, ...]:
        doubted = [one for one in (self.subject, self.other) if one is not None and one.doubt]
        return (*(f"Timed with --force: {one.folder}, {one.doubt}." for one in doubted), *self.roofs.notes)
