"""Files beside an artifact's own: whether they can be kept is known before the work."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from deploy_attn.jetson.errors import BadRequest
from deploy_attn.stored import changing, check_can_keep, keep_text


def test_what_can_be_kept_leaves_no_trace_before_it_is(tmp_path: Path) -> None:
    check_can_keep(tmp_path / "bench.json")
    assert os.listdir(tmp_path) == []
    assert keep_text(tmp_path / "bench.json", "é").read_bytes() == "é".encode()


@pytest.mark.parametrize("name", ["absent/bench.json", "file/bench.json", "folder"])
def test_what_cannot_be_kept_is_refused_before_the_work_and_at_its_end(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    for attempt in (check_can_keep, lambda file: keep_text(file, "text")):
        with pytest.raises(BadRequest, match=rf"{name} cannot be written: .*\. Make room there, or choose a folder"):
            attempt(tmp_path / name)


def test_a_folder_that_vanished_is_said_before_it_is_changed(tmp_path: Path) -> None:
    with (
        pytest.raises(BadRequest, match=r"bench\.json cannot be written: No such file"),
        changing(tmp_path / "absent" / "bench.json"),
    ):
        pass
