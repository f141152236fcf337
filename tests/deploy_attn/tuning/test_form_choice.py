"""`export --tune`: forms are measured where there are several, and one that is faster beyond doubt takes the place."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from deploy_attn import BadRequest, ExportReport, ExportRequest, create, exporting, verify
from deploy_attn.engines.latency.result import Candidate
from deploy_attn.engines.onnxruntime import OnnxRuntimeRunner
from deploy_attn.engines.pairs import Paired
from deploy_attn.engines.tolerance import TOLERANCES
from deploy_attn.export.onnx_from_module import GraphRequest, onnx_from_module
from deploy_attn.jetson.errors import DeployAttnError
from deploy_attn.subject import source_of, subject_of
from deploy_attn.traced import Traced, traced_from_subject
from deploy_attn.tuning import form_contest as module
from deploy_attn.tuning import tune as tuning
from deploy_attn.tuning.form_choice import FormChoice, choose_forms
from deploy_attn.tuning.form_contest import Contest, FormPlan, Place
from deploy_attn.tuning.text import form_lines
from tests.deploy_attn.judging import Judge

PLAN = FormPlan("cpu", GraphRequest(17, 8), TOLERANCES["fp32"])


def gpu_wins(candidate: Candidate) -> float:
    return 1.5 if candidate.label == "form gpu" else 1.0


def none_wins(candidate: Candidate) -> float:
    return 1.0


@pytest.fixture(autouse=True)
def no_pilot(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pilot chooses by the clock."""
    monkeypatch.setattr(module, "warm_up", lambda call: None)
    monkeypatch.setattr(module, "paired", lambda first, second, effort: Paired((1.0,), (1.0,)))


def chosen_for(
    speed: Callable[[Candidate], float] | Judge, name: str, shape: tuple[int, ...], plan: FormPlan = PLAN, **more: Any
) -> FormChoice:
    """The forms of a network or module as an export asks for them."""
    request = ExportRequest(name, shape=shape, **more)
    subject = subject_of(request, source_of(request))
    findings = traced_from_subject(subject, plan.family, plan.request).findings
    return choose_forms(subject, findings, plan, speed if isinstance(speed, Judge) else Judge(speed))


def table(choice: FormChoice) -> list[tuple[str, bool]]:
    return [(one.form, one.chosen) for one in choice.tried]


def test_the_shipped_form_stands_where_none_is_faster_beyond_doubt() -> None:
    choice = chosen_for(none_wins, "simam", (1, 8, 6, 5))
    assert table(choice) == [("cpu", True), ("gpu", False)]
    assert choice.chosen == {}
    shipped, other = choice.tried
    assert (shipped.module, shipped.ratio) == ("simam, 1x8x6x5, the network itself", None)
    assert shipped.reason == "SimAMNormalised, the shipped choice"
    assert other.reason == "SimAMMeans: Less than 1.05"
    assert other.ratio is not None


def test_a_form_that_is_faster_is_chosen() -> None:
    choice = chosen_for(gpu_wins, "simam", (1, 8, 6, 5))
    assert table(choice) == [("cpu", False), ("gpu", True)]
    assert choice.chosen == {"": "gpu"}
    assert choice.tried[1].reason == "SimAMMeans: 1.50 times as fast."
    document = choice.as_dict()
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    assert document["schema_version"] == 1


def test_noise_that_may_hide_a_faster_form_decides_nothing() -> None:
    choice = chosen_for(Judge(gpu_wins, error=0.6, refused="The machine is too noisy: so."), "simam", (1, 8, 6, 5))
    assert choice.chosen == {}
    assert [(one.decided, one.error) for one in choice.tried] == [(True, None), (False, pytest.approx(0.6))]
    assert form_lines(choice) == [
        "1 of 2 were not decided, for noise or for want of pairs: measure again when nothing else runs"
    ]
    assert choice.as_dict()["tried"][1]["decided"] is False
    quiet = chosen_for(none_wins, "simam", (1, 8, 6, 5))
    assert all(one.decided for one in quiet.tried)
    assert form_lines(quiet) == []


def test_where_the_shipped_form_is_not_timed_nothing_is_decided(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Contest, "_graph", lambda self, form: b"no graph")
    (one,) = chosen_for(gpu_wins, "simam", (1, 8, 6, 5)).tried
    assert (one.form, one.chosen, one.decided) == ("cpu", True, False)
    assert one.reason.startswith("the shipped choice stands untimed: the engine refused it")


def test_a_module_of_one_form_is_not_measured() -> None:
    choice = chosen_for(gpu_wins, "eca", (1, 8, 6, 5))
    assert [(one.form, one.chosen, one.ratio) for one in choice.tried] == [("cpu", True, None), ("gpu", False, None)]
    assert choice.tried[1].reason == "the same graph as cpu"


def test_open_sizes_have_forms_of_their_own() -> None:
    plan = FormPlan("cpu", GraphRequest(17, 8, True, True), TOLERANCES["fp32"])
    choice = chosen_for(gpu_wins, "simam", (1, 8, 6, 5), plan, dynamic_batch=True, dynamic_size=True)
    assert choice.tried[1].reason == "the same graph as cpu", "the form of means is the only one for any size"


NETWORK = """
from torch import nn
from deploy_attn import create

def build():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), create("simam"), nn.ReLU(), create("simam"), nn.Conv2d(8, 4, 1),
        create("simam"), create("simam", e_lambda=0.1), create("se", channels=4, reduction=2),
    )
"""


@pytest.fixture
def network(in_folder: Path) -> str:
    (in_folder / "net.py").write_text(NETWORK, encoding="utf-8")
    return "net.py:build"


def test_places_of_one_kind_are_measured_once_and_chosen_together(network: str) -> None:
    choice = chosen_for(gpu_wins, network, (1, 3, 6, 5))
    assert [(one.module, one.form, one.chosen) for one in choice.tried] == [
        ("simam, 1x8x6x5, 1 and 1 more", "cpu", False),
        ("simam, 1x8x6x5, 1 and 1 more", "gpu", True),
        ("simam, 1x4x6x5, 5", "cpu", False),
        ("simam, 1x4x6x5, 5", "gpu", True),
        ("simam, 1x4x6x5, 6", "cpu", False),
        ("simam, 1x4x6x5, 6", "gpu", True),
        ("se, 1x4x6x5, 7", "cpu", True),
        ("se, 1x4x6x5, 7", "gpu", False),
    ]
    assert choice.chosen == dict.fromkeys(("1", "3", "5", "6"), "gpu")


def test_a_form_that_is_not_proven_at_each_place_of_a_kind_is_chosen_at_none(
    network: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    form = Place.form

    def unproven(place: Place, name: str, plan: FormPlan) -> Any:
        refused = name == "gpu" and place.candidate.paths == ("3",)
        return (None, "no certificate") if refused else form(place, name, plan)

    monkeypatch.setattr(Place, "form", unproven)
    choice = chosen_for(gpu_wins, network, (1, 3, 6, 5))
    assert (choice.tried[1].chosen, choice.tried[1].reason) == (False, "at 3: no certificate")
    assert choice.chosen == dict.fromkeys(("5", "6"), "gpu")


@pytest.mark.parametrize(("all_s", "level"), [(2.0, "extended"), (0.5, "all")])
def test_each_form_runs_on_one_thread_at_the_level_that_suits_it(
    all_s: float, level: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[object, ...]] = []

    def recorded(candidate: Candidate) -> float:
        seen.append(tuple(candidate.conditions[key] for key in ("optimisation", "intra_op_threads", "spinning")))
        return 1.0

    monkeypatch.setattr(module, "paired", lambda first, second, effort: Paired((all_s,), (1.0,)))
    chosen_for(recorded, "simam", (1, 8, 6, 5))
    assert set(seen) == {(level, 1, False)}


def test_a_network_without_attention_has_nothing_to_choose(in_folder: Path) -> None:
    (in_folder / "net.py").write_text("from torch import nn\n\ndef build():\n    return nn.Conv2d(3, 8, 3)\n")
    assert chosen_for(gpu_wins, "net.py:build", (1, 3, 6, 5)).tried == ()


def test_a_form_that_fails_parity_is_told_and_never_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    run = OnnxRuntimeRunner._infer
    outputs = iter((0.0, 1.0, 1.0))  # of the shipped form, and of the other

    def wrong(runner: Any, feeds: Any) -> Mapping[str, Any]:
        shift = next(outputs, 0.0) if runner.conditions()["optimisation"] == "all" else 0.0
        return {name: y + y.dtype.type(shift) for name, y in run(runner, feeds).items()}

    monkeypatch.setattr(Contest, "_better_level", lambda self, entrant: "extended")
    monkeypatch.setattr(OnnxRuntimeRunner, "_infer", wrong)
    choice = chosen_for(gpu_wins, "simam", (1, 8, 6, 5))
    assert table(choice) == [("cpu", True), ("gpu", False)]
    assert choice.tried[1].reason.startswith("it fails parity: gpu, exact, observed, output: RMS relative")


def test_a_form_that_is_not_exported_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    real = onnx_from_module

    def refusing(form: nn.Module, *more: Any) -> Any:
        if type(form).__name__ == "SimAMMeans":
            raise DeployAttnError("no such operator\nmore")
        return real(form, *more)

    monkeypatch.setattr(module, "onnx_from_module", refusing)
    choice = chosen_for(gpu_wins, "simam", (1, 8, 6, 5))
    assert choice.tried[1].reason == "it cannot be exported: no such operator"
    assert choice.chosen == {}


def test_a_chosen_form_is_the_one_that_is_proven_and_built() -> None:
    from deploy_attn.export.arguments import Arguments
    from deploy_attn.rewriting.prepare import prepared
    from deploy_attn.rewriting.replacement import Wanted
    from deploy_attn.rewriting.rewrite import rewrite_settled

    network = nn.Sequential(create("simam"), create("simam"))
    arguments = Arguments.of(torch.randn(1, 4, 5, 6, dtype=torch.float64))
    rewritten = rewrite_settled(prepared(network), arguments, Wanted("cpu", False, {"1": "gpu"}))
    assert [type(form).__name__ for form in rewritten.model.children()] == ["SimAMNormalised", "SimAMMeans"]
    assert [finding.certificate.replacement for finding in rewritten.findings if finding.certificate] == [
        "SimAMNormalised",
        "SimAMMeans",
    ]


@pytest.fixture
def judged(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Candidate], float]], None]:
    """Puts a judge in the place of the clock, for forms and settings."""

    def put(speed: Callable[[Candidate], float]) -> None:
        for place in (exporting, tuning):
            monkeypatch.setattr(place, "comparing", lambda seconds, on_progress: Judge(speed))

    return put


def test_an_export_with_tune_keeps_the_table_the_settings_and_a_verdict_under_them(
    judged: Callable[..., None], tmp_path: Path
) -> None:
    judged(lambda candidate: 1.5 if candidate.conditions["optimisation"] == "basic" else 1.0)
    request = ExportRequest("simam", shape=(1, 8, 6, 5), output=tmp_path / "simam", tune=True)
    report: ExportReport = exporting.export_artifact(request)
    assert report.passed
    forms = json.loads((report.folder / "forms.json").read_text(encoding="utf-8"))
    assert [one["form"] for one in forms["tried"] if one["chosen"]] == ["cpu"]
    assert "forms.json" in report.manifest["files"]
    assert report.tuning is not None
    assert report.tuning.file == report.folder / "settings-onnxruntime.json"
    assert verify(report.folder).conditions["settings"]["fp32"]["level"] == "basic"
    assert report.verdict.conditions["settings"]["fp32"]["level"] == "basic"
    document = report.as_dict()
    assert document["forms"]["tried"][0]["form"] == "cpu"
    assert document["tuning"]["precisions"]["fp32"]["verified"] is True


def test_an_export_has_the_faster_form_and_can_be_replaced(judged: Callable[..., None], tmp_path: Path) -> None:
    judged(gpu_wins)
    request = ExportRequest("simam", shape=(1, 8, 6, 5), output=tmp_path / "simam", tune=True, force=True)
    for _ in range(2):
        report = exporting.export_artifact(request)
        assert report.passed
        certificate = report.findings[0].certificate
        assert certificate is not None
        assert certificate.replacement == "SimAMMeans"


def test_a_faster_form_that_its_network_takes_back_is_no_silent_export(
    judged: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged(gpu_wins)

    def taken_back(*args: Any) -> Traced:
        traced = traced_from_subject(*args)
        if len(args) < 4:  # with the shipped forms
            return traced
        left = tuple(replace(one, replaced=False, reason="does not fit") for one in traced.findings)
        return replace(traced, findings=left)

    monkeypatch.setattr(exporting, "traced_from_subject", taken_back)
    request = ExportRequest("simam", shape=(1, 8, 6, 5), output=tmp_path / "simam", tune=True)
    with pytest.raises(DeployAttnError, match=r"does not fit\. Export without --tune"):
        exporting.export_artifact(request)
    assert list(tmp_path.iterdir()) == []


def test_an_export_without_tune_measures_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporting, "choose_forms", None)
    monkeypatch.setattr(exporting, "tune", None)
    report = exporting.export_artifact(ExportRequest("simam", shape=(1, 8, 6, 5), output=tmp_path / "simam"))
    assert (report.forms, report.tuning) == (None, None)
    assert {file.name for file in report.folder.iterdir()}.isdisjoint({"forms.json", "settings-onnxruntime.json"})


def test_forms_for_an_engine_that_is_not_here_are_not_measured(tmp_path: Path) -> None:
    request = ExportRequest("simam", target="jetson-nano", output=tmp_path / "simam", tune=True)
    with pytest.raises(BadRequest, match=r"says nothing of jetson-nano .*Leave --tune out.*--target onnxruntime-cpu"):
        exporting.export_artifact(request)
    assert not (tmp_path / "simam").exists()
