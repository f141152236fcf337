"""Questions about an ONNX graph that the precision plan and the typed graph ask."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import onnx

_CARRIES_LOGITS = frozenset(("Add", "Div", "Mul", "Reshape", "Sub", "Transpose", "Where"))
_CARRIES_OPERAND = frozenset(("Concat", "Reshape", "Split", "Transpose", "Unsqueeze", "Squeeze", "Identity"))


class GraphView:
    """Types, shapes, constants and neighbours of a graph, looked up by tensor name."""

    def __init__(self, model: onnx.ModelProto) -> None:
        import onnx

        self._opset = max(item.version for item in model.opset_import if item.domain == "")
        inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
        self._types: dict[str, int] = {}
        self._shapes: dict[str, list[int | None]] = {}
        for value in (*inferred.input, *inferred.value_info, *inferred.output):
            tensor = value.type.tensor_type
            self._types[value.name] = tensor.elem_type
            if tensor.HasField("shape"):
                self._shapes[value.name] = [
                    dimension.dim_value if dimension.HasField("dim_value") else None for dimension in tensor.shape.dim
                ]
        self._constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
        self._types.update({tensor.name: tensor.data_type for tensor in model.graph.initializer})
        self._makers: dict[str, onnx.NodeProto] = {}
        self._users: dict[str, list[onnx.NodeProto]] = {}
        for node in model.graph.node:
            self._add(node)

    def is_float(self, name: str) -> bool:
        import onnx

        return self._types.get(name) == onnx.TensorProto.FLOAT

    def makes_float(self, node: onnx.NodeProto) -> bool:
        return any(self.is_float(name) for name in node.output)

    def is_activation(self, name: str) -> bool:
        """A float tensor that depends on the network's input."""
        return self.is_float(name) and name not in self._constants

    def constant(self, name: str) -> np.ndarray[Any, Any] | None:
        """The value of a float initializer or Constant, else None."""
        return self._constants.get(name) if self.is_float(name) else None

    def constant_magnitude(self, name: str) -> float:
        value = self.constant(name)
        return float(abs(value).max()) if value is not None and value.size else 0.0

    def weights_below(self, magnitude: float) -> int:
        """How many non-zero float constants are smaller than this."""
        floats = [value for name, value in self._constants.items() if self.is_float(name)]
        return sum(int(((value != 0) & (abs(value) < magnitude)).sum()) for value in floats)

    def can_be_half(self, node: onnx.NodeProto) -> bool:
        """Whether its operator's float outputs may be FP16 by ONNX's own type constraints."""
        import onnx

        if node.op_type in ("Cast", "Constant") or any(a.type == onnx.AttributeProto.GRAPH for a in node.attribute):
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
        waiting, seen = [node], {node.output[0]}
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
        if node is None:
            return False
        if node.op_type in ("Mul", "Div"):
            magnitudes = [self.constant_magnitude(x) for x in node.input if self.constant(x) is not None]
            return any(0 < m < 1 if node.op_type == "Mul" else m > 1 for m in magnitudes)
        return node.op_type in _CARRIES_OPERAND and self.is_scaled_down(node.input[0])

    def _add(self, node: onnx.NodeProto) -> None:
        import onnx

        if node.op_type == "Constant":
            for attribute in node.attribute:
                if attribute.name == "value":
                    self._constants[node.output[0]] = onnx.numpy_helper.to_array(attribute.t)
        for name in node.output:
            self._makers[name] = node
        for name in node.input:
            self._users.setdefault(name, []).append(node)

    def _axes(self, node: onnx.NodeProto, rank: int) -> list[int]:
        axes = _attribute(node, "axes", None)
        if axes is None and len(node.input) > 1 and node.input[1] in self._constants:
            axes = self._constants[node.input[1]].tolist()
        return list(range(rank)) if axes is None else sorted(axis % rank for axis in axes)


def _attribute(node: onnx.NodeProto, name: str, default: list[int] | None) -> list[int] | None:
    return next((list(attribute.ints) for attribute in node.attribute if attribute.name == name), default)


def _product(extents: list[int] | None) -> int:
    product = 1
    for extent in extents or []:
        product *= extent
    return product
