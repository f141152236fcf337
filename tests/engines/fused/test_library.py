"""The library of fused operators: built once, and each reason why it cannot be is told."""

from __future__ import annotations

import ctypes
import stat
import sys
from pathlib import Path

import numpy as np
import pytest

from deploy_attn.engines.fused.engine import FusedRunner
from deploy_attn.engines.fused.library import SYSTEMS, fused_library, has_compiler, library_file
from deploy_attn.jetson.errors import BadRequest, DeployAttnError


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own, and no compiler that the environment names."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("CC", raising=False)
    return tmp_path / "cache" / "deploy-attn"


def compiler(folder: Path, script: str) -> str:
    """A program that stands for a compiler."""
    file = folder / "compiler"
    file.write_text(f"#!{sys.executable}\n{script}")
    file.chmod(file.stat().st_mode | stat.S_IXUSR)
    return str(file)


def test_it_is_built_once_and_nothing_else_is_left(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = tmp_path / "count"
    script = (
        "import sys, pathlib\n"
        "pathlib.Path(sys.argv[sys.argv.index('-o') + 1]).write_bytes(b'library')\n"
        f"pathlib.Path({str(count)!r}).open('a').write('x')\n"
    )
    monkeypatch.setenv("CC", compiler(tmp_path, script))
    assert library_file() == fused_library() == fused_library()
    assert [file.read_bytes() for file in cache.iterdir()] == [b"library"]
    assert count.read_text() == "x"


@pytest.mark.usefixtures("cache")
def test_a_library_that_does_not_load_is_named_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = "import sys, pathlib\npathlib.Path(sys.argv[sys.argv.index('-o') + 1]).write_bytes(b'library')\n"
    monkeypatch.setenv("CC", compiler(tmp_path, script))
    refused = pytest.raises(BadRequest, match=r"does not take .*\.so: .*1\.16 or newer.*delete that file")
    with refused, FusedRunner(b""):
        pytest.fail("it was taken")


def test_another_compiler_builds_a_library_of_its_own(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = "import sys, pathlib\npathlib.Path(sys.argv[sys.argv.index('-o') + 1]).touch()\n"
    files = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv("CC", compiler(tmp_path / name, script))
        files.append(fused_library())
    assert len(set(files)) == len(list(cache.iterdir())) == 2


def test_without_a_compiler_the_way_to_one_is_told(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert has_compiler()
    monkeypatch.setenv("CC", "no-such-compiler")
    assert not has_compiler()
    with pytest.raises(BadRequest, match=r"no-such-compiler.*apt install gcc"):
        fused_library()
    assert list(cache.iterdir()) == []


def test_what_a_compiler_says_is_told_and_nothing_is_kept(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CC", compiler(tmp_path, "import sys\nsys.exit('kernels.c:1: unknown flag -march=native')\n"))
    with pytest.raises(DeployAttnError, match="unknown flag -march=native"):
        fused_library()
    assert list(cache.iterdir()) == []


def test_a_cache_that_cannot_be_written_is_refused(cache: Path) -> None:
    cache.parent.mkdir()
    cache.write_text("a file where the folder should be")
    with pytest.raises(BadRequest, match="XDG_CACHE_HOME"):
        fused_library()


@pytest.mark.parametrize(
    ("name", "parameters", "result"),
    [
        ("no_such_system", 1, 3),
        ("simam", 1, 0),
        ("simam", 2, 1),
        ("simam", 0, 1),
        ("srm", 12, 1),
        ("srm", 13, 0),
        ("cbam", 200, 1),
        ("shuffle", 16, 1),
        ("shuffle", 17, 0),
        ("triplet", 296, 1),
    ],
)
@pytest.mark.parametrize("value", [3e9, -3e9, np.nan, np.inf])
def test_a_kernel_reads_no_memory_that_is_not_there(name: str, parameters: int, result: int, value: float) -> None:
    run = ctypes.CDLL(str(fused_library())).fused_by_name
    x, y = np.ones((1, 4, 3, 3), np.float32), np.zeros((1, 4, 3, 3), np.float32)
    values = np.full(max(parameters, 1), value, np.float32)
    addresses = [array.ctypes.data_as(ctypes.c_void_p) for array in (x, y, values)]
    extents = (ctypes.c_long * 4)(*x.shape)
    assert run(name.encode(), *addresses[:2], extents, addresses[2], ctypes.c_long(parameters)) == result


def test_every_system_that_is_named_has_a_kernel() -> None:
    library = ctypes.CDLL(str(fused_library()))
    assert ctypes.c_int.in_dll(library, "kernel_count").value == len(SYSTEMS)
