"""Parity: the checks, the tolerances and what passes, for the host and for the board."""

from types import MappingProxyType
from typing import Any, Callable, Dict, Iterator, List, Mapping, NamedTuple, Optional, Sequence

import numpy as np

from .artifact import Artifact, Case, Expected
from .errors import DamagedArtifact, first_line
from .metrics import Comparison, as_dict, compare, within
from .thinning import Thinned, compare_thinned

Infer = Callable[[Mapping[str, np.ndarray]], Mapping[str, np.ndarray]]
OwnErrors = Mapping[str, Mapping[str, Mapping[str, float]]]  # of the module in FP32, by case and output

PRECISIONS = ("fp32", "fp16")
# FP16 is computed by the device itself, so there is one way of running it and not two.
BRACKETS: Mapping[str, str] = MappingProxyType({"fp32": "exact", "fp16": "device"})
TOLERANCE_NAMES = ("fp32", "fp16", "fp16-rounded")

# Where the module itself, in FP32, is further from float64 than an eighth of a bound,
# FP32 graphs may be eight times as far as it is, but never beyond the ceilings.
_FP32_ALLOWANCE = 8.0
_FP32_CEILING = 1e-3
_FP32_WORST_CEILING = 5e-2
_WIDENED = "the module itself, in PyTorch in FP32,"


class Tolerance(NamedTuple):
    """Bounds on a comparison: RMS relative, and any single element (see `compare`)."""

    rms_relative: float
    worst_relative: float
    reason: str


def is_widened(tolerance: Tolerance) -> bool:
    """Whether `fp32_tolerance` allowed more than the base; its reason says why."""
    return tolerance.reason.startswith(_WIDENED)


class Check(NamedTuple):
    """One graph, one way of running it, one case, one output; `compared` says over what it was measured."""

    graph: str
    precision: str
    bracket: str
    case: str
    output: str
    comparison: Optional[Comparison]
    tolerance: Tolerance
    error: Optional[str] = None
    compared: Optional[str] = None

    @property
    def passed(self) -> bool:
        return self.comparison is not None and within(
            self.comparison, self.tolerance.rms_relative, self.tolerance.worst_relative
        )

    def as_dict(self) -> Dict[str, Any]:
        """As a verdict holds it."""
        return {
            "graph": self.graph,
            "precision": self.precision,
            "bracket": self.bracket,
            "case": self.case,
            "output": self.output,
            "passed": self.passed,
            "error": self.error,
            "compared": self.compared,
            "measured": None if self.comparison is None else as_dict(self.comparison),
            "tolerance": dict(self.tolerance._asdict()),
        }


def check_manifest(artifact: Artifact) -> None:
    """Raises DamagedArtifact for what no export would have written, however well the hashes match."""
    manifest = artifact.manifest
    graphs, tolerances = manifest.get("graphs"), manifest.get("tolerances")
    problem = None
    if not isinstance(graphs, list) or not all(isinstance(graph, dict) and "file" in graph for graph in graphs):
        problem = "'graphs' is not a list of graphs with a file each"
    elif any(graph.get("precision") not in PRECISIONS for graph in graphs):
        problem = "a graph has a precision other than fp32 and fp16"
    elif not isinstance(manifest.get("cases"), list) or not manifest["cases"]:
        problem = "'cases' is not a list of at least one"
    elif not isinstance(tolerances, dict) or not all(_is_tolerance(tolerances.get(name)) for name in TOLERANCE_NAMES):
        problem = "'tolerances' lacks one of {}".format(", ".join(TOLERANCE_NAMES))
    if problem:
        raise DamagedArtifact(
            "The manifest of {} is malformed: {}. Export the artifact again.".format(artifact.path, problem)
        )


def tolerance_of(manifest: Mapping[str, Any], name: str) -> Tolerance:
    """A tolerance as the manifest writes it: `fp32`, `fp16` or `fp16-rounded`."""
    return Tolerance(**manifest["tolerances"][name])


def fp32_tolerance(base: Tolerance, own_rms: float, own_worst: float = 0.0) -> Tolerance:
    """The FP32 tolerance of a case on which the module itself has these errors in FP32.

    Some modules amplify rounding on some inputs: a softmax over sums over H x W
    does, or one over large logits, where a near tie decides a whole row. No FP32
    graph of them can be nearer than they are themselves.
    """
    rms = max(base.rms_relative, min(_FP32_ALLOWANCE * own_rms, _FP32_CEILING))
    worst = max(base.worst_relative * rms / base.rms_relative, min(_FP32_ALLOWANCE * own_worst, _FP32_WORST_CEILING))
    if not (rms > base.rms_relative or worst > base.worst_relative):
        return base
    if rms == _FP32_CEILING:
        bound = "{:.0e}, the most for any, is allowed".format(rms)
    else:
        bound = "{:g} times that is allowed".format(_FP32_ALLOWANCE)
    reason = "{} is {:.1e} off on this input; {}".format(_WIDENED, own_rms, bound)
    return Tolerance(rms, worst, reason)


def checks_of(infer: Infer, cases: Sequence[Case], blank: Check, own_errors: OwnErrors) -> List[Check]:
    """Every output of every case against its reference.

    Args:
        infer: runs the graph once. Whatever it raises goes through: what holds
            the engine must see it first, and `refused` makes it the finding.
        blank: graph, precision, bracket and tolerance of these checks.
        own_errors: how far the module itself is off in FP32, by case and output.
    """
    return [check for case in cases for check in _case_checks(infer, case, blank, own_errors)]


def refused(blank: Check, error: BaseException) -> Check:
    """The one check of a graph that its engine would not run."""
    said = "the engine refused the graph: {}".format(first_line(error))
    return blank._replace(case="all", output="all", error=said)


def _case_checks(infer: Infer, case: Case, blank: Check, own_errors: OwnErrors) -> Iterator[Check]:
    outputs = infer(case.inputs)
    for name, expected in case.expected.items():
        check = _fitted(blank._replace(case=case.name, output=name), own_errors.get(case.name, {}).get(name, {}))
        yield _compared(check, outputs.get(name), expected)


def _fitted(blank: Check, own_error: Mapping[str, float]) -> Check:
    if blank.precision != "fp32":
        return blank
    rms, worst = own_error.get("rms_relative", 0.0), own_error.get("worst_relative", 0.0)
    return blank._replace(tolerance=fp32_tolerance(blank.tolerance, rms, worst))


def _compared(check: Check, actual: Optional[np.ndarray], expected: Expected) -> Check:
    if actual is None:
        return check._replace(error="the graph has no such output")
    if actual.shape != expected.shape:
        return check._replace(error="shape {} instead of {}".format(actual.shape, expected.shape))
    if isinstance(expected, Thinned):
        comparison, compared = compare_thinned(actual, expected, check.tolerance.worst_relative)
    else:
        comparison, compared = compare(actual, expected), "all {:,} elements".format(actual.size)
    return check._replace(comparison=comparison, compared=compared)


def _is_tolerance(fields: object) -> bool:
    return isinstance(fields, dict) and set(fields) == set(Tolerance._fields)
