"""Holds that a certificate proves what is equal, refuses what is subtly not, and shows the trial that told."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

import deploy_attn
from deploy_attn.export.certificate import BOUND, Certificate, Claim, Trial, compare_modules, prove, prove_claim
from deploy_attn.export.layout import Layout
from deploy_attn.modules.base import ReferenceForm, Shape
from tests.deploy_attn.catalogue_cases import small
from tests.export.networks import Returns

SHAPE: Shape = (1, 16, 8, 10)
EVERY_CLASS = frozenset(
    (
        "normal",
        "normal, larger batch",
        "large range",
        "mean of 20 sigma",
        "negative",
        "constant",
        "zeros",
        "normal, another size",
    )
)
NOT_ZERO = EVERY_CLASS - {"zeros"}


def certify(
    reference: ReferenceForm, shape: Shape, engine: str = "cpu", observed: Mapping[str, Tensor] | None = None
) -> Certificate:
    return prove(reference, shape, engine, observed).certificate


class _Claimed(ReferenceForm):
    """Computes one function and claims that another, which may know the form's shape, is its export form."""

    catalogue_name: ClassVar[str] = "claimed"

    def __init__(self, function: Callable[[Tensor], Tensor], claim: Callable[[Tensor, Shape], Tensor]) -> None:
        super().__init__()
        self.function = function
        self.claim = claim

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)

    def export_form(self, input_shape: Shape, engine: str = "cpu", dynamic_size: bool = False) -> nn.Module:
        return Returns(lambda x: self.claim(x, input_shape))


def _doubled(x: Tensor) -> Tensor:
    return 2 * x


def _certified(claim: Callable[[Tensor, Shape], Tensor]) -> Certificate:
    return certify(_Claimed(_doubled, claim), SHAPE)


def _failed(certificate: Certificate) -> set[str]:
    return {trial.inputs for trial in certificate.trials if not trial.passed}


def test_a_form_that_answers_a_whole_batch_for_its_first_map_is_not_proven() -> None:
    certificate = _certified(lambda x, _: 2 * x[:1].expand_as(x))
    assert _failed(certificate) == {"normal, larger batch"}


def _inverse(x: Tensor) -> Tensor:
    """1 / x, and 0 at 0: next to 0 it overflows."""
    return torch.where(x == 0, x, 1 / x)


@pytest.mark.parametrize("engine", ["cpu", "gpu"])
@pytest.mark.parametrize("name", deploy_attn.available())
def test_every_catalogue_module_is_proven_for_both_families(name: str, engine: str) -> None:
    torch.manual_seed(7)
    certificate = certify(small(name, channels=SHAPE[1]), SHAPE, engine)
    assert certificate.proven
    assert {trial.inputs for trial in certificate.trials} == EVERY_CLASS
    assert certificate.worst_error <= 1e-11
    assert all(trial.error <= 1e-11 for trial in certificate.trials)


def test_trials_cover_batch_1_a_larger_batch_and_another_size() -> None:
    shapes = {trial.inputs: trial.shape for trial in _certified(lambda x, _: 2 * x).trials}
    assert shapes["normal"] == SHAPE
    assert shapes["normal, larger batch"] == (2, *SHAPE[1:])
    assert shapes["normal, another size"][2] != SHAPE[2]
    assert shapes["normal, another size"][3] != SHAPE[3]


def test_the_true_form_is_proven_without_any_error() -> None:
    certificate = _certified(lambda x, _: x + x)
    assert certificate.proven
    assert certificate.worst_error == 0.0


@pytest.mark.parametrize(
    ("claim", "failed"),
    [
        pytest.param(
            lambda x, _: torch.where(x < 0, 2 * x * (1 + 1e-6), 2 * x),
            {"normal", "normal, larger batch", "large range", "negative", "normal, another size"},
            id="wrong for negative inputs",
        ),
        pytest.param(lambda x, _: 2 * x + (x.shape[0] > 1) * 1e-6, {"normal, larger batch"}, id="wrong at batch > 1"),
        pytest.param(
            lambda x, _: 2 * x + (x.shape[0] == 1) * 1e-6, EVERY_CLASS - {"normal, larger batch"}, id="wrong at batch 1"
        ),
        pytest.param(
            lambda x, shape: 2 * x + (shape != SHAPE) * 1e-6, {"normal, another size"}, id="wrong at another size"
        ),
        pytest.param(
            lambda x, _: torch.where(x == 0, torch.full_like(x, math.nan), 2 * x), {"zeros"}, id="NaN on zeros"
        ),
        pytest.param(lambda x, _: torch.where(x.abs() > 50, 2 * x + 1, 2 * x), {"large range"}, id="wrong above 50"),
        pytest.param(
            lambda x, _: 2 * x if x.max() > x.min() else 2 * x + 1e-6,
            {"constant", "zeros"},
            id="wrong on flat maps",
        ),
        pytest.param(
            lambda x, _: 2 * x + (x.min() > 10) * 1e-6, {"mean of 20 sigma"}, id="wrong far from a mean of zero"
        ),
        pytest.param(lambda x, _: 2 * x * (1 + 1e-9), NOT_ZERO, id="off by 1e-9"),
        pytest.param(lambda x, _: 2 * x.float().double(), NOT_ZERO, id="computed in float32"),
        pytest.param(lambda x, _: 2 * x[..., :-1], EVERY_CLASS, id="another shape"),
        pytest.param(lambda x, _: 2 * x[:1], {"normal, larger batch"}, id="another batch"),
    ],
)
def test_a_subtly_wrong_form_is_not_proven_and_the_trial_that_told_is_shown(
    claim: Callable[[Tensor, Shape], Tensor], failed: set[str]
) -> None:
    certificate = _certified(claim)
    assert not certificate.proven
    assert _failed(certificate) == failed


def test_what_the_network_fed_the_module_is_tried_too() -> None:
    reference = _Claimed(_doubled, lambda x, _: torch.where(x == 12345, 0, 2 * x))
    own = torch.full(SHAPE, 12345.0, dtype=torch.float64)
    assert certify(reference, SHAPE).proven
    assert _failed(certify(reference, SHAPE, observed={"its own": own})) == {"its own"}


@pytest.mark.parametrize("name", deploy_attn.available())
def test_certifying_leaves_the_weights_alone(name: str) -> None:
    reference = small(name, channels=SHAPE[1])
    before = {key: value.clone() for key, value in reference.state_dict().items()}
    certify(reference, SHAPE, "gpu")
    assert all(torch.equal(before[key], value) for key, value in reference.state_dict().items())


def test_a_form_as_close_as_the_last_bit_of_the_input_allows_is_proven() -> None:
    reference = _Claimed(
        lambda x: torch.sin(1e4 * x), lambda x, _: torch.sin(1e4 * torch.nextafter(x, torch.full_like(x, math.inf)))
    )
    certificate = certify(reference, SHAPE)
    assert BOUND < certificate.worst_error < 1e-7
    assert certificate.proven


@pytest.mark.parametrize("name", deploy_attn.available())
def test_no_catalogue_module_is_so_sensitive_that_an_error_of_1e_6_passes(name: str) -> None:
    torch.manual_seed(7)
    reference = small(name, channels=SHAPE[1])
    certificate = certify(_Claimed(reference, lambda x, shape: (1 + 1e-6) * reference.export_form(shape)(x)), SHAPE)
    zeros = torch.zeros(SHAPE, dtype=torch.float64)
    with torch.inference_mode():
        zero_at = {name for name, x in (("zeros", zeros), ("negative", zeros - 1)) if not reference(x).any()}
    assert _failed(certificate) == EVERY_CLASS - zero_at


def test_even_the_most_sensitive_reference_excuses_no_error_of_1e_6() -> None:
    reference = _Claimed(lambda x: torch.sin(1e10 * x), lambda x, _: torch.sin(1e10 * x) * (1 + 1e-6))
    assert not certify(reference, SHAPE).proven


def test_a_reference_that_overflows_next_to_the_input_excuses_no_nan() -> None:
    reference = _Claimed(_inverse, lambda x, _: torch.where(x == 0, torch.full_like(x, math.nan), 1 / x))
    assert _failed(certify(reference, SHAPE)) == {"zeros"}


@pytest.mark.parametrize("value", [math.nan, math.inf], ids=["NaN", "Inf"])
def test_where_the_reference_itself_is_not_finite_nothing_is_proven(value: float) -> None:
    def broken(x: Tensor) -> Tensor:
        return torch.where(x == 0, torch.full_like(x, value), x)

    certificate = certify(_Claimed(broken, lambda x, _: broken(x)), SHAPE)
    assert _failed(certificate) == {"zeros"}


def test_the_worst_error_of_a_certificate_that_holds_a_nan_is_no_small_number() -> None:
    broken = _Claimed(lambda x: torch.where(x == 0, torch.full_like(x, math.nan), x), lambda x, _: x)
    certificate = certify(broken, SHAPE)
    assert not certificate.proven
    assert not certificate.worst_error <= BOUND


def test_a_certificate_without_trials_proves_nothing() -> None:
    certificate = Certificate("A", "B", ())
    assert not certificate.proven
    assert certificate.worst_error == math.inf


@pytest.mark.parametrize(
    ("error", "bound", "passed"),
    [(1e-11, 1e-11, True), (1.01e-11, 1e-11, False), (math.nan, 1e-11, False), (0.0, 1e-11, True)],
)
def test_a_trial_passes_up_to_its_bound(error: float, bound: float, passed: bool) -> None:
    assert Trial("x", (1,), error, bound).passed is passed


def test_the_dictionary_names_both_forms_and_every_trial() -> None:
    certificate = _certified(lambda x, _: 2 * x * (1 + 1e-9))
    written = certificate.as_dict()
    assert (written["subject"], written["replacement"], written["proven"]) == ("_Claimed", "Returns", False)
    assert written["worst_error"] == certificate.worst_error
    assert {trial["inputs"]: trial["passed"] for trial in written["trials"]} == {
        name: name == "zeros" for name in EVERY_CLASS
    }


@pytest.mark.parametrize(
    "claim",
    [
        pytest.param(lambda x, _: 2 * x, id="proven"),
        pytest.param(lambda x, _: 2 * x[..., :-1], id="another shape"),
        pytest.param(lambda x, _: 2 * x * math.nan, id="NaN"),
    ],
)
def test_the_dictionary_is_strict_json(claim: Callable[[Tensor, Shape], Tensor]) -> None:
    json.dumps(_certified(claim).as_dict(), allow_nan=False)


@pytest.mark.parametrize(
    ("reference", "replacement", "passed"),
    [
        pytest.param(lambda x: (x, 2 * x), lambda x: (x, x + x), True, id="equal pairs"),
        pytest.param(lambda x: (x, 2 * x), lambda x: (x, 2 * x + 1e-9), False, id="second output off"),
        pytest.param(lambda x: (x, 2 * x), lambda x: (x, x * math.nan), False, id="second output NaN"),
        pytest.param(lambda x: (x, 2 * x), lambda x: (x,), False, id="an output missing"),
        pytest.param(lambda x: [x, 2 * x], lambda x: (x, 2 * x), True, id="list and tuple"),
        pytest.param(lambda x: x.argmax(1), lambda x: x.argmax(1), True, id="equal integers"),
        pytest.param(lambda x: x.argmax(1), lambda x: x.argmin(1), False, id="other integers"),
        pytest.param(lambda x: x, lambda x: x.flatten(1), False, id="another shape, same values"),
    ],
)
def test_whole_networks_are_compared_output_by_output(
    reference: Callable[[Tensor], object], replacement: Callable[[Tensor], object], passed: bool
) -> None:
    x = torch.randn(2, 3, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    assert compare_modules("whole", Returns(reference), Returns(replacement), x).passed is passed


def test_whole_networks_of_integers_are_compared() -> None:
    x = torch.arange(6).reshape(2, 3)
    trial = compare_modules("whole", Returns(lambda x: x + 1), Returns(lambda x: x + 2), x)
    assert not trial.passed
    assert trial.bound == BOUND


def test_small_outputs_are_held_to_the_same_relative_bound() -> None:
    certificate = certify(_Claimed(lambda x: 1e-6 * x, lambda x, _: 1e-6 * x * (1 + 1e-9)), SHAPE)
    assert _failed(certificate) == NOT_ZERO
    assert {trial.bound for trial in certificate.trials} == {BOUND}


def test_next_to_an_output_of_zero_the_error_counts_as_it_is() -> None:
    certificate = certify(_Claimed(lambda x: 0 * x, lambda x, _: 0 * x + 1e-14), SHAPE)
    assert certificate.proven
    assert 0 < certificate.worst_error < BOUND


def test_a_hundred_times_the_last_bit_of_the_input_is_no_rounding() -> None:
    reference = _Claimed(lambda x: torch.sin(1e4 * x), lambda x, _: torch.sin(1e4 * x * (1 + 100 * 2**-52)))
    assert "normal" in _failed(certify(reference, SHAPE))


def test_a_difference_of_neighbours_is_as_sensitive_as_each_of_them() -> None:
    def apart(x: Tensor) -> Tensor:
        return 1e6 * (x[..., ::2] - x[..., 1::2])

    trial = compare_modules("flat", Returns(apart), Returns(lambda x: apart(x) + 1e-10), torch.ones(1, 8).double())
    assert BOUND < trial.error < trial.bound


def _claim(subject: Callable[[Tensor], Tensor], form: Callable[[Tensor], Tensor], **settings: Any) -> Claim:
    return Claim(Returns(subject), lambda shape: Returns(form), **settings)


def _trials(claim: Claim, shape: Shape = SHAPE, **observed: Tensor) -> list[str]:
    return [trial.inputs for trial in prove_claim(claim, shape, observed).certificate.trials]


@pytest.mark.parametrize(("limit", "failing"), [(0, "normal"), (50, "large range")])
def test_a_hasty_proof_ends_with_the_first_trial_that_fails(limit: float, failing: str) -> None:
    claim = _claim(lambda x: x, lambda x: x + (x.abs().max() > limit), hasty=True)
    certificate = prove_claim(claim, SHAPE, {"own": torch.ones(SHAPE).double()}).certificate
    assert [trial.inputs for trial in certificate.trials if not trial.passed] == [failing]
    assert certificate.trials[-1].inputs == failing


def test_a_hasty_proof_that_holds_has_every_trial() -> None:
    assert set(_trials(_claim(lambda x: x, lambda x: x, hasty=True))) == EVERY_CLASS


def test_a_brief_proof_has_normal_inputs_what_was_observed_and_no_other_size() -> None:
    claim = _claim(lambda x: x, lambda x: x, brief=True)
    assert _trials(claim, own=torch.ones(SHAPE).double()) == ["normal", "large range", "own"]


def test_forms_are_proven_as_they_run_in_eval_mode() -> None:
    claim = Claim(nn.Identity(), lambda shape: nn.Dropout(0.5))
    proof = prove_claim(claim, SHAPE, {})
    assert proof.certificate.proven
    assert not proof.form.training


@pytest.mark.parametrize("any_size", [False, True])
def test_one_form_serves_an_open_size(any_size: bool) -> None:
    built: list[Shape] = []

    def build(shape: Shape) -> nn.Module:
        built.append(shape)
        return nn.Identity()

    prove_claim(Claim(nn.Identity(), build, any_size), SHAPE, {})
    assert [shape[2:] for shape in built] == [SHAPE[2:], *([] if any_size else [(10, 13)])]


@pytest.mark.parametrize(
    ("shape", "taken", "other"),
    [
        (SHAPE, lambda height, width: True, (10, 13)),
        (SHAPE, lambda height, width: height <= 8, (4, 5)),
        (SHAPE, lambda height, width: height % 8 == 0 and width % 10 == 0, (16, 20)),
        (SHAPE, lambda height, width: (height, width) == (8, 10), None),
        ((1, 16, 1, 1), lambda height, width: height < 3 and height == width, (2, 2)),
    ],
    ids=["larger", "half", "twice", "none", "half of one is one"],
)
def test_the_other_size_is_one_that_the_subject_takes(
    shape: Shape, taken: Callable[[int, int], bool], other: tuple[int, int] | None
) -> None:
    def picky(x: Tensor) -> Tensor:
        if not taken(*x.shape[2:]):
            raise TypeError("not for this size")
        return x

    certificate = prove_claim(_claim(picky, picky), shape, {}).certificate
    found = [trial.shape[2:] for trial in certificate.trials if trial.inputs == "normal, another size"]
    assert found == ([] if other is None else [other])


@pytest.mark.parametrize("layout", ["b c h w", "b h w c", "b n c"])
def test_every_input_class_comes_in_the_layout_of_the_subject(layout: Layout) -> None:
    shapes: set[tuple[int, ...]] = set()

    def seen(x: Tensor) -> Tensor:
        shapes.add(tuple(x.shape[1:]))
        return x

    prove_claim(_claim(seen, lambda x: x, layout=layout), SHAPE, {})
    wanted = {"b c h w": (16, 8, 10), "b h w c": (8, 10, 16), "b n c": (80, 16)}[layout]
    assert wanted in shapes
    assert {len(shape) for shape in shapes} == {len(wanted)}
    assert all(shape[0 if layout == "b c h w" else -1] == 16 for shape in shapes)


@pytest.mark.parametrize("refused", [0, 18])
def test_tokens_are_tried_in_another_number_and_not_in_several_columns(refused: int) -> None:
    seen: list[int] = []

    def doubled(x: Tensor) -> Tensor:
        seen.append(x.shape[1])
        return torch.zeros(3).reshape(2) if x.shape[1] == refused else 2 * x

    certificate = prove_claim(_claim(doubled, lambda x: 2 * x, layout="b n c"), (1, 4, 16, 1), {}).certificate
    assert certificate.proven
    assert certificate.trials[-1].shape == (1, 8 if refused else 18, 4)
    assert set(seen) == ({16, 18, 8} if refused else {16, 18})
