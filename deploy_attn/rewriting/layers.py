"""The layers with weights of a module, the parts of it that hold them, and the words that its code uses."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from deploy_attn.jetson.errors import BadRequest
from deploy_attn.rewriting.forward_names import names_in_forward

if TYPE_CHECKING:
    from torch import nn

    from deploy_attn.modules.cbam import Weights
    from deploy_attn.modules.own_layers import Block


@dataclass(frozen=True)
class Layer:
    """A Linear or a convolution, the norm of its output, and the layer's path."""

    path: str
    module: nn.Linear | nn.Conv1d | nn.Conv2d
    norm: nn.Module | None = None

    @property
    def inputs(self) -> int:
        """Channels taken; of a convolution in groups, those of one group."""
        return self.module.weight.shape[1]

    @property
    def outputs(self) -> int:
        return self.module.weight.shape[0]

    @property
    def kernel(self) -> tuple[int, ...]:
        """The extents of the kernel; of a Linear, none."""
        return tuple(self.module.weight.shape[2:])

    @property
    def is_pointwise(self) -> bool:
        """Whether it mixes all channels at one place: a Linear, or a 1x1 convolution."""
        return math.prod(self.kernel) == 1 and getattr(self.module, "groups", 1) == 1

    def weights(self) -> Weights:
        """Weight and bias, a BatchNorm folded in.

        Raises:
            BadRequest: the BatchNorm keeps no running statistics.
            ValueError: the norm is no BatchNorm.
        """
        return self.block().folded()

    def block(self) -> Block:
        """The layer and its BatchNorm.

        Raises:
            ValueError: the norm is no BatchNorm.
        """
        from torch import nn

        from deploy_attn.modules.own_layers import Block

        if isinstance(self.norm, nn.LayerNorm):
            raise ValueError(f"LayerNorm after {type(self.module).__name__} is not folded")
        return Block(self.module, self.norm, None)  # type: ignore[arg-type]  # a Conv1d is folded alike

    def same_size_weights(self) -> Weights:
        """`weights` of a convolution that keeps the size of the map, as forms lay it out.

        Raises:
            BadRequest: it has an even kernel, a stride, a dilation, or another padding than zeros for the same size.
        """
        conv = self.module
        plain = {"stride": (1, 1), "padding_mode": "zeros", "dilation": (1, 1)}
        found = {name: getattr(conv, name) for name, value in plain.items() if getattr(conv, name) != value}
        if conv.padding not in ("same", tuple(extent // 2 for extent in self.kernel)):
            found["padding"] = conv.padding
        if any(extent % 2 == 0 for extent in self.kernel):
            found["kernel_size"] = self.kernel
        if found:
            raise BadRequest(
                f"its convolution {self.path} has {', '.join(f'{name} {value}' for name, value in found.items())}; the "
                "form takes odd kernels, stride 1, dilation 1, and zeros around the map that keep its size"
            )
        return self.weights()


def layers_of(module: nn.Module, most: int) -> tuple[Layer, ...]:
    """The layers in the order in which they were registered, each with its norm.

    A norm belongs to the only layer that has as many outputs, or to the last
    such one before it. Weights that a module holds without a layer are read as
    one. Empty where there are more than `most` layers, another tensor, or a norm
    that fits none: then the module is something else.
    """
    from torch import nn

    layers: list[Layer] = []
    norms: list[tuple[int, nn.Module]] = []
    for path, part in module.named_modules():
        if isinstance(part, (nn.Linear, nn.Conv1d, nn.Conv2d)):
            if part is module or not _is_plain(part):
                return ()
            layers.append(Layer(path, part))
        elif isinstance(part, (nn.BatchNorm1d, nn.BatchNorm2d, nn.LayerNorm)):
            norms.append((len(layers), part))
        elif tensor_names(part):
            held = _held_layers(path, part)
            if not held:
                return ()
            layers += held
        if len(layers) > most:
            return ()
    return tuple(layers) if all(_attached(layers, *norm) for norm in norms) else ()


def _held_layers(path: str, part: nn.Module) -> list[Layer]:
    """Matrices and kernels that a module gives to functions itself, each with the bias of as many outputs."""
    from torch import nn
    from torch.nn.parameter import is_lazy

    from deploy_attn.modules.own_layers import layer_of

    named = dict(part.named_parameters(recurse=False))
    if is_of_torch(part) or tensor_names(part) != named.keys():
        return []
    if any(is_lazy(value) or value.dim() > 4 or not value.numel() for value in named.values()):
        return []
    prefix = f"{path}." if path else ""
    layers = [Layer(prefix + name, layer_of(value)) for name, value in named.items() if value.dim() > 1]
    for bias in (value for value in named.values() if value.dim() < 2):
        owner = next((layer for layer in layers if layer.module.bias is None and bias.shape == (layer.outputs,)), None)
        if owner is None:
            return []
        owner.module.bias = nn.Parameter(bias.detach(), requires_grad=False)
    return layers


def tensor_names(part: nn.Module) -> set[str]:
    """The parameters and buffers of a module itself, without its children's."""
    named = *part.named_parameters(recurse=False), *part.named_buffers(recurse=False)
    return {name for name, _ in named}


def _is_plain(layer: nn.Linear | nn.Conv1d | nn.Conv2d) -> bool:
    """Whether it holds a weight as torch's own does, and perhaps a bias."""
    from torch.nn.parameter import is_lazy

    plain = {"weight"} <= tensor_names(layer) <= {"weight", "bias"}
    return plain and not is_lazy(layer.weight) and layer.weight.dim() > 1


def _attached(layers: list[Layer], before: int, norm: nn.Module) -> bool:
    """Gives a norm, registered after so many layers, to its own."""
    from torch import nn

    size = math.prod(norm.normalized_shape) if isinstance(norm, nn.LayerNorm) else norm.num_features
    fitting = [index for index, layer in enumerate(layers) if layer.outputs == size]
    fitting = fitting if len(fitting) == 1 else [index for index in fitting if index < before]
    free = [index for index in fitting if layers[index].norm is None]
    if free:
        layers[free[-1]] = replace(layers[free[-1]], norm=norm)
    return bool(free)


def part_with(module: nn.Module, inside: Sequence[Layer], outside: Sequence[Layer]) -> nn.Module | None:
    """The largest submodule, no layer itself, that holds these layers and none of those; None where they are mixed."""
    steps = inside[0].path.split(".")[:-1]
    for count in range(1, len(steps) + 1):
        start = ".".join(steps[:count]) + "."
        held = [layer.path.startswith(start) for layer in inside]
        if all(held) and not any(layer.path.startswith(start) for layer in outside):
            return module.get_submodule(start[:-1])
    return None


def is_of_torch(module: nn.Module) -> bool:
    """A layer or a container of torch itself, which is no attention module; what torch.fx traced may be one."""
    package, *rooms = type(module).__module__.split(".")
    return package == "torch" and rooms[:1] != ["fx"]


def words_of(module: nn.Module) -> tuple[str, ...]:
    """The names in its forward and in those of its submodules, and the classes of these, in lower case."""
    words = list(names_in_forward(module))
    for part in module.modules():
        if part is not module:
            words += [type(part).__name__, *(() if is_of_torch(part) else names_in_forward(part))]
    return tuple(word.lower() for word in words)


def first_with(words: Sequence[str], *parts: str) -> int | None:
    """Where the first word stands that holds one of these parts; a softmax is no max."""
    found = (index for index, word in enumerate(words) if any(part in word.replace("softmax", "") for part in parts))
    return next(found, None)
