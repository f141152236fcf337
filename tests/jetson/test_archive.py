"""An archive is unpacked inside its folder or not at all, and a hostile one is refused before a file is written."""

import gzip
import io
import os
import shutil
import tarfile
from pathlib import Path
from typing import Any, List

import pytest

from deploy_attn.jetson import archive as unpacking
from deploy_attn.jetson.archive import unpack
from deploy_attn.jetson.errors import BadRequest

Members = List[tarfile.TarInfo]


def archive(path: Path, members: Members) -> str:
    with tarfile.open(str(path), "w:gz") as tar:
        for member in members:
            tar.addfile(member, io.BytesIO(b"x" * member.size))
    return str(path)


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname, made.size = kind, link, 3 if kind == tarfile.REGTYPE else 0
    return made


def header(name: str, kind: bytes = tarfile.REGTYPE, size: int = 0) -> bytes:
    """A header alone, of a size that nothing need follow."""
    made = tarfile.TarInfo(name)
    made.type, made.size = kind, size
    return made.tobuf(tarfile.GNU_FORMAT)


def with_pax(name: str, **said: str) -> bytes:
    """A header under another one that says otherwise."""
    made = tarfile.TarInfo(name)
    made.pax_headers = dict(said)
    return made.tobuf(tarfile.PAX_FORMAT)


def written(path: Path, content: bytes) -> str:
    path.write_bytes(gzip.compress(content + b"\0" * 1024))
    return str(path)


def refusal(made: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Why an archive is refused; nothing was written for it, not even in passing."""

    def nothing(*_: Any, **__: Any) -> None:
        raise AssertionError("something was written")

    monkeypatch.setattr(unpacking, "_write_member", nothing)
    before = sorted(os.listdir(str(tmp_path)))
    with pytest.raises(BadRequest) as caught:
        unpack(made, str(tmp_path / "out"))
    assert sorted(os.listdir(str(tmp_path))) == before
    return str(caught.value)


def test_an_archive_is_unpacked_into_a_folder_of_its_own(tmp_path: Path) -> None:
    members = [member("top", tarfile.DIRTYPE), member("top/run.py"), member("top/jetson/a.py")]
    made = archive(tmp_path / "a.tar.gz", members)
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
        ([member("top\\..\\evil")], "reaches outside"),
        ([member("top/\x1b[2J")], "'top/\\x1b[2J', which is no name of a file"),
        ([member("top/link", tarfile.SYMTYPE, "/etc")], "a link to '/etc'"),
        ([member("top/link", tarfile.LNKTYPE, "top/run.py")], "a link to 'top/run.py'"),
        ([member("top/pipe", tarfile.FIFOTYPE)], "neither a plain file nor a folder"),
        ([member("top/disk", tarfile.BLKTYPE)], "neither a plain file nor a folder"),
        ([member("top/tty", tarfile.CHRTYPE)], "neither a plain file nor a folder"),
        ([member("run.py")], "outside any folder"),
        ([member("one/a"), member("two/b")], "one and two side by side"),
        ([member("one", tarfile.DIRTYPE), member("two", tarfile.DIRTYPE)], "one and two side by side"),
        ([member("top/a"), member("top/a")], "'top/a' more than once"),
        ([member("top/a"), member("top/a", tarfile.DIRTYPE)], "'top/a' more than once"),
        ([member("top/a"), member("top/a/b")], "'top/a/b' more than once"),
        ([member("top/a/b"), member("top/a")], "'top/a' more than once"),
        ([member("top/a", tarfile.DIRTYPE), member("top/a")], "'top/a' more than once"),
        ([], "is empty"),
    ],
)
@pytest.mark.parametrize("good", [0, 1])
def test_an_archive_that_is_no_capsule_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, members: Members, said: str, good: int
) -> None:
    """Also where what comes before is fine."""
    first = [member("top/first")] * good if members and "side by side" not in said else []
    assert said in refusal(archive(tmp_path / "a.tar.gz", first + members), tmp_path, monkeypatch)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (header("top/big", size=1 << 40), "a header that no capsule has"),
        (header("top/a", size=5 << 30), "cannot be unpacked"),
        (header("top/sparse", tarfile.GNUTYPE_SPARSE), "a header that no capsule has"),
        (header("././@LongLink", tarfile.GNUTYPE_LONGNAME, 1 << 30), "a header that no capsule has"),
        (header("././@LongLink", tarfile.GNUTYPE_LONGLINK, 1 << 30), "a header that no capsule has"),
        (header("pax", tarfile.XHDTYPE, 1 << 30), "a header that no capsule has"),
        (header("pax", tarfile.XGLTYPE, 1 << 30), "a header that no capsule has"),
        (header("pax", tarfile.SOLARIS_XHDTYPE, -512), "a header that no capsule has"),
        (header("././@LongLink", tarfile.GNUTYPE_LONGNAME) * 5000, "cannot be unpacked"),
        (with_pax("top/a", path="top/../../evil"), "reaches outside"),
        (with_pax("top/a", path="/evil"), "reaches outside"),
        (with_pax("top/a", path="top/a\0b"), "reaches outside"),
        (with_pax("top/a", size="-512"), "neither a plain file nor a folder"),
        (with_pax("top/a", size=str(1 << 50)), "or 8 GiB, which no capsule has"),
        (
            with_pax("top/a", **{"GNU.sparse.size": "512", "GNU.sparse.map": "0,0"}),
            "neither a plain file nor a folder",
        ),
    ],
)
def test_a_header_that_lies_is_refused_and_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, said: str
) -> None:
    assert said in refusal(written(tmp_path / "a.tar.gz", content), tmp_path, monkeypatch)


@pytest.mark.parametrize(("bound", "most"), [("_MOST_MEMBERS", 3), ("_MOST_BYTES", 11)])
def test_more_than_any_capsule_has_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bound: str, most: int
) -> None:
    made = archive(tmp_path / "a.tar.gz", [member("top/{}".format(number)) for number in range(4)])
    monkeypatch.setattr(unpacking, bound, most + 1)
    unpack(made, str(tmp_path / "here"))
    monkeypatch.setattr(unpacking, bound, most)
    assert "which no capsule has" in refusal(made, tmp_path, monkeypatch)


@pytest.mark.parametrize("cut", [0, 10, 60, 150])
def test_an_archive_that_was_cut_off_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut: int) -> None:
    whole = Path(archive(tmp_path / "a.tar.gz", [member("top/{}".format(number)) for number in range(30)])).read_bytes()
    assert cut < len(whole)
    (tmp_path / "b.tar.gz").write_bytes(whole[:cut])
    said = refusal(str(tmp_path / "b.tar.gz"), tmp_path, monkeypatch)
    assert "cannot be unpacked" in said or "is empty" in said


def test_a_file_that_is_cut_off_inside_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As one that is changed between the look and the copy."""
    made = archive(tmp_path / "a.tar.gz", [member("top/a"), member("top/b")])
    monkeypatch.setattr(shutil, "copyfileobj", lambda source, goal: None)
    with pytest.raises(BadRequest, match=r"top/a is cut off"):
        unpack(made, str(tmp_path / "out"))
    assert os.listdir(str(tmp_path / "out")) == []


@pytest.mark.parametrize(
    ("code", "hint"), [(28, "No space left on device. Make room there."), (13, "Choose a folder that can be written.")]
)
def test_what_cannot_be_written_leaves_nothing_and_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, hint: str
) -> None:
    def full(*_: Any) -> None:
        raise OSError(code, os.strerror(code))

    made = archive(tmp_path / "a.tar.gz", [member("top/a")])
    monkeypatch.setattr(shutil, "copyfileobj", full)
    with pytest.raises(BadRequest) as caught:
        unpack(made, str(tmp_path / "out"))
    assert hint in str(caught.value)
    assert os.listdir(str(tmp_path / "out")) == []


def test_another_one_that_unpacks_there_is_left_alone(tmp_path: Path) -> None:
    """Whatever its draft is called."""
    made = archive(tmp_path / "a.tar.gz", [member("top/a")])
    draft = tmp_path / "out" / ".capsule-{}.partial".format(os.getpid())
    draft.mkdir(parents=True)
    unpack(made, str(tmp_path / "out"))
    assert sorted(os.listdir(str(tmp_path / "out"))) == sorted([draft.name, "top"])


def test_what_is_no_archive_or_no_folder_is_said(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="No such file"):
        unpack(str(tmp_path / "none.tar.gz"), str(tmp_path / "out"))
    os.mkfifo(str(tmp_path / "pipe"))
    for name in ("pipe", "."):
        with pytest.raises(BadRequest, match="is not a plain file"):
            unpack(str(tmp_path / name), str(tmp_path / "out"))
    (tmp_path / "file").write_text("")
    made = archive(tmp_path / "a.tar.gz", [member("top/run.py")])
    with pytest.raises(BadRequest, match="Not a directory|File exists"):
        unpack(made, str(tmp_path / "file"))
