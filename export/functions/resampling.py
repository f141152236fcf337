"""Resizing of maps in the modes that exporters or old parsers refuse: area, nearest-exact, cubic, antialiased.

Each axis on its own is linear in the map: a choice of rows, or a product with
a constant matrix. Both are read off PyTorch's own answer for one axis.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from deploy_attn.export.functions.pooling import adaptive_avg_pool1d, adaptive_avg_pool2d, applied
from deploy_attn.export.functions.rule import Aim, NoForm, pair, sizes_of

if TYPE_CHECKING:
    from torch import Tensor

_CUBIC_IS_READ = 17  # TensorRT 8.2 has no cubic Resize


def interpolate(aim: Aim, x: Tensor, mode: str = "nearest", antialias: bool = False, **settings: Any) -> Tensor | None:
    if mode == "area" and settings.get("size") is not None and x.dim() in (3, 4):
        pool = adaptive_avg_pool1d if x.dim() == 3 else adaptive_avg_pool2d
        return pool(aim, x, settings["size"])
    cubic = mode == "bicubic" and aim.opset < _CUBIC_IS_READ
    if x.dim() != 4 or not (antialias or cubic or mode in ("area", "nearest-exact")):
        return None
    if aim.open_size:
        raise NoForm(f"resizing by {mode} has a form for a known height and width only; export for one size")
    for axis in (-1, -2):
        own = {**settings, "mode": mode, "antialias": antialias}
        own["size"], own["scale_factor"] = (
            None if settings.get(name) is None else pair(settings[name])[axis] for name in ("size", "scale_factor")
        )
        x = _along(x, axis, own)
    return x


def _along(x: Tensor, axis: int, settings: dict[str, Any]) -> Tensor:
    """One axis resized."""
    import torch

    extent = sizes_of(x)[axis]
    if settings["mode"] == "nearest-exact":
        places = _answer(torch.arange(extent, dtype=torch.float64).reshape(extent, 1), settings)
        return x.index_select(axis, torch.tensor([int(place) for (place,) in places], device=x.device))
    return applied(x, axis, _answer(torch.eye(extent, dtype=torch.float64), settings))


def _answer(rows: Tensor, settings: dict[str, Any]) -> list[list[float]]:
    """A map of these rows, resized to more or fewer; as numbers, which a trace takes for constants."""
    from torch.nn import functional

    columns = sizes_of(rows)[1]
    own = {**settings, "size": settings["size"] and (int(settings["size"]), columns)}
    own["scale_factor"] = settings["scale_factor"] and (float(settings["scale_factor"]), 1.0)
    resized: list[list[float]] = functional.interpolate(rows[None, None], **own)[0, 0].tolist()
    return resized
