"""PyTorch module -> ONNX at exactly the opset and IR version asked for."""

from __future__ import annotations

import contextlib
import io
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from deploy_attn.export.reshapes import freeze_reshapes, names_in_branches, shapes_from_inputs
from deploy_attn.export.stdout import stdout_to
from deploy_attn.jetson.errors import BadRequest, DeployAttnError

if TYPE_CHECKING:
    import onnx
    from torch import Tensor, nn

INPUT = "input"
OUTPUT = "output"
BATCH, HEIGHT, WIDTH = "batch", "height", "width"


@dataclass(frozen=True)
class GraphRequest:
    """What the ONNX file must be."""

    opset: int
    ir_version: int
    dynamic_batch: bool = False
    dynamic_size: bool = False

    @property
    def open_axes(self) -> dict[int, str]:
        """The input's axes that stay open, and their names."""
        axes = {0: BATCH} if self.dynamic_batch else {}
        return {**axes, 2: HEIGHT, 3: WIDTH} if self.dynamic_size else axes


def onnx_from_module(module: nn.Module, x: Tensor, request: GraphRequest) -> onnx.ModelProto:
    """Traces a module of one input `b c h w` and one or several output tensors.

    The TorchScript exporter is used because it is the one that honours opset 13:
    the newer one answers such a request with opset 18 and says nothing. Node
    names are unique and carry the module path (`/layer1/attention/Mul`).

    Raises:
        BadRequest: the exporter refuses the network.
        DeployAttnError: the file read back is not of the opset and IR version
            asked for, or is not valid ONNX.
    """
    outputs = output_tensors(module(x.clone()))
    names = output_names(len(outputs))
    model = _traced(module, x, request, names)
    model.ir_version = min(model.ir_version, request.ir_version)
    _lift_constants(model.graph)
    _merge_equal_weights(model.graph)
    _name_outputs(model.graph, names)
    _make_names_unique(model.graph)
    freeze_reshapes(model)
    _state_output_shapes(model, [tuple(tensor.shape) for tensor in outputs], request)
    return checked(model, request)


def _traced(module: nn.Module, x: Tensor, request: GraphRequest, names: list[str]) -> onnx.ModelProto:
    import onnx
    import torch

    buffer = io.BytesIO()
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
                (x.clone(),),
                buffer,  # type: ignore[arg-type]  # this exporter takes buffers as well
                dynamo=False,
                opset_version=request.opset,
                input_names=[INPUT],
                output_names=names,
                dynamic_axes=_dynamic_axes(request, names),
            )
        except Exception as error:  # the exporter raises many types
            raise BadRequest(
                f"The exporter refuses this network: {error}\nReplace the operation it names, or export a part."
            ) from error
    model = onnx.load_from_string(buffer.getvalue())
    if not model.graph.input:
        raise BadRequest("The network's outputs do not depend on its input: there is nothing to export.")
    return model


def _dynamic_axes(request: GraphRequest, names: list[str]) -> dict[str, dict[int, str]]:
    """Open axes by tensor; of an output only the batch is known to be open, the rest is inferred."""
    batch = {0: BATCH} if request.dynamic_batch else {}
    return {INPUT: request.open_axes, **{name: batch for name in names if batch}}


def output_names(count: int) -> list[str]:
    """`output` for a single tensor, `output_0`, `output_1` ... for several."""
    return [OUTPUT] if count == 1 else [f"{OUTPUT}_{index}" for index in range(count)]


def output_tensors(result: object) -> list[Tensor]:
    """The tensors of a network's result.

    Raises:
        BadRequest: it is neither a tensor nor a tuple or list of tensors.
    """
    import torch

    if isinstance(result, torch.Tensor):
        return [result]
    if isinstance(result, (tuple, list)) and result and all(isinstance(part, torch.Tensor) for part in result):
        return list(result)
    raise BadRequest(
        f"The network returns {type(result).__name__}; it must return a tensor, or a tuple or list of tensors. "
        "Wrap it in a module whose forward returns those."
    )


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
        onnx.checker.check_model(read_back, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise DeployAttnError(f"The exporter wrote a graph that is not valid ONNX: {error}") from error
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


def _state_output_shapes(model: onnx.ModelProto, shapes: list[tuple[int, ...]], request: GraphRequest) -> None:
    """Gives every output the extents that it had when it was traced; what may vary stays open, by its name."""
    for value, shape in zip(model.graph.output, shapes):
        if len(value.type.tensor_type.shape.dim) != len(shape):
            raise BadRequest(
                f"The rank of {value.name!r} depends on the batch (is there a squeeze?), so the batch cannot be left "
                "open. Export without --dynamic-batch, or keep the batch axis in the network."
            )
    if request.dynamic_size:
        _infer_output_shapes(model)
        return
    for value, shape in zip(model.graph.output, shapes):
        for index, extent in enumerate(shape):
            dimension = value.type.tensor_type.shape.dim[index]
            if index > 0 or dimension.dim_param != BATCH:
                dimension.dim_value = extent


def _infer_output_shapes(model: onnx.ModelProto) -> None:
    """The outputs' extents from the graph alone, in the input's names; the exporter makes up names of its own."""
    for value, found in zip(model.graph.output, shapes_from_inputs(model).graph.output):
        ranks = (len(found.type.tensor_type.shape.dim), len(value.type.tensor_type.shape.dim))
        if ranks[0] == ranks[1]:
            batch = value.type.tensor_type.shape.dim[0].dim_param
            value.type.tensor_type.shape.CopyFrom(found.type.tensor_type.shape)
            if batch == BATCH:
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
