"""The room as a whole: Python 3.6, stdlib and numpy only, and a package of its own under any name."""

import ast
import pkgutil
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import List

import pytest

ROOM = Path(__file__).resolve().parents[2] / "jetson"
FILES = sorted(ROOM.rglob("*.py"))
STANDARD = [sysconfig.get_paths()["stdlib"], str(sysconfig.get_config_var("DESTSHARED"))]
LATER_THAN_3_6 = {"_zoneinfo", "annotationlib", "contextvars", "dataclasses", "graphlib", "tomllib", "zoneinfo"}
ALLOWED = {name for _, name, _ in pkgutil.iter_modules(STANDARD)} | set(sys.builtin_module_names) | {"numpy"}
ENGINES = ("onnxruntime",)
EACH_FILE = pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOM)))


def foreign_imports(file: Path, room: Path, source: str) -> List[str]:
    """What a file imports that is not stdlib of Python 3.6, numpy, of its own room or, in a function, an engine."""
    foreign: List[str] = []
    tree = ast.parse(source)
    late = [node for made in ast.walk(tree) if isinstance(made, ast.FunctionDef) for node in ast.walk(made)]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            engines = ENGINES if node in late else ()
            foreign += [alias.name for alias in node.names if not allowed(alias.name) and alias.name not in engines]
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if node.level == 0 and (not allowed(module) or module == "__future__"):
                foreign.append(module)
            elif node.level > 0 and not stays_inside(file, room, node.level, module):
                foreign.append("." * node.level + module)
    return foreign


def allowed(module: str) -> bool:
    return module.partition(".")[0] in ALLOWED - LATER_THAN_3_6


def stays_inside(file: Path, room: Path, level: int, module: str) -> bool:
    folder = file.parents[level - 1]
    target = folder.joinpath(*module.split(".")) if module else folder
    return room in [target, *target.parents] and (target.with_suffix(".py").is_file() or target.is_dir())


@EACH_FILE
def test_a_file_imports_nothing_but_the_standard_library_numpy_and_its_room(file: Path) -> None:
    assert foreign_imports(file, ROOM, file.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "line",
    [
        "import onnx",
        "import onnxruntime",
        "def f():\n    import onnxruntime.tools",
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


def test_the_folder_alone_is_a_package_under_another_name(tmp_path: Path) -> None:
    shutil.copytree(str(ROOM), str(tmp_path / "capsule"), ignore=shutil.ignore_patterns("__pycache__"))
    names = ["capsule.{}".format(file.stem) for file in FILES if file.stem != "__init__"]
    code = (
        "import importlib, sys\nsys.path.insert(0, {!r})\nsys.modules['deploy_attn'] = None\n"
        "for name in {!r}:\n    importlib.import_module(name)\n"
    ).format(str(tmp_path), names)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=str(tmp_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        universal_newlines=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
