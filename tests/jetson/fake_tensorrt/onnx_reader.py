"""As much of an ONNX file as the fake parser needs, without onnx: Python 3.6 on a board has none."""

from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Tuple

_VARINT, _EIGHT_BYTES, _LENGTH, _FOUR_BYTES = 0, 1, 2, 5
_TYPES = {1: "FLOAT", 2: "UINT8", 3: "INT8", 6: "INT32", 7: "INT64", 9: "BOOL", 10: "HALF", 11: "DOUBLE", 16: "BF16"}
_BOOLEAN = ("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "And", "Or", "Not", "IsNaN", "IsInf")


class Node(NamedTuple):
    name: str
    operator: str
    inputs: Tuple[str, ...]
    outputs: Tuple[str, ...]
    cast_to: str


class Graph(NamedTuple):
    """Nodes, and by name the types and shapes of inputs and outputs (None: open) and of initializers."""

    nodes: List[Node]
    inputs: Dict[str, Tuple[Optional[int], ...]]
    outputs: Dict[str, Tuple[Optional[int], ...]]
    constants: List[str]
    types: Dict[str, str]


def read_graph(content: bytes) -> Graph:
    """Reads a model; raises ValueError for bytes that are none."""
    try:
        model = _message(content)
        graph = _message(model[7][0])
    except (IndexError, KeyError, UnicodeDecodeError, TypeError) as error:
        raise ValueError("not an ONNX file") from error
    types: Dict[str, str] = {}
    constants = []
    for tensor in map(_message, graph.get(5, [])):
        name = tensor[8][0].decode()
        constants.append(name)
        types[name] = _TYPES[tensor[2][0]]
    shapes: List[Dict[str, Tuple[Optional[int], ...]]] = [{}, {}]
    for field, found in ((11, shapes[0]), (12, shapes[1])):
        for value in map(_message, graph.get(field, [])):
            name = value[1][0].decode()
            tensor = _message(_message(value[2][0])[1][0])
            types[name] = _TYPES[tensor[1][0]]
            found[name] = tuple(_extent(dim) for dim in _message(tensor.get(2, [b""])[0]).get(1, []))
    nodes = [_node(_message(content)) for content in graph.get(1, [])]
    for node in nodes:
        for output in node.outputs:
            types.setdefault(output, _output_type(node, types))
    inputs = {name: shape for name, shape in shapes[0].items() if name not in constants}
    return Graph(nodes, inputs, shapes[1], constants, types)


def _node(fields: Dict[int, List[Any]]) -> Node:
    cast_to = ""
    for attribute in map(_message, fields.get(5, [])):
        if attribute[1][0] == b"to":
            cast_to = _TYPES[attribute[3][0]]
    name = fields.get(3, [b""])[0].decode()
    inputs, outputs = (tuple(text.decode() for text in fields.get(field, [])) for field in (1, 2))
    return Node(name, fields[4][0].decode(), inputs, outputs, cast_to)


def _output_type(node: Node, types: Dict[str, str]) -> str:
    if node.operator in ("Shape", "Size", "ArgMax", "ArgMin", "NonZero"):
        return "INT64"
    if node.operator in _BOOLEAN:
        return "BOOL"
    source = node.inputs[1] if node.operator == "Where" else node.inputs[0] if node.inputs else ""
    return node.cast_to or types.get(source, "FLOAT")


def _extent(dim: bytes) -> Optional[int]:
    fields = _message(dim)
    return fields[1][0] if 1 in fields else None


def _message(content: Any) -> Dict[int, List[Any]]:
    fields: Dict[int, List[Any]] = {}
    for number, value in _fields(bytes(content)):
        fields.setdefault(number, []).append(value)
    return fields


def _fields(content: bytes) -> Iterator[Tuple[int, Any]]:
    place = 0
    while place < len(content):
        tag, place = _varint(content, place)
        number, kind = tag >> 3, tag & 7
        if kind == _VARINT:
            value, place = _varint(content, place)
            yield number, value
            continue
        if kind == _LENGTH:
            size, place = _varint(content, place)
        else:
            size = {_EIGHT_BYTES: 8, _FOUR_BYTES: 4}[kind]
        if place + size > len(content):
            raise IndexError("the message ends too early")
        yield number, content[place : place + size]
        place += size


def _varint(content: bytes, place: int) -> Tuple[int, int]:
    value = shift = 0
    while True:
        byte = content[place]
        value |= (byte & 127) << shift
        place, shift = place + 1, shift + 7
        if byte < 128:
            return value, place
