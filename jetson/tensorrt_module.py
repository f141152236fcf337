"""The TensorRT module: importing it, what it can do, its logger and plugins.

Versions are told apart by what the module has, never by its version number.
"""

import importlib
import sys
from typing import Any, Callable, List, Mapping, Optional, Tuple

from .errors import BadRequest, first_line

TENSORRT, RTX = "tensorrt", "tensorrt_rtx"

Keep = Callable[[str, str], bool]

# What importing a binding raises: no such module, a library that the loader refuses, a check of its own.
_IMPORT_ERRORS = (ImportError, OSError, RuntimeError, AttributeError, SyntaxError)


def title(name: str) -> str:
    """The product's name for messages, by its module's name or its engine's (`tensorrt-rtx`)."""
    return "TensorRT-RTX" if name.endswith("rtx") else "TensorRT"


def load(name: str = TENSORRT) -> Any:
    """The module `tensorrt` or `tensorrt_rtx`.

    Raises:
        BadRequest: it is not installed, its libraries do not load, or
            something else has its name.
    """
    module, reason = load_or_reason(name)
    if module is None:
        raise BadRequest(
            "{} was asked for and cannot be imported ({}). {}".format(title(name), reason, how_to_install(name))
        )
    return module


def load_or_reason(name: str) -> Tuple[Any, str]:
    """The module and an empty text, or None and why it cannot be imported."""
    try:
        module = importlib.import_module(name)
    except ImportError as error:
        missing = getattr(error, "name", None) == name and not getattr(error, "path", None)
        return None, "{} has no module of that name".format(sys.executable) if missing else first_line(error)
    except _IMPORT_ERRORS as error:
        return None, "{}: {}".format(type(error).__name__, first_line(error))
    if not hasattr(module, "Builder"):
        where = getattr(module, "__file__", None) or ", ".join(getattr(module, "__path__", ["somewhere unknown"]))
        return None, "{} has that name, and no Builder in it".format(where)
    return module, ""


def how_to_install(name: str) -> str:
    """A sentence on where the module comes from, on a desktop and on a Jetson."""
    if name == RTX:
        return "Install it with `pip install 'deploy-attn[rtx]'` on x86-64 Linux or Windows; it builds without a GPU."
    return (
        "On a desktop install it with `pip install 'deploy-attn[gpu]'`. On a Jetson it comes with JetPack as "
        "`sudo apt install python3-libnvinfer`, for the system's own Python: use /usr/bin/python3, or a virtual "
        "environment that was made with --system-site-packages."
    )


def version(trt: Any) -> str:
    return str(getattr(trt, "__version__", "of unknown version"))


def has_weak_typing(trt: Any) -> bool:
    """Whether a builder flag can ask for FP16; otherwise precision comes from the graph's own types."""
    return hasattr(trt, "BuilderFlag") and hasattr(trt.BuilderFlag, "FP16")


def has_strong_typing(trt: Any) -> bool:
    """Whether a network can be told to keep to the graph's own types."""
    return hasattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED") or not has_weak_typing(trt)


def make_logger(trt: Any, messages: List[Tuple[str, str]], keep: Optional[Keep] = None) -> Any:
    """A logger that appends (severity name, text) of every message, or of those that `keep` takes.

    It must live as long as any builder, runtime or parser that was made with it.
    """

    class Collector(trt.ILogger):  # type: ignore[misc, name-defined, unused-ignore]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)  # pybind11 wants it called by name

        def log(self, severity: Any, text: str) -> None:
            name = severity.name
            if keep is None or keep(name, text):
                messages.append((name, text))

    return Collector()


def init_plugins(trt: Any, logger: Any) -> None:
    """Registers TensorRT's own plugins: InstanceNormalization is one before 10.0.

    Needed before a graph is parsed and before an engine is loaded.

    Raises:
        BadRequest: the plugin library does not load.
    """
    if hasattr(trt, "init_libnvinfer_plugins") and trt.init_libnvinfer_plugins(logger, "") is False:
        raise BadRequest(
            "TensorRT {} cannot register its own plugins: its library nvinfer_plugin does not load. "
            "Install TensorRT again, all parts of one version.".format(version(trt))
        )


def flags(members: Mapping[str, bool], kind: Any) -> int:
    """The bit mask of those members of a flag enum that are wanted and exist in this version."""
    mask = 0
    for name, wanted in members.items():
        if wanted and hasattr(kind, name):
            mask |= 1 << int(getattr(kind, name))
    return mask
