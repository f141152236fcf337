"""How many arithmetic operations a node takes, by kind; what moves or renames values takes none."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from deploy_attn.engines.shaped_graph import Operation, Tensor

Tensors = Mapping[str, Tensor]


class Counts(NamedTuple):
    """Operations of one kind each.

    A multiply-add is two operations. A transcendental function (exp, sigmoid, root ...) counts as one, which is less
    than any hardware takes.
    """

    multiply_adds: int = 0
    elementwise: int = 0
    reductions: int = 0
    transcendental: int = 0

    @property
    def operations(self) -> int:
        return 2 * self.multiply_adds + self.elementwise + self.reductions + self.transcendental

    def plus(self, other: Counts) -> Counts:
        return Counts(*(a + b for a, b in zip(self, other)))

    def times(self, factor: int) -> Counts:
        return Counts(*(factor * one for one in self))


# The same bytes under another name or shape: nothing is moved, nothing computed.
VIEWS = frozenset({"Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity", "Dropout"})


def _each(names: str, counts: Counts) -> dict[str, Counts]:
    return dict.fromkeys(names.split(), counts)


_MOVES: Mapping[str, Counts] = MappingProxyType(
    _each(
        "Cast CastLike Concat ConstantOfShape DepthToSpace EyeLike Expand Gather GatherElements GatherND NonZero Pad "
        "Range ScatterElements ScatterND Slice SpaceToDepth Split Tile Transpose",
        Counts(),
    )
)
# Each element of the output takes this.
_OF_OUTPUT: Mapping[str, Counts] = MappingProxyType(
    {
        **_each(
            "Abs Add And Ceil Clip Div Equal Floor Greater GreaterOrEqual IsInf IsNaN LeakyRelu Less LessOrEqual Mod "
            "Mul Neg Not Or PRelu Relu Round Sign Sub ThresholdedRelu Trilu Where Xor",
            Counts(elementwise=1),
        ),
        **_each(
            "Acos Asin Atan Celu Cos Cosh Elu Erf Exp Gelu Log Mish Pow Reciprocal Selu Sigmoid Sin Sinh Softplus "
            "Softsign Sqrt Tan Tanh",
            Counts(transcendental=1),
        ),
        **_each("HardSigmoid", Counts(elementwise=3)),  # a product, a sum, a clip
        **_each("HardSwish", Counts(elementwise=4)),
    }
)
# Each element of the first input takes this.
_OF_INPUT: Mapping[str, Counts] = MappingProxyType(
    {
        **_each(
            "ArgMax ArgMin CumSum GlobalAveragePool GlobalMaxPool ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum",
            Counts(reductions=1),
        ),
        **_each("GlobalLpPool ReduceL1 ReduceL2 ReduceSumSquare", Counts(elementwise=1, reductions=1)),
        **_each("ReduceLogSum ReduceLogSumExp", Counts(reductions=1, transcendental=1)),
        # The largest, a difference, its exponential, their sum, a quotient.
        **_each("Softmax LogSoftmax", Counts(elementwise=2, reductions=2, transcendental=1)),
        # A mean, a difference, its square, their mean, a factor, a shift.
        **_each("InstanceNormalization LayerNormalization GroupNormalization", Counts(elementwise=4, reductions=2)),
        **_each("BatchNormalization", Counts(elementwise=2)),
        **_each("LpNormalization", Counts(elementwise=2, reductions=1)),
    }
)


def counts_of(operation: Operation, tensors: Tensors) -> Counts | None:
    """The operations of a node; None for an operator that is not known here."""
    kind = operation.node.op_type
    if operation.node.domain not in ("", "ai.onnx"):
        return None
    if kind in VIEWS or kind in _MOVES:
        return Counts()
    if kind in _OF_OUTPUT:
        return _OF_OUTPUT[kind].times(tensors[operation.outputs[0]].elements)
    if kind in _OF_INPUT:
        return _OF_INPUT[kind].times(tensors[operation.inputs[0]].elements)
    count = _BY_SHAPE.get(kind)
    return None if count is None else count(operation, tensors)


def _convolution(operation: Operation, tensors: Tensors) -> Counts:
    """Each output takes a product for each weight of its filter, `out in/groups ...`."""
    out = tensors[operation.outputs[0]].elements
    macs = out * math.prod(tensors[operation.inputs[1]].shape[1:])
    return Counts(multiply_adds=macs, elementwise=out if len(operation.inputs) > 2 else 0)


def _transposed_convolution(operation: Operation, tensors: Tensors) -> Counts:
    """Each input meets every weight of its filter, `in out/groups ...`."""
    macs = tensors[operation.inputs[0]].elements * math.prod(tensors[operation.inputs[1]].shape[1:])
    bias = tensors[operation.outputs[0]].elements if len(operation.inputs) > 2 else 0
    return Counts(multiply_adds=macs, elementwise=bias)


def _matrix_product(operation: Operation, tensors: Tensors) -> Counts:
    depth = tensors[operation.inputs[0]].shape[-1]
    return Counts(multiply_adds=tensors[operation.outputs[0]].elements * depth)


def _gemm(operation: Operation, tensors: Tensors) -> Counts:
    out = tensors[operation.outputs[0]].elements
    depth = tensors[operation.inputs[0]].shape[0 if _attribute(operation, "transA", 0) else 1]
    return Counts(multiply_adds=out * depth, elementwise=out if len(operation.inputs) > 2 else 0)


def _pool(operation: Operation, tensors: Tensors) -> Counts:
    return Counts(
        reductions=tensors[operation.outputs[0]].elements * math.prod(_attribute(operation, "kernel_shape", ()))
    )


def _several(operation: Operation, tensors: Tensors) -> Counts:
    """Sum, Mean, Max and Min of several tensors."""
    return Counts(elementwise=tensors[operation.outputs[0]].elements * max(len(operation.inputs) - 1, 1))


def _einsum(operation: Operation, tensors: Tensors) -> Counts | None:
    """A product for every value of all indices, for each input but the first."""
    terms = _attribute(operation, "equation", b"").decode().replace(" ", "").split("->")[0].split(",")
    if "." in "".join(terms):
        return None
    extents = {
        letter: extent
        for term, name in zip(terms, operation.inputs)
        for letter, extent in zip(term, tensors[name].shape)
    }
    return Counts(multiply_adds=math.prod(extents.values()) * (len(terms) - 1))


_BY_SHAPE: Mapping[str, Callable[[Operation, Tensors], Counts | None]] = MappingProxyType(
    {
        "Conv": _convolution,
        "ConvTranspose": _transposed_convolution,
        "MatMul": _matrix_product,
        "Gemm": _gemm,
        "Einsum": _einsum,
        **dict.fromkeys(("AveragePool", "MaxPool", "LpPool"), _pool),
        **dict.fromkeys(("Sum", "Mean", "Max", "Min"), _several),
    }
)


def _attribute(operation: Operation, name: str, default: Any) -> Any:
    import onnx

    found = [one for one in operation.node.attribute if one.name == name]
    return onnx.helper.get_attribute_value(found[0]) if found else default
