"""Settings of onnxruntime chosen by measurement, for one artifact on one machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy_attn.engines.base import engine_class
from deploy_attn.engines.latency.machine import machine, usable_cpus
from deploy_attn.engines.latency.protocol import Bench, Effort, Progress
from deploy_attn.engines.latency.protocol import compare as compare_candidates
from deploy_attn.engines.onnxruntime import OnnxRuntimeRunner, Settings
from deploy_attn.engines.parity import graph_of, verify
from deploy_attn.engines.settings_file import settings_document, settings_file
from deploy_attn.engines.verdict import Verdict
from deploy_attn.jetson.artifact import open_artifact
from deploy_attn.jetson.errors import BadRequest, DeployAttnError
from deploy_attn.jetson.parity import check_manifest
from deploy_attn.jetson.verdict import failure
from deploy_attn.stored import check_can_keep, keep_text
from deploy_attn.tuning.setting_search import ENGINE, Compare, Search, Tuned

_FIXED = ("engine", "version", "provider")  # of a runner's conditions, what no setting changes


@dataclass(frozen=True)
class TuneOptions:
    """How to search.

    Attributes:
        engine: `onnxruntime`; others have no settings here.
        threads: counts to keep to; None for onnxruntime's own choice, and 1, 2, 4 ... up to the cores that this process
            may use, and all of them.
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
        """Thread counts to try without spinning, each once, most first."""
        cores = usable_cpus()
        doubled = (1 << power for power in range(cores.bit_length()))
        return tuple(sorted({*doubled, cores} if self.threads is None else set(self.threads), reverse=True))

    @property
    def start(self) -> Settings:
        """What a user has without tuning: onnxruntime's defaults, on the most threads where these are asked for."""
        if self.threads is None:
            return Settings()
        most = max(self.threads)
        return Settings(intra_op_threads=most, spinning=most > 1)  # one thread has none to wait for


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

    `engines.load`, `verify` and `bench` use what is stored. The search starts from
    onnxruntime's defaults and goes in stages: threads that do not spin, then other
    levels, then subnormal numbers as zero; each is held against the best until then
    on the first parity case, and stays only if it is faster by more than the
    control's error and every parity case holds with it. Where threads spin, what the
    levels gave is held against the defaults last. The defaults stand otherwise.

    Args:
        on_progress: told `phase`, `step` and `steps` of each comparison.
        compare: how a candidate is measured; as `deploy-attn bench` does by default.

    Raises:
        BadRequest: not an artifact, nothing to tune, or a folder that cannot be written.
        DamagedArtifact: a file differs from the manifest.
        DeployAttnError: the artifact fails parity with the settings that the search starts from, or in the end with
            those that were chosen; then none are stored.
    """
    wanted = options or TuneOptions()
    artifact = open_artifact(str(folder))
    check_manifest(artifact)
    check_can_keep(settings_file(folder))
    measure = compare or comparing(wanted.seconds, on_progress)
    case = artifact.cases()[0]
    precisions = {
        listed["precision"]: Search(artifact, graph_of(artifact, listed), case.inputs, measure).run(
            wanted.start, wanted.counts
        )
        for listed in artifact.manifest["graphs"]
    }
    conditions = {
        **{name: value for name, value in OnnxRuntimeRunner(b"").conditions().items() if name in _FIXED},
        **machine(),
        "case": case.name,
        "threads_tried": list(wanted.counts),
        "turns": "where a side spins, the others rest before each turn, and the side is awake",
        "seconds_per_comparison": wanted.seconds,
    }
    documents = {precision: tuned.as_dict() for precision, tuned in precisions.items()}
    file = keep_text(settings_file(folder), settings_document(artifact, documents, conditions))
    return Tuning(file, precisions, conditions, _verified(folder, file))


def _verified(folder: str | Path, file: Path) -> Verdict:
    """The verdict under the stored settings, which do not stay where it fails."""
    verdict = verify(folder)
    failed = next((check for check in verdict.checks if not check.passed), None)
    if failed is not None:
        file.unlink()
        raise DeployAttnError(
            f"{folder} fails parity with the settings that were chosen, though each held when it was tried: "
            f"{failure(failed)}. They are not stored; verify it again, and tune again."
        )
    return verdict


def comparing(seconds: float, on_progress: Progress | None = None) -> Compare:
    """The protocol of `deploy-attn bench`, for about so long each time."""
    effort, bench = Effort(seconds=seconds), Bench(on_progress=on_progress)
    return lambda candidate, twin, baseline: compare_candidates(candidate, twin, baseline, effort, bench)
