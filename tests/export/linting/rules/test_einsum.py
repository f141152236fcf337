"""Holds the rule of Einsum's equations at each version's boundary."""

from __future__ import annotations

import onnx
import pytest

from tests.export.linting.graphs import found, model_of, node, tensorrt_target

RULE = "einsum-equation"


def _einsum(equation: str, *shapes: tuple[int | str, ...]) -> onnx.ModelProto:
    names = [f"x{index}" for index in range(len(shapes))]
    return model_of(node("Einsum", " ".join(names), "y", equation=equation), dict(zip(names, shapes)), {"y": (1, None)})


PLAIN = _einsum("ij,jk->ik", (2, 3), (3, 4))
ELLIPSIS = _einsum("...ij,...jk->...ik", (5, 2, 3), (5, 3, 4))
DIAGONAL = _einsum("ii->i", (3, 3))
BROADCAST = _einsum("bij,bjk->bik", (1, 2, 3), (5, 3, 4))
ELLIPSES = _einsum("...ij,...jk->...ik", (2, 3, 4, 5, 6), (2, 3, 4, 6, 7))
SPREAD = _einsum("...ij,...jk->...ik", (5, 2, 3), (1, 3, 4))
CAPITALS = _einsum("IJ,JK->IK", (2, 3), (3, 4))
THREE = _einsum("ij,jk,kl->il", (2, 3), (3, 4), (4, 5))


@pytest.mark.parametrize(
    ("model", "version", "caught"),
    [
        (PLAIN, "8.2.1", False),
        (ELLIPSIS, "8.2.1", True),
        (ELLIPSIS, "8.6.2", True),
        (ELLIPSIS, "9.3.0", False),
        (ELLIPSIS, "10.3.0", False),
        (ELLIPSES, "10.3.0", False),
        (SPREAD, "10.3.0", True),
        (SPREAD, "10.12.0", False),
        (DIAGONAL, "8.2.1", True),
        (DIAGONAL, "10.11.0", True),
        (DIAGONAL, "10.12.0", False),
        (BROADCAST, "8.2.1", True),
        (BROADCAST, "10.3.0", True),
        (BROADCAST, "10.12.0", False),
        (CAPITALS, "8.2.1", True),
        (CAPITALS, "11.0.0", True),
        (THREE, "8.5.2", True),
        (THREE, "8.6.2", False),
    ],
)
def test_an_equation_is_refused_by_the_versions_that_do_not_take_it(
    model: onnx.ModelProto, version: str, caught: bool
) -> None:
    assert (RULE in found(model, tensorrt_target(version))) == caught


def test_a_version_without_einsum_is_left_to_the_table_of_operators() -> None:
    assert RULE not in found(DIAGONAL, tensorrt_target("8.0.1"))


@pytest.mark.parametrize(
    "model",
    [
        pytest.param(_einsum("bij,bjk->bik", ("n", 2, 3), ("n", 3, 4)), id="open extents"),
        pytest.param(_einsum(" ij , jk -> ik ", (2, 3), (3, 4)), id="spaces"),
        pytest.param(_einsum("ij,jk->ik", (1, 2, 3), (1, 5, 4)), id="a rank that ONNX refuses"),
        pytest.param(_einsum("ij,jk", (2, 3), (3, 4)), id="implicit output"),
    ],
)
def test_what_only_looks_unusual_is_accepted(model: onnx.ModelProto) -> None:
    assert RULE not in found(model)
