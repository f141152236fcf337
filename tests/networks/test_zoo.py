"""Real networks end to end: all their attention is found and proven, and what is exported holds, for a Jetson Nano."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from deploy_attn import ExportRequest, export_artifact
from deploy_attn.engines.tensorrt_rtx import engine_from_onnx
from deploy_attn.exporting import ExportReport
from tests.networks.zoo import ZOO

FP32_BOUND = 1e-5
FP16_BOUND = 5e-3


@dataclass(frozen=True)
class Exported:
    name: str
    report: ExportReport


@pytest.fixture(scope="module", params=[pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in ZOO])
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exported]:
    name = request.param
    folder = tmp_path_factory.mktemp(name)
    file = folder / "network.py"
    file.write_text(f"from tests.networks.zoo import ready\n\n\ndef build():\n    return ready({name!r})\n", "utf-8")
    wanted = ExportRequest(
        f"{file}:build", shape=ZOO[name].shape, fp16=True, target="jetson-nano", output=folder / "artifact"
    )
    yield Exported(name, export_artifact(wanted))


def test_every_attention_block_is_found_proven_and_replaced(exported: Exported) -> None:
    findings = exported.report.findings
    left = [(finding.paths, finding.class_name, finding.reason) for finding in findings if not finding.replaced]
    assert left == []
    found = Counter(finding.class_name.rpartition(".")[2] for finding in findings)
    assert {name: found[name] for name in ZOO[exported.name].blocks} == dict(ZOO[exported.name].blocks)
    assert all(finding.certificate is not None and finding.certificate.proven for finding in findings)


def test_the_graphs_compute_what_the_network_computes(exported: Exported) -> None:
    verdict = exported.report.verdict
    assert verdict.passed, verdict.as_dict()
    measured = {
        (check.precision, check.bracket, check.case): check.comparison.rms_relative
        for check in verdict.checks
        if check.comparison is not None
    }
    assert max(error for (precision, _, _), error in measured.items() if precision == "fp32") <= FP32_BOUND
    assert max(error for (_, bracket, _), error in measured.items() if bracket == "optimistic") <= FP16_BOUND


def test_a_jetson_nano_would_read_the_graphs_as_they_are(exported: Exported) -> None:
    assert exported.report.lint.findings == ()


@pytest.mark.parametrize("file", ["model.onnx", "model.fp16.onnx"])
def test_tensorrt_rtx_builds_the_graphs(exported: Exported, file: str) -> None:
    engine = engine_from_onnx((Path(exported.report.folder) / file).read_bytes())
    assert engine.warnings == ()
