"""Reading ONNX files of unknown origin: valid ones of every kind, and one clear refusal for each that is none."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from deploy_attn.export.linting.model_file import read_model
from deploy_attn.jetson.errors import BadRequest
from tests.export.linting.conftest import Save
from tests.export.linting.graphs import model_of, node

ROW = {"x": (1, 4)}


def small(ir_version: int = 7) -> onnx.ModelProto:
    """y = x @ w + b, with weights in the file."""
    return model_of(
        [node("MatMul", "x w", "a"), node("Add", "a b", "y")],
        ROW,
        {"y": (1, 4)},
        {"w": np.eye(4, dtype=np.float32), "b": [1.0, 2.0, 3.0, 4.0]},
        ir_version=ir_version,
    )


def edited(change: Callable[[onnx.ModelProto], object]) -> onnx.ModelProto:
    model = small()
    change(model)
    return model


def refusal(file: Path) -> str:
    with pytest.raises(BadRequest) as raised:
        read_model(file)
    assert raised.value.exit_code == 2
    return str(raised.value)


def with_branches(then: onnx.GraphProto) -> onnx.ModelProto:
    otherwise = helper.make_graph([node("Neg", "x", "n")], "else", [], [helper.make_empty_tensor_value_info("n")])
    choice = node("If", "c", "y", then_branch=then, else_branch=otherwise)
    return model_of(choice, {"x": (4,), "c": (TensorProto.BOOL, ())}, {"y": (4,)})


def branch(reads: str) -> onnx.GraphProto:
    return helper.make_graph([node("Relu", reads, "r")], "then", [], [helper.make_empty_tensor_value_info("r")])


def local_function() -> onnx.ModelProto:
    model = model_of(node("Twice", "x", "y", domain="own"), ROW, {"y": (1, 4)}, ir_version=8, domains={"own": 1})
    body = [helper.make_node("Add", ["a", "a"], ["b"])]
    model.functions.append(
        helper.make_function("own", "Twice", ["a"], ["b"], body, [helper.make_opsetid("", 13)]),
    )
    return model


def sparse() -> onnx.ModelProto:
    model = small()
    values = numpy_helper.from_array(np.ones(2, np.float32), "s")
    indices = numpy_helper.from_array(np.array([0, 3], np.int64), "indices")
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [4]))
    model.graph.node[1].input[1] = "s"
    return model


def sequence() -> onnx.ModelProto:
    model = model_of(node("SequenceConstruct", "x", "y"), ROW, {})
    model.graph.output.append(helper.make_tensor_sequence_value_info("y", TensorProto.FLOAT, [1, 4]))
    return model


def as_ir_3(model: onnx.ModelProto) -> None:
    model.ir_version = 3
    model.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [4, 4]))


def same_names(model: onnx.ModelProto) -> None:
    for item in model.graph.node:
        item.name = "n"


VALID: dict[str, Callable[[], onnx.ModelProto]] = {
    "plain": small,
    "IR 3, weights among the inputs": lambda: edited(as_ir_3),
    "without names": lambda: edited(lambda m: [item.ClearField("name") for item in m.graph.node]),
    "one name for all nodes": lambda: edited(same_names),
    "no name for the graph": lambda: edited(lambda m: m.graph.ClearField("name")),
    "domain spelt out": lambda: edited(lambda m: setattr(m.graph.node[0], "domain", "ai.onnx")),
    "an input that is left out": lambda: model_of(
        node("Clip", "x - top", "y"), ROW, {"y": (1, 4)}, {"top": np.float32(1)}
    ),
    "a branch that reads the graph around it": lambda: with_branches(branch("x")),
    "functions": local_function,
    "a sparse weight": sparse,
    "a sequence": sequence,
    "4-bit weights": lambda: model_of(
        node("DequantizeLinear", "q s", "y"),
        {},
        {"y": (3,)},
        {"s": np.float32(1), "q": helper.make_tensor("q", TensorProto.INT4, [3], [1, 2, 3])},
        opset=21,
        ir_version=10,
    ),
    "a weight without elements": lambda: edited(
        lambda m: m.graph.initializer.append(numpy_helper.from_array(np.zeros((0, 4), np.float32), "none"))
    ),
}


@pytest.mark.parametrize("kind", VALID)
def test_a_valid_file_is_read_as_it_is(save: Save, kind: str) -> None:
    model = VALID[kind]()
    assert read_model(save(model)) == model


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"hello world\n", "not an ONNX file"),
        (b'{"graph": 1}', "not an ONNX file"),
        (b"\0" * 64, "not an ONNX file"),
        (bytes(range(256)) * 4, "not an ONNX file"),
        (b"PK\x03\x04 and so on", "zip archive"),
        (b"\x80\x02}q\x00.", "pickle"),
        (b"\x89HDF\r\n\x1a\n", "HDF5"),
        (b"\x1f\x8b\x08\x00", "gzip"),
        (b"ftrt\x00\x00", "TensorRT engine"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"\x18\x00\x00\x00ORTM", "onnxruntime's own format"),
        (b"\x1c\x00\x00\x00TFL3", "TensorFlow Lite"),
        (b"\x08\x07", "has not a graph, nor an opset"),
    ],
)
def test_what_is_no_onnx_file_is_refused_and_named(save: Save, content: bytes, words: str) -> None:
    message = refusal(save(content))
    assert words in message
    assert "model.onnx" in message


def test_a_file_that_was_cut_short_is_refused_wherever_the_cut_is(save: Save) -> None:
    whole = small().SerializeToString()
    for length in range(len(whole)):
        assert refusal(save(whole[:length]))


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    assert "does not exist" in refusal(tmp_path / "no.onnx")
    assert "does not exist" in refusal(Path(__file__) / "below")
    assert "is a folder" in refusal(tmp_path)


def test_what_is_no_plain_file_is_refused_without_reading_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert "not a plain file" in refusal(tmp_path / "pipe")
    assert "not a plain file" in refusal(Path(os.devnull))


def test_a_file_that_cannot_be_read_is_refused_with_the_reason(save: Save, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(_: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    file = save(small())
    monkeypatch.setattr(Path, "read_bytes", denied)
    assert "cannot be read: Permission denied" in refusal(file)


@pytest.mark.parametrize("name", ["a\0b", "x" * 5000])
def test_a_path_that_can_be_none_is_refused(tmp_path: Path, name: str) -> None:
    assert "cannot be read" in refusal(tmp_path / name)


def test_a_file_over_2_gb_is_refused_before_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "read_bytes", lambda _: pytest.fail("it was read"))
    file = tmp_path / "large.onnx"
    with file.open("wb") as stream:
        stream.truncate(1 << 31)  # sparse: no block is written
    message = refusal(file)
    assert "2.1 GB" in message
    assert "save_as_external_data" in message


CYCLE = [node("Relu", "c", "a"), node("Sigmoid", "a", "b"), node("Add", "b x", "c"), node("Neg", "c", "y")]
LONG_CYCLE = [node("Relu", f"t{(i - 1) % 40}", f"t{i}", f"n{i}") for i in range(40)]


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (model_of([], ROW, {"x": (1, 4)}), ["no nodes"]),
        (edited(lambda m: m.graph.ClearField("output")), ["no outputs"]),
        (edited(lambda m: m.ClearField("opset_import")), ["an opset"]),
        (edited(lambda m: m.ClearField("ir_version")), ["an IR version"]),
        (model_of(CYCLE, ROW, {"y": (1, 4)}), ["cyclic", "Relu", "Sigmoid", "Add"]),
        (model_of(LONG_CYCLE, ROW, {"t0": (1, 4)}), ["cyclic", "through 34 more"]),
        (model_of(node("Relu", "y", "y"), ROW, {"y": (1, 4)}), ["cyclic: Relu -> Relu"]),
        (
            model_of([node("Neg", "a", "y"), *CYCLE[:3]], ROW, {"y": (1, 4)}),  # the cycle lies above the node
            ["cyclic", "Sigmoid"],
        ),
        (
            model_of([node("Neg", "a", "y"), node("Relu", "x", "a")], ROW, {"y": (1, 4)}),
            ["'Neg' reads 'a' before node 'Relu' makes it", "topological order"],
        ),
        (edited(lambda m: m.graph.node[1].input.append("gone")), ["'Add' reads 'gone'", "nothing before it makes"]),
        (edited(lambda m: m.graph.initializer.pop()), ["'Add' reads 'b'", "nothing before it makes"]),
        (edited(lambda m: m.graph.node.pop()), ["nothing makes the output 'y'"]),
        (
            model_of([node("Relu", "x", "y"), node("Neg", "x", "y")], ROW, {"y": (1, 4)}),
            ["'Neg' makes 'y', which node 'Relu' makes already"],
        ),
        (model_of(node("Relu", "x", "x"), ROW, {"x": (1, 4)}), ["'Relu' makes 'x'", "an input or weight"]),
        (with_branches(branch("elsewhere")), ["'Relu' reads 'elsewhere'"]),
        (
            model_of(node("Foo", "x", "y", domain="my.ops"), ROW, {"y": (1, 4)}, domains={"my.ops": 1}),
            ["node 'Foo' is 'Foo' of domain 'my.ops'", "trt.plugins"],
        ),
        (
            model_of(node("Gelu", "x", "y", domain="com.microsoft"), ROW, {"y": (1, 4)}),
            ["domain 'com.microsoft'", "imports no opset"],
        ),
        (edited(lambda m: setattr(m.opset_import[0], "domain", "ai.onnx.ml")), ["domain ''", "imports no opset"]),
    ],
)
def test_a_graph_that_is_none_is_refused_by_name(save: Save, model: onnx.ModelProto, words: list[str]) -> None:
    message = refusal(save(model))
    assert all(word in message for word in words), message


@pytest.mark.parametrize(
    ("domain", "version"), [("com.microsoft", 1), ("ai.onnx.ml", 3), ("trt.plugins", 1), ("com.microsoft.nchwc", 1)]
)
def test_a_domain_that_an_engine_knows_is_read(save: Save, domain: str, version: int) -> None:
    model = model_of(node("Some", "x", "y", domain=domain), ROW, {"y": (1, 4)}, domains={domain: version})
    assert read_model(save(model)) == model


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: setattr(t, "raw_data", t.raw_data[:-1]), ["takes 64 bytes and has 63"]),
        (lambda t: setattr(t, "raw_data", t.raw_data * 2), ["takes 64 bytes and has 128"]),
        (lambda t: t.ClearField("raw_data"), ["takes 16 values and has 0"]),
        (lambda t: t.dims.__setitem__(0, 3), ["of shape 3x4 takes 48 bytes and has 64"]),
        (lambda t: t.dims.__setitem__(0, -1), ["impossible shape, -1x4"]),
        (lambda t: t.dims.__setitem__(0, 1 << 61), ["impossible shape"]),
        (lambda t: t.dims.__setitem__(0, 1 << 40), ["takes 17,592,186,044,416 bytes"]),
        (lambda t: setattr(t, "data_type", 99), ["type 99"]),
        (lambda t: setattr(t, "data_type", 0), ["type 0"]),
        (lambda t: setattr(t, "data_type", TensorProto.DOUBLE), ["takes 128 bytes and has 64"]),
        (lambda t: t.segment.__setattr__("begin", 0), ["segments"]),
    ],
)
def test_a_weight_whose_data_is_not_what_its_shape_says_is_refused_by_name(
    save: Save, change: Callable[[onnx.TensorProto], object], words: list[str]
) -> None:
    message = refusal(save(edited(lambda m: change(m.graph.initializer[0]))))
    assert "tensor 'w'" in message
    assert all(word in message for word in words), message


def test_the_constants_of_nodes_branches_and_functions_are_looked_at_too(save: Save) -> None:
    short = helper.make_tensor("k", TensorProto.FLOAT, [1], [1.0])
    short.dims[0] = 5
    constant = node("Constant", "", "k", value=short)
    then = branch("k")
    then.node.insert(0, constant)
    function = local_function()
    function.functions[0].node.insert(0, constant)
    for model in (edited(lambda m: m.graph.node.append(constant)), with_branches(then), function):
        assert "tensor 'k' of shape 5 takes 5 values and has 1" in refusal(save(model))


def external(**entries: str) -> onnx.ModelProto:
    """The small model with its 64 bytes of `w` in another file."""

    def move(model: onnx.ModelProto) -> None:
        tensor = model.graph.initializer[0]
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in entries.items():
            tensor.external_data.add(key=key, value=value)

    return edited(move)


@pytest.mark.parametrize(
    "entries",
    [
        {"location": "w.bin"},
        {"location": "./w.bin"},
        {"location": "folder/../w.bin"},
        {"location": "folder/v.bin"},
        {"location": "inner"},
        {"location": "w.bin", "offset": "36", "length": "64", "checksum": "what"},
    ],
)
def test_weights_in_a_file_of_the_models_folder_are_accepted_and_not_read(
    save: Save, tmp_path: Path, entries: dict[str, str]
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "w.bin").write_bytes(b"\0" * 100)
    (tmp_path / "folder" / "v.bin").write_bytes(b"\0" * 64)
    (tmp_path / "inner").symlink_to("folder/v.bin")
    if "offset" not in entries:
        (tmp_path / "w.bin").write_bytes(b"\0" * 64)
    model = external(**entries)
    assert read_model(save(model)) == model


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({"location": "gone.bin"}, ["'gone.bin'", "not in"]),
        ({"location": ""}, ["does not say in which"]),
        ({}, ["does not say in which"]),
        ({"location": "/etc/passwd"}, ["'/etc/passwd'", "outside the model's folder"]),
        ({"location": "../beside.bin"}, ["'../beside.bin'", "outside the model's folder"]),
        ({"location": "../../../../../../../../etc/passwd"}, ["outside the model's folder"]),
        ({"location": "link"}, ["'link'", "outside the model's folder"]),
        ({"location": "linked/secret.bin"}, ["outside the model's folder"]),
        ({"location": "."}, ["not a plain file"]),
        ({"location": "pipe"}, ["not a plain file"]),
        ({"location": "a\0b"}, ["cannot be read"]),
        ({"location": "x" * 5000}, ["cannot be read"]),
        ({"location": "w.bin", "offset": "40"}, ["from byte 40 to 104", "ends at 100"]),
        ({"location": "w.bin", "length": "32"}, ["takes 64 bytes and has 32"]),
        ({"location": "w.bin", "offset": "-1"}, ["'-1'", "no whole numbers"]),
        ({"location": "w.bin", "offset": "1e3"}, ["'1e3'", "no whole numbers"]),
        ({"location": "w.bin", "length": "9" * 400}, ["no whole numbers"]),
        ({"location": "w.bin", "offset": "²"}, ["no whole numbers"]),
    ],
)
def test_weights_that_are_missing_or_lie_elsewhere_are_refused(
    tmp_path: Path, entries: dict[str, str], words: list[str]
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (tmp_path / "secret.bin").write_bytes(b"\0" * 64)
    (tmp_path / "beside.bin").write_bytes(b"\0" * 64)
    (folder / "link").symlink_to(tmp_path / "secret.bin")
    (folder / "linked").symlink_to(tmp_path)
    (folder / "w.bin").write_bytes(b"\0" * 100)
    os.mkfifo(folder / "pipe")
    (folder / "model.onnx").write_bytes(external(**entries).SerializeToString())
    message = refusal(folder / "model.onnx")
    assert "tensor 'w'" in message
    assert all(word in message for word in words), message
    assert len(message) < 600


def test_a_model_in_a_folder_that_is_a_link_finds_its_weights(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "real" / "w.bin").write_bytes(b"\0" * 64)
    (tmp_path / "real" / "model.onnx").write_bytes(external(location="w.bin").SerializeToString())
    assert read_model(tmp_path / "link" / "model.onnx").graph.node


def test_names_that_are_no_text_are_refused(save: Save) -> None:
    content = edited(lambda m: setattr(m.graph.node[0], "name", "wxyz")).SerializeToString()
    assert "not text" in refusal(save(content.replace(b"wxyz", b"\xff\xfe\xfd\xfc")))


def field(number: int, content: bytes) -> bytes:
    """A message inside another, as protobuf writes it."""
    length, digits = len(content), []
    while length > 127:
        digits.append(length & 127 | 128)
        length >>= 7
    return bytes([number << 3 | 2, *digits, length]) + content


def test_deep_nesting_is_refused_and_does_not_exhaust_the_stack(save: Save) -> None:
    graph = b""
    for _ in range(5000):
        graph = field(1, field(5, field(6, graph)))  # graph.node.attribute.g
    assert "not an ONNX file" in refusal(save(b"\x08\x07" + field(7, graph) + field(8, b"\x10\x0d")))


MUTABLE = small().SerializeToString()


@given(
    edits=st.lists(st.tuples(st.integers(0, len(MUTABLE) - 1), st.integers(0, 255)), max_size=8),
    cut=st.integers(0, len(MUTABLE)),
    tail=st.binary(max_size=8),
)
def test_a_mutated_file_is_read_or_refused_and_nothing_else(
    tmp_path_factory: pytest.TempPathFactory, edits: list[tuple[int, int]], cut: int, tail: bytes
) -> None:
    from deploy_attn.engines.target import load_target
    from deploy_attn.export.linting.lint import findings_of

    content = bytearray(MUTABLE)
    for place, value in edits:
        content[place] = value
    file = tmp_path_factory.getbasetemp() / "mutated.onnx"
    file.write_bytes(bytes(content[: cut if cut % 3 == 0 else None]) + tail)
    try:
        model = read_model(file)
    except BadRequest as error:
        assert len(str(error)) < 2000
    else:
        findings_of(model, load_target("jetson-nano"))
