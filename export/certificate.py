"""The equivalence certificate: a replacement is proven when it is made, or not made."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from deploy_attn.jetson.errors import BadRequest
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


def prove(
    reference: ReferenceForm,
    shape: Shape,
    engine: str = "cpu",
    observed: Mapping[str, Tensor] | None = None,
    dynamic_size: bool = False,
) -> Proof:
    """Builds the export form of a reference form and tries the two against each other, in float64.

    Input classes: normal, a large range, a mean far from zero, constant,
    negative, zeros, at batch 1 and at a larger one, on maps of the size asked
    for and of another, plus what the network itself was observed to feed it.

    Args:
        reference: a float64 module in eval mode; its weights are not changed.
        shape: `b c h w` that the form will be built for.
        engine: the engine's family.
        observed: named activations of `b c h w` that reach the module in its network.
        dynamic_size: build it for any h and w.

    The other size is the first of larger, half as large and twice as large that the module takes.
    """
    form = reference.export_form(shape, engine, dynamic_size).eval()
    inputs = {**_classes(shape), **(observed or {})}
    trials = [compare_modules(name, reference, form, x) for name, x in inputs.items()]
    for other in _other_shapes(shape):
        with contextlib.suppress(BadRequest):
            other_form = form if dynamic_size else reference.export_form(other, engine).eval()
            trials.append(compare_modules("normal, another size", reference, other_form, _normal(other)))
            break
    return Proof(form, Certificate(type(reference).__name__, type(form).__name__, tuple(trials)))


def compare_modules(name: str, reference: nn.Module, replacement: nn.Module, x: Tensor) -> Trial:
    """One trial of two networks on one input, float64; several outputs are compared as one."""
    import torch

    from deploy_attn.export.onnx_from_module import output_tensors

    with torch.inference_mode():
        wanted = output_tensors(reference(x.clone()))
        error = _distance(output_tensors(replacement(x.clone())), wanted)
        bound = BOUND
        if error > BOUND:
            moved = _SENSITIVITY_FACTOR * _distance(output_tensors(reference(_last_bit_changed(x))), wanted)
            bound = min(max(BOUND, moved), _SENSITIVITY_CEILING)
    return Trial(name, tuple(x.shape), error, bound)


def _classes(shape: Shape) -> dict[str, Tensor]:
    import torch

    one: Shape = (1, shape[1], shape[2], shape[3])
    several: Shape = (max(shape[0], 1) + 2, shape[1], shape[2], shape[3])
    normal = _normal(one)
    return {
        "normal": normal,
        "normal, larger batch": _normal(several),
        "large range": 1e3 * normal,
        "mean of 20 sigma": normal + 20,
        "negative": -normal.abs() - 1,
        "constant": torch.full(one, 0.7, dtype=torch.float64),
        "zeros": torch.zeros(one, dtype=torch.float64),
    }


def _other_shapes(shape: Shape) -> list[Shape]:
    _, channels, height, width = shape
    sizes = [(height + 2, width + 3), (max(height // 2, 1), max(width // 2, 1)), (2 * height, 2 * width)]
    return [(1, channels, *size) for size in sizes if size != (height, width)]


def _normal(shape: Shape) -> Tensor:
    import torch

    generator = torch.Generator().manual_seed(_SEED)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def _distance(got: list[Tensor], wanted: list[Tensor]) -> float:
    """||got - wanted|| / ||wanted|| over all outputs; infinite if a shape differs or a value is not finite."""
    import torch

    if [tensor.shape for tensor in got] != [tensor.shape for tensor in wanted]:
        return float("inf")
    first, second = (torch.cat([tensor.flatten().double() for tensor in tensors]) for tensors in (got, wanted))
    if not bool((first.isfinite() & second.isfinite()).all()):
        return float("inf")
    norm = float(second.norm())
    apart = float((first - second).norm())
    return apart / norm if norm > 0 else apart


def _last_bit_changed(x: Tensor) -> Tensor:
    """x with each value moved to its neighbour in float64, up and down in turn."""
    import torch

    signs = torch.ones_like(x).flatten()
    signs[1::2] = -1
    return torch.nextafter(x, x + signs.reshape(x.shape) * x.abs().clamp(min=1e-300))
