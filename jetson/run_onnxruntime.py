"""onnxruntime on the board's CPU: parity where TensorRT is not, with the same checks."""

import contextlib
from typing import TYPE_CHECKING, Any, Dict, Iterator, Mapping

import numpy as np

from .arguments import ONNXRUNTIME
from .backend import Backend, Job, Loaded, repeated
from .ort_engine import OrtEngine, import_onnxruntime

if TYPE_CHECKING:
    from . import timing


class OnnxRuntimeBackend(Backend):
    """The graphs as they are; a CPU computes nodes in FP16 through FP32.

    Raises:
        BadRequest: onnxruntime is not here, or would crash over this numpy.
    """

    name = ONNXRUNTIME

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        import_onnxruntime()
        self._conditions: Dict[str, Any] = {"engine": self.name}

    def conditions(self) -> Dict[str, Any]:
        return dict(self._conditions)

    def cannot(self, precision: str) -> str:
        if precision == "fp16" and not self.job.has_half():
            return "the artifact was exported without --fp16"
        if self.job.graph(precision) is None:
            return "onnxruntime takes {} from a typed graph, which a capsule for {} does not have".format(
                precision, self.job.capsule.target
            )
        return ""

    @contextlib.contextmanager
    def opened(self, precision: str) -> Iterator[Loaded]:
        file = self.job.graph(precision)
        if file is None:
            raise RuntimeError("{} was opened though it cannot be run".format(precision))
        with OrtEngine(self.job.content(file)) as engine:
            self._conditions = engine.conditions()
            yield _LoadedGraph(file, engine)


class _LoadedGraph(Loaded):
    def __init__(self, graph: str, engine: OrtEngine) -> None:
        super().__init__(graph, {})
        self._engine = engine

    def infer(self, feeds: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        return self._engine.infer(feeds)

    def time(self, feeds: Mapping[str, np.ndarray], options: "timing.Options") -> Dict[str, Any]:
        from . import timing

        samples = timing.time_calls(lambda: self._engine.infer(feeds), options)
        return {
            "how": "end to end by the wall clock, on the CPU",
            "compute": None,
            "end_to_end": timing.summary(samples),
            "cuda_graph": False,
            "cuda_graph_error": None,
            "notes": timing.notes(samples),
        }

    def keep_running(self, feeds: Mapping[str, np.ndarray], seconds: float) -> int:
        return repeated(lambda: self._engine.infer(feeds), seconds)
