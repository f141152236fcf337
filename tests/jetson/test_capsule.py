"""A capsule is opened whole or not at all."""

import json
from pathlib import Path
from typing import Any, Callable

import pytest

from deploy_attn.jetson.capsule import CAPSULE, OWN_HASH, DamagedCapsule, is_inside, open_capsule, own_sha256
from deploy_attn.jetson.errors import BadRequest
from tests.jetson import capsules

Damage = Callable[[Path], Any]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return Path(capsules.write(str(tmp_path)))


def rewritten(place: Path, **changed: Any) -> None:
    """capsule.json with other values and a hash that fits them."""
    listed = json.loads((place / CAPSULE).read_text())
    listed.update(changed)
    listed[OWN_HASH] = own_sha256(listed)
    (place / CAPSULE).write_text(json.dumps(listed))


def with_file(place: Path, name: str, sha256: str = "0" * 64) -> None:
    rewritten(place, files=dict(json.loads((place / CAPSULE).read_text())["files"], **{name: sha256}))


def test_a_capsule_says_what_it_is_for(place: Path) -> None:
    capsule = open_capsule(str(place))
    assert (capsule.name, capsule.target, capsule.engine) == ("gate", "board", "tensorrt")
    assert capsule.facts["device.compute_capability"] == "5.3"
    assert [case.name for case in capsule.artifact.cases()] == ["normal", "other"]
    assert "model.fp16.onnx" not in capsule.artifact.manifest["files"]


def test_what_a_run_leaves_beside_it_is_no_damage(place: Path) -> None:
    (place / "verdict.json").write_text("{}")
    (place / "engine-tensorrt-fp32-0.engine").write_bytes(b"engine")
    (place / "jetson" / "__pycache__").mkdir()
    open_capsule(str(place))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda place: (place / "run.py").write_text("print()"), "run.py: changed since it was bundled"),
        (lambda place: (place / "jetson" / "run.py").write_text(""), "jetson/run.py: changed since it was bundled"),
        (lambda place: (place / "artifact" / "model.onnx").unlink(), "artifact/model.onnx: missing"),
        (lambda place: (place / "reference.npz").unlink(), "reference.npz: missing"),
        (lambda place: (place / "jetson" / "json.py").write_text(""), "jetson/json.py: not a file of the capsule"),
        (lambda place: (place / "artifact" / "more").write_text(""), "artifact/more: not a file of the capsule"),
        (lambda place: (place / CAPSULE).write_text("{"), "cannot be read"),
        (lambda place: (place / CAPSULE).write_text("[]"), "holds no JSON object"),
        (lambda place: (place / CAPSULE).write_text("[" * 100000), "cannot be read"),
        (lambda place: with_file(place, "../outside"), "'../outside': not a file inside the capsule"),
        (lambda place: with_file(place, "/etc/passwd"), "'/etc/passwd': not a file inside the capsule"),
        (lambda place: with_file(place, "jetson"), "jetson: not a plain file"),
        (lambda place: rewritten(place, files=[]), "lists no files"),
        (lambda place: rewritten(place, target={}), "names no target"),
        (lambda place: rewritten(place, files={"a": "b"}), "lacks run.py, artifact/manifest.json"),
        (lambda place: rewritten(place, profile=[1]), "'profile' is not an object"),
        (lambda place: rewritten(place, reference=[1]), "'reference' is not an object"),
    ],
)
def test_a_damaged_capsule_is_refused_and_the_file_named(place: Path, damage: Damage, said: str) -> None:
    damage(place)
    with pytest.raises(DamagedCapsule) as caught:
        open_capsule(str(place))
    assert said in str(caught.value)
    assert "Unpack the archive again" in str(caught.value)
    assert caught.value.exit_code == 2


def test_a_changed_value_is_found_by_the_capsules_own_hash(place: Path) -> None:
    text = (place / CAPSULE).read_text()
    (place / CAPSULE).write_text(text.replace('"5.3"', '"8.7"'))
    with pytest.raises(DamagedCapsule, match="its own hash does not match"):
        open_capsule(str(place))


def test_a_link_in_place_of_a_file_is_refused(place: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_bytes((place / "run.py").read_bytes())
    (place / "run.py").unlink()
    (place / "run.py").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DamagedCapsule, match="run.py: a link"):
        open_capsule(str(place))


def test_an_artifact_that_was_exchanged_behind_the_capsules_back_is_refused(place: Path) -> None:
    (place / "artifact" / "model.onnx").write_bytes(b"another")
    capsules.seal(str(place))
    with pytest.raises(DamagedCapsule, match="not the file that the artifact's manifest vouches for"):
        open_capsule(str(place))


@pytest.mark.parametrize("changed", [{"with_reference": False}, {"manifest": {"cases": []}}])
def test_a_capsule_without_parity_cases_is_refused(tmp_path: Path, changed: Any) -> None:
    with pytest.raises(BadRequest, match="has no reference"):
        open_capsule(capsules.write(str(tmp_path), **changed))


def test_a_capsule_that_does_not_describe_its_reference_is_refused(place: Path) -> None:
    rewritten(place, reference={})
    with pytest.raises(BadRequest, match="has no reference"):
        open_capsule(str(place))


@pytest.mark.parametrize(
    "described",
    [
        {"noise": None},
        {"noise": None, "cases": {"normal": {"inputs": {}, "outputs": {}}}},
        {"noise": None, "cases": {"normal": 1, "other": 2}},
        {"noise": {"shape": [1, 4, 8, 8], "seed": 0, "severe": True}, "cases": {}},
        {"noise": 7, "cases": {}},
    ],
)
def test_a_reference_that_no_bundle_describes_so_is_damage(place: Path, described: Any) -> None:
    rewritten(place, reference=described)
    with pytest.raises(DamagedCapsule, match="cannot be read as parity cases"):
        open_capsule(str(place)).artifact.cases()


def test_a_reference_that_is_no_archive_of_arrays_is_damage(place: Path) -> None:
    (place / "reference.npz").write_bytes(b"PK no archive")
    capsules.seal(str(place))
    with pytest.raises(DamagedCapsule, match="it is not a zip archive"):
        open_capsule(str(place)).artifact.cases()


def test_another_schema_and_a_folder_that_is_none_are_refused(place: Path, tmp_path: Path) -> None:
    rewritten(place, schema_version=2)
    with pytest.raises(BadRequest, match="schema version 2"):
        open_capsule(str(place))
    with pytest.raises(BadRequest, match="is not a capsule"):
        open_capsule(str(tmp_path))


@pytest.mark.parametrize("name", ["a", "a/b.py", "a b/c"])
def test_a_name_inside(name: str) -> None:
    assert is_inside(name)


@pytest.mark.parametrize("name", ["", "/a", "../a", "a/../b", "a//b", "./a", "a/", "a\\b", "a\0b", ".", ".."])
def test_a_name_that_is_not_plainly_inside(name: str) -> None:
    assert not is_inside(name)
