"""onnxruntime on the CPU: the engine that every artifact is verified with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from deploy_attn.engines.base import Feeds, InputSpec, Outputs, Runner
from deploy_attn.jetson.errors import BadRequest

if TYPE_CHECKING:
    import onnxruntime

PROVIDER = "CPUExecutionProvider"
_FATAL_ONLY = 4  # its errors are raised, and reported as findings
_DTYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    **{f"tensor({sign}int{bits})": f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
    "tensor(bool)": "bool",
}


class OnnxRuntimeRunner(Runner):
    """One onnxruntime session on the CPU provider.

    With `optimise=False` the graph runs node by node as written, which keeps
    every intermediate tensor observable.
    """

    def __init__(self, model_bytes: bytes, optimise: bool = True) -> None:
        super().__init__(model_bytes)
        self._optimise = optimise
        self._session: onnxruntime.InferenceSession | None = None

    def conditions(self) -> dict[str, Any]:
        ort = _onnxruntime()
        return {
            "engine": "onnxruntime",
            "version": ort.__version__,
            "providers": [PROVIDER],
            "optimisation": "all" if self._optimise else "none",
        }

    def _activate(self) -> Sequence[InputSpec]:
        ort = _onnxruntime()
        options = ort.SessionOptions()
        options.log_severity_level = _FATAL_ONLY
        level = ort.GraphOptimizationLevel
        options.graph_optimization_level = level.ORT_ENABLE_ALL if self._optimise else level.ORT_DISABLE_ALL
        self._session = ort.InferenceSession(self._model_bytes, options, providers=[PROVIDER])
        return [
            InputSpec(
                node.name,
                _DTYPES.get(node.type, node.type),
                tuple(extent if isinstance(extent, int) else None for extent in node.shape),
            )
            for node in self._session.get_inputs()
        ]

    def _infer(self, feeds: Feeds) -> Outputs:
        session = self._live_session()
        names = [node.name for node in session.get_outputs()]
        return dict(zip(names, session.run(names, dict(feeds))))

    def _deactivate(self) -> None:
        self._session = None

    def _live_session(self) -> onnxruntime.InferenceSession:
        if self._session is None:
            raise RuntimeError("the session is closed")
        return self._session


def _onnxruntime() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise BadRequest(
            f"Engine onnxruntime was asked for and cannot be imported ({error}). "
            "Install it with `pip install 'deploy-attn[cpu]'` (or [gpu] on a machine with an NVIDIA GPU); "
            "`deploy-attn doctor` shows what is there."
        ) from error
    return onnxruntime
