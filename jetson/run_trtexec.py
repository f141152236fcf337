"""trtexec where TensorRT's Python module is not: it builds, runs and times, each in a process of its own."""

import contextlib
from typing import Any, Dict, Iterator, Mapping, Optional

import numpy as np

from . import timing, trtexec, trtexec_build
from .arguments import TRTEXEC
from .backend import Job, Loaded
from .built_engines import Builder, BuiltEngines
from .cudart import Cudart
from .errors import DeployAttnError
from .trtexec_engine import TrtexecEngine
from .trtexec_files import ROUNDING

_NOTE = (
    "{} was compared through trtexec's text output, whose values have six digits: errors below {:g} are the text's and "
    "not the engine's."
)


class TrtexecBackend(BuiltEngines):
    """trtexec of TensorRT 8.0 to 11.

    Raises:
        BadRequest: it is not here, or capsule and board do not fit together.
    """

    name = TRTEXEC

    def __init__(self, job: Job) -> None:
        self._tool = trtexec.find(job.root)
        version = ".".join(map(str, self._tool.version))
        super().__init__(job, Builder(version, self._tool.has("fp16"), _device(job.board)))

    def cannot(self, precision: str) -> str:
        return super().cannot(precision) or trtexec_build.cannot_build(self._tool, self.request(precision)).rstrip(".")

    def build(self, folder: str, request: Mapping[str, Any]) -> Dict[str, Any]:
        return trtexec_build.build(self._tool, folder, request, self.job.log.keep)

    @contextlib.contextmanager
    def opened(self, precision: str) -> Iterator[Loaded]:
        profile = self.request(precision)["profile"]
        engine = TrtexecEngine(self._tool, self.engines[precision].path, profile, self.job.log.keep)
        yield _LoadedByTrtexec(self.graph_file(precision), self.facts(precision), precision, engine)


class _LoadedByTrtexec(Loaded):
    def __init__(self, graph: str, build: Mapping[str, Any], precision: str, engine: TrtexecEngine) -> None:
        super().__init__(graph, build, _NOTE.format(precision, ROUNDING))
        self._engine = engine
        self.no_power = "trtexec does not say when its inferences begin and end; TensorRT's Python module does"

    def infer(self, feeds: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        return self._engine.infer(feeds)

    def time(self, feeds: Mapping[str, np.ndarray], options: timing.Options) -> Dict[str, Any]:
        return self._engine.time(feeds, options).as_dict()


def _device(board: Any) -> Optional[Mapping[str, Any]]:
    """The GPU by its compute capability; None where nothing here knows it, and trtexec itself will fail or not."""
    if board.compute_capability is not None:
        return {"name": board.module or board.soc, "compute_capability": board.compute_capability}
    try:
        cudart = Cudart()
        return {"name": cudart.device_name(), "compute_capability": cudart.compute_capability()}
    except DeployAttnError:
        return None
