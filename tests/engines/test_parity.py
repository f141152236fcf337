"""A verdict tells the truth about an artifact: it passes what is right and fails, with numbers, what is not."""

from __future__ import annotations

import errno
import io
import json
import math
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from deploy_attn import ExportRequest, export_artifact
from deploy_attn.engines import onnxruntime as onnxruntime_engine
from deploy_attn.engines import parity
from deploy_attn.engines.base import Engine, Feeds, Graph, InputSpec, Outputs, Run
from deploy_attn.engines.onnxruntime import OnnxRuntimeRunner
from deploy_attn.engines.parity import verify
from deploy_attn.engines.tolerance import TOLERANCES, fp32_tolerance
from deploy_attn.engines.verdict import Check, Verdict
from deploy_attn.export.artifact import write_artifact
from deploy_attn.jetson.artifact import file_sha256, manifest_sha256
from deploy_attn.jetson.errors import BadRequest, DamagedArtifact, DeployAttnError

Array = np.ndarray[Any, Any]

VERDICT = "verdict-onnxruntime.json"
FP32_GRAPH, FP16_GRAPH = "model.onnx", "model.fp16.onnx"
FLOAT = TensorProto.FLOAT


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    request = ExportRequest(
        "se",
        shape=(1, 16, 7, 9),
        fp16=True,
        options={"reduction": 4},
        output=tmp_path_factory.mktemp("exported") / "se",
    )
    return export_artifact(request).folder


@pytest.fixture
def folder(exported: Path, tmp_path: Path) -> Path:
    """A copy of the exported artifact without its verdict."""
    copy = shutil.copytree(exported, tmp_path / "se")
    (copy / VERDICT).unlink()
    return copy


def seal(folder: Path, change: Callable[[dict[str, Any]], object] = lambda manifest: None) -> None:
    """Makes the manifest vouch for the files as they are now, after a change to it."""
    file = folder / "manifest.json"
    manifest = json.loads(file.read_text(encoding="utf-8"))
    manifest["files"] = {name: file_sha256(str(folder / name)) for name in manifest["files"]}
    change(manifest)
    manifest["manifest_sha256"] = manifest_sha256(manifest)
    file.write_text(json.dumps(manifest), encoding="utf-8")


def change_graph(folder: Path, name: str, change: Callable[[ModelProto], object]) -> None:
    model = onnx.load(folder / name)
    change(model)
    (folder / name).write_bytes(model.SerializeToString())
    seal(folder)


def scale_weight(model: ModelProto, factor: float) -> None:
    weight = next(tensor for tensor in model.graph.initializer if tensor.name.startswith("expand.weight"))
    values = numpy_helper.to_array(weight)
    weight.CopyFrom(numpy_helper.from_array((values * factor).astype(values.dtype), weight.name))


def written(folder: Path) -> dict[str, Any]:
    """The verdict in the folder, read as strict JSON."""

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is not JSON")

    found: dict[str, Any] = json.loads((folder / VERDICT).read_text(encoding="utf-8"), parse_constant=refuse)
    return found


def failed(verdict: Verdict) -> list[Check]:
    return [check for check in verdict.checks if not check.passed]


def test_an_artifact_as_exported_passes_and_its_verdict_is_written(folder: Path) -> None:
    verdict = verify(folder)
    assert verdict.passed
    assert written(folder) == verdict.as_dict()
    assert verdict.as_dict()["passed"] is True


def test_the_export_itself_left_the_same_verdict(exported: Path, folder: Path) -> None:
    assert written(exported) == verify(str(folder)).as_dict()


def test_every_graph_runs_every_case_and_fp16_in_both_brackets(folder: Path) -> None:
    ways = (("exact", FP32_GRAPH), ("optimistic", FP16_GRAPH), ("pessimistic", FP16_GRAPH))
    found = [(check.bracket, check.graph, check.case, check.output) for check in verify(folder).checks]
    assert found == [(*way, case, "output") for way in ways for case in ("normal", "far_mean", "large")]


def test_each_way_of_running_is_judged_by_its_own_tolerance(folder: Path) -> None:
    found = {check.bracket: check.tolerance for check in verify(folder).checks}
    assert found == {
        "exact": TOLERANCES["fp32"],
        "optimistic": TOLERANCES["fp16"],
        "pessimistic": TOLERANCES["fp16-rounded"],
    }


def test_the_conditions_say_engine_version_and_machine(folder: Path) -> None:
    assert {"engine", "version", "provider", "python", "machine", "system", "cpus"} <= set(verify(folder).conditions)


def test_the_tolerances_are_those_that_the_artifact_was_exported_with(folder: Path) -> None:
    seal(folder, lambda manifest: manifest["tolerances"]["fp16"].update(rms_relative=0.0))
    assert [check.bracket for check in failed(verify(folder))] == ["optimistic"] * 3


def test_a_module_that_is_rough_on_a_case_loosens_that_case_in_fp32_and_no_other(folder: Path) -> None:
    seal(
        folder,
        lambda manifest: manifest.update(
            fp32_errors={"far_mean": {"output": {"rms_relative": 1e-4, "worst_relative": 1e-3}}}
        ),
    )
    found = {(check.bracket, check.case): check.tolerance for check in verify(folder).checks}
    assert found.pop(("exact", "far_mean")) == fp32_tolerance(TOLERANCES["fp32"], 1e-4, 1e-3)
    assert found[("exact", "normal")] == TOLERANCES["fp32"]
    assert found[("pessimistic", "far_mean")] == TOLERANCES["fp16-rounded"]


def test_verifying_again_replaces_the_verdict(folder: Path) -> None:
    (folder / VERDICT).write_text("of another day, " * 10_000, encoding="utf-8")
    assert verify(folder).as_dict() == written(folder)


@pytest.mark.parametrize("name", [FP32_GRAPH, FP16_GRAPH])
def test_a_doubled_weight_fails_with_its_numbers_even_where_every_hash_agrees(folder: Path, name: str) -> None:
    change_graph(folder, name, lambda model: scale_weight(model, 2.0))
    verdict = verify(folder)
    assert not verdict.passed
    found = failed(verdict)
    assert {check.graph for check in found} == {name}
    assert {check.bracket for check in found} == ({"exact"} if name == FP32_GRAPH else {"optimistic", "pessimistic"})
    for check in found:
        assert check.error is None
        assert check.comparison is not None
        assert check.comparison.rms_relative > check.tolerance.rms_relative
        assert check.comparison.max_abs > 0
        assert len(check.comparison.worst_index) == 4
    listed = [check for check in written(folder)["checks"] if not check["passed"]]
    assert [check["measured"]["rms_relative"] for check in listed] == [
        check.comparison.rms_relative for check in found if check.comparison is not None
    ]
    assert written(folder)["passed"] is False


def test_nan_fails_and_the_verdict_is_still_strict_json(folder: Path) -> None:
    change_graph(folder, FP32_GRAPH, lambda model: scale_weight(model, math.nan))
    found = failed(verify(folder))
    assert [check.comparison.non_finite for check in found if check.comparison is not None] == [16 * 7 * 9] * 3
    measured = next(check["measured"] for check in written(folder)["checks"] if not check["passed"])
    assert (measured["rms_relative"], measured["worst_actual"]) == (None, None)


def unknown_operator(model: ModelProto) -> None:
    model.graph.node[0].op_type = "NoSuchOperator"


def undefined_input(model: ModelProto) -> None:
    model.graph.node[-1].input[0] = "nowhere"


def other_input_name(model: ModelProto) -> None:
    model.graph.input[0].name = "image"
    for node in model.graph.node:
        node.input[:] = ["image" if name == "input" else name for name in node.input]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (unknown_operator, "NoSuchOperator"),
        (undefined_input, "nowhere"),
        (other_input_name, r"takes inputs \['image'\]"),
        (lambda model: model.ClearField("graph"), "graph"),
    ],
    ids=["unknown operator", "undefined input", "other input name", "no graph"],
)
@pytest.mark.parametrize("name", [FP32_GRAPH, FP16_GRAPH])
def test_a_graph_that_the_engine_refuses_is_a_failed_check_that_says_why(
    folder: Path, name: str, change: Callable[[ModelProto], object], reason: str
) -> None:
    change_graph(folder, name, change)
    verdict = verify(folder)
    refused = failed(verdict)
    assert {check.graph for check in refused} == {name}
    assert len(verdict.checks) > len(refused)
    for check in refused:
        assert check.comparison is None
        assert check.error is not None
        assert check.error.startswith("the engine refused the graph: ")
        assert re.search(reason, check.error)
        assert "\n" not in check.error
    assert written(folder) == verdict.as_dict()


@pytest.mark.parametrize("name", [FP32_GRAPH, FP16_GRAPH])
def test_a_file_that_is_no_graph_is_a_failed_check(folder: Path, name: str) -> None:
    (folder / name).write_bytes(b"garbage \xff\xff")
    seal(folder)
    refused = failed(verify(folder))
    assert {check.graph for check in refused} == {name}
    assert all(check.error for check in refused)


def write_reference(file: Path | io.BytesIO, arrays: dict[str, Array]) -> None:
    save: Callable[..., None] = np.savez
    save(file, **arrays)


def change_reference(folder: Path, change: Callable[[dict[str, Array]], object]) -> None:
    with np.load(folder / "reference.npz") as stored:
        arrays = dict(stored)
    change(arrays)
    write_reference(folder / "reference.npz", arrays)
    seal(folder)


def test_an_output_that_the_graph_lacks_is_a_failed_check(folder: Path) -> None:
    change_reference(folder, lambda arrays: arrays.update({"normal/outputs/gate": np.ones(1, dtype=np.float32)}))
    found = failed(verify(folder))
    assert {(check.case, check.output, check.error) for check in found} == {
        ("normal", "gate", "the graph has no such output")
    }


def test_an_output_of_another_shape_is_a_failed_check(folder: Path) -> None:
    key = "normal/outputs/output"
    change_reference(folder, lambda arrays: arrays.update({key: arrays[key][0]}))
    assert {check.error for check in failed(verify(folder))} == {"shape (1, 16, 7, 9) instead of (16, 7, 9)"}


def test_nothing_checked_is_nothing_passed(folder: Path) -> None:
    assert not Verdict("onnxruntime", (), {}).passed
    seal(folder, lambda manifest: manifest.update(cases=[]))
    with pytest.raises(DamagedArtifact, match="at least one"):
        verify(folder)


def test_a_damaged_artifact_is_not_verified_at_all(folder: Path) -> None:
    with (folder / FP16_GRAPH).open("ab") as stream:
        stream.write(b"\0")
    with pytest.raises(DamagedArtifact, match=r"model\.fp16\.onnx: changed"):
        verify(folder)
    assert not (folder / VERDICT).exists()


def test_an_unknown_engine_is_refused_before_the_folder_is_read(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match=r"Unknown engine 'onnx-runtime'\. Known: onnxruntime"):
        verify(tmp_path / "nowhere", "onnx-runtime")


def test_an_engine_that_is_not_installed_is_no_verdict(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(BadRequest, match="pip install"):
        verify(folder)
    assert not (folder / VERDICT).exists()


@pytest.mark.parametrize(("factor", "outcome"), [(1.0, "passed"), (2.0, "failed")])
def test_a_folder_that_cannot_be_written_still_gets_its_outcome_told(
    folder: Path, monkeypatch: pytest.MonkeyPatch, factor: float, outcome: str
) -> None:
    change_graph(folder, FP32_GRAPH, lambda model: scale_weight(model, factor))

    def refuse(*_: object, **__: object) -> int:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "write_text", refuse)
    with pytest.raises(BadRequest, match=f"The checks {outcome}, but .*{VERDICT}.*Permission denied") as raised:
        verify(folder)
    assert raised.value.exit_code == 2


def test_a_verdict_is_never_written_through_a_link_out_of_the_folder(folder: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine", encoding="utf-8")
    (folder / VERDICT).symlink_to(victim)
    try:
        verify(folder)
    except BadRequest as refusal:
        assert VERDICT in str(refusal)
    assert victim.read_text(encoding="utf-8") == "mine"


def external(name: str) -> TensorProto:
    """A tensor of two floats that lie in a file of the current folder."""
    tensor = TensorProto(name=name, data_type=FLOAT, dims=[2], data_location=TensorProto.EXTERNAL)
    for key, value in (("location", "secret.bin"), ("offset", "0"), ("length", "8")):
        tensor.external_data.add(key=key, value=value)
    return tensor


def external_in_initializer() -> tuple[list[NodeProto], list[TensorProto]]:
    return [helper.make_node("Mul", ["x", "w"], ["y"], "mul")], [external("w")]


def external_in_constant() -> tuple[list[NodeProto], list[TensorProto]]:
    constant = helper.make_node("Constant", [], ["w"], "constant", value=external("w"))
    return [constant, helper.make_node("Mul", ["x", "w"], ["y"], "mul")], []


def external_in_subgraph() -> tuple[list[NodeProto], list[TensorProto]]:
    then, otherwise = (helper.make_tensor_value_info(name, FLOAT, [2]) for name in ("then", "otherwise"))
    multiply = helper.make_graph([helper.make_node("Mul", ["x", "w"], ["then"])], "t", [], [then], [external("w")])
    copy = helper.make_graph([helper.make_node("Identity", ["x"], ["otherwise"])], "e", [], [otherwise])
    choice = helper.make_node("If", ["yes"], ["y"], "choice", then_branch=multiply, else_branch=copy)
    return [choice], [numpy_helper.from_array(np.array(True), "yes")]


def small_artifact(
    folder: Path, graph: ModelProto, precision: str, case: tuple[Array, Array], **manifest: object
) -> Path:
    """An artifact by hand: one graph from x to y, one case."""
    reference = io.BytesIO()
    write_reference(reference, {"only/inputs/x": case[0], "only/outputs/y": case[1]})
    folder.mkdir()
    described = {
        "cases": ["only"],
        "fp32_errors": {},
        "graphs": [{"file": FP32_GRAPH, "precision": precision}],
        "tolerances": {name: tolerance._asdict() for name, tolerance in TOLERANCES.items()},
        **manifest,
    }
    write_artifact(folder, {FP32_GRAPH: graph.SerializeToString(), "reference.npz": reference.getvalue()}, described)
    return folder


def small_graph(nodes: list[NodeProto], weights: list[TensorProto]) -> ModelProto:
    x, y = (helper.make_tensor_value_info(name, FLOAT, [2]) for name in "xy")
    graph = helper.make_graph(nodes, "small", [x], [y], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=7)


@pytest.mark.parametrize(
    "place", [external_in_initializer, external_in_constant, external_in_subgraph], ids=lambda make: make.__name__[9:]
)
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_graph_with_tensors_in_other_files_is_refused_wherever_they_are_named(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    precision: str,
    place: Callable[[], tuple[list[NodeProto], list[TensorProto]]],
) -> None:
    secret = np.array([41, 42], dtype=np.float32)
    (tmp_path / "secret.bin").write_bytes(secret.tobytes())
    monkeypatch.chdir(tmp_path)
    case = np.ones(2, dtype=np.float32), secret
    folder = small_artifact(tmp_path / "small", small_graph(*place()), precision, case)
    with pytest.raises(BadRequest, match=r"model\.onnx keeps tensors in other files"):
        verify(folder)


def test_a_hidden_overflow_passes_the_optimistic_bracket_and_fails_the_pessimistic_one(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Cast", ["x"], ["h"], "in", to=TensorProto.FLOAT16),
        helper.make_node("Mul", ["h", "up"], ["large"], "up"),
        helper.make_node("Mul", ["large", "down"], ["small"], "down"),
        helper.make_node("Cast", ["small"], ["y"], "out", to=FLOAT),
    ]
    weights = [numpy_helper.from_array(np.float16(value), name) for name, value in (("up", 1.5), ("down", 0.5))]
    case = np.array([60000, 1], dtype=np.float32), np.array([45000, 0.75], dtype=np.float32)
    verdict = verify(small_artifact(tmp_path / "small", small_graph(nodes, weights), "fp16", case))
    assert {check.bracket: check.passed for check in verdict.checks} == {"optimistic": True, "pessimistic": False}
    (overflow,) = failed(verdict)
    assert overflow.comparison is not None
    assert (overflow.comparison.non_finite, overflow.comparison.worst_index) == (1, (0,))


@pytest.mark.parametrize("file", ["../outside.onnx", "unlisted.onnx"])
def test_a_graph_that_no_hash_vouches_for_is_never_run(tmp_path: Path, file: str) -> None:
    graph = small_graph([helper.make_node("Identity", ["x"], ["y"], "same")], [])
    ones = np.ones(2, dtype=np.float32)
    graphs = [{"file": file, "precision": "fp32"}]
    folder = small_artifact(tmp_path / "small", graph, "fp32", (ones, ones), graphs=graphs)
    (folder / file).write_bytes(graph.SerializeToString())
    with pytest.raises(DeployAttnError, match=re.escape(file)):
        verify(folder)


def test_there_is_a_tolerance_for_every_precision_and_each_says_its_reason() -> None:
    assert set(TOLERANCES) == {"fp32", "fp16", "fp16-rounded"}
    for tolerance in TOLERANCES.values():
        assert len(tolerance.reason) > 20
        assert 0 < tolerance.rms_relative < 0.1
        assert tolerance.worst_relative == pytest.approx(50 * tolerance.rms_relative)


def test_a_looser_tolerance_belongs_to_a_rougher_arithmetic() -> None:
    bounds = [TOLERANCES[name].rms_relative for name in ("fp32", "fp16", "fp16-rounded")]
    assert bounds == sorted(set(bounds))


def test_the_tolerances_cannot_be_changed_at_run_time() -> None:
    with pytest.raises(TypeError):
        TOLERANCES["fp32"] = TOLERANCES["fp16"]  # type: ignore[index]


@pytest.mark.parametrize("own_error", [0.0, 1e-7, 1.2e-6, math.nan])
def test_a_module_that_is_itself_near_float64_is_judged_by_the_usual_bound(own_error: float) -> None:
    assert fp32_tolerance(TOLERANCES["fp32"], own_error) == TOLERANCES["fp32"]


def test_a_module_that_amplifies_rounding_is_allowed_eight_times_its_own_error() -> None:
    fitted = fp32_tolerance(TOLERANCES["fp32"], 1e-4)
    assert fitted.rms_relative == pytest.approx(8e-4)
    assert fitted.worst_relative == pytest.approx(50 * 8e-4)
    assert "1.0e-04" in fitted.reason


def test_an_error_that_sits_in_one_row_is_allowed_there() -> None:
    fitted = fp32_tolerance(TOLERANCES["fp32"], 2e-6, 1e-3)
    assert fitted.rms_relative == pytest.approx(1.6e-5)
    assert fitted.worst_relative == pytest.approx(8e-3)
    assert fp32_tolerance(TOLERANCES["fp32"], 2e-6, 1.0).worst_relative == 5e-2


@pytest.mark.parametrize("own_error", [2.6e-4, 1.0, math.inf])
def test_no_error_of_a_module_lifts_the_ceiling_and_the_reason_does_not_say_so(own_error: float) -> None:
    fitted = fp32_tolerance(TOLERANCES["fp32"], own_error)
    assert fitted.rms_relative == 1e-3
    assert fitted.worst_relative == pytest.approx(50 * 1e-3)
    assert "8 times that is allowed" not in fitted.reason


def test_what_runs_are_the_bytes_that_were_hashed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not what protobuf makes of them: a message may be written in many ways."""
    model = onnx.load(folder / "model.onnx")
    late = ModelProto(ir_version=model.ir_version).SerializeToString()
    model.ClearField("ir_version")
    content = model.SerializeToString() + late
    assert onnx.load_from_string(content).SerializeToString() != content
    (folder / "model.onnx").write_bytes(content)
    seal(folder)
    ran: list[bytes] = []

    class Recorded(OnnxRuntimeRunner):
        def _activate(self) -> Sequence[InputSpec]:
            ran.append(self._content)
            return super()._activate()

    monkeypatch.setattr(onnxruntime_engine, "OnnxRuntimeRunner", Recorded)
    assert verify(folder).passed
    assert content in ran


class Broken(OnnxRuntimeRunner):
    """Raises where it is told to: `start` or `run`."""

    where = "start"
    error: Exception = DeployAttnError("no such device")

    def _activate(self) -> Sequence[InputSpec]:
        if self.where == "start":
            raise self.error
        return super()._activate()

    def _infer(self, feeds: Feeds) -> Outputs:
        raise self.error


class BrokenEngine(Engine):
    def runs(self, graph: Graph) -> Iterator[Run]:
        yield Run("exact", graph.precision, Broken(graph.content))


@pytest.mark.parametrize("error", [DeployAttnError("no such device"), BadRequest("it is not installed")])
def test_an_engine_that_does_not_start_is_no_finding_about_the_graph(
    folder: Path, monkeypatch: pytest.MonkeyPatch, error: DeployAttnError
) -> None:
    monkeypatch.setattr(Broken, "error", error)
    monkeypatch.setattr(parity, "engine_class", lambda name: BrokenEngine)
    with pytest.raises(DeployAttnError) as raised:
        verify(folder, "broken")
    assert raised.value is error
    assert not (folder / "verdict-broken.json").exists()


@pytest.mark.parametrize(
    ("where", "error"),
    [
        ("start", ValueError("no kernel for Erf")),
        ("run", ValueError("no kernel for Erf")),
        ("run", DeployAttnError("no kernel for Erf")),
    ],
)
def test_what_an_engine_throws_over_a_graph_is_the_finding(
    folder: Path, monkeypatch: pytest.MonkeyPatch, where: str, error: Exception
) -> None:
    monkeypatch.setattr(Broken, "where", where)
    monkeypatch.setattr(Broken, "error", error)
    monkeypatch.setattr(parity, "engine_class", lambda name: BrokenEngine)
    verdict = verify(folder, "broken")
    assert not verdict.passed
    assert {check.error for check in verdict.checks} == {"the engine refused the graph: no kernel for Erf"}
