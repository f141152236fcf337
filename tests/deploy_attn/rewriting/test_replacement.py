"""One instance and its readings: which is taken, on what proof, and why the others are not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from deploy_attn.export.arguments import Arguments
from deploy_attn.modules.base import MapShape
from deploy_attn.modules.first_map import FirstMap
from deploy_attn.rewriting import replacement
from deploy_attn.rewriting.fit import Outcome
from deploy_attn.rewriting.match import Match
from deploy_attn.rewriting.replacement import Candidate, Wanted, outcome_of

FIXED, OPEN = Wanted("cpu", False), Wanted("cpu", True)


class Gate(nn.Module):
    """Multiplies channels by the weights of a layer of their means."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4).double()

    def gate(self, x: Tensor) -> Tensor:
        weights: Tensor = self.layer(x.mean((2, 3)))
        return x * weights[:, :, None, None]

    def forward(self, x: Tensor, rectified: bool = False) -> Tensor:
        return self.gate(x).relu() if rectified else self.gate(x)


class Form(nn.Module):
    """A gate's form with something done to the result."""

    def __init__(self, gate: Gate, after: Callable[[Tensor], Tensor] = lambda y: y) -> None:
        super().__init__()
        self.gate, self.after = gate.gate, after

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.gate(x))


def scaled(error: float) -> Callable[[Tensor], Tensor]:
    return lambda y: y * (1 + error)


def reading(module: Gate, name: str = "right", after: Callable[[Tensor], Tensor] = lambda y: y) -> Match:
    return Match(name, ("seen",), lambda shape, engine: Form(module, after))


def built(build: Callable[[MapShape, str], nn.Module]) -> Match:
    """A reading by exact type, whose proof has no second part."""
    return Match("built", ("seen",), build, exact=True)


def of(*extents: int) -> Arguments:
    return Arguments((torch.randn(extents, dtype=torch.float64),), {})


MAP = of(1, 4, 5, 6)


def tried(
    monkeypatch: pytest.MonkeyPatch,
    readings: Callable[[Gate], list[Match]],
    calls: tuple[Arguments, ...] = (MAP,),
    wanted: Wanted = FIXED,
) -> Outcome:
    """What becomes of a gate that is read so, whatever its weights."""
    torch.manual_seed(0)
    monkeypatch.setattr(replacement, "matches_of", lambda module: iter(readings(module)))
    module = Gate()
    outcome = outcome_of(Candidate(module, ("gate",), tuple(readings(module))), calls, wanted)
    assert outcome.module is module
    return outcome


def test_the_first_reading_that_is_proven_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    readings = lambda gate: [reading(gate, "wrong", scaled(1e-6)), reading(gate), reading(gate, "late")]  # noqa: E731
    outcome = tried(monkeypatch, readings)
    assert (outcome.finding.recognised_as, outcome.finding.replaced, outcome.finding.reason) == ("right", True, None)
    assert isinstance(outcome.form, Form)
    assert outcome.form.gate.__self__ is outcome.module  # type: ignore[attr-defined]  # with its own weights


def test_of_readings_that_fail_the_nearest_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def readings(gate: Gate) -> list[Match]:
        return [
            Match("known", (), refusal="it has no form, so leave it out"),
            reading(gate, "far", scaled(1e-2)),
            reading(gate, "near", scaled(1e-6)),
            reading(gate, "farther", scaled(1e-1)),
        ]

    finding = tried(monkeypatch, readings).finding
    assert (finding.recognised_as, finding.replaced) == ("near", False)
    assert finding.reason == "not proven: worst error 1.0e-06"
    assert finding.certificate is not None
    assert len(finding.certificate.trials) == 1  # the first that fails is the last


@pytest.mark.parametrize(
    ("match", "call", "reason"),
    [
        (Match("known", (), refusal="leave it out"), MAP, "leave it out"),
        (Match("known", ()), MAP, "it has no export form"),
        (Match("known", (), lambda *_: nn.Identity()), of(1, 4, 5), "it is called with a tensor of 3 axes"),
    ],
)
def test_a_reading_that_cannot_be_tried_says_why(
    match: Match, call: Arguments, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert tried(monkeypatch, lambda _: [match], (call,)).finding.reason == reason


def test_a_second_call_with_several_tensors_hinders(monkeypatch: pytest.MonkeyPatch) -> None:
    two = Arguments((*MAP.positional, *MAP.positional), {})
    outcome = tried(monkeypatch, lambda gate: [reading(gate)], (MAP, two))
    assert outcome.finding.reason == "it is called with several tensors"


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("kind", ["register_forward_hook", "register_forward_pre_hook"])
def test_hooks_hinder_wherever_they_are(kind: str, inside: bool) -> None:
    module = Gate()
    getattr(module.layer if inside else module, kind)(lambda *_: None)
    outcome = outcome_of(Candidate(module, ("gate",), (built(lambda *_: Form(module)),)), (MAP,), FIXED)
    assert "forward hooks" in str(outcome.finding.reason)


@pytest.mark.parametrize(
    ("other", "wanted", "replaced"),
    [
        (of(3, 4, 5, 6), FIXED, True),
        (of(1, 4, 7, 8), FIXED, False),
        (of(1, 4, 7, 8), OPEN, True),
        (of(1, 9, 5, 6), FIXED, False),
    ],
    ids=["another batch", "another size", "another size that is open", "other channels"],
)
def test_several_calls_need_one_form(
    other: Arguments, wanted: Wanted, replaced: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcome = tried(monkeypatch, lambda gate: [reading(gate)], (MAP, other), wanted)
    assert outcome.finding.replaced == replaced
    assert replaced or "several sizes" in str(outcome.finding.reason)


def test_every_call_of_the_network_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    far = Arguments((torch.full((1, 4, 5, 6), 12345.0, dtype=torch.float64),), {})
    after = lambda y: y + (y.abs().min() > 1e7)  # noqa: E731  # what noise does not reach
    with torch.no_grad():
        finding = tried(monkeypatch, lambda gate: [reading(gate, after=after)], (MAP, far)).finding
    assert finding.certificate is not None
    assert [trial.inputs for trial in finding.certificate.trials if not trial.passed] == ["the network's own, call 1"]


@pytest.mark.parametrize(
    "call",
    [
        Arguments((*MAP.positional, False), {}),
        Arguments(MAP.positional, {"rectified": False}),
        Arguments((), {"x": MAP.tensors[0]}),
    ],
    ids=["a place more", "a name more", "by name"],
)
def test_a_form_is_handed_the_map_of_any_call(call: Arguments, monkeypatch: pytest.MonkeyPatch) -> None:
    outcome = tried(monkeypatch, lambda gate: [reading(gate)], (call,))
    assert outcome.finding.replaced
    assert isinstance(outcome.form, FirstMap)


def test_what_a_call_passes_besides_is_part_of_the_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    call = Arguments(MAP.positional, {"rectified": True})
    assert not tried(monkeypatch, lambda gate: [reading(gate)], (call,)).finding.replaced
    assert tried(monkeypatch, lambda gate: [reading(gate, after=torch.relu)], (call,)).finding.replaced


def test_calls_that_differ_beside_their_maps_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The network's own map hides what the second call does, and no noise was given to that."""

    own = MAP.mapped(torch.zeros_like)
    plain, rectified = (Arguments(own.positional, {"rectified": flag}) for flag in (False, True))
    assert tried(monkeypatch, lambda gate: [reading(gate)], (plain, plain)).finding.replaced
    finding = tried(monkeypatch, lambda gate: [reading(gate)], (plain, rectified)).finding
    assert not finding.replaced
    assert "other arguments" in str(finding.reason)


def test_arguments_that_cannot_be_compared_are_not_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = tuple(Arguments(MAP.positional, {"rectified": np.zeros(2)}) for _ in range(2))
    assert "other arguments" in str(tried(monkeypatch, lambda gate: [reading(gate)], calls).finding.reason)


@pytest.mark.parametrize(
    ("wanted", "shape"), [(FIXED, MapShape(4, 5, 6)), (Wanted("gpu", True), MapShape(4, None, None))]
)
def test_forms_are_built_for_what_is_asked(wanted: Wanted, shape: MapShape) -> None:
    asked: list[tuple[MapShape, str]] = []
    module = Gate()

    def build(size: MapShape, engine: str) -> nn.Module:
        asked.append((size, engine))
        return Form(module)

    assert outcome_of(Candidate(module, ("",), (built(build),)), (MAP,), wanted).finding.replaced
    assert asked[0] == (shape, wanted.engine)
    assert len(asked) == (1 if wanted.dynamic_size else 2)  # one for all sizes, or another for another size


def test_a_form_of_one_size_is_none_of_an_open_size() -> None:
    module = Gate()
    after = lambda y: y + (y.shape[2:] != (5, 6))  # noqa: E731
    candidate = Candidate(module, ("",), (built(lambda *_: Form(module, after)),))
    finding = outcome_of(candidate, (MAP,), OPEN).finding
    assert finding.certificate is not None
    assert [trial.inputs for trial in finding.certificate.trials if not trial.passed] == ["normal, another size"]


def test_a_form_with_constants_in_float32_is_proven_in_float64() -> None:
    module = nn.Conv2d(4, 4, 1).double()
    layer = nn.Conv2d(4, 4, 1)
    module.load_state_dict(layer.state_dict())
    candidate = Candidate(module, ("",), (built(lambda *_: layer),))
    assert outcome_of(candidate, (MAP,), FIXED).finding.replaced


def hidden(gate: Gate) -> Callable[[Tensor], Tensor]:
    """Nothing as long as the gate's bias is zero."""
    return lambda y: y + gate.layer.bias.sum()


class Unbiased(Gate):
    """A gate whose bias is zero, as a fresh network's may be."""

    def __init__(self) -> None:
        super().__init__()
        nn.init.zeros_(self.layer.bias)


@pytest.mark.parametrize("exact", [False, True])
def test_weights_that_hide_a_difference_are_tried_with_others(exact: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Gate] = []

    def readings(gate: Any) -> Iterator[Match]:
        seen.append(gate)
        yield Match("hides", (), lambda *_: Form(gate, hidden(gate)), exact=exact)

    monkeypatch.setattr(replacement, "matches_of", readings)
    module = Unbiased()
    weight = module.layer.weight.clone()
    outcome = outcome_of(Candidate(module, ("",), tuple(readings(module))), (MAP,), FIXED)
    assert outcome.finding.replaced == exact
    assert torch.equal(module.layer.weight, weight)
    assert not module.layer.bias.any()
    if not exact:
        assert "with other weights" in str(outcome.finding.reason)
        assert outcome.finding.certificate is not None
        assert not outcome.finding.certificate.proven
        assert 0.35 < float(seen[1].layer.weight.detach().std()) < 0.8  # of four inputs: 0.5
        assert float(seen[1].layer.bias.detach().abs().min()) > 0


def test_with_other_weights_the_same_reading_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = scaled(1e-3)
    outcome = tried(monkeypatch, lambda gate: [reading(gate, "wrong", wrong), reading(gate)])
    assert outcome.finding.recognised_as == "right"
    assert outcome.finding.replaced


@pytest.mark.parametrize("more", [-1, 1])
def test_a_reading_that_comes_and_goes_with_the_weights_is_none(more: int, monkeypatch: pytest.MonkeyPatch) -> None:
    module = Gate()
    monkeypatch.setattr(replacement, "matches_of", lambda other: iter([reading(other)] * (2 + more)))
    outcome = outcome_of(Candidate(module, ("",), (reading(module), reading(module, "late"))), (MAP,), FIXED)
    assert not outcome.finding.replaced
    assert "read in another way" in str(outcome.finding.reason)


class Decides(Gate):
    def forward(self, x: Tensor, rectified: bool = False) -> Tensor:
        return self.gate(x) if x.abs().max() < 1e9 else x


class Limits(Gate):
    def forward(self, x: Tensor, rectified: bool = False) -> Tensor:
        return self.gate(x).clamp(-1e9, 1e9)


@pytest.mark.parametrize(("kind", "reason"), [(Decides, "decides by a value"), (Limits, "has a clamp")])
def test_a_proof_by_examples_is_none_of_what_examples_miss(kind: type[Gate], reason: str) -> None:
    module = kind()
    outcome = outcome_of(Candidate(module, ("",), (reading(module),)), (MAP,), FIXED)
    assert not outcome.finding.replaced
    assert reason in str(outcome.finding.reason)
    assert outcome.finding.certificate is not None  # which held
    assert outcome.finding.certificate.proven
