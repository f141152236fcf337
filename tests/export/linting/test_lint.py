"""Lint as a whole: files, artifacts and their plans, models of every kind, the report."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import deploy_attn.export.linting.lint as module
from deploy_attn.engines.target import load_target
from deploy_attn.export.linting.graph import LintGraph, attribute, given, label
from deploy_attn.export.linting.lint import LintReport, findings_of, lint
from deploy_attn.export.linting.model_file import read_model
from deploy_attn.exporting import export_artifact
from deploy_attn.jetson.errors import BadRequest, DamagedArtifact
from deploy_attn.request import ExportRequest
from tests.export.linting.conftest import Save
from tests.export.linting.graphs import findings, found, model_of, node, one

SHAPE = (1, 8, 8, 8)
AXES = "reduce-axes-input"


def misread() -> onnx.ModelProto:
    return one("ReduceMean", SHAPE, {"axes": [2, 3]}, opset=18, ir_version=8)


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`se` for the Nano: `half` with an FP16 graph and its plan, `full` without."""
    folder = tmp_path_factory.mktemp("artifacts")
    for name, fp16 in (("half", True), ("full", False)):
        request = ExportRequest(name="se", shape=(1, 32, 8, 7), fp16=fp16, target="jetson-nano", output=folder / name)
        report = export_artifact(request)
        assert report.passed
        assert report.lint.findings == ()
        assert report.as_dict()["lint"] == report.lint.as_dict()
        assert report.lint.model == str(folder / name)
    return folder


def rules(report: LintReport) -> list[tuple[str, str]]:
    return [(finding.graph, finding.rule) for finding in report.findings]


def test_a_file_is_reported_with_what_was_found_errors_first(save: Save) -> None:
    file = save(misread())
    report = lint(file, "jetson-nano")
    assert (report.model, report.target) == (str(file), "jetson-nano")
    assert (report.opset, report.ir_version, report.nodes) == (18, 8, 1)
    assert report.memory is not None
    assert not report.passed
    assert rules(report)[0] == ("model.onnx", AXES)
    assert [finding.is_error for finding in report.findings] == sorted(
        (finding.is_error for finding in report.findings), reverse=True
    )


def test_warnings_alone_do_not_fail(save: Save) -> None:
    report = lint(save(one("Relu", SHAPE, ir_version=9)), "jetson-nano")
    assert rules(report) == [("model.onnx", "ir-above")]
    assert report.passed


def test_the_report_is_a_document(save: Save) -> None:
    document = lint(save(misread()), "jetson-nano").as_dict()
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    assert set(document["findings"][0]) == {"rule", "node", "op_type", "effect", "why", "remedy", "graph"}
    assert document["graphs"][0]["file"] == "model.onnx"
    assert document["graphs"][0]["memory"]["weights_bytes"] == 16


def test_a_file_without_a_plan_has_every_hazard_and_an_artifacts_graph_none(artifacts: Path, tmp_path: Path) -> None:
    alone = tmp_path / "model.onnx"
    shutil.copy(artifacts / "half" / "model.onnx", alone)
    assert {finding.effect for finding in lint(alone, "jetson-nano").findings} == {"risky"}
    assert all(finding.rule.startswith("half-") for finding in lint(alone, "jetson-nano").findings)


@pytest.mark.parametrize("path", ["half", "full", "half/model.onnx", "half/model.fp16.onnx", "full/model.onnx"])
def test_what_the_export_wrote_has_no_finding_however_it_is_named(artifacts: Path, path: str) -> None:
    report = lint(artifacts / path, "jetson-nano")
    assert report.findings == ()
    assert [graph.file for graph in report.graphs] == (
        ["model.onnx", "model.fp16.onnx"] if path == "half" else [Path(path).name if "/" in path else "model.onnx"]
    )


def test_of_a_planned_graph_only_what_runs_in_fp16_is_a_hazard(artifacts: Path) -> None:
    model = onnx.load(artifacts / "half" / "model.onnx")
    pooled = next(item.name for item in model.graph.node if item.op_type in ("ReduceMean", "GlobalAveragePool"))
    others = frozenset(item.name for item in model.graph.node) - {pooled}
    assert found(model, "jetson-nano", frozenset()) == found(model, "jetson-nano", others) == []
    assert [item.node for item in findings(model, "jetson-nano", frozenset({pooled}))] == [pooled]
    assert pooled in {item.node for item in findings(model, "jetson-nano")}


@pytest.mark.parametrize("damage", ["graph", "plan", "manifest", "no manifest", "another file", "no JSON"])
def test_a_graph_that_no_manifest_vouches_for_is_a_plain_file(artifacts: Path, tmp_path: Path, damage: str) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(artifacts / "half", folder)
    file, manifest = folder / "model.onnx", folder / "manifest.json"
    if damage == "graph":
        model = onnx.load(file)
        model.doc_string = "changed"
        onnx.save(model, file)
    elif damage == "plan":
        (folder / "precision_plan.json").write_text("{}", encoding="utf-8")
    elif damage == "manifest":
        manifest.write_text(manifest.read_text(encoding="utf-8").replace('"se"', '"es"'), encoding="utf-8")
    elif damage == "no manifest":
        manifest.unlink()
    elif damage == "another file":
        file = file.rename(folder / "other.onnx")
    else:
        manifest.write_text("[1", encoding="utf-8")
    assert [item.effect for item in lint(file, "jetson-nano").findings] == ["risky"]


@pytest.mark.parametrize("manifest", ["{}", "[]", '{"files": 3}', '{"files": {"model.onnx": null}}'])
def test_a_strangers_manifest_beside_a_file_is_no_reason_to_fail(save: Save, tmp_path: Path, manifest: str) -> None:
    (tmp_path / "manifest.json").write_text(manifest, encoding="utf-8")
    assert AXES in [rule for _, rule in rules(lint(save(misread()), "jetson-nano"))]


def test_a_damaged_artifact_is_refused_and_an_empty_folder_too(artifacts: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(artifacts / "half", folder)
    (folder / "model.onnx").write_bytes(misread().SerializeToString())
    with pytest.raises(DamagedArtifact, match=r"model\.onnx"):
        lint(folder, "jetson-nano")
    with pytest.raises(BadRequest, match="not an artifact"):
        lint(tmp_path, "jetson-nano")


def test_an_unknown_target_is_refused_before_the_file_is_read(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="Unknown target 'nano'"):
        lint(tmp_path / "gone.onnx", "nano")


def test_a_profile_of_the_users_own_is_a_target(save: Save, tmp_path: Path) -> None:
    (tmp_path / "board.toml").write_text(
        'title = "A board"\nfamily = "cpu"\nengine = "onnxruntime"\n[onnx]\n'
        'opset = { value = 12, mark = "recalled" }\nir_version = { value = 7, mark = "recalled" }\n',
        encoding="utf-8",
    )
    report = lint(save(one("Relu", SHAPE)), str(tmp_path / "board.toml"))
    assert report.target == "board"
    assert rules(report) == [("model.onnx", "opset-above")]


def in_branch(then: list[onnx.NodeProto], constants: dict[str, np.ndarray[Any, Any]]) -> onnx.ModelProto:
    def body(name: str, nodes: list[onnx.NodeProto]) -> onnx.GraphProto:
        made = helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, None)
        weights = [numpy_helper.from_array(value, key) for key, value in constants.items()]
        return helper.make_graph(nodes, name, [], [made], weights)

    choice = node("If", "c", "y", then_branch=body("then", then), else_branch=body("else", [node("Relu", "x", "z")]))
    return model_of(
        choice, {"x": SHAPE, "c": (TensorProto.BOOL, ())}, {"y": (TensorProto.FLOAT, None)}, opset=18, ir_version=8
    )


def test_branches_are_looked_into_with_their_types_and_constants() -> None:
    then = [node("Relu", "x", "r"), node("ReduceMean", "r axes", "m", "inner")]
    model = in_branch(then, {"axes": np.array([2, 3], np.int64)})
    graph = LintGraph(model)
    assert [item.name for item in graph.nodes] == ["If", "Relu", "Relu", "inner"]
    assert graph.view.shape("r") == [1, 8, 8, 8]
    assert graph.view.elem_type("m") == TensorProto.FLOAT
    assert graph.view.value("axes") is None  # both branches have one of that name
    assert [item.node for item in findings_of(model, load_target("jetson-nano")) if item.rule == AXES] == ["inner"]


def test_the_constants_of_one_branch_are_known() -> None:
    model = in_branch([node("Constant", "", "k", value_ints=[2, 3]), node("ReduceMean", "x k", "m")], {})
    value = LintGraph(model).view.value("k")
    assert value is not None
    assert value.tolist() == [2, 3]


def test_a_models_own_functions_are_inlined() -> None:
    model = model_of(
        [node("Pool", "x", "a", "call", domain="own"), node("Relu", "a", "y")],
        {"x": SHAPE},
        {"y": (TensorProto.FLOAT, None)},
        None,
        18,
        8,
        domains={"own": 1},
    )
    body = [
        helper.make_node("Constant", [], ["axes"], value_ints=[2, 3]),
        helper.make_node("ReduceMean", ["x", "axes"], ["y"]),
    ]
    model.functions.append(helper.make_function("own", "Pool", ["x"], ["y"], body, [helper.make_opsetid("", 18)]))
    graph = LintGraph(model)
    assert [item.op_type for item in graph.nodes] == ["Constant", "ReduceMean", "Relu"]
    assert [item.name for item in graph.calls] == ["call"]
    assert graph.view.shape("a") == [1, 8, 1, 1]
    assert AXES in found(model)


def test_large_constants_are_left_out_of_shape_inference_and_known_by_shape() -> None:
    weight = np.ones((8, 8, 9, 9), np.float32)
    model = model_of(
        [
            node("Constant", "", "w", value=numpy_helper.from_array(weight)),
            node("Conv", "x w", "a"),
            node("Conv", "a v", "y"),
        ],
        {"x": (1, 8, 32, 32)},
        {"y": (TensorProto.FLOAT, None)},
        {"v": weight},
    )
    graph = LintGraph(model)
    assert graph.view.shape("a") == [1, 8, 24, 24]
    assert graph.view.shape("y") == [1, 8, 16, 16]
    assert graph.view.shape("w") == [8, 8, 9, 9]


def test_weights_in_another_file_have_a_shape_and_no_value(save: Save, tmp_path: Path) -> None:
    model = one("Add", (1, 4), {"b": [1.0, 2.0, 3.0, 4.0]})
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="b.bin")
    (tmp_path / "b.bin").write_bytes(b"\0" * 16)
    assert lint(save(model), "jetson-nano").findings == ()
    graph = LintGraph(model)
    assert graph.view.value("b") is None
    assert graph.view.shape("b") == [4]


def test_what_shape_inference_refuses_is_looked_at_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = misread()
    wrong.graph.node[0].attribute.append(helper.make_attribute("keepdims", "yes"))
    assert AXES in found(wrong)

    def refuse(_: onnx.ModelProto) -> onnx.ModelProto:
        raise onnx.shape_inference.InferenceError("no")

    monkeypatch.setattr(onnx.shape_inference, "infer_shapes", refuse)
    assert AXES in found(misread())


@pytest.mark.parametrize("opset", range(7, 29))
def test_every_opset_is_looked_at(opset: int) -> None:
    model = one("Relu", SHAPE, opset=opset, ir_version=4)
    assert set(found(model)) <= {"opset-above"}


@pytest.mark.parametrize("target", ["jetson-nano", "onnxruntime-cpu"])
def test_every_operator_of_onnx_without_an_attribute_is_looked_at(target: str) -> None:
    """Hostile to rules: no operator has the inputs, attributes or types that it asks for."""
    operators = sorted({schema.name for schema in onnx.defs.get_all_schemas() if schema.domain == ""})
    for opset in (7, 13, 18, 24):
        for names in ("", "x", "x -", "x x x x x x"):
            for outputs in ("y", "y z"):
                nodes = [
                    node(operator, names, outputs.replace("y", f"y{i}").replace("z", f"z{i}"), f"n{i}")
                    for i, operator in enumerate(operators)
                ]
                assert findings(model_of(nodes, {"x": (TensorProto.FLOAT, None)}, {"y0": SHAPE}, None, opset), target)


def test_unknown_ranks_and_odd_values_raise_nothing() -> None:
    for shape in (None, (), ("n", None, -1), (0, 3), (1 << 40, 1 << 40, 1 << 40)):
        for operator in (
            "ReduceSum",
            "Reshape",
            "Resize",
            "TopK",
            "Einsum",
            "Conv",
            "MaxPool",
            "Pad",
            "Clip",
            "Softmax",
        ):
            for value in ([], [0], np.array(-1), np.zeros((2, 2, 2))):
                model = one(operator, (1,), {"k": value})
                model.graph.input[0].CopyFrom(helper.make_tensor_value_info("x", TensorProto.FLOAT, shape))
                findings(model)


def test_sequences_and_optional_types_are_looked_at() -> None:
    model = model_of(
        [node("SequenceConstruct", "x x", "s"), node("ConcatFromSequence", "s", "y", axis=0)],
        {"x": SHAPE},
        {"y": (TensorProto.FLOAT, None)},
    )
    model.graph.input.append(helper.make_tensor_sequence_value_info("t", TensorProto.FLOAT, None))
    optional = helper.make_optional_type_proto(helper.make_tensor_type_proto(TensorProto.FLOAT, [1]))
    model.graph.input.append(helper.make_value_info("o", optional))
    assert found(model).count("unsupported-operator") == 2


def test_a_node_is_called_by_its_name_else_by_what_it_makes() -> None:
    assert label(node("Relu", "x", "y", "gate")) == "gate"
    assert label(helper.make_node("Dropout", ["x"], ["", "mask"])) == "mask"
    assert label(helper.make_node("Relu", ["x"], [])) == "Relu"


def test_attributes_and_inputs_are_given_or_not() -> None:
    clip = node("Clip", "x - top", "y", mode="m", axes=[1, 2])
    assert (attribute(clip, "mode"), attribute(clip, "axes"), attribute(clip, "no", 4)) == (b"m", [1, 2], 4)
    assert (given(clip, 0), given(clip, 1), given(clip, 2), given(clip, 3)) == ("x", None, "top", None)


def test_nodes_are_found_by_operator_in_graph_order_and_of_onnxs_domain_only() -> None:
    model = model_of(
        [
            node("Relu", "x", "a", "1"),
            node("Neg", "a", "b", "2"),
            node("Relu", "b", "c", "3", domain="ai.onnx"),
            node("Relu", "c", "y", "4", domain="trt.plugins"),
        ],
        {"x": SHAPE},
        {"y": SHAPE},
        domains={"trt.plugins": 1},
    )
    graph = LintGraph(model)
    assert [item.name for item in graph.named("Neg", "Relu", "Neg")] == ["1", "2", "3"]
    assert [item.name for item in graph.foreign] == ["4"]
    assert graph.operators == ("Relu", "Neg")


def test_the_export_reports_a_node_that_its_target_misreads(
    artifacts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No exporter writes such a graph for the Nano; a target that is misjudged would get one."""
    real = read_model
    monkeypatch.setattr(module, "read_model", lambda path: misread() if path.name == "model.onnx" else real(path))
    request = ExportRequest(name="se", shape=(1, 32, 8, 7), target="jetson-nano", output=tmp_path / "se")
    report = export_artifact(request)
    assert report.verdict.passed
    assert not report.passed
    assert report.as_dict()["passed"] is False
    assert AXES in [finding["rule"] for finding in report.as_dict()["lint"]["findings"]]
    assert (tmp_path / "se" / "manifest.json").is_file()


def test_a_function_of_another_opset_is_looked_into() -> None:
    body = [helper.make_node("Relu", ["a"], ["b"])]
    function = helper.make_function("own", "Block", ["a"], ["b"], body, [helper.make_opsetid("", 17)])
    call = node("Block", "x", "y", "call", domain="own")
    model = model_of(call, {"x": (2, 5)}, {"y": (2, 5)}, opset=18, ir_version=8, domains={"own": 1})
    model.functions.append(function)
    assert "foreign-operator" not in found(model, "jetson-orin-nano")
