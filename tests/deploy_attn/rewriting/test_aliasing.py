"""Writes in place that eager mode, gradients and exporters read in different ways: found, chosen, exported."""

from __future__ import annotations

import inspect
import warnings
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.func import functionalize
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from deploy_attn import create
from deploy_attn.export.arguments import Arguments
from deploy_attn.export.onnx_from_module import GraphRequest, onnx_from_module
from deploy_attn.jetson.errors import BadRequest
from deploy_attn.rewriting.aliasing import AliasingFinding, find_aliasing
from deploy_attn.rewriting.memory import NotFollowed, Place, order_matters, read_in_order, written
from deploy_attn.rewriting.rewrite import rewrite
from deploy_attn.rewriting.semantics import released, settled, with_semantics
from tests.deploy_attn.rewriting.stem import randomised

C = 8


def shift_quarters(maps: Tensor, first: int, second: int) -> Tensor:
    """In place: two quarters of the channels along one axis of `b h w c`, two along another, each way once."""
    for index, quarter in enumerate(maps.chunk(4, 3)):
        axis = (first, second)[index // 2]
        ahead = quarter.narrow(axis, 1, quarter.shape[axis] - 1)
        behind = quarter.narrow(axis, 0, quarter.shape[axis] - 1)
        if index % 2 == 0:
            ahead[:] = behind
        else:
            behind[:] = ahead
    return maps


class Mixer(nn.Module):
    """S2-MLPv2 by its formula, with the keys of its copies, and slices assigned in place."""

    def __init__(self, channels: int = C) -> None:
        super().__init__()
        self.channels = channels
        self.mlp1 = nn.Linear(channels, 3 * channels)
        self.mlp2 = nn.Linear(channels, channels)
        self.split_attention = nn.ModuleDict(
            {
                "mlp1": nn.Linear(channels, channels, bias=False),
                "mlp2": nn.Linear(channels, 3 * channels, bias=False),
            }
        )

    def forward(self, x: Tensor) -> Tensor:
        c = self.channels
        wide = self.mlp1(x.permute(0, 2, 3, 1))
        one = self.moved(wide[..., :c], 1, 2)
        other = self.moved(wide[..., c : 2 * c], 2, 1)
        stack = torch.stack([one, other, wide[..., 2 * c :]], 1)
        logits = self.split_attention["mlp2"](functional.gelu(self.split_attention["mlp1"](stack.sum((1, 2, 3)))))
        weights = logits.view(-1, 3, 1, 1, c).softmax(1)
        mixed: Tensor = self.mlp2((weights * stack).sum(1)).permute(0, 3, 1, 2)
        return mixed

    def moved(self, x: Tensor, first: int, second: int) -> Tensor:
        quarter = self.channels // 4
        for index in range(4):
            part = x[..., index * quarter : (index + 1) * quarter].transpose(1, (first, second)[index // 2])
            if index % 2 == 0:
                part[:, 1:] = part[:, :-1]
            else:
                part[:, :-1] = part[:, 1:]
        return x


class ShiftBlock(nn.Module):
    """S2-MLPv1: one shift between two linear layers, and a residual."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.after = nn.Linear(C, C), nn.Linear(C, C)

    def forward(self, x: Tensor) -> Tensor:
        moved = shift_quarters(self.before(x.permute(0, 2, 3, 1)), 1, 2)
        returned: Tensor = x + self.after(functional.gelu(moved)).permute(0, 3, 1, 2)
        return returned


class Pyramid(nn.Module):
    """As EPSA has it: every group of channels goes through a convolution of its own, back into a view of the input."""

    def __init__(self, groups: int = 4) -> None:
        super().__init__()
        self.groups = groups
        self.convs = nn.ModuleList(
            nn.Conv2d(C // groups, C // groups, 2 * index + 1, padding=index) for index in range(groups)
        )

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.size()
        parts = x.view(batch, self.groups, channels // self.groups, height, width)
        for index, conv in enumerate(self.convs):
            parts[:, index] = conv(parts[:, index])
        weights = parts.mean((3, 4), keepdim=True).softmax(1)
        return (parts * weights).view(batch, -1, height, width)


class Diagonal(nn.Module):
    """Both axes of a map at once, and by two places."""

    def forward(self, x: Tensor) -> Tensor:
        x = x.permute(0, 2, 3, 1).contiguous()
        x[:, 2:, 2:] = x[:, :-2, :-2]
        return x.permute(0, 3, 1, 2)


class ChannelsAndBatch(nn.Module):
    """Halves of the channels under another shape; each half is read again under its old name."""

    def forward(self, x: Tensor) -> Tensor:
        first, second = x.chunk(2, 1)
        rows = first.flatten(2)
        rows[:, 1:, 1:].copy_(rows[:, :-1, 1:])
        torch.mul(second, 2, out=second)
        return x + torch.cat([second, first], 1)


class Residual(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        kept: Tensor = x + self.inner(x)
        return kept


def network_of(block: nn.Module) -> nn.Module:
    layers = OrderedDict(stem=nn.Conv2d(3, C, 3, padding=1), block=block, head=nn.Conv2d(C, 4, 1))
    return randomised(nn.Sequential(layers)).double().requires_grad_(False)


def photo(height: int = 7, width: int = 9, dtype: torch.dtype = torch.float64, batch: int = 2) -> Tensor:
    return torch.randn((batch, 3, height, width), generator=torch.Generator().manual_seed(1), dtype=dtype)


def found_in(network: nn.Module, x: Tensor) -> tuple[AliasingFinding, ...]:
    return find_aliasing(network, Arguments.of(x))


def apart(value: Tensor, wanted: Tensor) -> float:
    return float((value.detach() - wanted.detach()).norm() / wanted.detach().norm())


@pytest.fixture
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


OVERLAPPING = {"s2": Mixer, "s2v1": ShiftBlock, "diagonal": Diagonal, "halves": ChannelsAndBatch}
SIZES = [(7, 7), (14, 12), (56, 56)]
CHOICES = ["shift", "smear"]


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", OVERLAPPING)
def test_shift_is_the_functionalised_network_and_smear_is_one_thread(
    name: str, size: tuple[int, int], dtype: torch.dtype
) -> None:
    network, x = network_of(OVERLAPPING[name]()).to(dtype), photo(*size, dtype)
    eager = network(x)
    (finding,) = found_in(network, x)
    assert (finding.path, finding.kind, finding.asks) == ("block", "overlapping copy", True)
    bound = 1e-12 if dtype == torch.float64 else 1e-5
    assert apart(with_semantics(network, [finding], "shift")(x), functionalize(network)(x)) <= bound
    assert apart(with_semantics(network, [finding], "smear")(x), eager) <= bound
    assert finding.smear_error <= bound
    assert finding.difference > 0.05
    assert finding.network_difference == pytest.approx(apart(eager, functionalize(network)(x)), rel=1e-3)


@pytest.mark.parametrize("semantics", CHOICES)
def test_both_meanings_of_an_s2_are_those_of_the_catalogue(semantics: str) -> None:
    mixer = randomised(Mixer()).double().requires_grad_(False)
    reference = create("s2", channels=C, semantics=semantics).double().eval().requires_grad_(False)
    reference.load_state_dict(mixer.state_dict())
    x = torch.randn(2, C, 7, 9, dtype=torch.float64)
    assert apart(settled(mixer, Arguments.of(x), semantics)[0](x), reference(x)) <= 1e-12


@pytest.mark.parametrize("semantics", CHOICES)
def test_no_meaning_depends_on_the_number_of_threads(semantics: str) -> None:
    network = network_of(ShiftBlock()).float()
    x = photo(90, 100, torch.float32)  # copies of more elements than torch gives to one thread
    threads = torch.get_num_threads()
    results, differences = [], []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            twin, (finding,) = settled(network, Arguments.of(x), semantics)
            differences.append(finding.difference)
            results += [twin(x) for _ in range(3)]
    finally:
        torch.set_num_threads(threads)
    assert all(apart(result, results[0]) <= 1e-6 for result in results)
    assert differences[0] == pytest.approx(differences[1], rel=1e-9)


@pytest.mark.parametrize("traced", [1, 2])
@pytest.mark.parametrize("semantics", CHOICES)
@pytest.mark.parametrize("block", [Mixer(), ShiftBlock(), Diagonal(), ChannelsAndBatch(), Residual(Pyramid())])
def test_an_export_computes_the_chosen_meaning_of_any_batch(block: nn.Module, semantics: str, traced: int) -> None:
    network, x = network_of(block).float(), photo(dtype=torch.float32, batch=traced)
    twin, findings = settled(network, Arguments.of(x), semantics)
    assert findings[0].asks
    model = onnx_from_module(twin, x, GraphRequest(opset=13, ir_version=7, dynamic_batch=True))
    assert not {node.op_type for node in model.graph.node} & {"ScatterND", "ScatterElements", "Loop", "Expand"}
    assert all("/block" in node.name for node in model.graph.node if node.op_type == "Concat")
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    for batch in (x, photo(dtype=torch.float32, batch=5)):
        (result,) = session.run(None, {"input": batch.numpy()})
        assert apart(torch.from_numpy(np.array(result)), twin(batch)) <= 1e-5


@pytest.mark.parametrize("semantics", CHOICES)
def test_an_s2_is_replaced_by_the_form_of_the_chosen_meaning(semantics: str) -> None:
    network, x = network_of(Mixer()), photo(batch=1)
    twin, _ = settled(network, Arguments.of(x), semantics)
    result = rewrite(twin, x)
    (finding,) = (finding for finding in result.findings if finding.paths == ("block",))
    assert finding.replaced, finding.reason
    assert f"semantics={semantics}" in finding.evidence[-1]
    assert apart(result.model(x), twin(x)) <= 1e-11


def test_a_write_into_the_input_asks_where_the_network_reads_it_again() -> None:
    network, x = network_of(Residual(Pyramid())), photo()
    eager = network(x)
    (finding,) = found_in(network, x)
    assert (finding.path, finding.kind, finding.asks) == ("block.inner", "writes into its input", True)
    assert finding.class_name.endswith(".Pyramid")
    assert len(finding.lines) == 1
    assert "parts[:, index] = conv(parts[:, index])" in finding.lines[0]
    assert apart(with_semantics(network, [finding], "smear")(x), eager) <= 1e-12
    stem, head = network[0], network[2]  # type: ignore[index]
    body = stem(x)
    untouched = head(body + network[1].inner(body.clone()))  # type: ignore[index]
    assert apart(with_semantics(network, [finding], "shift")(x), untouched) <= 1e-12
    assert finding.network_difference == pytest.approx(apart(untouched, eager), rel=1e-6)
    assert found_in(network_of(Pyramid()), x) == ()


@pytest.mark.parametrize("semantics", CHOICES)
@pytest.mark.parametrize("block", [Mixer(), Diagonal(), ChannelsAndBatch(), Residual(Pyramid())])
def test_a_chosen_meaning_decides_nothing_by_values_and_writes_nothing(block: nn.Module, semantics: str) -> None:
    twin, _ = settled(network_of(block), Arguments.of(photo()), semantics)
    seen: list[str] = []

    class Seen(TorchDispatchMode):
        def __torch_dispatch__(self, function: Any, types: object, args: Any = (), kwargs: Any = None) -> Any:
            seen.append(function._schema.name)
            return function(*args, **(kwargs or {}))

    with Seen():  # type: ignore[no-untyped-call]  # torch does not annotate it
        twin(photo())
    assert "aten::convolution" in seen
    assert not {"aten::_local_scalar_dense", "aten::equal", "aten::nonzero", "aten::copy_", "aten::arange"} & set(seen)


class Doubles(nn.Module):
    """Through another name of its input, which it gives back itself."""

    def forward(self, x: Tensor) -> Tensor:
        rows = x.flatten(1)
        rows *= 2
        return x


def test_a_write_that_only_exporters_lose_is_kept_without_a_question() -> None:
    network, x = network_of(Doubles()), photo()
    (finding,) = found_in(network, x)
    assert (finding.kind, finding.asks) == ("writes through a view", False)
    twin, _ = settled(network, Arguments.of(x), None)
    assert apart(twin(x), network(x)) <= 1e-12
    model = onnx_from_module(twin.float(), x.float(), GraphRequest(opset=13, ir_version=7))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (result,) = session.run(None, {"input": x.float().numpy()})
    assert apart(torch.from_numpy(np.array(result)), network.double()(x)) <= 1e-5


class Calls(nn.Module):
    """A forward from outside."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Any:
        return self.function(x)


def masked(x: Tensor) -> Tensor:
    x[:, :2] = 0
    return x


def filled(x: Tensor) -> Tensor:
    out = torch.zeros_like(x)
    out[:, :, 1:] = x[:, :, :-1]
    out[:, :, 0] += x[:, :, 0]
    return out


def gated(x: Tensor) -> Tensor:
    x *= x.mean((2, 3), keepdim=True).sigmoid_()
    return x


def swapped_halves(x: Tensor) -> Tensor:
    x[:, :4] = x[:, 4:]
    return x


def from_one_row(x: Tensor) -> Tensor:
    x[:, :, :] = x[:, :, :1]
    return x


def from_a_clone(x: Tensor) -> Tensor:
    x = x.permute(0, 2, 3, 1)
    x[:, 1:] = x[:, :-1].clone()
    return x


@pytest.mark.parametrize(
    "block",
    [
        nn.Sequential(nn.ReLU(inplace=True), nn.Hardswish(inplace=True), nn.SiLU(inplace=True)),
        Calls(masked),
        Calls(filled),
        Calls(gated),
        Calls(swapped_halves),
        Calls(from_one_row),
        Calls(lambda x: x.add_(x)),
        Calls(lambda x: x.view(x.shape[0], -1).relu_().view(x.shape)),
        Residual(nn.ReLU(inplace=True)),
        Residual(Calls(gated)),
        Residual(Calls(masked)),
    ],
)
def test_what_all_read_alike_is_not_reported(block: nn.Module) -> None:
    assert found_in(network_of(block), photo()) == ()


def test_a_copy_from_a_clone_needs_no_choice() -> None:
    twin, findings = settled(
        network := nn.Sequential(nn.Conv2d(3, C, 1), Calls(from_a_clone)).double(), Arguments.of(photo()), None
    )
    assert not any(finding.asks for finding in findings)
    assert apart(twin(photo()), network(photo())) <= 1e-12


def test_a_copy_that_one_thread_gets_right_needs_no_choice_and_loses_its_race() -> None:
    def back(x: Tensor) -> Tensor:
        x[:, :, :-1] = x[:, :, 1:]
        return x

    network, x = network_of(Calls(back)), photo()
    (finding,) = found_in(network, x)
    assert (finding.kind, finding.asks, finding.difference) == ("overlapping copy", False, 0.0)
    twin = with_semantics(network, [finding], None)
    assert apart(twin(x), functionalize(network)(x)) <= 1e-12
    assert found_in(twin, x) == ()


def test_gradients_follow_the_shift_whatever_was_computed() -> None:
    module, x = Diagonal(), torch.randn(1, 3, 6, 7, dtype=torch.float64)
    factors = torch.randn(1, 3, 6, 7, dtype=torch.float64)
    twin, _ = settled(module, Arguments.of(x), "shift")
    gradients = [
        torch.autograd.grad((network(leaf * 1) * factors).sum(), leaf)[0]
        for network in (module, twin)
        for leaf in [x.clone().requires_grad_()]
    ]
    assert torch.equal(*gradients)
    assert not torch.equal(module(x), twin(x))


def test_nothing_is_compared_before_a_meaning_is_chosen() -> None:
    network, x = network_of(Mixer()), photo()
    with pytest.raises(BadRequest) as refused:
        settled(network, Arguments.of(x), None)
    for said in ("block (", "Mixer)", "test_aliasing.py:", "part[:, 1:] = part[:, :-1]", "--semantics shift", "smear"):
        assert said in str(refused.value)
    with pytest.raises(BadRequest, match="no semantics 'shfit'; it is shift or smear"):
        settled(network, Arguments.of(x), "shfit")


def test_the_report_is_plain_data() -> None:
    (finding,) = found_in(network_of(ShiftBlock()), photo())
    report = finding.as_dict()
    assert report["path"] == "block"
    assert report["lines"] == list(finding.lines)
    assert report["difference"] > 0
    assert "RMS" in report["message"]


def test_the_callers_network_keeps_its_forward_its_mode_and_its_weights() -> None:
    network, x = network_of(Mixer()).train(), photo()
    eager, before = network(x), {key: value.clone() for key, value in network.state_dict().items()}
    twin, _ = settled(network, Arguments.of(x), "shift")
    assert apart(network(x), eager) <= 1e-12
    assert network.training
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert "forward" not in vars(network)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())
    block = twin.get_submodule("block")
    assert type(block) is Mixer
    assert inspect.signature(block.forward) == inspect.signature(Mixer().forward)
    assert list(twin.state_dict()) == list(before)


def test_a_network_without_what_was_found_runs_by_itself_again() -> None:
    twin, _ = settled(network_of(Mixer()), Arguments.of(photo()), "shift")
    assert all("forward" in vars(released(twin).get_submodule(path)) for path in ("", "block"))
    twin.block = nn.Identity()
    assert "_Followed" not in type(vars(released(twin)).get("forward")).__name__


class TwoInputs(nn.Module):
    """Several inputs and outputs in a dict, and a shared module that writes into its input."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = Pyramid()
        self.again = self.mix

    def forward(self, x: Tensor, *, side: Tensor) -> dict[str, Any]:
        x, side = x.relu(), side.relu()
        first = self.mix(x)
        return {"sum": x + first, "more": (self.again(side), side)}


@pytest.mark.parametrize("semantics", CHOICES)
def test_inputs_by_name_and_outputs_in_a_nest_are_served(semantics: str) -> None:
    network = randomised(TwoInputs()).double()
    example = Arguments((torch.randn(1, C, 4, 5).double(),), {"side": torch.randn(1, C, 4, 5).double()})
    twin, findings = settled(network, example, semantics)
    assert [finding.path for finding in findings] == ["mix"]
    result, eager = example.call(twin), example.call(network)
    assert list(result) == ["sum", "more"]
    same = apart(result["sum"], eager["sum"]) <= 1e-12 and apart(result["more"][1], eager["more"][1]) <= 1e-12
    assert same == (semantics == "smear")
    assert apart(result["more"][0], eager["more"][0]) <= 1e-12


class OverTheBatch(nn.Module):
    """Attention over positions, whose softmax nobody told the axis."""

    def forward(self, x: Tensor) -> Tensor:
        rows = x.flatten(2)
        return (functional.softmax(rows) * rows).view_as(x)


def test_a_softmax_over_the_batch_is_reported_and_asks_nothing() -> None:
    network, x = network_of(OverTheBatch()), photo()
    (finding,) = found_in(network, x)
    assert (finding.path, finding.kind, finding.asks) == ("block", "softmax over the batch", False)
    assert "functional.softmax(rows)" in finding.lines[0]
    assert finding.network_difference > 0.05
    assert settled(network, Arguments.of(x), None)[0] is network


@pytest.mark.parametrize(
    "function",
    [
        lambda x: functional.softmax(x.flatten(2), dim=0),
        lambda x: torch.stack([x, x + 1]).softmax(0).sum(0),
        lambda x: functional.softmax(x),
        lambda x: functional.softmax(x.flatten(2), -1),
    ],
)
def test_a_softmax_along_a_named_axis_is_not_reported(function: Any) -> None:
    assert found_in(nn.Sequential(nn.Conv2d(3, C, 1), Calls(function)).double(), photo()) == ()


def test_a_sum_over_what_it_overwrites_has_one_meaning_only() -> None:
    def running(x: Tensor) -> Tensor:
        x[:, :, 1:] += x[:, :, :-1]
        return x

    network, x = network_of(Calls(running)), photo()
    (finding,) = found_in(network, x)
    assert finding.asks
    assert "There is no smear" in finding.message
    assert finding.as_dict()["smear_error"] is None
    assert apart(with_semantics(network, [finding], "shift")(x), functionalize(network)(x)) <= 1e-12
    with pytest.raises(BadRequest, match="There is no smear"):
        with_semantics(network, [finding], "smear")


@pytest.mark.parametrize("semantics", [None, *CHOICES])
def test_what_reads_and_writes_one_memory_without_a_conflict_needs_no_choice(semantics: str | None) -> None:
    def added(x: Tensor) -> Tensor:
        rows = x.flatten(1)
        rows.index_add_(1, torch.tensor([1]), rows[:, :1])
        return x

    network, x = network_of(Calls(added)), photo()
    twin, findings = settled(network, Arguments.of(x), semantics)
    assert not any(finding.asks for finding in findings)
    assert apart(twin(x), network(x)) <= 1e-12


def test_an_overlap_that_cannot_be_followed_is_refused() -> None:
    def scripted(x: Tensor) -> Tensor:
        x[:, :, 1:] = x[:, :, :-1]
        return x

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch.jit is what users have
        network = network_of(Calls(torch.jit.script(scripted)))
    with pytest.raises(BadRequest, match=r"block .*copies between overlapping places.*Copy from a clone"):
        found_in(network, photo())


def down_a_row(x: Tensor) -> Tensor:
    rows = x.flatten()
    rows[1:] = rows[:-1]  # torch refuses it: nothing lies between
    return rows


@pytest.mark.parametrize("block", [nn.Conv2d(C + 1, 2, 1), Calls(down_a_row)])
def test_a_network_that_fails_is_left_to_whoever_runs_it(block: nn.Module) -> None:
    network = nn.Sequential(nn.Conv2d(3, C, 1), block).double()
    with pytest.raises(RuntimeError):
        network(photo())
    assert found_in(network, photo()) == ()


class Moves(nn.Module):
    """A copy between two places of one map, taken with its axes in another order."""

    def __init__(self, order: tuple[int, ...], target: tuple[slice, ...], source: tuple[slice, ...]) -> None:
        super().__init__()
        self.order, self.target, self.source = order, target, source

    def forward(self, x: Tensor) -> Tensor:
        kept = x * 1
        axes = kept.permute(self.order)
        axes[self.target] = axes[self.source]
        return kept + axes.permute(self.order).sum()


@st.composite
def moves(draw: st.DrawFn) -> tuple[Moves, tuple[int, ...]]:
    size = tuple(draw(st.integers(2, 4)) for _ in range(3))
    order = tuple(draw(st.permutations(range(3))))
    target, source = [], []
    for axis in order:
        wide = draw(st.integers(1, size[axis]))
        step = draw(st.integers(1, 2)) if 2 * wide - 1 <= size[axis] else 1
        span = step * (wide - 1) + 1
        starts = [draw(st.integers(0, size[axis] - span)) for _ in range(2)]
        target.append(slice(starts[0], starts[0] + span, step))
        source.append(slice(starts[1], starts[1] + span, step))
    return Moves(order, tuple(target), tuple(source)), size


@settings(max_examples=60, deadline=None)
@given(moves())
def test_any_move_is_followed_as_torch_functionalises_it(case: tuple[Moves, tuple[int, ...]]) -> None:
    module, size = case
    x = torch.arange(float(np.prod(size)), dtype=torch.float64).reshape(size) + 1
    try:
        eager = module(x)
    except RuntimeError:  # torch sees the overlap by itself
        reject()
    findings = found_in(module, x)
    assert torch.equal(with_semantics(module, findings, "shift")(x), functionalize(module)(x))
    changed = not torch.equal(eager, functionalize(module)(x))
    assert any(finding.asks for finding in findings) >= changed


places = st.integers(1, 4).flatmap(
    lambda axes: st.tuples(
        st.tuples(*[st.integers(1, 3)] * axes),
        st.tuples(*[st.integers(1, 6)] * axes),
        st.tuples(*[st.integers(1, 6)] * axes),
        st.integers(0, 5),
        st.integers(0, 5),
    )
)


@given(places)
def test_the_order_of_memory_is_that_of_a_loop(case: Any) -> None:
    size, target_steps, source_steps, target_start, source_start = case
    target, source = Place(size, target_steps, target_start), Place(size, source_steps, source_start)
    pairs = sorted(zip(target.positions().flatten().tolist(), source.positions().flatten().tolist()))
    if len({first for first, _ in pairs}) < len(pairs):
        return  # it is no target
    memory = list(range(100))
    for first, second in pairs:
        memory[first] = memory[second]
    found = read_in_order(target, source).flatten().tolist()
    assert found == [memory[place] for place in target.positions().flatten().tolist()]
    if found != source.positions().flatten().tolist():
        assert order_matters(target, source)


@given(st.permutations(range(3)), st.integers(0, 2), st.integers(1, 2))
def test_a_written_place_is_that_of_torch_in_the_owners_order_of_memory(
    order: list[int], start: int, step: int
) -> None:
    owner = torch.arange(60.0).reshape(3, 4, 5).permute(order)
    copy = torch.empty_like(owner).copy_(owner)
    view = copy[start::step].transpose(1, 2)
    place = Place.of(view)
    result = written(owner, Place.of(owner), place, torch.zeros(view.shape))
    view.zero_()
    assert torch.equal(result, copy)
    assert result.stride() == owner.stride()


def test_a_place_outside_of_its_owner_is_not_written() -> None:
    owner = Place((2, 2), (2, 1), 0)
    with pytest.raises(NotFollowed, match="beyond"):
        written(torch.zeros(2, 2), owner, Place((2,), (1,), 3), torch.zeros(2))
    with pytest.raises(NotFollowed, match="two of its elements"):
        written(torch.zeros(2, 2), owner, Place((2, 2), (1, 1), 0), torch.zeros(2, 2))
