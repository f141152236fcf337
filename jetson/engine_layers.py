"""The layers of a built engine and the types of their tensors, as TensorRT itself lists them.

Three lists say it, and each version has at least one:
the engine inspector's JSON (from 8.2 on; up to 10 a tensor has "Format/Datatype",
from 11 on "Format" and "Datatype"), the list that the builder logs at its end
(`Engine Layer Information:` in 8, `Layers:` later), and the network's own layers,
which tell what was asked for rather than what was built.

A type that is not known is an error: it must not read as FP32 or as nothing.
"""

import json
import re
from types import MappingProxyType
from typing import Any, Dict, Iterable, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from .errors import DeployAttnError

HALF, FLOAT, UNSHOWN = "half", "float", "unknown"

_TYPES = MappingProxyType(
    {
        "half": HALF,
        "fp16": HALF,
        "float16": HALF,
        "float": FLOAT,
        "fp32": FLOAT,
        "float32": FLOAT,
        "double": "double",
        "fp64": "double",
        "bf16": "bfloat16",
        "bfloat16": "bfloat16",
        "fp8": "fp8",
        "fp8e4m3": "fp8",
        "fp4": "fp4",
        "fp4e2m1": "fp4",
        "e8m0": "e8m0",
        "int4": "int4",
        "int8": "int8",
        "uint8": "uint8",
        "int16": "int16",
        "uint16": "uint16",
        "int32": "int32",
        "uint32": "uint32",
        "int64": "int64",
        "uint64": "uint64",
        "bool": "bool",
    }
)
_WORD = re.compile(r"[A-Za-z][A-Za-z0-9]*")
# What the inspector writes where sizes are open and no shapes were given, or where it does not tell.
_NOT_SHOWN = re.compile(r"N/A\b.*|Unknown format|None|")

_NODE = re.compile(r"\[ONNX Layer: (.*)\](?:__\w+)?", re.DOTALL)
_LOGGED_8 = re.compile(r"Layer\((?P<type>[^)]*)\): (?P<name>.*), Tactic: [-\w]+, (?P<inputs>.*?) ?-> ?(?P<outputs>.*)")
_TENSOR_8 = re.compile(r"(?P<name>.*?)\[(?P<type>[A-Za-z]\w*)\([^()]*\)\](?:, |$)")
_LOGGED_10 = re.compile(
    r"Name: (?P<name>.*?), LayerType: (?P<type>[^,]*), Inputs: \[(?P<inputs>|.*?\})\], "
    r"(?:Constants: \[(?P<constants>|.*?\})\], )?Outputs: \[(?P<outputs>|.*?\})\](?:, (?P<rest>.*))?"
)
_TENSOR_10 = re.compile(r"\{ Name: (?P<name>.*?), (?P<rest>[^{}]*)\}")
_TYPE_10 = re.compile(r"(?:^|, )(?P<key>Format/Datatype|Data[tT]ype): (?P<type>[^,]*)")
_METADATA_10 = re.compile(r"Metadata: ?(?P<nodes>.*)")


class EngineLayer(NamedTuple):
    """One layer of an engine.

    `inputs`, `outputs` and `weights` are the types of its tensors (`half`,
    `float`, `int32` ...; `unknown` where TensorRT does not show it), `nodes`
    the ONNX nodes that its metadata names, which only newer versions write.
    """

    name: str
    layer_type: str
    inputs: Tuple[str, ...]
    outputs: Tuple[str, ...]
    weights: Tuple[str, ...]
    nodes: Tuple[str, ...]

    def types(self) -> Tuple[str, ...]:
        """The types of all its tensors."""
        return self.inputs + self.outputs + self.weights

    def as_dict(self) -> Dict[str, Any]:
        return {
            "name": self.name,
            "type": self.layer_type,
            "inputs": list(self.inputs),
            "outputs": list(self.outputs),
            "weights": list(self.weights),
            "nodes": list(self.nodes),
        }


class LayersNotUnderstood(DeployAttnError):
    """A list of layers has a form or a type that is not known here."""


def layers_from_inspector(text: str) -> List[EngineLayer]:
    """Reads `get_engine_information(LayerInformationFormat.JSON)` of any version.

    Raises:
        LayersNotUnderstood: it is not such JSON, lists names only (the engine
            was built without detailed profiling), or has an unknown type.
    """
    try:
        information = json.loads(text, strict=False)  # metadata has control characters in it
    except (ValueError, TypeError, RecursionError) as error:
        raise LayersNotUnderstood("The engine inspector's answer is not JSON: {}.".format(error)) from error
    layers = information.get("Layers") if isinstance(information, dict) else None
    if not isinstance(layers, list) or not layers:
        raise LayersNotUnderstood("The engine inspector's answer lists no layers.")
    if any(isinstance(layer, str) for layer in layers):
        raise LayersNotUnderstood(
            "The engine inspector lists names of layers only: the engine was not built with the profiling verbosity "
            "DETAILED, so it does not hold its types."
        )
    return [_inspected(layer) for layer in layers]


def layers_from_log(messages: Iterable[Sequence[str]]) -> Optional[List[EngineLayer]]:
    """Reads the list that the builder logs at its end; None where the log has none.

    Args:
        messages: (severity, text) of each message.

    Raises:
        LayersNotUnderstood: a line of the list has another form, or an unknown type.
    """
    texts = [message[1] for message in messages]
    lists = [text for text in texts if text.startswith(("Engine Layer Information:", "Layers:\n"))]
    if not lists:
        return None
    lines = [line.strip() for line in lists[-1].split("\n\nI/O Tensors")[0].split("\n\nBindings")[0].splitlines()[1:]]
    if not any(lines):  # a message for each layer
        lines = [text for text in texts[len(texts) - texts[::-1].index(lists[-1]) :] if text.startswith("Layer(")]
    return [_logged(line) for line in lines if line] or None


def layers_from_network(network: Any, trt: Any) -> List[EngineLayer]:
    """The layers of a network definition, with the precision that was set on them."""
    return [_defined(network.get_layer(index), trt) for index in range(network.num_layers)]


def nodes_in_metadata(text: str) -> Tuple[str, ...]:
    """The ONNX nodes of `[ONNX Layer: a]\\x1f[ONNX Layer: b]`."""
    matches = [_NODE.match(part) for part in re.split("[\x1e\x1f]", text or "")]
    return tuple(match.group(1) for match in matches if match)


def _inspected(layer: Any) -> EngineLayer:
    if not isinstance(layer, dict):
        raise LayersNotUnderstood("The engine inspector lists {!r} as a layer.".format(layer))
    weights = [layer[key].get("Type", "") for key in ("Weights", "Bias") if isinstance(layer.get(key), dict)]
    return EngineLayer(
        str(layer.get("Name", "")),
        str(layer.get("LayerType", "")),
        _tensor_types(layer.get("Inputs")),
        _tensor_types(layer.get("Outputs")),
        tuple(_type(str(text), exact=True) for text in weights) + _tensor_types(layer.get("Constants")),
        nodes_in_metadata(str(layer.get("Metadata", ""))),
    )


def _tensor_types(tensors: Any) -> Tuple[str, ...]:
    if not isinstance(tensors, (list, type(None))):
        raise LayersNotUnderstood("The engine inspector lists {!r} as tensors.".format(tensors))
    return tuple(_tensor_type(tensor) for tensor in tensors or ())


def _tensor_type(tensor: Any) -> str:
    if not isinstance(tensor, dict):
        raise LayersNotUnderstood("The engine inspector lists {!r} as a tensor.".format(tensor))
    for key in ("Datatype", "DataType"):
        if key in tensor:
            return _type(str(tensor[key]), exact=True)
    return _type(str(tensor.get("Format/Datatype", tensor.get("Format", ""))), exact=False)


def _logged(line: str) -> EngineLayer:
    match = _LOGGED_8.fullmatch(line)
    if match:
        tensors = [_tensors_8(match.group(key), line) for key in ("inputs", "outputs")]
        return EngineLayer(match.group("name"), match.group("type"), tensors[0], tensors[1], (), ())
    match = _LOGGED_10.fullmatch(line)
    if not match:
        raise LayersNotUnderstood("The builder's list of layers has the line {!r}.".format(line))
    metadata = _METADATA_10.search(match.group("rest") or "")
    inputs, outputs, constants = (_tensors_10(match.group(key) or "") for key in ("inputs", "outputs", "constants"))
    nodes = nodes_in_metadata(metadata.group("nodes")) if metadata else ()
    return EngineLayer(match.group("name"), match.group("type"), inputs, outputs, constants, nodes)


def _tensors_8(text: str, line: str) -> Tuple[str, ...]:
    found = list(_TENSOR_8.finditer(text))
    if "".join(match.group(0) for match in found) != text:
        raise LayersNotUnderstood("The builder's list of layers has the tensors {!r} in {!r}.".format(text, line))
    return tuple(_type(match.group("type"), exact=True) for match in found)


def _tensors_10(text: str) -> Tuple[str, ...]:
    found = list(_TENSOR_10.finditer(text))
    if len(found) != text.count("{ Name: "):
        raise LayersNotUnderstood("The builder's list of layers has the tensors {!r}.".format(text))
    types = []
    for match in found:
        shown = _TYPE_10.search(match.group("rest"))
        if not shown:
            raise LayersNotUnderstood("The builder lists a tensor without a type: {!r}.".format(match.group(0)))
        types.append(_type(shown.group("type").strip(), exact=shown.group("key") != "Format/Datatype"))
    return tuple(types)


def _type(text: str, exact: bool) -> str:
    """The type that a text names: alone, or among the words that describe a layout.

    `Half`, `Row major linear FP16 format`, `Channel major FP16 format where channel % 8 == 0.`
    """
    stripped = text.strip().rstrip(".")
    if _NOT_SHOWN.fullmatch(stripped):
        return UNSHOWN
    words = [stripped] if exact else _WORD.findall(stripped)
    found = {_TYPES[word.lower()] for word in words if word.lower() in _TYPES}
    if len(found) != 1:
        raise LayersNotUnderstood(
            "TensorRT gives a tensor the type {!r}, which is not known here: the engine's precision cannot be "
            "told.".format(text)
        )
    return found.pop()


def _defined(layer: Any, trt: Any) -> EngineLayer:
    names = _names_of_types(trt)
    inputs = [layer.get_input(index) for index in range(layer.num_inputs)]
    outputs = [layer.get_output(index) for index in range(layer.num_outputs)]
    made = [names.get(tensor.dtype, UNSHOWN) for tensor in outputs if tensor is not None]
    if hasattr(layer, "precision_is_set") and layer.precision_is_set:
        asked = names.get(layer.precision, UNSHOWN)
        made = [asked if kind in (HALF, FLOAT) else kind for kind in made]
    return EngineLayer(
        layer.name,
        getattr(layer.type, "name", str(layer.type)),
        tuple(names.get(tensor.dtype, UNSHOWN) for tensor in inputs if tensor is not None),
        tuple(made),
        (),
        nodes_in_metadata(getattr(layer, "metadata", "")),
    )


def _names_of_types(trt: Any) -> Mapping[Any, str]:
    members = ("FLOAT", "HALF", "BF16", "INT8", "INT32", "INT64", "BOOL", "UINT8", "FP8", "INT4", "FP4")
    known = [name for name in members if hasattr(trt.DataType, name)]
    return {getattr(trt.DataType, name): _TYPES[name.lower()] for name in known}
