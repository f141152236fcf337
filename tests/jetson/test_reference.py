"""A capsule's reference: inputs made again to the last bit or kept as they are, outputs thinned or kept whole."""

import io
import json
from typing import Any, Dict, List, Optional

import numpy as np
import pytest

from deploy_attn.jetson import reference
from deploy_attn.jetson.artifact import Case
from deploy_attn.jetson.errors import BadRequest
from deploy_attn.jetson.noise import close_calls, larger_map, noise_inputs, twice_the_batch
from deploy_attn.jetson.parity import Check, Tolerance, checks_of
from deploy_attn.jetson.reference import pack, unpack

SHAPE = (1, 16, 24, 28)
BLANK = Check("model.onnx", "fp32", "exact", "", "", None, Tolerance(1e-5, 5e-4, "another order"))


def outputs_of(x: np.ndarray) -> Dict[str, np.ndarray]:
    """A network of two outputs, a large one and a small one."""
    return {"output_0": np.tanh(x) * x, "output_1": x.mean(axis=(2, 3))}


def cases_of(inputs: Dict[str, np.ndarray]) -> List[Case]:
    return [Case(name, {"input": x}, outputs_of(x)) for name, x in inputs.items()]


def with_open_axes(inputs: Dict[str, np.ndarray]) -> Dict[str, np.ndarray]:
    first = next(iter(inputs.values()))
    return dict(inputs, larger_batch=twice_the_batch(first), larger_map=larger_map(first, 2, 3))


def there_and_back(cases: List[Case], seed: Optional[int] = 3) -> List[Case]:
    """As a board gets them: the description went through JSON."""
    packed = pack(cases, seed)
    described = json.loads(json.dumps(packed.description))
    return unpack(io.BytesIO(packed.content), described, [case.name for case in cases])


def recipes(cases: List[Case], seed: Optional[int] = 3) -> Dict[str, Any]:
    described = pack(cases, seed).description["cases"]
    return {name: case["inputs"]["input"]["recipe"] if case["inputs"] else "kept" for name, case in described.items()}


def assert_same_inputs(found: List[Case], cases: List[Case]) -> None:
    assert [case.name for case in found] == [case.name for case in cases]
    for mine, other in zip(found, cases):
        assert list(mine.inputs) == list(other.inputs)
        for name, array in other.inputs.items():
            assert mine.inputs[name].tobytes() == array.tobytes()
            assert (mine.inputs[name].dtype, mine.inputs[name].shape) == (array.dtype, array.shape)


@pytest.mark.parametrize(
    ("severe", "expected"),
    [
        (True, {"normal": ["noise", "normal"], "far_mean": ["noise", "far_mean"], "large": ["noise", "large"]}),
        (False, {"normal": ["noise", "normal"], "negated": ["noise", "negated"]}),
    ],
)
def test_noise_and_what_is_made_of_it_come_back_from_a_seed(severe: bool, expected: Dict[str, Any]) -> None:
    cases = cases_of(with_open_axes(noise_inputs(SHAPE, 3, severe)))
    assert recipes(cases) == dict(expected, larger_batch=["twice_the_batch"], larger_map=["larger_map", 2, 3])
    assert_same_inputs(there_and_back(cases), cases)


def test_an_input_from_a_file_is_kept_and_what_is_made_of_it_is_not() -> None:
    photo = np.random.RandomState(9).random_sample(SHAPE).astype(np.float32)
    cases = cases_of(with_open_axes({"file": photo}))
    assert recipes(cases) == {"file": "kept", "larger_batch": ["twice_the_batch"], "larger_map": ["larger_map", 2, 3]}
    assert_same_inputs(there_and_back(cases), cases)


@pytest.mark.parametrize("seed", [None, 4])
def test_without_the_right_seed_the_noise_is_kept(seed: Optional[int]) -> None:
    cases = cases_of(noise_inputs(SHAPE, 3, severe=True))
    assert set(recipes(cases, seed).values()) == {"kept"}
    assert_same_inputs(there_and_back(cases, seed), cases)


def test_an_input_that_only_looks_like_noise_is_kept() -> None:
    inputs = noise_inputs(SHAPE, 3, severe=True)
    inputs["large"][0, 0, 0, 0] = np.nextafter(inputs["large"][0, 0, 0, 0], np.float32(np.inf))
    cases = cases_of(inputs)
    assert recipes(cases)["large"] == "kept"
    assert_same_inputs(there_and_back(cases), cases)
    inputs["normal"][0, 0, 0, 0] += 1
    assert set(recipes(cases_of(inputs)).values()) == {"kept"}


def test_noise_that_another_c_library_rounded_comes_back_as_it_was() -> None:
    there = noise_inputs(SHAPE, 3, severe=False)["normal"]
    places = close_calls(SHAPE, 3)
    assert places.size > 0
    there.reshape(-1)[places] = np.nextafter(there.reshape(-1)[places], np.float32(np.inf))
    cases = cases_of({"normal": there, "negated": -there})
    assert recipes(cases) == {"normal": ["noise", "normal"], "negated": ["noise", "negated"]}
    assert_same_inputs(there_and_back(cases), cases)


def test_a_numpy_that_draws_other_numbers_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    cases = cases_of(noise_inputs(SHAPE, 3, severe=True))
    packed = pack(cases, 3)
    monkeypatch.setattr(reference, "noise_inputs", lambda shape, seed, *more: noise_inputs(shape, seed + 1, *more))
    with pytest.raises(BadRequest) as caught:
        unpack(io.BytesIO(packed.content), packed.description, ["normal"])
    assert "Input 'input' of case 'normal' could not be made again" in str(caught.value)
    assert "export with --input FILE.npy" in str(caught.value)


def test_large_outputs_are_thinned_and_small_ones_are_whole() -> None:
    cases = cases_of(noise_inputs(SHAPE, 3, severe=True))
    for mine, other in zip(there_and_back(cases), cases):
        assert list(mine.expected) == ["output_0", "output_1"]
        assert list(mine.outputs) == ["output_1"]
        assert np.array_equal(mine.outputs["output_1"], other.outputs["output_1"])
    assert len(pack(cases, 3).content) < sum(case.outputs["output_0"].nbytes for case in cases) / 2


def test_the_checks_are_those_of_the_whole_reference() -> None:
    cases = cases_of(with_open_axes(noise_inputs(SHAPE, 3, severe=True)))

    def infer(feeds: Any) -> Dict[str, np.ndarray]:
        return outputs_of(feeds["input"] * np.float32(1 + 2e-6))

    mine = {(check.case, check.output): check for check in checks_of(infer, there_and_back(cases), BLANK, {})}
    whole = {(check.case, check.output): check for check in checks_of(infer, cases, BLANK, {})}
    assert list(mine) == list(whole)
    for key, check in whole.items():
        assert check.comparison is not None
        found = mine[key].comparison
        assert found is not None
        assert mine[key].passed == check.passed
        assert found.rms_relative == pytest.approx(check.comparison.rms_relative, rel=0.1)
    assert whole["normal", "output_0"].compared == "all 10,752 elements"
    assert mine["normal", "output_0"].compared == "2,048 of 10,752 elements, and all of them in 2,048 signed sums"
    assert mine["normal", "output_1"].compared == "all 16 elements"
    assert mine["normal", "output_0"].as_dict()["compared"] == mine["normal", "output_0"].compared


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_reference_that_holds_no_number_is_kept_whole(value: float) -> None:
    (case,) = cases_of({"file": np.ones(SHAPE, np.float32)})
    case.outputs["output_0"][0, 0, 0, 0] = value
    (found,) = there_and_back([case])
    assert list(found.outputs) == ["output_0", "output_1"]


@pytest.mark.parametrize(
    "x",
    [
        np.arange(12, dtype=np.int64),
        np.ones((2, 3), np.float32),
        np.float32(7).reshape(()),
        np.random.RandomState(3).standard_normal(SHAPE),
    ],
    ids=["whole numbers", "2-D", "a scalar", "float64"],
)
def test_inputs_that_are_no_maps_are_kept(x: np.ndarray) -> None:
    cases = [Case("a", {"x": x, "more": x}, {"y": x}), Case("b", {"x": x}, {"y": x})]
    (found, other) = there_and_back(cases)
    assert sorted(found.inputs) == ["more", "x"]
    assert other.inputs["x"].tobytes() == x.tobytes()


def test_the_same_cases_give_the_same_bytes() -> None:
    first, second = (pack(cases_of(noise_inputs(SHAPE, 3, severe=True)), 3) for _ in range(2))
    assert first == second


@pytest.mark.parametrize(
    ("part", "changed"),
    [
        ("outputs", {"output_0": {"shape": [1, 16, 24, 2800], "unit": 1.0}}),
        ("outputs", {"another": {"shape": [1, 16, 24, 28], "unit": 1.0}}),
        ("inputs", {"input": {"recipe": ["magic"], "sha256": ""}}),
        ("inputs", {"input": {"recipe": ["twice_the_batch"], "sha256": ""}}),
        ("inputs", {"input": {"recipe": ["noise", "none"], "sha256": ""}}),
        ("inputs", {}),
    ],
)
def test_a_description_that_does_not_fit_is_an_error_of_reading(part: str, changed: Dict[str, Any]) -> None:
    packed = pack(cases_of(noise_inputs(SHAPE, 3, severe=True)), 3)
    packed.description["cases"]["normal"][part] = changed
    with pytest.raises((ValueError, KeyError)):
        unpack(io.BytesIO(packed.content), packed.description, ["normal"])
