"""The room as a whole: Python 3.6, stdlib and numpy only, and a package of its own under any name."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOM = Path(__file__).resolve().parents[2] / "jetson"
FILES = sorted(ROOM.rglob("*.py"))
LATER_THAN_3_6 = {"_zoneinfo", "annotationlib", "contextvars", "dataclasses", "graphlib", "tomllib", "zoneinfo"}
ALLOWED = (sys.stdlib_module_names - LATER_THAN_3_6) | {"numpy"}
EACH_FILE = pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOM)))


def foreign_imports(file: Path, room: Path, source: str) -> list[str]:
    """What a file imports, in any scope, that is not stdlib, numpy or of its own room."""
    foreign: list[str] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            foreign += [alias.name for alias in node.names if alias.name.partition(".")[0] not in ALLOWED]
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if node.level == 0 and (module.partition(".")[0] not in ALLOWED or module == "__future__"):
                foreign.append(module)
            elif node.level > 0 and not stays_inside(file, room, node.level, module):
                foreign.append("." * node.level + module)
    return foreign


def stays_inside(file: Path, room: Path, level: int, module: str) -> bool:
    folder = file.parents[level - 1]
    target = folder.joinpath(*module.split(".")) if module else folder
    return target.is_relative_to(room) and (target.with_suffix(".py").is_file() or target.is_dir())


@pytest.fixture(scope="session")
def python_3_6() -> str | None:
    """A Python 3.6 that starts; a version manager's shim may be on PATH without one behind it."""
    python = shutil.which("python3.6")
    if python is None:
        return None
    started = subprocess.run([python, "-c", "pass"], capture_output=True, check=False)
    return python if started.returncode == 0 else None


@EACH_FILE
def test_a_file_imports_nothing_but_the_standard_library_numpy_and_its_room(file: Path) -> None:
    assert foreign_imports(file, ROOM, file.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "line",
    [
        "import onnx",
        "import numpy, torch.nn",
        "from deploy_attn.jetson.errors import BadRequest",
        "from ..engines import base",
        "from .nowhere import thing",
        "from __future__ import annotations",
        "def f():\n    import dataclasses",
    ],
)
def test_the_check_of_imports_finds_what_it_is_for(line: str) -> None:
    assert foreign_imports(ROOM / "metrics.py", ROOM, line) != []


@EACH_FILE
def test_a_file_is_python_3_6(file: Path, tmp_path: Path, python_3_6: str | None) -> None:
    copy = tmp_path / file.name
    shutil.copyfile(file, copy)
    ast.parse(copy.read_text(encoding="utf-8"), str(copy), feature_version=(3, 6))
    if python_3_6 is not None:
        code = "import io, sys; compile(io.open(sys.argv[1], encoding='utf-8').read(), sys.argv[1], 'exec')"
        done = subprocess.run([python_3_6, "-c", code, str(copy)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("newer", ["if (n := 1): pass", "def f(a, /): pass", "match x:\n    case 1: pass"])
def test_the_check_of_the_syntax_finds_what_it_is_for(newer: str) -> None:
    with pytest.raises(SyntaxError):
        ast.parse(newer, feature_version=(3, 6))


def test_the_folder_alone_is_a_package_under_another_name(tmp_path: Path) -> None:
    shutil.copytree(ROOM, tmp_path / "capsule", ignore=shutil.ignore_patterns("__pycache__"))
    names = [f"capsule.{file.stem}" for file in FILES if file.stem != "__init__"]
    code = (
        f"import importlib, sys\nsys.path.insert(0, {str(tmp_path)!r})\nsys.modules['deploy_attn'] = None\n"
        f"for name in {names!r}:\n    importlib.import_module(name)\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
