"""Operators without an importer: which version has which, and what to do instead."""

from __future__ import annotations

import onnx
import pytest
from onnx import TensorProto, helper

from deploy_attn.engines.target import load_target
from deploy_attn.export.linting.finding import Finding
from deploy_attn.export.linting.parser import parser_of
from tests.export.linting.graphs import findings, found, model_of, node, one, tensorrt_target

SHAPE = (1, 8, 4, 4)
REFUSED, UNKNOWN, FOREIGN = "unsupported-operator", "unknown-support", "foreign-operator"


def normalized(opset: int = 17) -> onnx.ModelProto:
    return one("LayerNormalization", SHAPE, {"scale": [1.0, 2.0, 3.0, 4.0]}, opset)


def only(model: onnx.ModelProto, version: str, rule: str) -> Finding:
    matching = [item for item in findings(model, tensorrt_target(version)) if item.rule == rule]
    assert len(matching) == 1
    return matching[0]


@pytest.mark.parametrize(
    ("operator", "opset", "missing_in", "there_in"),
    [
        ("LayerNormalization", 17, "8.5", "8.6"),
        ("GroupNormalization", 18, "8.5", "8.6"),
        ("HardSwish", 14, "8.2", "8.4"),
        ("Einsum", 13, "8.0", "8.2"),
        ("ScatterND", 13, "8.0", "8.2"),
        ("Mod", 13, "8.4", "8.5"),
        ("Trilu", 14, "8.4", "8.5"),
        ("OneHot", 13, "8.4", "8.5"),
        ("GridSample", 16, "8.4", "8.5"),
        ("IsInf", 13, "8.5", "8.6"),
        ("Hardmax", 13, "9.1", "9.2"),
        ("Gelu", 20, "9.3", "10.0"),
        ("Mish", 18, "9.3", "10.0"),
        ("DeformConv", 19, "10.0", "10.1"),
        ("HannWindow", 17, "10.3", "10.4"),
        ("STFT", 17, "10.4", "10.5"),
        ("Attention", 23, "10.13", "10.14"),
        ("RMSNormalization", 23, "10.14", "10.15"),
    ],
)
def test_an_operator_is_refused_before_the_version_that_brought_it(
    operator: str, opset: int, missing_in: str, there_in: str
) -> None:
    model = one(operator, SHAPE, opset=opset)
    assert only(model, missing_in, REFUSED).effect == "refused"
    assert {REFUSED, UNKNOWN}.isdisjoint(found(model, tensorrt_target(there_in)))


@pytest.mark.parametrize(
    "version", ["8.0", "8.2", "8.4", "8.5", "8.6", "9.3", "10.1", "10.3", "10.13", "10.16", "11.1"]
)
@pytest.mark.parametrize("operator", ["Det", "DFT", "Unique", "Compress", "SequenceConstruct", "BitShift"])
def test_what_no_parser_has_is_refused_by_all(operator: str, version: str) -> None:
    finding = only(one(operator, SHAPE, opset=17), version, REFUSED)
    assert finding.is_error
    assert version in finding.why
    assert "plugin" in finding.why


@pytest.mark.parametrize(
    ("operator", "version", "support"),
    [
        ("Swish", "10.15", "no"),  # the table of that very version has it not
        ("Swish", "10.16", "unknown"),
        ("Swish", "11.1", "unknown"),
        ("CastLike", "8.6", "no"),
        ("CastLike", "9.0", "unknown"),  # it came between 8.6 and 9.3, and no changelog says when
        ("CastLike", "9.3", "yes"),
        ("Relu", "7.1", "yes"),
        ("Relu", "12.0", "yes"),
        ("Det", "12.0", "no"),
        ("NoSuchThing", "10.3", "no"),
        ("NoSuchThing", "12.0", "unknown"),
    ],
)
def test_support_is_said_to_be_unknown_where_no_table_tells(operator: str, version: str, support: str) -> None:
    parser = parser_of(tensorrt_target(version))
    assert parser is not None
    assert parser.support(operator) == support
    assert parser.knows(operator) is (support == "yes")


def test_an_operator_of_unknown_support_is_risky_and_no_error() -> None:
    finding = only(one("Swish", SHAPE, opset=24, ir_version=11), "11.1", UNKNOWN)
    assert finding.effect == "risky"
    assert "10.15" in finding.why


@pytest.mark.parametrize("version", ["8.2", "10.3", "11.1"])
def test_common_operators_are_supported_everywhere(version: str) -> None:
    model = model_of(
        [node("Conv", "x w", "a"), node("Relu", "a", "b"), node("Sigmoid", "b", "c"), node("Mul", "c x", "y")],
        {"x": SHAPE},
        {"y": SHAPE},
        {"w": [[[[1.0]]] * 8] * 8},
    )
    assert {REFUSED, UNKNOWN, FOREIGN}.isdisjoint(found(model, tensorrt_target(version)))


@pytest.mark.parametrize(
    ("operator", "words"),
    [
        ("LayerNormalization", "--fix"),
        ("Gelu", "--fix"),
        ("HardSwish", "--fix"),
        ("Mish", "--fix"),
        ("GroupNormalization", "--fix"),
        ("Attention", "Softmax"),
        ("BitwiseAnd", "And, Or and Not"),
        ("SequenceAt", "lists of tensors"),
        ("StringConcat", "host"),
        ("NoSuchThing", "operators that the parser has"),
    ],
)
def test_the_remedy_is_the_operators_own(operator: str, words: str) -> None:
    assert words in only(one(operator, SHAPE), "8.2", REFUSED).remedy


def test_every_known_operator_that_a_version_lacks_has_a_remedy_of_its_own() -> None:
    operators = {schema.name for schema in onnx.defs.get_all_schemas() if schema.domain == ""}
    generic = {
        operator
        for operator in operators
        for finding in findings(one(operator, SHAPE), tensorrt_target("8.0"))
        if finding.rule == REFUSED
        and "operators that the parser has" in finding.remedy
        and "--fix" not in finding.remedy
    }
    assert generic <= {"MaxRoiPool", "MaxUnpool", "RoiAlign", "CausalConvWithState"}


def test_each_node_is_named_and_one_in_a_branch_too() -> None:
    then = helper.make_graph([node("Gelu", "x", "a", "inner")], "then", [], [helper.make_empty_tensor_value_info("a")])
    other = helper.make_graph([node("Relu", "x", "b")], "else", [], [helper.make_empty_tensor_value_info("b")])
    model = model_of(
        [node("Gelu", "x", "z", "outer"), node("If", "c", "y", then_branch=then, else_branch=other)],
        {"x": SHAPE, "c": (TensorProto.BOOL, ())},
        {"y": (TensorProto.FLOAT, None), "z": SHAPE},
        opset=20,
        ir_version=9,
    )
    named = [item.node for item in findings(model, "jetson-nano") if item.rule == REFUSED]
    assert named == ["outer", "inner"]


@pytest.mark.parametrize(
    ("domain", "operator", "rule", "effect"),
    [
        ("com.microsoft", "FusedConv", FOREIGN, "refused"),
        ("ai.onnx.ml", "TreeEnsemble", FOREIGN, "refused"),
        ("trt.plugins", "Mine", "plugin", "risky"),
        ("", "EfficientNMS_TRT", "plugin", "risky"),
    ],
)
def test_operators_of_other_domains_are_judged_by_their_domain(
    domain: str, operator: str, rule: str, effect: str
) -> None:
    model = model_of(
        node(operator, "x", "y", domain=domain), {"x": SHAPE}, {"y": SHAPE}, domains={domain: 1} if domain else None
    )
    assert only(model, "10.3", rule).effect == effect


def own_function(operator: str = "Gelu") -> onnx.ModelProto:
    model = model_of(
        node("Gate", "x", "y", "call", domain="own"), {"x": SHAPE}, {"y": SHAPE}, None, 20, 9, domains={"own": 1}
    )
    body = [helper.make_node(operator, ["a"], ["b"], name="inside")]
    model.functions.append(helper.make_function("own", "Gate", ["a"], ["b"], body, [helper.make_opsetid("", 20)]))
    return model


def test_a_models_own_functions_are_refused_before_9_0_and_looked_into() -> None:
    assert only(own_function(), "8.6", "local-function").effect == "refused"
    assert only(own_function(), "8.6", REFUSED).op_type == "Gelu"
    assert found(own_function(), tensorrt_target("10.3", 20, 9)) == []
    assert found(own_function("Det"), tensorrt_target("10.3", 20, 9)) == [REFUSED]


def test_onnxruntime_has_every_operator_of_onnx_at_its_opset() -> None:
    assert found(normalized(), "onnxruntime-cpu") == []
    assert found(normalized(16), "onnxruntime-cpu") == ["undefined-operator"]


@pytest.mark.parametrize(
    ("operator", "domain", "rules"),
    [
        ("NoSuchThing", "", ["undefined-operator"]),
        ("Mine", "trt.plugins", ["undefined-operator"]),
        ("FusedConv", "com.microsoft", []),
        ("Det", "", []),
    ],
)
def test_onnxruntime_goes_by_onnxs_definitions(operator: str, domain: str, rules: list[str]) -> None:
    model = model_of(
        node(operator, "x", "y", domain=domain), {"x": SHAPE}, {"y": SHAPE}, domains={domain: 1} if domain else None
    )
    assert found(model, "onnxruntime-cpu") == rules


def test_a_target_without_tensorrt_has_no_parser() -> None:
    assert parser_of(load_target("onnxruntime-cpu")) is None


@pytest.mark.parametrize(
    ("version", "table"),
    [("7.1", "8.0"), ("8.2", "8.2"), ("8.3", "8.2"), ("9.2", "8.6"), ("10.3", "10.1"), ("10.16", "10.15")],
)
def test_the_table_is_the_newest_that_is_not_newer(version: str, table: str) -> None:
    parser = parser_of(tensorrt_target(version))
    assert parser is not None
    assert parser.table == table
    assert parser.types("Relu")[:2] == ("FP32", "FP16")
    assert parser.types("NoSuchThing") == ()
