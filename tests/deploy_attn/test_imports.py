"""What may be imported where, and what starts without the heavy libraries."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SHARED_BY_MODULES = ("base", "channel_gate", "disturb", "first_map", "own_layers", "removed", "tokens_attention")
HEAVY = ("torch", "onnx", "onnxruntime", "onnxsim", "tensorrt", "tensorrt_rtx", "PIL", "safetensors")


def blocked(modules: tuple[str, ...], code: str) -> subprocess.CompletedProcess[str]:
    """Runs code in a fresh interpreter where importing any of these modules fails."""
    block = f"import sys\nfor name in {modules!r}:\n    sys.modules[name] = None\n"
    return subprocess.run([sys.executable, "-c", block + code], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    "arguments", ["--help", "--version", "list", "list --json", "list --targets", "list --targets --json"]
)
def test_the_door_opens_without_any_library(arguments: str) -> None:
    code = f"from deploy_attn.cli import main\nmain({arguments.split()!r})"
    done = blocked((*HEAVY, "numpy", "typer", "rich", "click"), code)
    assert done.returncode == 0, done.stderr
    assert done.stdout


@pytest.mark.parametrize("command", ["list", "export", "verify", "doctor"])
def test_the_help_of_a_command_needs_no_heavy_library(command: str) -> None:
    done = blocked((*HEAVY, "numpy"), f"from deploy_attn.cli import main\nmain([{command!r}, '--help'])")
    assert done.returncode == 0, done.stderr


def module_names() -> list[str]:
    files = [file for room in ("deploy_attn", "export", "engines", "jetson") for file in (ROOT / room).rglob("*.py")]
    names = {str(file.relative_to(ROOT).with_suffix("")).replace("/", ".") for file in files}
    rooms = {name if name.startswith("deploy_attn") else f"deploy_attn.{name}" for name in names}
    return sorted(name.removesuffix(".__init__") for name in rooms if not name.endswith("__main__"))


def test_every_module_but_pytorchs_own_imports_without_a_heavy_library() -> None:
    from deploy_attn.modules.catalogue import entries

    shared = {f"deploy_attn.modules.{name}" for name in SHARED_BY_MODULES}
    shared |= {name for name in module_names() if name.endswith("_forms")}
    pytorch = {*shared, *(entry.module for entry in entries())}
    light = [name for name in module_names() if name not in pytorch]
    assert len(light) > 30
    imports = "\n".join(f"import {name}" for name in light)
    done = blocked(HEAVY, imports)
    assert done.returncode == 0, done.stderr


def test_whatever_the_package_names_is_there_when_it_is_asked_for() -> None:
    code = "import deploy_attn as d; print(d.engines.load); [getattr(d, name) for name in d.__all__]"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_importing_the_package_imports_no_room() -> None:
    code = "import deploy_attn, sys; print([m for m in sys.modules if m.startswith('deploy_attn.')])"
    assert blocked((), code).stdout.strip() == "[]"


@pytest.mark.parametrize("room", ["export", "engines"])
def test_a_room_refuses_to_be_imported_under_its_folders_name(room: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"import {room}"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert f"import deploy_attn.{room}, not {room}" in done.stderr


ALLOWED = {
    "jetson": (),
    "engines": ("deploy_attn.engines", "deploy_attn.jetson"),
    "export": ("deploy_attn.export", "deploy_attn.engines", "deploy_attn.jetson", "deploy_attn.modules"),
}


@pytest.mark.parametrize("room", list(ALLOWED))
def test_a_room_imports_only_what_lies_below_it(room: str) -> None:
    for file in (ROOT / room).rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            for name, line in _imported(node):
                if name.split(".")[0] == "deploy_attn":
                    assert name.startswith(ALLOWED[room]), f"{file.name}:{line} imports {name}"
                if room == "engines":
                    assert name.split(".")[0] != "torch", f"{file.name} imports torch"


def _imported(node: ast.AST) -> list[tuple[str, int]]:
    """Names that a statement imports, each with its line."""
    if isinstance(node, ast.Import):
        return [(alias.name, node.lineno) for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
        return [(node.module, node.lineno)]
    return []


def test_verify_needs_no_torch(tmp_path: Path) -> None:
    from deploy_attn import ExportRequest, export_artifact

    export_artifact(ExportRequest("s2", shape=(1, 16, 5, 6), fp16=True, output=tmp_path / "a"))
    absent = ("torch", "onnxsim", "PIL", "safetensors")
    done = blocked(absent, f"from deploy_attn.cli import main\nmain(['verify', {str(tmp_path / 'a')!r}])")
    assert done.returncode == 0, done.stderr
    assert "PASS" in done.stdout


def test_an_absent_engine_says_what_to_install(tmp_path: Path) -> None:
    from deploy_attn import ExportRequest, export_artifact

    export_artifact(ExportRequest("se", shape=(1, 16, 5, 6), output=tmp_path / "a"))
    done = blocked(("onnxruntime",), f"from deploy_attn.cli import main\nmain(['verify', {str(tmp_path / 'a')!r}])")
    assert done.returncode == 2
    assert "pip install 'deploy-attn[cpu]'" in done.stderr
