"""The checks that host and board share: what passes, what fails, and what each says."""

from typing import Any, Dict, List, Mapping

import numpy as np
import pytest

from deploy_attn.jetson.artifact import Artifact, Case
from deploy_attn.jetson.errors import DamagedArtifact
from deploy_attn.jetson.parity import (
    Check,
    Tolerance,
    check_manifest,
    checks_of,
    fp32_tolerance,
    is_widened,
    refused,
    tolerance_of,
)
from tests.jetson.capsules import TOLERANCES

BASE = Tolerance(1e-5, 5e-4, "another order")
BLANK = Check("model.onnx", "fp32", "exact", "", "", None, BASE)
X = np.linspace(1, 2, 12).reshape(1, 3, 2, 2).astype(np.float32)
CASES = [Case("normal", {"x": X}, {"y": 2 * X}), Case("other", {"x": -X}, {"y": -2 * X})]


def manifest(**changed: Any) -> Dict[str, Any]:
    content: Dict[str, Any] = {
        "graphs": [{"file": "model.onnx", "precision": "fp32"}],
        "cases": ["normal"],
        "tolerances": TOLERANCES,
    }
    return dict(content, **changed)


def doubled(feeds: Mapping[str, np.ndarray]) -> Dict[str, np.ndarray]:
    return {"y": 2 * feeds["x"]}


def test_each_output_of_each_case_is_a_check() -> None:
    checks = checks_of(doubled, CASES, BLANK, {})
    assert [(check.case, check.output, check.passed) for check in checks] == [
        ("normal", "y", True),
        ("other", "y", True),
    ]
    assert checks[0].as_dict()["tolerance"] == {
        "rms_relative": 1e-5,
        "worst_relative": 5e-4,
        "reason": "another order",
    }


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_no_number_never_passes(value: float) -> None:
    def infer(feeds: Mapping[str, np.ndarray]) -> Dict[str, np.ndarray]:
        outputs = doubled(feeds)
        outputs["y"][0, 1, 0, 0] = value
        return outputs

    generous = BLANK._replace(tolerance=Tolerance(1e9, 1e9, "anything goes"))
    checks = checks_of(infer, CASES, generous, {})
    assert not any(check.passed for check in checks)
    found = checks[0].comparison
    assert found is not None
    assert found.non_finite == 1
    assert checks[0].as_dict()["measured"]["rms_relative"] is None


@pytest.mark.parametrize(
    ("outputs", "said"),
    [
        ({}, "the graph has no such output"),
        ({"y": np.zeros((1, 3, 2), np.float32)}, "shape (1, 3, 2) instead of (1, 3, 2, 2)"),
    ],
)
def test_an_output_that_is_missing_or_of_another_shape_is_a_failed_check(
    outputs: Dict[str, np.ndarray], said: str
) -> None:
    checks = checks_of(lambda feeds: outputs, CASES, BLANK, {})
    assert [(check.error, check.passed) for check in checks] == [(said, False)] * 2


@pytest.mark.parametrize("error", [ZeroDivisionError("what C++ says.\nand more"), KeyboardInterrupt()])
def test_whatever_the_engine_throws_goes_through_what_holds_the_engine(error: BaseException) -> None:
    def infer(feeds: Mapping[str, np.ndarray]) -> Dict[str, np.ndarray]:
        raise error

    with pytest.raises(type(error)):
        checks_of(infer, CASES, BLANK, {})


def test_and_is_then_one_failed_check() -> None:
    check = refused(BLANK, ZeroDivisionError("what C++ says.\nand more"))
    assert (check.case, check.output, check.passed) == ("all", "all", False)
    assert check.error == "the engine refused the graph: what C++ says"


def test_fp32_may_be_as_far_off_as_the_module_itself_and_fp16_may_not() -> None:
    def infer(feeds: Mapping[str, np.ndarray]) -> Dict[str, np.ndarray]:
        return {"y": 2 * feeds["x"] * np.float32(1 + 5e-5)}

    own = {"normal": {"y": {"rms_relative": 1e-5, "worst_relative": 1e-5}}}
    assert [check.passed for check in checks_of(infer, CASES, BLANK, own)] == [True, False]
    half = BLANK._replace(precision="fp16")
    assert [check.passed for check in checks_of(infer, CASES, half, own)] == [False, False]


def test_an_allowance_says_why_and_has_a_ceiling() -> None:
    assert fp32_tolerance(BASE, 1e-7, 1e-6) is BASE
    assert not is_widened(BASE)
    allowed = fp32_tolerance(BASE, 1e-5)
    assert is_widened(allowed)
    assert allowed.rms_relative == pytest.approx(8e-5)
    assert allowed.worst_relative == pytest.approx(4e-3)
    highest = fp32_tolerance(BASE, 1.0, 1.0)
    assert highest.rms_relative == 1e-3
    assert highest.worst_relative == 5e-2
    assert "the most for any" in highest.reason


WRONG: List[Dict[str, Any]] = [
    {"graphs": None},
    {"graphs": [{"precision": "fp32"}]},
    {"graphs": [{"file": "model.onnx", "precision": "int8"}]},
    {"cases": None},
    {"cases": []},
    {"tolerances": {"fp32": TOLERANCES["fp32"]}},
    {"tolerances": dict(TOLERANCES, fp16={"rms_relative": 1.0})},
]


@pytest.mark.parametrize("changed", WRONG)
def test_a_manifest_that_no_export_writes_is_refused(changed: Dict[str, Any]) -> None:
    with pytest.raises(DamagedArtifact, match="malformed"):
        check_manifest(Artifact("folder", manifest(**changed)))


def test_a_manifest_gives_its_tolerances() -> None:
    check_manifest(Artifact("folder", manifest()))
    assert tolerance_of(manifest(), "fp16").rms_relative == 2e-3
