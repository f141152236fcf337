"""Questions about an ONNX graph that the precision plan, the typed graph and lint ask."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from deploy_attn.engines.shapes import inferred_shapes

if TYPE_CHECKING:
    import numpy as np
    import onnx

_FLOAT = 1  # TensorProto.FLOAT
_KEPT = 1 << 20  # bytes; a larger constant is read anew each time, and not kept twice
_CARRIES_LOGITS = frozenset(("Add", "Div", "Mul", "Reshape", "Sub", "Transpose", "Where"))
_CARRIES_OPERAND = frozenset(("Concat", "Reshape", "Split", "Transpose", "Unsqueeze", "Squeeze", "Identity"))


class GraphView:
    """Types, shapes, constants and neighbours of a graph, looked up by tensor name."""

    def __init__(self, model: onnx.ModelProto, inferred: onnx.GraphProto | None = None) -> None:
        """Looks at a model; `inferred` is its graph with inferred shapes, where the caller has it."""
        self._opset = max((item.version for item in model.opset_import if item.domain in ("", "ai.onnx")), default=0)
        if inferred is None:
            inferred = inferred_shapes(model)
        self._types: dict[str, int] = {}
        self._shapes: dict[str, list[int | None]] = {}
        self._tensors: dict[str, onnx.TensorProto] = {}
        self._values: dict[str, np.ndarray[Any, Any]] = {}
        self._makers: dict[str, onnx.NodeProto] = {}
        self._users: dict[str, list[onnx.NodeProto]] = {}
        self._include(model.graph, inferred)

    def include(self, subgraph: onnx.GraphProto, inferred: onnx.GraphProto) -> None:
        """Adds the body of an If, Loop or Scan; a name that another graph has too stands for nothing afterwards."""
        declared = {
            *(value.name for value in subgraph.input),
            *(tensor.name for tensor in subgraph.initializer),
            *(name for node in subgraph.node for name in node.output),
        }
        clashes = {name for name in declared if name in self._types or name in self._makers}
        self._include(subgraph, inferred)
        for known in (self._types, self._shapes, self._tensors, self._makers):
            for name in clashes:
                known.pop(name, None)

    @property
    def opset(self) -> int:
        """Of ONNX's own operators; 0 where the model imports none of them."""
        return self._opset

    def elem_type(self, name: str) -> int:
        """A tensor's `TensorProto.DataType`; UNDEFINED where inference does not tell."""
        return self._types.get(name, 0)

    @property
    def elem_types(self) -> Mapping[str, int]:
        """`elem_type` of every tensor that is known."""
        return self._types

    def shape(self, name: str) -> list[int | None] | None:
        """A tensor's extents, None for an open one; None where not even the rank is known."""
        return self._shapes.get(name)

    def is_constant(self, name: str) -> bool:
        """Whether a tensor is an initializer or made by a Constant."""
        return name in self._tensors

    def value(self, name: str) -> np.ndarray[Any, Any] | None:
        """A constant's value of any type; None for what is no constant or lies in another file."""
        import onnx

        tensor = self._tensors.get(name)
        if tensor is None or tensor.data_location == onnx.TensorProto.EXTERNAL:
            return None
        if name in self._values:
            return self._values[name]
        value = onnx.numpy_helper.to_array(tensor)
        if value.nbytes <= _KEPT:
            self._values[name] = value
        return value

    def maker(self, name: str) -> onnx.NodeProto | None:
        """The node that makes a tensor."""
        return self._makers.get(name)

    def is_float(self, name: str) -> bool:
        return self._types.get(name) == _FLOAT

    def makes_float(self, node: onnx.NodeProto) -> bool:
        return any(self.is_float(name) for name in node.output)

    def is_activation(self, name: str) -> bool:
        """A float tensor that depends on the network's input."""
        return self.is_float(name) and name not in self._tensors

    def constant(self, name: str) -> np.ndarray[Any, Any] | None:
        """The value of a float initializer or Constant, else None."""
        return self.value(name) if self.is_float(name) else None

    def constant_magnitude(self, name: str) -> float:
        value = self.constant(name)
        return float(abs(value).max()) if value is not None and value.size else 0.0

    def weights_below(self, magnitude: float) -> int:
        """How many non-zero float constants are smaller than this."""
        values = [self.constant(name) for name in self._tensors]
        return sum(int(((value != 0) & (abs(value) < magnitude)).sum()) for value in values if value is not None)

    def can_be_half(self, node: onnx.NodeProto) -> bool:
        """Whether its operator's float outputs may be FP16 by ONNX's own type constraints."""
        import onnx

        if node.domain not in ("", "ai.onnx") or node.op_type in ("Cast", "Constant"):
            return False
        if any(attribute.type == onnx.AttributeProto.GRAPH for attribute in node.attribute):
            return False
        if not onnx.defs.has(node.op_type, self._opset) or not self.makes_float(node):
            return False
        schema = onnx.defs.get_schema(node.op_type, self._opset)
        allowed = {item.type_param_str: item.allowed_type_strs for item in schema.type_constraints}
        made = schema.outputs[0].type_str
        return "tensor(float16)" in allowed.get(made, ()) and bool(self.half_inputs(node))

    def half_inputs(self, node: onnx.NodeProto) -> list[int]:
        """Indices of the inputs that share the type of the first output."""
        import onnx

        schema = onnx.defs.get_schema(node.op_type, self._opset)
        made = schema.outputs[0].type_str
        last = len(schema.inputs) - 1
        return [
            index
            for index, name in enumerate(node.input)
            if self.is_float(name) and schema.inputs[min(index, last)].type_str == made
        ]

    def reduced(self, node: onnx.NodeProto) -> tuple[int | None, bool]:
        """How many values a reduction or average pool sums into one, and whether it may be over h or w.

        Maps are `b c h w`, or tokens `b n c` and `b c n`: there, any axis but the
        batch counts. The count is None where an extent, or the rank, is known at
        run time only.
        """
        if node.op_type == "AveragePool":
            kernel = _attribute(node, "kernel_shape", [])
            return _product(kernel), True
        shape = self._shapes.get(node.input[0])
        if shape is None:
            return None, True
        axes = list(range(2, len(shape))) if node.op_type == "GlobalAveragePool" else self._axes(node, len(shape))
        spatial = any(axis >= (2 if len(shape) >= 4 else 1) for axis in axes)
        extents = [shape[axis] for axis in axes]
        return (None, spatial) if None in extents else (_product([e for e in extents if e is not None]), spatial)

    def users(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        """The nodes that read what a node makes."""
        return [user for name in node.output for user in self._users.get(name, [])]

    def makers(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        """The nodes that make a node's float inputs; graph inputs and constants have none."""
        return [self._makers[name] for name in node.input if name in self._makers and self.is_activation(name)]

    def reaches_softmax(self, node: onnx.NodeProto) -> bool:
        """Whether a node's result becomes the input of a Softmax with no more than shifts and scales between."""
        waiting, seen = [node], set(node.output[:1])
        while waiting:
            for user in self.users(waiting.pop()):
                if user.op_type == "Softmax":
                    return True
                if user.op_type in _CARRIES_LOGITS and user.output[0] not in seen:
                    seen.add(user.output[0])
                    waiting.append(user)
        return False

    def is_scaled_down(self, name: str) -> bool:
        """Whether a tensor was multiplied by a constant below 1, or divided by one above it."""
        node = self._makers.get(name)
        while node is not None and node.op_type in _CARRIES_OPERAND:
            node = self._makers.get(node.input[0])
        if node is None or node.op_type not in ("Mul", "Div"):
            return False
        magnitudes = [self.constant_magnitude(x) for x in node.input if self.constant(x) is not None]
        return any(0 < m < 1 if node.op_type == "Mul" else m > 1 for m in magnitudes)

    def _include(self, graph: onnx.GraphProto, inferred: onnx.GraphProto) -> None:
        for value in (*inferred.input, *inferred.value_info, *inferred.output):
            tensor = value.type.tensor_type
            self._types[value.name] = tensor.elem_type
            if tensor.HasField("shape"):
                self._shapes[value.name] = [
                    dimension.dim_value if dimension.HasField("dim_value") and dimension.dim_value >= 0 else None
                    for dimension in tensor.shape.dim
                ]
        for tensor in graph.initializer:
            self._add_constant(tensor.name, tensor)
        for node in graph.node:
            self._add(node)

    def _add_constant(self, name: str, tensor: onnx.TensorProto) -> None:
        self._tensors[name] = tensor
        self._types[name] = tensor.data_type
        self._shapes.setdefault(name, list(tensor.dims))

    def _add(self, node: onnx.NodeProto) -> None:
        if node.op_type == "Constant" and node.output:
            tensor = next((tensor for tensor in map(_constant_tensor, node.attribute) if tensor is not None), None)
            if tensor is not None:
                self._add_constant(node.output[0], tensor)
        for name in node.output:
            if name:
                self._makers[name] = node
        for name in node.input:
            if name:
                self._users.setdefault(name, []).append(node)

    def _axes(self, node: onnx.NodeProto, rank: int) -> list[int]:
        axes = _attribute(node, "axes", None)
        given = self.value(node.input[1]) if axes is None and len(node.input) > 1 else None
        if given is not None:
            axes = given.reshape(-1).astype("int64").tolist()
        return list(range(rank)) if axes is None or not rank else sorted(axis % rank for axis in axes)


def _constant_tensor(attribute: onnx.AttributeProto) -> onnx.TensorProto | None:
    """What a Constant makes, in whichever attribute it says so; None for strings and sparse tensors."""
    import onnx

    if attribute.name == "value":
        return attribute.t if attribute.type == onnx.AttributeProto.TENSOR else None
    kinds = {
        "value_float": (onnx.TensorProto.FLOAT, (), [attribute.f]),
        "value_floats": (onnx.TensorProto.FLOAT, (len(attribute.floats),), attribute.floats),
        "value_int": (onnx.TensorProto.INT64, (), [attribute.i]),
        "value_ints": (onnx.TensorProto.INT64, (len(attribute.ints),), attribute.ints),
    }
    if attribute.name not in kinds:
        return None
    elem_type, dims, values = kinds[attribute.name]
    return onnx.helper.make_tensor("", elem_type, dims, values)


def _attribute(node: onnx.NodeProto, name: str, default: list[int] | None) -> list[int] | None:
    return next((list(attribute.ints) for attribute in node.attribute if attribute.name == name), default)


def _product(extents: list[int] | None) -> int:
    product = 1
    for extent in extents or []:
        product *= extent
    return product
