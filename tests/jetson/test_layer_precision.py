from typing import Any, Dict, List, Mapping, Tuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from deploy_attn.jetson.engine_layers import EngineLayer
from deploy_attn.jetson.errors import BadRequest
from deploy_attn.jetson.layer_precision import NodeFinder, assign, precision_notes, precision_problems
from deploy_attn.jetson.tensorrt_module import flags, make_logger
from tests.jetson.builds import PLAN, gate, saved
from tests.jetson.fake_tensorrt import versions

MIXED = {"mean": "fp32", "conv": "fp16", "relu": "fp16"}


def layer(name: str, types: str, kind: str = "Conv", weights: str = "", nodes: Tuple[str, ...] = ()) -> EngineLayer:
    """Types as `half float > half`: inputs and outputs."""
    inputs, _, outputs = types.partition(">")
    return EngineLayer(name, kind, tuple(inputs.split()), tuple(outputs.split()), tuple(weights.split()), nodes)


def network(version: str, model: bytes) -> Tuple[Any, Any]:
    """A weakly typed network and the module."""
    trt = versions.module(version)
    logger = make_logger(trt, [])
    made = trt.Builder(logger).create_network(flags({"EXPLICIT_BATCH": True}, trt.NetworkDefinitionCreationFlag))
    assert trt.OnnxParser(made, logger).parse(model)
    return made, trt


def set_on(made: Any) -> Dict[str, Tuple[str, str]]:
    """Precision and type of the first output, where they were set."""
    return {
        each.name: (each._precision.name, each._output_types[0].name if each._output_types else "")
        for each in (made.get_layer(index) for index in range(made.num_layers))
        if each._precision
    }


@pytest.mark.parametrize("version", ["8.0", "8.2", "8.6", "10"])
def test_the_plan_is_set_on_every_layer_and_network_outputs_keep_their_type(version: str) -> None:
    made, trt = network(version, gate())
    done = assign(made, PLAN, trt)
    assert set_on(made) == {
        "squeeze": ("FLOAT", "FLOAT"),
        "conv": ("HALF", "HALF"),
        "act": ("HALF", "HALF"),
        "(Unnamed Layer* 3) [Shuffle]": ("HALF", "HALF"),
        "scale": ("HALF", "HALF"),
        "gate": ("HALF", ""),
    }
    assert done == (5, 1, ())


@pytest.mark.parametrize(("before", "behind"), [("fp32", "fp16"), ("fp16", "fp32"), ("fp32", "fp32")])
def test_a_layer_of_no_node_is_fp16_only_between_fp16_layers(before: str, behind: str) -> None:
    made, trt = network("8.2", gate())
    assign(made, {**PLAN, "act": before, "scale": behind}, trt)
    assert set_on(made)["(Unnamed Layer* 3) [Shuffle]"][0] == "FLOAT"


@pytest.mark.parametrize(
    ("version", "first", "second", "expected"),
    [
        ("8.2", "fp32", "fp16", "FLOAT"),
        ("8.2", "fp16", "fp32", "FLOAT"),
        ("8.2", "fp16", "fp16", "HALF"),
        ("10", "fp32", "fp16", "HALF"),
        ("10", "fp16", "fp32", "FLOAT"),
    ],
)
def test_a_number_right_behind_the_bare_name_may_be_of_either_node_unless_metadata_tells(
    version: str, first: str, second: str, expected: str
) -> None:
    nodes = [helper.make_node("Exp", ["x"], ["a"], "part"), helper.make_node("Exp", ["a"], ["y"], "part_1")]
    made, trt = network(version, saved(nodes, (4,)))
    assign(made, {"part": first, "part_1": second}, trt)
    assert set_on(made)["part_1"][0] == expected


def test_a_number_elsewhere_is_part_of_the_name() -> None:
    names = ["part", "other", "part_1"]
    nodes = [helper.make_node("Exp", [a], [b], name) for a, b, name in zip("xab", "aby", names)]
    made, trt = network("8.2", saved(nodes, (4,)))
    assign(made, {"part": "fp32", "other": "fp16", "part_1": "fp16"}, trt)
    assert [kind for kind, _ in set_on(made).values()] == ["FLOAT", "HALF", "HALF"]


def test_layers_without_floats_and_casts_are_left_alone() -> None:
    nodes = [
        helper.make_node("Shape", ["x"], ["size"], "shape"),
        helper.make_node("Cast", ["size"], ["floats"], "cast", to=TensorProto.FLOAT),
        helper.make_node("Greater", ["x", "x"], ["larger"], "compare"),
        helper.make_node("Cast", ["x"], ["whole"], "to_int", to=TensorProto.INT64),
        helper.make_node("TopK", ["x", "k"], ["values", "places"], "topk"),
        helper.make_node("Relu", ["x"], ["y"], "relu"),
    ]
    plan = dict.fromkeys(["shape", "cast", "compare", "to_int", "topk", "relu", "folded"], "fp16")
    for version in ("8.2", "8.6"):
        made, trt = network(version, saved(nodes, (4,), {"k": np.array([1])}))
        done = assign(made, plan, trt)
        assert set(set_on(made)) == {"topk", "relu"}
        assert done.without_layer == ("folded",)


def test_a_type_that_the_parser_set_stays() -> None:
    nodes = [helper.make_node("Cast", ["x"], ["y"], "cast", to=TensorProto.FLOAT)]
    made, trt = network("8.2", saved(nodes, (4,)))
    assign(made, {"cast": "fp16"}, trt)
    assert set_on(made)["cast"] == ("HALF", "FLOAT")


def test_without_a_plan_or_with_another_graphs_plan_nothing_is_guessed() -> None:
    made, trt = network("8.2", gate())
    with pytest.raises(BadRequest, match="without a plan"):
        assign(made, {}, trt)
    with pytest.raises(BadRequest, match="names 1 nodes, and none of the network's 6 layers"):
        assign(made, {"elsewhere": "fp16"}, trt)


@pytest.mark.parametrize(
    ("name", "nodes"),
    [
        ("a/conv", ["a/conv"]),
        ("a/conv_12", ["a/conv"]),
        ("a/conv + b", ["a/conv", "b"]),
        ("PWN(a/conv, b)", ["a/conv", "b"]),
        ("PWN(PWN(a/conv), b_3)", ["a/conv", "b"]),
        ("{ForeignNode[a/conv...b]}", ["a/conv", "b"]),
        ("a/conv || b", ["a/conv", "b"]),
        ("b_1", ["b_1"]),
        ("Reformatting CopyNode for Input Tensor 0 to a/conv", ["a/conv"]),
        ("constant + (Unnamed Layer* 3) [Shuffle] + b", ["b"]),
        ("a/conv2", []),
        ("x/a/conv", []),
        ("bb", []),
        ("__myl_Cast_0", []),
    ],
)
def test_the_nodes_of_a_fused_layer_are_found_in_its_name(name: str, nodes: List[str]) -> None:
    assert list(NodeFinder(["a/conv", "b", "b_1"]).of_layer(name)) == nodes


def test_metadata_goes_before_the_name_where_it_names_planned_nodes() -> None:
    finder = NodeFinder(["a", "b"])
    assert finder.of_layer("a", ("b", "elsewhere")) == ("b",)
    assert finder.of_layer("a", ("elsewhere",)) == ("a",)


names = st.text(st.characters(blacklist_categories=["Cs", "Cc"]), min_size=1, max_size=12)


@given(st.lists(names, min_size=1, max_size=6, unique=True), st.data())
def test_any_node_name_is_found_alone_and_numbered(known: List[str], data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(known))
    finder = NodeFinder(known)
    assert finder.of_layer(name) == (name,)
    assert finder.of_layer(f"{name}_7") in [(name,), (f"{name}_7",)]


def test_an_engine_that_holds_to_its_plan_has_no_problem() -> None:
    layers = [
        layer("mean", "float > float", "Reduce"),
        layer("Reformatting CopyNode for Input Tensor 0 to conv", "float > half", "Reformat"),
        layer("conv + relu", "half > half"),
    ]
    assert precision_problems(layers, MIXED, weak=True) == []
    assert precision_notes(layers, MIXED, weak=True) == []


@pytest.mark.parametrize("weak", [True, False])
@pytest.mark.parametrize("kinds", [["float > float"], ["float > float", "int32 > float"]])
def test_an_engine_without_any_half_tensor_is_silently_fp32(weak: bool, kinds: List[str]) -> None:
    layers = [layer(name, kind) for name, kind in zip(["conv", "relu"], kinds)]
    (problem,) = precision_problems(layers, MIXED, weak)
    assert "silently FP32: the plan has 2 FP16 nodes" in problem


def test_copies_to_half_and_back_around_an_fp32_layer_are_no_half_layer() -> None:
    copy = layer("Reformatting CopyNode for Input Tensor 0 to conv", "float > half", "Reformat")
    assert "silently FP32" in precision_problems([copy, layer("conv", "float > float")], MIXED, weak=True)[0]
    assert precision_problems([layer("conv", "float > half", "NoOp")], {"conv": "fp16"}, weak=True) == []


@pytest.mark.parametrize(
    "half",
    [layer("conv", "half > float"), layer("conv", "float > half"), layer("conv", "float > float", weights="half")],
)
def test_one_half_tensor_or_weight_shows_that_it_is_not(half: EngineLayer) -> None:
    assert precision_problems([layer("mean", "float > float"), half], MIXED, weak=True) == []


def test_a_plan_without_fp16_nodes_asks_for_no_half_layer() -> None:
    assert precision_problems([layer("conv", "float > float")], {"conv": "fp32"}, weak=True) == []


@pytest.mark.parametrize(
    ("kind", "problem"),
    [
        (layer("mean", "float > half"), "makes FP16 outputs"),
        (layer("mean_3", "float > float", weights="half"), "has FP16 weights"),
    ],
)
def test_a_layer_of_fp32_nodes_that_computes_in_half_is_a_problem_on_a_weakly_typed_network(
    kind: EngineLayer, problem: str
) -> None:
    layers = [kind, layer("conv", "half > half")]
    (found,) = precision_problems(layers, MIXED, weak=True)
    assert problem in found
    assert precision_problems(layers, MIXED, weak=False) == []


@pytest.mark.parametrize("kind", ["Reformat", "NoOp", "Constant"])
def test_a_copy_of_an_fp32_node_may_change_the_type(kind: str) -> None:
    layers = [layer("mean", "float > half", kind), layer("conv", "half > half")]
    assert precision_problems(layers, MIXED, weak=True) == []


def test_types_that_are_not_shown_prove_nothing() -> None:
    hidden = [layer("conv", "unknown > unknown")]
    (problem,) = precision_problems(hidden, MIXED, weak=True)
    assert "does not show the types" in problem
    assert precision_problems([layer("conv", "unknown > unknown", weights="half")], MIXED, weak=True) == []


def test_of_a_foreign_node_the_inputs_and_outputs_count_and_the_notes_say_so() -> None:
    foreign = layer("{ForeignNode[mean...relu]}", "float > float", "Myelin")
    assert precision_problems([foreign], MIXED, weak=True) == []  # a whole network's are FP32 anyway
    (problem,) = precision_problems([foreign, layer("other", "float > float")], MIXED, weak=True)
    assert "ForeignNodes only inputs and outputs are known" in problem
    notes = precision_notes([foreign], MIXED, weak=True)
    assert "1 ForeignNodes of the engine compute inside" in notes[0]
    assert "folded or fused away: conv" in notes[1]


@pytest.mark.parametrize(
    ("name", "weak", "passes"),
    [("__myl_Fused", False, True), ("__myl_CastMulCast", True, True), ("__myl_Fused", True, False)],
)
def test_a_fused_kernel_may_round_inside_where_the_graph_or_its_name_says_so(
    name: str, weak: bool, passes: bool
) -> None:
    whole = layer(name, "float > float", "kgen", nodes=("mean", "conv", "relu"))
    assert (precision_problems([whole], MIXED, weak) == []) == passes


def test_a_lone_fp16_node_that_computes_in_fp32_hides_nothing() -> None:
    alone = layer("__myl_Conv", "float > float", "kgen", nodes=("conv",))
    assert precision_problems([alone], MIXED, weak=False) != []


@pytest.mark.parametrize(
    ("layers", "plan", "note"),
    [
        ([layer("mean + conv", "half > half")], {"mean": "fp32", "conv": "fp16"}, "in FP16 and in FP32: mean"),
        ([layer("conv", "float > float"), layer("relu", "half > half")], MIXED, "computed in FP32: conv"),
        ([layer("conv", "half > half")], MIXED, "folded or fused away: mean, relu"),
        ([layer("none", "half > half")], dict.fromkeys("abcdefgh", "fp16"), "a, b, c, d, e and 3 more"),
    ],
)
def test_notes_tell_what_is_no_failure(layers: List[EngineLayer], plan: Mapping[str, str], note: str) -> None:
    assert any(note in found for found in precision_notes(layers, plan, weak=True))
    assert precision_problems(layers, plan, weak=True) == []
