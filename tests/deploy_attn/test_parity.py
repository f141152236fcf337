"""The parity table: every golden vector, in every form, precision and target, one row a case."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from deploy_attn import ExportRequest, export_artifact
from deploy_attn.engines import runner_for
from deploy_attn.engines.rounding import rounded_from_typed
from deploy_attn.jetson.metrics import compare
from tests.conftest import load_golden

REFERENCE_FLOAT64 = 1e-12
EXPORT_FLOAT64 = 1e-11
ONNX_FP32 = 1e-5
ONNX_FP16 = 2e-3
ONNX_FP16_ROUNDED = 1e-2  # pessimistic: a rounding at every node; see engines/tolerance.py


@dataclass(frozen=True)
class Row:
    """One golden vector and the semantics it is read with."""

    golden: str
    semantics: str | None = None
    output: str = "output"

    def __str__(self) -> str:
        return f"{self.golden}-{self.semantics}" if self.semantics else self.golden

    @property
    def options(self) -> dict[str, str]:
        return {} if self.semantics is None else {"semantics": self.semantics}


ROWS = (
    Row("se_0"),
    Row("se_1"),
    Row("cbam_0"),
    Row("cbam_1"),
    Row("cbam_residual_0"),
    Row("cbam_residual_1"),
    Row("eca_0"),
    Row("eca_1"),
    Row("eca_fixed_0"),
    Row("eca_fixed_1"),
    Row("s2_0", "shift"),
    Row("s2_1", "shift"),
    # What the source's in-place copies compute on one CPU thread is the smear, to the last digit.
    Row("s2_0", "smear", "output_eager_cpu"),
    Row("s2_1", "smear", "output_eager_cpu"),
)
EVERY_ROW = pytest.mark.parametrize("row", ROWS, ids=str)


@EVERY_ROW
def test_reference_form_is_the_source(row: Row) -> None:
    golden = load_golden(row.golden)
    reference = golden.reference(**row.options).double()
    with torch.inference_mode():
        output = reference(torch.from_numpy(golden.input).double()).numpy()
    assert compare(output, golden.outputs[row.output]).rms_relative <= REFERENCE_FLOAT64


@EVERY_ROW
@pytest.mark.parametrize("family", ["cpu", "gpu"])
def test_export_form_is_the_source(row: Row, family: str) -> None:
    golden = load_golden(row.golden)
    reference = golden.reference(**row.options).double()
    batch, channels, height, width = golden.input.shape
    form = reference.export_form((batch, channels, height, width), engine=family).eval()
    with torch.inference_mode():
        output = form(torch.from_numpy(golden.input).double()).numpy()
    assert compare(output, golden.outputs[row.output]).rms_relative <= EXPORT_FLOAT64


@EVERY_ROW
@pytest.mark.parametrize("target", ["onnxruntime-cpu", "jetson-nano"])
@pytest.mark.parametrize("dynamic_batch", [False, True], ids=["static", "dynamic-batch"])
def test_graphs_in_onnxruntime_are_the_source(row: Row, target: str, dynamic_batch: bool, tmp_path: Path) -> None:
    golden = load_golden(row.golden)
    torch.save({key: torch.from_numpy(value) for key, value in golden.state.items()}, tmp_path / "golden.pt")
    np.save(tmp_path / "golden.npy", golden.input)
    request = ExportRequest(
        golden.name,
        fp16=True,
        target=target,
        dynamic_batch=dynamic_batch,
        options={**{key: value for key, value in golden.options.items() if key != "channels"}, **row.options},
        checkpoint=tmp_path / "golden.pt",
        input_file=tmp_path / "golden.npy",
        output=tmp_path / "artifact",
    )
    assert export_artifact(request).passed
    half = (tmp_path / "artifact" / "model.fp16.onnx").read_bytes()
    rounded = rounded_from_typed(onnx.load_from_string(half)).SerializeToString()
    graphs = (
        ((tmp_path / "artifact" / "model.onnx").read_bytes(), ONNX_FP32),
        (half, ONNX_FP16),
        (rounded, ONNX_FP16_ROUNDED),
    )
    for graph, tolerance in graphs:
        with runner_for("onnxruntime")(graph) as runner:
            output = runner.infer({"input": golden.input})["output"]
        found = compare(output, golden.outputs[row.output])
        assert found.non_finite == 0
        assert found.rms_relative <= tolerance


def test_every_catalogue_name_has_golden_rows() -> None:
    from deploy_attn import available

    assert {load_golden(row.golden).name for row in ROWS} == set(available())
