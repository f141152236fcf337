"""What every engine shares: how it takes an artifact, the life cycle, the checks of feeds, the way to find one."""

from __future__ import annotations

import abc
import importlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, final

from deploy_attn.engines.pairs import Stopwatch, wall_clock
from deploy_attn.engines.profile import shape_text
from deploy_attn.jetson.artifact import Artifact
from deploy_attn.jetson.errors import BadRequest
from deploy_attn.jetson.suggest import known_names

if TYPE_CHECKING:
    import numpy as np
    from typing_extensions import Self

Feeds = Mapping[str, "np.ndarray[Any, Any]"]
Outputs = dict[str, "np.ndarray[Any, Any]"]

# Engine name -> its class. An engine is one file and one line here.
ENGINES: Mapping[str, str] = MappingProxyType(
    {
        "onnxruntime": "deploy_attn.engines.onnxruntime:OnnxRuntimeCpu",
        "onnxruntime-cuda": "deploy_attn.engines.onnxruntime:OnnxRuntimeCuda",
        "onnxruntime-tensorrt": "deploy_attn.engines.onnxruntime:OnnxRuntimeTensorRt",
        "onnxruntime-fused": "deploy_attn.engines.fused.engine:OnnxRuntimeFused",
        "tensorrt": "deploy_attn.engines.tensorrt:TensorRt",
        "tensorrt-rtx": "deploy_attn.engines.tensorrt_rtx:TensorRtRtx",
    }
)


@dataclass(frozen=True)
class InputSpec:
    """What a graph asks of one input; an axis of None takes any extent."""

    name: str
    dtype: str
    shape: tuple[int | None, ...]


class Runner(abc.ABC):
    """Runs one graph or engine: a context manager that loads nothing before `__enter__`.

    A back end writes `_activate`, `_infer` and `_deactivate`; the checks and
    the state are here.
    """

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._inputs: tuple[InputSpec, ...] = ()
        self._active = False

    @final
    def __enter__(self) -> Self:
        self._inputs = tuple(self._activate())
        self._active = True
        return self

    @final
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._active = False
        self._deactivate()

    @final
    def infer(self, feeds: Feeds) -> Outputs:
        """Runs the graph once.

        Raises:
            BadRequest: an input is missing, unknown, or of another type or shape.
            RuntimeError: the runner is not active.
        """
        if not self._active:
            raise RuntimeError("the runner is not active: use it as `with runner:`")
        self._check(feeds)
        return self._infer(feeds)

    @final
    def stopwatch(self, feeds: Feeds) -> Stopwatch:
        """What runs the graph once on these feeds and returns the seconds that it took, by the device's own clock
        where it has one. Inputs are checked, and put where the graph reads them, here and not in each run.

        Raises:
            BadRequest, RuntimeError: as `infer`.
        """
        self.infer(feeds)  # checks them, and whether it runs at all
        return self._stopwatch(feeds)

    @abc.abstractmethod
    def conditions(self) -> dict[str, Any]:
        """What a result depends on: versions, providers, threads. JSON values only."""

    @abc.abstractmethod
    def _activate(self) -> Sequence[InputSpec]: ...

    @abc.abstractmethod
    def _infer(self, feeds: Feeds) -> Outputs: ...

    @abc.abstractmethod
    def _deactivate(self) -> None: ...

    def _stopwatch(self, feeds: Feeds) -> Stopwatch:
        return wall_clock(lambda: self._infer(feeds))

    def _check(self, feeds: Feeds) -> None:
        expected = {spec.name for spec in self._inputs}
        if set(feeds) != expected:
            raise BadRequest(f"The graph takes inputs {sorted(expected)}, got {sorted(feeds)}.")
        for spec in self._inputs:
            array = feeds[spec.name]
            fits = len(array.shape) == len(spec.shape) and all(
                want is None or want == got for want, got in zip(spec.shape, array.shape)
            )
            if not fits or array.dtype != spec.dtype:
                raise BadRequest(
                    f"Input {spec.name!r} takes {spec.dtype} of shape {shape_text(spec.shape)}, "
                    f"got {array.dtype} of shape {shape_text(array.shape)}."
                )


@dataclass(frozen=True)
class Graph:
    """One graph of an artifact, read and checked against its hash.

    `precision` is `fp32` or `fp16`; an FP16 graph is the typed one.
    """

    file: str
    precision: str
    content: bytes


@dataclass(frozen=True)
class Run:
    """One way in which an engine runs a graph.

    Attributes:
        bracket: `exact` (FP32), `device` (FP16 as the hardware computes it),
            `optimistic` and `pessimistic` (FP16 on a CPU, from both sides).
        tolerance: which of the artifact's tolerances it is held to.
        runner: not active yet.
    """

    bracket: str
    tolerance: str
    runner: Runner


class Engine(abc.ABC):
    """How an engine takes an artifact.

    `prefers` is the order of precisions in which a graph is chosen for a user who names none.

    Raises:
        BadRequest: it cannot run anything of this artifact here, and what to do.
    """

    prefers: ClassVar[Sequence[str]] = ("fp16", "fp32")

    def __init__(self, artifact: Artifact) -> None:
        self._artifact = artifact

    def conditions(self) -> dict[str, Any]:
        """What a result depends on beyond its runner's conditions. JSON values only."""
        return {}

    @abc.abstractmethod
    def runs(self, graph: Graph) -> Iterator[Run]:
        """Every way in which it runs this graph; none where another graph of the artifact serves it."""


def engine_class(name: str) -> type[Engine]:
    """The class of an engine.

    Raises:
        BadRequest: no such engine; the known ones are listed, nearest first.
    """
    if name not in ENGINES:
        raise BadRequest(f"Unknown engine {name!r}. {known_names(name, ENGINES)}")
    module, _, attribute = ENGINES[name].partition(":")
    found: type[Engine] = getattr(importlib.import_module(module), attribute)
    return found
