"""The proof that a rewritten graph is the original: both run over the same inputs in onnxruntime."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from deploy_attn.engines.base import Runner
from deploy_attn.engines.onnxruntime import OnnxRuntimeRunner
from deploy_attn.engines.tolerance import TOLERANCES, Tolerance, fp32_tolerance
from deploy_attn.export.linting.trial_inputs import CASES, Choice, Port, choices, feeds_of, perturbed, ports_of
from deploy_attn.jetson.errors import BadRequest, DeployAttnError, first_line
from deploy_attn.jetson.metrics import compare, finite_or_none, within

if TYPE_CHECKING:
    import numpy as np
    import onnx

Arrays = Mapping[str, "np.ndarray[Any, Any]"]

_NORMAL, _OTHER_SIZE = CASES[0], "another size"
_HALVES = frozenset((10, 16))  # FLOAT16 and BFLOAT16 of TensorProto.DataType


@dataclass(frozen=True)
class Trial:
    """Both graphs over one set of inputs.

    Attributes:
        name: which values: `normal`, `large`, `negative`, `zeros`, or normal ones of `another size`.
        shapes: of the inputs, by name.
        allowed: what the outputs were held to.
        compared: the outputs that had finite values to compare.
        rms_relative: the worst of the outputs, as `compare` measures it; 0 for equal integers.
        worst_relative: the same for single elements.
        error: what is wrong; None where the graphs agree.
    """

    name: str
    shapes: Mapping[str, tuple[int, ...]]
    allowed: Tolerance
    compared: tuple[str, ...] = ()
    rms_relative: float = 0.0
    worst_relative: float = 0.0
    error: str | None = None


@dataclass(frozen=True)
class Proof:
    """What the trials showed; `error` says why they show nothing."""

    trials: tuple[Trial, ...]
    error: str | None = None

    @property
    def passed(self) -> bool:
        return self.failure is None

    @property
    def failure(self) -> str | None:
        """Why the graphs are not proven equal; None where they are."""
        wrong = (f"on {trial.name} inputs {trial.error}" for trial in self.trials if trial.error is not None)
        return self.error or next(wrong, None if self.trials else "nothing was tried")

    @property
    def worst_error(self) -> float:
        """The largest RMS relative error of any trial."""
        return max((trial.rms_relative for trial in self.trials), default=0.0)

    def as_dict(self) -> dict[str, Any]:
        trials = [
            {
                **asdict(trial),
                "allowed": trial.allowed._asdict(),
                "rms_relative": finite_or_none(trial.rms_relative),
                "worst_relative": finite_or_none(trial.worst_relative),
            }
            for trial in self.trials
        ]
        return {
            "passed": self.passed,
            "failure": self.failure,
            "worst_rms_relative": finite_or_none(self.worst_error),
            "trials": trials,
        }


def prove(original: onnx.ModelProto, copy: bytes) -> Proof:
    """Runs a graph and the file of its copy, weights inside both, node by node as written, over seeded inputs.

    Floats are held to the FP32 tolerance, or to that of FP16 where the graph
    holds FP16 itself. Where the original is further than that from itself, on
    inputs that are one rounding apart, so may the copy be, up to the ceiling of
    `fp32_tolerance`. Other types must be equal, and NaN and infinities in the
    same places.

    Raises:
        BadRequest: onnxruntime is not installed.
    """
    before, after = (OnnxRuntimeRunner(content, optimise=False) for content in (original.SerializeToString(), copy))
    stage = "onnxruntime refuses the original"
    try:
        ports = ports_of(original)
        with before:
            stage = "onnxruntime refuses the copy"
            with after:
                stage = "the proof cannot be made"
                return _proof(_Graphs(before, after, _tolerance(original)), ports)
    except BadRequest:
        raise
    except DeployAttnError as refusal:
        return Proof((), str(refusal))
    except Exception as error:  # onnxruntime's errors have no base class of their own
        return Proof((), f"{stage}: {first_line(error)}")


class _NoProof(DeployAttnError):
    """Nothing can be shown about this graph."""


@dataclass(frozen=True)
class _Graphs:
    before: Runner
    after: Runner
    tolerance: Tolerance


def _proof(graphs: _Graphs, ports: tuple[Port, ...]) -> Proof:
    start = _runnable(graphs.before, ports, None)
    feeds = feeds_of(ports, start, _NORMAL)
    first, again = (graphs.before.infer(feeds) for _ in range(2))
    if _held(Trial("", {}, TOLERANCES["fp32"]), again, first).error is not None:
        raise _NoProof("the original gives something else each time: nothing can be shown equal to it")
    trials = [_trial(graphs, case, feeds_of(ports, start, case)) for case in CASES]
    if any(port.is_open for port in ports):
        try:
            other = _runnable(graphs.before, ports, start)
            trials.append(_trial(graphs, _OTHER_SIZE, feeds_of(ports, other, _NORMAL)))
        except _NoProof:
            pass  # whatever its inputs declare, it runs at one size only
    shown = tuple(trial for trial in trials if trial is not None)
    seen = {name for trial in shown for name in trial.compared}
    unseen = sorted(set(first) - seen)
    wrong = any(trial.error for trial in shown)
    return Proof(shown, f"output {unseen[0]!r} has no finite value to compare" if unseen and not wrong else None)


def _runnable(before: Runner, ports: tuple[Port, ...], but: Choice | None) -> Choice:
    """The first sizes and integers that the original runs on, of another size than `but`."""
    reason = "there is no other size"
    for choice in choices(ports):
        if but is not None and choice.sizes == but.sizes:
            continue
        try:
            before.infer(feeds_of(ports, choice, _NORMAL))
        except Exception as error:  # onnxruntime's errors have no base class of their own
            reason = first_line(error)
        else:
            return choice
    raise _NoProof(f"the original runs on none of the inputs that were tried: {reason}")


def _trial(graphs: _Graphs, name: str, feeds: Arrays) -> Trial | None:
    """None where the original does not take these values: they show nothing about the copy."""
    blank = Trial(name, {key: tuple(array.shape) for key, array in feeds.items()}, graphs.tolerance)
    try:
        want = graphs.before.infer(feeds)
    except Exception:  # onnxruntime's errors have no base class of their own
        return None
    try:
        got = graphs.after.infer(feeds)
    except Exception as error:
        return replace(blank, error=f"the copy does not run: {first_line(error)}")
    trial = _held(blank, got, want)
    if trial.error is None or graphs.tolerance != TOLERANCES["fp32"]:
        return trial
    nearby = _held(blank, graphs.before.infer(perturbed(feeds)), want)
    allowed = fp32_tolerance(graphs.tolerance, nearby.rms_relative, nearby.worst_relative)
    reason = f"the original is {nearby.rms_relative:.1e} from itself on inputs one rounding apart"
    return _held(replace(blank, allowed=allowed._replace(reason=reason)), got, want)


def _held(blank: Trial, got: Arrays, want: Arrays) -> Trial:
    """Every output against what it should be; the first that is wrong is the trial's error."""
    trial = blank
    for name, expected in want.items():
        found = _compared(blank.allowed, got.get(name), expected)
        trial = replace(
            trial,
            compared=(*trial.compared, name) if found.is_shown else trial.compared,
            rms_relative=max(trial.rms_relative, found.rms_relative),
            worst_relative=max(trial.worst_relative, found.worst_relative),
            error=trial.error or (None if found.error is None else f"output {name!r} {found.error}"),
        )
    return trial


@dataclass(frozen=True)
class _Found:
    error: str | None = None
    is_shown: bool = False
    rms_relative: float = 0.0
    worst_relative: float = 0.0


def _compared(allowed: Tolerance, got: Any, want: Any) -> _Found:
    import numpy as np

    if not isinstance(got, np.ndarray) or not isinstance(want, np.ndarray):
        return _Found("is no tensor, and nothing else is compared")
    if got.dtype != want.dtype or got.shape != want.shape:
        return _Found(f"is {got.dtype} of shape {got.shape}, was {want.dtype} of shape {want.shape}")
    if not np.issubdtype(want.dtype, np.floating):
        wrong = int(np.count_nonzero(got != want))
        return _Found(f"differs in {wrong} of {want.size} values" if wrong else None, is_shown=True)
    finite = np.isfinite(want)
    if not np.array_equal(got[~finite], want[~finite], equal_nan=True):
        return _Found("is finite where the original is not, or of another sign")
    if not finite.any():
        return _Found(is_shown=want.size == 0)
    found = compare(got[finite], want[finite])
    if found.non_finite:
        return _Found(f"has {found.non_finite} values that are NaN or Inf, and were not")
    if within(found, allowed.rms_relative, allowed.worst_relative):
        return _Found(None, True, found.rms_relative, found.worst_relative)
    return _Found(
        f"is {found.rms_relative:.1e} RMS relative off ({allowed.rms_relative:.0e} is allowed), "
        f"{found.worst_relative:.1e} at worst ({allowed.worst_relative:.0e})",
        True,
        found.rms_relative,
        found.worst_relative,
    )


def _tolerance(model: onnx.ModelProto) -> Tolerance:
    from deploy_attn.export.linting.graph import attribute, nodes_of

    graph = model.graph
    values = (*graph.input, *graph.output, *graph.value_info)
    kinds = {value.type.tensor_type.elem_type for value in values} | {item.data_type for item in graph.initializer}
    kinds.update(attribute(node, "to", 0) for node in nodes_of(graph) if node.op_type == "Cast")
    return TOLERANCES["fp16" if kinds & _HALVES else "fp32"]
