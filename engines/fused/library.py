"""The fused operators' library: compiled once for each processor and kept in the user's cache."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from deploy_attn.engines.cache import cache_folder
from deploy_attn.jetson.errors import BadRequest, DeployAttnError

DOMAIN = "deploy_attn"
SYSTEMS = ("cbam", "gct", "shuffle", "simam", "srm", "triplet")

# What -ffast-math allows of it, without its start-up code, which would change subnormal numbers for the whole process.
FLAGS = (
    *("-O3", "-march=native", "-std=c11", "-fPIC", "-shared", "-fno-math-errno", "-fno-trapping-math"),
    *("-ffinite-math-only", "-fno-signed-zeros", "-fassociative-math", "-freciprocal-math"),
)
_SOURCES = ("kernels.h", "systems.h", "kernels.c", "wide.c", "operators.c")
_COMPILES_S = 120


def fused_library() -> Path:
    """The library, compiled if this processor has none yet.

    `cc`, or what the environment's CC names, compiles it. A session takes it by
    `SessionOptions.register_custom_ops_library(str(path))`, before the session is made.

    Raises:
        BadRequest: no such compiler, no folder that can be written, or a system without `.so` libraries.
        DeployAttnError: the compiler fails; what it says is told.
    """
    if sys.platform == "win32":
        raise BadRequest("Fused operators are built on Linux and macOS only. The graphs of an artifact need no build.")
    file = library_file()
    if not file.is_file():
        _compile(_compiler(), file)
    return file


def library_file() -> Path:
    """Where the library is or will be; its name tells everything that it depends on."""
    return cache_folder() / f"fused-{_key(_compiler())}.so"


def has_compiler() -> bool:
    """Whether there is a program of the compiler's name."""
    return shutil.which(_compiler()) is not None


def _compiler() -> str:
    return os.environ.get("CC") or "cc"


def _compile(compiler: str, file: Path) -> None:
    """Writes the library whole or not at all."""
    here = Path(__file__).parent
    sources = [str(here / name) for name in _SOURCES if name.endswith(".c")]
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=file.parent) as folder:
            draft = Path(folder) / file.name
            command = [compiler, *FLAGS, "-o", str(draft), *sources, "-lm"]
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_COMPILES_S)
            if done.returncode != 0:
                raise DeployAttnError(
                    f"{compiler} does not compile the fused operators: {_complaint(done.stderr)}. Try another C "
                    "compiler (CC=clang), or go on without them: the graphs of an artifact need none."
                )
            draft.replace(file)
    except subprocess.TimeoutExpired as error:
        raise DeployAttnError(f"{compiler} did not compile the fused operators within {_COMPILES_S} s.") from error
    except OSError as error:
        at = f" ({error.filename})" if error.filename else ""
        raise BadRequest(
            f"Fused operators are compiled here, and that fails: {error.strerror or error}{at}. Install a C compiler "
            "(`apt install gcc`) or name one with CC, and let XDG_CACHE_HOME be a folder that can be written."
        ) from error


def _complaint(told: str) -> str:
    """The first error of a compiler's output, else its first line."""
    lines = [line.strip() for line in told.splitlines() if line.strip()]
    return next((line for line in lines if "error" in line), next(iter(lines), "it says nothing"))


def _key(compiler: str) -> str:
    """Of everything that the library depends on: sources, flags, compiler and processor."""
    digest = hashlib.sha256(repr((compiler, FLAGS, platform.machine(), _processor())).encode())
    for name in _SOURCES:
        digest.update((Path(__file__).parent / name).read_bytes())
    return digest.hexdigest()[:16]


def _processor() -> str:
    """What -march=native goes by, as far as the system tells it: a cache may be shared between machines."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor()
    return "\n".join(sorted({line for line in lines if line.startswith(("flags", "Features", "model name"))}))
