"""Attention tax: what the attention of a network costs, as written, in export form, and against none at all."""

from __future__ import annotations

import contextlib
import copy
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from deploy_attn.engines.onnxruntime import CPU, CUDA, OnnxRuntimeRunner, Settings
from deploy_attn.engines.pairs import Call, Effort, Paired, paired, warm_up
from deploy_attn.engines.target import load_target
from deploy_attn.export.arguments import Arguments
from deploy_attn.export.copying import copied, with_other_modules
from deploy_attn.export.functions.mode import exact_functions
from deploy_attn.export.functions.proof import prove_functions
from deploy_attn.export.functions.rule import Aim
from deploy_attn.export.onnx_from_module import GraphRequest, onnx_from_module
from deploy_attn.jetson.errors import BadRequest
from deploy_attn.rewriting.evidence import qualified_name
from deploy_attn.rewriting.observe import observe
from deploy_attn.rewriting.prepare import prepared
from deploy_attn.rewriting.replacement import Wanted
from deploy_attn.rewriting.rewrite import rewrite_settled
from deploy_attn.rewriting.semantics import settled

if TYPE_CHECKING:
    import onnx
    from torch import nn

    from deploy_attn.rewriting.finding import Finding

_PROVIDERS = MappingProxyType({"onnxruntime": CPU, "onnxruntime-cuda": CUDA})


@dataclass(frozen=True)
class TaxOptions:
    """How to measure.

    Attributes:
        engine: `onnxruntime` or `onnxruntime-cuda`.
        threads: of the engine, for one operator.
        seconds: about so long for each comparison; there are two for each block and for the whole.
        target: whose opset the graphs are of.
    """

    engine: str = "onnxruntime"
    threads: int = 1
    seconds: float = 1.0
    target: str = "onnxruntime-cpu"

    def __post_init__(self) -> None:
        if self.engine not in _PROVIDERS:
            raise BadRequest(
                f"The tax is measured in {' or '.join(_PROVIDERS)}, not in {self.engine}: an engine that is built "
                "first would need three builds for each block."
            )
        if self.threads < 1 or not 0 < self.seconds <= 3600:
            raise BadRequest(
                f"Asked for {self.threads} threads and {self.seconds:g} seconds a comparison; possible are 1 thread "
                "or more, and more than 0 up to 3600 seconds."
            )


@dataclass(frozen=True)
class Cost:
    """One place, timed in its three versions.

    `gain` is written against rewritten and `tax` rewritten against removed, both
    pair by pair; a version that cannot be is None, and `note` says why.
    """

    name: str
    class_name: str
    recognised_as: str
    gain: Paired | None
    tax: Paired | None
    note: str | None = None

    @property
    def milliseconds(self) -> dict[str, float | None]:
        """Medians of the three versions, each of one comparison; compare by the ratios, not by these."""
        written = None if self.gain is None else self.gain.first_s
        rewritten = None if self.gain is None else self.gain.second_s
        removed = None if self.tax is None else self.tax.second_s
        times = {"written": written, "rewritten": rewritten, "removed": removed}
        return {version: None if one is None else 1e3 * statistics.median(one) for version, one in times.items()}

    @property
    def share(self) -> float | None:
        """Which part of the rewritten version's time goes away with the attention."""
        return None if self.tax is None else 1 - 1 / self.tax.ratio

    def as_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "class": self.class_name,
            "recognised_as": self.recognised_as,
            "ms": self.milliseconds,
            "written_over_rewritten": None if self.gain is None else self.gain.as_dict(),
            "rewritten_over_removed": None if self.tax is None else self.tax.as_dict(),
            "share": self.share,
            "note": self.note,
        }


@dataclass(frozen=True)
class TaxReport:
    """What each attention block costs by itself, and what all of them cost the network."""

    name: str
    total: Cost
    blocks: tuple[Cost, ...]
    control: Paired
    left_alone: tuple[Finding, ...]
    conditions: Mapping[str, Any]

    @property
    def passed(self) -> bool:
        """A measurement is no test."""
        return True

    def as_dict(self) -> dict[str, Any]:
        return {
            "passed": self.passed,
            "name": self.name,
            "total": self.total.as_dict(),
            "blocks": [block.as_dict() for block in self.blocks],
            "control": self.control.as_dict(),
            "left_alone": [finding.as_dict() for finding in self.left_alone],
            "conditions": dict(self.conditions),
        }


def attention_tax(
    network: nn.Module,
    example: object,
    options: TaxOptions | None = None,
    name: str = "network",
    semantics: str | None = None,
) -> TaxReport:
    """Measures a network in onnxruntime with its attention as written, in export form, and removed.

    A block is timed by itself, on what the network feeds it, because in its
    network a small one is lost in the noise of the rest; the total is timed in
    the network. Removed means that the map goes through as it is, and a gate is
    one everywhere. The control is the rewritten network against a second
    session of itself, whose ratio would be 1 on a quiet machine.

    Args:
        semantics: what writes in place mean where eager mode and exports disagree, `shift` or `smear`.

    Raises:
        BadRequest: no attention was found, a meaning must be chosen, or a graph cannot be exported.
    """
    import torch

    bench = _Bench(options or TaxOptions())
    arguments = Arguments.of(example).as_type(torch.float32)
    network, _ = settled(network, arguments, semantics)
    rewritten = rewrite_settled(prepared(network), arguments.as_type(torch.float64), Wanted(bench.family, False))
    replaced = [finding for finding in rewritten.findings if finding.replaced]
    if not replaced:
        raise BadRequest(f"{name} has no attention that was found and proven, so there is no tax to measure.")
    written = copied(network).float().eval()
    export_forms = rewritten.model.float()
    places = _places(written, export_forms, replaced, arguments)
    blocks = tuple(bench.cost(place) for place in places)
    without = _without(export_forms, places)
    total = _Place(name, qualified_name(network), "network", arguments, written, export_forms, without)
    left = tuple(finding for finding in rewritten.findings if not finding.replaced)
    conditions = {**bench.conditions(), "semantics": semantics}
    return TaxReport(name, bench.cost(total), blocks, bench.control(total), left, conditions)


@dataclass(frozen=True)
class _Place:
    """Three versions of one computation, and what they are called with; `removed` is None where nothing can be."""

    name: str
    class_name: str
    recognised_as: str
    arguments: Arguments
    written: nn.Module
    rewritten: nn.Module
    removed: nn.Module | None


def _places(
    written: nn.Module, rewritten: nn.Module, findings: Sequence[Finding], arguments: Arguments
) -> list[_Place]:
    """Every replaced block with its first call."""
    modules = [written.get_submodule(finding.paths[0]) for finding in findings]
    calls = observe(written, modules, arguments).calls
    return [
        _Place(
            name=", ".join(finding.paths) or "the network itself",
            class_name=finding.class_name,
            recognised_as=finding.recognised_as,
            arguments=calls[module][0],
            written=module,
            rewritten=rewritten.get_submodule(finding.paths[0]),
            removed=_removed(module, calls[module][0]),
        )
        for finding, module in zip(findings, modules)
    ]


def _removed(module: nn.Module, call: Arguments) -> nn.Module | None:
    """What stands where the attention was; None where its result is neither the map's shape nor a gate's."""
    import torch
    from torch import nn

    from deploy_attn.modules.removed import Ones

    with torch.inference_mode():
        result = call.call(module)
    given = call.tensors[0]
    if not isinstance(result, torch.Tensor):
        return None
    if result.shape == given.shape:
        return nn.Identity()
    gates = result.dim() == given.dim() and all(part in (1, whole) for part, whole in zip(result.shape, given.shape))
    return Ones(result) if gates else None


def _without(network: nn.Module, places: Sequence[_Place]) -> nn.Module | None:
    """The rewritten network without its attention; None where none of it can be taken out."""
    removed = {place.rewritten: place.removed for place in places if place.removed is not None}
    return with_other_modules(network, removed) if removed else None


class _Bench:
    """Times places in onnxruntime under one set of options."""

    def __init__(self, options: TaxOptions) -> None:
        self._effort = Effort(options.seconds)
        self._settings = Settings(_PROVIDERS[options.engine], options.threads, 1)
        target = load_target(options.target)
        self._request = GraphRequest(target.opset, target.ir_version)
        self._target = target.name
        self.family = target.family

    def cost(self, place: _Place) -> Cost:
        """A place in its three versions; what cannot be exported as it is written has no gain, and says why."""
        from deploy_attn.modules.removed import Ones

        notes = {}
        versions = {"as written": (place.written, place.rewritten), "removed": (place.rewritten, place.removed)}
        found: dict[str, Paired | None] = {}
        for name, (first, second) in versions.items():
            found[name], notes[name] = None, "gives another shape than it takes, so that nothing can stand in its place"
            if isinstance(second, Ones):
                notes[name] = "a gate of ones is a constant, which takes no time by itself"
            elif second is not None:
                with _said(notes, name):
                    found[name] = self._against(place, first, second)
        missing = [f"{name}: {notes[name]}" for name, pair in found.items() if pair is None]
        what = (place.name, place.class_name, place.recognised_as)
        return Cost(*what, found["as written"], found["removed"], "; ".join(missing) or None)

    def control(self, place: _Place) -> Paired:
        """A version against itself."""
        return self._against(place, place.rewritten, place.rewritten)

    def conditions(self) -> dict[str, Any]:
        """What the figures depend on. JSON values only."""
        return {
            **OnnxRuntimeRunner(b"", settings=self._settings).conditions(),
            "target": self._target,
            "opset": self._request.opset,
            "seconds_per_comparison": self._effort.seconds,
        }

    def _against(self, place: _Place, first: nn.Module, second: nn.Module) -> Paired:
        running = [self._running(module, place.arguments, module is place.written) for module in (first, second)]
        with running[0] as one, running[1] as other:
            for call in (one, other):
                warm_up(call)
            return paired(one, other, self._effort)

    def _graph(self, module: nn.Module, arguments: Arguments) -> onnx.ModelProto:
        """The graph that an export gives: with the exact forms of functions as well."""
        import torch

        aim = Aim(self._request.opset)
        functions = prove_functions(copy.deepcopy(module).double(), arguments.as_type(torch.float64), aim)
        with exact_functions(functions, aim):
            return onnx_from_module(module, arguments, self._request)

    @contextlib.contextmanager
    def _running(self, module: nn.Module, arguments: Arguments, plain: bool) -> Iterator[Call]:
        graph = onnx_from_module(module, arguments, self._request) if plain else self._graph(module, arguments)
        names = [value.name for value in graph.graph.input]
        feeds = dict(zip(names, (tensor.numpy() for tensor in arguments.tensors)))
        with OnnxRuntimeRunner(graph.SerializeToString(), settings=self._settings) as runner:
            yield lambda: runner.infer(feeds)


@contextlib.contextmanager
def _said(notes: dict[str, str], name: str) -> Iterator[None]:
    """A version that cannot be exported is a note, and not the end of the others."""
    try:
        yield
    except BadRequest as error:
        notes[name] = str(error).splitlines()[0]
