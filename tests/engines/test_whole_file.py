"""A file is written whole and at once, or not at all."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from deploy_attn.engines.whole_file import write_whole


def no_links(*_: object) -> None:
    raise OSError(errno.EPERM, os.strerror(errno.EPERM))


@pytest.mark.parametrize("links", [True, False], ids=["with links", "without links"])
def test_what_is_there_is_replaced_only_where_that_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    if not links:
        monkeypatch.setattr(os, "link", no_links)
    place = tmp_path / "file"
    write_whole(place, b"first", replace=False)
    with pytest.raises(FileExistsError):
        write_whole(place, b"second", replace=False)
    assert place.read_bytes() == b"first"
    write_whole(place, b"third", replace=True)
    assert place.read_bytes() == b"third"
    assert os.listdir(tmp_path) == ["file"]


def test_a_link_is_replaced_and_what_it_points_to_stays(tmp_path: Path) -> None:
    (tmp_path / "mine").write_bytes(b"mine")
    (tmp_path / "link").symlink_to("mine")
    with pytest.raises(FileExistsError):
        write_whole(tmp_path / "link", b"other", replace=False)
    write_whole(tmp_path / "link", b"other", replace=True)
    assert ((tmp_path / "mine").read_bytes(), (tmp_path / "link").read_bytes()) == (b"mine", b"other")


@pytest.mark.parametrize("replace", [True, False])
@pytest.mark.parametrize("ending", [OSError(errno.ENOSPC, "full"), KeyboardInterrupt()])
def test_an_end_while_writing_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: BaseException, replace: bool
) -> None:
    def ends(descriptor: int) -> None:
        raise ending

    if replace:
        (tmp_path / "file").write_bytes(b"old")
    monkeypatch.setattr(os, "fsync", ends)
    with pytest.raises(type(ending)):
        write_whole(tmp_path / "file", b"new", replace)
    assert [(name, (tmp_path / name).read_bytes()) for name in os.listdir(tmp_path)] == [("file", b"old")] * replace


def test_it_has_the_mode_that_a_new_file_gets(tmp_path: Path) -> None:
    (tmp_path / "other").touch()
    write_whole(tmp_path / "file", b"", replace=False)
    assert (tmp_path / "file").stat().st_mode == (tmp_path / "other").stat().st_mode
