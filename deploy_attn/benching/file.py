"""What `deploy-attn bench` left beside an artifact, read without trusting it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy_attn.engines.json_fields import Fields, read_fields
from deploy_attn.engines.machine_limits import Limits, limits_from_fields
from deploy_attn.jetson.parity import PRECISIONS

BENCHES = "bench-*.json"

SCHEMA = 1
MOST = 500  # comparisons

_LARGEST = 1e9  # milliseconds, and ratios: no measurement comes near
_STEP = 5  # per cent between two quantiles
_REMEDY = "Such a file is what `deploy-attn bench` writes; remove it, and measure again."


@dataclass(frozen=True)
class Spread:
    """Times of one candidate within one comparison, in milliseconds; `quantiles` from 0 to 100 % in even steps."""

    n: int
    median: float
    p10: float
    p90: float
    p99: float
    quantiles: tuple[float, ...]


@dataclass(frozen=True)
class Side:
    """A candidate by its label, and what its times depend on beyond the machine."""

    label: str
    latency: Spread
    conditions: Mapping[str, Any]


@dataclass(frozen=True)
class Ratio:
    """Of pairs: the baseline's time over the candidate's."""

    median: float
    p10: float
    p90: float
    pairs: int


@dataclass(frozen=True)
class Measured:
    """A stored comparison.

    `error` is the error bar of the ratio's median, from the control pair. `claim` is what may be said; without it
    `refused` says why nothing may. `spoiled` of the blocks that were `kept` are no better than those that were
    `repeated`. `limits` are those of the CPU that it ran on; None where it ran elsewhere or they are not known.
    """

    engine: str
    precision: str
    when: str
    candidate: Side
    baseline: Side
    ratio: Ratio
    control: Ratio
    error: float
    kept: int
    repeated: int
    spoiled: int
    reasons: tuple[str, ...]
    claim: str
    refused: str
    conditions: Mapping[str, Any]
    limits: Limits | None


@dataclass(frozen=True)
class BenchFile:
    """The comparisons of one engine, newest last, and which artifact they are of."""

    file: Path
    engine: str
    artifact_sha256: str
    comparisons: tuple[Measured, ...]


def read_bench(file: Path) -> BenchFile:
    """Reads stored comparisons.

    Raises:
        BadRequest: not such a file, or one that contradicts itself; the message names file and key.
    """
    top = bench_fields(file)
    parts = top.parts("comparisons")
    if len(parts) > MOST:
        top.refuse("comparisons", f"is {{}}, and no bench keeps more than {MOST}")
    engine = top.text("engine")
    return BenchFile(file, engine, top.text("artifact_sha256"), tuple(_measured(part, engine) for part in parts))


def bench_fields(file: Path) -> Fields:
    """The file as an object, whatever it holds beside its version.

    Raises:
        BadRequest: no such object, or one of another version.
    """
    top = read_fields(file, _REMEDY)
    if top.count("schema_version") != SCHEMA:
        top.refuse("schema_version", f"is {{}}, and this release reads {SCHEMA}")
    return top


def _measured(part: Fields, engine: str) -> Measured:
    precision, blocks = part.text("precision"), part.part("blocks")
    if precision not in PRECISIONS:
        part.refuse("precision", f"is {{}}, and not {' or '.join(PRECISIONS)}")
    conditions = part.part("conditions")
    claim, refused = (part.text(key) if part.has(key) else "" for key in ("claim", "refused"))
    if bool(claim) == bool(refused):
        part.refuse("claim", "is {}, where either a claim is made or `refused` says why not")
    return Measured(
        engine=engine,
        precision=precision,
        when=part.text("when"),
        candidate=_side(part.part("candidate")),
        baseline=_side(part.part("baseline")),
        ratio=ratio_of(part.part("ratio")),
        control=ratio_of(part.part("control")),
        error=_figure(part, "error"),
        kept=blocks.count("kept"),
        repeated=blocks.count("repeated"),
        spoiled=blocks.count("spoiled"),
        reasons=blocks.texts("reasons"),
        claim=claim,
        refused=refused,
        conditions=conditions.values,
        limits=_limits(conditions),
    )


def _limits(conditions: Fields) -> Limits | None:
    if not conditions.has("limits"):
        return None
    limits = limits_from_fields(conditions.part("limits"))
    if limits.threads != conditions.values.get("threads"):
        conditions.part("limits").refuse("threads", "is {}, and not the threads that ran")
    return limits


def _side(part: Fields) -> Side:
    conditions = part.part("conditions").values if part.has("conditions") else {}
    return Side(part.text("label"), _spread(part.part("latency")), conditions)


def _spread(part: Fields) -> Spread:
    quantiles = part.numbers("quantiles_ms")
    if len(quantiles) != 100 // _STEP + 1:
        part.refuse("quantiles_ms", f"is {{}}, and not every {_STEP} % from 0 to 100")
    if not all(low <= high for low, high in zip((0.0, *quantiles), (*quantiles, _LARGEST))):
        part.refuse("quantiles_ms", f"is {{}} that does not rise between 0 and {_LARGEST:g}")
    n = part.count("n")
    if n < 1:
        part.refuse("n", "is {}, and a time needs samples")
    median, p10, p90, p99 = (_figure(part, key) for key in ("median_ms", "p10_ms", "p90_ms", "p99_ms"))
    return Spread(n, median, p10, p90, p99, quantiles)


def ratio_of(part: Fields) -> Ratio:
    """A stored ratio.

    Raises:
        BadRequest: it is none.
    """
    median, p10, p90 = (_figure(part, key) for key in ("median", "p10", "p90"))
    pairs = part.count("pairs")
    if pairs < 1 or not p10 <= median <= p90:
        part.refuse("median", f"is {{}}, outside p10..p90 or of {pairs} pairs")
    return Ratio(median, p10, p90, pairs)


def _figure(part: Fields, key: str) -> float:
    value = part.number(key)
    return value if 0 <= value <= _LARGEST else part.refuse(key, f"is {{}}, and not a number from 0 to {_LARGEST:g}")
