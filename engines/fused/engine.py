"""The fused operators as an engine: the graph that `deploy-attn fuse` left in an artifact's folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from deploy_attn.engines.base import Graph, Run
from deploy_attn.engines.fused.graph_file import ENGINE, stored_graph
from deploy_attn.engines.fused.library import fused_library, library_file
from deploy_attn.engines.onnxruntime import OnnxRuntimeCpu, OnnxRuntimeRunner
from deploy_attn.engines.settings import Settings
from deploy_attn.jetson.artifact import Artifact
from deploy_attn.jetson.errors import BadRequest, first_line

if TYPE_CHECKING:
    import onnxruntime

ONE_THREAD = Settings(intra_op_threads=1, inter_op_threads=1, spinning=False)


class OnnxRuntimeFused(OnnxRuntimeCpu):
    """FP32 on one thread of the CPU: one operator has no other threads and no levels, so nothing can be set.

    Raises:
        BadRequest: from `runs`: the folder has no fused graph of this export.
    """

    prefers: ClassVar[Sequence[str]] = ("fp32",)
    fixed: ClassVar[Settings | None] = ONE_THREAD

    def __init__(self, artifact: Artifact, settings: Mapping[str, Settings] | None = None) -> None:
        super().__init__(artifact, settings or {})  # what was tuned is of the artifact's own graphs

    def runs(self, graph: Graph) -> Iterator[Run]:
        if graph.precision == "fp32":
            content = stored_graph(self._artifact)
            yield Run("exact", "fp32", FusedRunner(content, settings=self._settings.get("fp32")))


class FusedRunner(OnnxRuntimeRunner):
    """A session for a graph with operators of the domain `deploy_attn`, whose library is compiled if need be.

    Raises:
        BadRequest: on entry: onnxruntime is not installed, or one of before 1.16; or `fused_library` cannot be served.
        DeployAttnError: on entry: the library does not compile.
    """

    def __init__(self, content: bytes, settings: Settings | None = None) -> None:
        super().__init__(content, settings=settings or ONE_THREAD)

    def conditions(self) -> dict[str, Any]:
        own = {"engine": ENGINE, "graph": "one fused operator", "library": library_file().name}
        return {**super().conditions(), **own}

    def _options(self, ort: Any) -> onnxruntime.SessionOptions:
        options, library = super()._options(ort), fused_library()
        try:
            options.register_custom_ops_library(str(library))
        except Exception as error:  # onnxruntime raises a class for each status
            raise BadRequest(
                f"onnxruntime {ort.__version__} does not take {library}: {first_line(error).rstrip('.')}. It takes "
                "1.16 or newer; if it is, delete that file, and it is compiled again."
            ) from error
        return options
