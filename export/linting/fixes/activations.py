"""Gelu, HardSwish, Mish and Swish by their formulas."""

from __future__ import annotations

import math

from deploy_attn.export.linting.fixes.bench import Bench, NoExactRewrite
from deploy_attn.export.linting.fixes.half import finished, widened

_GELU, _HARD_SWISH, _MISH, _SWISH = 20, 14, 18, 24


def gelu(bench: Bench) -> str | None:
    """x/2 (1 + erf(x / sqrt 2)), or x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))); Hendrycks and Gimpel."""
    if not bench.lacks(_GELU):
        return None
    form = bench.attribute("approximate", "none")
    if form not in ("none", "tanh"):
        raise NoExactRewrite(f"its attribute approximate is {form!r}, which ONNX does not define")
    x, kind = widened(bench, bench.node.input[0])
    if form == "none":
        inner = bench.make("Erf", [bench.make("Mul", [x, bench.scalar(math.sqrt(0.5), kind, "sqrt_half")])])
    else:
        square = bench.make("Mul", [x, x])
        scaled = bench.make("Mul", [square, bench.scalar(0.044715, kind, "cubic")])
        factor = bench.make("Add", [scaled, bench.scalar(1.0, kind, "one")])
        angle = bench.make("Mul", [bench.make("Mul", [x, factor]), bench.scalar(math.sqrt(2 / math.pi), kind, "slope")])
        inner = bench.make("Tanh", [angle])
    half = bench.make("Mul", [x, bench.scalar(0.5, kind, "half")])
    finished(bench, "Mul", half, bench.make("Add", [inner, bench.scalar(1.0, kind, "one")]))
    return f"decomposed ({'erf' if form == 'none' else 'tanh form'})"


def hard_swish(bench: Bench) -> str | None:
    """x times HardSigmoid with alpha 1/6 and beta 1/2; Howard et al."""
    if not bench.lacks(_HARD_SWISH):
        return None
    x, _ = widened(bench, bench.node.input[0])
    finished(bench, "Mul", x, bench.make("HardSigmoid", [x], alpha=1 / 6, beta=0.5))
    return "written as x * HardSigmoid(x)"


def mish(bench: Bench) -> str | None:
    """x tanh(softplus(x)); Misra."""
    if not bench.lacks(_MISH):
        return None
    x, _ = widened(bench, bench.node.input[0])
    finished(bench, "Mul", x, bench.make("Tanh", [bench.make("Softplus", [x])]))
    return "written as x * Tanh(Softplus(x))"


def swish(bench: Bench) -> str | None:
    """x sigmoid(alpha x); Ramachandran et al."""
    if not bench.lacks(_SWISH):
        return None
    x, kind = widened(bench, bench.node.input[0])
    alpha = float(bench.attribute("alpha", 1.0))
    scaled = x if alpha == 1.0 else bench.make("Mul", [x, bench.scalar(alpha, kind, "alpha")])
    finished(bench, "Mul", x, bench.make("Sigmoid", [scaled]))
    return "written as x * Sigmoid(alpha x)"
