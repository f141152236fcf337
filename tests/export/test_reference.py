"""Holds that parity cases are what the network computes in float64, and how far it is from that itself in FP32."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import deploy_attn
from deploy_attn.export.inputs import noise_inputs
from deploy_attn.export.reference import check_network, fp32_errors, npz_from_cases, reference_cases
from deploy_attn.jetson.artifact import Case
from deploy_attn.jetson.errors import BadRequest, DeployAttnError
from tests.deploy_attn.catalogue_cases import small
from tests.export.networks import Returns

Array = np.ndarray[Any, Any]


class _Weighted(nn.Module):
    """A batch norm behind a convolution, and a dropout that must not drop."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.Dropout(0.9))

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.layers(x)
        return result


def _x() -> Array:
    return noise_inputs((2, 3, 4, 5), 0, severe=False)["normal"]


def _cancels(x: Tensor) -> Tensor:
    """x in float64, and little of it in float32."""
    return (x + 1e8) - 1e8


def _infinite_in_fp32(x: Tensor) -> Tensor:
    return (x * 1e30) * 1e30 / 1e60


def test_outputs_are_computed_in_float64_and_stored_as_float32() -> None:
    (case,) = reference_cases(Returns(_cancels), {"normal": _x()})
    assert case.name == "normal"
    assert case.outputs["output"].dtype == np.float32
    np.testing.assert_allclose(case.outputs["output"], _x(), atol=1e-7)
    assert float(np.abs(_cancels(torch.from_numpy(_x())).numpy() - _x()).max()) > 0.1


def test_weights_are_widened_too_and_the_network_is_in_eval_mode_but_the_callers_is_not_touched() -> None:
    torch.manual_seed(0)
    network = _Weighted()
    assert network.training
    first, again = (reference_cases(network, {"normal": _x()})[0].outputs["output"] for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert network.training
    assert {value.dtype for value in network.parameters()} == {torch.float32}
    norm = network.get_submodule("layers.1")
    assert int(norm.get_buffer("num_batches_tracked")) == 0


def test_every_input_is_a_case_in_order_and_is_kept_as_it_was() -> None:
    inputs = noise_inputs((1, 3, 4, 5), 1, severe=True)
    cases = reference_cases(Returns(lambda x: x.mul_(2)), inputs)
    assert [case.name for case in cases] == ["normal", "far_mean", "large"]
    untouched = noise_inputs((1, 3, 4, 5), 1, severe=True)
    for case in cases:
        np.testing.assert_array_equal(case.inputs["input"], untouched[case.name])
        np.testing.assert_array_equal(case.outputs["output"], 2 * untouched[case.name])


def test_several_outputs_are_numbered() -> None:
    (case,) = reference_cases(Returns(lambda x: (x, x.mean(1), x.argmax(1))), {"normal": _x()})
    assert list(case.outputs) == ["output_0", "output_1", "output_2"]
    np.testing.assert_array_equal(case.outputs["output_2"], _x().argmax(1))


@pytest.mark.parametrize(
    "function",
    [
        pytest.param(lambda x: x * float("nan"), id="NaN everywhere"),
        pytest.param(lambda x: x / (x - x[0, 0, 0, 0]), id="Inf in one place"),
        pytest.param(lambda x: (x, torch.log(x)), id="NaN in the second output"),
        pytest.param(lambda x: 1e39 * x, id="beyond what an FP32 graph can give"),
    ],
)
def test_a_network_that_gives_no_numbers_is_refused_and_the_input_is_named(
    function: Callable[[Tensor], object],
) -> None:
    with pytest.raises(BadRequest, match=r"gives NaN, Inf or .* on the parity input 'noise'"):
        reference_cases(Returns(function), {"noise": _x()})


def test_a_network_with_nan_weights_is_refused() -> None:
    network = _Weighted()
    with torch.no_grad():
        next(network.parameters())[0] = float("nan")
    with pytest.raises(BadRequest, match="--checkpoint"):
        reference_cases(network, {"normal": _x()})


def test_only_the_input_that_overflows_is_named() -> None:
    with pytest.raises(BadRequest, match="'far'"):
        reference_cases(Returns(lambda x: torch.exp(x)), {"near": _x(), "far": _x() + np.float32(1000)})


@pytest.mark.parametrize("result", [None, {}, (), 1.0], ids=repr)
def test_a_network_that_returns_no_tensors_is_refused(result: object) -> None:
    with pytest.raises(DeployAttnError, match="it must return a tensor"):
        reference_cases(Returns(lambda x: result), {"normal": _x()})


def test_the_error_of_fp32_is_the_networks_own() -> None:
    network = Returns(lambda x: (_cancels(x), x))
    errors = fp32_errors(network, reference_cases(network, {"normal": _x()}))
    assert set(errors) == {"normal"}
    assert errors["normal"]["output_0"]["rms_relative"] > 0.1
    assert errors["normal"]["output_0"]["worst_relative"] > 0.1
    assert errors["normal"]["output_1"]["rms_relative"] < 1e-6


@pytest.mark.parametrize("name", deploy_attn.available())
def test_the_error_of_fp32_of_a_catalogue_module_is_small_but_not_zero(name: str) -> None:
    torch.manual_seed(0)
    network = small(name, channels=16).float()
    inputs = noise_inputs((1, 16, 8, 8), 0, severe=False)
    errors = fp32_errors(network, reference_cases(network, inputs))
    assert errors["normal"]["output"]["rms_relative"] > 0
    assert all(error["output"]["rms_relative"] < 1e-5 for error in errors.values())


def test_an_error_of_fp32_that_is_no_number_is_left_out() -> None:
    network = Returns(lambda x: (_infinite_in_fp32(x), x))
    errors = fp32_errors(network, reference_cases(network, {"normal": _x()}))
    assert errors == {"normal": {"output_1": {"rms_relative": 0.0, "worst_relative": 0.0}}}


def test_where_rounding_is_amplified_the_error_is_the_largest_of_several_runs() -> None:
    def decides(x: Tensor) -> Tensor:
        """Exact on the input itself, far off where its last bits change."""
        return torch.where(x.float() == torch.from_numpy(_x()), x * (1 + 2e-6), x * 2)

    errors = fp32_errors(Returns(decides), [Case("normal", {"input": _x()}, {"output": _x()})])
    assert errors["normal"]["output"]["rms_relative"] > 0.5


def test_measuring_fp32_leaves_the_network_as_it_was() -> None:
    network = _Weighted().double()
    fp32_errors(network, reference_cases(network, {"normal": _x()}))
    assert network.training
    assert {value.dtype for value in network.parameters()} == {torch.float64}


def test_cases_are_kept_by_case_part_and_name() -> None:
    case = Case("far", {"input": _x()}, {"output_0": _x()[0], "output_1": np.ones(2, np.float32)})
    with np.load(io.BytesIO(npz_from_cases([case])), allow_pickle=False) as arrays:
        assert set(arrays.files) == {"far/inputs/input", "far/outputs/output_0", "far/outputs/output_1"}
        np.testing.assert_array_equal(arrays["far/outputs/output_0"], _x()[0])


def test_a_network_that_gives_nan_is_not_taken_for_a_random_one() -> None:
    network = Returns(lambda x: x * float("nan"))
    check_network(network, torch.ones(1, 2))
    with pytest.raises(BadRequest, match="gives NaN"):
        reference_cases(network, {"normal": np.ones((1, 2), np.float32)})


def test_a_weight_may_be_an_output() -> None:
    class Tempered(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.temperature = nn.Parameter(torch.tensor(2.0))

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return x * self.temperature, self.temperature

    network = Tempered()
    cases = reference_cases(network, {"normal": np.ones((1, 2), np.float32)})
    assert cases[0].outputs["output_1"] == 2.0
    assert fp32_errors(network, cases)["normal"]["output_1"]["rms_relative"] == 0.0
