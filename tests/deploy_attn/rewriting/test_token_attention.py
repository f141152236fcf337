"""Self-attention between tokens and between places of a map, of several sources."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from deploy_attn.export.onnx_from_module import GraphRequest, onnx_from_module
from deploy_attn.export.precision import plan_from_graph
from deploy_attn.export.ranges import tensor_ranges
from deploy_attn.rewriting.families import token_attention
from deploy_attn.rewriting.finding import Finding
from deploy_attn.rewriting.rewrite import Rewrite, rewrite
from tests.deploy_attn.rewriting.stem import randomised
from tests.torchvision_here import torchvision_here

torchvision = torchvision_here()

from timm.layers.attention import Attention, AttentionRope  # noqa: E402  # torchvision is imported before timm
from timm.layers.attention2d import Attention2d as PlainAttention2d  # noqa: E402
from timm.layers.pos_embed_rel import RelPosBias, RelPosBiasTf, RelPosMlp  # noqa: E402
from timm.models.beit import Attention as BeitAttention  # noqa: E402
from timm.models.efficientformer import Attention as FormerAttention  # noqa: E402
from timm.models.fastvit import Attention as MapsAttention  # noqa: E402
from timm.models.levit import Attention as LevitAttention  # noqa: E402
from timm.models.maxxvit import Attention2d, AttentionCl  # noqa: E402
from timm.models.swin_transformer import WindowAttention  # noqa: E402
from timm.models.swin_transformer_v2 import WindowAttention as CosineAttention  # noqa: E402
from timm.models.tiny_vit import Attention as TinyAttention  # noqa: E402
from timm.models.volo import Attention as LastChannelsAttention  # noqa: E402

C, HEADS = 24, 3
TOKENS, LAST, MAPS = (2, 16, C), (2, 4, 5, C), (2, C, 4, 4)


class Network(nn.Module):
    """The attention after a layer of its own, called with whatever else it takes."""

    def __init__(self, attention: nn.Module, of_maps: bool = False, **extras: object) -> None:
        super().__init__()
        self.stem: nn.Module = nn.Conv2d(C, C, 1) if of_maps else nn.Linear(C, C)
        self.attention = attention
        self.extras = extras

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x + self.attention(self.stem(x), **self.extras)
        return y


def example(shape: tuple[int, ...]) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(3))


def tried(
    attention: nn.Module, shape: tuple[int, ...] = TOKENS, engine: str = "cpu", **extras: Any
) -> tuple[Network, Rewrite, Finding]:
    """The network, its rewritten twin and the only finding, which is at `attention`."""
    network: Any = randomised(Network(attention, of_maps=shape[1] == C, **extras))
    result = rewrite(network, example(shape), engine)
    (finding,) = result.findings
    assert finding.paths == ("attention",)
    return network, result, finding


def check_replaced(
    attention: nn.Module, shape: tuple[int, ...] = TOKENS, engine: str = "cpu", **extras: Any
) -> tuple[Network, Rewrite, Finding]:
    network, result, finding = tried(attention, shape, engine, **extras)
    assert finding.replaced, finding.reason
    assert finding.certificate is not None
    assert finding.certificate.worst_error <= 1e-11
    assert result.whole.error <= 1e-11
    return network, result, finding


def check_left_alone(attention: nn.Module, shape: tuple[int, ...] = TOKENS, **extras: Any) -> str:
    _, result, finding = tried(attention, shape, **extras)
    assert not finding.replaced
    assert type(result.model.get_submodule("attention")) is type(attention)
    return str(finding.reason)


class Pasted(nn.Module):
    """Attention as it is in blogs: one layer for all three, its rows in one of four orders."""

    heads: ClassVar[int] = HEADS
    axes: ClassVar[tuple[str, ...]] = ("qkv", "head", "d")

    def __init__(self, bias: bool = False, scale: float | None = None) -> None:
        super().__init__()
        self.num_heads = HEADS
        self.scale = (C // HEADS) ** -0.5 if scale is None else scale
        self.qkv = nn.Linear(C, 3 * C, bias=bias)
        self.proj = nn.Linear(C, C)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.parts(self.qkv(x))
        mixed = self.weights(query @ key.transpose(2, 3)) @ value
        projected: Tensor = self.proj(mixed.transpose(1, 2).flatten(2))
        return projected

    def parts(self, x: Tensor) -> Any:
        """Three of `b head n d`."""
        extents = {"qkv": 3, "head": HEADS, "d": C // HEADS}
        split = x.unflatten(2, [extents[axis] for axis in self.axes])
        places = [self.axes.index(axis) + 2 for axis in ("qkv", "head", "d")]
        return split.permute(places[0], 0, places[1], 1, places[2])

    def weights(self, products: Tensor) -> Tensor:
        weights: Tensor = (products * self.scale).softmax(-1)
        return weights


class HeadByHead(Pasted):
    axes = ("head", "qkv", "d")


class Interleaved(Pasted):
    axes = ("head", "d", "qkv")


class HeadsLast(Pasted):
    axes = ("d", "qkv", "head")


class DividedAfter(Interleaved):
    """The quirk of a known copy: not the logits are divided, but the weights."""

    def weights(self, products: Tensor) -> Tensor:
        return products.softmax(-1) / math.sqrt(C)


class RootOfAll(Pasted):
    def weights(self, products: Tensor) -> Tensor:
        return (products / math.sqrt(C)).softmax(-1)


class NoScale(Pasted):
    def weights(self, products: Tensor) -> Tensor:
        return products.softmax(-1)


class ScaleInATensor(Pasted):
    """A divisor, as a tensor of one number."""

    def __init__(self) -> None:
        super().__init__()
        self.scale: Any = torch.sqrt(torch.tensor([float(C // HEADS)]))

    def weights(self, products: Tensor) -> Tensor:
        weights: Tensor = (products / self.scale.to(products.dtype)).softmax(-1)
        return weights


class Apart(nn.Module):
    """Three layers or two, as others call them; the number of heads is not to be seen."""

    def __init__(self, names: tuple[str, ...], last: str = "", heads: int = 1, drop: bool = False) -> None:
        super().__init__()
        self.names, self.last, self.count = names, last, heads
        for name in names:
            self.add_module(
                name, nn.Linear(C, C * len(name.replace("to_", ""))) if len(names) == 2 else nn.Linear(C, C)
            )
        if last:
            layer = nn.Linear(C, C)
            self.add_module(last, nn.Sequential(layer, nn.Dropout(0.1)) if drop else layer)

    def forward(self, x: Tensor) -> Tensor:
        made = torch.cat([self.get_submodule(name)(x) for name in self.names], -1)
        query, key, value = (part.unflatten(2, (self.count, -1)).transpose(1, 2) for part in made.chunk(3, -1))
        logits = query @ key.transpose(2, 3) / math.sqrt(C // self.count)
        mixed = (logits.softmax(-1) @ value).transpose(1, 2).flatten(2)
        return self.get_submodule(self.last)(mixed) if self.last else mixed  # type: ignore[no-any-return]


class NormedInside(nn.Module):
    """The norm inside, one bias-free layer for all three, the last in a Sequential; inner channels of their own."""

    def __init__(self, depth: int = 5) -> None:
        super().__init__()
        self.heads, self.scale = HEADS, depth**-0.5
        self.norm = nn.LayerNorm(C, eps=1e-4)
        self.attend = nn.Softmax(dim=-1)
        self.dropout = nn.Dropout(0.1)
        self.to_qkv = nn.Linear(C, 3 * depth * HEADS, bias=False)
        self.to_out = nn.Sequential(nn.Linear(depth * HEADS, C), nn.Dropout(0.1))

    def forward(self, x: Tensor) -> Tensor:
        made = self.to_qkv(self.norm(x)).chunk(3, -1)
        query, key, value = (part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in made)
        weights = self.dropout(self.attend(query @ key.transpose(-1, -2) * self.scale))
        projected: Tensor = self.to_out((weights @ value).transpose(1, 2).flatten(2))
        return projected


class RowByRow(Pasted):
    """Of maps `b h w c`; places attend to those of their own row."""

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = super().forward(x.flatten(0, 1)).unflatten(0, x.shape[:2])
        return y


PASTED: dict[str, Callable[[], nn.Module]] = {
    "as in ViT": Pasted,
    "with a bias": lambda: Pasted(bias=True),
    "head by head": HeadByHead,
    "interleaved": Interleaved,
    "heads last": HeadsLast,
    "a divisor": ScaleInATensor,
    "another scale as an attribute": lambda: Pasted(scale=0.31),
    "scaled by all channels": RootOfAll,
    "not scaled": NoScale,
    "divided after the softmax": DividedAfter,
    "three layers": lambda: Apart(("q", "k", "v")),
    "three layers and a last one": lambda: Apart(("q_proj", "k_proj", "v_proj"), "out_proj", heads=4),
    "by their letters": lambda: Apart(("W_q", "W_k", "W_v"), "W_o", heads=8),
    "in a sequence": lambda: Apart(("to_q", "to_k", "to_v"), "to_out", heads=12, drop=True),
    "queries apart": lambda: Apart(("q", "kv"), "proj"),
    "values apart": lambda: Apart(("qk", "v"), "proj"),
    "a norm inside": NormedInside,
}


@pytest.mark.parametrize("made", PASTED.values(), ids=PASTED)
def test_attention_as_it_is_pasted_is_replaced(made: Callable[[], nn.Module]) -> None:
    _, _, finding = check_replaced(made())
    assert finding.recognised_as == "token_attention"
    assert any(fact.startswith("keys ") for fact in finding.evidence)
    assert any(fact.endswith(" heads") for fact in finding.evidence)


def test_attention_in_every_row_of_a_map_is_replaced() -> None:
    _, _, finding = check_replaced(RowByRow(), LAST)
    assert "each row by itself" in finding.evidence


TIMM: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], dict[str, Any]]] = {
    "ViT": (lambda: Attention(C, HEADS, qkv_bias=True), TOKENS, {}),
    "ViT, called by name": (lambda: Attention(C, HEADS), TOKENS, {"attn_mask": None, "is_causal": False}),
    "ViT, heads normed": (
        lambda: Attention(C, HEADS, qkv_bias=True, qk_norm=True, norm_layer=nn.LayerNorm),
        TOKENS,
        {},
    ),
    "ViT, result normed": (
        lambda: Attention(C, HEADS, qkv_bias=True, scale_norm=True, norm_layer=nn.LayerNorm),
        TOKENS,
        {},
    ),
    "ViT, other widths": (lambda: Attention(C, HEADS, attn_head_dim=5), TOKENS, {}),
    "ViT, no rotation": (lambda: AttentionRope(C, HEADS), TOKENS, {"rope": None}),
    "ViT, three layers": (lambda: AttentionRope(C, HEADS, qkv_fused=False), TOKENS, {}),
    "BEiT": (lambda: BeitAttention(C, HEADS, qkv_bias=True), TOKENS, {}),
    "BEiT, a table": (lambda: BeitAttention(C, HEADS, qkv_bias=True, window_size=(3, 5)), TOKENS, {}),
    "Swin": (lambda: WindowAttention(C, HEADS, window_size=4), TOKENS, {"mask": None}),
    "EfficientFormer": (lambda: FormerAttention(C, 4, HEADS, 2, 4), TOKENS, {}),
    "LeViT": (lambda: LevitAttention(C, 4, HEADS, 2, resolution=4), TOKENS, {}),
    "TinyViT": (lambda: TinyAttention(C, 8, HEADS, resolution=(4, 4)), TOKENS, {}),
    "VOLO, channels last": (lambda: LastChannelsAttention(C, HEADS), LAST, {}),
    "MaxViT, channels last": (lambda: AttentionCl(C, dim_head=8), LAST, {"shared_rel_pos": None}),
    "FastViT, maps": (lambda: MapsAttention(C, 8), MAPS, {}),
}


@pytest.mark.parametrize(("made", "shape", "extras"), TIMM.values(), ids=TIMM)
@pytest.mark.parametrize("engine", ["cpu", "gpu"])
def test_attention_of_timm_over_tokens_is_replaced(
    made: Callable[[], nn.Module], shape: tuple[int, ...], extras: dict[str, Any], engine: str
) -> None:
    _, _, finding = check_replaced(made(), shape, engine, **extras)
    assert finding.recognised_as == "token_attention"


@pytest.mark.parametrize("fused", [True, False])
def test_attention_is_the_same_fused_or_not(fused: bool) -> None:
    attention: Any = Attention(C, HEADS, qkv_bias=True)
    attention.fused_attn = fused
    check_replaced(attention)


def table(kind: Any) -> Any:
    return functools.partial(kind, window_size=(4, 4))


MAP_ATTENTION: dict[str, Callable[[], nn.Module]] = {
    "plain": lambda: Attention2d(C, dim_head=8),
    "queries, keys, values": lambda: Attention2d(C, dim_head=8, head_first=False),
    "no biases": lambda: Attention2d(C, dim_head=8, bias=False),
    "more channels before": lambda: Attention2d(C, 40, dim_head=8, expand_first=True),
    "more channels after": lambda: Attention2d(C, 40, dim_head=8, expand_first=False),
    "a table": lambda: Attention2d(C, dim_head=8, rel_pos_cls=table(RelPosBias)),
    "a table by lookup": lambda: Attention2d(C, dim_head=8, rel_pos_cls=table(RelPosBiasTf)),
    "a table by a network": lambda: Attention2d(C, dim_head=8, rel_pos_cls=table(RelPosMlp)),
    "of the layers": lambda: PlainAttention2d(C, num_heads=HEADS),
    "of the layers, head by head": lambda: PlainAttention2d(C, num_heads=HEADS, head_first=True),
}


class Kept(nn.Module):
    """What changes the number of channels stands alone."""

    def __init__(self, attention: nn.Module) -> None:
        super().__init__()
        self.stem, self.attention = nn.Conv2d(C, C, 1), attention

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.attention(self.stem(x), shared_rel_pos=None)
        return y


@pytest.mark.parametrize("made", MAP_ATTENTION.values(), ids=MAP_ATTENTION)
@pytest.mark.parametrize("engine", ["cpu", "gpu"])
def test_attention_over_maps_is_replaced(made: Callable[[], nn.Module], engine: str) -> None:
    attention = made()
    network = Kept(attention) if isinstance(attention, Attention2d) else Network(attention, of_maps=True)
    result = rewrite(randomised(network), example(MAPS), engine)
    (finding,) = result.findings
    assert finding.replaced, finding.reason
    assert finding.recognised_as == "map_attention"
    assert result.whole.error <= 1e-11


def test_a_table_is_named_and_is_for_its_number_of_places() -> None:
    attention = Attention2d(C, dim_head=8, rel_pos_cls=table(RelPosBias))
    _, _, finding = check_replaced(attention, MAPS, shared_rel_pos=None)
    assert "a table of positions" in finding.evidence
    assert finding.evidence[0] == "type timm.models.maxxvit.Attention2d"
    result = rewrite(randomised(Kept(attention)), example(MAPS), dynamic_size=True)
    assert "for 16 places only, got an open number" in str(result.findings[0].reason)


class Changed(Pasted):
    """Same keys and shapes, other mathematics."""

    def __init__(self, how: str) -> None:
        super().__init__(bias=True)
        self.how = how

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        return {"residual": y + x, "tanh": y.tanh(), "doubled": 2 * y}.get(self.how, y)

    def parts(self, x: Tensor) -> Any:
        query, key, value = super().parts(x)
        if self.how == "exchanged":
            query, key = key, query
        if self.how == "rotated":
            angles = torch.arange(query.shape[2], dtype=x.dtype)[:, None] * 0.1
            query, key = (
                torch.cat([part[..., :4] * angles.cos() - part[..., 4:] * angles.sin(), part[..., 4:]], -1)
                for part in (query, key)
            )
        if self.how == "unit length":
            query, key = (nn.functional.normalize(part, dim=-1) for part in (query, key))
        if self.how == "values of keys":
            value = key
        return query, key, value

    def weights(self, products: Tensor) -> Tensor:
        if self.how == "another scale":
            return (0.9 * self.scale * products).softmax(-1)
        if self.how == "over queries":
            return (self.scale * products).softmax(-2)
        if self.how == "over heads":
            return (self.scale * products).softmax(1)
        if self.how == "causal":
            mask = torch.ones(products.shape[-2:], dtype=torch.bool).tril()
            return (self.scale * products).masked_fill(~mask, -math.inf).softmax(-1)
        if self.how == "squared":
            return (self.scale * products).softmax(-1) ** 2
        if self.how == "linear":
            return products.relu() / (products.relu().sum(-1, keepdim=True) + 1e-6)
        if self.how == "sigmoid":
            return (self.scale * products).sigmoid()
        if self.how == "no own place":
            return (self.scale * products - 1e4 * torch.eye(products.shape[-1], dtype=products.dtype)).softmax(-1)
        return super().weights(products)


CHANGES = (
    *("residual", "tanh", "doubled", "exchanged", "rotated", "unit length", "values of keys", "another scale"),
    *("over queries", "over heads", "causal", "squared", "linear", "sigmoid", "no own place"),
)


@pytest.mark.parametrize("how", CHANGES)
def test_attention_of_other_mathematics_is_left_alone(how: str) -> None:
    assert "not proven" in check_left_alone(Changed(how))


class BetweenChannels(Pasted):
    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.parts(self.qkv(x))
        mixed = (self.scale * key.transpose(2, 3) @ value).softmax(-1) @ query.transpose(2, 3)
        projected: Tensor = self.proj(mixed.permute(0, 3, 1, 2).flatten(2))
        return projected


def test_attention_between_channels_is_left_alone() -> None:
    assert "not proven" in check_left_alone(BetweenChannels())


class OtherTable(RelPosBias):
    """The same table, added twice, or read from the other side, or scaled as the logits are."""

    def __init__(self, how: str, **options: Any) -> None:
        super().__init__(**options)
        self.how = how

    def forward(self, logits: Tensor, shared_rel_pos: Tensor | None = None) -> Tensor:
        bias = self.get_bias()
        made: Tensor = logits + {"twice": 2 * bias, "mirrored": bias.transpose(2, 3)}.get(self.how, bias * 8**-0.5)
        return made


@pytest.mark.parametrize("how", ["twice", "mirrored", "scaled"])
def test_a_table_that_is_added_in_another_way_is_left_alone(how: str) -> None:
    attention: Any = Attention2d(C, dim_head=8, rel_pos_cls=functools.partial(OtherTable, how, window_size=(4, 4)))
    attention.fused_attn = False
    assert "not proven" in check_left_alone(attention, MAPS)


@pytest.mark.parametrize("how", ["causal", "another scale"])
def test_weights_that_make_all_logits_equal_hide_nothing(how: str) -> None:
    """With zeros for queries and keys every scale gives the same; other weights tell."""
    attention = Changed(how)
    network: Any = randomised(Network(attention))
    with torch.no_grad():
        attention.qkv.weight[: 2 * C] = 0
        attention.qkv.bias[: 2 * C] = 0
    (finding,) = rewrite(network, example(TOKENS)).findings
    assert not finding.replaced


def test_a_causal_call_is_left_alone() -> None:
    assert "not proven" in check_left_alone(Attention(C, HEADS), is_causal=True)


def test_a_call_with_a_mask_is_left_alone() -> None:
    mask = torch.zeros(16, 16, dtype=torch.float64)
    assert "several tensors" in check_left_alone(Attention(C, HEADS), attn_mask=mask)


def test_what_has_no_form_is_refused_with_a_reason() -> None:
    assert "logit_scale" in check_left_alone(CosineAttention(C, (4, 4), HEADS))
    swin = torchvision.models.swin_transformer.ShiftedWindowAttention(C, [4, 4], [2, 2], HEADS)
    assert "windows itself" in check_left_alone(swin, (1, 8, 8, C))
    gated = Attention(C, HEADS, gated=True)
    assert "gate" in check_left_alone(gated)


def test_one_form_serves_any_number_of_tokens() -> None:
    for attention, shape in (
        (Attention(C, HEADS), TOKENS),
        (RowByRow(), LAST),
        (LastChannelsAttention(C, HEADS), LAST),
    ):
        network = randomised(Network(attention))
        result = rewrite(network, example(shape), dynamic_size=True)
        assert result.findings[0].replaced, result.findings[0].reason
        longer = example((1, *(2 * extent for extent in shape[1:-1]), C))
        torch.testing.assert_close(result.model(longer), network(longer))


def test_many_tokens_are_attended_to_in_blocks_on_a_cpu_only() -> None:
    for engine, several in (("cpu", True), ("gpu", False)):
        _, result, _ = check_replaced(Attention(C, HEADS), (1, 640, C), engine)
        form: Any = result.model.get_submodule("attention")
        assert (len(form.blocks) > 1) is several


EXPORTED: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], dict[str, Any]]] = {
    **{name: TIMM[name] for name in ("ViT", "ViT, heads normed", "Swin", "LeViT", "VOLO, channels last")},
    "ViT, blocks": (lambda: Attention(C, HEADS), (1, 640, C), {}),
    "maps": (lambda: Attention2d(C, dim_head=8, rel_pos_cls=table(RelPosBias)), MAPS, {"shared_rel_pos": None}),
}


@pytest.mark.parametrize(("made", "shape", "extras"), EXPORTED.values(), ids=EXPORTED)
def test_rewritten_attention_runs_in_onnxruntime_with_any_batch(
    made: Callable[[], nn.Module], shape: tuple[int, ...], extras: dict[str, Any]
) -> None:
    network, result, _ = check_replaced(made(), shape, **extras)
    x = example(shape)
    model = onnx_from_module(result.model, x, GraphRequest(13, 7, dynamic_batch=True))
    assert not {"Slice", "Gather", "Shape", "Einsum"} & {node.op_type for node in model.graph.node}
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    for images in (x, torch.cat([x, x + 1, x])):
        (got,) = session.run(None, {"input": images.numpy()})
        with torch.inference_mode():
            np.testing.assert_allclose(got, network(images).numpy(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("made", "shape", "extras"), EXPORTED.values(), ids=EXPORTED)
def test_the_products_of_scaled_attention_run_in_half_precision(
    made: Callable[[], nn.Module], shape: tuple[int, ...], extras: dict[str, Any]
) -> None:
    _, result, _ = check_replaced(made(), shape, **extras)
    model = onnx_from_module(result.model, example(shape), GraphRequest(13, 7))
    plan = plan_from_graph(model, tensor_ranges(model, [{"input": example(shape).numpy()}]))
    products = [node for node in plan.nodes if node.op_type == "MatMul"]
    assert products
    assert [node.reason for node in products if node.precision != "fp16"] == []


def test_logits_without_a_scale_stay_in_single_precision() -> None:
    _, result, _ = check_replaced(NoScale())
    model = onnx_from_module(result.model, example(TOKENS), GraphRequest(13, 7))
    plan = plan_from_graph(model, tensor_ranges(model, [{"input": example(TOKENS).numpy()}]))
    reasons = [node.reason for node in plan.nodes if node.precision == "fp32" and node.op_type == "MatMul"]
    assert reasons == ["softmax logits without a scale before their product"]


def without(module: Any, *names: str) -> nn.Module:
    for name in names:
        delattr(module, name)
    kept: nn.Module = module
    return kept


def with_part(module: Any, name: str, part: nn.Module) -> nn.Module:
    setattr(module, name, part)
    kept: nn.Module = module
    return kept


@pytest.mark.parametrize(
    "module",
    [
        nn.MultiheadAttention(C, HEADS),
        nn.TransformerEncoderLayer(C, HEADS),
        with_part(Pasted(), "qkv", nn.Linear(C, 3 * C + 1)),
        with_part(Pasted(), "qkv", nn.LazyLinear(3 * C)),
        with_part(Pasted(), "qkv", nn.Conv2d(C, 3 * C, 3)),
        with_part(Pasted(), "proj", nn.Sequential(nn.Linear(C, C), nn.GELU())),
        with_part(Pasted(), "proj", nn.Linear(3 * C, C)),
        with_part(Pasted(), "extra", nn.Linear(C, C)),
        with_part(Apart(("q", "k", "v")), "k", nn.Linear(C, 2 * C)),
        with_part(Apart(("q", "k", "v")), "k", nn.Linear(2 * C, C)),
        without(Apart(("q", "k", "v")), "v"),
        nn.ModuleDict({"qkv": nn.ModuleList(), "proj": nn.Identity()}),
    ],
)
def test_modules_that_only_share_names_are_not_recognised(module: nn.Module) -> None:
    assert list(token_attention.recognise(module)) == []


@pytest.mark.parametrize("count", [None, 7, "3", math.nan, True])
def test_a_number_of_heads_that_no_attribute_says_is_found(count: object) -> None:
    module: Any = Pasted(bias=True)
    module.num_heads = count
    _, _, finding = check_replaced(module)
    assert "3 heads" in finding.evidence


def test_a_scripted_module_is_no_obstacle() -> None:
    with pytest.warns(DeprecationWarning):
        scripted: Any = torch.jit.script(nn.Sequential(nn.Linear(C, C)))
    assert list(token_attention.recognise(scripted)) == []


@pytest.mark.parametrize("scale", [0.0, -1.0, math.nan, math.inf, "0.3", None, torch.ones(2), torch.ones(1, 1) * 1j])
def test_an_odd_attribute_is_no_obstacle(scale: object) -> None:
    module: Any = RootOfAll()
    module.scale = scale
    check_replaced(module)
