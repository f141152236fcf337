"""The GPUs of this machine."""

from __future__ import annotations

import shutil
import subprocess

from deploy_attn.jetson.tensorrt_build import find_device

_NVIDIA_SMI_SECONDS = 20


def gpus(*fields: str) -> list[str]:
    """A line for each GPU with these fields of nvidia-smi; empty without a working driver.

    A Jetson may have no nvidia-smi: there it is the name and compute capability that CUDA itself tells.
    """
    tool = shutil.which("nvidia-smi")
    if tool is None:
        device, _ = find_device()
        return [] if device is None else [f"{device['name']}, {device['compute_capability']}"]
    query = [tool, f"--query-gpu={','.join(fields)}", "--format=csv,noheader"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=_NVIDIA_SMI_SECONDS, check=True)
    except (subprocess.SubprocessError, OSError):
        return []
    return [line.strip() for line in answer.stdout.splitlines() if line.strip()]
