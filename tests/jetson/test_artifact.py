"""An artifact opens only if every byte is what its manifest vouches for; the error names what is not."""

import gc
import io
import json
import shutil
import warnings
import zipfile
from pathlib import Path
from typing import Any, Callable, Dict, List

import numpy as np
import pytest

from deploy_attn.jetson.artifact import (
    SCHEMA_VERSION,
    SELF_HASH,
    file_sha256,
    manifest_sha256,
    open_artifact,
    read_manifest,
)
from deploy_attn.jetson.errors import BadRequest, DamagedArtifact, DeployAttnError

Array = Any  # of numpy: its own types take no parameters on Python 3.6

FILES = ("certificate.json", "model.onnx", "reference.npz")
CASES = ("normal", "far_mean")


def arrays() -> Dict[str, Array]:
    """Two inputs and two outputs for each case, the cases in another order than the manifest's."""
    keys = [
        f"{case}/{part}"
        for case in reversed(CASES)
        for part in ("inputs/x", "inputs/mask", "outputs/y", "outputs/gate")
    ]
    return {key: np.full((2, 3), index, dtype=np.float32) for index, key in enumerate(keys)}


def npz(contents: Dict[str, Array], compressed: bool = False) -> bytes:
    """As numpy on the host writes it; numpy 1.13 would take a name like `inputs//block/x` for a path and shorten it."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED) as archive:
        for key, array in contents.items():
            archive.writestr(f"{key}.npy", npy(array))
    return buffer.getvalue()


def npy(array: Array) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def write(folder: Path, reference: bytes, **manifest: Any) -> Path:
    """A small artifact as an export writes it; what it calls a model is never run here."""
    folder.mkdir()
    files = {"model.onnx": b"\x08\x08 not really a model", "certificate.json": b"{}\n", "reference.npz": reference}
    tolerances = {"fp32": {"rms_relative": 1e-5, "worst_relative": 5e-4, "reason": "another order"}}
    for name, content in files.items():
        (folder / name).write_bytes(content)
    whole = {"schema_version": SCHEMA_VERSION, "name": "se", "cases": list(CASES), "tolerances": tolerances, **manifest}
    whole["files"] = {name: file_sha256(str(folder / name)) for name in sorted(files)}
    whole[SELF_HASH] = manifest_sha256(whole)
    (folder / "manifest.json").write_text(json.dumps(whole, indent=2), encoding="utf-8")
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write(tmp_path / "se", npz(arrays()))


def flip(file: Path, position: int) -> None:
    content = bytearray(file.read_bytes())
    content[position] ^= 1
    file.write_bytes(bytes(content))


def edit(folder: Path, change: Callable[[Dict[str, Any]], object], sealed: bool = False) -> None:
    """Edits the manifest; with `sealed` its own hash is made again, as a forger would."""
    file = folder / "manifest.json"
    manifest = json.loads(file.read_text(encoding="utf-8"))
    change(manifest)
    if sealed:
        manifest["manifest_sha256"] = manifest_sha256(manifest)
    file.write_text(json.dumps(manifest), encoding="utf-8")


def files_named(folder: Path) -> List[str]:
    """What the error of opening a damaged artifact names, line by line."""
    with pytest.raises(DamagedArtifact) as raised:
        open_artifact(str(folder))
    assert raised.value.exit_code == 1
    assert str(folder) in str(raised.value)
    return [line.strip().partition(":")[0] for line in str(raised.value).splitlines()[1:-1]]


def test_an_untouched_artifact_opens_and_shows_its_manifest(folder: Path) -> None:
    artifact = open_artifact(str(folder))
    assert artifact.manifest == json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    assert sorted(artifact.manifest["files"]) == list(FILES)
    assert Path(artifact.file("model.onnx")).read_bytes() == (folder / "model.onnx").read_bytes()


def test_an_artifact_may_be_moved(folder: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(str(folder), str(tmp_path / "elsewhere" / "other name"))
    assert open_artifact(moved).manifest["name"] == "se"


def test_a_file_that_the_manifest_does_not_list_is_no_damage(folder: Path) -> None:
    (folder / "verdict-onnxruntime.json").write_text("{}", encoding="utf-8")
    open_artifact(str(folder))


@pytest.mark.parametrize("position", [0, -1], ids=["first", "last"])
@pytest.mark.parametrize("name", FILES)
def test_one_flipped_bit_names_exactly_that_file(folder: Path, name: str, position: int) -> None:
    flip(folder / name, position)
    assert files_named(folder) == [name]


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    assert files_named(folder) == [name]


@pytest.mark.parametrize("name", FILES)
def test_a_link_is_no_file_of_the_artifact_even_to_the_same_bytes(folder: Path, tmp_path: Path, name: str) -> None:
    (folder / name).rename(tmp_path / name)
    (folder / name).symlink_to(tmp_path / name)
    assert files_named(folder) == [name]


def test_a_folder_in_a_files_place_is_named(folder: Path) -> None:
    (folder / "model.onnx").unlink()
    (folder / "model.onnx").mkdir()
    assert files_named(folder) == ["model.onnx"]


def test_every_damaged_file_is_named_at_once(folder: Path) -> None:
    flip(folder / "reference.npz", 40)
    (folder / "model.onnx").unlink()
    edit(folder, lambda manifest: manifest.update(name="eca"))
    assert files_named(folder) == ["manifest.json", "model.onnx", "reference.npz"]


@pytest.mark.parametrize(
    "change",
    [
        lambda manifest: manifest["tolerances"]["fp32"].update(rms_relative=1.0),
        lambda manifest: manifest.update(name="eca"),
        lambda manifest: manifest.update(extra=None),
        lambda manifest: manifest.pop("cases"),
        lambda manifest: manifest["cases"].reverse(),
        lambda manifest: manifest["files"].pop("model.onnx"),
        lambda manifest: manifest.pop("manifest_sha256"),
        lambda manifest: manifest.update(manifest_sha256=None),
    ],
    ids=["tolerance", "name", "new key", "lost key", "order of cases", "unlisted file", "no hash", "null hash"],
)
def test_an_edited_manifest_is_named(folder: Path, change: Callable[[Dict[str, Any]], object]) -> None:
    edit(folder, change)
    assert files_named(folder) == ["manifest.json"]


def test_no_single_flipped_bit_in_the_manifest_goes_unnoticed(folder: Path) -> None:
    file = folder / "manifest.json"
    whole = file.read_bytes()
    for position in range(len(whole)):
        flip(file, position)
        with pytest.raises(DeployAttnError):
            open_artifact(str(folder))
        file.write_bytes(whole)
    open_artifact(str(folder))


def test_the_layout_of_the_manifests_text_is_no_damage(folder: Path) -> None:
    edit(folder, lambda manifest: manifest.update(dict(sorted(manifest.items(), reverse=True))))
    open_artifact(str(folder))


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"not JSON", b"\xff\xfe\x00", b"[]", b"null", b'"text"', b"[" * 100_000],
    ids=["empty", "cut off", "text", "not UTF-8", "list", "null", "string", "nested too deep"],
)
def test_a_manifest_that_is_no_json_object_is_named(folder: Path, content: bytes) -> None:
    (folder / "manifest.json").write_bytes(content)
    with pytest.raises(DamagedArtifact, match=r"manifest\.json"):
        open_artifact(str(folder))


@pytest.mark.parametrize("name", ["../x", "sub/x", "/etc/hostname", "..", ".", ""])
def test_a_sealed_manifest_cannot_name_a_file_outside_the_folder(folder: Path, name: str) -> None:
    (folder.parent / "x").write_bytes(b"outside")
    (folder / "sub").mkdir()
    (folder / "sub" / "x").write_bytes(b"outside")
    edit(folder, lambda manifest: manifest["files"].update({name: file_sha256(str(folder.parent / "x"))}), sealed=True)
    assert files_named(folder) == [repr(name)]


@pytest.mark.parametrize("files", [None, [], "model.onnx"])
def test_a_sealed_manifest_must_list_its_files(folder: Path, files: object) -> None:
    edit(folder, lambda manifest: manifest.update(files=files), sealed=True)
    assert files_named(folder) == ["manifest.json"]


def test_a_sealed_manifest_with_another_files_hash_names_the_file(folder: Path) -> None:
    edit(folder, lambda manifest: manifest["files"].update({"model.onnx": None}), sealed=True)
    assert files_named(folder) == ["model.onnx"]


def test_what_is_not_an_artifact_is_a_bad_request(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("text", encoding="utf-8")
    (tmp_path / "folder" / "manifest.json").mkdir(parents=True)
    for path in (tmp_path, tmp_path / "nowhere", tmp_path / "file", tmp_path / "folder"):
        with pytest.raises(BadRequest, match="is not an artifact") as raised:
            open_artifact(str(path))
        assert raised.value.exit_code == 2
        assert str(path) in str(raised.value)


@pytest.mark.parametrize("version", [0, 2, "1", None])
def test_another_schema_version_is_a_bad_request_that_names_both(folder: Path, version: object) -> None:
    edit(folder, lambda manifest: manifest.update(schema_version=version), sealed=True)
    with pytest.raises(BadRequest) as raised:
        open_artifact(str(folder))
    assert raised.value.exit_code == 2
    assert f"schema version {version!r}" in str(raised.value)
    assert "reads version 1" in str(raised.value)


def test_reading_the_manifest_alone_checks_no_hash(folder: Path) -> None:
    edit(folder, lambda manifest: manifest.update(name="eca"))
    assert read_manifest(str(folder))["name"] == "eca"


def test_the_manifests_hash_covers_all_but_itself() -> None:
    manifest = {"b": [1, {"ä": 2.5}], "a": None}
    sealed = {"manifest_sha256": "anything", **dict(reversed(list(manifest.items())))}
    assert manifest_sha256(manifest) == manifest_sha256(sealed)
    assert manifest_sha256(manifest) != manifest_sha256({**manifest, "a": 0})


def test_the_hash_of_a_file_is_sha256_over_more_than_one_block(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    (tmp_path / "a").write_bytes(b"a" * 1_000_000 + b"a" * 200_000)
    (tmp_path / "b").write_bytes(b"a" * 1_000_000 + b"a" * 199_999 + b"b")
    assert file_sha256(str(tmp_path / "abc")) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert file_sha256(str(tmp_path / "a")) != file_sha256(str(tmp_path / "b"))


def test_cases_come_in_the_manifests_order_with_their_own_arrays(folder: Path) -> None:
    stored = arrays()
    cases = open_artifact(str(folder)).cases()
    assert [case.name for case in cases] == list(CASES)
    for case in cases:
        assert (sorted(case.inputs), sorted(case.outputs)) == (["mask", "x"], ["gate", "y"])
        for part, found in (("inputs", case.inputs), ("outputs", case.outputs)):
            for name, array in found.items():
                wanted = stored[f"{case.name}/{part}/{name}"]
                np.testing.assert_array_equal(array, wanted)
                assert (array.dtype, array.shape) == (wanted.dtype, wanted.shape)


def test_a_case_whose_name_begins_another_keeps_to_its_own_arrays(tmp_path: Path) -> None:
    stored = {f"{case}/{part}": np.ones(1) for case in ("a", "ab") for part in ("inputs/x", "outputs/y")}
    cases = open_artifact(str(write(tmp_path / "se", npz(stored), cases=["a"]))).cases()
    assert [(case.name, list(case.inputs), list(case.outputs)) for case in cases] == [("a", ["x"], ["y"])]


def test_the_name_of_a_tensor_may_hold_slashes(tmp_path: Path) -> None:
    stored = {"normal/inputs//block/x": np.ones(1), "normal/outputs/y": np.ones(1)}
    (case,) = open_artifact(str(write(tmp_path / "se", npz(stored), cases=["normal"]))).cases()
    assert list(case.inputs) == ["/block/x"]


def test_a_reference_that_no_hash_vouches_for_is_not_read(folder: Path) -> None:
    edit(folder, lambda manifest: manifest["files"].pop("reference.npz"), sealed=True)
    with pytest.raises(DamagedArtifact, match=r"reference\.npz"):
        open_artifact(str(folder)).cases()


def damaged_stream() -> bytes:
    """A zip whose directory is whole and whose first compressed stream is not."""
    content = bytearray(npz({key: np.arange(1000.0) for key in arrays()}, compressed=True))
    content[70:90] = b"\xff" * 20
    return bytes(content)


def entries_that_are_no_arrays() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for key in arrays():
            archive.writestr(f"{key}.npy", b"junk")
    return buffer.getvalue()


def without(part: str) -> bytes:
    return npz({key: array for key, array in arrays().items() if part not in key})


@pytest.mark.parametrize(
    "reference",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"no archive", id="text"),
        pytest.param(npz(arrays())[:-30], id="cut off"),
        pytest.param(npy(np.ones(3)), id="an array alone"),
        pytest.param(damaged_stream(), id="damaged stream"),
        pytest.param(entries_that_are_no_arrays(), id="entries that are no arrays"),
        pytest.param(npz({**arrays(), "normal/inputs/x": np.array([{}], dtype=object)}), id="pickled objects"),
        pytest.param(without("far_mean"), id="without a case"),
        pytest.param(without("inputs"), id="without inputs"),
        pytest.param(without("outputs"), id="without outputs"),
        pytest.param(npz({}), id="without arrays"),
    ],
)
def test_a_broken_reference_with_the_right_hash_is_named_and_left_closed(tmp_path: Path, reference: bytes) -> None:
    artifact = open_artifact(str(write(tmp_path / "se", reference)))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            artifact.cases()
        except DamagedArtifact as error:
            message = str(error)
        else:
            pytest.fail("a broken reference was read")
        gc.collect()
    assert "reference.npz" in message
    assert [str(warning.message) for warning in caught] == []
