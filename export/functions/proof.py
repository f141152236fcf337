"""A run of a network in which every call that has a rule is computed both ways, in float64."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from deploy_attn.export.arguments import Arguments, tensors_in
from deploy_attn.export.certificate import Trial, compare_with
from deploy_attn.export.functions.finding import FunctionFinding
from deploy_attn.export.functions.memory import Memory, is_same_view, shares_memory
from deploy_attn.export.functions.mode import handled_by
from deploy_attn.export.functions.rule import Aim, FunctionCall, NoForm, Rule
from deploy_attn.export.functions.table import rules
from deploy_attn.jetson.errors import first_line

if TYPE_CHECKING:
    from torch import Tensor, nn

    Function = Callable[..., Any]
    Rules = Mapping[Function, Rule]

_SEED = 20180717


def prove_functions(
    network: nn.Module, arguments: Arguments, aim: Aim, table: Rules | None = None
) -> tuple[FunctionFinding, ...]:
    """Runs a network once and proves the exact form of every call that has one.

    A call is proven on the values that the network gives it, at every place
    where an equal one is made, and once on noise. The network's own functions
    compute what goes on to its next layers.

    Args:
        network: in float64 and eval mode; it is left as it was.
        arguments: in float64.
        aim: the opset of the file that is to be written, and whether its size stays open.
        table: the rules; by default all.

    Returns:
        A finding for each call that is replaced, is not proven, or has no form;
        a call that the exporter writes well is none. What the network raises goes through.
    """
    import torch

    weights = frozenset(map(id, (*network.parameters(), *network.buffers())))
    prover = _Prover(aim, rules() if table is None else table, weights)
    with torch.inference_mode():
        fresh = arguments.mapped(torch.clone)  # before calls are handled: what is given was made by nobody
        with _followed(network, prover.inside), handled_by(prover.handle):
            network(*fresh.positional, **fresh.named)
    return tuple(prover.findings())


class _Equal:
    """Equal calls: where they are, and what was tried."""

    def __init__(self) -> None:
        self.paths: dict[str, None] = {}
        self.count = 0
        self.reason: str | None = None
        self.trials: list[Trial] = []


class _AsGood(Exception):
    """A form says that the function itself is written well."""


@dataclass(frozen=True)
class _Tried:
    """A call, what the function returned for it, and both ways to compute it again."""

    call: FunctionCall
    returned: Any
    function: Callable[[FunctionCall], Any]
    form: Callable[[FunctionCall], Any]

    def in_float64(self) -> _Tried:
        """The same; computed again where some tensors of real numbers are of another type."""
        import torch

        if all(x.dtype == torch.float64 for x in self.call.tensors if x.is_floating_point()):
            return self
        wider = [x.double() if x.is_floating_point() else x for x in self.call.tensors]
        call = self.call.with_tensors(wider)
        return replace(self, call=call, returned=self.function(call))

    def trial(self, name: str) -> Trial:
        """On the call's own tensors."""
        tensors = tuple(self.call.tensors)
        wanted = list(tensors_in(self.returned))
        return compare_with(name, self._module(self.function), self._module(self.form), Arguments(tensors, {}), wanted)

    def trial_on_noise(self, kept: frozenset[int]) -> Trial:
        """On normal noise in place of the tensors of real numbers, but for those with these ids."""
        import torch

        generator = torch.Generator().manual_seed(_SEED)

        def noise(x: Tensor) -> Tensor:
            replaced = x.is_floating_point() and id(x) not in kept
            return torch.randn(x.shape, generator=generator, dtype=x.dtype) if replaced else x

        call = self.call.with_tensors([noise(x) for x in self.call.tensors])
        returned = self.function(call.with_tensors([x.clone() for x in call.tensors]))
        return replace(self, call=call, returned=returned).trial("normal noise")

    def _module(self, compute: Callable[[FunctionCall], Any]) -> nn.Module:
        """As a module of the call's tensors."""
        from torch import nn

        call = self.call

        class _Computed(nn.Module):
            def forward(self, *tensors: Tensor) -> list[Tensor]:
                return list(tensors_in(compute(call.with_tensors(tensors))))

        return _Computed()


class _Prover:
    """Answers every call with what the function itself returns, and tries its form beside it."""

    def __init__(self, aim: Aim, table: Rules, weights: frozenset[int]) -> None:
        self.inside = [""]  # the paths of the modules that are running, the innermost last
        self._aim = aim
        self._table = table
        self._weights = weights  # by id
        self._memory = Memory()
        self._equal: dict[str, _Equal] = {}

    def handle(self, function: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        rule = self._table.get(function)
        call = None if rule is None else rule.call_of(args, kwargs)
        if rule is None or call is None:
            returned = function(*args, **kwargs)
        elif rule.writes:
            self._write(function, rule, call)
            returned = None
        else:
            returned = function(*args, **kwargs)
            tried = _Tried(call, returned, lambda own: function(*own.args, **own.kwargs), self._form(rule))
            self._try(rule.described(call), tried.in_float64())
        self._memory.note((args, kwargs), returned)
        return returned

    def findings(self) -> Iterator[FunctionFinding]:
        for call, seen in self._equal.items():
            trials = tuple(seen.trials)
            yield FunctionFinding(call, tuple(seen.paths), seen.count, seen.reason is None, seen.reason, trials)

    def _write(self, function: Function, rule: Rule, call: FunctionCall) -> None:
        """A write, tried on copies of what it starts from."""
        target, value = call.first, call.settings["value"]
        if is_same_view(target[call.settings["index"]], value):
            return  # the second half of `y[index] += x`, which changes nothing
        if shares_memory(target, value):
            refusal: str | None = "what it reads and what it writes share memory; clone what is read"
        else:
            refusal = None if self._memory.is_alone(target) else "other tensors look at the memory that it writes"
        before = call.with_tensors([x.clone() for x in call.tensors])
        function(*call.args, **call.kwargs)

        def held_after(own: FunctionCall) -> Tensor:
            function(*own.args, **own.kwargs)
            held: Tensor = own.first
            return held

        self._try(rule.described(call), _Tried(before, call.first.clone(), held_after, self._form(rule)), refusal)

    def _form(self, rule: Rule) -> Callable[[FunctionCall], Any]:
        def form(call: FunctionCall) -> Any:
            answer = rule.answer(self._aim, call)
            if answer is None:
                raise _AsGood
            return answer

        return form

    def _try(self, described: str, tried: _Tried, refusal: str | None = None) -> None:
        """One more call of its kind: its form against the function, unless its kind was found to have none."""
        seen = self._equal.get(described, _Equal())
        if seen.reason is None:
            try:
                self._add_trials(seen, tried)
                seen.reason = refusal
            except _AsGood:
                return
            except NoForm as error:
                seen.reason = refusal or str(error)
            except Exception as error:  # a call that a form was not made for may raise anything in it
                seen.reason = f"its exact form raises {type(error).__name__}: {first_line(error)}"
        seen.count += 1
        seen.paths[self.inside[-1]] = None
        self._equal[described] = seen

    def _add_trials(self, seen: _Equal, tried: _Tried) -> None:
        trials = [tried.trial(f"the network's own, call {seen.count}")]
        trials += [] if seen.trials else [tried.trial_on_noise(self._weights)]
        seen.trials += trials
        for trial in trials:
            if not trial.passed:
                raise NoForm(f"its form differs by {trial.error:.1e} on {trial.inputs} (bound {trial.bound:.1e})")


@contextlib.contextmanager
def _followed(network: nn.Module, inside: list[str]) -> Iterator[None]:
    """Keeps the paths of the running modules in a list."""
    import torch

    def entered(path: str) -> Callable[..., None]:
        return lambda *_: inside.append(path)

    def left(*_: Any) -> None:
        inside.pop()

    hooks = []
    for path, module in network.named_modules():
        if not isinstance(module, torch.jit.ScriptModule):
            hooks.append(module.register_forward_pre_hook(entered(path)))
            hooks.append(module.register_forward_hook(left, always_call=True))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
