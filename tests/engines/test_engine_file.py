"""An engine file is loaded where it belongs and is whole, and refused with the reason everywhere else."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy_attn.engines import engine_file
from deploy_attn.engines.engine_file import (
    EngineKey,
    EngineManifest,
    Here,
    find_built,
    find_engine,
    is_ampere_or_newer,
    is_engine_file,
    is_older,
    write_engine,
)
from deploy_attn.export.artifact import write_artifact
from deploy_attn.jetson.artifact import Artifact, file_sha256, open_artifact
from deploy_attn.jetson.errors import BadRequest

FILES = {"model.onnx": b"graph", "model.fp16.onnx": b"typed graph", "precision_plan.json": b"{}"}
CONTENT = b"\x00engine" * 100
HERE = Here("10.3.0", "8.7")


@pytest.fixture
def artifact(tmp_path: Path) -> Artifact:
    folder = tmp_path / "cbam"
    folder.mkdir()
    write_artifact(folder, FILES, {"name": "cbam"})
    return open_artifact(str(folder))


def key_of(artifact: Artifact, **changes: Any) -> EngineKey:
    files = artifact.manifest["files"]
    key = EngineKey(
        engine="tensorrt",
        runtime_version=HERE.runtime_version,
        compute_capabilities=(HERE.compute_capability,),
        system="",
        precision="fp16",
        graph_file="model.onnx",
        graph_sha256=files["model.onnx"],
        plan_sha256=files["precision_plan.json"],
        options={"profile": {"input": [[1, 4], [1, 4], [2, 4]]}, "workspace_bytes": 1 << 28},
    )
    return replace(key, **changes)


def write(artifact: Artifact, content: bytes = CONTENT, **changes: Any) -> Path:
    """Writes an engine; the path of its file."""
    key = key_of(artifact, **changes)
    manifest = EngineManifest(key, "jetson-orin-nano", {"name": "Orin"}, {"kernels": 3}, ("beware",), sha256(content))
    return write_engine(Path(artifact.path), manifest, content).path


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def refusal(artifact: Artifact, here: Here = HERE, precision: str = "fp16") -> str:
    with pytest.raises(BadRequest) as raised:
        find_engine(artifact, "tensorrt", precision, here)
    assert raised.value.exit_code == 2
    return str(raised.value)


def test_an_engine_is_found_where_it_was_built_with_all_that_was_said_of_it(artifact: Artifact) -> None:
    path = write(artifact)
    found = find_engine(artifact, "tensorrt", "fp16", HERE)
    assert found is not None
    assert (found.path, found.content) == (path, CONTENT)
    assert found.manifest.key == key_of(artifact)
    assert (found.manifest.target, found.manifest.warnings) == ("jetson-orin-nano", ("beware",))
    assert (found.manifest.device, found.manifest.facts) == ({"name": "Orin"}, {"kernels": 3})


def test_its_files_are_named_for_engine_precision_and_key(artifact: Artifact) -> None:
    path = write(artifact)
    assert path.name == f"engine-tensorrt-fp16-{key_of(artifact).sha256[:12]}.engine"
    manifest = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    assert manifest["file"] == path.name
    assert manifest["sha256"] == file_sha256(str(path))
    assert manifest["key"]["sha256"] == key_of(artifact).sha256
    assert sorted(os.listdir(artifact.path)) == sorted([*FILES, "manifest.json", path.name, f"{path.stem}.json"])


def test_where_nothing_was_built_there_is_none(artifact: Artifact) -> None:
    assert find_engine(artifact, "tensorrt", "fp16", HERE) is None
    write(artifact)
    assert find_engine(artifact, "tensorrt", "fp32", HERE) is None
    assert find_engine(artifact, "tensorrt-rtx", "fp16", HERE) is None


@pytest.mark.parametrize(
    "change",
    [
        {"engine": "tensorrt-rtx"},
        {"runtime_version": "10.3.1"},
        {"compute_capabilities": ("8.6",)},
        {"compute_capabilities": ("8.7", "8.9")},
        {"system": "Linux aarch64"},
        {"precision": "fp32"},
        {"graph_file": "model.fp16.onnx"},
        {"graph_sha256": "0" * 64},
        {"plan_sha256": None},
        {"options": {}},
    ],
    ids=lambda change: next(iter(change)),
)
def test_whatever_changes_the_engine_changes_the_key(artifact: Artifact, change: dict[str, Any]) -> None:
    assert key_of(artifact, **change).sha256 != key_of(artifact).sha256


def test_the_order_of_options_does_not_change_the_key(artifact: Artifact) -> None:
    options = key_of(artifact).options
    backwards = dict(reversed(list(options.items())))
    assert list(backwards) != list(options)
    assert key_of(artifact, options=backwards).sha256 == key_of(artifact).sha256


# Where it does not belong


@pytest.mark.parametrize(
    ("here", "reason"),
    [
        (Here("10.13.2", "8.7"), "built by TensorRT 10.3.0; here is 10.13.2"),
        (Here("10.3.0.1", "8.7"), "built by TensorRT 10.3.0; here is 10.3.0.1"),
        (Here("10.3.0", "8.9"), "built for compute capability 8.7; this GPU is 8.9"),
    ],
)
def test_another_runtime_or_gpu_is_refused(artifact: Artifact, here: Here, reason: str) -> None:
    name = write(artifact).name
    message = refusal(artifact, here)
    assert f"{name}: {reason}" in message
    assert f"TensorRT {here.runtime_version} on compute capability {here.compute_capability}" in message
    assert "`deploy-attn build" in message


def test_another_system_is_refused(artifact: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    write(artifact, system="Linux aarch64")
    monkeypatch.setattr(engine_file, "this_system", lambda: "Windows AMD64")
    assert "built on Linux aarch64; here is Windows AMD64" in refusal(artifact)
    monkeypatch.setattr(engine_file, "this_system", lambda: "Linux aarch64")
    assert find_engine(artifact, "tensorrt", "fp16", HERE) is not None


@pytest.mark.parametrize(
    ("name", "reason"),
    [("model.onnx", "built from another model.onnx"), ("precision_plan.json", "another precision_p")],
)
def test_an_engine_of_the_artifact_before_it_was_exported_again_is_refused(
    artifact: Artifact, name: str, reason: str
) -> None:
    write(artifact)
    write_artifact(Path(artifact.path), {**FILES, name: b"exported again"}, {"name": "cbam"})
    assert reason in refusal(open_artifact(artifact.path))


def test_a_strongly_typed_engine_does_not_depend_on_the_plan(artifact: Artifact) -> None:
    typed = {"graph_file": "model.fp16.onnx", "graph_sha256": artifact.manifest["files"]["model.fp16.onnx"]}
    write(artifact, plan_sha256=None, **typed)
    write_artifact(Path(artifact.path), {**FILES, "precision_plan.json": b"[]"}, {"name": "cbam"})
    assert find_engine(open_artifact(artifact.path), "tensorrt", "fp16", HERE) is not None


def test_each_file_is_named_with_its_own_reason(artifact: Artifact) -> None:
    first = write(artifact, compute_capabilities=("5.3",))
    second = write(artifact, runtime_version="8.2.1.8")
    message = refusal(artifact)
    assert f"{first.name}: built for compute capability 5.3; this GPU is 8.7" in message
    assert f"{second.name}: built by TensorRT 8.2.1.8; here is 10.3.0" in message


def test_one_of_several_gpus_is_enough(artifact: Artifact) -> None:
    write(artifact, compute_capabilities=("8.0", "8.6", "8.7"))
    assert find_engine(artifact, "tensorrt", "fp16", HERE) is not None


@pytest.mark.parametrize(
    ("built", "here", "loads"),
    [
        ("10.3.0", "10.3.0", True),
        ("10.3.0", "10.13.2", True),
        ("10.3.0", "10.3.1", True),
        ("10.13.2", "10.3.0", False),
        ("10.3.0", "11.1.0", True),
        ("11.1.0", "10.13.0", False),
        ("8.6.1", "8.6.2.3", True),
        ("8.6.1", "10.3.0", True),
        ("8.6.1", "11.1.0", False),
        ("8.5.2", "8.6.1", False),
        ("8.5.2", "10.3.0", False),
        ("9.0.0", "10.3.0", False),
    ],
)
def test_a_version_compatible_engine_is_loaded_by_the_versions_that_nvidia_names(
    artifact: Artifact, built: str, here: str, loads: bool
) -> None:
    write(artifact, runtime_version=built, options={"version_compatible": True})
    if loads:
        assert find_engine(artifact, "tensorrt", "fp16", Here(here, "8.7")) is not None
    else:
        assert f"version-compatible, which does not reach {here}" in refusal(artifact, Here(here, "8.7"))


@pytest.mark.parametrize(
    ("capability", "loads"), [("8.0", True), ("8.9", True), ("12.0", True), ("7.5", False), ("5.3", False)]
)
def test_a_hardware_compatible_engine_is_loaded_from_ampere_on(
    artifact: Artifact, capability: str, loads: bool
) -> None:
    write(artifact, compute_capabilities=("8.6",), options={"hardware_compatible": True})
    here = Here(HERE.runtime_version, capability)
    if loads:
        assert find_engine(artifact, "tensorrt", "fp16", here) is not None
    else:
        assert f"8.0 and newer (hardware-compatible); this GPU is {capability}" in refusal(artifact, here)


def test_of_several_that_fit_the_one_built_here_comes_first_and_then_the_latest(artifact: Artifact) -> None:
    exact = write(artifact)
    older = write(artifact, options={"workspace_bytes": 1})
    other = write(artifact, runtime_version="10.2.0", options={"version_compatible": True})
    for age, path in enumerate((other, exact, older)):
        os.utime(path, ns=(0, 10**9 * (100 - age)))
    found = find_engine(artifact, "tensorrt", "fp16", HERE)
    assert found is not None
    assert found.path == exact


# Damage


def corrupt(path: Path) -> dict[str, Callable[[], object]]:
    """Ways to damage an engine or its manifest, by name."""
    words = path.with_suffix(".json")
    content = path.read_bytes()
    manifest = json.loads(words.read_text(encoding="utf-8"))
    flipped = bytes([content[0], content[1] ^ 1, *content[2:]])
    return {
        "a flipped bit": lambda: path.write_bytes(flipped),
        "cut": lambda: path.write_bytes(content[:-1]),
        "longer": lambda: path.write_bytes(content + b"\0"),
        "empty": lambda: path.write_bytes(b""),
        "gone": path.unlink,
        "no manifest": words.unlink,
        "an empty manifest": lambda: words.write_text(""),
        "a cut manifest": lambda: words.write_text(words.read_text()[:-20]),
        "a list": lambda: words.write_text("[]"),
        "a number": lambda: words.write_text("7"),
        "binary": lambda: words.write_bytes(b"\xff\xfe\x00"),
        "deep": lambda: words.write_text("[" * 100_000),
        "not a number": lambda: words.write_text('{"schema_version": NaN}'),
        "a later schema": lambda: words.write_text(json.dumps({**manifest, "schema_version": 2})),
        "another hash": lambda: words.write_text(json.dumps({**manifest, "sha256": "0" * 64})),
        "another target": lambda: words.write_text(json.dumps({**manifest, "target": "jetson-nano"})),
        "no key": lambda: words.write_text(sealed({name: manifest[name] for name in manifest if name != "key"})),
        "another key": lambda: words.write_text(sealed({**manifest, "key": {**manifest["key"], "system": "x"}})),
    }


def sealed(manifest: dict[str, Any]) -> str:
    """A manifest whose own hash holds, as somebody who changes it on purpose would write it."""
    rest = {name: value for name, value in manifest.items() if name != engine_file.SELF_HASH}
    return json.dumps({**rest, engine_file.SELF_HASH: engine_file._sha256(rest)})


REASONS = {
    "a flipped bit": "changed since it was built (sha256 does not match)",
    "cut": "changed since it was built (sha256 does not match)",
    "longer": "changed since it was built (sha256 does not match)",
    "empty": "changed since it was built (sha256 does not match)",
    "gone": "missing, though its manifest is there",
    "no manifest": "has no manifest (engine-tensorrt-fp16-",
    "an empty manifest": "its manifest cannot be read",
    "a cut manifest": "its manifest cannot be read",
    "a list": "its manifest is not that of a build",
    "a number": "its manifest is not that of a build",
    "binary": "its manifest cannot be read",
    "deep": "its manifest cannot be read",
    "not a number": "its manifest cannot be read",
    "a later schema": "its manifest is of schema version 2, not 1",
    "another hash": "its manifest changed since it was built",
    "another target": "its manifest changed since it was built",
    "no key": "its manifest lacks what a build writes",
    "another key": "its manifest is that of engine-tensorrt-fp16-",
}


@pytest.mark.parametrize("damage", list(REASONS))
def test_a_damaged_engine_is_never_loaded(artifact: Artifact, damage: str) -> None:
    path = write(artifact)
    corrupt(path)[damage]()
    assert f"{path.name}: {REASONS[damage]}" in refusal(artifact)
    assert find_built(Path(artifact.path), key_of(artifact)) is None


@given(st.data())
def test_no_byte_of_an_engine_may_change(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = tmp_path_factory.mktemp("engine")
    write_artifact(folder, FILES, {"name": "cbam"})
    artifact = open_artifact(str(folder))
    path = write(artifact)
    place = data.draw(st.integers(0, len(CONTENT) - 1))
    content = bytearray(CONTENT)
    content[place] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    assert "sha256 does not match" in refusal(artifact)


def test_an_intact_engine_is_loaded_beside_damaged_ones(artifact: Artifact) -> None:
    path = write(artifact)
    write(artifact, options={}).write_bytes(b"")
    found = find_engine(artifact, "tensorrt", "fp16", HERE)
    assert found is not None
    assert found.path == path


def test_files_of_other_names_are_left_alone(artifact: Artifact) -> None:
    for name in ("engine-tensorrt-fp16-notes.txt", "engine-tensorrt-fp16-0123456789ab.engine.bak", "engine.json"):
        (Path(artifact.path) / name).write_bytes(b"")
        assert not is_engine_file(name)
    assert find_engine(artifact, "tensorrt", "fp16", HERE) is None


# Writing


def test_the_same_key_is_found_again_and_another_is_not(artifact: Artifact) -> None:
    path = write(artifact)
    found = find_built(Path(artifact.path), key_of(artifact))
    assert found is not None
    assert found.path == path
    assert find_built(Path(artifact.path), key_of(artifact, options={})) is None


def test_an_engine_of_the_same_key_is_replaced(artifact: Artifact) -> None:
    path = write(artifact, b"old")
    assert write(artifact, b"new") == path
    found = find_engine(artifact, "tensorrt", "fp16", HERE)
    assert found is not None
    assert found.content == b"new"


@pytest.mark.parametrize("failing", [1, 2], ids=["the engine", "its manifest"])
def test_a_full_disk_leaves_nothing_new(artifact: Artifact, monkeypatch: pytest.MonkeyPatch, failing: int) -> None:
    before = sorted(os.listdir(artifact.path))
    written: list[Path] = []
    write_bytes = Path.write_bytes

    def full(path: Path, content: bytes) -> int:
        written.append(path)
        if len(written) == failing:
            write_bytes(path, content[:3])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write_bytes(path, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(BadRequest, match=r"was built and cannot be written to .*: No space left on device\. Make room"):
        write(artifact)
    assert sorted(os.listdir(artifact.path)) == before


def test_a_failed_rebuild_leaves_the_engine_that_was_there(artifact: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    write(artifact, b"old")
    monkeypatch.setattr(Path, "write_bytes", lambda path, content: (_ for _ in ()).throw(OSError(errno.EROFS, "ro")))
    with pytest.raises(BadRequest):
        write(artifact, b"new")
    monkeypatch.undo()
    found = find_engine(artifact, "tensorrt", "fp16", HERE)
    assert found is not None
    assert found.content == b"old"


def test_engine_and_manifest_stay_a_pair_whoever_writes_and_reads_at_once(artifact: Artifact) -> None:
    write(artifact, b"first")
    contents = [bytes([number]) * 50_000 for number in range(4)]
    writers = [
        threading.Thread(target=lambda c=content: [write(artifact, c) for _ in range(10)]) for content in contents
    ]
    for writer in writers:
        writer.start()
    seen = set()
    while any(writer.is_alive() for writer in writers):
        found = find_engine(artifact, "tensorrt", "fp16", HERE)
        assert found is not None
        seen.add(found.content)
    for writer in writers:
        writer.join()
    assert seen <= {b"first", *contents}


@pytest.mark.parametrize(
    ("version", "than", "older"),
    [("8.2.1.8", (8, 5), True), ("8.2.1.8", (8, 2), False), ("10.3.0", (8, 6), False), ("10.0.0b6", (10, 1), True)],
)
def test_versions_are_compared_as_numbers(version: str, than: tuple[int, int], older: bool) -> None:
    assert is_older(version, than) is older


def test_compute_capabilities_are_compared_as_numbers() -> None:
    assert [is_ampere_or_newer(one) for one in ("7.5", "8.0", "10.0", "12.1")] == [False, True, True, True]
