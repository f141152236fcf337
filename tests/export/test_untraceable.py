"""Holds that a line which no graph keeps is refused, one which only tells is a note, and no other is found."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from deploy_attn import BadRequest
from deploy_attn.export.arguments import Arguments
from deploy_attn.export.untraceable import Untraceable, check_traceable, untraceable
from tests.export.networks import Returns


class _Counts(nn.Module):
    """A parameter, and a buffer that does not depend on the input."""

    def __init__(self, function: Callable[[_Counts, Tensor], object]) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(2.0))
        self.register_buffer("seen", torch.zeros(3))
        self.function = function

    def forward(self, x: Tensor) -> object:
        return self.function(self, x)


def _found(function: Callable[[_Counts, Tensor], object]) -> tuple[Untraceable, ...]:
    network = nn.Sequential(nn.Conv2d(3, 3, 1), _Counts(function))
    with torch.no_grad():
        found = untraceable(network, Arguments.of(torch.randn(1, 3, 4, 4)))
    assert {one.module for one in found} <= {"1 (_Counts)"}
    assert all("test_untraceable.py:" in one.place for one in found)
    return found


def _written(network: _Counts, x: Tensor) -> float:
    y = torch.zeros(1, 3, 4, 4)
    y[:, 0] = x[:, 0]
    return float(y.sum())


def _through_a_view(network: _Counts, x: Tensor) -> float:
    y = torch.zeros(3, 4, 4)
    before, row = y[1:], y[0]
    row.copy_(x[0, 0])
    return float(before.sum())


def _into(network: _Counts, x: Tensor) -> list[float]:
    result = torch.empty(1, 4, 4)
    torch.sum(x, (1,), out=result)
    values: list[float] = result.flatten().tolist()
    return values


@pytest.mark.parametrize(
    ("function", "what"),
    [
        pytest.param(lambda network, x: 1 if x.sum() > 0 else 2, "bool() of one value", id="a branch"),
        pytest.param(lambda network, x: float(x.abs().max()), "float() of one value", id="a number"),
        pytest.param(lambda network, x: x.argmax().item(), "item() of one value", id="an index"),
        pytest.param(lambda network, x: int(x.argmax()), "int() of one value", id="an integer"),
        pytest.param(lambda network, x: x.detach().numpy(), "numpy() of a tensor of 1x3x4x4", id="an array"),
        pytest.param(lambda network, x: x.flatten().tolist(), "tolist() of a tensor of 48", id="a list"),
        pytest.param(lambda network, x: torch.equal(x, x + 1), "equal()", id="a comparison"),
        pytest.param(lambda network, x: torch.allclose(x, x + 1), "allclose()", id="a near comparison"),
        pytest.param(lambda network, x: torch.isnan(x).any() and 3, "bool()", id="a check"),
        pytest.param(lambda network, x: bool(torch.stack([x, x]).mean()), "bool()", id="from a list"),
        pytest.param(lambda network, x: network.seen.add_(x.mean()).tolist(), "tolist()", id="a state"),
        pytest.param(lambda network, x: [0, 1, 2][x.argmax() % 3], "index()", id="a place in a list"),
        pytest.param(lambda network, x: 0.5 in x, "contains()", id="a value among them"),
        pytest.param(lambda network, x: f"{x.mean():.2f}", "format()", id="a text"),
        pytest.param(lambda network, x: torch.tensor([1.0, x.mean()]), "takes the values of", id="a list of numbers"),
        pytest.param(lambda network, x: max(x[0, 0, 0, 0], x[0, 0, 0, 1]), "bool()", id="Python's max"),
        pytest.param(_written, "float()", id="through an assignment"),
        pytest.param(_through_a_view, "float()", id="through another view"),
        pytest.param(_into, "tolist()", id="through an output argument"),
        pytest.param(lambda network, x: float(torch.full_like(x, x.max()).sum()), "float()", id="a filled tensor"),
    ],
)
def test_a_value_that_follows_from_the_input_is_found(function: Callable[[_Counts, Tensor], object], what: str) -> None:
    (one,) = _found(function)
    assert what in one.what
    assert not one.only_tells


@pytest.mark.parametrize(
    "function",
    [
        pytest.param(lambda network, x: x[x > 0], id="a mask"),
        pytest.param(lambda network, x: x[:, x.mean((0, 2, 3)) > 0], id="a mask of an axis"),
        pytest.param(lambda network, x: torch.ones(1, 3, 4, 4)[x > 0], id="a mask on a constant"),
        pytest.param(lambda network, x: x[x > 0].mean() * x, id="a mask inside"),
        pytest.param(lambda network, x: torch.nonzero(x), id="nonzero"),
        pytest.param(lambda network, x: x.nonzero(as_tuple=True), id="nonzero as a method"),
        pytest.param(lambda network, x: torch.argwhere(x), id="argwhere"),
        pytest.param(lambda network, x: torch.where(x > 0), id="where of one argument"),
        pytest.param(lambda network, x: torch.masked_select(x, x > 0), id="masked_select"),
        pytest.param(lambda network, x: torch.unique(x), id="unique"),
        pytest.param(lambda network, x: x.unique(return_counts=True), id="unique as a method"),
        pytest.param(lambda network, x: torch.unique_consecutive(x), id="unique_consecutive"),
        pytest.param(lambda network, x: torch.bincount((x > 0).flatten().long()), id="bincount"),
        pytest.param(lambda network, x: x.repeat_interleave((x[0, :, 0, 0] > 0).long(), 1), id="repeats"),
        pytest.param(lambda network, x: torch.repeat_interleave((x > 0).long().flatten()), id="repeats alone"),
        pytest.param(lambda network, x: torch.repeat_interleave(x, repeats=x.argmax() % 3 + 1), id="repeats by name"),
        pytest.param(lambda network, x: x[:, : x.argmax() % 3 + 1], id="a slice"),
        pytest.param(lambda network, x: network.seen[x.argmax() % 3 :], id="a slice of a constant"),
        pytest.param(lambda network, x: torch.arange(x.argmax()), id="arange"),
        pytest.param(lambda network, x: torch.ones(x.argmax()), id="ones"),
        pytest.param(lambda network, x: x.new_zeros(x.argmax()), id="new_zeros"),
        pytest.param(lambda network, x: x.split([x.argmax() % 3, 3 - x.argmax() % 3], 1), id="split"),
        pytest.param(lambda network, x: x.flatten().topk(x.argmax() % 3), id="topk"),
    ],
)
def test_an_extent_that_follows_from_the_input_is_found(function: Callable[[_Counts, Tensor], object]) -> None:
    (one,) = _found(function)
    assert "makes an extent of" in one.what


@pytest.mark.parametrize(
    "function",
    [
        pytest.param(lambda network, x: x * 2 if x.shape[2] % 2 else x, id="a shape"),
        pytest.param(lambda network, x: x.view(int(x.size(0)), -1), id="a size"),
        pytest.param(lambda network, x: x * network.gain.item(), id="a parameter"),
        pytest.param(lambda network, x: x if network.seen.sum() > 0 else -x, id="a buffer"),
        pytest.param(lambda network, x: x[torch.arange(3).tolist()[0]], id="a constant"),
        pytest.param(lambda network, x: float(torch.ones_like(x).sum()), id="the form of the input"),
        pytest.param(lambda network, x: int(x.new_ones(3).sum()), id="the type of the input"),
        pytest.param(lambda network, x: x[:, network.seen == 0], id="a mask that is a constant"),
        pytest.param(lambda network, x: x.clone().__setitem__(x > 0, 0), id="a write under a mask"),
        pytest.param(lambda network, x: x[:, x.mean((0, 2, 3)).argmax()], id="an index that stays a tensor"),
        pytest.param(lambda network, x: x.argmax().expand(3).view(3, 1).repeat(1, 2), id="an index that is the map"),
        pytest.param(lambda network, x: torch.repeat_interleave(x, 2, 1), id="repeats by a number"),
        pytest.param(
            lambda network, x: x.repeat_interleave((x[0, :, 0, 0] * 0 + 1).long(), 1, output_size=3),
            id="repeats of a fixed sum",
        ),
        pytest.param(lambda network, x: torch.zeros(3, out=x.mean((0, 2, 3))), id="constants over values"),
        pytest.param(lambda network, x: torch.tensor(x), id="a copy"),
        pytest.param(lambda network, x: x * torch.tensor([2.0, network.gain]).sum(), id="a list of a parameter"),
        pytest.param(lambda network, x: [row.mean() for row in x], id="rows"),
        pytest.param(lambda network, x: torch.where(x > 0, x, -x), id="a choice in the graph"),
        pytest.param(lambda network, x: x.dtype == torch.float32 and len(x), id="type and length"),
        pytest.param(lambda network, x: nn.MultiheadAttention(4, 2)(x[0], x[0], x[0])[0], id="torch's own layer"),
        pytest.param(
            lambda network, x: nn.functional.gaussian_nll_loss(x, x, x.abs() + 1), id="a check of a layer of torch"
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:To copy construct from a tensor", "ignore:An output with one or more elements")
def test_what_does_not_follow_from_the_input_is_none(function: Callable[[_Counts, Tensor], object]) -> None:
    assert _found(function) == ()


class _Masked(nn.Module):
    """torch's encoder asks whether a mask that it is given is causal: in its own code, for its own speed."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(4, 1, 8, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)

    def forward(self, x: Tensor) -> object:
        return self.encoder(x[0], mask=x[0, 0])


def test_what_torchs_own_code_reads_is_none() -> None:
    assert untraceable(_Masked().eval(), Arguments.of(torch.randn(1, 1, 4, 4))) == ()


def test_a_line_that_runs_often_is_listed_once_and_shown() -> None:
    def twice(x: Tensor) -> Tensor:
        result: Tensor = x + sum(value.item() for value in x.flatten())
        return result

    (one,) = untraceable(Returns(twice), Arguments.of(torch.ones(1, 3, 1, 1)))
    code = "result: Tensor = x + sum(value.item() for value in x.flatten())"
    assert one.text.endswith(
        f" in the network itself (Returns): `{code}` takes item() of one value computed from the input"
    )


def test_a_choice_by_torch_cond_is_found_by_its_line() -> None:
    def chosen(x: Tensor) -> object:
        return torch.cond(x.sum() > 0, lambda y: y * 2, lambda y: y * 3, (x,))

    (one,) = untraceable(nn.Sequential(nn.ReLU(), Returns(chosen)), Arguments.of(torch.ones(1, 3, 1, 1)))
    assert one.code.startswith("return torch.cond(")
    assert one.module == "1 (Returns)"
    assert "torch's cond" in one.what


def test_a_function_that_torch_compile_compiled_is_found_by_its_line() -> None:
    doubled = torch.compile(lambda x: x * 2, backend="eager", fullgraph=True)
    (one,) = untraceable(nn.Sequential(Returns(lambda x: doubled(x))), Arguments.of(torch.ones(1, 3, 1, 1)))
    assert one.code.startswith("(one,) = untraceable(")
    assert one.module == "0 (Returns)"
    assert "Take torch.compile off" in one.remedy


def test_what_a_network_raises_by_itself_goes_through() -> None:
    with pytest.raises(ZeroDivisionError):
        untraceable(Returns(lambda x: 1 / 0), Arguments.of(torch.ones(1)))


class _Chooses(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        y = x * 2
        if bool(x.mean()):
            y = y * 2
        return y


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_a_part_that_torch_jit_compiled_is_found_by_its_line() -> None:
    network = nn.Sequential(nn.ReLU(), nn.Sequential(torch.jit.script(nn.Sequential(_Chooses()))))
    (one,) = untraceable(network, Arguments.of(torch.ones(1, 3)))
    assert "test_untraceable.py:" in one.place
    assert one.code == "if bool(x.mean()):"
    assert one.module == "1.0 (Sequential)"
    assert "the module that torch.jit was given" in one.remedy
    (torchs,) = untraceable(nn.Sequential(torch.jit.script(nn.Linear(3, 4))), Arguments.of(torch.ones(1, 3)))
    assert torchs.text == "0 (Linear) is compiled by torch.jit"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_is_found_where_it_is_on(dtype: torch.dtype) -> None:
    class Casts(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            with torch.autocast("cpu", enabled=False):
                x = self[0](x)
            with torch.autocast("cpu", dtype=dtype):
                x = self[1](x)
            return x.float()

    network = Casts(nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1))
    (one,) = untraceable(network, Arguments.of(torch.ones(1, 3, 4, 4)))
    assert one.text.endswith(f" in 1 (Conv2d): `x = self[1](x)` runs under torch.autocast({dtype})")
    with pytest.raises(BadRequest, match="--fp16 decides"):
        check_traceable([one])


def _one(line: int, only_tells: bool) -> Untraceable:
    return Untraceable(f"net.py:{line}", "read(x)", "1 (Net)", "takes item() of x", "Keep it a tensor.", only_tells)


def test_what_only_tells_is_a_note_and_everything_else_is_refused_by_line() -> None:
    assert check_traceable([]) == ()
    (note,) = check_traceable([_one(3, only_tells=True)])
    assert note.startswith("net.py:3 in 1 (Net): `read(x)` takes item() of x. It can only raise, warn or print")
    with pytest.raises(BadRequest) as refused:
        check_traceable([_one(3, only_tells=True), *(_one(line, only_tells=False) for line in range(10, 20))])
    text = str(refused.value).splitlines()
    assert text[1] == "  net.py:10 in 1 (Net): `read(x)` takes item() of x"
    assert text[8:] == [
        "  net.py:17 in 1 (Net): `read(x)` takes item() of x",
        "  and 2 more lines",
        "Keep it a tensor.",
    ]
    assert "net.py:3 " not in str(refused.value)


def test_a_line_that_only_tells_is_told_from_one_that_computes() -> None:
    def checked(x: Tensor) -> Tensor:
        if not bool(x.isfinite().all()):
            raise ValueError("not finite")
        assert float(x.sum()) < 1e9
        return x * float(x.sum())

    found = untraceable(Returns(checked), Arguments.of(torch.ones(1, 3)))
    assert [one.only_tells for one in found] == [True, True, False]
