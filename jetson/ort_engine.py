"""onnxruntime on a board's CPU.

onnxruntime is compiled against a numpy, and over an older one it does not raise
an error: it ends the interpreter at the first inference. So the versions are
read and compared before it is imported.
"""

import glob
import io
import os
import re
import sys
from typing import Any, Dict, Iterator, List, Mapping, NamedTuple, Optional, Tuple

import numpy as np

from .errors import BadRequest, DeployAttnError, first_line
from .tensors import Tensor

_OLDEST_NUMPY = (1, 16, 6)  # of the oldest onnxruntime for Python 3.6 that reads opset 13
_PROVIDER = "CPUExecutionProvider"
_FATAL_ONLY = 4  # its errors are raised
_VERSION = re.compile(r"^__version__\s*=\s*['\"]([^'\"]+)['\"]", re.MULTILINE)
# Without a marker: what holds for some Pythons only may not hold for this one.
_NUMPY_LINE = re.compile(r"^Requires-Dist:\s*numpy\b([^;\n]*)$", re.MULTILINE | re.IGNORECASE)
_BOUND = re.compile(r"(>=|<)\s*(\d+(?:\.\d+)*)")
_BRINGS_IT = re.compile(r"onnxruntime(_(gpu|openvino|training|directml|silicon|gpu_extended))?$", re.IGNORECASE)
_NUMBER = re.compile(r"\d+")
_DTYPES = (
    ("tensor(float)", "float32"),
    ("tensor(float16)", "float16"),
    ("tensor(double)", "float64"),
    ("tensor(int8)", "int8"),
    ("tensor(uint8)", "uint8"),
    ("tensor(int16)", "int16"),
    ("tensor(uint16)", "uint16"),
    ("tensor(int32)", "int32"),
    ("tensor(uint32)", "uint32"),
    ("tensor(int64)", "int64"),
    ("tensor(uint64)", "uint64"),
    ("tensor(bool)", "bool"),
)

_Version = Tuple[int, ...]


class Installed(NamedTuple):
    """An onnxruntime as its files tell, without importing it; `numpy` is what its metadata says it needs."""

    folder: str
    version: str
    numpy: str


class OrtEngine:
    """A graph in onnxruntime on the CPU, loaded: a context manager.

    Args:
        content: the ONNX file's bytes.
        threads: within one operator; 0 lets onnxruntime choose (a core each).
    """

    def __init__(self, content: bytes, threads: int = 0) -> None:
        self._content = content
        self._threads = threads
        self._session: Any = None
        self._version = ""
        self.inputs: Tuple[Tensor, ...] = ()
        self.outputs: Tuple[Tensor, ...] = ()

    def __enter__(self) -> "OrtEngine":
        """Loads the graph.

        Raises:
            BadRequest: no onnxruntime that can run here, or it takes no such graph.
        """
        ort = import_onnxruntime()
        self._version = str(ort.__version__)
        options = ort.SessionOptions()
        options.log_severity_level = _FATAL_ONLY
        options.intra_op_num_threads = self._threads
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        try:
            session = ort.InferenceSession(self._content, options, providers=[_PROVIDER])
        except Exception as error:  # onnxruntime has a class for each status, and RuntimeError
            raise BadRequest(
                "onnxruntime {} cannot load this graph of {} bytes: {}. If the file is whole, export it for an older "
                "opset.".format(self._version, len(self._content), first_line(error))
            ) from error
        session.disable_fallback()  # else a call that fails is made again in a session of other options
        self.inputs = tuple(_tensor(node) for node in session.get_inputs())
        self.outputs = tuple(_tensor(node) for node in session.get_outputs())
        self._session = session
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        self._session = None

    def infer(self, feeds: Mapping[str, np.ndarray]) -> Dict[str, np.ndarray]:
        """The outputs by name.

        Raises:
            BadRequest: an input is missing, unknown, or of another type or shape.
            DeployAttnError: onnxruntime failed.
        """
        if self._session is None:
            raise RuntimeError("the graph is not loaded: use it as `with engine:`")
        self._check(feeds)
        names = [tensor.name for tensor in self.outputs]
        try:
            return dict(zip(names, self._session.run(names, dict(feeds))))
        except Exception as error:  # as above
            raise DeployAttnError(
                "onnxruntime {} failed while it ran the graph: {}.".format(self._version, first_line(error))
            ) from error

    def conditions(self) -> Dict[str, Any]:
        """What a result depends on. JSON values only."""
        return {
            "engine": "onnxruntime",
            "version": self._version,
            "numpy": np.__version__,
            "provider": _PROVIDER,
            "intra_op_threads": self._threads,
            "optimisation": "all",
            "device": "cpu",
        }

    def _check(self, feeds: Mapping[str, np.ndarray]) -> None:
        expected = sorted(tensor.name for tensor in self.inputs)
        if sorted(feeds) != expected:
            raise BadRequest("The graph takes inputs {}, got {}.".format(expected, sorted(feeds)))
        for tensor in self.inputs:
            array = feeds[tensor.name]
            if not tensor.takes(array.shape) or array.dtype != tensor.dtype:
                raise BadRequest(tensor.mismatch(array))


def import_onnxruntime() -> Any:
    """The module, once it is known that numpy is one that it can live with.

    Raises:
        BadRequest: not installed, over a numpy that would crash it, or its
            libraries do not load.
    """
    if "onnxruntime" not in sys.modules:
        check_numpy()
    try:
        import onnxruntime
    except Exception as error:  # the loader's, numpy's, or its own
        raise BadRequest(
            "onnxruntime was asked for and cannot be imported by {} ({}). Install it in a virtual environment: {}; or "
            "use --engine tensorrt, which needs none of it.".format(
                sys.executable, first_line(error), _how_to_install("")
            )
        ) from error
    return onnxruntime


def check_numpy() -> None:
    """Raises BadRequest where the onnxruntime that is here would crash, or fail, over the numpy that is here."""
    found = installed()
    if found is None:
        return  # the import says it better
    here = _numbers(np.__version__)
    lowest: _Version = _OLDEST_NUMPY
    limit: Optional[_Version] = None
    for sign, text in _BOUND.findall(found.numpy):
        if sign == ">=":
            lowest = max(lowest, _numbers(text))
        else:
            limit = _numbers(text)
    if here < lowest or (limit is not None and here >= limit):
        wanted = ">={}".format(_dotted(lowest)) + (",<{}".format(_dotted(limit)) if limit else "")
        raise BadRequest(
            "onnxruntime {} in {} needs numpy {}, and this is numpy {}. It was not imported: over a numpy that "
            "it was not built for, onnxruntime may end the interpreter without a message.\n{}".format(
                found.version, found.folder, wanted, np.__version__, _remedy(wanted)
            )
        )


def installed() -> Optional[Installed]:
    """The onnxruntime that an import would find, by its files; None where there is none."""
    for entry in sys.path:
        folder = os.path.join(os.path.abspath(entry), "onnxruntime")
        opening = os.path.join(folder, "__init__.py")
        if os.path.isfile(opening):
            match = _VERSION.search(_read(opening))
            version, needs = _metadata(os.path.dirname(folder))
            return Installed(folder, match.group(1) if match else version or "of unknown version", needs)
    return None


def _how_to_install(numpy: str) -> str:
    """The commands for a virtual environment of its own, so that the system's numpy stays as it is."""
    pip = ""
    if sys.version_info < (3, 7):  # the pip that comes with 3.6 takes packages for a newer Python
        pip = "ort/bin/pip install --upgrade 'pip<22' && "
    return "`python3 -m venv ort && {}ort/bin/pip install onnxruntime{}`".format(pip, numpy)


def _remedy(wanted: str) -> str:
    if sys.version_info < (3, 7) and "<" not in wanted:
        wanted += ",<1.19.5"  # the last one for 3.6, which on a Cortex-A57 stops with an illegal instruction
    return (
        "Leave the system's numpy as it is and install the two side by side in a virtual environment: {}, then "
        "`ort/bin/python run.py --engine onnxruntime`. Or use --engine tensorrt, which takes this numpy.".format(
            _how_to_install(" 'numpy{}'".format(wanted))
        )
    )


def _metadata(folder: str) -> Tuple[str, str]:
    """Version and what it asks of numpy, from the metadata beside a package; empty where nothing tells."""
    for path in _metadata_files(folder):
        text = _read(path)
        version = re.search(r"^Version:\s*(\S+)", text, re.MULTILINE)
        needs = _NUMPY_LINE.search(text)
        return version.group(1) if version else "", needs.group(1) if needs else ""
    return "", ""


def _metadata_files(folder: str) -> Iterator[str]:
    """Of any distribution that brings onnxruntime: onnxruntime, onnxruntime_gpu ..."""
    for pattern, name in (("onnxruntime*.dist-info", "METADATA"), ("onnxruntime*.egg-info", "PKG-INFO")):
        for found in sorted(glob.glob(os.path.join(glob.escape(folder), pattern))):
            base = re.split(r"-\d", os.path.basename(found))[0]
            path = os.path.join(found, name)
            if _BRINGS_IT.match(base) and os.path.isfile(path):
                yield path


def _read(path: str) -> str:
    try:
        with io.open(path, encoding="utf-8", errors="replace") as stream:
            return stream.read()
    except OSError:
        return ""


def _numbers(version: str) -> _Version:
    """The leading numbers of a version: (1, 16, 6) of 1.16.6rc1."""
    parts: List[int] = []
    for part in version.split("."):
        match = _NUMBER.match(part)
        if not match:
            break
        parts.append(int(match.group(0)))
    return tuple(parts)


def _dotted(version: _Version) -> str:
    return ".".join(str(part) for part in version)


def _tensor(node: Any) -> Tensor:
    names = dict(_DTYPES)
    shape = tuple(extent if isinstance(extent, int) else None for extent in node.shape)
    return Tensor(node.name, names.get(node.type, node.type), shape)
