"""Plans: what the command line says becomes cells, and each result has a name of its own."""

from __future__ import annotations

import pytest

from deploy_attn import available
from deploy_attn.jetson.errors import BadRequest
from deploy_attn.sweeping.plan import Cell, Effort, Module, Plan, key_of, plan_from_texts

CPU = "onnxruntime-cpu"


def plan(**axes: str) -> Plan:
    return plan_from_texts({axis: [text] for axis, text in axes.items()}, CPU, Effort())


def test_cells_are_every_combination_in_the_plans_order() -> None:
    found = plan(modules="se,cbam", shapes="1x8x4x4, 2X8x4x04", precisions="fp16", engines="onnxruntime").cells
    assert [str(cell) for cell in found] == [
        "se 1x8x4x4 fp16 onnxruntime",
        "se 2x8x4x4 fp16 onnxruntime",
        "cbam 1x8x4x4 fp16 onnxruntime",
        "cbam 2x8x4x4 fp16 onnxruntime",
    ]


def test_axes_that_are_left_out_have_their_defaults() -> None:
    assert plan(modules="se").cells == tuple(
        Cell(Module("se"), "1x64x56x56", precision, "onnxruntime", CPU) for precision in ("fp32", "fp16")
    )


@pytest.mark.parametrize(
    ("text", "modules"),
    [
        ("se:reduction=8", [Module("se", (("reduction", "8"),))]),
        ("mobilevit:dims=96,144,cbam", [Module("mobilevit", (("dims", "96,144"),)), Module("cbam")]),
        ("se:b=2:a=1,se:a=1:b=2", [Module("se", (("a", "1"), ("b", "2")))]),
        ("se,,se, ", [Module("se")]),
    ],
)
def test_modules_carry_their_options(text: str, modules: list[Module]) -> None:
    assert list(dict.fromkeys(cell.module for cell in plan(modules=text).cells)) == modules


def test_all_is_the_whole_catalogue() -> None:
    assert [module.name for module in plan(modules="all").modules] == available()


@pytest.mark.parametrize(
    ("axes", "said"),
    [
        ({"modules": " , "}, "--modules names none"),
        ({"modules": "se", "shapes": ","}, "--shapes names none"),
        ({"modules": "se", "precisions": ","}, "--precisions names none"),
        ({"modules": "se", "engines": ","}, "--engines names none"),
        ({"modules": "net.py:build"}, "no name of the catalogue"),
        ({"modules": "se:reduction"}, "NAME=VALUE"),
        ({"modules": "se:a=1:a=2"}, "NAME=VALUE"),
        ({"modules": "se", "shapes": "1x64x"}, "not a shape"),
        ({"modules": "se", "shapes": "1x16"}, "of no map"),
        ({"modules": "se", "precisions": "fp8"}, "Known: fp16, fp32"),
        ({"modules": "se", "engines": "onnxruntme"}, "Known: onnxruntime,"),
    ],
)
def test_a_plan_that_cannot_be_is_refused(axes: dict[str, str], said: str) -> None:
    with pytest.raises(BadRequest, match=said):
        plan(**axes)


def test_a_target_that_nobody_knows_is_refused() -> None:
    with pytest.raises(BadRequest, match="Known: jetson-nano"):
        Plan((Module("se"),), target="jetson-nan")


@pytest.mark.parametrize(("against", "seconds"), [("nave", None), (None, 0.0), (None, float("nan"))])
def test_an_effort_that_cannot_be_is_refused(against: str | None, seconds: float | None) -> None:
    with pytest.raises(BadRequest):
        Effort(against, seconds)


def test_a_key_tells_apart_all_that_a_result_depends_on() -> None:
    cell, made_with = Cell(Module("se"), "1x8x4x4", "fp32", "onnxruntime"), {"deploy-attn": "1", "torch": "2"}
    others = [
        (Cell(Module("se", (("reduction", "8"),)), "1x8x4x4", "fp32", "onnxruntime"), Effort(), made_with),
        (Cell(Module("se"), "1x8x4x5", "fp32", "onnxruntime"), Effort(), made_with),
        (Cell(Module("se"), "1x8x4x4", "fp16", "onnxruntime"), Effort(), made_with),
        (Cell(Module("se"), "1x8x4x4", "fp32", "onnxruntime-cuda"), Effort(), made_with),
        (Cell(Module("se"), "1x8x4x4", "fp32", "onnxruntime", "jetson-nano"), Effort(), made_with),
        (cell, Effort("naive"), made_with),
        (cell, Effort(seconds=2), made_with),
        (cell, Effort(), {**made_with, "torch": "3"}),
        (cell, Effort(), {**made_with, "deploy-attn": "1.1"}),
    ]
    keys = {key_of(cell, Effort(), made_with), *(key_of(*other) for other in others)}
    assert len(keys) == 1 + len(others)
    assert key_of(cell, Effort(), dict(reversed(made_with.items()))) in keys
