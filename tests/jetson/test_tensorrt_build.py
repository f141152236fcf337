import sys
from pathlib import Path
from typing import Any, Dict, Tuple

import pytest
from onnx import helper

from deploy_attn.jetson import tensorrt_build
from deploy_attn.jetson.errors import BadRequest, DeployAttnError
from deploy_attn.jetson.tensorrt_config import make_config
from tests.jetson.builds import PLAN, STRONG, WEAK, Bench, gate, saved
from tests.jetson.fake_tensorrt import builder, versions

ORIN = {"name": "Orin", "compute_capability": "8.7"}
OPEN = {"x": [[1, 4, 8, 8], [2, 4, 8, 8], [4, 4, 8, 8]]}
HALF: Dict[str, Any] = {"precision": "fp16", "plan": PLAN}


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Bench:
    monkeypatch.setattr(tensorrt_build, "find_device", lambda: (ORIN, ""))
    return Bench(monkeypatch, tmp_path)


def fault(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    monkeypatch.setenv(builder.FAULTS, ",".join(names))


@pytest.mark.parametrize("version", WEAK)
def test_a_weakly_typed_build_sets_flags_and_layers_and_holds_to_the_plan(bench: Bench, version: str) -> None:
    outcome = bench.build(version, gate(), **HALF)
    header = bench.header()
    obey = "STRICT_TYPES" if version == "8.0" else "OBEY_PRECISION_CONSTRAINTS"
    assert header["flags"] == sorted(["FP16", obey])
    assert not header["strongly_typed"] and header["explicit_batch"]
    assert {name: header["precisions"][name] for name in PLAN} == {
        name: "HALF" if planned == "fp16" else "FLOAT" for name, planned in PLAN.items()
    }
    assert outcome["built"] and outcome["precision_problems"] == []
    assert outcome["layers_from"] == ("log" if version == "8.0" else "inspector")
    assert outcome["version"] == versions.module(version).__version__ and outcome["device"] == ORIN


@pytest.mark.parametrize("version", STRONG)
def test_a_strongly_typed_build_takes_the_typed_graph_and_sets_no_precision(bench: Bench, version: str) -> None:
    for plan in ({}, PLAN):
        outcome = bench.build(version, gate(typed=True), precision="fp16", typed=True, plan=plan)
        header = bench.header()
        assert header["strongly_typed"] and header["flags"] == [] and header["precisions"] == {}
        assert header["explicit_batch"] == (version == "10")
        assert outcome["built"] and outcome["precision_problems"] == [] and outcome["precision_notes"] == []
        assert "half" in {kind for layer in outcome["layers"] for kind in layer["outputs"]}


@pytest.mark.parametrize("version", versions.VERSIONS)
def test_an_fp32_build_has_no_half_and_no_tf32(bench: Bench, version: str) -> None:
    outcome = bench.build(version, gate())
    assert bench.header()["flags"] == []
    assert {kind for layer in outcome["layers"] for kind in layer["outputs"]} == {"float"}
    assert outcome["precision_problems"] == []


@pytest.mark.parametrize("version", versions.VERSIONS)
def test_memory_profile_and_verbosity_reach_every_version(bench: Bench, version: str) -> None:
    outcome = bench.build(version, gate(("n", 4, 8, 8)), profile=OPEN, workspace_bytes=64 << 20)
    header = bench.header()
    assert header["workspace"] == 64 << 20
    assert header["profiles"] == [OPEN]
    assert header["verbosity"] == ("VERBOSE" if version == "8.0" else "DETAILED")
    assert outcome["layers_from"] == ("log" if version == "8.0" else "inspector")


@pytest.mark.parametrize(
    ("version", "asked", "message"),
    [
        (
            "11",
            {"precision": "fp16", "plan": PLAN},
            r"11\.1\.0 only takes precision from the graph's own types.*model\.fp16",
        ),
        ("8.2", {"precision": "fp16", "typed": True}, r"8\.2\.1\.8 has no strongly typed networks.*precision_plan"),
        ("8.6", {"precision": "fp16", "typed": True}, r"8\.6\.2\.3 has no strongly typed networks"),
        ("8.5", {"version_compatible": True}, r"version-compatible engine.*from TensorRT 8\.6 on; this is 8\.5\.2\.2"),
        (
            "8.2",
            {"hardware_compatible": True},
            r"hardware-compatible engine.*from TensorRT 8\.6 on; this is 8\.2\.1\.8",
        ),
        ("10", {"compute_capability": "SM86"}, r"builds for the GPU that it runs on"),
        ("8.2", {"precision": "fp16"}, "without a plan"),
        ("8.2", {"precision": "fp16", "plan": {"else": "fp16"}}, "plan is of another graph"),
        ("8.2", {"profile": {"x": [[4, 4, 8, 8], [2, 4, 8, 8], [1, 4, 8, 8]]}}, "refuses the profile of x"),
        ("8.2", {"timing_cache": "/no/such/folder/cache"}, "its folder does not exist"),
    ],
)
def test_what_a_version_cannot_do_is_an_error_and_no_engine(
    bench: Bench, version: str, asked: Dict[str, Any], message: str
) -> None:
    with pytest.raises(BadRequest, match=message):
        bench.build(version, gate(), **asked)
    assert not (bench.folder / tensorrt_build.ENGINE).exists()


@pytest.mark.parametrize("version", ["8.6", "10", "11"])
def test_compatible_engines_are_asked_for_and_can_be_loaded(bench: Bench, version: str) -> None:
    outcome = bench.build(version, gate(), version_compatible=True, hardware_compatible=True)
    header = bench.header()
    assert (header["version_compatible"], header["hardware_compatible"]) == (True, True)
    assert outcome["layers_from"] == "inspector"


@pytest.mark.parametrize("version", WEAK)
def test_a_silently_fp32_engine_is_a_problem(bench: Bench, monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    fault(monkeypatch, builder.SILENTLY_FP32)
    (problem,) = bench.build(version, gate(), **HALF)["precision_problems"]
    assert problem.startswith("The engine is silently FP32: the plan has 4 FP16 nodes")


@pytest.mark.parametrize("version", WEAK)
def test_an_fp32_node_in_half_is_a_problem(bench: Bench, monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    fault(monkeypatch, builder.IGNORES_PLAN)
    (problem,) = bench.build(version, gate(), **HALF)["precision_problems"]
    assert problem == "Layer 'squeeze' makes FP16 outputs, and the plan keeps all of its nodes in FP32."


def test_a_typed_graph_whose_engine_has_no_half_is_a_problem(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    layers = [
        builder.EngineLayer(name, "Conv", [name], [("x", "FLOAT")], [("y", "FLOAT")]) for name in ("conv", "gate")
    ]
    monkeypatch.setattr(builder, "_engine_layers", lambda network, config: layers)
    (problem,) = bench.build("11", gate(typed=True), precision="fp16", typed=True)["precision_problems"]
    assert "silently FP32" in problem


def test_a_foreign_node_is_judged_by_its_inputs_and_outputs(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    fault(monkeypatch, builder.FOREIGN)
    outcome = bench.build("8.2", gate(), **HALF)
    assert outcome["precision_problems"] == []
    assert "ForeignNodes" in outcome["precision_notes"][0]


@pytest.mark.parametrize("version", ["8.2", "8.5", "10"])
def test_open_sizes_hide_types_only_until_a_context_has_shapes(bench: Bench, version: str) -> None:
    outcome = bench.build(version, gate(("n", 4, 8, 8)), profile=OPEN, **HALF)
    assert (outcome["layers_from"], outcome["precision_problems"]) == ("inspector", [])


@pytest.mark.parametrize("version", ["8.2", "10"])
def test_where_the_inspector_hides_types_the_log_tells_them(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    fault(monkeypatch, builder.NOT_SHOWN)
    outcome = bench.build(version, gate(), **HALF)
    assert (outcome["layers_from"], outcome["precision_problems"]) == ("log", [])
    fault(monkeypatch, builder.NOT_SHOWN, builder.NO_LOG)
    outcome = bench.build(version, gate(), **HALF)
    assert outcome["layers_from"] == "inspector"
    assert "does not show the types" in outcome["precision_problems"][0]


@pytest.mark.parametrize(
    ("name", "message"),
    [(builder.UNKNOWN_TYPE, "Quaternion', which is not known"), (builder.NAMES_ONLY, "names of layers only")],
)
@pytest.mark.parametrize("version", ["8.2", "10", "11"])
def test_an_inspector_that_is_not_understood_is_a_problem_unless_the_log_is(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, version: str, name: str, message: str
) -> None:
    asked: Dict[str, Any] = {"precision": "fp16", "typed": True} if version == "11" else HALF
    model = gate(typed=version == "11")
    fault(monkeypatch, name)
    outcome = bench.build(version, model, **asked)
    assert (outcome["layers_from"], outcome["precision_problems"]) == ("log", [])
    fault(monkeypatch, name, builder.NO_LOG)
    outcome = bench.build(version, model, **asked)
    assert outcome["layers_from"] == "network"
    assert message in outcome["precision_problems"][0]


def test_where_no_list_of_the_engine_exists_the_networks_own_layers_stand_in_and_it_is_said(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    fault(monkeypatch, builder.NO_LOG)
    outcome = bench.build("8.0", gate(), **HALF)
    assert outcome["layers_from"] == "network"
    assert outcome["precision_problems"] == []
    assert outcome["precision_notes"][0].startswith("This version shows no layers of a built engine")


def test_planned_nodes_without_a_layer_are_told(bench: Bench) -> None:
    notes = bench.build("8.2", gate(), precision="fp16", plan={**PLAN, "folded": "fp32"})["precision_notes"]
    assert any("no layer for these planned nodes: folded" in note for note in notes)


def test_a_timing_cache_is_written_and_read_again(bench: Bench, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    for _ in range(2):
        outcome = bench.build("8.2", gate(), timing_cache=str(cache))
        assert outcome["messages"] == [m for m in outcome["messages"] if m[0] == "VERBOSE"]
    assert cache.read_bytes() == b"FAKE-CACHE 8.2.1.8 kernels"
    assert [file.name for file in tmp_path.iterdir() if file.name.startswith("cache")] == ["cache"]


@pytest.mark.parametrize("content", [b"garbage", b"FAKE-CACHE 8.4.1.5 kernels", b"\0" * 1000])
def test_a_timing_cache_that_cannot_be_used_is_replaced_and_a_warning_says_so(
    bench: Bench, tmp_path: Path, content: bytes
) -> None:
    cache = tmp_path / "cache"
    cache.write_bytes(content)
    outcome = bench.build("8.2", gate(), timing_cache=str(cache))
    assert outcome["built"]
    assert any(
        severity == "WARNING" and "is not used and is written anew" in text for severity, text in outcome["messages"]
    )
    assert cache.read_bytes() == b"FAKE-CACHE 8.2.1.8 kernels"


def test_a_timing_cache_that_is_a_folder_is_an_error(bench: Bench, tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="cannot be read: Is a directory"):
        bench.build("8.2", gate(), timing_cache=str(tmp_path))


@pytest.mark.parametrize(
    ("version", "first"),
    [("8.2", ("number 5", "")), ("10", ("bad", "NoSuchOperator")), ("11", ("bad", "NoSuchOperator"))],
)
def test_every_refusal_of_the_parser_is_told(bench: Bench, version: str, first: Tuple[str, str]) -> None:
    extra = [helper.make_node("NoSuchOperator", ["x"], ["p"], "bad"), helper.make_node("Det", ["x"], ["q"], "worse")]
    outcome = bench.build(version, gate(extra=extra))
    assert not outcome["built"]
    assert (outcome["refusals"][0]["node"], outcome["refusals"][0]["operator"]) == first
    assert outcome["refusals"][1]["reason"] == "No importer registered for op: Det"
    assert {one["code"] for one in outcome["refusals"]} == {"UNSUPPORTED_NODE"}


def test_what_is_thrown_through_the_parser_is_a_refusal(bench: Bench) -> None:
    outcome = bench.build("8.2", saved([helper.make_node("Throws", ["x"], ["y"], "n")], (1,)))
    assert outcome["refusals"] == [
        {"node": "", "operator": "", "code": "IndexError", "reason": "Attribute not found: allowzero"}
    ]


def test_a_parser_without_an_error_of_its_own_refuses_with_the_log(bench: Bench) -> None:
    assert bench.build("8.2", b"no such thing")["refusals"][0]["reason"] == "Failed to parse ONNX model"


def test_a_builder_that_gives_nothing_leaves_its_errors(bench: Bench) -> None:
    outcome = bench.build("8.2", gate(("n", 4, 8, 8)))
    assert not outcome["built"]
    assert any(severity == "ERROR" and "no optimization profile" in text for severity, text in outcome["messages"])


def test_without_a_gpu_the_builder_does_not_start(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    fault(monkeypatch, builder.NO_GPU)
    with pytest.raises(
        BadRequest, match=r"TensorRT 8\.2\.1\.8 cannot start its builder: CUDA init.* 35\. It needs an NVIDIA GPU"
    ):
        bench.build("8.2", gate())


def test_an_engine_that_cannot_be_loaded_is_an_error(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    fault(monkeypatch, builder.CANNOT_LOAD)
    with pytest.raises(DeployAttnError, match=r"built an engine that it cannot load: .*not compatible"):
        bench.build("8.2", gate())


def test_a_builder_of_8_without_build_serialized_network_is_served(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = versions.module("8.0")
    kind = made.Builder

    class Old:
        create_network, create_builder_config = kind.create_network, kind.create_builder_config
        _version, __init__ = kind._version, kind.__init__

        def build_engine(self, network: Any, config: Any) -> Any:
            return builder._Serializable(kind.build_serialized_network(self, network, config))

    made.Builder = Old
    monkeypatch.setattr(versions, "module", lambda version: made)
    assert bench.build("8.0", gate())["built"]


def test_an_absent_module_is_told_and_is_no_error_of_the_build(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    outcome = tensorrt_build.blank_outcome()
    tensorrt_build.build(str(bench.folder), {"module": "tensorrt"}, outcome)
    assert "no module of that name" in outcome["absent"] and not outcome["built"]


@pytest.mark.parametrize("version", WEAK)
def test_half_precision_in_an_fp32_engine_is_a_problem(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    def with_fp16(trt: Any, *arguments: Any) -> Any:
        config = make_config(trt, *arguments)
        config.set_flag(trt.BuilderFlag.FP16)
        return config

    monkeypatch.setattr(tensorrt_build, "make_config", with_fp16)
    outcome = bench.build(version, gate())
    assert any("'squeeze' makes FP16 outputs" in problem for problem in outcome["precision_problems"])


def test_plugins_are_registered_before_the_graph_is_parsed(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    made = versions.module("8.2")
    made.init_libnvinfer_plugins = lambda logger, namespace: False
    monkeypatch.setattr(versions, "module", lambda version: made)
    with pytest.raises(BadRequest, match="cannot register its own plugins"):
        bench.build("8.2", gate(extra=[helper.make_node("NoSuchOperator", ["x"], ["p"], "bad")]))


@pytest.mark.parametrize("version", ["8.2", "10"])
@pytest.mark.parametrize("profile", [{}, OPEN])
def test_inspector_context_and_engine_end_in_that_order(bench: Bench, version: str, profile: Dict[str, Any]) -> None:
    bench.build(version, gate(("n", 4, 8, 8) if profile else (1, 4, 8, 8)), profile=profile)
    context = ["context"] if profile else []
    assert sys.modules["tensorrt"].Runtime._released == ["inspector", *context, "engine", "runtime"]


@pytest.mark.parametrize("version", versions.VERSIONS)
def test_a_probe_tells_version_typing_and_device(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", versions.module(version))
    monkeypatch.setattr(tensorrt_build, "find_device", lambda: (None, "no driver"))
    assert tensorrt_build.probe("tensorrt") == {
        "absent": "",
        "version": versions.module(version).__version__,
        "weak_typing": version != "11",
        "capabilities": [],
        "device": None,
        "no_device": "no driver",
    }
