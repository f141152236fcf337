"""Kernels that do nothing but move bytes, or nothing but multiply and add, each on a number of threads."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from threading import Barrier
from types import MappingProxyType
from typing import Any

import numpy as np

from deploy_attn.engines.onnxruntime import OnnxRuntimeRunner
from deploy_attn.engines.settings import Settings

_FLOAT_BYTES = 4
_LONGEST_WAIT_S = 10.0  # for the other threads to start
# Long enough to outweigh what starts them, and so short that some run falls between what else the machine does.
_EXTENT = 512  # of square matrices
_CHANNELS, _MAP, _TAPS = 128, 28, 3  # of a convolution, which onnxruntime may compute faster than a matrix product
_HEAD = '<ir_version: 8, opset_import: ["" : 17]> kernel '
_TYPES: Mapping[str, tuple[str, int, str]] = MappingProxyType(  # ONNX's name and number, and numpy's name
    {"fp32": ("float", 1, "float32"), "fp16": ("float16", 10, "float16")}
)

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Kernel:
    """Something that is done over and over: `amount` bytes or operations in each pass.

    `seconds` runs so many passes on all its threads and tells how long they took.
    """

    name: str
    amount: float
    seconds: Callable[[int], float]


def moving_kernels(size_bytes: int, threads: int, _: ExitStack) -> list[Kernel]:
    """Kernels of numpy on threads of Python that read and write so many bytes."""
    count = max(size_bytes // _FLOAT_BYTES // 2, threads)
    source, result = (np.ones(count, dtype=np.float32) for _ in range(2))
    shares = list(zip(np.array_split(source, threads), np.array_split(result, threads)))
    amount = 2 * count * _FLOAT_BYTES
    return [
        Kernel("numpy copy", amount, _on_threads([(np.copyto, (to, of)) for of, to in shares])),
        Kernel("numpy negative", amount, _on_threads([(np.negative, (of, to)) for of, to in shares])),
        Kernel("numpy max", amount / 2, _on_threads([(np.max, (of,)) for of, _ in shares])),
    ]


def node_kernels(size_bytes: int, threads: int, held: ExitStack) -> list[Kernel]:
    """A node of onnxruntime that does so: on many threads Python's lock may be what limits numpy's.

    Args:
        held: closes what the kernels keep open.
    """
    count = max(size_bytes // _FLOAT_BYTES // 2, 1)
    node = f"{_HEAD} (float[{count}] x) => (float[{count}] y) {{ y = Neg(x) }}"
    feeds = {"x": np.ones(count, dtype=np.float32)}
    return [Kernel("onnxruntime Neg", 2 * count * _FLOAT_BYTES, _session(node, feeds, threads, held))]


def computing_kernels(kind: str, threads: int, held: ExitStack) -> list[Kernel]:
    """A matrix product and a convolution of onnxruntime in a type, `fp32` or `fp16`.

    Args:
        held: closes what the kernels keep open.
    """
    onnx, number, numpy = _TYPES[kind]
    square = np.ones((_EXTENT, _EXTENT), dtype=numpy)
    side = f"[{_EXTENT}, {_EXTENT}]"
    product = f"{_HEAD} ({onnx}{side} a, {onnx}{side} b) => ({onnx}{side} y) {{ y = MatMul(a, b) }}"
    feature = np.ones((1, _CHANNELS, _MAP, _MAP), dtype=numpy)
    extents = f"{onnx}[1, {_CHANNELS}, {_MAP}, {_MAP}]"
    # What depends on no input is folded, so that the weights may be laid out for the kernel beforehand.
    weights = f"shape = Constant<value_ints = [{_CHANNELS}, {_CHANNELS}, {_TAPS}, {_TAPS}]>()"
    weights += f" ones = ConstantOfShape<value = float[1] {{1}}>(shape) w = Cast<to = {number}>(ones)"
    convolution = f"{_HEAD} ({extents} x) => ({extents} y) {{ {weights} y = Conv<pads = [1, 1, 1, 1]>(x, w) }}"
    return [
        Kernel("onnxruntime MatMul", 2 * _EXTENT**3, _session(product, {"a": square, "b": square}, threads, held)),
        Kernel(
            "onnxruntime Conv",
            2 * (_CHANNELS * _TAPS * _MAP) ** 2,
            _session(convolution, {"x": feature}, threads, held),
        ),
    ]


def _on_threads(shares: Sequence[tuple[Callable[..., object], tuple[Array, ...]]]) -> Callable[[int], float]:
    """A thread for each share; numpy lets the others run meanwhile."""

    def passes(share: tuple[Callable[..., object], tuple[Array, ...]], count: int) -> tuple[float, float]:
        call, arrays = share
        began = time.perf_counter()
        for _ in range(count):
            call(*arrays)
        return began, time.perf_counter()

    def seconds(count: int) -> float:
        if len(shares) == 1:
            began, ended = passes(shares[0], count)
            return ended - began
        together = Barrier(len(shares), timeout=_LONGEST_WAIT_S)

        def one(share: tuple[Callable[..., object], tuple[Array, ...]]) -> tuple[float, float]:
            together.wait()
            return passes(share, count)

        with ThreadPoolExecutor(len(shares)) as pool:
            times = list(pool.map(one, shares))
        return max(ended for _, ended in times) - min(began for began, _ in times)

    return seconds


def _session(graph: str, feeds: Mapping[str, Array], threads: int, held: ExitStack) -> Callable[[int], float]:
    import onnx

    content = onnx.parser.parse_model(graph).SerializeToString()
    settings = Settings(intra_op_threads=threads, inter_op_threads=1)
    stopwatch = held.enter_context(OnnxRuntimeRunner(content, settings=settings)).stopwatch(feeds)
    return lambda count: sum(stopwatch() for _ in range(count))
