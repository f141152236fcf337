"""The equivalence certificate: a replacement is proven when it is made, or not made."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from deploy_attn.export.arguments import Arguments
from deploy_attn.export.layout import Layout, laid_out
from deploy_attn.export.results import output_tensors
from deploy_attn.jetson.metrics import finite_or_none

if TYPE_CHECKING:
    from torch import Tensor, nn

    from deploy_attn.modules.base import ReferenceForm, Shape

BOUND = 1e-11
_SENSITIVITY_FACTOR = 16.0
_SENSITIVITY_CEILING = 1e-7  # a larger error is no rounding, however sensitive the reference is
_SEED = 20180717


@dataclass(frozen=True)
class Trial:
    """One input class: how far the two forms were apart, in float64.

    `error` is ||a - b|| / ||b||, or ||a - b|| where b is zero, infinite where
    either is not finite. `bound` is 1e-11, or where that is less, 16 times what a
    change of the input's last bit does to the reference itself (no form can be
    closer than that), but never above 1e-7.
    """

    inputs: str
    shape: tuple[int, ...]
    error: float
    bound: float

    @property
    def passed(self) -> bool:
        return self.error <= self.bound

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "error": finite_or_none(self.error), "passed": self.passed}


@dataclass(frozen=True)
class Certificate:
    """What was replaced by what, and every trial of it."""

    subject: str
    replacement: str
    trials: tuple[Trial, ...]

    @property
    def proven(self) -> bool:
        return bool(self.trials) and all(trial.passed for trial in self.trials)

    @property
    def worst_error(self) -> float:
        return max((trial.error for trial in self.trials), default=float("inf"))

    def as_dict(self) -> dict[str, Any]:
        return {
            "subject": self.subject,
            "replacement": self.replacement,
            "proven": self.proven,
            "worst_error": finite_or_none(self.worst_error),
            "trials": [trial.as_dict() for trial in self.trials],
        }


@dataclass(frozen=True)
class Proof:
    """An export form, and the certificate of this very instance."""

    form: nn.Module
    certificate: Certificate


@dataclass(frozen=True)
class Claim:
    """That the forms which `build` makes equal a module, in value, on every input.

    Attributes:
        subject: a float64 module in eval mode, of one map; its weights are not changed.
        build: makes the form for a map of shape `b c h w`; it raises BadRequest
            for a shape that it cannot take.
        any_size: one form serves every h and w.
        layout: in which the subject takes maps.
        brief: only normal inputs of this size and a thousand times them.
        hasty: the first trial that fails is the last.
        call: the arguments with which a map is given to the subject and to the form.
    """

    subject: nn.Module
    build: Callable[[Shape], nn.Module]
    any_size: bool = False
    layout: Layout = "b c h w"
    brief: bool = False
    hasty: bool = False
    call: Callable[[Tensor], Arguments] = Arguments.of


def prove(
    reference: ReferenceForm,
    shape: Shape,
    engine: str = "cpu",
    observed: Mapping[str, Tensor] | None = None,
    dynamic_size: bool = False,
) -> Proof:
    """`prove_claim` for a reference form and its export form for an engine's family."""

    def build(size: Shape) -> nn.Module:
        return reference.export_form(size, engine, dynamic_size)

    return prove_claim(Claim(reference, build, dynamic_size), shape, observed or {})


def prove_claim(claim: Claim, shape: Shape, observed: Mapping[str, Tensor] | Mapping[str, Arguments]) -> Proof:
    """Builds the form for a shape and tries the subject and it against each other, in float64.

    Input classes: normal, a large range, a mean far from zero, constant,
    negative, zeros, at batch 1 and at a larger one, on maps of the size asked
    for and of another, plus what the network itself was observed to feed it.

    Args:
        shape: `b c h w` that the form will be built for.
        observed: named maps that reach the module in its network, as they are.

    Raises:
        BadRequest: there is no form for this shape. What the subject raises on a map of it goes through.

    The other size is the first of larger, half as large and twice as large that the subject takes.
    """
    form = claim.build(shape).eval()
    maps = _brief_classes(shape) if claim.brief else _classes(shape)
    inputs: dict[str, Tensor | Arguments] = {name: claim.call(laid_out(x, claim.layout)) for name, x in maps.items()}
    inputs.update(observed)
    trials: list[Trial] = []
    for name, given in inputs.items():
        trials.append(compare_modules(name, claim.subject, form, given))
        if claim.hasty and not trials[-1].passed:
            break
    if not (claim.brief or (claim.hasty and not trials[-1].passed)):
        others = (_trial_of_another_size(claim, form, other) for other in _other_shapes(shape, claim.layout))
        another = next((trial for trial in others if trial is not None), None)
        trials += [] if another is None else [another]
    return Proof(form, Certificate(type(claim.subject).__name__, type(form).__name__, tuple(trials)))


def _trial_of_another_size(claim: Claim, form: nn.Module, shape: Shape) -> Trial | None:
    """The trial on maps of another size; None for a size that the subject or the form is not made for."""
    import torch

    arguments = claim.call(laid_out(_normal(shape), claim.layout))
    try:
        other = form if claim.any_size else claim.build(shape).eval()
        with torch.inference_mode():
            wanted = output_tensors(arguments.call(claim.subject))
    except Exception:  # a subject may raise anything over a size that it does not take
        return None
    return compare_with("normal, another size", claim.subject, other, arguments, wanted)


def compare_modules(name: str, reference: nn.Module, replacement: nn.Module, example: Tensor | Arguments) -> Trial:
    """One trial of two networks on one input, float64; several outputs are compared as one."""
    import torch

    arguments = Arguments.of(example)
    with torch.inference_mode():
        wanted = output_tensors(arguments.call(reference))
        return compare_with(name, reference, replacement, arguments, wanted)


def compare_with(
    name: str, reference: nn.Module, replacement: nn.Module, arguments: Arguments, wanted: list[Tensor]
) -> Trial:
    """`compare_modules` where the outputs of the reference are known already."""
    import torch

    with torch.inference_mode():
        error = _distance(output_tensors(arguments.call(replacement)), wanted)
        bound = BOUND
        if error > BOUND:
            changed = output_tensors(arguments.mapped(_last_bit_changed).call(reference))
            moved = _SENSITIVITY_FACTOR * _distance(changed, wanted)
            bound = min(max(BOUND, moved), _SENSITIVITY_CEILING)
    shape = tuple(arguments.tensors[0].shape)
    return Trial(name, shape, error, bound)


def _brief_classes(shape: Shape) -> dict[str, Tensor]:
    normal = _normal((1, *shape[1:]))
    return {"normal": normal, "large range": 1e3 * normal}


def _classes(shape: Shape) -> dict[str, Tensor]:
    import torch

    one: Shape = (1, *shape[1:])
    maps = _brief_classes(shape)
    normal = maps["normal"]
    # Each map of the batch has other channels and another scale; fresh draws would take longer than the trials.
    several = [(place + 1) * normal.roll(place, 1) for place in range(max(shape[0], 1) + 1)]
    return {
        **maps,
        "normal, larger batch": torch.cat(several),
        "mean of 20 sigma": normal + 20,
        "negative": -normal.abs() - 1,
        "constant": torch.full(one, 0.7, dtype=torch.float64),
        "zeros": torch.zeros(one, dtype=torch.float64),
    }


def _other_shapes(shape: Shape, layout: Layout) -> list[Shape]:
    """Tokens stay in one column: each other one would be as many tokens more."""
    _, channels, height, width = shape
    sizes = [(height + 2, width + 3), (max(height // 2, 1), max(width // 2, 1)), (2 * height, 2 * width)]
    if layout == "b n c":
        sizes = [(places, width) for places, _ in sizes]
    return [(1, channels, *size) for size in sizes if size != (height, width)]


def _normal(shape: Shape) -> Tensor:
    """Normal noise, drawn in FP32, which takes a fifth of the time; the factor fills the other bits."""
    import torch

    generator = torch.Generator().manual_seed(_SEED)
    return torch.randn(shape, generator=generator).double() * (math.pi / 3.14159)


def _distance(got: list[Tensor], wanted: list[Tensor]) -> float:
    """The largest ||got - wanted|| / ||wanted|| of an output; infinite if a shape differs or a value is not finite."""
    if [tensor.shape for tensor in got] != [tensor.shape for tensor in wanted]:
        return float("inf")
    return max(_apart(first.double(), second.double()) for first, second in zip(got, wanted))


def _apart(first: Tensor, second: Tensor) -> float:
    norms = float(first.norm()), float(second.norm())
    if not all(map(math.isfinite, norms)):  # a value is not finite, or so large that nothing can be told
        return float("inf")
    apart = float((first - second).norm())
    return apart / norms[1] if norms[1] > 0 else apart


def _last_bit_changed(x: Tensor) -> Tensor:
    """x with each value moved to its neighbour in float64, up and down in turn."""
    import torch

    if not x.is_floating_point():
        return x
    signs = torch.ones_like(x).flatten()
    signs[1::2] = -1
    return torch.nextafter(x, x + signs.reshape(x.shape) * x.abs().clamp(min=1e-300))
