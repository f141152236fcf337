"""Layout and packaging: the wheel holds what the checkout holds, and works where the checkout is not."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
import zipfile
from importlib.metadata import Distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("export", "engines", "jetson")


def run(*command: object, cwd: Path) -> str:
    """Runs a command away from the checkout; its output if it succeeds."""
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME")}
    environment["PIP_DISABLE_PIP_VERSION_CHECK"] = "1"
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def needed(name: str, extra: str, path: list[str]) -> list[Distribution]:
    """A distribution with what it needs, as pip would install it, each from the first folder that has it."""
    left = [(canonicalize_name(name), extra)]
    for name, extra in left:
        for requirement in map(Requirement, found_in(path, name).requires or ()):
            if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
                wanted = ((canonicalize_name(requirement.name), of) for of in ("", *requirement.extras))
                left.extend(pair for pair in wanted if pair not in left)
    return [found_in(path, name) for name in dict(left)]


def found_in(path: list[str], name: str) -> Distribution:
    return next(iter(Distribution.discover(name=name, path=path)))


def test_the_package_list_is_the_tree() -> None:
    with (ROOT / "pyproject.toml").open("rb") as stream:
        listed = set(tomllib.load(stream)["tool"]["setuptools"]["packages"])
    inner = {file.parent.relative_to(ROOT) for file in (ROOT / "deploy_attn").rglob("__init__.py")}
    outer = {file.parent.relative_to(ROOT) for room in ROOMS for file in (ROOT / room).rglob("__init__.py")}
    found = {".".join(path.parts) for path in inner} | {".".join(("deploy_attn", *path.parts)) for path in outer}
    assert listed == found


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_is_linked_relatively(room: str) -> None:
    link = ROOT / "deploy_attn" / room
    assert link.is_symlink()
    assert os.readlink(link) == f"../{room}"


def test_the_two_onnxruntimes_are_never_asked_for_together() -> None:
    with (ROOT / "pyproject.toml").open("rb") as stream:
        project = tomllib.load(stream)["project"]
    extras = project["optional-dependencies"]
    assert not any(name.startswith("onnxruntime") for name in (*project["dependencies"], *extras["dev"]))
    assert {"cpu", "gpu", "rtx", "dev"} <= set(extras)
    assert not any(name.startswith("onnxruntime-gpu") for name in extras["cpu"])
    assert not any(name.startswith("onnxruntime>") for name in extras["gpu"])


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clean clone, or a copy where the sources are no checkout."""
    folder = tmp_path_factory.mktemp("clone") / "deploy-attn"
    if (ROOT / ".git").exists():
        run("git", "-c", f"safe.directory={ROOT}", "clone", "--quiet", ROOT, folder, cwd=folder.parent)
    else:
        shutil.copytree(ROOT, folder, symlinks=True, ignore=shutil.ignore_patterns(".venv", "build", "__pycache__"))
    return folder


@pytest.fixture(scope="module")
def wheel(clone: Path) -> Path:
    """The wheel built from the clone."""
    run(sys.executable, "-m", "build", "--wheel", "--outdir", clone.parent, clone, cwd=clone.parent)
    return next(clone.parent.glob("*.whl"))


def test_the_wheel_holds_every_source_file_and_nothing_else(clone: Path, wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    kinds = (".c", ".css", ".h", ".html", ".json", ".py", ".toml", ".typed")
    inside = {file.relative_to(clone) for file in (clone / "deploy_attn").rglob("*") if file.suffix in kinds}
    linked = {file.relative_to(clone) for room in ROOMS for file in (clone / room).rglob("*") if file.suffix in kinds}
    own = {path.as_posix() for path in inside if path.parts[1] not in ROOMS}
    assert names == own | {f"deploy_attn/{path.as_posix()}" for path in linked}


def empty_environment(folder: Path, wheel: Path) -> Path:
    """Its Python, with the wheel and what that says it needs: pip would take a minute, so the latter is linked to."""
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    run(python, "-m", "pip", "uninstall", "--quiet", "--yes", "setuptools", cwd=folder)  # Python 3.11 brings an old one
    run(python, "-m", "pip", "install", "--quiet", "--no-deps", wheel, cwd=folder)
    (packages,) = folder.glob("lib/python*/site-packages")
    for each in needed("deploy-attn", "cpu", [str(packages), *sys.path]):
        for name in {file.parts[0] for file in each.files or ()} - {"..", "__pycache__"}:
            if not (packages / name).exists():
                (packages / name).symlink_to(Path(str(each.locate_file(name))))
    run(python, "-m", "pip", "check", cwd=folder)
    return python


def test_the_wheel_does_the_main_job_in_an_empty_environment(wheel: Path, tmp_path: Path) -> None:
    environment, work = tmp_path / "venv", tmp_path / "work"
    work.mkdir()
    python = empty_environment(environment, wheel)
    command = environment / "bin" / "deploy-attn"
    assert "PASS" in run(command, "export", "cbam", "--fp16", cwd=work)
    assert (work / "out" / "cbam" / "model.fp16.onnx").is_file()
    assert "PASS" in run(command, "verify", "out/cbam", "--engine", "onnxruntime", cwd=work)
    assert "jetson-nano" in run(command, "export", "s2", "--fp16", "--target", "jetson-nano", cwd=work)
    assert "cbam_residual" in run(command, "list", cwd=work)
    assert str(environment) in run(
        python, "-c", "import deploy_attn.export; print(deploy_attn.export.__file__)", cwd=work
    )
