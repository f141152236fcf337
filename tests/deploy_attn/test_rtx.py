"""TensorRT-RTX as a second opinion: its builder reads every graph, and each form costs exactly what is kept."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch

from deploy_attn import available
from deploy_attn.engines.profile import ShapeRange
from deploy_attn.engines.tensorrt_rtx import engine_from_onnx
from deploy_attn.export.onnx_from_module import GraphRequest, onnx_from_module
from deploy_attn.export.precision import plan_from_graph
from deploy_attn.export.ranges import tensor_ranges
from deploy_attn.export.typed import typed_from_plan
from tests.deploy_attn.catalogue_cases import small

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
FIXED_SIZE = ("fca", "mobilevit")


@pytest.mark.parametrize("name", available())
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_every_graph_with_open_axes_is_parsed_and_built(name: str, precision: str) -> None:
    shape = (1, 32, 8, 6)
    open_size = name not in FIXED_SIZE
    form = small(name).export_form(shape, "gpu", open_size).float().eval()
    x = torch.randn(shape)
    with torch.inference_mode():
        model = onnx_from_module(form, x, GraphRequest(13, 7, True, open_size))
    if precision == "fp16":
        model = typed_from_plan(model, plan_from_graph(model, tensor_ranges(model, [{"input": x.numpy()}])))
    largest = (4, 32, 16, 20) if open_size else (4, *shape[1:])
    engine = engine_from_onnx(model.SerializeToString(), {"input": ShapeRange(shape, shape, largest)})
    assert engine.content
    assert engine.kernel_count >= 1
    assert engine.warnings == ()


@dataclass(frozen=True)
class Cost:
    """The most kernels, and the most traffic in passes over the map (one read and one write), that a form may take."""

    kernels: int
    traffic: float


# At 1x256x28x28 in FP32, built for SM86: the best that was found when forms were compared.
MOST: Mapping[str, Cost] = {
    "se": Cost(4, 1.5),
    "cbam": Cost(8, 3.0),
    "cbam_residual": Cost(8, 3.5),
    "eca": Cost(3, 1.5),
    "eca_fixed": Cost(3, 1.5),
    "s2": Cost(13, 16.0),
    "cot": Cost(8, 8.5),
    "mobilevit": Cost(44, 111.0),
    "simam": Cost(1, 1.0),
    "sk": Cost(10, 10.5),
    "shuffle": Cost(2, 2.5),
    "triplet": Cost(17, 4.5),
    "parnet": Cost(6, 5.0),
    "mhsa": Cost(11, 41.5),
    "mhsa pos_emb=True": Cost(8, 47.8),
    "gsop": Cost(9, 4.2),
    "srm": Cost(1, 1.0),
    "gct": Cost(3, 1.5),
    "fca": Cost(4, 1.5),
    "encnet": Cost(9, 3.9),
    "bilinear": Cost(5, 4.1),
    "self_attention": Cost(8, 14.6),
    "non_local": Cost(13, 14.6),
}
STATIC = json.loads((BENCHMARKS / "rtx_static.json").read_text(encoding="utf-8"))
KEPT = {row["case"]: row["graphs"] for row in STATIC["rows"]}
REGENERATE = "run: python benchmarks/kernels.py, and look at what changed in benchmarks/rtx_static.json"


@pytest.fixture(scope="session")
def kernels() -> Iterator[Any]:
    """benchmarks/kernels.py, which is a script and no package."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        yield importlib.import_module("kernels")


def test_the_figures_that_are_kept_are_of_the_version_that_is_installed() -> None:
    assert STATIC["versions"]["tensorrt_rtx"] == version("tensorrt_rtx"), REGENERATE


@pytest.mark.parametrize("label", list(KEPT))
@pytest.mark.parametrize("graph", ["gpu", "gpu_fp16"])
def test_a_gpu_form_costs_to_the_byte_what_is_kept(kernels: Any, label: str, graph: str) -> None:
    (case,) = [case for case in kernels.cases([label.split()[0]]) if case.label == label]
    found, kept = kernels.figures(kernels.graphs(case)[graph]()), dict(KEPT[label][graph])
    assert found.pop("build_seconds") > 0 < kept.pop("build_seconds")
    assert found == kept, REGENERATE


@pytest.mark.parametrize("label", list(MOST))
def test_no_form_for_gpus_takes_more_than_the_best_that_was_found(label: str) -> None:
    found = KEPT[label]["gpu"]
    assert found["kernels"] <= MOST[label].kernels
    assert round(found["traffic"], 1) <= MOST[label].traffic


def test_every_catalogue_name_has_its_figures_and_its_cost() -> None:
    assert set(KEPT) == set(MOST)
    assert {label.split()[0] for label in KEPT} == set(available())
