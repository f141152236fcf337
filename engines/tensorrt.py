"""TensorRT: runs the engine files that were built for an artifact, on the GPU that they were built for."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

from deploy_attn.engines.base import Engine, Feeds, Graph, InputSpec, Outputs, Run, Runner
from deploy_attn.engines.engine_file import EngineFile, Here, find_engine
from deploy_attn.engines.pairs import Stopwatch
from deploy_attn.jetson import tensorrt_module
from deploy_attn.jetson.artifact import Artifact
from deploy_attn.jetson.cudart import Cudart
from deploy_attn.jetson.errors import BadRequest, DeployAttnError
from deploy_attn.jetson.tensorrt_engine import TensorRtEngine
from deploy_attn.jetson.timing import stopwatch

# FP16 is computed by the device itself, so there is one bracket and not two.
_BRACKETS: Mapping[str, str] = MappingProxyType({"fp32": "exact", "fp16": "device"})


@dataclass(frozen=True)
class Place:
    """The TensorRT and the GPU that engines run on here.

    Attributes:
        engine: `tensorrt` or `tensorrt-rtx`.
        trt: the module.
        driver: the newest CUDA that the driver knows.
    """

    engine: str
    trt: Any
    cudart: Cudart
    device: str
    compute_capability: str
    runtime: str
    driver: str | None

    @property
    def version(self) -> str:
        return tensorrt_module.version(self.trt)

    def conditions(self) -> dict[str, Any]:
        """What a result on it depends on; JSON values."""
        return {
            "engine": self.engine,
            "version": self.version,
            "device": {"name": self.device, "compute_capability": self.compute_capability},
            "cuda_runtime": self.runtime,
            "cuda_driver": self.driver,
        }


def place(engine: str, module: str) -> Place:
    """The TensorRT and the GPU of this machine.

    Raises:
        BadRequest: TensorRT or the CUDA runtime is absent or does not load.
        NoGpu: there is no driver or no GPU.
    """
    trt, cudart = tensorrt_module.load(module), Cudart()
    return Place(
        engine=engine,
        trt=trt,
        cudart=cudart,
        device=cudart.device_name(),
        compute_capability=cudart.compute_capability(),
        runtime=cudart.runtime_version(),
        driver=cudart.driver_version(),
    )


class TensorRt(Engine):
    """The engines that `deploy-attn build` wrote into the artifact's folder.

    A graph that no engine was built of is not run where another one was, as
    `build` builds one precision at a time.
    """

    name: ClassVar[str] = "tensorrt"
    module: ClassVar[str] = "tensorrt"

    def __init__(self, artifact: Artifact) -> None:
        super().__init__(artifact)
        self._found: tuple[Place, Mapping[str, EngineFile]] | None = None

    def runs(self, graph: Graph) -> Iterator[Run]:
        here, files = self._engines()
        if graph.precision in files:
            file = files[graph.precision]
            compatible = bool(file.manifest.key.options.get("version_compatible"))
            runner = TensorRtRunner(file.content, here, version_compatible=compatible, built=_hashes(files))
            yield Run(_BRACKETS[graph.precision], graph.precision, runner)

    def _engines(self) -> tuple[Place, Mapping[str, EngineFile]]:
        """Where they run, and the engine of each precision.

        Raises:
            BadRequest: none was built, or one that was is not for this machine.
        """
        if self._found is None:
            precisions = sorted({graph["precision"] for graph in self._artifact.manifest["graphs"]})
            try:
                here = place(self.name, self.module)
            except DeployAttnError:
                for one in precisions:  # a file that no machine may load is said before what this one lacks
                    find_engine(self._artifact, self.name, one, None)
                raise
            where = Here(here.version, here.compute_capability)
            asked = {one: find_engine(self._artifact, self.name, one, where) for one in precisions}
            files = {precision: file for precision, file in asked.items() if file is not None}
            if not files:
                raise BadRequest(
                    f"{self._artifact.path} has no engine for {self.name}. Build one on this machine: "
                    f"`deploy-attn build {self._artifact.path} --engine {self.name} --target TARGET`; "
                    "`deploy-attn list --targets` names the targets."
                )
            self._found = here, files
        return self._found


class TensorRtRunner(Runner):
    """One engine file, loaded while the runner is active.

    Args:
        content: the engine as its file holds it.
        place: where it runs.
        version_compatible: it was built to be, see `TensorRtEngine`.
        built: sha256 of each engine of its artifact by precision, for the
            conditions; without it that of `content`.
    """

    def __init__(
        self, content: bytes, place: Place, version_compatible: bool = False, built: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(content)
        self._place = place
        self._built = dict(built or {"engine": hashlib.sha256(content).hexdigest()})
        self._engine = TensorRtEngine(content, place.trt, place.cudart, version_compatible)
        self._held = ExitStack()

    def conditions(self) -> dict[str, Any]:
        return {**self._place.conditions(), "engine_sha256": self._built}

    def _activate(self) -> Sequence[InputSpec]:
        self._held.enter_context(self._engine)
        return [InputSpec(tensor.name, tensor.dtype, tensor.shape) for tensor in self._engine.inputs]

    def _check(self, feeds: Feeds) -> None:
        """As the engine takes them: a graph's int64 is an int32 of its engine before TensorRT 9."""
        super()._check({name: self._engine.narrowed(name, array) for name, array in feeds.items()})

    def _infer(self, feeds: Feeds) -> Outputs:
        return self._engine.infer(feeds)

    def _stopwatch(self, feeds: Feeds) -> Stopwatch:
        return stopwatch(self._engine, feeds, self._place.cudart, self._held)

    def _deactivate(self) -> None:
        # With the error that is on its way: after a fault the device refuses to free, which is no news then.
        self._held.__exit__(*sys.exc_info())


def _hashes(files: Mapping[str, EngineFile]) -> dict[str, str]:
    return {precision: file.manifest.sha256 for precision, file in files.items()}
