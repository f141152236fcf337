"""The stub of libcudart: compiled, and asked what it saw. Python 3.6, as the code that it is for."""

import ctypes
import functools
import os
import subprocess
import tempfile
from typing import List, Tuple

SOURCE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "stub_cudart.c")
LOG, FAIL, COMPUTE_CAPABILITY = "STUB_CUDART_LOG", "STUB_CUDART_FAIL", "STUB_CUDART_COMPUTE_CAPABILITY"
_KINDS = ("memory", "stream", "event", "graph", "graph exec")


def compiled(folder: str, *flags: str) -> str:
    """A library of its own in a folder: what it counts starts at nothing. It is compiled once in a process."""
    library = os.path.join(str(folder), "libcudart.so.12")
    with open(library, "wb") as stream:
        stream.write(_content(flags))
    return library


@functools.lru_cache(maxsize=None)
def _content(flags: Tuple[str, ...]) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        made = os.path.join(folder, "stub.so")
        command = ["cc", "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror", "-O1", "-o", made, SOURCE]
        subprocess.check_call(command + list(flags))
        with open(made, "rb") as stream:
            return stream.read()


def calls(log: str) -> List[Tuple[str, ...]]:
    """What was called, in order: (name, argument, ...)."""
    if not os.path.exists(str(log)):
        return []
    with open(str(log), encoding="ascii") as stream:
        return [tuple(line.split()) for line in stream]


def live(library: str) -> int:
    """How many allocations, streams, events and graphs were not given back."""
    counted = ctypes.CDLL(str(library)).stub_live
    counted.argtypes, counted.restype = (ctypes.c_int,), ctypes.c_int
    return sum(counted(1 + kind) for kind in range(len(_KINDS)))


def holds(library: str, address: int, nbytes: int) -> bool:
    """Whether these bytes lie in one allocation of device memory."""
    inside = ctypes.CDLL(str(library)).stub_holds
    inside.argtypes, inside.restype = (ctypes.c_void_p, ctypes.c_size_t), ctypes.c_int
    return bool(inside(address, nbytes))
