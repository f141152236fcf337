"""Non-local block.

Non-local Neural Networks, arXiv 1711.07971, section 3, equations (1) to (6).

The source is the common PyTorch version. `sub_sample` max-pools phi and g by 2,
after their convolutions. Its logits have no scale; `scale` is for weights from
versions that divide those of the embedded Gaussian by a root. `dot_product` and
`concatenation` are divided by the number of attended places. W, or the
BatchNorm after it, begins at zero, so that a new block is the identity. Keys:
`g.*`, `theta.*`, `phi.*` (`g.0.*` and `phi.0.*` with `sub_sample`), `W.*`
(`W.0.*`, `W.1.*` with `bn_layer`), `concat_project.0.weight`; `gaussian` has no
theta, and no weights in phi.

The export form works on tokens `b c n`; x_i is a place, p_j an attended one.
Its exact steps:

1. The BatchNorm is folded into W, a scale into theta.
2. With a softmax the bias of phi drops out, as it adds the same to every logit
   of a row; the weights of a row sum to 1, so that the bias of g only adds
   W b_g to the bias of W.
3. With a softmax and sub-sampling, where it saves at least twice the products
   that it adds: theta moves behind the pooled phi and W behind the pooled g, a
   quarter of the places, since (T x_i + t) . p_j = x_i . (T' p_j) + t . p_j
   and W sum_j a_ij g_j = sum_j a_ij (W g_j).
4. `dot_product` is linear: theta_i (sum_j phi_j g_j') has no n x m matrix and
   costs n d d instead of n m d. The division by m is folded as a root into
   either factor, which also keeps FP16 from overflowing and from underflowing.
5. `concatenation`: w . [theta_i, phi_j] = w1 . theta_i + w2 . phi_j, a sum of two
   vectors instead of pairs of 2 d channels; w1 is folded into theta, and w2 into
   phi where nothing is pooled between. The division is folded as in 4.

On a CPU the projections are convolutions, and the queries go in blocks, which
keeps their weights in the cache. On a GPU the projections are matrix products,
which saves TensorRT changes of layout, and phi and g are one, so that one
pooling serves both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from deploy_attn.modules.base import MapShape, ReferenceForm, area_of, fold_norm, pointwise, tokens
from deploy_attn.modules.tokens_attention import Projection, as_map, block_sizes, in_blocks


class NonLocal(ReferenceForm):
    """x + W y, y a weighted sum over all places for every place, `b c h w -> b c h w`."""

    catalogue_name: ClassVar[str] = "non_local"
    phi: nn.Module

    def __init__(
        self,
        channels: int,
        inter_channels: int = 0,
        mode: str = "embedded_gaussian",
        sub_sample: bool = True,
        bn_layer: bool = True,
        scale: str = "none",
    ) -> None:
        super().__init__()
        self.channels = channels
        self.inter_channels = inter_channels
        self.mode = mode
        self.sub_sample = sub_sample
        self.bn_layer = bn_layer
        self.scale = scale
        self.embedded = inter_channels or channels // 2
        self.g = self._sub_sampled(nn.Conv2d(channels, self.embedded, 1))
        self.W = _identity_at_first(self.embedded, channels, bn_layer)
        if mode == "gaussian":
            self.phi = nn.MaxPool2d(2) if sub_sample else nn.Identity()
        else:
            self.theta = nn.Conv2d(channels, self.embedded, 1)
            self.phi = self._sub_sampled(nn.Conv2d(channels, self.embedded, 1))
        if mode == "concatenation":
            self.concat_project = nn.Sequential(nn.Conv2d(2 * self.embedded, 1, 1, bias=False), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        self._check_map(x)
        batch, _, height, width = x.shape
        g = self.g(x).reshape(batch, self.embedded, -1).permute(0, 2, 1)
        y = torch.matmul(self._weights(x), g).permute(0, 2, 1).contiguous()
        projected: Tensor = self.W(y.reshape(batch, self.embedded, height, width))
        return projected + x

    def divisor(self) -> float:
        """What the logits are divided by."""
        return {"none": 1.0, "inter_channels": self.embedded**0.5, "channels": self.channels**0.5}[self.scale]

    def _sub_sampled(self, conv: nn.Conv2d) -> nn.Module:
        return nn.Sequential(conv, nn.MaxPool2d(2)) if self.sub_sample else conv

    def _weights(self, x: Tensor) -> Tensor:
        """The weights `b places attended`."""
        if self.mode == "concatenation":
            pairs = self._pairs(x)
            return pairs / pairs.shape[-1]
        depth = self.channels if self.mode == "gaussian" else self.embedded
        theta = x if self.mode == "gaussian" else self.theta(x)
        theta = theta.reshape(x.shape[0], depth, -1).permute(0, 2, 1)
        logits = torch.matmul(theta, self.phi(x).reshape(x.shape[0], depth, -1))
        if self.mode == "dot_product":
            return logits / logits.shape[-1]
        if self.scale != "none":
            logits = logits / self.divisor()
        return logits.softmax(-1)

    def _pairs(self, x: Tensor) -> Tensor:
        """relu(w . [theta_i, phi_j]) of every pair, `b places attended`."""
        theta = self.theta(x).reshape(x.shape[0], self.embedded, -1, 1)
        phi = self.phi(x).reshape(x.shape[0], self.embedded, 1, -1)
        pairs = torch.cat([theta.repeat(1, 1, 1, phi.shape[3]), phi.repeat(1, 1, theta.shape[2], 1)], 1)
        projected: Tensor = self.concat_project(pairs)
        return projected.squeeze(1)


def _identity_at_first(embedded: int, channels: int, bn_layer: bool) -> nn.Module:
    conv = nn.Conv2d(embedded, channels, 1)
    last = nn.BatchNorm2d(channels) if bn_layer else conv
    for parameter in last.parameters():
        nn.init.zeros_(parameter)
    return nn.Sequential(conv, last) if bn_layer else conv


class _Affine(NamedTuple):
    """Weight `out in` and bias of a projection."""

    weight: Tensor
    bias: Tensor

    def times(self, factor: float) -> _Affine:
        return _Affine(self.weight * factor, self.bias * factor)

    def then(self, matrix: Tensor) -> _Affine:
        """This projection and then a matrix, as one."""
        return _Affine(matrix @ self.weight, matrix @ self.bias)


_Part = tuple[Tensor, Tensor | None]  # an _Affine, or a weight whose bias is not needed


def _projection(reference: NonLocal, name: str) -> _Affine:
    """The weights of g, theta, phi or W, a BatchNorm folded in."""
    module: Any = reference.get_submodule(name)
    if name == "W" and reference.bn_layer:
        weight, bias = fold_norm(module[0], module[1])
    else:
        conv: Any = module[0] if isinstance(module, nn.Sequential) else module
        weight, bias = conv.weight.detach(), conv.bias.detach()
    return _Affine(weight.flatten(1), bias)


class _Plan(NamedTuple):
    """What an export form is built for."""

    reference: NonLocal
    shape: MapShape
    family: str

    @property
    def attended(self) -> MapShape:
        """The map of attended places."""
        channels, height, width = self.shape
        if not self.reference.sub_sample or height is None or width is None:
            return self.shape
        return MapShape(channels, height // 2, width // 2)

    @property
    def root(self) -> float:
        """What either factor is multiplied by, so that their product is divided by the attended places."""
        return 1.0 if self.attended.area is None else self.attended.area**-0.5

    @property
    def blocks(self) -> list[int]:
        return block_sizes(self.shape.area, self.attended.area) if self.family == "cpu" else []

    @property
    def moves_projections(self) -> bool:
        """Whether step 3 applies."""
        places, attended = self.shape.area, self.attended.area
        if places is None or attended is None or not self.reference.sub_sample:
            return False
        depth, channels = self.reference.embedded, self.shape.channels
        return channels * depth * (places - attended) >= 2 * places * attended * (channels - depth)

    def embedding(self, parts: Sequence[_Part], sub_sampled: bool) -> _Multiplied | _Convolved:
        """1x1 convolutions of the input, max-pooled where asked."""
        pools = sub_sampled and self.reference.sub_sample
        # Only where the size is known do tokens become a map again, which the pooling takes. A Gaussian pools the
        # input too: TensorRT lays that out for it, and then a convolution needs no layout of its own.
        convolves = self.family == "cpu" or (pools and (self.shape.area is None or self.reference.mode == "gaussian"))
        return (_Convolved if convolves else _Multiplied)(self, parts, sub_sampled)


class _Tokens(nn.Module):
    """A map of so many channels, max-pooled where asked, as tokens `b channels n`."""

    def __init__(self, plan: _Plan, channels: int, sub_sampled: bool) -> None:
        super().__init__()
        self.channels = channels
        self.shape = plan.attended if sub_sampled else plan.shape
        self.pool = nn.MaxPool2d(2) if sub_sampled and plan.reference.sub_sample else None

    def forward(self, x: Tensor) -> Tensor:
        return tokens(x if self.pool is None else self.pool(x), self.channels, self.shape)


class _Convolved(nn.Module):
    """One convolution each, `b c h w` -> several `b out n`."""

    def __init__(self, plan: _Plan, parts: Sequence[_Part], sub_sampled: bool) -> None:
        super().__init__()
        self.projections = nn.ModuleList(
            nn.Sequential(pointwise(*part), _Tokens(plan, len(part[0]), sub_sampled)) for part in parts
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        return [project(x) for project in self.projections]


class _Multiplied(nn.Module):
    """One matrix product for all, `b c h w` -> several `b out n`."""

    def __init__(self, plan: _Plan, parts: Sequence[_Part], sub_sampled: bool) -> None:
        super().__init__()
        self.shape = plan.shape
        self.sections = [len(weight) for weight, _ in parts]
        biases = [bias for _, bias in parts if bias is not None]
        self.project = Projection(torch.cat([weight for weight, _ in parts]), torch.cat(biases) if biases else None)
        self.tokens = _Tokens(plan, sum(self.sections), sub_sampled)

    def forward(self, x: Tensor) -> list[Tensor]:
        projected: Tensor = self.project(tokens(x, self.shape.channels, self.shape))
        if self.tokens.pool is not None:
            projected = self.tokens(as_map(projected, x, self.shape._replace(channels=sum(self.sections))))
        return list(projected.split(self.sections, 1)) if len(self.sections) > 1 else [projected]


class _Last(nn.Module):
    """x + W y, of y as tokens `b d n`."""

    def __init__(self, plan: _Plan, last: _Affine) -> None:
        super().__init__()
        self.shape = plan.shape
        self.map = plan.shape._replace(channels=last.weight.shape[1])
        self.convolves = plan.family == "cpu" and plan.shape.area is not None
        self.project = pointwise(*last) if self.convolves else Projection(*last)

    def values(self, g: Tensor) -> Tensor:
        """What is to be weighed."""
        return g

    def forward(self, y: Tensor, x: Tensor) -> Tensor:
        projected: Tensor = self.project(as_map(y, x, self.map) if self.convolves else y)
        return as_map(projected, x, self.shape) + x


class _MovedLast(nn.Module):
    """x + y, of y as tokens `b c n`: W is behind g."""

    def __init__(self, plan: _Plan, last: _Affine) -> None:
        super().__init__()
        self.shape = plan.shape
        self.project = Projection(*last)

    def values(self, g: Tensor) -> Tensor:
        projected: Tensor = self.project(g)
        return projected

    def forward(self, y: Tensor, x: Tensor) -> Tensor:
        return as_map(y, x, self.shape) + x


class _Theta(nn.Module):
    """Queries, the keys as they are, and nothing to add to the logits."""

    def __init__(self, plan: _Plan, theta: _Affine) -> None:
        super().__init__()
        self.queries = plan.embedding([theta], False)

    def forward(self, x: Tensor, keys: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        return self.queries(x)[0], keys, None


class _NoTheta(nn.Module):
    """The map itself as queries."""

    def __init__(self, plan: _Plan) -> None:
        super().__init__()
        self.queries = _Tokens(plan, plan.shape.channels, False)

    def forward(self, x: Tensor, keys: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        return self.queries(x), keys, None


class _MovedTheta(_NoTheta):
    """The map itself as queries, theta behind the keys, and its bias as a row to add to the logits."""

    def __init__(self, plan: _Plan, theta: _Affine) -> None:
        super().__init__(plan)
        self.project = Projection(theta.weight.T, None)
        self.row = Projection(theta.bias[None], None)

    def forward(self, x: Tensor, keys: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        return self.queries(x), self.project(keys), self.row(keys)


class _Softmax(nn.Module):
    """Steps 1 to 3: `embedded_gaussian` and `gaussian`."""

    def __init__(self, plan: _Plan) -> None:
        super().__init__()
        reference = plan.reference
        g, last = _projection(reference, "g"), _projection(reference, "W")
        last = _Affine(last.weight, last.bias + last.weight @ g.bias)
        self.last = _MovedLast(plan, last) if plan.moves_projections else _Last(plan, last)
        self.blocks = plan.blocks
        parts: list[_Part] = [(g.weight, None)]
        self.own_keys: _Tokens | None = None
        self.theta: nn.Module
        if reference.mode == "gaussian":
            self.own_keys = _Tokens(plan, plan.shape.channels, True)
            self.theta = _NoTheta(plan)
        else:
            parts.insert(0, (_projection(reference, "phi").weight, None))
            theta = _projection(reference, "theta").times(1 / reference.divisor())
            self.theta = _MovedTheta(plan, theta) if plan.moves_projections else _Theta(plan, theta)
        self.attended = plan.embedding(parts, True)

    def forward(self, x: Tensor) -> Tensor:
        attended = self.attended(x)
        queries, keys, row = self.theta(x, attended[0] if self.own_keys is None else self.own_keys(x))
        values = self.last.values(attended[-1]).transpose(1, 2)

        def attend(block: Tensor) -> Tensor:
            logits = block @ keys if row is None else block @ keys + row
            return logits.softmax(-1) @ values

        y = in_blocks(attend, queries.transpose(1, 2), self.blocks)
        projected: Tensor = self.last(y.transpose(1, 2), x)
        return projected


class _DotProduct(nn.Module):
    """Step 4."""

    def __init__(self, plan: _Plan) -> None:
        super().__init__()
        self.open = plan.shape.area is None
        parts = [_projection(plan.reference, name).times(plan.root) for name in ("phi", "g")]
        self.attended = plan.embedding(parts, True)
        self.theta = plan.embedding([_projection(plan.reference, "theta")], False)
        self.last = _Last(plan, _projection(plan.reference, "W"))

    def forward(self, x: Tensor) -> Tensor:
        phi, g = self.attended(x)
        if self.open:
            root = area_of(phi).sqrt()
            phi, g = phi / root, g / root
        projected: Tensor = self.last((g @ phi.transpose(1, 2)) @ self.theta(x)[0], x)
        return projected


class _Concatenation(nn.Module):
    """Step 5."""

    def __init__(self, plan: _Plan) -> None:
        super().__init__()
        reference = plan.reference
        of_theta, of_phi = reference.get_parameter("concat_project.0.weight").detach().flatten(1).chunk(2, 1)
        theta, phi, g = (_projection(reference, name).times(plan.root) for name in ("theta", "phi", "g"))
        self.open = plan.shape.area is None
        self.blocks = plan.blocks
        self.theta = plan.embedding([theta.then(of_theta)], False)
        self.attended = plan.embedding([phi if reference.sub_sample else phi.then(of_phi), g], True)
        self.of_phi = Projection(of_phi, None) if reference.sub_sample else nn.Identity()
        self.last = _Last(plan, _projection(reference, "W"))

    def forward(self, x: Tensor) -> Tensor:
        phi, g = self.attended(x)
        column, row = self.theta(x)[0].transpose(1, 2), self.of_phi(phi)
        if self.open:
            root = area_of(g).sqrt()
            column, row, g = column / root, row / root, g / root
        values = g.transpose(1, 2)
        y = in_blocks(lambda block: torch.relu(block + row) @ values, column, self.blocks)
        projected: Tensor = self.last(y.transpose(1, 2), x)
        return projected


_MODES: Mapping[str, Callable[[_Plan], nn.Module]] = MappingProxyType(
    {
        "embedded_gaussian": _Softmax,
        "gaussian": _Softmax,
        "dot_product": _DotProduct,
        "concatenation": _Concatenation,
    }
)


class NonLocalCpu(nn.Module):
    """NonLocal with convolutions, the queries in blocks."""

    family: ClassVar[str] = "cpu"

    def __init__(self, reference: NonLocal, shape: MapShape) -> None:
        super().__init__()
        self.attention = _MODES[reference.mode](_Plan(reference, shape, self.family))

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.attention(x)
        return result


class NonLocalGpu(NonLocalCpu):
    """NonLocal with matrix products, all queries at once."""

    family = "gpu"


NonLocal.forms = {"cpu": NonLocalCpu, "gpu": NonLocalGpu}
