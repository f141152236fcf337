"""Copies of the catalogue's sources under any class name: the state_dict is that of a reference form."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from deploy_attn.rewriting.families.loaded import loaded, numbers, tensors_of
from deploy_attn.rewriting.match import Match
from deploy_attn.rewriting.sources import seen

if TYPE_CHECKING:
    from torch import Size, nn

    from deploy_attn.modules.base import MapShape, ReferenceForm

    Options = Iterator[dict[str, object]]
    Shapes = dict[str, Size]

_PATCHES = (7, 2, 4, 8)
_MODES = (("l2", False), ("l1", False), ("l1", True))


class _Row(NamedTuple):
    """A catalogue module, names that a copy of it surely holds, and its options read from the copy, likeliest first."""

    name: str
    held: frozenset[str]
    options: Callable[[nn.Module, Shapes], Options]


def recognise(module: nn.Module) -> Iterator[Match]:
    """A copy has the keys and shapes of a reference form with the options that these shapes and its attributes say."""
    held = {*module._modules, *module._parameters, *module._buffers}
    for row in _ROWS:
        if row.held <= held:
            shapes = {key: value.shape for key, value in tensors_of(module).items()}
            yield from _readings(module, row, shapes)


def _readings(module: nn.Module, row: _Row, shapes: Shapes) -> Iterator[Match]:
    try:
        options = list(row.options(module, shapes))
    except (KeyError, IndexError, ValueError, ZeroDivisionError):  # keys or shapes of something else
        return
    for chosen in options:
        reference = loaded(row.name, chosen, module)
        if reference is not None:
            said = ", ".join(f"{name}={value}" for name, value in chosen.items())
            evidence = seen(module, (), f"they are those of the catalogue's {row.name} with {said}")
            yield Match(row.name, evidence, _built(module, reference))
            if row.name == "s2":
                build = functools.partial(_channels_last_form, reference)
                yield Match(row.name, (*evidence, "maps are b h w c"), build, layout="b h w c")


def _built(module: nn.Module, reference: ReferenceForm) -> Callable[[MapShape, str], nn.Module]:
    if reference.catalogue_name == "encnet":
        return functools.partial(_encnet_form, module, reference)
    return reference.form_for


def _channels_last_form(reference: ReferenceForm, shape: MapShape, engine: str) -> nn.Module:
    from deploy_attn.modules.own_layers import ChannelsLast

    return ChannelsLast(reference.form_for(shape, engine))


def _encnet_form(module: nn.Module, reference: Any, shape: MapShape, engine: str) -> nn.Module:
    """The source returns a tuple, its copies often the map alone: what this one returns is seen by calling it."""
    import torch

    from deploy_attn.modules.encnet import EncNetTuple

    like = reference.get_parameter("fc.0.weight")
    with torch.inference_mode():
        returned = module(like.new_zeros(1, shape.channels, shape.height or 2, shape.width or 2))
    form = reference.form_for(shape, engine)
    return EncNetTuple(reference, form, type(returned)) if type(returned) in (tuple, list) else form


def _cot(module: nn.Module, shapes: Shapes) -> Options:
    channels, _, kernel_size, _ = shapes["key_embed.0.weight"]
    yield {"channels": channels, "kernel_size": kernel_size}


def _sk(module: nn.Module, shapes: Shapes) -> Options:
    kernels = tuple(
        shapes[f"convs.{index}.conv.weight"][2]
        for index in range(len(shapes))
        if f"convs.{index}.conv.weight" in shapes
    )
    hidden, channels = shapes["fc.weight"]
    groups = channels // shapes["convs.0.conv.weight"][1]
    yield {"channels": channels, "kernel_sizes": kernels, "groups": groups, "reduction": channels, "min_hidden": hidden}


def _parnet(module: nn.Module, shapes: Shapes) -> Options:
    yield {"channels": shapes["conv1x1.0.weight"][0]}


def _gsop(module: nn.Module, shapes: Shapes) -> Options:
    att_dim, channels, *_ = shapes["conv_for_DR.weight"]
    yield {"channels": channels, "att_dim": att_dim}


def _srm(module: nn.Module, shapes: Shapes) -> Options:
    yield {"channels": shapes["cfc"][0]}


def _gct(module: nn.Module, shapes: Shapes) -> Options:
    epsilon = (*numbers(module, "epsilon", "eps"), 1e-5)[0]
    mode = vars(module).get("mode")
    own = mode if isinstance(mode, str) else None, vars(module).get("after_relu") is True
    for mode, after_relu in sorted(_MODES, key=lambda mode: mode != own):
        yield {"channels": shapes["alpha"][1], "epsilon": epsilon, "mode": mode, "after_relu": after_relu}


def _fca(module: nn.Module, shapes: Shapes) -> Options:
    channels, height, width = shapes["dct_layer.weight"]
    dct = {"dct_height": height, "dct_width": width, "frequencies": _frequencies(module)}
    yield {"channels": channels, "reduction": channels // shapes["fc.0.weight"][0], **dct}


def _frequencies(module: nn.Module) -> str:
    """Into how many runs of equal filters the channels fall; one where they do not."""
    weight = module.state_dict()["dct_layer.weight"]
    for parts in (1, 2, 4, 8, 16):
        if len(weight) % parts == 0:
            members = weight.unflatten(0, (parts, -1))
            if bool((members == members[:, :1]).all()):
                return f"top{parts}"
    return "top1"


def _encnet(module: nn.Module, shapes: Shapes) -> Options:
    codes, channels = shapes["encoding.3.codewords"]
    head = shapes.get("selayer.weight")
    yield {"channels": channels, "codes": codes, "se_loss": head is not None, "classes": head[0] if head else 1}


def _bilinear(module: nn.Module, shapes: Shapes) -> Options:
    yield {"channels": shapes["dimReduceLayer1.conv.conv.weight"][1]}


def _mobilevit(module: nn.Module, shapes: Shapes) -> Options:
    dim, channels, *_ = shapes["conv2.weight"]
    patches = dict.fromkeys((*numbers(module, "ph", "patch_size", "patch_h"), *_PATCHES))
    for patch_size in patches:
        kernel_size = shapes["conv1.weight"][2]
        yield {"channels": channels, "dim": dim, "kernel_size": kernel_size, "patch_size": patch_size}


def _self_attention(module: nn.Module, shapes: Shapes) -> Options:
    for scale in (False, True):
        yield {"channels": shapes["wq.weight"][0], "scale": scale}


def _s2(module: nn.Module, shapes: Shapes) -> Options:
    """What in-place copies make of the shift on one CPU thread is the second reading."""
    for semantics in ("shift", "smear"):
        yield {"channels": shapes["mlp2.weight"][0], "semantics": semantics}


_ROWS = (
    _Row("cot", frozenset({"key_embed", "value_embed", "attention_embed"}), _cot),
    _Row("sk", frozenset({"convs", "fc", "fcs"}), _sk),
    _Row("parnet", frozenset({"sse", "conv1x1", "conv3x3"}), _parnet),
    _Row("gsop", frozenset({"conv_for_DR", "row_bn", "row_conv_group"}), _gsop),
    _Row("srm", frozenset({"cfc", "bn"}), _srm),
    _Row("gct", frozenset({"alpha", "gamma", "beta"}), _gct),
    _Row("fca", frozenset({"dct_layer", "fc"}), _fca),
    _Row("encnet", frozenset({"encoding", "fc"}), _encnet),
    _Row("bilinear", frozenset({"dimReduceLayer1", "dimReduceLayer2", "dimReduceLayer3"}), _bilinear),
    _Row("mobilevit", frozenset({"conv1", "conv2", "conv3", "conv4", "trans"}), _mobilevit),
    _Row("self_attention", frozenset({"wq", "wk", "wv"}), _self_attention),
    _Row("s2", frozenset({"mlp1", "mlp2", "split_attention"}), _s2),
)
