"""The version of the code is that of its files."""

from __future__ import annotations

import shutil
from pathlib import Path

import deploy_attn
from deploy_attn.sweeping.made_with import CODE, code_version, digest_of, made_with

HOME = Path(deploy_attn.__file__).parent


def test_a_copy_without_links_is_the_same_code(tmp_path: Path) -> None:
    shutil.copytree(HOME, tmp_path / "copy", ignore=shutil.ignore_patterns("__pycache__"))  # as a wheel is
    (tmp_path / "copy" / "notes.txt").touch()
    assert digest_of(tmp_path / "copy") == digest_of(HOME)


def test_a_change_of_a_source_file_is_another_code(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "code.py").write_text("a = 1")
    seen = {digest_of(tmp_path)}
    (tmp_path / "inner" / "code.py").write_text("a = 2")
    seen.add(digest_of(tmp_path))
    (tmp_path / "inner" / "code.py").rename(tmp_path / "code.py")
    seen.add(digest_of(tmp_path))
    (tmp_path / "inner" / "board.toml").touch()
    seen.add(digest_of(tmp_path))
    assert len(seen) == 4


def test_versions_name_what_a_result_depends_on() -> None:
    assert {"torch", "onnx", "onnxruntime", "python"} < set(made_with())
    assert {"onnxslim", "tensorrt-rtx"} < set(made_with())  # a rival, and an engine
    assert made_with()[CODE] == code_version() == f"{deploy_attn.__version__}+{digest_of(HOME)}"
