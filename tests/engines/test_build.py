"""A build: what is put in, what is written, and what is refused before or after, with nothing left behind."""

from __future__ import annotations

import errno
import json
import os
import shutil
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from deploy_attn import ExportRequest, export_artifact
from deploy_attn.engines.build import BuildReport, build_engine
from deploy_attn.engines.builder import BuildJob, BuildOptions
from deploy_attn.engines.engine_file import Here, find_engine
from deploy_attn.engines.target import load_target
from deploy_attn.jetson.artifact import file_sha256, manifest_sha256, open_artifact
from deploy_attn.jetson.errors import BadRequest, DamagedArtifact, DeployAttnError
from tests.jetson import stub
from tests.jetson.fake_tensorrt import builder as fake
from tests.jetson.fake_tensorrt.builder import split_engine

FAKES = Path(__file__).resolve().parents[1] / "jetson" / "fake_tensorrt"
SHAPE = (1, 16, 7, 9)
NANO, ORIN, DESKTOP = "jetson-nano", "jetson-orin-nano", "rtx-4090"


def exported(folder: Path, target: str, fp16: bool = True, dynamic: bool = False) -> Path:
    request = ExportRequest(
        "se",
        shape=SHAPE,
        fp16=fp16,
        target=target,
        dynamic_batch=dynamic,
        dynamic_size=dynamic,
        options={"reduction": 4},
        output=folder,
    )
    return export_artifact(request).folder


@pytest.fixture(scope="session")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    folder = tmp_path_factory.mktemp("artifacts")
    return {
        "fp16": exported(folder / "fp16", NANO),
        "fp32": exported(folder / "fp32", NANO, fp16=False),
        "open": exported(folder / "open", NANO, dynamic=True),
    }


@pytest.fixture
def folder(artifacts: Mapping[str, Path], tmp_path: Path) -> Path:
    return shutil.copytree(artifacts["fp16"], tmp_path / "se")


@pytest.fixture
def open_folder(artifacts: Mapping[str, Path], tmp_path: Path) -> Path:
    return shutil.copytree(artifacts["open"], tmp_path / "open")


class Machine:
    """A machine with a fake TensorRT and a GPU that is a stub."""

    def __init__(self, patch: pytest.MonkeyPatch, folder: Path) -> None:
        self._patch, self._folder = patch, folder

    def has(self, version: str, capability: str | None) -> None:
        """TensorRT of this version on a GPU of this compute capability, or without one."""
        self._patch.setattr(sys, "path", [str(FAKES / f"as_{version}"), *self._without_fakes()])
        if capability is not None:
            self._patch.setenv("DEPLOY_ATTN_CUDART", stub.compiled(str(self._folder)))
            self._patch.setenv(stub.COMPUTE_CAPABILITY, capability)

    def fails(self, fault: str) -> None:
        self._patch.setenv(fake.FAULTS, fault)

    def _without_fakes(self) -> list[str]:
        return [entry for entry in sys.path if not entry.startswith(str(FAKES))]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Machine:
    (tmp_path / "cuda").mkdir()
    return Machine(monkeypatch, tmp_path / "cuda")


def names(folder: Path) -> set[str]:
    return {file.name for file in folder.iterdir()}


def asked(report: BuildReport) -> dict[str, Any]:
    """What the fake builder was asked, as its engine tells."""
    header: dict[str, Any] = split_engine(report.engine_file.read_bytes())[0]
    return header


def refused(kind: type[DeployAttnError], folder: Path, engine: str, target: str, **options: Any) -> str:
    """The message of a build that raises, and leaves the folder as it was."""
    before = names(folder)
    with pytest.raises(kind) as raised:
        build_engine(folder, engine, target, BuildOptions(**options))
    assert names(folder) == before
    assert raised.value.exit_code == (2 if kind is BadRequest else 1)
    return str(raised.value)


# TensorRT-RTX


def test_an_engine_and_its_manifest_are_written_beside_the_graphs(folder: Path) -> None:
    before = names(folder)
    report = build_engine(folder, "tensorrt-rtx", DESKTOP)
    assert report.passed
    assert not report.cached
    assert names(folder) - before == {report.engine_file.name, f"{report.engine_file.stem}.json"}
    manifest = json.loads(report.engine_file.with_suffix(".json").read_text(encoding="utf-8"))
    assert manifest == report.as_dict()["manifest"]
    key = manifest["key"]
    assert (key["engine"], key["precision"], key["compute_capabilities"]) == ("tensorrt-rtx", "fp16", ["8.9"])
    assert (key["graph_file"], key["plan_sha256"]) == ("model.fp16.onnx", None)
    assert key["graph_sha256"] == open_artifact(str(folder)).manifest["files"]["model.fp16.onnx"]
    assert key["runtime_version"].count(".") == 3


def test_the_manifest_tells_kernels_traffic_scratch_and_each_layer(folder: Path) -> None:
    facts = build_engine(folder, "tensorrt-rtx", DESKTOP).manifest.facts
    layers = facts["layers"]
    assert facts["kernels"] == sum(layer["layer_type"] in ("kgen", "gemm", "correlation") for layer in layers) > 1
    assert facts["traffic_bytes"] == sum(layer["bytes_read"] + layer["bytes_written"] for layer in layers)
    assert facts["traffic_passes"] == pytest.approx(facts["traffic_bytes"] / (2 * 4 * 16 * 7 * 9), abs=0.005)
    assert facts["weights_bytes"] > 0 <= facts["scratch_bytes"]
    assert any("Half" in layer["types_written"] for layer in layers)


def test_the_same_engine_is_not_built_again(folder: Path) -> None:
    first = build_engine(folder, "tensorrt-rtx", DESKTOP)
    stamp = first.engine_file.stat().st_mtime_ns
    again = build_engine(folder, "tensorrt-rtx", DESKTOP)
    assert (again.cached, again.seconds) == (True, 0.0)
    assert again.as_dict()["cached"] is True
    assert (again.engine_file, again.manifest) == (first.engine_file, first.manifest)
    assert first.engine_file.stat().st_mtime_ns == stamp


def test_it_is_built_again_where_that_is_forced_or_the_file_is_damaged(folder: Path) -> None:
    first = build_engine(folder, "tensorrt-rtx", DESKTOP)
    assert not build_engine(folder, "tensorrt-rtx", DESKTOP, BuildOptions(force=True)).cached
    first.engine_file.write_bytes(first.engine_file.read_bytes()[:-1])
    again = build_engine(folder, "tensorrt-rtx", DESKTOP)
    assert not again.cached
    assert build_engine(folder, "tensorrt-rtx", DESKTOP).cached


def test_precisions_and_gpus_have_an_engine_each(folder: Path) -> None:
    built = [
        build_engine(folder, "tensorrt-rtx", target, BuildOptions(precision=precision))
        for target in (DESKTOP, "rtx-3090")
        for precision in ("fp32", "fp16")
    ]
    assert len({report.engine_file for report in built}) == 4
    assert [report.manifest.key.graph_file for report in built] == ["model.onnx", "model.fp16.onnx"] * 2
    here = Here(built[0].manifest.key.runtime_version, "8.6")
    found = find_engine(open_artifact(str(folder)), "tensorrt-rtx", "fp32", here)
    assert found is not None
    assert found.path == built[2].engine_file


def test_an_artifact_without_fp16_gives_an_fp32_engine(artifacts: Mapping[str, Path], tmp_path: Path) -> None:
    folder = shutil.copytree(artifacts["fp32"], tmp_path / "se")
    assert build_engine(folder, "tensorrt-rtx", DESKTOP).manifest.key.precision == "fp32"
    assert "no graph in fp16. Export it again with --fp16" in refused(
        BadRequest, folder, "tensorrt-rtx", DESKTOP, precision="fp16"
    )


def test_two_builds_at_once_leave_one_engine_that_is_whole(folder: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        reports = list(pool.map(lambda _: build_engine(folder, "tensorrt-rtx", DESKTOP), range(2)))
    assert reports[0].engine_file == reports[1].engine_file
    assert build_engine(folder, "tensorrt-rtx", DESKTOP).cached
    assert not [name for name in names(folder) if name.endswith(".partial")]


@pytest.mark.parametrize("target", [NANO, ORIN, "h100"])
def test_a_gpu_that_it_does_not_build_for_is_refused_with_those_that_it_does(folder: Path, target: str) -> None:
    message = refused(BadRequest, folder, "tensorrt-rtx", target)
    assert f"Target {target} has compute capability" in message
    assert "builds for 7.5, 8.0, 8.6, 8.9, 12.0" in message
    assert "--engine tensorrt on the device itself" in message


@pytest.mark.parametrize(
    ("flag", "options"),
    [
        ("--timing-cache", {"timing_cache": Path("cache")}),
        ("--version-compatible", {"version_compatible": True}),
        ("--hardware-compatible", {"hardware_compatible": True}),
    ],
)
def test_what_it_does_not_have_is_refused(folder: Path, flag: str, options: dict[str, Any]) -> None:
    assert f"{flag} is not for tensorrt-rtx" in refused(BadRequest, folder, "tensorrt-rtx", DESKTOP, **options)


def test_progress_is_passed_on(folder: Path) -> None:
    seen: list[Mapping[str, Any]] = []
    build_engine(folder, "tensorrt-rtx", DESKTOP, on_progress=seen.append)
    assert all(set(step) == {"phase", "step", "steps"} for step in seen)
    assert any(step["step"] == step["steps"] for step in seen)


# Shapes


def profile_of(report: BuildReport) -> list[list[int]]:
    found: list[list[int]] = report.manifest.key.options["profile"]["input"]
    return found


def test_open_axes_go_from_one_to_the_largest_parity_case(open_folder: Path) -> None:
    report = build_engine(open_folder, "tensorrt-rtx", DESKTOP)
    cases = [case.inputs["input"].shape for case in open_artifact(str(open_folder)).cases()]
    assert profile_of(report) == [[1, 16, 1, 1], [*SHAPE], [max(axis) for axis in zip(*cases)]]
    assert max(axis[0] for axis in cases) == 2
    assert report.notes == ()
    assert report.manifest.facts["traffic_bytes"] is report.manifest.facts["traffic_passes"] is None


@pytest.mark.parametrize(
    ("given", "profile"),
    [
        ({"maximum": (8, 16, 40, 40)}, [[1, 16, 1, 1], [*SHAPE], [8, 16, 40, 40]]),
        ({"maximum": (1, 16, 4, 4)}, [[1, 16, 1, 1], [1, 16, 4, 4], [1, 16, 4, 4]]),
        ({"minimum": (2, 16, 8, 8)}, [[2, 16, 8, 8], [2, 16, 8, 9], [2, 16, 9, 12]]),
        ({"optimum": (4, 16, 32, 32)}, [[1, 16, 1, 1], [4, 16, 32, 32], [4, 16, 32, 32]]),
        (
            {"minimum": (1, 16, 7, 7), "optimum": (2, 16, 14, 14), "maximum": (4, 16, 28, 28)},
            [[1, 16, 7, 7], [2, 16, 14, 14], [4, 16, 28, 28]],
        ),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_shapes_that_are_given_are_kept_and_the_others_give_way(
    open_folder: Path, given: dict[str, Any], profile: list[list[int]]
) -> None:
    assert profile_of(build_engine(open_folder, "tensorrt-rtx", DESKTOP, BuildOptions(**given))) == profile


def test_a_parity_case_outside_the_profile_is_said(open_folder: Path) -> None:
    report = build_engine(open_folder, "tensorrt-rtx", DESKTOP, BuildOptions(maximum=SHAPE))
    assert len(report.notes) == 2
    assert report.notes[0].startswith("Parity case larger_batch (2x16x7x9) is outside the profile")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"maximum": (4, 32, 7, 9)}, "gives input 'input' 4x32x7x9; the graph takes ?x16x?x?"),
        ({"maximum": (4, 16)}, "shapes 4x16; the input is of rank 4"),
        ({"minimum": (2, 16, 9, 9), "maximum": (1, 16, 9, 9)}, "1 <= minimum <= optimum <= maximum"),
        ({"optimum": (9, 16, 9, 9), "maximum": (1, 16, 9, 9)}, "1 <= minimum <= optimum <= maximum"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(open_folder: Path, given: dict[str, Any], message: str) -> None:
    assert message in refused(BadRequest, open_folder, "tensorrt-rtx", DESKTOP, **given)


def test_a_fixed_graph_takes_its_own_shape_and_no_other(folder: Path) -> None:
    report = build_engine(folder, "tensorrt-rtx", DESKTOP, BuildOptions(maximum=SHAPE))
    assert report.manifest.key.options["profile"] == {}
    message = refused(BadRequest, folder, "tensorrt-rtx", DESKTOP, maximum=(2, 16, 7, 9))
    assert "the graph takes 1x16x7x9" in message
    assert "export --dynamic-batch" in message


# TensorRT, as fake modules of the versions


@pytest.mark.parametrize(
    ("version", "capability", "target"),
    [("8_2", "5.3", NANO), ("8_5", "7.2", "jetson-xavier-nx"), ("8_6", "8.9", NANO), ("10", "8.7", ORIN)],
)
def test_weak_typing_gets_the_fp32_graph_and_the_plan(
    folder: Path, machine: Machine, version: str, capability: str, target: str, tmp_path: Path
) -> None:
    machine.has(version, capability)
    if (version, target) == ("8_6", NANO):
        target = str(own_target(tmp_path, capability))
    report = build_engine(folder, "tensorrt", target)
    key = report.manifest.key
    files = open_artifact(str(folder)).manifest["files"]
    assert (key.graph_file, key.graph_sha256) == ("model.onnx", files["model.onnx"])
    assert key.plan_sha256 == files["precision_plan.json"]
    assert key.compute_capabilities == (capability,)
    assert "FP16" in asked(report)["flags"]
    types = {kind for layer in report.manifest.facts["layers"] for kind in layer["outputs"]}
    assert types == {"half", "float"}


def own_target(folder: Path, capability: str, tensorrt: str = "8.0") -> Path:
    file = folder / "own.toml"
    values: dict[str, dict[str, object]] = {
        "onnx": {"opset": 13, "ir_version": 7},
        "runtime": {"tensorrt": f'"{tensorrt}"', "workspace_mib": 64},
        "device": {"compute_capability": f'"{capability}"', "memory_gib": 4},
    }
    lines = ['title = "mine"', 'family = "gpu"', 'engine = "tensorrt"']
    for table, keys in values.items():
        lines += [f"[{table}]", *(f'{key} = {{ value = {value}, mark = "verified" }}' for key, value in keys.items())]
    file.write_text("\n".join(lines), encoding="utf-8")
    return file


def test_strong_typing_alone_gets_the_typed_graph(folder: Path, machine: Machine) -> None:
    machine.has("11", "8.9")
    report = build_engine(folder, "tensorrt", DESKTOP)
    assert (report.manifest.key.graph_file, report.manifest.key.plan_sha256) == ("model.fp16.onnx", None)
    assert report.manifest.key.options["typed"] is True


@pytest.mark.parametrize("version", ["8_2", "10", "11"])
def test_fp32_gets_the_fp32_graph_and_no_plan(folder: Path, machine: Machine, version: str, tmp_path: Path) -> None:
    machine.has(version, "8.7")
    report = build_engine(folder, "tensorrt", str(own_target(tmp_path, "8.7")), BuildOptions(precision="fp32"))
    key = report.manifest.key
    assert (key.graph_file, key.plan_sha256, key.options["typed"]) == ("model.onnx", None, False)
    assert "FP16" not in asked(report)["flags"]


def test_the_device_and_the_workspace_of_the_target_bound_it(folder: Path, machine: Machine) -> None:
    machine.has("8_2", "5.3")
    report = build_engine(folder, "tensorrt", NANO)
    assert report.manifest.device is not None
    assert report.manifest.device["compute_capability"] == "5.3"
    assert report.manifest.key.options["workspace_bytes"] == 256 << 20
    assert (256 << 20) in [value for value in asked(report).values() if isinstance(value, int)]


@pytest.mark.parametrize("first", [{"precision": "fp32"}, {"version_compatible": True}, {"hardware_compatible": True}])
def test_other_options_are_another_engine_and_the_same_are_not(
    folder: Path, machine: Machine, first: dict[str, Any]
) -> None:
    machine.has("10", "8.9")
    built = build_engine(folder, "tensorrt", DESKTOP, BuildOptions(**first))
    assert not build_engine(folder, "tensorrt", DESKTOP).cached
    again = build_engine(folder, "tensorrt", DESKTOP, BuildOptions(**first))
    assert (again.cached, again.engine_file) == (True, built.engine_file)


def test_another_version_of_tensorrt_builds_anew(folder: Path, machine: Machine) -> None:
    machine.has("10", "8.9")
    build_engine(folder, "tensorrt", DESKTOP, BuildOptions(precision="fp32"))
    machine.has("11", "8.9")
    assert not build_engine(folder, "tensorrt", DESKTOP, BuildOptions(precision="fp32")).cached


def test_a_timing_cache_is_written_where_it_is_asked_for(
    folder: Path, machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.has("10", "8.9")
    monkeypatch.chdir(tmp_path)
    build_engine(folder, "tensorrt", DESKTOP, BuildOptions(timing_cache=Path("timings")))
    assert (tmp_path / "timings").stat().st_size > 0


def test_a_hardware_compatible_engine_may_be_built_on_another_gpu(folder: Path, machine: Machine) -> None:
    machine.has("10", "8.6")
    report = build_engine(folder, "tensorrt", DESKTOP, BuildOptions(hardware_compatible=True))
    assert report.manifest.key.compute_capabilities == ("8.6",)
    artifact = open_artifact(str(folder))
    assert find_engine(artifact, "tensorrt", "fp16", Here(report.manifest.key.runtime_version, "8.9")) is not None


@pytest.mark.parametrize(
    ("here", "target", "options", "words"),
    [
        (
            ("8_2", "8.6"),
            NANO,
            {},
            ["compute capability 5.3", "has 8.6", "on the device that runs it", "build it there"],
        ),
        (("8_0", "5.3"), NANO, {}, ["has TensorRT 8.2.1; here is 8.0", "older"]),
        (
            ("10", None),
            ORIN,
            {},
            ["finds no GPU", "compute capability 8.7", "--engine tensorrt-rtx builds without one"],
        ),
        (("8_2", "5.3"), NANO, {"version_compatible": True}, ["version-compatible engine was asked for", "8.6"]),
        (("10", "8.7"), ORIN, {"hardware_compatible": True}, ["not for a Jetson", "has 8.7"]),
        (("10", "7.5"), "t4", {"hardware_compatible": True}, ["from compute capability 8.0", "has 7.5"]),
        (("10", "8.9"), "onnxruntime-cuda", {}, ["runs onnxruntime, not TensorRT"]),
        (("10", "8.9"), DESKTOP, {"timing_cache": Path("/no/such/folder/cache")}, ["/no/such/folder/cache", "folder"]),
    ],
)
def test_what_cannot_be_built_here_is_refused(
    folder: Path,
    machine: Machine,
    here: tuple[str, str | None],
    target: str,
    options: dict[str, Any],
    words: list[str],
) -> None:
    machine.has(*here)
    message = refused(BadRequest, folder, "tensorrt", target, **options)
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (fake.SILENTLY_FP32, ["does not hold to precision_plan.json", "silently FP32"]),
        (fake.IGNORES_PLAN, ["does not hold to precision_plan.json", "the plan keeps"]),
        (fake.OUT_OF_MEMORY, ["ran out of memory", "workspace"]),
        (fake.KILLED, ["was killed (SIGKILL), as the system does when memory runs out", "MiB were available"]),
        (fake.CRASHED, ["crashed on this graph (SIGSEGV"]),
    ],
)
def test_an_engine_that_does_not_come_out_right_is_not_written(
    folder: Path, machine: Machine, fault: str, words: list[str]
) -> None:
    machine.has("8_2", "5.3")
    machine.fails(fault)
    message = refused(DeployAttnError, folder, "tensorrt", NANO)
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("raise ImportError('libnvinfer.so.8: cannot open shared object file')", "libnvinfer.so.8: cannot open shared"),
        ("raise OSError('libnvinfer.so.8: wrong ELF class')", "OSError: libnvinfer.so.8: wrong ELF class"),
        ("import no_such_module", "No module named 'no_such_module'"),
        ("x = 1", "no Builder in it"),
    ],
)
def test_a_tensorrt_that_does_not_load_says_why(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, body: str, reason: str
) -> None:
    (tmp_path / "tensorrt.py").write_text(body, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    message = refused(BadRequest, folder, "tensorrt", NANO)
    assert "TensorRT was asked for and cannot be imported" in message
    assert reason in message
    assert "apt install python3-libnvinfer" in message


# The artifact and the folder


@pytest.mark.parametrize(
    ("engine", "target", "words"),
    [
        ("tensort", DESKTOP, ["Unknown engine 'tensort'", "Known: tensorrt,"]),
        ("onnxruntime", DESKTOP, ["has no engine file", "verify DIR --engine onnxruntime"]),
        ("onnxruntime-tensorrt", DESKTOP, ["has no engine file"]),
        ("tensorrt-rtx", "rtx-409", ["Unknown target 'rtx-409'", "rtx-4090"]),
        ("tensorrt-rtx", "none.toml", ["none.toml cannot be read"]),
        ("tensorrt-rtx", "onnxruntime-cpu", ["names no compute capability"]),
    ],
)
def test_an_unknown_engine_or_target_is_refused(folder: Path, engine: str, target: str, words: list[str]) -> None:
    message = refused(BadRequest, folder, engine, target)
    for word in words:
        assert word in message


def test_an_unknown_precision_is_refused(folder: Path) -> None:
    message = refused(BadRequest, folder, "tensorrt-rtx", DESKTOP, precision="int8")
    assert "Unknown precision 'int8'. Known: " in message


def test_a_damaged_artifact_is_not_built(folder: Path) -> None:
    (folder / "model.fp16.onnx").write_bytes(b"damaged")
    assert "model.fp16.onnx: changed since the export" in refused(DamagedArtifact, folder, "tensorrt-rtx", DESKTOP)


def test_a_graph_that_changes_after_the_artifact_was_checked_is_not_built(folder: Path) -> None:
    job = BuildJob(open_artifact(str(folder)), load_target(DESKTOP), "fp32", BuildOptions())
    assert job.content("model.onnx")
    (folder / "model.onnx").write_bytes(b"another")
    with pytest.raises(DamagedArtifact, match=r"model\.onnx of .* changed while it was read"):
        job.content("model.onnx")


def test_a_folder_that_is_no_artifact_is_not_built(tmp_path: Path) -> None:
    assert "is not an artifact" in refused(BadRequest, tmp_path, "tensorrt-rtx", DESKTOP)


@pytest.mark.parametrize("plan", ["[]", "{", '{"nodes": [{}]}', '{"nodes": 7}'])
def test_a_plan_that_is_none_is_said_however_well_its_hash_holds(folder: Path, machine: Machine, plan: str) -> None:
    machine.has("8_2", "5.3")
    (folder / "precision_plan.json").write_text(plan, encoding="utf-8")
    seal(folder)
    assert "precision_plan.json of" in refused(DamagedArtifact, folder, "tensorrt", NANO)


def seal(folder: Path, **changes: Any) -> None:
    """Makes the manifest vouch for the files as they are now, after changes to it."""
    file = folder / "manifest.json"
    manifest = {**json.loads(file.read_text(encoding="utf-8")), **changes}
    manifest["files"] = {name: file_sha256(str(folder / name)) for name in manifest["files"]}
    manifest["manifest_sha256"] = manifest_sha256(manifest)
    file.write_text(json.dumps(manifest), encoding="utf-8")


def test_a_folder_that_cannot_be_written_is_refused_before_the_build(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != folder)
    assert "cannot be written, and an engine lies beside its graph" in refused(
        BadRequest, folder, "tensorrt-rtx", DESKTOP
    )


def test_a_full_disk_leaves_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_bytes = Path.write_bytes

    def full(path: Path, content: bytes) -> int:
        if path.parent != folder:
            return write_bytes(path, content)
        write_bytes(path, content[:3])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    assert "No space left on device" in refused(BadRequest, folder, "tensorrt-rtx", DESKTOP)


def test_a_full_temporary_folder_is_said(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_bytes = Path.write_bytes

    def full(path: Path, content: bytes) -> int:
        if path.name == "model.onnx":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write_bytes(path, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    message = refused(BadRequest, folder, "tensorrt-rtx", DESKTOP)
    assert "does not take it: No space left on device" in message
    assert "TMPDIR" in message


def test_an_artifact_without_parity_cases_is_not_built(open_folder: Path) -> None:
    seal(open_folder, cases=[])
    assert "no parity case for every input" in refused(DamagedArtifact, open_folder, "tensorrt-rtx", DESKTOP)


def test_forms_for_another_family_are_said(tmp_path: Path) -> None:
    folder = exported(tmp_path / "cpu", "onnxruntime-cpu")
    (note,) = build_engine(folder, "tensorrt-rtx", DESKTOP).notes
    assert "exported for onnxruntime-cpu, in forms for a cpu" in note
    assert "--target rtx-4090" in note
