"""Operations of a node against counts by hand."""

from __future__ import annotations

from typing import Any

import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from deploy_attn.engines.operation_counts import Counts, counts_of
from deploy_attn.engines.shaped_graph import shaped_graph

Extents = tuple[int, ...]


def counted(kind: str, inputs: list[Extents], domain: str = "", **attributes: Any) -> Counts | None:
    """The counts of one node whose inputs, all of them the graph's, have these extents."""
    names = [f"i{index}" for index in range(len(inputs))]
    node = helper.make_node(kind, names, ["y"], domain=domain, **attributes)
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, extents) for name, extents in zip(names, inputs)]
    made = helper.make_graph([node], "g", ends, [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)])
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)])
    found = shaped_graph(model, dict(zip(names, inputs)))
    return counts_of(found.operations[0], found.tensors)


@pytest.mark.parametrize(
    ("kind", "inputs", "attributes", "expected"),
    [
        # 4 filters of 3x3 over 2 channels, on 5x6 places with padding: 4 * 30 outputs of 18 products, and a bias each.
        ("Conv", [(1, 2, 5, 6), (4, 2, 3, 3), (4,)], {"pads": [1] * 4}, Counts(4 * 30 * 18, 4 * 30)),
        ("Conv", [(1, 2, 5, 6), (4, 2, 3, 3)], {}, Counts(4 * 3 * 4 * 18)),
        ("Conv", [(3, 8, 4, 4), (8, 1, 1, 1)], {"group": 8}, Counts(3 * 8 * 16)),
        ("ConvTranspose", [(1, 2, 3, 3), (2, 4, 2, 2)], {"strides": [2, 2]}, Counts(18 * 16)),
        ("MatMul", [(2, 3, 4, 5), (5, 7)], {}, Counts(2 * 3 * 4 * 7 * 5)),
        ("MatMul", [(5,), (5,)], {}, Counts(5)),
        ("Gemm", [(4, 3), (4, 5), (5,)], {"transA": 1}, Counts(3 * 5 * 4, 15)),
        ("Einsum", [(2, 3, 4), (2, 4, 5)], {"equation": "bij, bjk -> bik"}, Counts(2 * 3 * 4 * 5)),
        ("Add", [(2, 1, 3), (1, 4, 1)], {}, Counts(elementwise=24)),
        ("Sum", [(6,), (6,), (6,)], {}, Counts(elementwise=12)),
        ("Sigmoid", [(2, 3)], {}, Counts(transcendental=6)),
        ("ReduceMean", [(2, 3, 4)], {"axes": [2]}, Counts(reductions=24)),
        ("ReduceL2", [(2, 3)], {"axes": [1]}, Counts(elementwise=6, reductions=6)),
        ("MaxPool", [(1, 1, 4, 4)], {"kernel_shape": [2, 2], "strides": [2, 2]}, Counts(reductions=16)),
        ("Softmax", [(2, 3)], {"axis": -1}, Counts(0, 12, 12, 6)),
        ("InstanceNormalization", [(1, 2, 3), (2,), (2,)], {}, Counts(elementwise=24, reductions=12)),
        ("Transpose", [(2, 3)], {}, Counts()),
        ("Concat", [(2, 3), (2, 3)], {"axis": 0}, Counts()),
    ],
)
def test_the_operations_of_a_node_are_those_of_its_shapes(
    kind: str, inputs: list[Extents], attributes: dict[str, Any], expected: Counts
) -> None:
    assert counted(kind, inputs, **attributes) == expected


@pytest.mark.parametrize(
    ("kind", "inputs", "attributes"),
    [
        ("Einsum", [(2, 3), (3, 4)], {"equation": "...i,ij->...j"}),
        ("LRN", [(1, 2, 3, 3)], {"size": 3}),
    ],
)
def test_an_operator_that_is_not_known_has_no_count_rather_than_a_wrong_one(
    kind: str, inputs: list[Extents], attributes: dict[str, Any]
) -> None:
    assert counted(kind, inputs, **attributes) is None


def test_an_operator_of_another_domain_is_not_taken_for_its_namesake() -> None:
    node = helper.make_node("MatMul", ["a", "b"], ["y"], domain="com.example")
    ends = {name: helper.make_tensor_value_info(name, TensorProto.FLOAT, (2, 2)) for name in "aby"}
    made = helper.make_graph([node], "g", [ends["a"], ends["b"]], [], value_info=[ends["y"]])
    model = onnx.helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)])
    model.opset_import.append(helper.make_opsetid("com.example", 1))
    found = shaped_graph(model, {"a": (2, 2), "b": (2, 2)})
    assert counts_of(found.operations[0], found.tensors) is None


@given(st.lists(st.integers(1, 9), min_size=5, max_size=5), st.sampled_from([1, 3, 5]))
def test_a_convolution_takes_what_its_matrix_product_takes(extents: list[int], kernel: int) -> None:
    batch, channels, filters, height, width = extents
    conv = counted(
        "Conv",
        [(batch, channels, height, width), (filters, channels, kernel, kernel)],
        pads=[kernel // 2] * 4,
    )
    columns = (batch, channels * kernel**2, height * width)
    assert conv == counted("MatMul", [(filters, channels * kernel**2), columns])


def test_a_multiply_add_is_two_operations() -> None:
    assert Counts(10, 3, 4, 5).operations == 32
