"""Holds the rules of pools: forms, pads, and windows at their bounds."""

from __future__ import annotations

from typing import Any

import onnx
import pytest

from tests.export.linting.graphs import findings, found, one, tensorrt_target

MAP = (1, 2, 8, 8)


def _pool(op_type: str, shape: tuple[int | str, ...], opset: int = 13, **attributes: Any) -> onnx.ModelProto:
    return one(op_type, shape, opset=opset, **attributes)


@pytest.mark.parametrize(
    ("model", "rule"),
    [
        pytest.param(_pool("MaxPool", MAP, kernel_shape=[2, 2], dilations=[2, 2]), "pool-dilations", id="max"),
        pytest.param(_pool("MaxPool", MAP, kernel_shape=[2, 2], dilations=[1, 1]), None, id="max of 1"),
        pytest.param(
            _pool("AveragePool", MAP, 19, kernel_shape=[2, 2], dilations=[1, 2]), "pool-dilations", id="average"
        ),
        pytest.param(
            _pool("MaxPool", (1, 2, 4, 4, 4, 4), kernel_shape=[2, 2, 2, 2]), "pool-dimensions", id="4 dimensions"
        ),
        pytest.param(_pool("MaxPool", (1, 2, 4, 4, 4), kernel_shape=[2, 2, 2]), None, id="3 dimensions"),
        pytest.param(_pool("MaxPool", (1, 2, 8), kernel_shape=[2]), None, id="1 dimension"),
        pytest.param(_pool("AveragePool", (1, 2, 8), kernel_shape=[2]), None, id="1 dimension, average"),
        pytest.param(_pool("LpPool", MAP, kernel_shape=[2, 2], p=3), "pool-norm", id="p of 3"),
        pytest.param(_pool("LpPool", MAP, kernel_shape=[2, 2], p=1), None, id="p of 1"),
    ],
)
@pytest.mark.parametrize("version", ["8.0.1", "8.2.1", "10.3.0", "11.0.0"])
def test_forms_that_no_version_takes(model: onnx.ModelProto, rule: str | None, version: str) -> None:
    rules = {"pool-dilations", "pool-dimensions", "pool-norm", "pool-indices"} & set(
        found(model, tensorrt_target(version))
    )
    assert rules == ({rule} if rule else set())


@pytest.mark.parametrize(
    ("version", "effect"), [("8.6.2", "wrong result"), ("9.3.0", "wrong result"), ("10.0.0", "refused")]
)
def test_dilations_of_lp_pool_are_ignored_before_they_are_refused(version: str, effect: str) -> None:
    model = _pool("LpPool", MAP, 18, kernel_shape=[2, 2], dilations=[2, 2])
    caught = [item.effect for item in findings(model, tensorrt_target(version)) if item.rule == "pool-dilations"]
    assert caught == [effect]


@pytest.mark.parametrize(("outputs", "caught"), [("y", False), ("y i", True)])
def test_indices_of_a_max_pool_are_refused(outputs: str, caught: bool) -> None:
    model = _pool("MaxPool", MAP, kernel_shape=[2, 2])
    model.graph.node[0].output[:] = outputs.split()
    assert ("pool-indices" in found(model)) == caught


@pytest.mark.parametrize(
    ("pads", "version", "caught"),
    [
        ([0, 0, 0, 0], "8.2.1", False),
        ([1, 1, 1, 1], "8.2.1", False),
        ([0, 0, 1, 1], "8.2.1", False),
        ([1, 0, 0, 0], "8.2.1", True),
        ([0, 0, 0, 2], "8.2.1", True),
        ([0, 0, 0, 2], "8.6.2", True),
        ([0, 0, 0, 2], "9.3.0", True),
        ([0, 0, 0, 2], "10.0.0", False),
    ],
)
def test_pads_of_an_average_pool(pads: list[int], version: str, caught: bool) -> None:
    model = _pool("AveragePool", MAP, kernel_shape=[3, 3], pads=pads)
    assert ("average-pool-pads" in found(model, tensorrt_target(version))) == caught
    plain = _pool("MaxPool", MAP, kernel_shape=[3, 3], pads=pads)
    assert "average-pool-pads" not in found(plain, tensorrt_target(version))


@pytest.mark.parametrize("version", ["8.2.1", "11.0.0"])
@pytest.mark.parametrize(
    ("op_type", "shape", "kernel", "effects"),
    [
        pytest.param("MaxPool", (1, 1, 400, 400), [316, 316], [], id="316 x 316"),
        pytest.param("MaxPool", (1, 1, 400, 400), [317, 317], ["refused"], id="317 x 317"),
        pytest.param("AveragePool", (1, 1, 320, 320), [320, 320], ["refused"], id="the map of 320 x 320"),
        pytest.param("AveragePool", (1, 1, 56, 56), [56, 56], ["slow"], id="the map of 56 x 56"),
        pytest.param("AveragePool", (1, 1, 28, 28), [28, 28], [], id="the map of 28 x 28"),
        pytest.param("AveragePool", (1, 1, "h", "w"), [56, 56], [], id="an open map"),
        pytest.param("AveragePool", (1, 1, 100_000), [100_000], ["refused"], id="1D"),
        pytest.param("MaxPool", (1, 1, 64, 64, 64), [50, 50, 50], [], id="3D below its bound"),
        pytest.param("MaxPool", (1, 1, 256, 256, 256), [215, 215, 216], [], id="3D just below its bound"),
        pytest.param("MaxPool", (1, 1, 256, 256, 256), [250, 200, 200], ["refused"], id="3D at its bound"),
        pytest.param("GlobalAveragePool", (1, 1, 400, 400), None, [], id="global"),
    ],
)
def test_windows_at_their_bounds(
    op_type: str, shape: tuple[int | str, ...], kernel: list[int] | None, effects: list[str], version: str
) -> None:
    model = _pool(op_type, shape, kernel_shape=kernel) if kernel else _pool(op_type, shape)
    caught = [item.effect for item in findings(model, tensorrt_target(version)) if item.rule == "pool-window"]
    assert caught == effects


def test_a_window_over_the_whole_map_is_told_to_be_a_reduction() -> None:
    model = _pool("AveragePool", (1, 1, 320, 320), kernel_shape=[320, 320])
    remedy = next(item.remedy for item in findings(model) if item.rule == "pool-window")
    assert "GlobalAveragePool" in remedy
