"""TensorRT-RTX: builds without a GPU, tells what it built, and says what is wrong with a graph or a profile."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from deploy_attn.engines.profile import ShapeRange
from deploy_attn.engines.tensorrt_rtx import engine_from_onnx
from deploy_attn.jetson import tensorrt_child
from deploy_attn.jetson.errors import BadRequest, DeployAttnError

Axes = Sequence[int | str]
OPEN: Axes = ("batch", 4, "height", "width")
SIZES = {"x": ShapeRange((1, 4, 14, 14), (1, 4, 28, 28), (8, 4, 56, 56))}


def graph(
    nodes: Sequence[onnx.NodeProto], x: Axes, kind: int = TensorProto.FLOAT, opset: int = 17, **weights: Any
) -> bytes:
    """A graph from `x` to `y`."""
    inputs = [helper.make_tensor_value_info("x", kind, x)]
    outputs = [helper.make_tensor_value_info("y", kind, None)]
    initializers = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    proto = helper.make_graph(nodes, "graph", inputs, outputs, initializers)
    model = helper.make_model(proto, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    content: bytes = model.SerializeToString()
    return content


def one_node(operator: str, x: Axes = (2, 4), kind: int = TensorProto.FLOAT) -> bytes:
    return graph([helper.make_node(operator, ["x"], ["y"], "my/node")], x, kind)


def plus_a_table(x: Axes) -> bytes:
    """x + a table of 28x28."""
    table = np.ones((1, 1, 28, 28), np.float32)
    return graph([helper.make_node("Add", ["x", "table"], ["y"], "add_table")], x, table=table)


def test_kernels_and_traffic_are_those_worked_out_by_hand() -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["t"], "product"),
        helper.make_node("ReduceMean", ["t"], ["m"], "mean", axes=[1], keepdims=1),
        helper.make_node("Mul", ["t", "m"], ["y"], "scale"),
    ]
    engine = engine_from_onnx(graph(nodes, (64, 16), w=np.ones((16, 16), np.float32)))
    map_bytes = 64 * 16 * 4
    product, scale = engine.kernels
    assert (product.layer_type, product.onnx_nodes) == ("gemm", ("product",))
    assert (product.bytes_read, product.bytes_written) == (map_bytes, map_bytes)
    assert (scale.layer_type, scale.onnx_nodes) == ("kgen", ("mean", "scale"))
    assert (scale.bytes_read, scale.bytes_written) == (map_bytes, map_bytes)  # t is listed twice and read once
    assert (engine.kernel_count, engine.traffic_bytes) == (2, 4 * map_bytes)
    assert engine.weights_bytes >= 16 * 16 * 4
    assert engine.scratch_bytes >= map_bytes
    assert engine.warnings == ()
    assert len(engine.content) > 1000


@pytest.mark.parametrize(
    ("kind", "size"), [(TensorProto.FLOAT, 4), (TensorProto.FLOAT16, 2), (TensorProto.BFLOAT16, 2)]
)
def test_every_tensor_keeps_the_type_of_the_graph(kind: int, size: int) -> None:
    engine = engine_from_onnx(one_node("Relu", (2, 4), kind))
    assert engine.traffic_bytes == 2 * 8 * size


def test_for_turing_a_matrix_product_is_built_in_fp16_only_and_the_refusal_says_what_to_do() -> None:
    product = [helper.make_node("MatMul", ["x", "w"], ["y"], "product")]
    half = graph(product, (64, 16), TensorProto.FLOAT16, w=np.ones((16, 16), np.float16))
    assert engine_from_onnx(half, compute_capability="SM75").kernel_count
    single = graph(product, (64, 16), w=np.ones((16, 16), np.float32))
    with pytest.raises(DeployAttnError, match=r"'product' for Turing.*\n.*newer GPU, or with --engine tensorrt on the"):
        engine_from_onnx(single, compute_capability="SM75")


def test_types_that_do_not_fit_each_other_are_refused_without_talk_of_a_missing_gpu() -> None:
    half = np.ones((2, 4), np.float16)
    with pytest.raises(DeployAttnError, match=r"parser .* refuses .*\n.*'mix' \(Add\).*Float and Half") as raised:
        engine_from_onnx(graph([helper.make_node("Add", ["x", "half"], ["y"], "mix")], (2, 4), half=half))
    assert "CUDA" not in str(raised.value)


@pytest.mark.parametrize("capability", ["SM75", "SM89", "SM121"])
def test_other_gpus_can_be_built_for(capability: str) -> None:
    assert engine_from_onnx(one_node("Exp"), compute_capability=capability).compute_capability == capability


@pytest.mark.parametrize("capability", ["SM87", "CURRENT"])
def test_a_gpu_that_it_cannot_build_for_is_refused(capability: str) -> None:
    with pytest.raises(BadRequest, match=f"does not build for '{capability}'. Known: .*SM86"):
        engine_from_onnx(one_node("Exp"), compute_capability=capability)


def test_an_open_batch_takes_a_profile_and_has_no_traffic() -> None:
    profile = {"x": ShapeRange((1, 4), (2, 4), (8, 4))}
    engine = engine_from_onnx(one_node("Relu", ("batch", 4)), profile)
    assert [kernel.layer_type for kernel in engine.kernels] == ["shape_call", "kgen"]
    assert engine.kernel_count == 1
    assert engine.kernels[1].bytes_read is engine.kernels[1].bytes_written is engine.traffic_bytes is None


def test_a_size_that_the_host_computes_is_listed_and_no_kernel() -> None:
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Slice", ["shape", "two", "four"], ["extents"]),
        helper.make_node("ReduceProd", ["extents"], ["area"], keepdims=0),
        helper.make_node("Cast", ["area"], ["area_float"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["x", "area_float"], ["y"], "scale"),
    ]
    engine = engine_from_onnx(graph(nodes, OPEN, two=np.array([2]), four=np.array([4])), SIZES)
    assert [kernel.layer_type for kernel in engine.kernels] == ["ShapeHostToDevice", "shape_call", "kgen"]
    assert (engine.kernels[0].bytes_written, engine.kernel_count) == (8, 1)


@pytest.mark.parametrize(
    ("profile", "message"),
    [
        ({}, r"'x' is \?x4: give a profile"),
        ({"z": ShapeRange((1, 4), (1, 4), (1, 4))}, r"names input 'z', .* Known: x\."),
        ({"x": ShapeRange((1, 4, 1), (2, 4, 1), (8, 4, 1))}, r"gives input 'x' 1x4x1; the graph takes \?x4"),
        ({"x": ShapeRange((1, 4), (2, 4), (8, 5))}, r"gives input 'x' 8x5; the graph takes \?x4"),
    ],
)
def test_a_profile_that_does_not_fit_the_inputs_is_refused(profile: dict[str, ShapeRange], message: str) -> None:
    with pytest.raises(BadRequest, match=message):
        engine_from_onnx(one_node("Relu", ("batch", 4)), profile)


@pytest.mark.parametrize("shapes", [((4,), (2,), (8,)), ((1,), (9,), (8,)), ((0,), (1,), (1,)), ((1,), (1, 2), (8,))])
def test_a_range_out_of_order_is_refused(shapes: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]) -> None:
    with pytest.raises(BadRequest, match="one rank, with 1 <= minimum <= optimum <= maximum"):
        ShapeRange(*shapes)


def test_a_size_that_is_baked_in_contradicts_an_open_profile_though_the_builder_says_nothing() -> None:
    with pytest.raises(DeployAttnError, match=r"leaves a size open that is a number .* add_table: .*\(EQUAL 28 height"):
        engine_from_onnx(plus_a_table(OPEN), SIZES)


def test_a_size_that_is_baked_in_is_no_contradiction_where_the_profile_fixes_it() -> None:
    fixed = {"x": ShapeRange((1, 4, 28, 28), (1, 4, 28, 28), (8, 4, 28, 28))}
    assert engine_from_onnx(plus_a_table(OPEN), fixed).warnings == ()
    assert engine_from_onnx(plus_a_table(("batch", 4, 28, 28)), fixed).warnings == ()


@pytest.mark.parametrize(
    ("largest", "message"),
    [(55, "Profile kMAX values are not self-consistent.*flatten"), (56, r"flatten: .*\(RESHAPE batch 4 height width")],
)
def test_a_reshape_to_a_fixed_size_contradicts_also_where_it_would_only_change_the_batch(
    largest: int, message: str
) -> None:
    nodes = [helper.make_node("Reshape", ["x", "shape"], ["t"], "flatten"), helper.make_node("Relu", ["t"], ["y"])]
    sizes = {"x": ShapeRange((1, 4, 28, 28), (1, 4, 28, 28), (8, 4, largest, largest))}
    with pytest.raises(DeployAttnError, match=message):
        engine_from_onnx(graph(nodes, OPEN, shape=np.array([-1, 4, 784])), sizes)


def test_a_graph_that_takes_every_size_has_no_condition_and_one_that_does_not_says_which() -> None:
    any_size = [
        helper.make_node("Reshape", ["x", "shape"], ["t"], "flatten"),
        helper.make_node("ReduceMean", ["t"], ["y"], "mean", axes=[2]),
    ]
    assert engine_from_onnx(graph(any_size, OPEN, shape=np.array([0, 0, -1])), SIZES).warnings == ()
    square = [
        helper.make_node("Transpose", ["x"], ["t"], perm=[0, 1, 3, 2]),
        helper.make_node("Add", ["x", "t"], ["y"]),
    ]
    (condition,) = engine_from_onnx(graph(square, OPEN), SIZES).warnings
    assert condition.endswith("It needs (EQUAL height width).")


@pytest.mark.parametrize(
    ("operator", "reason"), [("NoSuchOperator", "INVALID_NODE: .*Plugin not found"), ("Det", "UNSUPPORTED_NODE")]
)
def test_an_unknown_operator_is_named_with_its_node(operator: str, reason: str) -> None:
    with pytest.raises(DeployAttnError, match=rf"'my/node' \({operator}\): {reason}"):
        engine_from_onnx(one_node(operator, (4, 4)))


def test_of_many_refused_nodes_the_first_are_named() -> None:
    names = ["x", *"abcdef", "y"]
    nodes = [helper.make_node("NoSuch", [before], [after], f"n_{after}") for before, after in itertools.pairwise(names)]
    with pytest.raises(DeployAttnError, match=r"(?s)n_a.*n_e.*and 2 more$") as raised:
        engine_from_onnx(graph(nodes, (2, 4)))
    assert "n_f" not in str(raised.value)


def test_what_the_builder_refuses_is_told() -> None:
    shaped = onnx.load_from_string(graph([helper.make_node("Reshape", ["x", "shape"], ["y"], "view")], (2, 4)))
    shaped.graph.input.append(helper.make_tensor_value_info("shape", TensorProto.INT64, [2]))
    with pytest.raises(DeployAttnError, match=r"builder .* refuses this graph:\n .*shape inputs, but no optimization"):
        engine_from_onnx(shaped.SerializeToString())


@pytest.mark.parametrize(("content", "message"), [(b"no such thing", "not an ONNX file"), (b"", "hold no graph")])
def test_other_bytes_are_refused(content: bytes, message: str) -> None:
    with pytest.raises(BadRequest, match=message):
        engine_from_onnx(content)


@pytest.mark.parametrize(
    ("child", "message"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", r"crashed on this graph \(SIGSEGV\)"),
        ("raise OSError('the disk is full')", r"\(exit code 1: OSError: the disk is full\)"),
    ],
)
def test_a_crash_of_the_builder_is_an_error(monkeypatch: pytest.MonkeyPatch, child: str, message: str) -> None:
    monkeypatch.setattr(tensorrt_child, "_CHILD", child)
    with pytest.raises(DeployAttnError, match=message):
        engine_from_onnx(one_node("Relu"))


def test_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    engine_from_onnx(one_node("Relu"))
    with pytest.raises(DeployAttnError):
        engine_from_onnx(one_node("NoSuch"))
    assert capfd.readouterr() == ("", "")


def test_builds_side_by_side_keep_their_logs_apart() -> None:
    operators = ["Relu", "Exp", "Neg", "Tanh"]
    with ThreadPoolExecutor(4) as pool:
        engines = pool.map(engine_from_onnx, [one_node(operator, (1, 64)) for operator in operators])
    names = [kernel.name for engine in engines for kernel in engine.kernels]
    assert [name.split("_myl0")[0] for name in names] == [f"__myl_{operator}" for operator in operators]


def test_a_file_of_the_user_named_as_one_of_python_does_no_harm(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "types.py").write_text("raise ImportError('the wrong types')")
    monkeypatch.syspath_prepend(tmp_path)
    assert engine_from_onnx(one_node("Relu")).kernel_count == 1


def test_without_the_package_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    with pytest.raises(BadRequest, match=r"pip install 'deploy-attn\[rtx\]'` on x86-64 Linux or Windows") as raised:
        engine_from_onnx(one_node("Relu"))
    assert raised.value.exit_code == 2


def test_a_package_that_cannot_be_imported_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "tensorrt_rtx.py").write_text("raise ImportError('libnvrtc.so.13 is not there')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(BadRequest, match=r"cannot be imported \(libnvrtc.so.13 is not there\)"):
        engine_from_onnx(one_node("Relu"))
