"""A small ONNX file made byte by byte: Python 3.6 on a board has onnxruntime at most, and no onnx."""

import struct
from typing import Optional, Sequence

_FLOAT = 1


def scaled_relu(factor: float, shape: Sequence[Optional[int]]) -> bytes:
    """y = relu(x) * factor in float32, opset 13; an axis of None is open."""
    constant = _number(1, 1) + _number(2, _FLOAT) + _field(8, b"factor") + _field(9, struct.pack("<f", factor))
    graph = _field(1, _node("Relu", "act", ["x"], "r")) + _field(1, _node("Mul", "scale", ["r", "factor"], "y"))
    graph += _field(2, b"graph") + _field(5, constant)
    graph += _field(11, _value("x", shape)) + _field(12, _value("y", shape))
    return _number(1, 7) + _field(7, graph) + _field(8, _number(2, 13))


def _node(operator: str, name: str, inputs: Sequence[str], output: str) -> bytes:
    fields = b"".join(_field(1, text.encode("ascii")) for text in inputs)
    return fields + _field(2, output.encode("ascii")) + _field(3, name.encode("ascii")) + _field(4, operator.encode())


def _value(name: str, shape: Sequence[Optional[int]]) -> bytes:
    dims = b"".join(_field(1, _field(2, b"n") if extent is None else _number(1, extent)) for extent in shape)
    tensor = _number(1, _FLOAT) + _field(2, dims)
    return _field(1, name.encode("ascii")) + _field(2, _field(1, tensor))


def _field(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _number(number: int, value: int) -> bytes:
    return _varint(number << 3) + _varint(value)


def _varint(value: int) -> bytes:
    out = bytearray()
    while True:
        out.append(value & 0x7F | (0x80 if value > 0x7F else 0))
        value >>= 7
        if not value:
            return bytes(out)
