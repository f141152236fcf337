"""The export forms of one kind of place against each other: proven, exported, checked, timed against the best."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from deploy_attn.engines.latency.result import Candidate as Side
from deploy_attn.engines.onnxruntime import OnnxRuntimeRunner, Settings
from deploy_attn.engines.pairs import Effort, Paired, paired, warm_up
from deploy_attn.export.arguments import Arguments, Call
from deploy_attn.export.functions.mode import exact_functions
from deploy_attn.export.functions.proof import prove_functions
from deploy_attn.export.functions.rule import Aim
from deploy_attn.export.onnx_from_module import GraphRequest, onnx_from_module
from deploy_attn.export.reference import fp32_errors, reference_cases
from deploy_attn.export.simplify import simplify
from deploy_attn.jetson.errors import DeployAttnError, first_line
from deploy_attn.jetson.parity import Check, Tolerance, checks_of
from deploy_attn.jetson.verdict import failure
from deploy_attn.rewriting.replacement import Candidate, Wanted, outcome_of
from deploy_attn.tuning.decision import decision_of
from deploy_attn.tuning.setting_search import Compare

if TYPE_CHECKING:
    from torch import nn

THREADS = 1  # how many suit the whole is tuned afterwards
_LEVELS = ("all", "extended")  # which of them suits a graph differs from form to form
_PILOT = Effort(0.2, 10, 3, 100)


@dataclass(frozen=True)
class TriedForm:
    """A form at the places of one kind.

    Attributes:
        module: the mechanism, the map and where.
        form: its name, as `cpu`.
        ratio: of the best until then against it: above 1 it is faster. None where there was nothing to time.
        chosen: whether the artifact has it.
        decided: whether it is known to be faster, or not to be.
        error: of the ratio; None where there is none.
    """

    module: str
    form: str
    ratio: Paired | None
    chosen: bool
    reason: str
    decided: bool = True
    error: float | None = None

    def as_dict(self) -> dict[str, Any]:
        return {
            "module": self.module,
            "form": self.form,
            "ratio": None if self.ratio is None else self.ratio.as_dict(),
            "chosen": self.chosen,
            "error": None if self.error is None else round(self.error, 4),
            "decided": self.decided,
            "reason": self.reason,
        }


@dataclass(frozen=True)
class FormPlan:
    """What graphs are made for.

    Attributes:
        family: the engine's, whose forms are shipped.
        request: of the graphs.
        tolerance: that each keeps to.
    """

    family: str
    request: GraphRequest
    tolerance: Tolerance


@dataclass(frozen=True)
class Place:
    """An instance in the float64 reference, and what it is called with."""

    candidate: Candidate
    calls: tuple[Arguments, ...]

    @property
    def names(self) -> list[str]:
        """The forms that it may have."""
        return list(dict.fromkeys(name for match in self.candidate.matches for name in match.forms))

    @property
    def kind(self) -> tuple[str, ...]:
        """Equal for places whose forms differ in the values of weights only."""
        module = self.candidate.module
        parts = [str((path, type(part), _plain(part))) for path, part in module.named_modules()]
        weights = [f"{name} {tuple(value.shape)}" for name, value in module.state_dict().items()]
        return (*parts, *weights, *(str(tuple(tensor.shape)) for tensor in self.calls[0].tensors))

    def form(self, name: str, plan: FormPlan) -> tuple[nn.Module | None, str]:
        """The proven form of this name in float64, or None and why there is none."""
        wanted = Wanted(plan.family, plan.request.dynamic_size, dict.fromkeys(self.candidate.paths, name))
        outcome = outcome_of(self.candidate, self.calls, wanted)
        return outcome.form, outcome.finding.reason or ""


def _plain(module: nn.Module) -> list[tuple[str, Any]]:
    """The attributes of a module that are numbers, texts or tuples of them."""
    return [(name, value) for name, value in vars(module).items() if isinstance(value, (bool, int, float, str, tuple))]


@dataclass(frozen=True)
class _Entrant:
    """A form of a kind's first place as a graph that keeps parity, and the level that suits it."""

    name: str
    title: str
    graph: bytes
    settings: Settings


class _Refused(Exception):
    """A form that cannot enter, and why."""


class Contest:
    """The forms of one kind of place."""

    def __init__(self, places: Sequence[Place], plan: FormPlan, compare: Compare) -> None:
        self._places = places
        self._plan = plan
        self._compare = compare
        module, call = places[0].candidate.module, places[0].calls[0]
        import torch

        self._call = Call.of(module, call.as_type(torch.float32))
        feeds = dict(zip(self._call.names, (tensor.numpy() for tensor in self._call.example.tensors)))
        self._cases = reference_cases(module, {"observed": feeds}, self._call)
        self._errors = fp32_errors(module, self._cases, self._call)
        self.chosen: dict[str, str] = {}

    def run(self) -> list[TriedForm]:
        """Every form of these places with what became of it."""
        shipped = self._plan.family
        try:
            best = self._entrant(shipped)
        except _Refused as refusal:
            told = self._told(shipped, None, f"the shipped choice stands untimed: {refusal}")
            return [replace(told, chosen=True, decided=False)]
        tried = [self._told(shipped, None, f"{best.title}, the shipped choice")]
        seen = {best.graph: shipped}
        for name in self._places[0].names:
            if name == shipped:
                continue
            try:
                entrant = self._entrant(name)
            except _Refused as refusal:
                tried.append(self._told(name, None, str(refusal)))
                continue
            if entrant.graph in seen:
                tried.append(self._told(name, None, f"the same graph as {seen[entrant.graph]}"))
                continue
            seen[entrant.graph] = name
            one = self._against(entrant, best)
            tried.append(one)
            best = entrant if one.chosen else best
        if best.name != shipped:
            self.chosen = {path: best.name for place in self._places for path in place.candidate.paths}
        return [replace(one, chosen=one.form == best.name) for one in tried]

    def _against(self, entrant: _Entrant, best: _Entrant) -> TriedForm:
        with self._side(entrant) as one, self._side(entrant) as twin, self._side(best) as other:
            compared = self._compare(one, twin, other)
        found = decision_of(compared)
        unproven = self._unproven(entrant.name) if found.faster else ""
        told = self._told(entrant.name, compared.pairs, unproven or f"{entrant.title}: {found.reason}")
        chosen = found.faster and not unproven
        return replace(told, chosen=chosen, decided=found.decided, error=found.error)

    def _unproven(self, name: str) -> str:
        """Why a form cannot be had at one of the other places; empty where it can be at all."""
        for place in self._places[1:]:
            form, reason = place.form(name, self._plan)
            if form is None:
                return f"at {place.candidate.paths[0]}: {reason}"
        return ""

    def _told(self, form: str, ratio: Paired | None, reason: str) -> TriedForm:
        first = self._places[0]
        paths = [path or "the network itself" for place in self._places for path in place.candidate.paths]
        where = paths[0] if len(paths) == 1 else f"{paths[0]} and {len(paths) - 1} more"
        shape = "x".join(map(str, first.calls[0].tensors[0].shape))
        return TriedForm(f"{first.candidate.matches[0].name}, {shape}, {where}", form, ratio, False, reason)

    def _entrant(self, name: str) -> _Entrant:
        form, reason = self._places[0].form(name, self._plan)
        if form is None:
            raise _Refused(reason)
        title = type(form).__name__
        try:
            graph = self._graph(form.float())
        except DeployAttnError as error:
            raise _Refused(f"it cannot be exported: {first_line(error)}") from error
        entrant = _Entrant(name, title, graph, Settings(intra_op_threads=THREADS, spinning=False))
        self._check(entrant)
        return replace(entrant, settings=replace(entrant.settings, level=self._better_level(entrant)))

    def _graph(self, form: nn.Module) -> bytes:
        """As an export would have it, with the exact forms of functions."""
        import copy

        import torch

        aim = Aim(self._plan.request.opset, self._plan.request.dynamic_size)
        functions = prove_functions(copy.deepcopy(form).double(), self._call.example.as_type(torch.float64), aim)
        with torch.inference_mode(), exact_functions(functions, aim):
            model = onnx_from_module(form, self._call.example, self._plan.request)
        content: bytes = simplify(model, self._cases[0].inputs, self._plan.request).model.SerializeToString()
        return content

    def _check(self, entrant: _Entrant) -> None:
        """Raises _Refused where the graph does not keep parity."""
        blank = Check(entrant.name, "fp32", "exact", "", "", None, self._plan.tolerance)
        try:
            with self._runner(entrant) as runner:
                checks = checks_of(runner.infer, self._cases, blank, self._errors)
        except Exception as error:  # whatever the engine throws is the reason
            raise _Refused(f"the engine refused it: {first_line(error)}") from error
        failed = next((check for check in checks if not check.passed), None)
        if failed is not None:
            raise _Refused(f"it fails parity: {failure(failed)}")

    def _better_level(self, entrant: _Entrant) -> str:
        """The level at which a form is faster, from a short pilot."""
        sides = [replace(entrant, settings=replace(entrant.settings, level=level)) for level in _LEVELS]
        with self._side(sides[0]) as first, self._side(sides[1]) as second:
            for side in (first, second):
                warm_up(side.call)
            return _LEVELS[paired(first.call, second.call, _PILOT).ratio > 1]

    @contextlib.contextmanager
    def _side(self, entrant: _Entrant) -> Iterator[Side]:
        feeds = self._cases[0].inputs
        with self._runner(entrant) as runner:
            yield Side(
                label=f"form {entrant.name}",
                call=lambda: runner.infer(feeds),
                conditions=runner.conditions(),
                stopwatch=runner.stopwatch(feeds),
            )

    def _runner(self, entrant: _Entrant) -> OnnxRuntimeRunner:
        return OnnxRuntimeRunner(entrant.graph, settings=entrant.settings)
