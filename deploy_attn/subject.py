"""The network that a request names: built, with its weights, how it is called, and the inputs of every parity case."""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deploy_attn.export.arguments import Arguments, Call
from deploy_attn.export.checkpoint import load_checkpoint
from deploy_attn.export.copying import check_weights, without_wrappers
from deploy_attn.export.feeds import OPEN_CASES, arrays_of_file, noise_of, other_extents, specs_of_file
from deploy_attn.export.reference import check_network
from deploy_attn.export.source_lines import module_said
from deploy_attn.jetson.errors import BadRequest, DeployAttnError
from deploy_attn.request import ExportRequest
from deploy_attn.sources import ShapeRequest, Source, find_source, own_traceback

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

    from deploy_attn.export.arguments import Feeds

    Array = np.ndarray[Any, Any]

_INPUTS_HINT = "Give it what it takes, with --shape or --input, or mend its forward."


@dataclass(frozen=True)
class Subject:
    """A network in float32 and eval mode, how it is called, and the inputs of every parity case."""

    network: nn.Module
    source: Source
    call: Call
    feeds: Mapping[str, Feeds]
    semantics: str | None = None

    @contextlib.contextmanager
    def own_errors(self, what: str, arguments: Arguments | None = None, hint: str = _INPUTS_HINT) -> Iterator[None]:
        """Whatever a user's network raises inside becomes a message with its traceback, without our frames.

        Args:
            what: what the network does not do.
            arguments: what it was called with, where that is not the first parity case.
            hint: what to do.
        """
        try:
            yield
        except DeployAttnError:
            raise
        except Exception as error:  # a network may raise anything
            tensors = (arguments or self.call.example).tensors
            shapes = ", ".join("x".join(map(str, tensor.shape)) for tensor in tensors)
            on = "on an input of" if len(tensors) == 1 else "on inputs of"
            where = _module_that_raised(self.network, error)
            trace = own_traceback(error, self.source.file)
            raise BadRequest(f"{self.source.name} {what} {on} {shapes}{where}:\n{trace}\n{hint}") from error

    def check_other_extents(self) -> None:
        """Runs the network itself on what its graph is to leave open.

        Raises:
            BadRequest: it does not take that.
        """
        for case, option in OPEN_CASES.items():
            if case in self.feeds:
                arguments = self.call.arguments(self.feeds[case])
                hint = f"Leave {option} out, or have the network take its extents from its input."
                with self.own_errors(f"is to be exported with {option} and does not run", arguments, hint):
                    check_network(self.network, arguments)


def _module_that_raised(network: nn.Module, error: BaseException) -> str:
    """The innermost of its modules that ran; "" where an error comes from elsewhere."""
    modules = {id(module): (path, type(module).__name__) for path, module in network.named_modules()}
    owners = [id(frame.f_locals.get("self")) for frame, _ in traceback.walk_tb(error.__traceback__)]
    running = [modules[owner] for owner in owners if owner in modules]
    return f", in {module_said(*running[-1])}" if running else ""


def source_of(request: ExportRequest) -> Source:
    """Where the network comes from; nothing is built yet.

    Raises:
        BadRequest: there is no such network, or it cannot have these inputs.
    """
    inputs = request.inputs or (() if request.input_file is None else specs_of_file(request.input_file))
    shapes = ShapeRequest(inputs, request.channels, request.dynamic_size)
    return find_source(request.name, shapes, request.options)


def subject_of(request: ExportRequest, source: Source) -> Subject:
    """The network of a source with the weights of a request.

    Raises:
        BadRequest: it cannot be built, called with these inputs, or filled with these weights.
    """
    import torch

    arrays = _arrays(request, source)
    torch.manual_seed(request.seed)
    network = source.build()
    network.eval()  # by itself: a train() of a user's own often returns nothing
    call = _call(network, source, next(iter(arrays.values())))
    subject = Subject(network, source, call, {case: dict(zip(call.names, given)) for case, given in arrays.items()})
    return replace(subject, network=_with_weights(subject, request.checkpoint), semantics=request.semantics)


def _arrays(request: ExportRequest, source: Source) -> dict[str, list[Array]]:
    """The parity inputs by the name of their case, in the order of the source's inputs."""
    if request.input_file is not None:
        arrays = {"file": arrays_of_file(request.input_file, source.inputs)}
    else:
        arrays = noise_of(source.inputs, request.seed, severe=source.file is None)
    # A network may need its extents to be multiples of its strides; a catalogue module does not.
    growth = (2, 3) if source.file is None else None
    first = next(iter(arrays.values()))
    return {**arrays, **other_extents(first, request.dynamic_batch, request.dynamic_size, growth)}


def _call(network: nn.Module, source: Source, arrays: list[Array]) -> Call:
    import torch

    tensors = list(zip(source.inputs, map(torch.from_numpy, arrays)))
    by_place = tuple(tensor for spec, tensor in tensors if spec.name is None)
    return Call.of(network, Arguments(by_place, {spec.name: tensor for spec, tensor in tensors if spec.name}))


def _with_weights(subject: Subject, checkpoint: Path | None) -> nn.Module:
    """The network in float32 on the CPU; its own weights, or those of a checkpoint."""
    import torch
    from torch.nn.parameter import is_lazy

    built = subject.network
    if any(is_lazy(value) for value in (*built.parameters(), *built.buffers())):
        with subject.own_errors("does not run"), torch.no_grad():
            subject.call.example.call(built)  # which makes the weights that a checkpoint may fill
    check_weights(built)
    network = without_wrappers(built).cpu().float()
    if checkpoint is not None:
        load_checkpoint(network, checkpoint)
    elif subject.source.file is None:
        from deploy_attn.modules.disturb import disturb_constants

        disturb_constants(network)  # a module that starts as the identity would prove nothing
    return network
