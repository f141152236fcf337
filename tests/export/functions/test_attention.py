"""Attention by products and a softmax, also at an opset for which the exporter refuses it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from deploy_attn.export.functions.rule import Aim
from tests.export.functions.exports import both_ways, exported, network_of, proven

TOKENS = 12
LOWER = torch.ones(TOKENS, TOKENS, dtype=torch.bool).tril()


def heads(x: Tensor) -> Tensor:
    """`b 8 3 4` as `b 2 12 4`."""
    return x.reshape(-1, 2, 4, TOKENS).transpose(-1, -2)


def attended(**settings: Any) -> Callable[[Tensor], Tensor]:
    def function(x: Tensor) -> Tensor:
        split = heads(x)
        return functional.scaled_dot_product_attention(split, 2 * split, split + 1, **settings)

    return function


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"scale": 0.3},
        {"is_causal": True},
        {"attn_mask": LOWER},
        {"attn_mask": torch.linspace(-1, 1, TOKENS * TOKENS).reshape(TOKENS, TOKENS)},
        {"attn_mask": torch.zeros(TOKENS, TOKENS).masked_fill(~LOWER, -torch.inf)},
    ],
    ids=["plain", "scale", "causal", "mask of bool", "mask of numbers", "mask of infinities"],
)
@pytest.mark.parametrize("opset", [13, 17])
def test_dot_product_attention_is_exported(settings: dict[str, Any], opset: int) -> None:
    got = exported(network_of(attended(**settings)), torch.randn(2, 8, 3, 4), opset, dynamic_batch=True)
    assert got.error < 1e-5
    assert got.nano_errors == [] or opset > 13
    assert all(finding.replaced for finding in got.findings)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"dropout_p": 0.5}, "drops at random"),
        ({"enable_gqa": True}, "several heads"),
        ({"attn_mask": ~LOWER}, "differs by inf"),
    ],
    ids=["dropout", "grouped", "a row without a key"],
)
def test_attention_without_an_exact_form_is_left_alone(settings: dict[str, Any], reason: str) -> None:
    (finding,) = proven(network_of(attended(**settings)), torch.randn(1, 8, 3, 4), Aim(13))
    assert not finding.replaced
    assert reason in str(finding.reason)


def sequence(x: Tensor) -> Tensor:
    """`b 8 3 4` as `b 12 8`."""
    return x.flatten(2).transpose(1, 2)


def itself(x: Tensor, layer: nn.Module, **settings: Any) -> Any:
    tokens = sequence(x)
    return layer(tokens, tokens, tokens, **settings)[0]


def first_of_all(x: Tensor, layer: nn.Module) -> Any:
    tokens = sequence(x)
    return layer(tokens[:, :1], tokens, tokens, need_weights=False)[0]


def of_other_widths(x: Tensor, layer: nn.Module) -> Any:
    return layer(sequence(x), sequence(x[:, :5]), sequence(x[:, :6]))[0]


def sequence_first(x: Tensor, layer: nn.Module) -> Any:
    tokens = sequence(x).transpose(0, 1)
    return layer(tokens, tokens, tokens)[0].transpose(0, 1)


def without_a_batch(x: Tensor, layer: nn.Module) -> Any:
    tokens = sequence(x)[0]
    return layer(tokens, tokens, tokens, attn_mask=torch.zeros(2, TOKENS, TOKENS, dtype=x.dtype))[0]


LAYERS: dict[str, tuple[Callable[..., Any], nn.Module]] = {
    "with weights": (itself, nn.MultiheadAttention(8, 2, batch_first=True)),
    "without weights": (
        lambda x, layer: itself(x, layer, need_weights=False),
        nn.MultiheadAttention(8, 2, batch_first=True),
    ),
    "the weights": (lambda x, layer: layer(*[sequence(x)] * 3)[1], nn.MultiheadAttention(8, 2, batch_first=True)),
    "each head's weights": (
        lambda x, layer: layer(*[sequence(x)] * 3, average_attn_weights=False)[1],
        nn.MultiheadAttention(8, 2, batch_first=True),
    ),
    "other queries": (first_of_all, nn.MultiheadAttention(8, 2, batch_first=True)),
    "other widths": (of_other_widths, nn.MultiheadAttention(8, 2, batch_first=True, kdim=5, vdim=6)),
    "sequence first, no bias": (sequence_first, nn.MultiheadAttention(8, 2, bias=False)),
    "no batch": (without_a_batch, nn.MultiheadAttention(8, 2)),
    "masked": (
        lambda x, layer: itself(x, layer, attn_mask=~LOWER, key_padding_mask=torch.arange(12).expand(2, 12) > 10),
        nn.MultiheadAttention(8, 2, batch_first=True),
    ),
    "padded": (
        lambda x, layer: itself(x, layer, key_padding_mask=torch.arange(12).expand(2, 12) > 10),
        nn.MultiheadAttention(8, 2, batch_first=True),
    ),
    "padded, no batch": (
        lambda x, layer: layer(*[sequence(x)[0]] * 3, key_padding_mask=torch.arange(12) > 10)[0],
        nn.MultiheadAttention(8, 2),
    ),
    "a mask for each head": (
        lambda x, layer: itself(x, layer, attn_mask=torch.linspace(-2, 2, 4 * 144).to(x.dtype).reshape(4, 12, 12)),
        nn.MultiheadAttention(8, 2, batch_first=True),
    ),
    "other values": (
        lambda x, layer: layer(*[sequence(x)] * 2, sequence(2 * x))[0],
        nn.MultiheadAttention(8, 2, batch_first=True),
    ),
    "causal": (
        lambda x, layer: itself(x, layer, attn_mask=~LOWER, is_causal=True, need_weights=False),
        nn.MultiheadAttention(8, 2, batch_first=True),
    ),
    "encoder layer": (lambda x, layer: layer(sequence(x)), nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)),
}


@pytest.mark.parametrize(("function", "layer"), LAYERS.values(), ids=LAYERS)
def test_attention_of_several_heads_is_exported_at_opset_13(function: Callable[..., Any], layer: nn.Module) -> None:
    got = exported(network_of(function, layer), torch.randn(2, 8, 3, 4))
    assert got.error < 1e-5
    assert got.nano_errors == []
    assert all(finding.replaced for finding in got.findings)


def test_attention_of_several_heads_takes_an_open_batch_and_size() -> None:
    function, layer = LAYERS["without weights"]
    network = network_of(function, layer)
    assert exported(network, torch.randn(2, 8, 3, 4), dynamic_batch=True).error < 1e-5
    assert exported(network, torch.randn(2, 8, 3, 4), dynamic_size=True).error < 1e-5


@pytest.mark.parametrize(
    "layer",
    [
        nn.MultiheadAttention(8, 2, batch_first=True, add_bias_kv=True),
        nn.MultiheadAttention(8, 2, batch_first=True, add_zero_attn=True),
    ],
    ids=["bias_k", "add_zero_attn"],
)
def test_extra_keys_are_left_alone_with_a_reason(layer: nn.Module) -> None:
    plain, again, (finding,) = both_ways(network_of(itself, layer), torch.randn(2, 8, 3, 4), Aim(13))
    assert not finding.replaced
    assert "build it without" in str(finding.reason)
    torch.testing.assert_close(plain, again)


def test_a_causal_mask_of_an_open_size_is_left_alone_with_a_reason() -> None:
    (finding,) = proven(network_of(attended(is_causal=True)), torch.randn(1, 8, 3, 4), Aim(13, open_size=True))
    assert "an open size is not known" in str(finding.reason)


def test_attention_in_training_is_left_alone_with_a_reason() -> None:
    network = network_of(itself, nn.MultiheadAttention(8, 2, dropout=0.5, batch_first=True)).train()
    (finding,) = proven(network, torch.randn(1, 8, 3, 4), Aim(13))
    assert "eval mode" in str(finding.reason)


def test_from_opset_14_on_the_exporter_writes_attention_of_several_heads() -> None:
    function, layer = LAYERS["with weights"]
    assert proven(network_of(function, layer), torch.randn(1, 8, 3, 4), Aim(14)) == ()
