"""Which rivals there are, what each is made from, and what it gives to be timed."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from deploy_attn.engines.base import Feeds, Outputs
from deploy_attn.engines.latency.result import Candidate
from deploy_attn.jetson.errors import BadRequest, DeployAttnError, first_line
from deploy_attn.jetson.suggest import known_names

if TYPE_CHECKING:
    import onnx
    from torch import nn

    from deploy_attn.engines.settings import Settings
    from deploy_attn.export.arguments import Call
    from deploy_attn.export.onnx_from_module import GraphRequest
    from deploy_attn.jetson.artifact import Artifact

# Rival -> the package that it needs beside the engine's. Each is a file of that name here, with a function `entrant`.
RIVALS: Mapping[str, str] = MappingProxyType(
    {
        "naive": "torch",
        "onnxsim": "onnxsim",
        "onnxslim": "onnxslim",
        "eager": "torch",
        "compile": "torch",
        "openvino": "openvino",
        "fused": "onnxruntime",
    }
)
_ON_A_GPU = ("naive", "onnxsim", "onnxslim")


@dataclass(frozen=True)
class Ground:
    """What every rival of an artifact starts from.

    Attributes:
        artifact: itself.
        network: as it is commonly written, in float32 and eval mode.
        call: how it is called, with the arrays that are timed.
        feeds: the same arrays, by the names of a graph's inputs.
        request: the opset, IR version and open axes of the artifact's graphs.
        settings: of onnxruntime, for what runs there.
        threads: of whatever runs on a CPU.
    """

    artifact: Artifact
    network: nn.Module
    call: Call
    feeds: Feeds
    request: GraphRequest
    settings: Settings
    threads: int

    @functools.cached_property
    def graph(self) -> onnx.ModelProto:
        """The plain export: the network as it stands, traced, with nothing done to the graph.

        Raises:
            BadRequest: the exporter refuses it.
        """
        import torch

        from deploy_attn.export.onnx_from_module import onnx_from_module

        with torch.inference_mode(), warnings.catch_warnings():
            # What the trace freezes of the size is what is timed, and the source is as it is.
            warnings.simplefilter("ignore", torch.jit.TracerWarning)  # type: ignore[attr-defined]
            return onnx_from_module(self.network, self.call, self.request)


@dataclass(frozen=True)
class Entrant:
    """A rival that is ready: what is timed, and what it computes from the same inputs."""

    candidate: Candidate
    infer: Callable[[Feeds], Outputs]


def check_rivals(names: Sequence[str], engine: str, on_a_cpu: bool) -> None:
    """Checks that these rivals can be timed beside an engine.

    Raises:
        BadRequest: one is unknown, named twice, not installed, or does not run where the engine does.
    """
    for name in names:
        if name not in RIVALS:
            raise BadRequest(f"Unknown rival {name!r}. {known_names(name, RIVALS)}")
        if names.count(name) > 1:
            raise BadRequest(f"The rival {name} is named twice. Name it once.")
        if importlib.util.find_spec(RIVALS[name]) is None:
            raise BadRequest(
                f"The rival {name} was asked for, and {RIVALS[name]} is not installed. "
                "`pip install 'deploy-attn[peers]'` brings it; or leave the rival out."
            )
        if not on_a_cpu and not (engine.startswith("onnxruntime") and name in _ON_A_GPU):
            raise BadRequest(f"The rival {name} does not run beside {engine}. {_possible_beside(engine)}")


def _possible_beside(engine: str) -> str:
    if engine.startswith("onnxruntime"):
        return f"There it can be {' or '.join(_ON_A_GPU)}; all rivals run beside --engine onnxruntime."
    return "Compare two artifacts, each with its engine built: `deploy-attn bench DIR DIR2`."


def entrant_of(name: str, ground: Ground, held: ExitStack) -> Entrant:
    """A rival, ready to be timed until `held` ends.

    Raises:
        BadRequest: it does not take this network.
    """
    module = importlib.import_module(f"deploy_attn.rivals.{name}")
    try:
        found: Entrant = module.entrant(ground, held)
    except DeployAttnError:
        raise
    except Exception as error:  # each raises types of its own, and what a simplifier wrote onnxruntime may refuse
        raise BadRequest(f"{name} does not take this network: {first_line(error)}") from error
    return found
