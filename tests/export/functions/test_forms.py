"""The small rules: norms, resizing, einsum, sums, masks, functions of one element, patches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from deploy_attn.export.functions import cumsum, masks, moving, norms, pointwise
from deploy_attn.export.functions.einsum import einsum
from deploy_attn.export.functions.fold import fold
from deploy_attn.export.functions.resampling import interpolate
from deploy_attn.export.functions.rule import Aim, NoForm
from tests.export.functions.exports import exported, network_of, proven

REPLACED: dict[str, tuple[Callable[..., Any], nn.Module | None]] = {
    "group norm": (lambda x, norm: norm(x), nn.GroupNorm(2, 8)),
    "group norm of tokens": (lambda x, norm: norm(x.flatten(2)), nn.GroupNorm(4, 8, affine=False)),
    "instance norm": (lambda x, norm: norm(x), nn.InstanceNorm2d(8, affine=True)),
    "instance norm, running": (lambda x, norm: norm(x), nn.InstanceNorm2d(8, track_running_stats=True)),
    "rms norm": (lambda x, norm: norm(x.permute(0, 2, 3, 1)), nn.RMSNorm(8)),
    "rms norm of a map": (lambda x, norm: norm(x), nn.RMSNorm([8, 6, 7], eps=1e-3)),
    "area": (lambda x: functional.interpolate(x, size=(4, 5), mode="area"), None),
    "area of a row": (lambda x: functional.interpolate(x.flatten(2), size=5, mode="area"), None),
    "nearest-exact": (lambda x: functional.interpolate(x, scale_factor=(1.7, 0.6), mode="nearest-exact"), None),
    "bicubic": (lambda x: functional.interpolate(x, size=(9, 4), mode="bicubic"), None),
    "antialiased": (lambda x: functional.interpolate(x, size=4, mode="bilinear", antialias=True), None),
    "einsum of heads": (lambda x: torch.einsum("bhid,bhjd->bhij", x, 2 * x), None),
    "einsum of channels": (lambda x, layer: torch.einsum("bchw,dc->bdhw", x, layer.weight), nn.Linear(8, 5)),
    "einsum with an ellipsis": (lambda x: torch.einsum("b...w,b...w->b...", x, 2 * x), None),
    "cumsum": (lambda x: x.cumsum(2) + torch.cumsum(x, -1) + x.cumsum(1), None),
    "tril": (lambda x: x.tril(1) + torch.triu(x, -1), None),
    "one-hot": (lambda x: functional.one_hot((x[:, 0] > 0).long(), 3).float() + 1, None),
    "threshold": (lambda x: functional.threshold(x, 0.1, 0.2), None),
    "celu": (lambda x: functional.celu(x, 0.7), None),
    "floor of a quotient": (lambda x: x // 0.3, None),
    "fold": (lambda x: functional.fold(x.reshape(2, 8, -1), (7, 8), 2), None),
}


@pytest.mark.parametrize(("function", "module"), REPLACED.values(), ids=REPLACED)
def test_functions_that_old_targets_lack_are_written_exactly(function: Callable[..., Any], module: Any) -> None:
    torch.manual_seed(0)
    network = network_of(function, *([] if module is None else [module]))
    got = exported(network, torch.randn(2, 8, 6, 7))
    assert got.error < 1e-5
    assert got.nano_errors == []
    assert got.findings
    assert all(finding.replaced for finding in got.findings)


AS_GOOD: dict[str, tuple[Callable[..., Any], int]] = {
    "group norm": (lambda x: functional.group_norm(x, 2), 17),
    "cubic": (lambda x: functional.interpolate(x, size=9, mode="bicubic"), 17),
    "linear": (lambda x: functional.interpolate(x, size=9, mode="bilinear"), 13),
    "cumsum of whole numbers": (lambda x: x.long().cumsum(1), 13),
    "cumsum of the batch": (lambda x: x.cumsum(0), 13),
    "einsum of a diagonal": (lambda x: torch.einsum("bcii->bci", x), 13),
    "einsum of three": (lambda x: torch.einsum("bchw,bchw,bchw->b", x, x, x), 13),
    "relu as a threshold": (lambda x: functional.threshold(x, 0, 0), 13),
    "tril": (lambda x: x.tril(), 17),
    "celu": (lambda x: functional.celu(x), 17),
    "floor of whole numbers": (lambda x: x.long() // 3, 13),
    "one-hot of unknown classes": (lambda x: functional.one_hot((x > 0).long()), 13),
    "layer norm": (lambda x: functional.layer_norm(x, (6,)), 13),
    "hardswish": (functional.hardswish, 13),
    "mish": (functional.mish, 13),
    "gelu": (lambda x: functional.gelu(x, approximate="tanh"), 13),
    "silu": (functional.silu, 13),
}


@pytest.mark.parametrize(("function", "opset"), AS_GOOD.values(), ids=AS_GOOD)
def test_what_the_exporter_writes_well_is_no_finding(function: Callable[..., Any], opset: int) -> None:
    assert proven(network_of(function), torch.randn(1, 4, 6, 6), Aim(opset)) == ()


@pytest.mark.parametrize(
    "function", [functional.hardswish, functional.mish, functional.gelu, functional.silu, functional.hardsigmoid]
)
def test_activations_of_old_targets_need_no_rule(function: Callable[[Tensor], Tensor]) -> None:
    got = exported(network_of(lambda x: function(x)), torch.randn(1, 4, 6, 6))
    assert got.error < 1e-5
    assert got.nano_errors == []


@pytest.mark.parametrize("function", [functional.celu, lambda x, inplace: functional.threshold(x, 1, 2, inplace)])
def test_a_write_into_the_input_is_left_alone_with_a_reason(function: Callable[..., Tensor]) -> None:
    (finding,) = proven(network_of(lambda x: function(x.clone(), inplace=True)), torch.randn(1, 2, 3, 3), Aim(13))
    assert "inplace=False" in str(finding.reason)


@settings(max_examples=40, deadline=None)
@given(
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    wanted=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    mode=st.sampled_from(["area", "nearest-exact", "bicubic"]),
    antialias=st.booleans(),
)
def test_every_resizing_equals_torchs(
    size: tuple[int, int], wanted: tuple[int, int], mode: str, antialias: bool
) -> None:
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    own: dict[str, Any] = {"mode": mode, "antialias": antialias and mode == "bicubic", "size": wanted}
    form = interpolate(Aim(13), x, **own)
    assert form is not None
    torch.testing.assert_close(form, functional.interpolate(x, **own), rtol=1e-12, atol=1e-12)


LETTERS = "bchwde"


@settings(max_examples=120, deadline=None)
@given(data=st.data())
def test_every_einsum_of_two_equals_torchs(data: st.DataObject) -> None:
    sizes = {letter: data.draw(st.integers(1, 4)) for letter in LETTERS}
    terms = [
        "".join(data.draw(st.lists(st.sampled_from(LETTERS), min_size=1, max_size=4, unique=True))) for _ in range(2)
    ]
    kept = data.draw(st.lists(st.sampled_from(sorted(set("".join(terms)))), unique=True))
    equation = f"{terms[0]}, {terms[1]} -> {''.join(kept)}"
    first, second = (torch.randn([sizes[a] for a in term], dtype=torch.float64) for term in terms)
    form = einsum(Aim(13), equation, first, second)
    alone = set(terms[0]) ^ set(terms[1])
    assert (form is not None) == (alone <= set(kept))
    assert form is None or torch.allclose(form, torch.einsum(equation, first, second), rtol=1e-12, atol=1e-12)


@settings(max_examples=60, deadline=None)
@given(
    size=st.tuples(st.integers(5, 9), st.integers(5, 9)),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    stride=st.integers(1, 3),
    padding=st.integers(0, 1),
    dilation=st.integers(1, 2),
)
def test_every_fold_equals_torchs(
    size: tuple[int, int], kernel: tuple[int, int], stride: int, padding: int, dilation: int
) -> None:
    own: dict[str, Any] = {"kernel_size": kernel, "stride": stride, "padding": padding, "dilation": dilation}
    patches = functional.unfold(torch.randn(2, 3, *size, dtype=torch.float64), **own)
    form = fold(Aim(13), patches, size, **own)
    assert form is not None
    torch.testing.assert_close(form, functional.fold(patches, size, **own), rtol=1e-13, atol=1e-13)


OPEN = Aim(13, open_size=True)
MAP = torch.randn(2, 4, 6, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize(
    "answer",
    [
        lambda: fold(OPEN, MAP.flatten(2), (6, 5), 1),
        lambda: fold(Aim(13), MAP[0].flatten(1), (6, 5), 1),
        lambda: interpolate(Aim(13), MAP.flatten(2), "nearest-exact", size=3),
        lambda: norms.group_norm(OPEN, MAP, 2),
        lambda: moving.channel_shuffle(OPEN, MAP, 2),
        lambda: masks.tril(OPEN, MAP),
        lambda: masks.one_hot(Aim(17), MAP.long(), 3),
        lambda: cumsum.cumsum(OPEN, MAP, 1),
        lambda: cumsum.cumsum(Aim(13), MAP, 1, torch.float32),
        lambda: cumsum.cumsum(Aim(17), MAP, 1),
        lambda: cumsum.cumsum(Aim(13), torch.zeros(1, 513), 1),
        lambda: cumsum.cumsum(Aim(13), torch.zeros(2, 0), 1),
        lambda: einsum(OPEN, "bchw,bchw->bc", MAP, MAP),
        lambda: einsum(Aim(13), "bchw,dc->bdhw", MAP, torch.zeros(3, 1)),
        lambda: pointwise.floor_divide(Aim(13), 3, MAP),  # type: ignore[arg-type]
    ],
)
def test_what_a_form_does_not_cover_it_leaves(answer: Callable[[], object]) -> None:
    assert answer() is None


def test_a_resizing_of_an_open_size_has_no_form() -> None:
    with pytest.raises(NoForm, match="nearest-exact has a form for a known height and width only"):
        interpolate(OPEN, MAP, "nearest-exact", size=3)


@pytest.mark.parametrize(
    ("form", "wanted"),
    [
        (lambda x: pointwise.threshold(Aim(13), x, 0.5, 2.0), lambda x: functional.threshold(x, 0.5, 2.0)),
        (lambda x: pointwise.threshold(Aim(13), x, 0.0, 2.0), lambda x: functional.threshold(x, 0.0, 2.0)),
        (lambda x: masks.tril(Aim(13), x / 0), lambda x: (x / 0).tril()),
        (lambda x: norms.instance_norm(Aim(13), x, eps=0.3), lambda x: functional.instance_norm(x, eps=0.3)),
        (lambda x: norms.rms_norm(Aim(13), x, (5,), eps=0.0), lambda x: functional.rms_norm(x, (5,), eps=0.0)),
        (lambda x: norms.rms_norm(Aim(13), x, (6, 5)), lambda x: functional.rms_norm(x, (6, 5))),
        (
            lambda x: interpolate(Aim(13), x, "area", scale_factor=0.5),
            lambda x: functional.interpolate(x, scale_factor=0.5, mode="area"),
        ),
        (lambda x: einsum(Aim(13), "bchw,bchw", x, x), lambda x: torch.einsum("bchw,bchw", x, x)),
        (lambda x: einsum(Aim(13), "...hw,...hw", x, x), lambda x: torch.einsum("...hw,...hw", x, x)),
        (lambda x: einsum(Aim(13), "w...,w...->...", x, x), lambda x: torch.einsum("w...,w...->...", x, x)),
        (lambda x: einsum(Aim(13), "zc,ac", x[0, 0], x[0, 1]), lambda x: torch.einsum("zc,ac", x[0, 0], x[0, 1])),
    ],
)
def test_values_at_the_edges_are_those_of_torch(
    form: Callable[[Tensor], Tensor], wanted: Callable[[Tensor], Tensor]
) -> None:
    x = torch.tensor([-1.0, 0.0, 0.5, 0.75, 2.0], dtype=torch.float64).expand(2, 4, 6, 5).contiguous()
    torch.testing.assert_close(form(x), wanted(x), rtol=1e-12, atol=1e-12, equal_nan=True)
