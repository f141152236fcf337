"""What a result depends on beside its cell: the code itself, and the versions of what it calls."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
from importlib import metadata
from pathlib import Path

import deploy_attn
from deploy_attn import manifest

CODE = "deploy-attn"

# Rivals and engines whose versions no manifest has.
_ALSO = ("onnxslim", "openvino", "tensorrt", "tensorrt-rtx")
_READ_AT_RUN_TIME = frozenset((".py", ".toml", ".json", ".c", ".h"))
_DIGITS = 12


def made_with() -> dict[str, str]:
    """Versions of this process by name; of deploy-attn `code_version`."""
    found = {**manifest.tools(), CODE: code_version()}
    for name in _ALSO:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


@functools.cache
def code_version() -> str:
    """The release and a hash of its source files: a checkout changes without a release."""
    return f"{deploy_attn.__version__}+{digest_of(Path(deploy_attn.__file__).parent)}"


def digest_of(home: Path) -> str:
    """Of the files that are read at run time; the same for a checkout and for the wheel of it."""
    digest = hashlib.sha256()
    for file in sorted(_sources(home), key=lambda path: path.relative_to(home).as_posix()):
        digest.update(
            f"{file.relative_to(home).as_posix()}\0{hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode()
        )
    return digest.hexdigest()[:_DIGITS]


def _sources(home: Path) -> list[Path]:
    """Rooms of a checkout are links, which are followed."""
    return [
        Path(folder) / name
        for folder, _, names in os.walk(home, followlinks=True)
        for name in names
        if os.path.splitext(name)[1] in _READ_AT_RUN_TIME
    ]
