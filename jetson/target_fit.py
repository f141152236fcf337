"""Whether this device is the one that a capsule was made for."""

import re
from typing import Any, Mapping, Optional, Tuple

from .capsule import Capsule
from .errors import BadRequest


def check_device(capsule: Capsule, device: Optional[Mapping[str, Any]]) -> None:
    """Raises BadRequest where the GPU is another than the target's; engines do not move between them."""
    wanted = capsule.facts.get("device.compute_capability")
    if device is None or wanted is None:
        return
    found = str(device["compute_capability"])
    if found != str(wanted):
        raise BadRequest(
            "This capsule is for {} with compute capability {}; {} here has {}. Bundle the artifact for a target of "
            "compute capability {} (`deploy-attn list --targets`), or run it with --engine onnxruntime, for parity "
            "without TensorRT.".format(capsule.target, wanted, device.get("name") or "the GPU", found, found)
        )


def check_tensorrt(capsule: Capsule, version: str) -> None:
    """Raises BadRequest where TensorRT is older than the one that the graph was checked for."""
    wanted = capsule.facts.get("runtime.tensorrt")
    if wanted is None:
        raise BadRequest(
            "This capsule is for {}, which runs onnxruntime and not TensorRT. Run it with --engine onnxruntime, or "
            "bundle the artifact for a target with TensorRT (`deploy-attn list --targets`).".format(capsule.target)
        )
    if _numbers(version)[:2] < _numbers(str(wanted))[:2]:
        raise BadRequest(
            "This capsule is for {} with TensorRT {}; here is {}, which is older and may misread what was checked for "
            "the newer one. Bundle the artifact for a target with the version that is here, or run it with --engine "
            "onnxruntime.".format(capsule.target, wanted, version)
        )


def _numbers(version: str) -> Tuple[int, ...]:
    """`10.13.2.6` as numbers; what follows them, as `rc1`, is left out."""
    return tuple(int(part) for part in re.split(r"[^\d.]", version)[0].split(".") if part)
