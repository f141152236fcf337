"""One name for the room, on the host and alone; and what its tests need that a board's Python may not have.

The tests say `deploy_attn.jetson`, which is where the room lies on the host.
Where there is no `deploy_attn`, as in the folders that `.ci/interpreters` lays
out for Python 3.6, it is the package `jetson`, as in a capsule: the same module
objects go by both names.
"""

import importlib
import importlib.util
import signal
import sys
import types
from importlib.machinery import PathFinder
from typing import Any, List

import numpy as np
import pytest

REAL_ENGINE = "real_engine"
_OLDEST_NUMPY = (1, 16)  # onnxruntime over an older one does not raise, it ends the interpreter
_CRASHES = tuple(int(part) for part in np.__version__.split(".")[:2]) < _OLDEST_NUMPY


class _RoomAlone:
    """Gives `deploy_attn.jetson.NAME` as the module `jetson.NAME`."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if (name + ".").startswith("deploy_attn.jetson."):
            return importlib.util.spec_from_loader(name, self)  # type: ignore[arg-type]
        return None

    def create_module(self, spec: Any) -> Any:
        module = importlib.import_module(spec.name[len("deploy_attn.") :])
        spec.loader_state = module.__spec__
        return module

    def exec_module(self, module: Any) -> None:
        module.__spec__ = module.__spec__.loader_state  # what is loaded takes the spec that it was asked by


class _NoOnnxruntime:
    """Makes an import of an installed onnxruntime a failure that no `except ImportError` hides."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        found = PathFinder.find_spec(name, path) if name == "onnxruntime" else None
        if found is not None and str(found.origin).startswith(sys.prefix):
            return importlib.util.spec_from_loader(name, self)  # type: ignore[arg-type]
        return None

    def create_module(self, spec: Any) -> Any:
        raise AssertionError(
            "{} was imported over numpy {}, which ends the interpreter".format(spec.name, np.__version__)
        )

    def exec_module(self, module: Any) -> None:
        raise AssertionError("{} was imported".format(module))


if importlib.util.find_spec("deploy_attn") is None:
    from hypothesis import settings

    settings.register_profile("board", deadline=None, derandomize=True, database=None, max_examples=30)
    settings.load_profile("board")
    sys.modules["deploy_attn"] = types.ModuleType("deploy_attn")
    sys.modules["deploy_attn"].__path__ = []
    sys.meta_path.insert(0, _RoomAlone())

if _CRASHES:
    sys.meta_path.insert(0, _NoOnnxruntime())


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", REAL_ENGINE + ": runs a graph in the real onnxruntime")


def pytest_collection_modifyitems(config: pytest.Config, items: List[pytest.Item]) -> None:
    """Leaves out, and counts as left out, what needs the real engine where that cannot run."""
    needing = [item for item in items if _CRASHES and item.get_closest_marker(REAL_ENGINE)]
    if needing:
        config.hook.pytest_deselected(items=needing)
        items[:] = [item for item in items if item not in needing]


if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # a shell's background job; children would not feel Ctrl-C
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:  # of nohup; likewise
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
