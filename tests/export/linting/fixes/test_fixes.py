"""Each fix on a node that needs it, on one that does not, and on one that it has to refuse."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from deploy_attn.export.linting.fix import FixReport, fix_model
from tests.export.linting.graphs import found, model_of, node, one

_RANDOM = np.random.default_rng(0)
_HALF, _BOOL, _INT64 = TensorProto.FLOAT16, TensorProto.BOOL, TensorProto.INT64
_ORIN, _ORT = "jetson-orin-nano", "onnxruntime-cpu"


def _weight(*shape: int) -> np.ndarray[Any, Any]:
    return _RANDOM.standard_normal(shape).astype(np.float32)


def _half(*shape: int) -> np.ndarray[Any, Any]:
    return _weight(*shape).astype(np.float16)


def _fixed(model: onnx.ModelProto, folder: Path, target: str = "jetson-nano") -> FixReport:
    onnx.save(model, folder / "m.onnx")
    return fix_model(folder / "m.onnx", target)


def _copy(report: FixReport) -> onnx.ModelProto:
    assert report.written is not None, report.problem
    return onnx.load(report.written)


def _norm(op_type: str, opset: int, shape: Any, channels: int, **attributes: Any) -> onnx.ModelProto:
    weights = {"scale": _weight(channels), "bias": _weight(channels)}
    return one(op_type, shape, weights, opset=opset, ir_version=8, **attributes)


def _pad(pads: list[int], axes: list[int], shape: Any = (1, 3, 8, 8), **attributes: Any) -> onnx.ModelProto:
    only = node("Pad", "x pads - axes", "y", **attributes)
    return model_of(only, {"x": shape}, {"y": (1, None)}, {"pads": pads, "axes": axes}, opset=18)


def _split(extent: int | str, parts: int) -> onnx.ModelProto:
    names = [f"part{i}" for i in range(parts)]
    only = node("Split", "x", " ".join(names), num_outputs=parts, axis=1)
    return model_of(only, {"x": (2, extent, 3)}, dict.fromkeys(names, (1, None)), opset=18)


def _shape(**attributes: int) -> onnx.ModelProto:
    nodes = [node("Shape", "x", "extents", None, **attributes), node("Cast", "extents", "y", to=TensorProto.FLOAT)]
    return model_of(nodes, {"x": (2, "n", 4, 5)}, {"y": (1, None)}, opset=17)


def _topk(dtype: int = TensorProto.FLOAT, **attributes: int) -> onnx.ModelProto:
    only = node("TopK", "x k", "values places", None, axis=1, **attributes)
    outputs = {"values": (dtype, (2, 4)), "places": (_INT64, (2, 4))}
    return model_of(only, {"x": (dtype, (2, 9))}, outputs, {"k": [4]})


def _resized(shape: Any, sizes: list[int], **attributes: Any) -> onnx.ModelProto:
    only = node("Resize", "x - - sizes", "y", None, mode="nearest", **attributes)
    return model_of(only, {"x": shape}, {"y": (1, None)}, {"sizes": sizes}, opset=18)


def _reshape(shape: list[int], **attributes: int) -> onnx.ModelProto:
    return one("Reshape", (2, 3, 4), {"shape": shape}, opset=14, **attributes)


def _remainder(dtype: int, **attributes: int) -> onnx.ModelProto:
    only = node("Mod", "x by", "y", None, **attributes)
    by = np.array([7, -7, 3], helper.tensor_dtype_to_np_dtype(dtype))
    return model_of(only, {"x": (dtype, (4, 3))}, {"y": (dtype, (4, 3))}, {"by": by})


def _constant_remainder() -> onnx.ModelProto:
    nodes = [node("Mod", "a b", "m"), node("Mul", "x m", "y")]
    return model_of(nodes, {"x": (_INT64, (3,))}, {"y": (_INT64, (3,))}, {"a": [-8, 8, 2], "b": [3, -3, 3]})


# What the copy is made of, for each node that has a rewrite.
_CUT = ["Div", "Mul", "Sub"]
_DEVIATION = ["Mul", "ReduceMean", "Add", "Sqrt", "Div"]
_UNIT = ["ReduceMean", "Sub", *_DEVIATION]
_ERF, _TANH = ["Mul", "Erf", "Mul", "Add", "Mul"], ["Mul", "Mul", "Add", "Mul", "Mul", "Tanh", "Mul", "Add", "Mul"]
_REWRITTEN: dict[str, tuple[onnx.ModelProto, str, list[str]]] = {
    "layer norm": (_norm("LayerNormalization", 17, (2, 5, 16), 16), "jetson-nano", [*_UNIT, "Mul", "Add"]),
    "layer norm without bias": (
        one("LayerNormalization", (2, 5, 16), {"s": _weight(5, 16)}, opset=17, axis=1, epsilon=0.5),
        "jetson-nano",
        [*_UNIT, "Mul"],
    ),
    "layer norm in half": (
        one("LayerNormalization", ("n", 16), {"s": _half(16), "b": _half(16)}, opset=17, dtype=_HALF),
        "jetson-nano",
        ["Cast", *_UNIT, "Cast", "Mul", "Add"],
    ),
    "layer norm, unknown to a parser of its opset": (
        _norm("LayerNormalization", 17, (2, 16), 16),
        "jetson-xavier-nx",
        [*_UNIT, "Mul", "Add"],
    ),
    "layer norm with its other outputs": (
        model_of(
            node("LayerNormalization", "x s", "y mean inverse"),
            {"x": ("n", 6)},
            {"y": ("n", 6), "mean": ("n", 1), "inverse": ("n", 1)},
            {"s": _weight(6)},
            opset=17,
        ),
        "jetson-nano",
        [*_UNIT, "Mul", "Identity", "Div"],
    ),
    "rms norm": (one("RMSNormalization", (2, 16), {"s": _weight(16)}, 23, 10), "jetson-nano", [*_DEVIATION, "Mul"]),
    "group norm, a scale a channel": (
        _norm("GroupNormalization", 21, ("n", 8, "h", "w"), 8, num_groups=2),
        "jetson-nano",
        ["Reshape", *_UNIT, "Reshape", "Mul", "Add", "Shape", "Reshape"],
    ),
    "group norm, a scale a group": (
        _norm("GroupNormalization", 18, (2, 8, 4, 3), 2, num_groups=2),
        "jetson-nano",
        ["Reshape", *_UNIT, "Mul", "Add", "Reshape"],
    ),
    "group norm in half": (
        one("GroupNormalization", (2, 8, 9), {"s": _half(8), "b": _half(8)}, 21, 10, _HALF, num_groups=4),
        "jetson-nano",
        ["Cast", "Reshape", *_UNIT, "Reshape", "Mul", "Add", "Reshape", "Cast"],
    ),
    "group norm in a layout that the parser misreads": (
        _norm("GroupNormalization", 21, (2, 8, 4, 3), 8, num_groups=2),
        _ORIN,
        ["Reshape", *_UNIT, "Reshape", "Mul", "Add", "Reshape"],
    ),
    "group norm in that layout, at an opset that the parser documents": (
        _norm("GroupNormalization", 21, (2, 8, 4, 3), 8, num_groups=2),
        "rtx-5090",
        ["Reshape", *_UNIT, "Reshape", "Mul", "Add", "Reshape"],
    ),
    "instance norm": (_norm("InstanceNormalization", 13, ("n", 4, 5, 6), 4), "jetson-nano", [*_UNIT, "Mul", "Add"]),
    "gelu": (one("Gelu", (2, 7), opset=20), "jetson-nano", _ERF),
    "gelu by tanh": (one("Gelu", (2, 7), opset=20, approximate="tanh"), "jetson-nano", _TANH),
    "gelu in half": (one("Gelu", (2, 7), opset=20, dtype=_HALF), "jetson-nano", ["Cast", *_ERF, "Cast"]),
    "gelu for onnxruntime": (one("Gelu", (2, 7), opset=20), _ORT, _ERF),
    "hard swish": (one("HardSwish", (2, 7), opset=14), "jetson-nano", ["HardSigmoid", "Mul"]),
    "mish": (one("Mish", (2, 7), opset=18), "jetson-nano", ["Softplus", "Tanh", "Mul"]),
    "swish": (one("Swish", (2, 7), opset=24, ir_version=10, alpha=1.5), "jetson-nano", ["Mul", "Sigmoid", "Mul"]),
    "reduction": (one("ReduceMean", (2, 3, 4), {"axes": [1, -1]}, 18), "jetson-nano", ["ReduceMean"]),
    "reduction that drops its axes": (
        one("ReduceL2", (2, 3, 4), {"axes": [1]}, 18, keepdims=0),
        "jetson-nano",
        ["ReduceL2"],
    ),
    "reduction over all": (one("ReduceMax", (2, 3, 4), opset=18, keepdims=0), "jetson-nano", ["ReduceMax"]),
    "reduction over nothing": (
        one("ReduceMean", (2, 3), opset=18, noop_with_empty_axes=1),
        "jetson-nano",
        ["Identity"],
    ),
    "sum over nothing": (one("ReduceSum", (2, 3), noop_with_empty_axes=1), "jetson-nano", ["Identity"]),
    "reduction that a later parser misreads": (
        one("ReduceLogSumExp", (2, 3, 4), {"axes": [1]}, 18),
        _ORIN,
        ["ReduceLogSumExp"],
    ),
    "reshape": (_reshape([6, 4]), "jetson-nano", ["Reshape"]),
    "reshape with zeros allowed": (_reshape([6, 4], allowzero=1), "jetson-nano", ["Reshape"]),
    "pad of two axes": (_pad([1, 2, 3, 4], [2, -1]), "jetson-nano", ["Pad"]),
    "reflecting pad": (_pad([1, 2], [-1], mode="reflect"), "jetson-nano", ["Pad"]),
    "smallest": (_topk(largest=0), "jetson-nano", ["Neg", "TopK", "Neg"]),
    "uneven split": (_split(8, 3), "jetson-nano", ["Split"]),
    "extents of some axes": (_shape(start=1, end=-1), "jetson-nano", ["Shape", "Slice", "Cast"]),
    "extents of some axes, misread at its opset": (_shape(start=-2), "jetson-xavier-nx", ["Shape", "Slice", "Cast"]),
    "resize of two axes": (
        one("Resize", (1, 3, 4, 4), {"r": _weight(0), "s": np.array([2, 3], np.float32)}, 18, axes=[2, 3]),
        "jetson-nano",
        ["Resize"],
    ),
    "upper triangle": (one("Trilu", (2, 5, 4), {"k": np.array(1)}, 14), "jetson-nano", ["Where"]),
    "triangle of booleans": (one("Trilu", (4, 4), opset=14, dtype=_BOOL, upper=0), "jetson-nano", ["And"]),
    "exclusive or": (
        model_of(node("Xor", "a b", "y"), {"a": (_BOOL, (9,)), "b": (_BOOL, (9,))}, {"y": (_BOOL, (9,))}),
        "jetson-nano",
        ["Or", "And", "Not", "And"],
    ),
    "remainder with the sign of the divisor": (_remainder(TensorProto.INT32), "jetson-nano", [*_CUT, "Add", *_CUT]),
    "remainder with the sign of the dividend": (_remainder(_INT64, fmod=1), "jetson-nano", _CUT),
    "remainder of constants": (_constant_remainder(), "jetson-nano", ["Constant", "Mul"]),
    "cast like": (
        model_of(
            [node("CastLike", "x like", "c"), node("Cast", "c", "y", to=1)],
            {"x": (3,)},
            {"y": (3,)},
            {"like": np.zeros(1, np.int32)},
            opset=15,
        ),
        "jetson-nano",
        ["Cast", "Cast"],
    ),
    "constant by its integers": (
        model_of(
            [node("Constant", "", "shape", value_ints=[6, 4]), node("Reshape", "x shape", "y")],
            {"x": (2, 3, 4)},
            {"y": (6, 4)},
        ),
        "jetson-nano",
        ["Constant", "Reshape"],
    ),
    "scatter with reduction none": (
        model_of(
            node("ScatterND", "x i u", "y", reduction="none"),
            {"x": (5,), "u": (2,)},
            {"y": (5,)},
            {"i": [[0], [3]]},
            opset=16,
        ),
        _ORIN,
        ["ScatterND"],
    ),
    "grid sampling by its older mode": (
        model_of(
            node("GridSample", "x g", "y", mode="cubic", align_corners=1),
            {"x": (1, 2, 5, 5), "g": (1, 3, 3, 2)},
            {"y": (1, 2, 3, 3)},
            opset=20,
        ),
        _ORT,
        ["GridSample"],
    ),
    "attributes that say what is so without them": (
        one("AveragePool", (1, 2, 6, 6), opset=19, kernel_shape=[2, 2], dilations=[1, 1]),
        "jetson-nano",
        ["AveragePool"],
    ),
}


@pytest.mark.parametrize("case", _REWRITTEN)
def test_a_node_that_needs_it_is_rewritten_and_proven(case: str, tmp_path: Path) -> None:
    model, target, operators = _REWRITTEN[case]
    report = _fixed(model, tmp_path, target)
    assert report.passed, (report.problem, report.refused)
    copy = _copy(report)
    assert [item.op_type for item in copy.graph.node] == operators
    assert not [rule for rule in found(copy, target) if not rule.startswith(("half-", "typed-half", "int64-port"))]
    assert report.proof is not None
    assert {"normal", "large", "negative", "zeros"} <= {trial.name for trial in report.proof.trials}


@pytest.mark.parametrize("case", _REWRITTEN)
def test_new_nodes_are_called_after_the_one_they_replace(case: str, tmp_path: Path) -> None:
    model, target, _ = _REWRITTEN[case]
    before = {item.name for item in model.graph.node}
    names = [item.name for item in _copy(_fixed(model, tmp_path, target)).graph.node]
    assert len(set(names)) == len(names)
    assert all(name in before or name.partition("/")[0] in before for name in names)


_UNTOUCHED = {
    "a parser that has it": (_norm("LayerNormalization", 17, (2, 16), 16), _ORIN),
    "axes that the parser reads": (one("ReduceMean", (2, 3, 4), {"axes": [1]}, 18), "h100"),
    "the largest": (_topk(), "jetson-nano"),
    "the smallest where it is read": (_topk(largest=0), "jetson-xavier-nx"),
    "a sum by its input": (one("ReduceSum", (2, 3, 4), {"axes": [1]}), "jetson-nano"),
    "axes by attribute": (one("ReduceMean", (2, 3, 4), axes=[1]), "jetson-nano"),
    "a reshape of opset 13": (one("Reshape", (2, 3, 4), {"shape": [6, 4]}), "jetson-nano"),
    "an instance norm that is native, found for its type": (
        one("InstanceNormalization", (2, 4, 5), dict.fromkeys(("s", "b"), np.ones(4)), dtype=TensorProto.DOUBLE),
        _ORIN,
    ),
    "a constant by its integers, which the parser reads": (
        model_of(
            [node("Constant", "", "shape", value_ints=[6, 4]), node("Reshape", "x shape", "y")],
            {"x": (2, 3, 4)},
            {"y": (6, 4)},
        ),
        _ORIN,
    ),
    "an instance norm that is native": (_norm("InstanceNormalization", 13, (2, 4, 5), 4), _ORIN),
}


@pytest.mark.parametrize("case", _UNTOUCHED)
def test_a_node_that_the_target_reads_is_left_as_it_is(case: str, tmp_path: Path) -> None:
    model, target = _UNTOUCHED[case]
    report = _fixed(model, tmp_path, target)
    assert report.passed
    assert report.written is None
    assert not report.fixed
    assert [file.name for file in tmp_path.iterdir()] == ["m.onnx"]


def test_what_is_found_about_a_node_for_another_reason_leaves_its_meaning(tmp_path: Path) -> None:
    nodes = [node("Add", "a a", "k"), node("TopK", "x k", "values places", None, axis=1, largest=0)]
    outputs = {"values": (TensorProto.FLOAT, (2, 4)), "places": (_INT64, (2, 4))}
    model = model_of(nodes, {"x": (2, 9)}, outputs, {"a": [2]})
    assert "input-must-be-constant" in found(model, "jetson-xavier-nx")
    assert _fixed(model, tmp_path, "jetson-xavier-nx").written is None


def _open_reduction(op_type: str = "ReduceMean") -> onnx.ModelProto:
    only = node(op_type, "x axes", "y")
    return model_of(only, {"x": (2, 3, 4), "axes": (_INT64, (1,))}, {"y": (1, None)}, opset=18)


def _overridable() -> onnx.ModelProto:
    model = _open_reduction()
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([1]), "axes"))
    return model


_REFUSED = {
    "axes from an input": (_open_reduction(), "computed when the network runs"),
    "axes that an input may override": (_overridable(), "computed when the network runs"),
    "a norm over nothing": (one("ReduceL2", (2, 3), opset=18, noop_with_empty_axes=1), "engines read differently"),
    "an extent of zero": (one("Reshape", (0, 3), {"s": [3, 0]}, 14, allowzero=1), "extent of 0"),
    "pads for more axes than named": (_pad([1, 2, 3, 4, 5, 6], [2, -1]), "6 pads for 2 axes"),
    "a wrapping pad": (_pad([1, 1], [2], mode="wrap"), "wrap"),
    "a split of an open axis": (_split("n", 3), "open"),
    "a remainder of floats": (one("Mod", (3,), {"by": _weight(3)}, fmod=1), "floats"),
    "smallest integers": (_topk(TensorProto.INT32, largest=0), "floats"),
    "statistics in half": (
        one("LayerNormalization", (2, 8), {"s": _half(8)}, 17, dtype=_HALF, stash_type=int(_HALF)),
        "stash_type",
    ),
    "groups that do not divide": (_norm("GroupNormalization", 21, (2, 8, 4), 8, num_groups=3), "divide"),
    "antialiasing": (
        one("Resize", (1, 3, 4, 4), {"r": _weight(0), "s": np.ones(4, np.float32)}, 18, antialias=1, mode="linear"),
        "antialias",
    ),
    "a gelu of no known form": (one("Gelu", (2, 7), opset=20, approximate="fast"), "does not define"),
    "an aspect that is kept": (
        _resized((1, 3, 4, 4), [1, 3, 8, 6], keep_aspect_ratio_policy="not_larger"),
        "not_larger",
    ),
    "sizes of some axes beside open ones": (_resized(("n", 3, 4, 4), [8, 8], axes=[2, 3]), "open"),
    "a split with too little for its last part": (_split(5, 4), "too few"),
    "a volume that is sampled": (
        model_of(
            node("GridSample", "x g", "y"), {"x": (1, 2, 4, 4, 4), "g": (1, 3, 3, 3, 3)}, {"y": (1, None)}, opset=20
        ),
        "rank 4",
    ),
    "regions aligned by half pixels": (
        model_of(
            node("RoiAlign", "x r b", "y"),
            {"x": (1, 2, 8, 8), "r": (1, 4), "b": (_INT64, (1,))},
            {"y": (1, None)},
            opset=16,
        ),
        "opset 16",
    ),
    "an operator that came later": (
        model_of(
            node("BitwiseNot", "x", "y"), {"x": (TensorProto.INT32, (3,))}, {"y": (TensorProto.INT32, (3,))}, opset=18
        ),
        "BitwiseNot",
    ),
    "a type that came later": (one("ReduceMax", (2, 3), opset=20, dtype=_BOOL), "tensor(bool)"),
    "a dilated average": (
        one("AveragePool", (1, 2, 6, 6), opset=19, kernel_shape=[2, 2], dilations=[2, 2]),
        "dilations",
    ),
    "a reduction while scattering": (
        model_of(
            node("ScatterND", "x i u", "y", reduction="add"),
            {"x": (5,), "u": (2,)},
            {"y": (5,)},
            {"i": [[0], [3]]},
            opset=16,
        ),
        "reduction = add",
    ),
}


@pytest.mark.parametrize("case", _REFUSED)
def test_what_has_no_exact_rewrite_is_named_with_the_reason(case: str, tmp_path: Path) -> None:
    model, reason = _REFUSED[case]
    report = _fixed(model, tmp_path)
    assert not report.passed
    assert report.written is None
    assert [item.node for item in report.refused] == [model.graph.node[0].name]
    assert reason in report.refused[0].what
    assert [file.name for file in tmp_path.iterdir()] == ["m.onnx"]


@pytest.mark.parametrize(("op_type", "indices"), [("ScatterND", [[0], [3]]), ("ScatterElements", [0, 3])])
@pytest.mark.parametrize(("reduction", "came_later"), [("max", True), ("min", True), ("add", False)])
def test_a_value_that_came_later_under_an_old_attribute_is_refused(
    op_type: str, indices: list[Any], reduction: str, came_later: bool, tmp_path: Path
) -> None:
    only = node(op_type, "x i u", "y", reduction=reduction)
    model = model_of(only, {"x": (5,), "u": (2,)}, {"y": (5,)}, {"i": indices}, opset=18)
    report = _fixed(model, tmp_path, _ORT)
    why = [f"its reduction = {reduction} came with opset 18"] if came_later else []
    assert [item.what for item in report.refused] == why
    assert report.passed is not came_later


def test_constants_that_only_the_old_form_read_go_and_others_stay(tmp_path: Path) -> None:
    nodes = [node("ReduceMean", "x axes", "m"), node("ReduceSum", "m axes", "n"), node("ReduceMax", "n last", "y")]
    model = model_of(nodes, {"x": (2, 3, 4)}, {"y": (1, None)}, {"axes": [1], "last": [2]}, opset=18)
    copy = _copy(_fixed(model, tmp_path))
    assert [tensor.name for tensor in copy.graph.initializer] == ["axes"]


def test_branches_are_rewritten_inside(tmp_path: Path) -> None:
    value = helper.make_tensor_value_info("t", TensorProto.FLOAT, (2, 5, 6))
    gelu = helper.make_graph([node("Gelu", "x", "t", "inner")], "then", [], [value])
    mean = [node("ReduceMean", "x axes", "m", "mean"), node("Sub", "x m", "t", "minus")]
    centred = helper.make_graph(mean, "else", [], [value], [onnx.numpy_helper.from_array(np.array([1]), "axes")])
    choice = helper.make_node("If", ["c"], ["y"], name="choice", then_branch=gelu, else_branch=centred)
    model = model_of(choice, {"x": (2, 5, 6), "c": (_BOOL, ())}, {"y": (2, 5, 6)}, opset=20)
    report = _fixed(model, tmp_path, _ORT)
    copy = _copy(report)
    bodies = {item.name: item.g for item in copy.graph.node[0].attribute}
    assert [item.op_type for item in bodies["then_branch"].node] == _ERF
    assert list(bodies["else_branch"].node[0].input) == ["x"]
    assert not bodies["else_branch"].initializer
    assert {item.node for item in report.fixed} == {"", "inner", "mean"}


def test_functions_of_the_model_are_put_in_place_of_their_calls(tmp_path: Path) -> None:
    body = [helper.make_node("Gelu", ["a"], ["g"], name="g"), helper.make_node("Add", ["g", "a"], ["b"], name="add")]
    function = helper.make_function("own", "Block", ["a"], ["b"], body, [helper.make_opsetid("", 20)])
    calls = [node("Block", "x", "h", "first", domain="own"), node("Block", "h", "y", "second", domain="own")]
    model = model_of(calls, {"x": (2, 5)}, {"y": (2, 5)}, opset=20, ir_version=10, domains={"own": 1})
    model.functions.append(function)
    report = _fixed(model, tmp_path)
    copy = _copy(report)
    assert not copy.functions
    assert [item.domain for item in copy.opset_import] == [""]
    names = [item.name for item in copy.graph.node]
    assert len(set(names)) == len(names) == 12
    assert {"first", "second"} <= {item.node for item in report.fixed if item.rule == "local-function"}


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
@pytest.mark.parametrize("of_dividend", [0, 1])
def test_a_remainder_is_that_of_onnx_for_every_pair_of_signs(dtype: Any, of_dividend: int, tmp_path: Path) -> None:
    from onnx.reference import ReferenceEvaluator

    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    only = node("Mod", "x by", "y", fmod=of_dividend)
    report = _fixed(model_of(only, {"x": (kind, (41, 1)), "by": (kind, (20,))}, {"y": (kind, (41, 20))}), tmp_path)
    numbers = np.arange(-20, 21, dtype=dtype)
    by = numbers[numbers != 0][::2]
    (left,) = ReferenceEvaluator(_copy(report)).run(None, {"x": numbers[:, None], "by": by})
    assert np.array_equal(left, (np.fmod if of_dividend else np.mod)(numbers[:, None], by))


def test_a_function_of_another_opset_than_the_models_is_put_in_place_too(tmp_path: Path) -> None:
    body = [helper.make_node("Relu", ["a"], ["b"], name="relu")]
    function = helper.make_function("own", "Block", ["a"], ["b"], body, [helper.make_opsetid("", 17)])
    call = node("Block", "x", "y", "call", domain="own")
    model = model_of(call, {"x": (2, 5)}, {"y": (2, 5)}, opset=18, ir_version=10, domains={"own": 1})
    model.functions.append(function)
    assert [item.op_type for item in _copy(_fixed(model, tmp_path)).graph.node] == ["Relu"]
