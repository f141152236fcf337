"""What every engine shares: the life cycle, the checks of feeds, the way to find one."""

from __future__ import annotations

import abc
import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Any, final

from deploy_attn.jetson.errors import BadRequest
from deploy_attn.jetson.suggest import known_names

if TYPE_CHECKING:
    import numpy as np
    from typing_extensions import Self

Feeds = Mapping[str, "np.ndarray[Any, Any]"]
Outputs = dict[str, "np.ndarray[Any, Any]"]

# Engine name -> where its runner lives. An engine is one file and one line here.
ENGINES: Mapping[str, str] = MappingProxyType({"onnxruntime": "deploy_attn.engines.onnxruntime:OnnxRuntimeRunner"})


@dataclass(frozen=True)
class InputSpec:
    """What a graph asks of one input; an axis of None takes any extent."""

    name: str
    dtype: str
    shape: tuple[int | None, ...]


class Runner(abc.ABC):
    """Runs one ONNX graph: a context manager that loads nothing before `__enter__`.

    A back end writes `_activate`, `_infer` and `_deactivate`; the checks and
    the state are here.
    """

    def __init__(self, model_bytes: bytes) -> None:
        self._model_bytes = model_bytes
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

    @abc.abstractmethod
    def conditions(self) -> dict[str, Any]:
        """What a result depends on: versions, providers, threads. JSON values only."""

    @abc.abstractmethod
    def _activate(self) -> Sequence[InputSpec]: ...

    @abc.abstractmethod
    def _infer(self, feeds: Feeds) -> Outputs: ...

    @abc.abstractmethod
    def _deactivate(self) -> None: ...

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
                wanted = "x".join("?" if extent is None else str(extent) for extent in spec.shape)
                raise BadRequest(
                    f"Input {spec.name!r} takes {spec.dtype} of shape {wanted}, "
                    f"got {array.dtype} of shape {'x'.join(map(str, array.shape))}."
                )


def runner_for(engine: str) -> type[Runner]:
    """The runner class of an engine name.

    Raises:
        BadRequest: no such engine; the known ones are listed, nearest first.
    """
    if engine not in ENGINES:
        raise BadRequest(f"Unknown engine {engine!r}. {known_names(engine, ENGINES)}")
    module, _, name = ENGINES[engine].partition(":")
    runner: type[Runner] = getattr(importlib.import_module(module), name)
    return runner
