"""The roofline's floor: counts by hand, the catalogue's formulas, types, and targets that do not say enough."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import pytest
import torch
from onnx import NodeProto, TensorProto, helper

import deploy_attn
from deploy_attn.engines.roofline import NOWHERE, Work, estimate, work_of
from deploy_attn.engines.shaped_graph import shaped_graph
from deploy_attn.engines.target import Fact, Target, load_target, target_names
from deploy_attn.export.onnx_from_module import GraphRequest, onnx_from_module
from deploy_attn.exporting import export_artifact
from deploy_attn.jetson.artifact import SELF_HASH, manifest_sha256, read_manifest
from deploy_attn.jetson.errors import BadRequest, DamagedArtifact
from deploy_attn.modules.catalogue import Shape, entry
from deploy_attn.modules.formulas import evaluate
from deploy_attn.modules.settings import settings
from deploy_attn.request import ExportRequest

MAP: Shape = (1, 32, 14, 14)
SMALL = MappingProxyType({"mobilevit": {"dim": 32}})  # options that make a slow module small


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small module in both precisions."""
    folder = tmp_path_factory.mktemp("roofline") / "se"
    export_artifact(ExportRequest("se", shape=(2, 32, 8, 8), fp16=True, target="jetson-nano", output=folder))
    return folder


def work_of_module(form: torch.nn.Module, shape: Shape) -> Work:
    with torch.inference_mode():
        model = onnx_from_module(form.eval(), torch.zeros(shape), GraphRequest(17, 8))
    return work_of(shaped_graph(model, {model.graph.input[0].name: shape}))


def test_bytes_and_operations_of_a_small_graph_are_those_by_hand() -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("Reshape", ["c", "flat"], ["r"]),
        helper.make_node("Relu", ["r"], ["y"]),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 3, 4, 4))
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, 80))
    weights = [
        helper.make_tensor("w", TensorProto.FLOAT, (5, 3, 1, 1), [0.0] * 15),
        helper.make_tensor("flat", TensorProto.INT64, (2,), [1, 80]),
    ]
    model = helper.make_model(helper.make_graph(nodes, "g", [x], [y], weights))
    work = work_of(shaped_graph(model, {"x": (1, 3, 4, 4)}))
    assert (work.traffic.inputs, work.traffic.outputs) == (4 * 48, 4 * 80)
    assert work.traffic.weights == 4 * 15 + 8 * 2
    assert work.traffic.node_by_node == 4 * (48 + 15 + 80) + 4 * (80 + 80)
    assert work.operations["fp32"] == (5 * 16 * 3, 80, 0, 0)


def test_operations_in_fp16_and_fp32_are_told_apart_by_their_tensors() -> None:
    nodes = [
        helper.make_node("Exp", ["x"], ["e"]),
        helper.make_node("Cast", ["e"], ["h"], to=TensorProto.FLOAT16),
        helper.make_node("Mul", ["h", "h"], ["y"]),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, (6,))
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT16, (6,))
    work = work_of(shaped_graph(helper.make_model(helper.make_graph(nodes, "g", [x], [y])), {"x": (6,)}))
    assert work.operations == {"fp32": (0, 0, 0, 6), "fp16": (0, 6, 0, 0)}
    assert work.traffic.least == 6 * 4 + 6 * 2


# The formula of bilinear counts the products of channel pairs, which the source multiplies one by one and adds up.
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("name", sorted(set(deploy_attn.available()) - {"bilinear"}))
def test_multiply_adds_of_a_source_are_those_of_its_formula(name: str) -> None:
    options = SMALL.get(name, {})
    macs = evaluate(entry(name).macs, *MAP[1:], settings(name, MAP[1], options))
    work = work_of_module(deploy_attn.create(name, channels=MAP[1], **options), MAP)
    assert sum(counts.multiply_adds for counts in work.operations.values()) == macs
    assert not work.uncounted


@pytest.mark.parametrize("family", ["cpu", "gpu"])
@pytest.mark.parametrize("name", deploy_attn.available())
def test_every_operator_of_a_form_is_counted_and_moves_no_less_than_the_map_twice(name: str, family: str) -> None:
    form = deploy_attn.create(name, channels=MAP[1], **SMALL.get(name, {})).export_form(MAP, family)
    work = work_of_module(form, MAP)
    assert not work.uncounted
    assert work.traffic.node_by_node >= work.traffic.inputs + work.traffic.outputs == 2 * 4 * 32 * 14 * 14


def test_the_pairs_of_bilinear_are_products_in_its_form() -> None:
    macs = evaluate(entry("bilinear").macs, *MAP[1:], settings("bilinear", MAP[1], {}))
    work = work_of_module(deploy_attn.create("bilinear", channels=MAP[1]).export_form(MAP), MAP)
    assert work.operations["fp32"].multiply_adds == macs


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_the_floor_is_the_larger_of_bytes_over_bandwidth_and_operations_over_peak(
    artifact: Path, precision: str
) -> None:
    found = estimate(artifact, "jetson-nano", precision)
    work = found.work
    seconds = sum(
        work.operations[name].operations / (tflops * 1e12) for name, tflops in (("fp32", 0.236), ("fp16", 0.472))
    )
    assert found.memory_ms == pytest.approx(1e3 * work.traffic.least / 25.6e9)
    assert found.compute_ms == pytest.approx(1e3 * seconds)
    assert found.floor_ms == max(found.memory_ms, found.compute_ms) <= found.node_by_node_ms
    assert found.binds == "memory"
    assert found.shapes == {"input": (2, 32, 8, 8)}
    assert (work.operations["fp16"].operations > 0) == (precision == "fp16")


def test_a_floor_is_below_for_a_target_that_is_better_in_all(artifact: Path) -> None:
    assert estimate(artifact, "h100", "fp16").floor_ms < estimate(artifact, "jetson-nano", "fp16").floor_ms


@pytest.mark.parametrize("target", [name for name in target_names() if not name.startswith("onnxruntime")])
def test_every_device_is_described_well_enough_for_an_estimate(artifact: Path, target: str) -> None:
    assert all(estimate(artifact, target, precision).floor_ms > 0 for precision in ("fp32", "fp16"))


def test_what_a_target_does_not_say_is_named_and_a_profile_with_it_is_taken(artifact: Path, tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match=r"bandwidth_gb_per_s.*peak_fp32_tflops.*--target ./board.toml"):
        estimate(artifact, "onnxruntime-cpu", "fp32")
    file = tmp_path / "board.toml"
    file.write_text(
        'title = "A board"\nfamily = "cpu"\nengine = "onnxruntime"\n'
        '[onnx]\nopset = { value = 17, mark = "verified" }\nir_version = { value = 8, mark = "verified" }\n'
        '[device]\nbandwidth_gb_per_s = { value = 60, mark = "recalled" }\n'
        'peak_fp32_tflops = { value = 0.18, mark = "recalled" }\n'
    )
    assert estimate(artifact, str(file), "fp32").memory_ms > 0
    with pytest.raises(BadRequest, match="peak_fp16_tensor_tflops"):
        estimate(artifact, str(file), "fp16")


def test_onnxruntime_on_a_gpu_is_estimated_by_the_gpus_own_name(artifact: Path) -> None:
    with pytest.raises(BadRequest, match=r"name the GPU, as --target h200, or write a profile of your own"):
        estimate(artifact, "onnxruntime-cuda", "fp32")


def test_a_graph_is_counted_once_for_all_targets(artifact: Path) -> None:
    counted = estimate(artifact, NOWHERE, "fp16")
    assert counted.on(load_target("jetson-nano")) == estimate(artifact, "jetson-nano", "fp16")
    with pytest.raises(BadRequest, match="needs what its profile does not say"):
        counted.on(load_target("onnxruntime-cpu"))


def test_the_higher_of_two_fp16_peaks_counts(artifact: Path) -> None:
    def with_peaks(tensor_cores: float, cores: float) -> Target:
        target = load_target("jetson-orin-nano")
        peaks = {
            "device.peak_fp16_tensor_tflops": Fact(tensor_cores, "recalled"),
            "device.peak_fp16_tflops": Fact(cores, "recalled"),
        }
        return replace(target, facts={**target.facts, **peaks})

    first, second = (estimate(artifact, with_peaks(*peaks), "fp16") for peaks in ((8.0, 2.0), (2.0, 8.0)))
    assert first.compute_ms == second.compute_ms


def test_a_precision_that_the_artifact_lacks_is_refused_with_those_it_has(artifact: Path) -> None:
    with pytest.raises(BadRequest, match="no graph in int8, only in fp32 and fp16"):
        estimate(artifact, "jetson-nano", "int8")


def test_a_damaged_artifact_has_no_estimate(artifact: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(artifact, tmp_path / "copy")
    (copy / "model.onnx").write_bytes(b"not a graph")
    with pytest.raises(DamagedArtifact, match=r"model\.onnx"):
        estimate(copy, "jetson-nano", "fp32")


@pytest.mark.parametrize("nodes", [[], [helper.make_node("Relu", ["other"], ["y"])]])
def test_a_graph_of_other_inputs_than_the_artifacts_has_no_estimate(
    artifact: Path, tmp_path: Path, nodes: list[NodeProto]
) -> None:
    copy = shutil.copytree(artifact, tmp_path / "copy")
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, (1, 3)) for name in ("other", "y")]
    graph = helper.make_graph(nodes, "g", ends[:1] if nodes else [], ends[1:] if nodes else [])
    content = helper.make_model(graph).SerializeToString()
    (copy / "model.onnx").write_bytes(content)
    manifest = read_manifest(str(copy))
    manifest["files"]["model.onnx"] = hashlib.sha256(content).hexdigest()
    manifest[SELF_HASH] = manifest_sha256(manifest)
    (copy / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DamagedArtifact, match=r"and its parity cases have input\."):
        estimate(copy, "jetson-nano", "fp32")


def test_the_document_is_json_and_says_that_it_is_an_estimate(artifact: Path) -> None:
    found = estimate(artifact, "jetson-nano", "fp16").as_dict()
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["estimate"] is True
    assert found["facts"]["device.bandwidth_gb_per_s"] == {"value": 25.6, "mark": "third party", "note": ""}
    assert found["bytes"]["least"] == sum(found["bytes"][part] for part in ("inputs", "outputs", "weights"))
