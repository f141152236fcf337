"""A capsule is opened whole or not at all, and an archive is unpacked inside its folder or not at all."""

import io
import json
import os
import tarfile
from pathlib import Path
from typing import Any, Callable, List

import pytest

from deploy_attn.jetson.capsule import CAPSULE, OWN_HASH, DamagedCapsule, is_inside, open_capsule, own_sha256, unpack
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
        (lambda place: (place / "artifact" / "reference.npz").unlink(), "artifact/reference.npz: missing"),
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


def archive(path: Path, members: List[tarfile.TarInfo]) -> str:
    with tarfile.open(str(path), "w:gz") as tar:
        for member in members:
            tar.addfile(member, io.BytesIO(b"x" * member.size))
    return str(path)


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname, made.size = kind, link, 3 if kind == tarfile.REGTYPE else 0
    return made


def test_an_archive_is_unpacked_into_a_folder_of_its_own(tmp_path: Path) -> None:
    made = archive(tmp_path / "a.tar.gz", [member("top/run.py"), member("top/jetson/a.py")])
    place = Path(unpack(made, str(tmp_path / "out")))
    assert place == tmp_path / "out" / "top"
    assert (place / "jetson" / "a.py").read_bytes() == b"xxx"
    with pytest.raises(BadRequest, match="is there already"):
        unpack(made, str(tmp_path / "out"))
    assert os.listdir(str(tmp_path / "out")) == ["top"]


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ([member("../evil")], "reaches outside"),
        ([member("top/../../evil")], "reaches outside"),
        ([member("/var/evil")], "reaches outside"),
        ([member("top/link", tarfile.SYMTYPE, "/etc")], "a link to '/etc'"),
        ([member("top/link", tarfile.LNKTYPE, "top/run.py")], "a link to 'top/run.py'"),
        ([member("top/pipe", tarfile.FIFOTYPE)], "neither a file nor a folder"),
        ([member("top/disk", tarfile.BLKTYPE)], "neither a file nor a folder"),
        ([member("top/tty", tarfile.CHRTYPE)], "neither a file nor a folder"),
        ([member("run.py")], "outside any folder"),
        ([member("one/a"), member("two/b")], "one and two side by side"),
        ([member("top/a"), member("top/a")], "File exists"),
        ([], "is empty"),
    ],
)
def test_an_archive_that_is_no_capsule_leaves_nothing(
    tmp_path: Path, members: List[tarfile.TarInfo], said: str
) -> None:
    made = archive(tmp_path / "a.tar.gz", members)
    with pytest.raises(BadRequest) as caught:
        unpack(made, str(tmp_path / "out"))
    assert said in str(caught.value)
    assert os.listdir(str(tmp_path / "out")) == []
    assert sorted(os.listdir(str(tmp_path))) == ["a.tar.gz", "out"]


@pytest.mark.parametrize("cut", [0, 10, 60, 150])
def test_an_archive_that_was_cut_off_is_refused(tmp_path: Path, cut: int) -> None:
    whole = Path(archive(tmp_path / "a.tar.gz", [member("top/{}".format(number)) for number in range(30)])).read_bytes()
    assert cut < len(whole)
    (tmp_path / "b.tar.gz").write_bytes(whole[:cut])
    with pytest.raises(BadRequest, match="cannot be unpacked|is empty"):
        unpack(str(tmp_path / "b.tar.gz"), str(tmp_path / "out"))
    assert os.listdir(str(tmp_path / "out")) == []


def test_a_file_that_is_missing_or_a_place_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="No such file"):
        unpack(str(tmp_path / "none.tar.gz"), str(tmp_path / "out"))
    (tmp_path / "file").write_text("")
    made = archive(tmp_path / "a.tar.gz", [member("top/run.py")])
    with pytest.raises(BadRequest, match="Not a directory|File exists"):
        unpack(made, str(tmp_path / "file"))
