"""Times of one candidate: percentiles of milliseconds, interpolated."""

from __future__ import annotations

import pytest

from deploy_attn.engines.latency.result import Latency


def test_percentiles_are_of_the_times_whatever_their_order() -> None:
    values = [float(37 * place % 101) for place in range(101)]
    found = Latency(tuple(values)).as_dict()
    named = {"p10_ms": 10.0, "median_ms": 50.0, "p90_ms": 90.0, "p99_ms": 99.0, "min_ms": 0.0, "max_ms": 100.0}
    assert {name: found[name] for name in named} == pytest.approx(named)
    assert found["n"] == 101
    assert found["quantiles_ms"] == pytest.approx([5.0 * place for place in range(21)])
    assert Latency((1.0, 2.0)).as_dict()["p90_ms"] == pytest.approx(1.9)
