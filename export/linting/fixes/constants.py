"""Constant by a tensor, the form that every parser reads."""

from __future__ import annotations

from deploy_attn.export.linting.fixes.bench import Bench

_NUMBERS = ("value_float", "value_floats", "value_int", "value_ints")


def as_tensor(bench: Bench) -> str | None:
    import onnx

    forms = [item.name for item in bench.node.attribute if item.name in _NUMBERS]
    value = bench.value(bench.node.output[0])
    if not forms or value is None or not bench.found:
        return None
    bench.finish("Constant", [], value=onnx.numpy_helper.from_array(value))
    return f"{forms[0]} given as a tensor"
