import contextlib
import json
from typing import Any, Dict, List

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy_attn.jetson.engine_layers import (
    LayersNotUnderstood,
    layers_from_inspector,
    layers_from_log,
    nodes_in_metadata,
)


def inspected(**tensor: Any) -> str:
    layer = {"Name": "a", "LayerType": "Conv", "Inputs": [{"Name": "x", **tensor}], "Outputs": []}
    return json.dumps({"Layers": [layer], "Bindings": ["x"]})


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("Row major linear FP32", "float"),
        ("Row major linear FP16 format", "half"),
        ("Row major linear FP16 format (kLINEAR)", "half"),
        ("Two wide channel vectorized row major FP16 format", "half"),
        ("Channel major FP16 format where channel % 8 == 0", "half"),
        ("Channel major FP16 format where channel % 4 == 0.", "half"),
        ("Thirty-two wide channel vectorized row major Int8 format with 3 spatial dimensions", "int8"),
        ("Row major linear Int32", "int32"),
        ("Row major linear Int64 format", "int64"),
        ("Row major linear BOOL", "bool"),
        ("Row major linear BFloat16 format", "bfloat16"),
        ("Row major linear UInt8 format", "uint8"),
        ("Half", "half"),
        ("Float", "float"),
        ("Half(64,1:8,512,64)", "half"),
        ("N/A due to dynamic shapes", "unknown"),
        ("Unknown format", "unknown"),
    ],
)
def test_the_type_is_found_among_the_words_that_describe_a_layout(text: str, kind: str) -> None:
    assert layers_from_inspector(inspected(**{"Format/Datatype": text}))[0].inputs == (kind,)


@pytest.mark.parametrize("key", ["Datatype", "DataType"])
def test_from_11_on_the_type_stands_beside_the_format(key: str) -> None:
    text = inspected(**{key: "Half", "Format": "(Linear) Row major linear FP32 format"})
    assert layers_from_inspector(text)[0].inputs == ("half",)


@pytest.mark.parametrize(
    "tensor",
    [
        {"Format/Datatype": "Row major linear Quaternion"},
        {"Format/Datatype": "FP16 or FP32"},
        {"Datatype": "FP12"},
        {"Datatype": "Half Float"},
    ],
)
def test_a_type_that_is_not_known_is_an_error(tensor: Dict[str, str]) -> None:
    with pytest.raises(LayersNotUnderstood, match="not known here"):
        layers_from_inspector(inspected(**tensor))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        ("[]", "lists no layers"),
        ("{}", "lists no layers"),
        ('{"Layers": []}', "lists no layers"),
        ('{"Layers": ["a", "b"]}', "names of layers only: .*DETAILED"),
        ('{"Layers": [1]}', "lists 1 as a layer"),
        ('{"Layers": [{"Name": "a", "Inputs": ["x"]}]}', "'x' as a tensor"),
        ("[" * 100000, "not JSON"),
    ],
)
def test_what_is_no_list_of_layers_is_an_error(text: str, message: str) -> None:
    with pytest.raises(LayersNotUnderstood, match=message):
        layers_from_inspector(text)


def test_weights_constants_and_metadata_are_read() -> None:
    layer = {
        "Name": "conv + relu",
        "LayerType": "CaskConvolution",
        "Inputs": None,
        "Outputs": [{"Name": "y", "Format/Datatype": "N/A due to dynamic shapes"}],
        "Weights": {"Type": "Half", "Count": 9408},
        "Bias": {"Type": "Float", "Count": 64},
        "Metadata": "[ONNX Layer: conv]\x1f[ONNX Layer: relu]__gemm_from_conv1x1\x1e[ONNX Layer: a]b]",
    }
    text = json.dumps({"Layers": [layer]}).replace("\\u001f", "\x1f")  # as TensorRT writes it
    (read,) = layers_from_inspector(text)
    assert read.weights == ("half", "float")
    assert read.types() == ("unknown", "half", "float")
    assert read.nodes == ("conv", "relu", "a]b")
    assert json.loads(json.dumps(read.as_dict()))["type"] == "CaskConvolution"


LOG_8 = """Engine Layer Information:
Layer(Reformat): CopyNode to Conv_0, Tactic: 0, in[Float(1,3,8,8)] -> to Conv_0[Half(1,3,8,8)]
Layer(CaskConvolution): Conv_0 + Relu_1, Tactic: 0x4727, to Conv_0[Half(1,-8)] -> (Unnamed Layer* 1) [Act]_o[Half(1:8)]
Layer(Constant): c + (Unnamed Layer* 6) [Shuffle], Tactic: -1,  -> (Unnamed Layer* 6) [Shuffle]_output[Float(1,1)]
Layer(Myelin): {ForeignNode[a...b + (Unnamed Layer* 2) [S]]}, Tactic: 0, p[Half(1)], q[Int32()] -> y[Float(1)]"""


def test_the_list_that_8_logs_is_read() -> None:
    copy, conv, constant, foreign = layers_from_log([("VERBOSE", "Engine"), ("VERBOSE", LOG_8)]) or []
    assert (copy.layer_type, copy.inputs, copy.outputs) == ("Reformat", ("float",), ("half",))
    assert (conv.name, conv.inputs, conv.outputs) == ("Conv_0 + Relu_1", ("half",), ("half",))
    assert (constant.inputs, constant.outputs) == ((), ("float",))
    assert (foreign.name, foreign.inputs) == ("{ForeignNode[a...b + (Unnamed Layer* 2) [S]]}", ("half", "int32"))


def test_a_list_in_a_message_for_each_layer_is_read() -> None:
    first, *lines = LOG_8.splitlines()
    messages = [
        ("VERBOSE", "Layer(stale): of another engine"),
        ("VERBOSE", first),
        *[("VERBOSE", line) for line in lines],
    ]
    assert len(layers_from_log(messages) or []) == 4


LOG_11 = (
    "Layers:\n"
    "Name: __myl_Cast_myl0_1, LayerType: kgen, Inputs: [ { Name: x, Dimensions: [1,64,1,1], Strides: [64,1,1,1], "
    "Datatype: Float, Format: (Linear) Row major linear format }], Constants: [], Outputs: [ { Name: o}d, Dimensions: "
    "[1,64], Datatype: Half, Format: (NHWC) Channel major format }], TacticName: t, StreamId: 0, "
    "Metadata: [ONNX Layer: c]\n"
    "Name: /conv, LayerType: correlation, Inputs: [ { Name: a, Dimensions: [1], Format/Datatype: Half }, { Name: b, "
    "Dimensions: [1], Format/Datatype: Row major linear FP32 }], Constants: [ { Name: w, Datatype: Half }], "
    "Outputs: [], ParameterType: Convolution, Metadata: [ONNX Layer: /conv]\x1f[ONNX Layer: /relu]\n"
    "\nI/O Tensors:\n Name: x, IOMode: Input, DataType: Float"
)


def test_the_list_that_newer_versions_log_is_read() -> None:
    cast, conv = layers_from_log([("VERBOSE", LOG_11)]) or []
    assert (cast.inputs, cast.outputs, cast.nodes) == (("float",), ("half",), ("c",))
    assert (conv.inputs, conv.outputs, conv.weights) == (("half", "float"), (), ("half",))
    assert conv.nodes == ("/conv", "/relu")


@pytest.mark.parametrize(
    "text",
    [
        "Engine Layer Information:\nLayer(A): a, Tactic: 0, x[Quaternion(1)] -> y[Half(1)]",
        "Engine Layer Information:\nLayer(A): a, Tactic: 0, x -> y[Half(1)]",
        "Engine Layer Information:\nsomething else",
        "Layers:\nName: a, LayerType: b, Inputs: [ { Name: x, Dimensions: [1] }], Outputs: []",
        "Layers:\nName: a, LayerType: b, Inputs: [ { Name: x, Datatype: Quaternion }], Outputs: []",
        "Layers:\nName: a, LayerType: b, Inputs: [ { Name: x, Datatype: Half ], Outputs: []",
    ],
)
def test_a_line_of_another_form_is_an_error(text: str) -> None:
    with pytest.raises(LayersNotUnderstood):
        layers_from_log([("VERBOSE", text)])


def test_a_log_without_a_list_has_no_layers() -> None:
    assert layers_from_log([("INFO", "Total Activation Memory: 4")]) is None
    assert layers_from_log([("VERBOSE", "Engine Layer Information:")]) is None


@given(
    st.lists(
        st.text(st.characters(blacklist_characters="\x1e\x1f", blacklist_categories=["Cs"]), min_size=1), max_size=4
    )
)
def test_every_node_name_comes_back_from_metadata(names: List[str]) -> None:
    assert nodes_in_metadata("\x1f".join(f"[ONNX Layer: {name}]" for name in names)) == tuple(names)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["Name", "Inputs", "Weights", "Type"]), inner),
)


@given(json_values)
def test_whatever_the_inspector_says_is_read_or_refused(value: Any) -> None:
    layers = [{"Name": value}, {"Inputs": value}, {"Weights": value}, {"Inputs": [{"Datatype": value}]}, value]
    for answer in (value, {"Layers": value}, *({"Layers": [layer]} for layer in layers)):
        with contextlib.suppress(LayersNotUnderstood):
            layers_from_inspector(json.dumps(answer))
