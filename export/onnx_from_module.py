"""PyTorch module -> ONNX at exactly the opset and IR version asked for."""

from __future__ import annotations

import contextlib
import io
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from deploy_attn.engines.shapes import without_weights
from deploy_attn.export.arguments import INPUT as INPUT
from deploy_attn.export.arguments import Arguments, Call
from deploy_attn.export.refused import place_of_operator
from deploy_attn.export.reshapes import freeze_reshapes, names_in_branches, shapes_from_inputs
from deploy_attn.export.results import named_outputs
from deploy_attn.export.results import output_tensors as output_tensors
from deploy_attn.export.stdout import stdout_to
from deploy_attn.jetson.errors import BadRequest, DeployAttnError

if TYPE_CHECKING:
    import onnx
    from torch import Tensor, nn

    Extents = tuple[int | str | None, ...]  # None for what hangs on the batch, and is not it

BATCH, HEIGHT, WIDTH = "batch", "height", "width"
_MAP = 4  # axes
_VALUES_MAKE_SHAPES = frozenset(["Compress", "NonMaxSuppression", "NonZero", "Unique"])
_COMPILED = "dynamo-optimized"
_SCRIPTED = "not part of the active trace"
_LONGEST_MESSAGE = 600  # characters
_DUMP = "  [Caused by the value"  # where the exporter's message goes on with its own graph


@dataclass(frozen=True)
class GraphRequest:
    """What the ONNX file must be."""

    opset: int
    ir_version: int
    dynamic_batch: bool = False
    dynamic_size: bool = False

    def open_axes(self, rank: int = 4) -> dict[int, str]:
        """The axes of an input that stay open, and their names; a height and width are those of a map."""
        axes = {0: BATCH} if self.dynamic_batch else {}
        return {**axes, 2: HEIGHT, 3: WIDTH} if self.dynamic_size and rank == _MAP else axes


def onnx_from_module(module: nn.Module, example: Tensor | Arguments | Call, request: GraphRequest) -> onnx.ModelProto:
    """Traces a module; its inputs are named as `Call.of` does, its outputs as `named_outputs`.

    The TorchScript exporter is used because it is the one that honours opset 13:
    the newer one answers such a request with opset 18 and says nothing. Node
    names are unique and carry the module path (`/layer1/attention/Mul`).

    Raises:
        BadRequest: the exporter refuses the network.
        DeployAttnError: the file read back is not of the opset and IR version
            asked for, or is not valid ONNX.
    """
    call = Call.of(module, example)
    extents = _output_extents(module, call, request)
    names = list(extents)
    with _flat(module, call):
        model = _traced(module, call, request, names)
    model.ir_version = min(model.ir_version, request.ir_version)
    _lift_constants(model.graph)
    _merge_equal_weights(model.graph)
    _name_outputs(model.graph, names)
    _make_names_unique(model.graph)
    freeze_reshapes(model)
    _state_output_shapes(model, list(extents.values()), request)
    return checked(model, request)


def _output_extents(module: nn.Module, call: Call, request: GraphRequest) -> dict[str, Extents]:
    """The extents of every output, by two runs where the batch is open."""
    import torch

    larger = call.example.mapped(lambda x: torch.cat([x, x])) if request.dynamic_batch else None
    twice = {} if larger is None else named_outputs(larger.call(module), call.names)
    # The example last: what a network keeps of a run is then of the extents that are traced.
    outputs = named_outputs(call.example.call(module), call.names)
    if larger is None:
        return {name: tuple(tensor.shape) for name, tensor in outputs.items()}
    batch = call.example.tensors[0].shape[0]

    def extent(once: int, doubled: int) -> int | str | None:
        return once if doubled == once else BATCH if once == batch else None

    return {name: tuple(map(extent, tensor.shape, twice[name].shape)) for name, tensor in outputs.items()}


@contextlib.contextmanager
def _flat(module: nn.Module, call: Call) -> Iterator[None]:
    """Has a module take all tensors by place and return all by place, as the exporter does.

    Hooks do it: a wrapper would stand in every name of the graph.
    """

    def nested(_: nn.Module, tensors: tuple[Tensor, ...], named: dict[str, Any]) -> tuple[Any, Any]:
        arguments = call.example.with_values(tensors)
        return arguments.positional, dict(arguments.named)

    def flattened(_: nn.Module, tensors: object, result: object) -> tuple[Tensor, ...]:
        return tuple(output_tensors(result))

    hooks = (
        module.register_forward_pre_hook(nested, prepend=True, with_kwargs=True),
        module.register_forward_hook(flattened),
    )
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _traced(module: nn.Module, call: Call, request: GraphRequest, names: list[str]) -> onnx.ModelProto:
    import onnx
    import torch

    buffer = io.BytesIO()
    tensors = tuple(tensor.clone() for tensor in call.example.tensors)
    with warnings.catch_warnings(), _plain_attention(), stdout_to(os.devnull):
        warnings.simplefilter("ignore", DeprecationWarning)
        # An instance norm takes its statistics from its input in training and in inference alike.
        warnings.filterwarnings("ignore", message="ONNX export mode is set to .*'instance_norm' is set to train=True")
        # Warnings of what a trace may freeze are for the user, but not those about torch's own layers.
        tracer_warning = torch.jit.TracerWarning  # type: ignore[attr-defined]
        warnings.filterwarnings("ignore", category=tracer_warning, module=r"torch\.")
        try:
            torch.onnx.export(
                module,
                tensors,
                buffer,  # type: ignore[arg-type]  # this exporter takes buffers as well
                dynamo=False,
                opset_version=request.opset,
                input_names=list(call.names),
                output_names=names,
                dynamic_axes=_dynamic_axes(request, call, names),
            )
        except Exception as error:  # the exporter raises many types
            message, place = _without_dump(str(error)), place_of_operator(module, tensors, str(error))
            advice = _advice(module, message)
            raise BadRequest(f"The exporter refuses this network: {message}\n{place}{advice}") from error
    model = onnx.load_from_string(buffer.getvalue())
    unread = [name for name in call.names if name not in {value.name for value in model.graph.input}]
    if len(unread) == len(call.names):
        raise BadRequest("The network's outputs do not depend on its input: there is nothing to export.")
    if unread:
        raise BadRequest(
            f"The network's outputs do not depend on {', '.join(unread)}. Give no shape for what it does not read, and "
            "a default in forward where it has none."
        )
    return model


def _advice(module: nn.Module, message: str) -> str:
    """What to do where the exporter refuses."""
    import torch

    if _COMPILED in message:
        return "Take torch.compile off the functions of the network: an export does not need it."
    scripted = [path for path, part in module.named_modules() if isinstance(part, torch.jit.ScriptModule)]
    if _SCRIPTED in message and scripted:
        return f"torch.jit compiled {scripted[0]}; build the network with the module that torch.jit was given."
    return "Replace the operation it names, or export a part."


def _without_dump(message: str) -> str:
    """An exporter's message without the graph or the tensor that it prints whole."""
    text = message.partition(_DUMP)[0]
    return text if len(text) <= _LONGEST_MESSAGE else f"{text[:_LONGEST_MESSAGE]} ..."


def _dynamic_axes(request: GraphRequest, call: Call, names: list[str]) -> dict[str, dict[int, str]]:
    """Open axes by tensor; of an output only the batch is known to be open, the rest is inferred."""
    batch = {0: BATCH} if request.dynamic_batch else {}
    ranks = zip(call.names, (tensor.dim() for tensor in call.example.tensors))
    return {**{name: request.open_axes(rank) for name, rank in ranks}, **{name: batch for name in names if batch}}


def checked(model: onnx.ModelProto, request: GraphRequest) -> onnx.ModelProto:
    """The model as a reader of its bytes sees it, if it is what was asked for.

    Raises:
        DeployAttnError: opset or IR version differ, or the ONNX checker refuses it.
    """
    import onnx

    oldest = onnx.helper.find_min_ir_version_for([onnx.helper.make_opsetid("", request.opset)])
    if request.ir_version < oldest:
        raise DeployAttnError(
            f"There is no graph of opset {request.opset}, IR {request.ir_version}: opset {request.opset} came with "
            f"IR {oldest}. Choose a target that takes these."
        )
    read_back = onnx.load_from_string(model.SerializeToString())
    opsets = {item.domain: item.version for item in read_back.opset_import}
    found = (opsets.get("", 0), read_back.ir_version)
    if set(opsets) != {""} or found != (request.opset, request.ir_version):
        raise DeployAttnError(
            f"The graph must be opset {request.opset}, IR {request.ir_version}; the file read back "
            f"has opsets {opsets} and IR {read_back.ir_version}. Choose a target that takes these."
        )
    try:
        onnx.checker.check_model(without_weights(read_back), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise DeployAttnError(
            f"The exporter wrote a graph that is not valid ONNX: {error}. "
            "Have the node that it names compute in float32."
        ) from error
    return read_back


@contextlib.contextmanager
def _plain_attention() -> Iterator[None]:
    """Keeps nn.MultiheadAttention from its fused inference path, which no exporter knows."""
    import torch

    enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(enabled)


def _lift_constants(graph: onnx.GraphProto) -> None:
    """Turns Constant nodes into initializers, which every reader of the graph finds in one place."""
    kept = []
    for node in graph.node:
        values = [attribute.t for attribute in node.attribute if attribute.name == "value"]
        if node.op_type == "Constant" and values:
            values[0].name = node.output[0]
            graph.initializer.append(values[0])
        else:
            kept.append(node)
    del graph.node[:]
    graph.node.extend(kept)


def _merge_equal_weights(graph: onnx.GraphProto) -> None:
    """Has equal weights read directly: the exporter shares them by Identity, which onnxruntime's optimiser breaks."""
    same = {tensor.name: tensor.name for tensor in graph.initializer}
    kept_names = {value.name for value in graph.output} | set(names_in_branches(graph))
    kept = []
    for node in graph.node:
        if node.op_type == "Identity" and node.input[0] in same and node.output[0] not in kept_names:
            same[node.output[0]] = same[node.input[0]]
        else:
            kept.append(node)
    for node in kept:
        node.input[:] = [same.get(name, name) for name in node.input]
    del graph.node[:]
    graph.node.extend(kept)


def _name_outputs(graph: onnx.GraphProto, names: list[str]) -> None:
    """The exporter does not rename an output that is a constant; an Identity does."""
    import onnx

    for value, name in zip(graph.output, names):
        if value.name != name:
            graph.node.append(onnx.helper.make_node("Identity", [value.name], [name], f"/{name}/Identity"))
            value.name = name


def _state_output_shapes(model: onnx.ModelProto, shapes: list[Extents], request: GraphRequest) -> None:
    """Gives every output the extents that it had when it was traced; what may vary stays open, the batch by name."""
    for value, shape in zip(model.graph.output, shapes):
        if len(value.type.tensor_type.shape.dim) != len(shape):
            raise BadRequest(
                f"The rank of {value.name!r} depends on the batch (is there a squeeze?), so the batch cannot be left "
                "open. Export without --dynamic-batch, or keep the batch axis in the network."
            )
    if request.dynamic_size or not _VALUES_MAKE_SHAPES.isdisjoint(node.op_type for node in model.graph.node):
        _infer_output_shapes(model, shapes)
        return
    for value, shape in zip(model.graph.output, shapes):
        for dimension, extent in zip(value.type.tensor_type.shape.dim, shape):
            dimension.Clear()
            if isinstance(extent, str):
                dimension.dim_param = extent
            elif extent is not None:
                dimension.dim_value = extent


def _infer_output_shapes(model: onnx.ModelProto, shapes: list[Extents]) -> None:
    """The outputs' extents from the graph alone, in the input's names; the exporter makes up names of its own."""
    for value, found, shape in zip(model.graph.output, shapes_from_inputs(model).output, shapes):
        ranks = (len(found.type.tensor_type.shape.dim), len(value.type.tensor_type.shape.dim))
        if ranks[0] == ranks[1]:
            value.type.tensor_type.shape.CopyFrom(found.type.tensor_type.shape)
            if shape[:1] == (BATCH,):
                value.type.tensor_type.shape.dim[0].dim_param = BATCH


def _make_names_unique(graph: onnx.GraphProto) -> None:
    taken: set[str] = set()
    for node in graph.node:
        base = node.name or f"/{node.op_type}"
        name, count = base, 1
        while name in taken:
            name, count = f"{base}_{count}", count + 1
        node.name = name
        taken.add(name)
