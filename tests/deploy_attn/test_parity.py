"""The parity table: every golden vector, in every form, opset, openness and precision, one row a case."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from deploy_attn import BadRequest, ExportRequest, available, export_artifact
from deploy_attn.engines.onnxruntime import OnnxRuntimeRunner
from deploy_attn.engines.rounding import rounded_from_typed
from deploy_attn.export.inputs import larger_map
from deploy_attn.export.onnx_from_module import GraphRequest, onnx_from_module
from deploy_attn.export.precision import plan_from_graph
from deploy_attn.export.ranges import tensor_ranges
from deploy_attn.export.typed import typed_from_plan
from deploy_attn.jetson.metrics import compare
from tests.conftest import DATA, load_golden
from tests.deploy_attn.catalogue_cases import small

REFERENCE_FLOAT64 = 1e-12
EXPORT_FLOAT64 = 1e-11
TOLERANCES = {"fp32": 1e-5, "fp16": 2e-3, "fp16-rounded": 5e-3}
IR = {13: 7, 17: 8, 20: 9}
FIXED = ("fca", "mobilevit", "mhsa with a position table")  # whose graph is made for one height and width

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Vector:
    """One golden vector and the semantics it is read with."""

    file: str
    semantics: str | None = None
    output: str = "output"

    def __str__(self) -> str:
        return f"{self.file}-{self.semantics}" if self.semantics else self.file

    @property
    def options(self) -> dict[str, str]:
        return {} if self.semantics is None else {"semantics": self.semantics}

    @property
    def is_of_fixed_size(self) -> bool:
        golden = load_golden(self.file)
        name = "mhsa with a position table" if golden.options.get("pos_emb") else golden.name
        return name in FIXED


VECTORS = (
    *(Vector(file.stem) for file in sorted(DATA.glob("*.npz"))),
    # What the source's in-place copies compute on one CPU thread is the smear, to the last digit.
    Vector("s2_0", "smear", "output_eager_cpu"),
    Vector("s2_1", "smear", "output_eager_cpu"),
)


@dataclass(frozen=True)
class Case:
    """A row of the table: what is exported, how, where it runs and how near it must come."""

    vector: Vector
    opset: int
    axes: str
    family: str
    precision: str
    tolerance: float

    def __str__(self) -> str:
        return f"{self.vector}-opset{self.opset}-{self.axes}-{self.family}-{self.precision}"

    @property
    def request(self) -> GraphRequest:
        return GraphRequest(self.opset, IR[self.opset], self.axes != "static", self.axes == "open-size")


def _table() -> Iterator[Case]:
    for vector in VECTORS:
        for family in _families(vector):
            for opset in IR:
                for axes in ("static", "open-batch", "open-size"):
                    for precision, tolerance in TOLERANCES.items():
                        yield Case(vector, opset, axes, family, precision, tolerance)


def _families(vector: Vector) -> list[str]:
    """Both engine families where they have forms of their own."""
    forms = load_golden(vector.file).reference(**vector.options).forms
    return ["cpu", "gpu"] if forms["cpu"] is not forms["gpu"] else ["cpu"]


EVERY_VECTOR = pytest.mark.parametrize("vector", VECTORS, ids=str)


@EVERY_VECTOR
def test_reference_form_is_the_source(vector: Vector) -> None:
    golden = load_golden(vector.file)
    reference = golden.reference(**vector.options).double()
    with torch.inference_mode():
        output = reference(torch.from_numpy(golden.input).double()).numpy()
    assert compare(output, golden.outputs[vector.output]).rms_relative <= REFERENCE_FLOAT64


@EVERY_VECTOR
@pytest.mark.parametrize("family", ["cpu", "gpu"])
@pytest.mark.parametrize("open_size", [False, True], ids=["static", "open-size"])
def test_export_form_is_the_source(vector: Vector, family: str, open_size: bool) -> None:
    golden = load_golden(vector.file)
    reference = golden.reference(**vector.options).double()
    batch, channels, height, width = golden.input.shape
    shape = (batch, channels, height, width)
    if open_size and vector.is_of_fixed_size:
        with pytest.raises(BadRequest, match="cannot leave height and width open"):
            reference.export_form(shape, family, open_size)
        return
    form = reference.export_form(shape, family, open_size).eval()
    with torch.inference_mode():
        output = form(torch.from_numpy(golden.input).double()).numpy()
    assert compare(output, golden.outputs[vector.output]).rms_relative <= EXPORT_FLOAT64


@pytest.mark.parametrize("case", tuple(_table()), ids=str)
def test_every_graph_is_the_source(case: Case) -> None:
    if case.axes == "open-size" and case.vector.is_of_fixed_size:
        with pytest.raises(BadRequest, match="cannot leave height and width open"):
            _graphs(case.vector, case.family, case.request)
        return
    graph = _graphs(case.vector, case.family, case.request)[case.precision]
    with OnnxRuntimeRunner(graph) as runner:
        for x, wanted in _expected(case.vector, case.axes):
            found = compare(runner.infer({"input": x})["output"], wanted)
            assert found.non_finite == 0
            assert found.rms_relative <= case.tolerance


@functools.lru_cache(maxsize=2)
def _graphs(vector: Vector, family: str, request: GraphRequest) -> Mapping[str, bytes]:
    """The graph of a form in each precision, checked by onnx when it is made."""
    golden = load_golden(vector.file)
    batch, channels, height, width = golden.input.shape
    reference = golden.reference(**vector.options).double()
    form = reference.export_form((batch, channels, height, width), family, request.dynamic_size).float().eval()
    with torch.inference_mode():
        model = onnx_from_module(form, torch.from_numpy(golden.input), request)
    plan = plan_from_graph(model, tensor_ranges(model, [{"input": golden.input}]))
    typed = typed_from_plan(model, plan)
    onnx.checker.check_model(typed, full_check=True)
    rounded = rounded_from_typed(typed)
    graphs = {"fp32": model, "fp16": typed, "fp16-rounded": rounded}
    return {precision: graph.SerializeToString() for precision, graph in graphs.items()}


@functools.lru_cache(maxsize=4)
def _expected(vector: Vector, axes: str) -> list[tuple[Array, Array]]:
    """Inputs and what the reference makes of them in float64: the golden one, and one that uses the open axes."""
    golden = load_golden(vector.file)
    pairs = [(golden.input, golden.outputs[vector.output])]
    if axes == "static":
        return pairs
    other = np.ascontiguousarray(np.concatenate([golden.input, golden.input[::-1, :, ::-1]]))
    if axes == "open-size":
        other = larger_map(other, 2, 3)
    reference = golden.reference(**vector.options).double()
    with torch.inference_mode():
        return [*pairs, (other, reference(torch.from_numpy(other).double()).numpy())]


# Options that no golden vector has; the reference form is what they are compared with.
VARIANTS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("se", {"gate": "hard_sigmoid"}),
    ("cbam", {"kernel_size": 3}),
    ("cbam_residual", {"kernel_size": 1}),
    ("eca", {"gamma": 1.0}),
    ("eca_fixed", {"kernel_size": 9}),
    ("s2", {"semantics": "smear"}),
    ("cot", {"kernel_size": 1}),
    ("mobilevit", {"patch_size": 1}),
    ("simam", {"e_lambda": 0.1}),
    ("sk", {"kernel_sizes": (3,)}),
    ("sk", {"kernel_sizes": (1, 5, 7), "groups": 8}),
    ("shuffle", {"groups": 1}),
    ("mhsa", {"heads": 1}),
    ("mhsa", {"pos_emb": True, "width": 4, "height": 9}),
    ("gct", {"mode": "l1"}),
    ("gct", {"mode": "l1", "after_relu": True}),
    ("fca", {"dct_height": 6, "dct_width": 4, "frequencies": "top1"}),
    ("encnet", {"se_loss": True}),
    ("self_attention", {"scale": True}),
    ("non_local", {"scale": "inter_channels"}),
    ("non_local", {"scale": "channels", "sub_sample": False}),
    ("non_local", {"mode": "gaussian", "sub_sample": False}),
    ("non_local", {"mode": "dot_product", "inter_channels": 8}),
    ("non_local", {"mode": "concatenation", "bn_layer": False}),
)


@pytest.mark.parametrize("axes", ["static", "open-batch", "open-size"])
@pytest.mark.parametrize("opset", list(IR))
@pytest.mark.parametrize("family", ["cpu", "gpu"])
@pytest.mark.parametrize(("name", "options"), VARIANTS, ids=str)
def test_every_option_is_the_same_in_a_graph(
    name: str, options: dict[str, Any], family: str, opset: int, axes: str
) -> None:
    torch.manual_seed(5)
    reference = small(name, **options)
    request = GraphRequest(opset, IR[opset], axes != "static", axes == "open-size")
    if axes == "open-size" and (name in FIXED or options.get("pos_emb")):
        with pytest.raises(BadRequest, match="cannot leave height and width open"):
            reference.export_form((1, 32, 6, 4), family, dynamic_size=True)
        return
    form = reference.export_form((1, 32, 6, 4), family, request.dynamic_size).float().eval()
    with torch.inference_mode():
        model = onnx_from_module(form, torch.zeros(1, 32, 6, 4), request)
    x = torch.randn({"static": (1, 32, 6, 4), "open-batch": (3, 32, 6, 4), "open-size": (2, 32, 7, 9)}[axes])
    with OnnxRuntimeRunner(model.SerializeToString()) as runner, torch.inference_mode():
        found = compare(runner.infer({"input": x.numpy()})["output"], reference(x.double()).numpy())
    assert found.rms_relative <= TOLERANCES["fp32"]


def test_the_hard_gate_is_that_of_mobilenet() -> None:
    soft, hard = (small("se", gate=gate) for gate in ("sigmoid", "hard_sigmoid"))
    hard.load_state_dict(soft.state_dict(), strict=True)
    x = torch.randn(2, 32, 5, 4).double()
    with torch.inference_mode():
        logits = torch.logit(soft(x) / x)
        assert torch.allclose(hard(x), x * torch.clamp(logits / 6 + 0.5, 0, 1))


@pytest.mark.parametrize("target", ["onnxruntime-cpu", "jetson-nano"])
@pytest.mark.parametrize("name", available())
def test_an_artifact_made_from_the_sources_weights_holds(name: str, target: str, tmp_path: Path) -> None:
    golden = load_golden(f"{name}_0")
    torch.save({key: torch.from_numpy(value) for key, value in golden.state.items()}, tmp_path / "golden.pt")
    np.save(tmp_path / "golden.npy", golden.input)
    request = ExportRequest(
        name,
        fp16=True,
        target=target,
        dynamic_batch=True,
        options={key: value for key, value in golden.options.items() if key != "channels"},
        checkpoint=tmp_path / "golden.pt",
        input_file=tmp_path / "golden.npy",
        output=tmp_path / "artifact",
    )
    assert export_artifact(request).passed
    with OnnxRuntimeRunner((tmp_path / "artifact" / "model.onnx").read_bytes()) as runner:
        output = runner.infer({"input": golden.input})["output"]
    assert compare(output, golden.outputs["output"]).rms_relative <= TOLERANCES["fp32"]


@pytest.mark.parametrize("name", ["gct", "non_local"])
def test_a_module_that_starts_as_the_identity_is_not_verified_as_one(name: str, tmp_path: Path) -> None:
    request = ExportRequest(name, shape=(1, 32, 6, 4), output=tmp_path / "artifact")
    assert export_artifact(request).passed
    with np.load(tmp_path / "artifact" / "reference.npz") as arrays:
        x, y = arrays["normal/inputs/input"], arrays["normal/outputs/output"]
    assert np.linalg.norm(y - x) > 1e-2 * np.linalg.norm(x)


def test_every_catalogue_name_has_golden_vectors() -> None:
    assert {load_golden(vector.file).name for vector in VECTORS} == set(available())
