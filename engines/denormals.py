"""Subnormal numbers as zero, for the calling thread and for the time of a block.

A processor may take a hundred times as long for a product of subnormal numbers,
which the softmax of far apart logits is full of. onnxruntime's own option,
`session.set_denormal_as_zero`, reaches the threads of a session's pool, but the
thread that calls it only if the first session of the process has it, and for
good: all that this thread computes afterwards is changed with it. Here the
thread's own floating-point environment is set before a call and put back after.
"""

from __future__ import annotations

import ctypes
import functools
import platform
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from deploy_attn.jetson.errors import BadRequest

_ENVIRONMENT = ctypes.c_uint32 * 64  # fenv_t has 32 bytes at most where it is known


class _Switch(NamedTuple):
    """The 32-bit word of fenv_t that holds the bits, and the bits."""

    word: int
    bits: int


# By machine, on Linux: MXCSR with flush-to-zero and denormals-are-zero; FPCR with FZ, which is both.
_SWITCHES: Mapping[str, _Switch] = MappingProxyType(
    {"x86_64": _Switch(7, 1 << 15 | 1 << 6), "aarch64": _Switch(0, 1 << 24)}
)


class _Fenv(NamedTuple):
    """The C library's functions, and the switch of this machine."""

    read: Any
    write: Any
    switch: _Switch


class KeptEnvironment:
    """A block after which this thread's floating-point environment is as before it, where that is known."""

    def __init__(self) -> None:
        self._fenv = _fenv()
        self._before: Any = None

    def __enter__(self) -> None:
        if self._fenv is not None:
            self._before = _ENVIRONMENT()
            self._fenv.read(self._before)

    def __exit__(self, *_: object) -> None:
        if self._fenv is not None:
            self._fenv.write(self._before)


class DenormalsAsZero(KeptEnvironment):
    """A block in which this thread reads and writes subnormal numbers as zero, where that can be switched."""

    def __enter__(self) -> None:
        super().__enter__()
        if self._fenv is not None:
            wanted = _ENVIRONMENT.from_buffer_copy(self._before)
            wanted[self._fenv.switch.word] |= self._fenv.switch.bits
            self._fenv.write(wanted)


def can_zero_denormals() -> bool:
    """Whether `DenormalsAsZero` has an effect here, as a product shows."""
    with DenormalsAsZero():
        product = np.multiply(np.float32(2e-38), np.float32(0.1))
    return bool(product == 0)  # inside the block a subnormal number is equal to zero


def check_denormals() -> None:
    """Raises BadRequest where `DenormalsAsZero` has no effect."""
    if not can_zero_denormals():
        raise BadRequest(
            f"Subnormal numbers as zero were asked for, and on {platform.system()} {platform.machine()} that cannot be "
            f"switched; it can on Linux on {' and '.join(_SWITCHES)}. Tune the artifact here, or use settings "
            "without denormals_zero."
        )


@functools.cache
def _fenv() -> _Fenv | None:
    switch = _SWITCHES.get(platform.machine())
    if platform.system() != "Linux" or switch is None:
        return None
    library = ctypes.CDLL(None)
    if not hasattr(library, "fegetenv"):
        return None
    return _Fenv(library.fegetenv, library.fesetenv, switch)
