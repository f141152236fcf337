"""The log of TensorRT-RTX's builder: read as written, and never taken for an engine without kernels."""

from __future__ import annotations

import pytest

from deploy_attn.engines.rtx_log import Kernel, Message, contradictions, kernels, size_conditions, stated_bytes
from deploy_attn.engines.tensorrt_rtx import RtxEngine
from deploy_attn.jetson.errors import DeployAttnError

EMPTY = "Inputs: [], Constants: [], Outputs: [], TacticName: , StreamId: 0, EventId: 1, Metadata: "


def tensor(name: str, extents: str, dtype: str = "Float") -> str:
    return f"{{ Name: {name}, Dimensions: [{extents}], Strides: [8,1], Datatype: {dtype}, Format: (Linear) Row major }}"


def line(inputs: str, outputs: str, constants: str = "", nodes: str = "") -> str:
    return (
        f"Name: k, LayerType: kgen, Inputs: [ {inputs}], Constants: [{constants}], Outputs: [ {outputs}], "
        f"TacticName: t, StreamId: 0, Metadata: {nodes}"
    )


def log(*lines: str) -> list[Message]:
    return [Message("VERBOSE", "\n".join(["Layers:", *lines, "", "I/O Tensors:", " Name: x, IOMode: Input"]))]


def test_synchronisation_is_listed_and_not_counted() -> None:
    work = line(tensor("x", "2,4"), tensor("y", "2,4"))
    listed = kernels(log(f"Name: s, LayerType: signal, {EMPTY}", work, f"Name: w, LayerType: wait, {EMPTY}"))
    assert [kernel.layer_type for kernel in listed] == ["signal", "kgen", "wait"]
    assert listed[0] == Kernel("s", "signal", 0, 0, ())
    engine = RtxEngine(b"", listed, 0, 0, (), "SM86", "1.7.1.116")
    assert (engine.kernel_count, engine.traffic_bytes) == (1, 64)


def test_names_with_brackets_and_commas_are_kept() -> None:
    nodes = "[ONNX Layer: /a[0], b]__gemm_from_conv1x1\x1f[ONNX Layer: c]"
    (kernel,) = kernels(log(line(tensor("a, b]", "2,4"), tensor("y", ""), tensor("w", "9,9"), nodes)))
    assert (kernel.bytes_read, kernel.bytes_written, kernel.onnx_nodes) == (32, 4, ("/a[0], b", "c"))


@pytest.mark.parametrize(("views", "size"), [(1, 32), (2, 64), (3, 64)])
def test_views_of_a_tensor_count_together_up_to_the_whole(views: int, size: int) -> None:
    half = tensor("t", "2,4")
    _, kernel = kernels(
        log(line(tensor("x", "1,4"), tensor("t", "4,4")), line(", ".join([half] * views), tensor("y", "2,4")))
    )
    assert kernel.bytes_read == size


@pytest.mark.parametrize(
    ("dtype", "size"), [("Half", 2), ("BFloat16", 2), ("Int64", 8), ("Bool", 1), ("Int8", 1), ("Float", 4)]
)
def test_the_size_is_that_of_the_type(dtype: str, size: int) -> None:
    (kernel,) = kernels(log(line(tensor("x", "3,5", dtype), tensor("y", "2", "Half"))))
    assert (kernel.bytes_read, kernel.bytes_written) == (15 * size, 4)


def test_a_kernel_tells_the_types_that_it_reads_and_writes_each_once() -> None:
    inputs = ", ".join([tensor("a", "2", "Half"), tensor("b", "2", "Half"), tensor("c", "2")])
    (kernel,) = kernels(log(line(inputs, tensor("y", "2", "Half"), tensor("w", "2", "BFloat16"))))
    assert (kernel.types_read, kernel.types_written) == (("Float", "Half"), ("Half",))


@pytest.mark.parametrize(
    ("messages", "what"),
    [
        ([], "it has 0 lists of kernels"),
        (log(line("", "")) * 2, "it has 2 lists of kernels"),
        (log(), "list of kernels is empty"),
        (log("Name: k, Type: kgen"), "a line of its list .* 'Name: k, Type: kgen'"),
        (log(line("{ Name: x, Shape: [2] }", "")), "a kernel has the tensors"),
        (log(line(tensor("x", "2", "Int2"), "")), "a tensor is of type Int2"),
        (log(line("", "", nodes="[TF Layer: a]")), "a kernel comes from"),
    ],
)
def test_a_list_that_is_not_understood_is_an_error(messages: list[Message], what: str) -> None:
    with pytest.raises(DeployAttnError, match=f"is not understood: .*{what}"):
        kernels(messages)


def test_a_figure_that_is_missing_is_an_error() -> None:
    messages = [Message("INFO", "Max Scratch Memory: 1536 bytes")]
    assert stated_bytes(messages, "Max Scratch Memory") == 1536
    with pytest.raises(DeployAttnError, match="'Total Weights Memory' is missing"):
        stated_bytes(messages, "Total Weights Memory")


def test_conditions_on_sizes_of_another_form_are_an_error() -> None:
    texts = ["SYMBOLIC CHECKS", "    (EQUAL h w)", "        n: why.", "    (EQUAL b 2)", "GRAPH NODES"]
    with pytest.raises(DeployAttnError, match="its conditions on sizes are"):
        size_conditions([Message("VERBOSE", text) for text in texts])


@pytest.mark.parametrize(
    ("condition", "baked"),
    [
        ("(EQUAL 28 height)", True),
        ("(EQUAL 784 (* h w))", True),
        ("(EQUAL (# 2 (SHAPE x)) 28)", True),
        ("(RESHAPE b 4 h w | -1 4 784)", True),
        ("(EQUAL h w)", False),
        ("(RESHAPE b 4 h w | b 4 (/ h 7) 7 w)", False),
    ],
)
def test_a_condition_with_a_number_is_a_size_baked_in(condition: str, baked: bool) -> None:
    texts = ["SYMBOLIC CHECKS", f"    {condition}", "        n: why.", "GRAPH NODES"]
    found = contradictions([Message("VERBOSE", text) for text in texts])
    assert found == ([f"n: why. It needs {condition}."] if baked else [])
