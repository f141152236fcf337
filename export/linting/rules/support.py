"""Operators that the parser has no importer for: it looks for a plugin of that name, and refuses the graph."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from deploy_attn.engines.target import Target
from deploy_attn.export.linting.finding import Finding
from deploy_attn.export.linting.graph import LintGraph, label
from deploy_attn.export.linting.parser import Parser

if TYPE_CHECKING:
    import onnx

_FUNCTIONS_SINCE = (9, 0)
_NATIVE_FUNCTIONS = "inline the model's functions: onnx.inliner.inline_local_functions(model)"
_PLUGIN_DOMAIN = "trt.plugins"
_PLUGIN_SUFFIX = "_TRT"  # of every plugin in TensorRT's own library
_FIXED = "--fix writes it as operators that the parser has"
_QUANTIZED = "quantise with QuantizeLinear and DequantizeLinear around float operators instead"
_NO_SEQUENCES = "export without lists of tensors: unroll the loop, or Concat and Slice a tensor"
_PREPARE = "do it before the engine, on the host"

# What computes the same from operators that every parser has, one line for each operator that can be lacking.
_INSTEAD: Mapping[str, str] = MappingProxyType(
    {
        "AffineGrid": "fold it where theta is constant, else MatMul with a constant grid",
        "Attention": "write MatMul, Softmax and MatMul, with the scale on Q before the product",
        "BitCast": "export without reinterpreting bits",
        "CastLike": _FIXED,
        "CenterCropPad": "write Slice and Pad with constant extents",
        "Col2Im": "write ConvTranspose with a constant 0/1 kernel",
        "Compress": "write Gather with constant indices, or mask by Mul",
        "CumProd": "write Exp of CumSum of Log where the values are positive",
        "DFT": "write MatMul with the constant matrix of that length",
        "DeformConv": "use TensorRT 10.1 or newer, or write GridSample and Conv where that exists",
        "Det": "write the product out for the fixed size of the matrix",
        "DynamicQuantizeLinear": _QUANTIZED,
        "ConvInteger": _QUANTIZED,
        "MatMulInteger": _QUANTIZED,
        "QLinearConv": _QUANTIZED,
        "QLinearMatMul": _QUANTIZED,
        "Einsum": "write Transpose, Reshape and MatMul, or use TensorRT 8.2 (JetPack 4.6.1) or newer",
        "GatherND": "write Gather over a flattened axis, or use TensorRT 8.2 (JetPack 4.6.1) or newer",
        "Gelu": _FIXED,
        "GridSample": "sample in the host program, or use TensorRT 8.5 or newer",
        "GroupNormalization": _FIXED,
        "HardSwish": _FIXED,
        "Hardmax": "write Equal(x, ReduceMax(x)) and Cast where the maximum is unique",
        "IsInf": "write Greater(Abs(x), 3.4e38)",
        "IsNaN": "keep NaN out of the network: clip or add an eps where it would arise",
        "LayerNormalization": _FIXED,
        "LinearAttention": "write its MatMuls out",
        "MeanVarianceNormalization": "write ReduceMean, Sub, Mul, ReduceMean, Add, Sqrt and Div",
        "Mish": _FIXED,
        "Mod": "--fix writes it of integers; of floats, write a - b * Floor(a / b), which has the sign of b",
        "NonZero": "export without data-dependent shapes: mask by Mul or Where",
        "OneHot": "write Equal with a constant range, Cast to FP32, Mul and Add",
        "RMSNormalization": _FIXED,
        "RandomNormal": "give the noise as an input",
        "RandomNormalLike": "give the noise as an input",
        "Bernoulli": "give the noise as an input",
        "Multinomial": "give the noise as an input",
        "RotaryEmbedding": "write Slice, Neg, Concat, Mul and Add with constant tables",
        "Round": "write Floor(x + 0.5), which differs at halves only",
        "STFT": "write Conv with constant windowed sines and cosines",
        "Scatter": "write Where with a constant mask, or Concat of slices",
        "ScatterElements": "write Where with a constant mask, or Concat of slices",
        "ScatterND": "write Where with a constant mask, or Concat of slices",
        "Shrink": "write Where over Greater and Less",
        "Sign": "write Greater and Less, Cast to FP32, and Sub",
        "SwiGLU": "write Split, Sigmoid and Mul",
        "Swish": _FIXED,
        "TensorScatter": "write ScatterND",
        "Trilu": "--fix writes it as Where over a constant triangle if its extents are known, else fold it",
        "Unique": "export without data-dependent shapes",
        "Xor": _FIXED,
    }
)
_INSTEAD_BY_PREFIX: Mapping[str, str] = MappingProxyType(
    {
        "Bitwise": "export without bitwise arithmetic; on booleans, And, Or and Not do the same",
        "BitShift": "write Mul or Div by a power of 2",
        "Sequence": _NO_SEQUENCES,
        "SplitToSequence": _NO_SEQUENCES,
        "ConcatFromSequence": _NO_SEQUENCES,
        "Optional": "export without optional values",
        "String": _PREPARE,
        "Regex": _PREPARE,
        "TfIdf": _PREPARE,
        "ImageDecoder": _PREPARE,
        "MelWeightMatrix": "fold it: all of its inputs are known",
        "BlackmanWindow": "fold it: its size is known",
        "HammingWindow": "fold it: its size is known",
        "HannWindow": "fold it: its size is known",
        "NegativeLogLikelihoodLoss": "export the network without its loss",
        "SoftmaxCrossEntropyLoss": "export the network without its loss",
    }
)


def operators(graph: LintGraph, parser: Parser) -> Iterator[Finding]:
    """Each node whose operator this version's parser cannot import, or not for sure."""
    for node in graph.named(*(operator for operator in graph.operators if not parser.knows(operator))):
        yield _lacking(node, parser)
    for node in graph.foreign:
        yield _foreign(node, parser)


def functions(graph: LintGraph, parser: Parser) -> Iterator[Finding]:
    """Calls of the model's own functions, which parsers read from 9.0 on."""
    if parser.version >= _FUNCTIONS_SINCE:
        return
    for node in graph.calls:
        yield Finding(
            "local-function",
            label(node),
            node.op_type,
            "refused",
            f"TensorRT {parser.table} does not read functions of the model itself, which came with 9.0: "
            f"it looks for a plugin named {node.op_type}",
            _NATIVE_FUNCTIONS,
        )


def known_to_onnx(graph: LintGraph, target: Target) -> Iterator[Finding]:
    """Operators that ONNX has not at the model's opset: onnxruntime goes by its definitions."""
    import onnx

    if target.engine != "onnxruntime" or graph.opset > onnx.defs.onnx_opset_version():
        return
    for node in graph.foreign:
        if node.domain == _PLUGIN_DOMAIN:
            yield _undefined(node, f"onnxruntime knows no operator of domain {_PLUGIN_DOMAIN!r}")
    for node in graph.named(*(operator for operator in graph.operators if not onnx.defs.has(operator, graph.opset))):
        yield _undefined(node, f"ONNX has no operator {node.op_type} at opset {graph.opset}")


def _lacking(node: onnx.NodeProto, parser: Parser) -> Finding:
    operator = node.op_type
    version = ".".join(map(str, parser.version))
    if operator.endswith(_PLUGIN_SUFFIX):
        return _plugin(node)
    if parser.support(operator) == "unknown":
        return Finding(
            "unknown-support",
            label(node),
            operator,
            "risky",
            f"whether TensorRT {version} imports {operator} is not known here: "
            f"{parser.table} is the newest parser whose operators are",
            f"let that TensorRT's own parser decide, or be safe: {_instead(operator)}",
        )
    return Finding(
        "unsupported-operator",
        label(node),
        operator,
        "refused",
        f"the parser of TensorRT {version} has no importer for {operator}: "
        "it looks for a plugin of that name, finds none, and stops",
        _instead(operator),
    )


def _foreign(node: onnx.NodeProto, parser: Parser) -> Finding:
    if node.domain == _PLUGIN_DOMAIN:
        return _plugin(node)
    if node.domain.startswith("com.microsoft"):
        remedy = "save the graph before onnxruntime's optimiser, which fuses nodes into such operators"
    else:
        remedy = "export it from operators of ONNX's own domain, or provide a plugin of that name"
    return Finding(
        "foreign-operator",
        label(node),
        node.op_type,
        "refused",
        f"{node.op_type} of domain {node.domain!r} is none of ONNX's own operators: TensorRT "
        f"{parser.version[0]}.{parser.version[1]} looks for a plugin of that name, finds none, and stops",
        remedy,
    )


def _plugin(node: onnx.NodeProto) -> Finding:
    return Finding(
        "plugin",
        label(node),
        node.op_type,
        "risky",
        f"{node.op_type} is a plugin: the graph is refused where its library is not loaded",
        "load the plugin library, and call init_libnvinfer_plugins, before parsing and before loading the engine",
    )


def _undefined(node: onnx.NodeProto, why: str) -> Finding:
    return Finding(
        "undefined-operator",
        label(node),
        node.op_type,
        "refused",
        f"{why}: the model does not load",
        "import the opset that has it, or write it as operators of this one",
    )


def _instead(operator: str) -> str:
    by_prefix = (remedy for prefix, remedy in _INSTEAD_BY_PREFIX.items() if operator.startswith(prefix))
    return _INSTEAD.get(operator) or next(by_prefix, "write it as operators that the parser has")
