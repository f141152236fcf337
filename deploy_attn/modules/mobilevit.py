"""MobileViT block.

MobileViT: Light-weight, General-purpose, and Mobile-friendly Vision
Transformer, arXiv 2110.02178, section 3.1.

The source takes the places of the same position in every patch as one
sequence, as the paper does. It fixes a transformer of 3 layers, 8 heads of 64
and a hidden layer of 1024, has neither a norm nor an activation at its
convolutions, none after the transformer, and puts the map before the folded
tokens where it concatenates them. A map that is no multiple of the patch does
not fit. Keys: `conv{1,2,3,4}.*`, `trans.layers.i.0.{ln,fn}.*` (attention:
`fn.to_qkv.weight`, `fn.to_out.0.*`), `trans.layers.i.1.{ln,fn}.*` (hidden layer:
`fn.net.{0,3}.*`).

The export form cuts the map into patches, and puts it together again, by one
transpose each way and reshapes of fixed numbers. Its steps:

1. The two convolutions before the transformer are linear with nothing between
   them. They become one where that takes no more multiplications.
2. Batch and places within a patch are one axis, because attention runs over
   the patches only; no tensor has more than four axes in the transformer.
3. On a GPU the affine part of the norm before a hidden layer goes into that
   layer: W (g n + b) + a = (W g) n + (W b + a). Before the attention it stays in
   the norm: the projections have no bias, and TensorRT-RTX then makes queries, keys
   and values in the order of the heads at once. A bias would cost it three copies.
4. The scale goes from the logits to the queries. It is not merged into their
   projection: where the graph shows it, the FP16 plan knows the logits to be
   small, and attention stays in FP16, where TensorRT-RTX makes it one kernel.
5. The norm is written out (centre, mean of squares, division), alike at every
   opset: its operator does not exist at opset 13. On a CPU it has the square as a
   power and its affine part, for onnxruntime makes one node of exactly that.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from deploy_attn.modules.base import MapShape, ReferenceForm, convolution, linear, pointwise

_DEPTH, _HEADS, _HEAD_WIDTH, _HIDDEN = 3, 8, 64, 1024


class MobileViT(ReferenceForm):
    """conv([x, fold(transformer(unfold(conv(x))))]), `b c h w -> b c h w`; h and w are multiples of the patch."""

    catalogue_name: ClassVar[str] = "mobilevit"

    def __init__(self, channels: int, dim: int = 512, kernel_size: int = 3, patch_size: int = 7) -> None:
        super().__init__()
        self.channels = channels
        self.dim = dim
        self.kernel_size = kernel_size
        self.patch_size = patch_size
        padding = kernel_size // 2
        self.conv1 = nn.Conv2d(channels, channels, kernel_size, padding=padding)
        self.conv2 = nn.Conv2d(channels, dim, 1)
        self.trans = _Transformer(dim)
        self.conv3 = nn.Conv2d(dim, channels, 1)
        self.conv4 = nn.Conv2d(2 * channels, channels, kernel_size, padding=padding)

    def forward(self, x: Tensor) -> Tensor:
        self._check_map(x)
        b, _, h, w = x.shape
        size = self.patch_size
        y = self.conv2(self.conv1(x))
        y = y.reshape(b, self.dim, h // size, size, w // size, size)
        y = y.permute(0, 3, 5, 2, 4, 1).reshape(b, size * size, -1, self.dim)  # (B, places, patches, dim)
        y = self.trans(y)
        y = y.reshape(b, size, size, h // size, w // size, self.dim)
        y = y.permute(0, 5, 3, 1, 4, 2).reshape(b, self.dim, h, w)
        return self.conv4(torch.cat([x, self.conv3(y)], 1))


class _Transformer(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.ModuleList([_PreNorm(dim, _Attention(dim)), _PreNorm(dim, _FeedForward(dim))]) for _ in range(_DEPTH)
        )

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            for block in layer.children():
                x = x + block(x)
        return x


class _PreNorm(nn.Module):
    def __init__(self, dim: int, fn: nn.Module) -> None:
        super().__init__()
        self.ln = nn.LayerNorm(dim)
        self.fn = fn

    def forward(self, x: Tensor) -> Tensor:
        return self.fn(self.ln(x))


class _Attention(nn.Module):
    """Scaled dot-product attention over the patches, `b places patches dim`."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.to_qkv = nn.Linear(dim, 3 * _HEADS * _HEAD_WIDTH, bias=False)
        self.to_out = nn.Sequential(nn.Linear(_HEADS * _HEAD_WIDTH, dim), nn.Dropout(0.0))

    def forward(self, x: Tensor) -> Tensor:
        b, places, patches, _ = x.shape
        q, k, v = (
            part.reshape(b, places, patches, _HEADS, _HEAD_WIDTH).permute(0, 1, 3, 2, 4)
            for part in self.to_qkv(x).chunk(3, -1)
        )
        weights = (q @ k.transpose(-1, -2) * _HEAD_WIDTH**-0.5).softmax(-1)
        mixed = (weights @ v).permute(0, 1, 3, 2, 4)  # (B, places, patches, heads, width)
        return self.to_out(mixed.reshape(b, places, patches, _HEADS * _HEAD_WIDTH))


class _FeedForward(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(dim, _HIDDEN), nn.SiLU(), nn.Dropout(0.0), nn.Linear(_HIDDEN, dim), nn.Dropout(0.0)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class MobileViTGpu(nn.Module):
    """MobileViT for one size, `b c h w -> b c h w`."""

    norm_is_one_node: ClassVar[bool] = False

    def __init__(self, reference: MobileViT, shape: MapShape) -> None:
        super().__init__()
        self.shape = shape
        self.dim = reference.dim
        self.size = reference.patch_size
        height, width = shape.known_size
        self.rows, self.columns = height // self.size, width // self.size
        self.embed = _embedding(reference)
        blocks: list[nn.Module] = []
        one_node = self.norm_is_one_node
        for layer in reference.trans.layers:
            attention, feed_forward = layer.children()
            blocks += [
                _AttentionExport(attention, self.rows * self.columns, one_node),
                _with_own_norm(feed_forward) if one_node else _with_norm_inside(feed_forward),
            ]
        self.blocks = nn.Sequential(*blocks)
        self.project = pointwise(reference.conv3.weight, reference.conv3.bias)
        reach = reference.kernel_size // 2
        self.fuse = convolution(reference.conv4.weight, reference.conv4.bias, padding=(reach, reach))

    def forward(self, x: Tensor) -> Tensor:
        size, rows, columns, dim = self.size, self.rows, self.columns, self.dim
        patches = self.embed(x).reshape(-1, dim, rows, size, columns, size)
        sequences = patches.permute(0, 3, 5, 2, 4, 1).reshape(-1, rows * columns, dim)  # (B * places, patches, dim)
        patches = self.blocks(sequences).reshape(-1, size, size, rows, columns, dim)
        folded = patches.permute(0, 5, 3, 1, 4, 2).reshape(-1, dim, rows * size, columns * size)
        return self.fuse(torch.cat([x, self.project(folded)], 1))


def _embedding(reference: MobileViT) -> nn.Module:
    """conv2(conv1(x)), as one convolution where that takes no more multiplications."""
    channels, dim, taps = reference.channels, reference.dim, reference.kernel_size**2
    reach = (reference.kernel_size // 2, reference.kernel_size // 2)
    local, widen = reference.conv1, reference.conv2
    if taps * dim > taps * channels + dim:
        return nn.Sequential(convolution(local.weight, local.bias, padding=reach), pointwise(widen.weight, widen.bias))
    matrix = widen.weight.detach().flatten(1)
    kernel = (matrix @ local.weight.detach().flatten(1)).reshape(dim, *local.weight.shape[1:])
    bias = matrix @ reference.get_parameter("conv1.bias") + reference.get_parameter("conv2.bias")
    return convolution(kernel, bias, padding=reach)


class MobileViTCpu(MobileViTGpu):
    """The same, with norms that onnxruntime makes one node of."""

    norm_is_one_node = True


class _Normalised(nn.Module):
    """(x - mean) / deviation over the last axis."""

    def __init__(self, eps: float, power: bool = False) -> None:
        super().__init__()
        self.eps = eps
        self.power = power

    def forward(self, x: Tensor) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        squares = centred.pow(2) if self.power else centred * centred
        return centred / torch.sqrt(squares.mean(-1, keepdim=True) + self.eps)


class _Norm(_Normalised):
    """LayerNorm over the last axis, its affine part by itself."""

    def __init__(self, norm: nn.LayerNorm, power: bool) -> None:
        super().__init__(norm.eps, power)
        self.register_buffer("gain", norm.weight.detach().clone())
        self.register_buffer("shift", norm.bias.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * self.get_buffer("gain") + self.get_buffer("shift")


class _AttentionExport(nn.Module):
    """x + attention(norm(x)), `n patches dim`."""

    def __init__(self, block: Any, patches: int, norm_is_one_node: bool) -> None:
        super().__init__()
        self.patches = patches
        self.norm = _Norm(block.ln, norm_is_one_node)
        self.q, self.k, self.v = (linear(weight, None) for weight in block.fn.to_qkv.weight.chunk(3, 0))
        self.out = linear(block.fn.to_out[0].weight, block.fn.to_out[0].bias)

    def forward(self, x: Tensor) -> Tensor:
        normed = self.norm(x)
        q = self._heads(self.q(normed) * _HEAD_WIDTH**-0.5).transpose(1, 2)
        k = self._heads(self.k(normed)).permute(0, 2, 3, 1)
        v = self._heads(self.v(normed)).transpose(1, 2)
        mixed = ((q @ k).softmax(-1) @ v).transpose(1, 2)  # (n, patches, heads, width)
        return x + self.out(mixed.reshape(-1, self.patches, _HEADS * _HEAD_WIDTH))

    def _heads(self, x: Tensor) -> Tensor:
        return x.reshape(-1, self.patches, _HEADS, _HEAD_WIDTH)


class _FeedForwardExport(nn.Module):
    """x + feed_forward(norm(x)), `n patches dim`."""

    def __init__(self, norm: nn.Module, widen: nn.Module, narrow: nn.Module) -> None:
        super().__init__()
        self.norm = norm
        self.widen = widen
        self.narrow = narrow

    def forward(self, x: Tensor) -> Tensor:
        return x + self.narrow(functional.silu(self.widen(self.norm(x))))


def _with_own_norm(block: Any) -> _FeedForwardExport:
    widen, narrow = block.fn.net[0], block.fn.net[3]
    norm = _Norm(block.ln, power=True)
    return _FeedForwardExport(norm, linear(widen.weight, widen.bias), linear(narrow.weight, narrow.bias))


def _with_norm_inside(block: Any) -> _FeedForwardExport:
    """The affine part of the norm is in the hidden layer."""
    widen, narrow = block.fn.net[0], block.fn.net[3]
    affine = linear(widen.weight * block.ln.weight, widen.weight @ block.ln.bias + widen.bias)
    return _FeedForwardExport(_Normalised(block.ln.eps), affine, linear(narrow.weight, narrow.bias))


MobileViT.forms = {"cpu": MobileViTCpu, "gpu": MobileViTGpu}
