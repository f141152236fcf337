"""A file that a user asked for: what is refused before the work, and what at its end."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from deploy_attn.jetson.errors import BadRequest
from deploy_attn.output_file import check_output, write_output


def test_of_two_at_once_the_later_is_refused_and_the_earlier_stays(tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    for _ in range(2):
        check_output(file, False, "page.html")
    write_output(file, b"earlier", force=False)
    with pytest.raises(BadRequest, match=r"page\.html has appeared meanwhile.*--force"):
        write_output(file, b"later", force=False)
    assert file.read_bytes() == b"earlier"
    write_output(file, b"later", force=True)
    assert file.read_bytes() == b"later"
    assert os.listdir(tmp_path) == ["page.html"]


def test_folders_on_the_way_are_made(tmp_path: Path) -> None:
    write_output(tmp_path / "a" / "b" / "page.html", b"text", force=False)
    assert (tmp_path / "a" / "b" / "page.html").read_bytes() == b"text"


def test_a_file_on_the_way_is_named_as_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    with pytest.raises(BadRequest, match=r"page\.html cannot be written: (File exists|Not a directory)"):
        write_output(tmp_path / "a" / "page.html", b"text", force=False)


@pytest.mark.parametrize(
    ("make", "force", "said"),
    [
        (Path.mkdir, True, "is a folder. Name a file with -o"),
        (Path.touch, False, "exists already"),
        (os.mkfifo, True, "is not a plain file"),
        (lambda place: place.symlink_to("absent"), False, "exists already"),
        (lambda place: place.symlink_to("absent"), True, "is not a plain file"),
    ],
)
def test_what_is_not_meant_to_be_replaced_is_refused_before_the_work(
    tmp_path: Path, make: Callable[[Path], object], force: bool, said: str
) -> None:
    make(tmp_path / "it")
    with pytest.raises(BadRequest, match=said):
        check_output(tmp_path / "it", force, "page.html")
