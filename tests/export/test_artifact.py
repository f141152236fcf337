"""Holds that an artifact is written whole or not at all, and that nothing of the user's own is ever replaced."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from deploy_attn.export import artifact
from deploy_attn.export.artifact import check_destination, staged_folder, write_artifact
from deploy_attn.jetson.artifact import open_artifact
from deploy_attn.jetson.errors import BadRequest

STAGES_AND_SLEEPS = """
import sys, time
from pathlib import Path
from deploy_attn.export.artifact import staged_folder, write_artifact
with staged_folder(Path(sys.argv[1]), True) as staging:
    write_artifact(staging, {"model.onnx": b"unfinished"}, {"name": "unfinished"})
    print("ready", flush=True)
    time.sleep(600)
"""


def _export(folder: Path, content: bytes = b"new", force: bool = False) -> None:
    with staged_folder(folder, force) as staging:
        write_artifact(staging, {"model.onnx": content, "plan.json": b"{}"}, {"name": "cbam"})


def _content(folder: Path) -> bytes:
    """The model of an artifact whose every hash holds."""
    return Path(open_artifact(str(folder)).file("model.onnx")).read_bytes()


def _tree(folder: Path) -> dict[str, bytes | None]:
    """Everything under a folder, hidden siblings included, with the contents of files."""
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """An artifact that is there already, verified once."""
    folder = tmp_path / "cbam"
    _export(folder, b"old")
    (folder / "verdict-onnxruntime.json").write_text("{}")
    return folder


@contextmanager
def _unchanged(folder: Path) -> Iterator[None]:
    """What is under a folder is the same, byte by byte, after the block."""
    before = _tree(folder)
    yield
    assert _tree(folder) == before


def _dead_pid() -> int:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
        return process.pid


# Written


def test_an_artifact_is_its_files_and_a_manifest_that_vouches_for_them(tmp_path: Path) -> None:
    _export(tmp_path / "cbam")
    assert sorted(_tree(tmp_path)) == ["cbam", "cbam/manifest.json", "cbam/model.onnx", "cbam/plan.json"]
    opened = open_artifact(str(tmp_path / "cbam"))
    assert opened.manifest["name"] == "cbam"
    assert list(opened.manifest["files"]) == ["model.onnx", "plan.json"]
    assert _content(tmp_path / "cbam") == b"new"


def test_the_manifest_that_was_written_is_returned(tmp_path: Path) -> None:
    written = write_artifact(tmp_path, {"model.onnx": b"x"}, {"name": "se"})
    assert written == json.loads((tmp_path / "manifest.json").read_text(encoding="utf-8"))


def test_the_folder_appears_only_when_it_is_whole(tmp_path: Path) -> None:
    with staged_folder(tmp_path / "cbam", False) as staging:
        write_artifact(staging, {"model.onnx": b"x"}, {})
        assert staging.parent == tmp_path
        assert staging.name.startswith(".cbam.")
        assert not (tmp_path / "cbam").exists()
    assert not staging.exists()
    assert (tmp_path / "cbam").is_dir()


def test_parent_folders_are_made(tmp_path: Path) -> None:
    _export(tmp_path / "a" / "b" / "cbam")
    assert _content(tmp_path / "a" / "b" / "cbam") == b"new"


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o755), (0o077, 0o700), (0o002, 0o775)])
def test_the_folder_has_the_mode_that_the_umask_gives(tmp_path: Path, mask: int, mode: int) -> None:
    before = os.umask(mask)
    try:
        _export(tmp_path / "cbam")
        assert os.umask(mask) == mask
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "cbam").stat().st_mode) == mode


@pytest.mark.parametrize("exchanges", [True, False], ids=["in one step", "in two steps"])
def test_force_replaces_an_artifact_and_leaves_nothing_of_it(
    old: Path, monkeypatch: pytest.MonkeyPatch, exchanges: bool
) -> None:
    if not exchanges:
        monkeypatch.setattr(artifact, "_exchanged", lambda first, second: False)
    _export(old, b"new", force=True)
    assert _content(old) == b"new"
    assert sorted(_tree(old.parent)) == ["cbam", "cbam/manifest.json", "cbam/model.onnx", "cbam/plan.json"]


def test_force_replaces_a_damaged_artifact(old: Path) -> None:
    (old / "model.onnx").write_bytes(b"damaged")
    (old / "plan.json").unlink()
    _export(old, b"new", force=True)
    assert _content(old) == b"new"


@pytest.mark.parametrize(
    "name",
    [
        "engine-tensorrt-fp16-0123456789ab.engine",
        "engine-tensorrt-rtx-fp32-0123456789ab.json",
        ".engine-tensorrt-fp16-0123456789ab.engine.4711.partial",
    ],
)
def test_force_replaces_an_artifact_with_the_engines_that_were_built_of_it(old: Path, name: str) -> None:
    (old / name).write_bytes(b"of the old graph")
    _export(old, b"new", force=True)
    assert sorted(_tree(old.parent)) == ["cbam", "cbam/manifest.json", "cbam/model.onnx", "cbam/plan.json"]


def test_force_replaces_an_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "cbam").mkdir()
    _export(tmp_path / "cbam", force=True)
    assert _content(tmp_path / "cbam") == b"new"


def test_force_is_not_needed_where_nothing_is(tmp_path: Path) -> None:
    _export(tmp_path / "cbam", force=True)
    assert _content(tmp_path / "cbam") == b"new"


@pytest.mark.parametrize("path", [".", "../cbam"])
def test_force_replaces_the_current_folder_however_it_is_named(
    old: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.chdir(old)
    _export(Path(path), b"new", force=True)
    assert _content(old) == b"new"
    assert [entry.name for entry in old.parent.iterdir()] == ["cbam"]


def test_the_last_of_two_exports_to_one_place_stays(old: Path) -> None:
    with staged_folder(old, True) as staging:
        _export(old, b"inner", force=True)
        write_artifact(staging, {"model.onnx": b"outer"}, {})
    assert _content(old) == b"outer"
    assert [entry.name for entry in old.parent.iterdir()] == ["cbam"]


# Not written


@pytest.mark.parametrize("error", [ValueError("x"), BadRequest("x"), KeyboardInterrupt(), SystemExit(1)], ids=repr)
def test_an_exception_leaves_the_old_artifact_and_no_sibling(old: Path, error: BaseException) -> None:
    with _unchanged(old.parent), pytest.raises(type(error)), staged_folder(old, True) as staging:
        write_artifact(staging, {"model.onnx": b"new"}, {})
        raise error


def test_an_exception_leaves_nothing_where_nothing_was(tmp_path: Path) -> None:
    with _unchanged(tmp_path), pytest.raises(ValueError), staged_folder(tmp_path / "cbam", False) as staging:
        (staging / "model.onnx").write_bytes(b"new")
        raise ValueError


def test_a_full_disk_is_a_bad_request_and_leaves_the_old_artifact(old: Path) -> None:
    with (
        _unchanged(old.parent),
        pytest.raises(BadRequest, match="cbam cannot be written: No space left"),
        staged_folder(old, True),
    ):
        raise OSError(28, "No space left on device")


def test_without_force_an_artifact_is_not_replaced(old: Path) -> None:
    with _unchanged(old.parent), pytest.raises(BadRequest, match=r"exists already.*--force"):
        _export(old)


@pytest.mark.parametrize("kind", ["empty folder", "file", "link", "dangling link"])
def test_without_force_nothing_at_all_is_replaced(tmp_path: Path, kind: str) -> None:
    place = tmp_path / "cbam"
    if kind == "empty folder":
        place.mkdir()
    elif kind == "file":
        place.write_text("mine")
    else:
        place.symlink_to(tmp_path if kind == "link" else tmp_path / "nowhere")
    with pytest.raises(BadRequest, match="exists already"):
        _export(place)
    assert os.path.lexists(place)
    assert [entry.name for entry in tmp_path.iterdir()] == ["cbam"]


@pytest.mark.parametrize(
    "names", [["thesis.tex"], ["a", "b"], [".git"], ["verdict.json"], ["model.onnx.bak"], ["my.engine"]]
)
def test_force_refuses_a_folder_with_foreign_files_by_name(old: Path, names: list[str]) -> None:
    for name in names:
        (old / name).write_text("mine")
    with (
        _unchanged(old.parent),
        pytest.raises(BadRequest, match=rf"holds what no export wrote \({', '.join(names)}\)"),
    ):
        _export(old, force=True)


def test_a_foreign_folder_counts_like_a_foreign_file(old: Path) -> None:
    (old / "notes").mkdir()
    with _unchanged(old.parent), pytest.raises(BadRequest, match=r"\(notes\)"):
        _export(old, force=True)


def test_of_many_foreign_files_five_are_named(old: Path) -> None:
    for index in range(9):
        (old / f"file{index}").touch()
    with pytest.raises(BadRequest, match=r"\(file0, file1, file2, file3, file4\)"):
        check_destination(old, force=True)


@pytest.mark.parametrize(
    "manifest",
    [
        pytest.param({"name": "My web app", "icons": []}, id="of a web app"),
        pytest.param({"files": {"manifest.json": "x", "precious.txt": "x"}}, id="without a hash of its own"),
        pytest.param([1, 2], id="a list"),
        pytest.param("{", id="no JSON"),
        pytest.param({"manifest_sha256": "x"}, id="without files"),
        pytest.param({"manifest_sha256": "x", "files": None}, id="files are null"),
        pytest.param({"manifest_sha256": "x", "files": 3}, id="files are a number"),
        pytest.param({"manifest_sha256": "x", "files": [["precious.txt"]]}, id="files are a list"),
    ],
)
def test_force_refuses_a_folder_with_a_strangers_manifest(tmp_path: Path, manifest: Any) -> None:
    place = tmp_path / "site"
    place.mkdir()
    (place / "manifest.json").write_text(manifest if isinstance(manifest, str) else json.dumps(manifest))
    (place / "precious.txt").write_text("mine")
    with _unchanged(tmp_path), pytest.raises(BadRequest, match=r"precious\.txt"):
        _export(place, force=True)


def test_a_strangers_manifest_alone_is_refused_too(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text('{"name": "My web app"}')
    with pytest.raises(BadRequest, match=r"\(manifest\.json\)"):
        check_destination(tmp_path, force=True)


def test_force_refuses_a_link_even_to_an_artifact(old: Path) -> None:
    link = old.parent / "link"
    link.symlink_to(old, target_is_directory=True)
    with _unchanged(old), pytest.raises(BadRequest, match="is not a folder, so --force does not replace it"):
        _export(link, force=True)
    assert link.is_symlink()


def test_force_refuses_a_plain_file(tmp_path: Path) -> None:
    (tmp_path / "cbam").write_text("mine")
    with _unchanged(tmp_path), pytest.raises(BadRequest, match="is not a folder"):
        _export(tmp_path / "cbam", force=True)


def test_a_folder_that_appears_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="exists already"), staged_folder(tmp_path / "cbam", False) as staging:
        write_artifact(staging, {"model.onnx": b"new"}, {})
        (tmp_path / "cbam").mkdir()
        (tmp_path / "cbam" / "theirs").write_text("theirs")
    assert _tree(tmp_path) == {"cbam": None, "cbam/theirs": b"theirs"}


def test_a_foreign_file_that_appears_meanwhile_is_not_removed(old: Path) -> None:
    with pytest.raises(BadRequest, match=r"\(theirs\)"), staged_folder(old, True) as staging:
        write_artifact(staging, {"model.onnx": b"new"}, {})
        (old / "theirs").write_text("theirs")
    assert _content(old) == b"old"
    assert (old / "theirs").read_text() == "theirs"


# Places that cannot be written


@pytest.mark.parametrize("below", ["cbam", "a/cbam", "a/b/cbam"])
def test_a_parent_that_is_a_file_is_refused(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").write_text("mine")
    with _unchanged(tmp_path), pytest.raises(BadRequest, match="file is not a folder"):
        _export(tmp_path / "file" / below)


def test_a_parent_that_is_a_dangling_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(BadRequest, match="cannot be written"):
        _export(tmp_path / "link" / "cbam")
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("name", ["cbam", "deeper/cbam"])
def test_a_parent_without_permission_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, force: bool
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with _unchanged(tmp_path), pytest.raises(BadRequest, match=f"no permission in {tmp_path}"):
        _export(tmp_path / name, force=force)


def test_an_artifact_in_a_parent_without_permission_is_refused(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with _unchanged(old.parent), pytest.raises(BadRequest, match="no permission"):
        _export(old, force=True)


def _refuse(*_: object, **__: object) -> None:
    raise PermissionError(13, "Permission denied")


@pytest.mark.parametrize(("owner", "name"), [(tempfile, "mkdtemp"), (Path, "mkdir"), (Path, "rename")], ids=str)
def test_whatever_the_file_system_refuses_is_a_bad_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: object, name: str
) -> None:
    monkeypatch.setattr(owner, name, _refuse)
    with _unchanged(tmp_path), pytest.raises(BadRequest, match="cannot be written: Permission denied"):
        _export(tmp_path / "cbam")


def test_checking_a_destination_touches_nothing(old: Path) -> None:
    with _unchanged(old.parent):
        check_destination(old, force=True)
        check_destination(old.parent / "a" / "b", force=False)


# Processes that are killed


def test_a_killed_export_leaves_the_old_artifact_and_the_next_one_cleans_up(old: Path) -> None:
    before = _tree(old)
    command = [sys.executable, "-c", STAGES_AND_SLEEPS, str(old)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    assert _tree(old) == before
    assert _content(old) == b"old"
    assert len(list(old.parent.glob(f".cbam.*-{process.pid}-*"))) == 1
    _export(old, b"new", force=True)
    assert _content(old) == b"new"
    assert [entry.name for entry in old.parent.iterdir()] == ["cbam"]


def _sibling(folder: Path, name: str) -> Path:
    sibling = folder.parent / name
    sibling.mkdir()
    (sibling / "model.onnx").write_bytes(b"half")
    return sibling


def test_only_what_dead_exports_of_the_same_place_left_is_removed(old: Path) -> None:
    dead = _dead_pid()
    gone = _sibling(old, f".cbam.deploy-attn-partial-{dead}-abc")
    kept = [
        _sibling(old, f".cbam.deploy-attn-partial-{os.getpid()}-abc"),
        _sibling(old, ".cbam.deploy-attn-partial-1-abc"),
        _sibling(old, f".eca.deploy-attn-partial-{dead}-abc"),
        _sibling(old, ".cbam.deploy-attn-partial-mine"),
        _sibling(old, f"cbam.deploy-attn-partial-{dead}-abc"),
        _sibling(old, ".cbam"),
    ]
    _export(old, force=True)
    assert not gone.exists()
    assert all((folder / "model.onnx").is_file() for folder in kept)


def test_a_sibling_of_a_process_of_another_user_is_kept(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "kill", _refuse)
    sibling = _sibling(old, f".cbam.deploy-attn-partial-{_dead_pid()}-abc")
    _export(old, force=True)
    assert sibling.is_dir()


def test_an_artifact_that_a_kill_left_retired_survives_an_export_that_fails(old: Path) -> None:
    old.rename(old.with_name(f".cbam.deploy-attn-partial-{_dead_pid()}-abc-old"))
    with pytest.raises(ValueError), staged_folder(old, True):
        raise ValueError
    assert b"old" in _tree(old.parent).values()


# Where two folders cannot be exchanged in one step


def test_where_the_second_step_fails_the_old_artifact_comes_back(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real_rename = Path.rename

    def rename(self: Path, target: Path) -> Path:
        if target == old and not self.name.endswith("-old"):
            raise PermissionError(13, "Permission denied")
        return real_rename(self, target)

    monkeypatch.setattr(artifact, "_exchanged", lambda first, second: False)
    monkeypatch.setattr(Path, "rename", rename)
    with _unchanged(old.parent), pytest.raises(BadRequest, match="Permission denied"):
        _export(old, b"new", force=True)
    assert _content(old) == b"old"


def test_where_the_first_step_fails_the_old_artifact_stays(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artifact, "_exchanged", lambda first, second: False)
    monkeypatch.setattr(Path, "rename", _refuse)
    with _unchanged(old.parent), pytest.raises(BadRequest, match="Permission denied"):
        _export(old, b"new", force=True)
