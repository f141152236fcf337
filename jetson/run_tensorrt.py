"""TensorRT through its Python module: engines built in a child, run on a stream of their own."""

import contextlib
from typing import Any, Dict, Iterator, Mapping

import numpy as np

from . import tensorrt_child, tensorrt_module, timing
from .arguments import TENSORRT
from .backend import Job, Loaded, repeated
from .built_engines import Builder, BuiltEngines
from .cudart import Cudart
from .errors import BadRequest
from .tensorrt_engine import TensorRtEngine

_IN_A_ROW = 20  # executions that are queued before the stream is waited for, while power is measured


class TensorRtBackend(BuiltEngines):
    """TensorRT 8.0 to 11.

    Raises:
        BadRequest: it is not here or finds no GPU, or capsule and board do not
            fit together.
    """

    name = TENSORRT

    def __init__(self, job: Job) -> None:
        probed = tensorrt_child.probe(TENSORRT)
        super().__init__(job, Builder(str(probed["version"]), bool(probed["weak_typing"]), _device(probed)))

    def build(self, folder: str, request: Mapping[str, Any]) -> Dict[str, Any]:
        return tensorrt_child.build(folder, request, self.job.log.build_step)

    @contextlib.contextmanager
    def opened(self, precision: str) -> Iterator[Loaded]:
        cudart = Cudart()
        with TensorRtEngine(self.engines[precision].content, tensorrt_module.load(TENSORRT), cudart) as engine:
            yield _LoadedEngine(self.graph_file(precision), self.facts(precision), engine, cudart)


class _LoadedEngine(Loaded):
    def __init__(self, graph: str, build: Mapping[str, Any], engine: TensorRtEngine, cudart: Cudart) -> None:
        super().__init__(graph, build)
        self._engine = engine
        self._cudart = cudart

    def infer(self, feeds: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        return self._engine.infer(feeds)

    def time(self, feeds: Mapping[str, np.ndarray], options: timing.Options) -> Dict[str, Any]:
        return timing.time_engine(self._engine, feeds, self._cudart, options).as_dict()

    def keep_running(self, feeds: Mapping[str, np.ndarray], seconds: float) -> int:
        self._engine.bind(feeds)
        return _IN_A_ROW * repeated(self._some, seconds)

    def _some(self) -> None:
        for _ in range(_IN_A_ROW):
            self._engine.enqueue()
        self._engine.stream.synchronize()


def _device(probed: Mapping[str, Any]) -> Mapping[str, Any]:
    device = probed.get("device")
    if not device:
        reason = str(probed.get("no_device") or "CUDA has no device").split(". ")[0].rstrip(".")
        raise BadRequest(
            "TensorRT {} is here and finds no GPU: {}. Run this on the board itself, or with --engine onnxruntime for "
            "parity without a GPU.".format(probed["version"], reason)
        )
    return dict(device)
