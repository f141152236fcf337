"""torchvision beside a torch for CPUs: there is no build of it for that, and its models need none of its operators."""

from __future__ import annotations

from types import ModuleType


def torchvision_here() -> ModuleType:
    """torchvision, with the two operators declared that it registers shapes for when it is imported."""
    import importlib
    import sys

    if "torchvision" not in sys.modules:
        import torch

        library = torch.library.Library("torchvision", "FRAGMENT")
        for name in ("nms", "qnms"):
            if not hasattr(torch.ops.torchvision, name):
                library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return importlib.import_module("torchvision")
