"""Stored comparisons are read, or refused with file and key."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deploy_attn.benching.file import read_bench
from deploy_attn.engines.latency.result import Blocks, Candidate, Comparison
from deploy_attn.engines.pairs import Paired
from deploy_attn.html_report.latency import interval
from deploy_attn.html_report.plots import ratios
from deploy_attn.html_report.svg import rendered
from deploy_attn.jetson.errors import BadRequest
from tests.deploy_attn.html_report.samples import comparison
from tests.engines.latency.fakes import LIMITS

Document = dict[str, Any]


def document(**more: Any) -> Document:
    found = {"schema_version": 1, "engine": "onnxruntime", "name": "se", "artifact_sha256": "ab" * 32}
    return {**found, "comparisons": [comparison("fp32", "naive", 1.5, 2.0)], **more}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "bench-onnxruntime.json"


def test_what_a_comparison_says_of_itself_is_read_back(file: Path) -> None:
    pairs = Paired(tuple(2e-3 + 1e-5 * place for place in range(40)), tuple(1e-3 for _ in range(40)))
    control = Paired(tuple(1e-3 + 1e-6 * place for place in range(40)), tuple(1e-3 for _ in range(40)))
    sides = [Candidate(name, lambda: None, {"engine": "onnxruntime"}) for name in ("se fp32", "naive")]
    made = Comparison(
        sides[0], sides[1], pairs, control, Blocks(3, 5, ("noise",), spoiled=2), "twice as fast", "", {"threads": 1}
    )
    stored = {"precision": "fp32", "when": "2026-01-02T03:04:05+00:00", **made.as_dict()}
    file.write_text(json.dumps(document(comparisons=[stored])), encoding="utf-8")
    (found,) = read_bench(file).comparisons
    assert (found.candidate.label, found.baseline.label) == ("se fp32", "naive")
    assert found.ratio.median == made.pairs.as_dict()["median"]
    assert found.ratio.pairs == found.control.pairs == found.candidate.latency.n == 40
    assert found.error == made.error
    assert found.candidate.latency.median == pytest.approx(1.0)
    assert found.baseline.latency.quantiles[0] == pytest.approx(2.0)
    assert (found.kept, found.repeated, found.spoiled, found.reasons) == (3, 5, 2, ("noise",))
    assert (found.claim, found.refused, found.conditions) == ("twice as fast", "", {"threads": 1})


def with_limits(threads: int = 2, **limits: Any) -> Document:
    one = comparison("fp32", "naive", 1.5, 2.0)
    return document(comparisons=[{**one, "conditions": {"threads": threads, "limits": {**LIMITS.as_dict(), **limits}}}])


def test_what_the_machine_does_at_most_is_read_back_where_it_was_measured(file: Path) -> None:
    file.write_text(json.dumps(document()), encoding="utf-8")
    assert read_bench(file).comparisons[0].limits is None
    file.write_text(json.dumps(with_limits()), encoding="utf-8")
    assert read_bench(file).comparisons[0].limits == LIMITS


def changed(change: Callable[[Document], object]) -> Document:
    found = document()
    change(found["comparisons"][0])
    return found


@pytest.mark.parametrize(
    ("bad", "key"),
    [
        (document(schema_version=2), "schema_version"),
        (document(comparisons={}), "comparisons"),
        (document(comparisons=[comparison("fp32", "naive", 1.0, 1.0)] * 501), "comparisons"),
        (document(engine=["onnxruntime"]), "engine"),
        (with_limits(hot_gb_per_s=0), "comparisons[0].conditions.limits.hot_gb_per_s"),
        (with_limits(threads=1), "comparisons[0].conditions.limits.threads"),
        (changed(lambda one: one.update(conditions={"limits": [1]})), "comparisons[0].conditions.limits"),
        (document(artifact_sha256=None), "artifact_sha256"),
        (changed(lambda one: one.update(precision="int8")), "comparisons[0].precision"),
        (changed(lambda one: one.update(error=-1)), "comparisons[0].error"),
        (changed(lambda one: one.update(claim=None)), "comparisons[0].claim"),
        (changed(lambda one: one.update(refused="too few pairs")), "comparisons[0].claim"),
        (changed(lambda one: one["ratio"].update(median=2.0)), "comparisons[0].ratio.median"),
        (changed(lambda one: one["ratio"].update(pairs=0)), "comparisons[0].ratio.median"),
        (changed(lambda one: one["ratio"].update(p90=1e12)), "comparisons[0].ratio.p90"),
        (changed(lambda one: one["control"].pop("median")), "comparisons[0].control.median"),
        (changed(lambda one: one["candidate"]["latency"].update(n=0)), "candidate.latency.n"),
        (changed(lambda one: one["candidate"]["latency"]["quantiles_ms"].pop()), "latency.quantiles_ms"),
        (changed(lambda one: one["candidate"]["latency"]["quantiles_ms"].reverse()), "latency.quantiles_ms"),
        (changed(lambda one: one["baseline"]["latency"]["quantiles_ms"].__setitem__(3, None)), "quantiles_ms"),
        (changed(lambda one: one["baseline"]["latency"]["quantiles_ms"].__setitem__(3, "1")), "quantiles_ms.3"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_file_and_key(bad: Document, key: str, file: Path) -> None:
    file.write_text(json.dumps(bad), encoding="utf-8")
    with pytest.raises(BadRequest) as refused:
        read_bench(file)
    assert str(file) in str(refused.value)
    assert f"{key}'" in str(refused.value)


PLACES = ["precision", "when", "candidate", "candidate.label", "candidate.latency.n", "baseline.latency.p90_ms",
          "ratio", "baseline.latency.quantiles_ms", "baseline.latency.quantiles_ms.0", "ratio.p10", "control.pairs",
          "error", "blocks", "blocks.reasons", "claim", "refused", "conditions", "candidate.conditions"]  # fmt: skip
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.sampled_from(PLACES), value=VALUES)
def test_whatever_stands_in_a_comparison_it_is_drawn_or_refused(file: Path, place: str, value: object) -> None:
    found = document()
    part: Any = found["comparisons"][0]
    *way, last = (int(step) if step.isdigit() else step for step in place.split("."))
    for step in way:
        part = part[step]
    part[last] = value
    file.write_text(json.dumps(found), encoding="utf-8")
    try:
        (one,) = read_bench(file).comparisons
    except BadRequest as error:
        assert str(error).startswith(f"{file} is not read: 'comparisons[0].{place.split('.')[0]}")
        return
    assert rendered(ratios("ratios", [interval(one, one.baseline.label)]), "plot1").startswith("<svg ")
    assert len(one.baseline.latency.quantiles) == 21
