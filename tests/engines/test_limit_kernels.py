"""Kernels that move or compute: their amounts, their results, and threads that end with them."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import numpy as np
import pytest

from deploy_attn.engines import limit_kernels
from deploy_attn.engines.base import Feeds, Outputs
from deploy_attn.engines.limit_kernels import computing_kernels, moving_kernels, node_kernels
from deploy_attn.engines.onnxruntime import OnnxRuntimeRunner
from deploy_attn.engines.pairs import Stopwatch

SIZE = 1 << 16


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_every_kernel_that_moves_tells_its_amount_and_leaves_no_thread(threads: int) -> None:
    before = threading.active_count()
    with ExitStack() as held:
        kernels = [*moving_kernels(SIZE, threads, held), *node_kernels(SIZE, threads, held)]
        assert [one.amount for one in kernels] == [SIZE, SIZE, SIZE / 2, SIZE]
        for one in kernels:
            assert one.seconds(2) > 0
    assert threading.active_count() == before


def test_threads_share_what_is_moved_without_a_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    shares: list[int] = []
    monkeypatch.setattr(np, "copyto", lambda to, of: shares.append(of.size))
    with ExitStack() as held:
        moving_kernels(8 * 1000, 3, held)[0].seconds(2)
    assert (len(shares), sum(shares)) == (2 * 3, 2 * 1000)
    assert max(shares) - min(shares) <= 1


def test_a_thread_that_does_not_start_ends_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limit_kernels, "_LONGEST_WAIT_S", 0.05)
    monkeypatch.setattr(limit_kernels, "ThreadPoolExecutor", lambda _: ThreadPoolExecutor(1))
    with ExitStack() as held:
        kernels = moving_kernels(SIZE, 2, held)
        with pytest.raises(threading.BrokenBarrierError):
            kernels[0].seconds(1)


@pytest.mark.parametrize("kind", ["fp32", "fp16"])
def test_a_matrix_product_and_a_convolution_are_computed_in_their_type(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("_EXTENT", 64), ("_CHANNELS", 8), ("_MAP", 6)):
        monkeypatch.setattr(limit_kernels, name, value)
    seen: list[Outputs] = []
    start = OnnxRuntimeRunner.stopwatch

    def started(self: OnnxRuntimeRunner, feeds: Feeds) -> Stopwatch:
        seen.append(self.infer(feeds))
        return start(self, feeds)

    monkeypatch.setattr(OnnxRuntimeRunner, "stopwatch", started)
    with ExitStack() as held:
        product, convolution = computing_kernels(kind, 1, held)
        assert product.amount == 2 * 64 * 64 * 64
        assert convolution.amount == 2 * (8 * 8) * (3 * 3) * (6 * 6)
        assert product.seconds(2) > 0
        assert convolution.seconds(2) > 0
    of_product, of_convolution = (outputs["y"] for outputs in seen)
    assert of_product.dtype == of_convolution.dtype == {"fp32": np.float32, "fp16": np.float16}[kind]
    assert np.unique(of_product).tolist() == [64]
    assert of_convolution[0, 0, 1, 1] == 8 * 3 * 3
