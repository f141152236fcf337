"""What the tests of lint share: small models in one call, and the names of the rules that they break."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from deploy_attn.engines.target import Target, load_target
from deploy_attn.export.linting.finding import Finding
from deploy_attn.export.linting.lint import findings_of

Shape = Sequence["int | str | None"]
FLOAT = TensorProto.FLOAT


def node(op_type: str, inputs: str, outputs: str, name: str | None = None, **attributes: Any) -> onnx.NodeProto:
    """A node from space-separated tensor names, `-` for an input that is left out; named after its operator.

    `domain=` is passed on as the node's domain.
    """
    given = ["" if item == "-" else item for item in inputs.split()]
    return helper.make_node(op_type, given, outputs.split(), name=op_type if name is None else name, **attributes)


def model_of(  # noqa: PLR0913 - one call for every part of a model
    nodes: Sequence[onnx.NodeProto] | onnx.NodeProto,
    inputs: Mapping[str, tuple[int, Shape] | Shape],
    outputs: Mapping[str, tuple[int, Shape | None] | Shape],
    constants: Mapping[str, Any] | None = None,
    opset: int = 13,
    ir_version: int = 7,
    domains: Mapping[str, int] | None = None,
) -> onnx.ModelProto:
    """A model: `inputs={"x": (1, 8, 4, 4)}` is FP32, `{"i": (TensorProto.INT64, (3,))}` another type.

    `constants` become initializers: a numpy array or a TensorProto as it is, a
    list of integers as INT64, floats as FP32. `domains` are more opset imports.
    """
    graph = helper.make_graph(
        [nodes] if isinstance(nodes, onnx.NodeProto) else list(nodes),
        "graph",
        [_value(name, given) for name, given in inputs.items()],
        [_value(name, given) for name, given in outputs.items()],
        [_tensor(name, value) for name, value in (constants or {}).items()],
    )
    opsets = {"": opset, **(domains or {})}
    return helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid(domain, version) for domain, version in opsets.items()],
        ir_version=ir_version,
    )


def one(
    op_type: str,
    shape: Shape,
    constants: Mapping[str, Any] | None = None,
    opset: int = 13,
    ir_version: int = 7,
    dtype: int = FLOAT,
    **attributes: Any,
) -> onnx.ModelProto:
    """A model of one node `y = OP(x, *constants)`; the output's shape is left open."""
    only = node(op_type, " ".join(["x", *(constants or {})]), "y", **attributes)
    return model_of(only, {"x": (dtype, shape)}, {"y": (dtype, None)}, constants, opset, ir_version)


def findings(
    model: onnx.ModelProto, target: str | Target = "jetson-nano", half_planned: frozenset[str] | None = None
) -> list[Finding]:
    """The findings for a target by name."""
    return findings_of(model, load_target(target) if isinstance(target, str) else target, half_planned)


def found(
    model: onnx.ModelProto, target: str | Target = "jetson-nano", half_planned: frozenset[str] | None = None
) -> list[str]:
    """The names of the rules that find something, once for each finding."""
    return [finding.rule for finding in findings(model, target, half_planned)]


def tensorrt_target(version: str, opset: int = 13, ir_version: int = 7) -> Target:
    """A target with this TensorRT, like a Jetson Nano in the rest."""
    from dataclasses import replace
    from types import MappingProxyType

    base = load_target("jetson-nano")
    changed: dict[str, int | str] = {"runtime.tensorrt": version, "onnx.opset": opset, "onnx.ir_version": ir_version}
    facts = {key: replace(fact, value=changed.get(key, fact.value)) for key, fact in base.facts.items()}
    return replace(base, name=f"tensorrt-{version}", facts=MappingProxyType(facts))


def _value(name: str, given: Any) -> onnx.ValueInfoProto:
    typed = len(given) == 2 and (given[1] is None or isinstance(given[1], (tuple, list)))
    elem_type, shape = given if typed else (FLOAT, given)
    return helper.make_tensor_value_info(name, elem_type, shape)


def _tensor(name: str, value: Any) -> onnx.TensorProto:
    if isinstance(value, onnx.TensorProto):
        named = onnx.TensorProto()
        named.CopyFrom(value)
        named.name = name
        return named
    array = np.asarray(value)
    plain = array.dtype == np.float64 and not isinstance(value, np.ndarray)
    return numpy_helper.from_array(array.astype(np.float32) if plain else array, name)
