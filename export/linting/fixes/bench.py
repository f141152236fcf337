"""Where a node's replacement is made: questions about its tensors, and new nodes in its place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from deploy_attn.export.linting.fixes.scope import Names, Scope
from deploy_attn.export.linting.graph import attribute, given, label
from deploy_attn.export.linting.parser import Parser

if TYPE_CHECKING:
    import numpy as np
    import onnx

_AXES_AS_INPUT = 18  # of ReduceMean


class NoExactRewrite(Exception):
    """A node needs a rewrite and has none that is exact; the message says why."""


@dataclass(frozen=True)
class Aim:
    """What a copy is rewritten for.

    Attributes:
        source: the opset that the model has.
        goal: the opset that the copy gets, never above `source`.
        parser: the target's; None where the target has no TensorRT.
    """

    source: int
    goal: int
    parser: Parser | None


class Bench:
    """One node and what is to stand in its place.

    Attributes:
        node: the node, never changed.
        found: whether lint has found something about it.
        nodes: what replaces it, written for the opset of the goal.
        weights: new constants of the main graph.
    """

    def __init__(self, node: onnx.NodeProto, scope: Scope, names: Names, aim: Aim, found: bool) -> None:
        self.node = node
        self.aim = aim
        self.found = found
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self._scope = scope
        self._names = names
        self._label = label(node)

    @property
    def goal(self) -> int:
        return self.aim.goal

    def lacks(self, since: int) -> bool:
        """Whether the node's operator, of this opset, is missing from the copy's opset or from the target's parser."""
        parser = self.aim.parser
        return self.goal < since or (self.found and parser is not None and not parser.knows(self.node.op_type))

    def lowered_below(self, opset: int) -> bool:
        return self.goal < opset <= self.aim.source

    def reads_before(self, major: int, minor: int) -> bool:
        """Whether lint has found something about the node and the parser is older than this TensorRT."""
        return self.found and self.aim.parser is not None and self.aim.parser.version < (major, minor)

    def attribute(self, name: str, default: Any = None) -> Any:
        value = attribute(self.node, name, default)
        return value.decode("utf-8", "replace") if isinstance(value, bytes) else value

    def given(self, index: int) -> str | None:
        return given(self.node, index)

    def made(self, index: int) -> str | None:
        """The name of an output, None where nobody asked for it."""
        outputs = self.node.output
        return outputs[index] if index < len(outputs) and outputs[index] else None

    def value(self, name: str) -> np.ndarray[Any, Any] | None:
        return self._scope.value(name)

    def shape(self, name: str) -> tuple[int | None, ...] | None:
        return self._scope.shape(name)

    def elem_type(self, name: str) -> int:
        return self._scope.elem_type(name)

    def float_type(self, name: str) -> int:
        """The type of a tensor of floats.

        Raises:
            NoExactRewrite: it is not known, or not one of floats.
        """
        import onnx

        found = self.elem_type(name)
        kinds = onnx.TensorProto
        if found not in (kinds.FLOAT, kinds.FLOAT16, kinds.BFLOAT16, kinds.DOUBLE):
            kind = kinds.DataType.Name(found).lower() if found else "a type that shape inference does not tell"
            raise NoExactRewrite(f"its input {name} is {kind}, the rewrite is one for floats")
        return found

    def rank(self, name: str) -> int:
        """A tensor's rank.

        Raises:
            NoExactRewrite: shape inference does not tell.
        """
        shape = self.shape(name)
        if shape is None:
            raise NoExactRewrite(f"the rank of its input {name} is not known")
        return len(shape)

    def constant(self, array: np.ndarray[Any, Any], wish: str) -> str:
        """A new constant; its name."""
        import numpy as np
        import onnx

        name = self.fresh(wish)
        self.weights.append(onnx.numpy_helper.from_array(np.ascontiguousarray(array).reshape(array.shape), name))
        return name

    def scalar(self, value: float, elem_type: int, wish: str) -> str:
        import numpy as np
        import onnx

        return self.constant(np.array(value, onnx.helper.tensor_dtype_to_np_dtype(elem_type)), wish)

    def make(self, op_type: str, inputs: Sequence[str], output: str | None = None, **attributes: Any) -> str:
        """A new node with one output; the name of that, a fresh one unless given."""
        made = output or self.fresh(f"{op_type}:0")
        self._append(op_type, inputs, [made], attributes)
        return made

    def make_all(self, op_type: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: Any) -> None:
        """A new node with outputs that have their names already; an empty name is one that nobody asks for."""
        self._append(op_type, inputs, list(outputs), attributes)

    def fresh(self, wish: str) -> str:
        """A tensor name that the model does not use yet."""
        return self._names.fresh(f"{self._label}/{wish}")

    def finish(self, op_type: str, inputs: Sequence[str], **attributes: Any) -> None:
        """The node that makes every output of the one replaced."""
        self._append(op_type, inputs, list(self.node.output), attributes)

    def cast(self, name: str, elem_type: int, output: str | None = None) -> str:
        return self.make("Cast", [name], output, to=elem_type)

    def mean(self, name: str, axes: Sequence[int]) -> str:
        """ReduceMean with its axes kept as ones, in the form of the goal's opset."""
        import numpy as np

        if self.goal < _AXES_AS_INPUT:
            return self.make("ReduceMean", [name], axes=list(axes), keepdims=1)
        return self.make("ReduceMean", [name, self.constant(np.array(axes, np.int64), "axes")], keepdims=1)

    def _append(self, op_type: str, inputs: Sequence[str], outputs: list[str], attributes: dict[str, Any]) -> None:
        import onnx

        same = op_type == self.node.op_type and outputs == list(self.node.output)
        name = self.node.name if same else self._names.fresh(f"{self._label}/{op_type}")
        node = onnx.helper.make_node(op_type, list(inputs), outputs, name)
        for key, value in attributes.items():
            if value is not None:
                node.attribute.append(onnx.helper.make_attribute(key, value))
        self.nodes.append(node)
