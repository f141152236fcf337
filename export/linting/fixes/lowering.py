"""Whether a node means at an older opset what it means at its own, and what has to go for that.

ONNX's own definitions say which attributes, inputs and types an operator had.
An attribute that came later is dropped where it asks for what was so before.
What a definition cannot say, a meaning that changed under the same name, is in
the tables here or has a fix of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from deploy_attn.export.linting.fixes.bench import Bench, NoExactRewrite
from deploy_attn.export.linting.graph import attribute

if TYPE_CHECKING:
    import onnx

OLDEST_GOAL = 13  # below it Softmax, Squeeze, Split and others mean something else


def _anything(value: Any) -> bool:
    """For attributes about types that older opsets do not have, which the types of the node tell."""
    return True


def _ones(value: Any) -> bool:
    return all(item == 1 for item in value)


def _nothing(value: Any) -> bool:
    return not value


# (operator, attribute) -> whether a value asks for what is so without the attribute.
_NEUTRAL: Mapping[tuple[str, str], Callable[[Any], bool]] = MappingProxyType(
    {
        ("AveragePool", "dilations"): _ones,
        ("BatchNormalization", "training_mode"): _nothing,
        ("Cast", "round_mode"): _anything,
        ("Cast", "saturate"): _anything,
        ("DequantizeLinear", "block_size"): _nothing,
        ("DequantizeLinear", "output_dtype"): _nothing,
        ("GRU", "layout"): _nothing,
        ("LSTM", "layout"): _nothing,
        ("RNN", "layout"): _nothing,
        ("LpPool", "ceil_mode"): _nothing,
        ("LpPool", "dilations"): _ones,
        ("QuantizeLinear", "block_size"): _nothing,
        ("QuantizeLinear", "output_dtype"): _nothing,
        ("QuantizeLinear", "precision"): _nothing,
        ("QuantizeLinear", "saturate"): _anything,
        ("Range", "stash_type"): _anything,
        ("Reshape", "allowzero"): _nothing,
        ("SpaceToDepth", "mode"): lambda value: value == b"DCR",
    }
)
# (operator, attribute) -> values that came with an opset, under an attribute that was there before.
_NEWER_VALUES: Mapping[tuple[str, str], tuple[int, tuple[bytes, ...]]] = MappingProxyType(
    {
        ("Pad", "mode"): (19, (b"wrap",)),
        ("ScatterElements", "reduction"): (18, (b"max", b"min")),
        ("ScatterND", "reduction"): (18, (b"max", b"min")),
        ("Resize", "coordinate_transformation_mode"): (19, (b"half_pixel_symmetric",)),
    }
)
_RENAMED = ("BatchNormalization",)  # its inputs have other names from opset 14 on, and are the same


def fitted(node: onnx.NodeProto, bench: Bench) -> str | None:
    """Takes from a node what the goal's opset does not have; what it took, None for nothing.

    Raises:
        NoExactRewrite: the node asks for something that the opset cannot say.
    """
    if not has_changed(node.op_type, bench):
        return None
    schema = _schema(node.op_type, bench.goal)
    if schema is None:
        raise NoExactRewrite(f"opset {bench.goal} has no {node.op_type}, and no exact rewrite of it is known")
    dropped = [item.name for item in node.attribute if item.name not in schema.attributes]
    for name in dropped:
        value = attribute(node, name)
        if not _NEUTRAL.get((node.op_type, name), _never)(value):
            raise NoExactRewrite(f"its {name} = {_text(value)} cannot be said at opset {bench.goal}")
    _check_values(node, bench)
    _check_inputs(node, schema, bench)
    _check_types(node, schema, bench)
    kept = [item for item in node.attribute if item.name not in dropped]
    del node.attribute[:]
    node.attribute.extend(kept)
    return f"{', '.join(dropped)} dropped, which changes nothing" if dropped else None


def has_changed(op_type: str, bench: Bench) -> bool:
    """Whether an operator of the source's opset is another one, or none, at the goal's."""
    if bench.goal == bench.aim.source:
        return False
    before, after = _schema(op_type, bench.aim.source), _schema(op_type, bench.goal)
    return before is None or after is None or before.since_version != after.since_version


def _schema(op_type: str, opset: int) -> onnx.defs.OpSchema | None:
    import onnx

    return onnx.defs.get_schema(op_type, opset) if onnx.defs.has(op_type, opset) else None


def _never(value: Any) -> bool:
    return False


def _check_values(node: onnx.NodeProto, bench: Bench) -> None:
    for item in node.attribute:
        since, values = _NEWER_VALUES.get((node.op_type, item.name), (0, ()))
        if bench.goal < since and item.s in values:
            raise NoExactRewrite(f"its {item.name} = {_text(item.s)} came with opset {since}")


def _check_inputs(node: onnx.NodeProto, schema: onnx.defs.OpSchema, bench: Bench) -> None:
    """Inputs that did not exist, or stood elsewhere, before."""
    before = _schema(node.op_type, bench.aim.source)
    if len(node.input) > schema.max_input or len(node.output) > schema.max_output:
        raise NoExactRewrite(f"it has more inputs or outputs than at opset {bench.goal}")
    if before is None or node.op_type in _RENAMED:
        return
    for index, name in enumerate(node.input):
        was, becomes = (item.inputs[min(index, len(item.inputs) - 1)].name for item in (before, schema))
        if name and was != becomes:
            raise NoExactRewrite(f"its input {index} is {was}, at opset {bench.goal} it is {becomes}")


def _check_types(node: onnx.NodeProto, schema: onnx.defs.OpSchema, bench: Bench) -> None:
    """The types of its tensors, where they are known, are among those that the operator took."""
    import onnx

    allowed = {item.type_param_str: item.allowed_type_strs for item in schema.type_constraints}
    bound: dict[str, str] = {}
    for name, parameter in _parameters(node, schema):
        found = bench.elem_type(name)
        if not found:
            continue
        kind = f"tensor({onnx.TensorProto.DataType.Name(found).lower()})"
        if kind not in allowed.get(parameter.type_str, (parameter.type_str,)):
            raise NoExactRewrite(f"{name} is {kind}, which {node.op_type} of opset {bench.goal} does not take")
        if parameter.is_homogeneous and bound.setdefault(parameter.type_str, kind) != kind:
            raise NoExactRewrite(
                f"{name} is {kind} beside {bound[parameter.type_str]}; opset {bench.goal} asks for one type"
            )


def _parameters(
    node: onnx.NodeProto, schema: onnx.defs.OpSchema
) -> Iterator[tuple[str, onnx.defs.OpSchema.FormalParameter]]:
    for names, parameters in ((node.input, schema.inputs), (node.output, schema.outputs)):
        for index, name in enumerate(names):
            if name and parameters:
                yield name, parameters[min(index, len(parameters) - 1)]


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
