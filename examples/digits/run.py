"""Trains, exports with --fp16, and prints top-1 of PyTorch and of both graphs on held-out images.

The FP16 graph is counted twice: as onnxruntime runs it, and rounded to FP16 at
every FP16 node, because a CPU computes such nodes in FP32.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import nn
from train import digits, train

from deploy_attn.cli import main as deploy_attn_main
from deploy_attn.engines.onnxruntime import OnnxRuntimeRunner
from deploy_attn.engines.rounding import rounded_from_typed

HERE = Path(__file__).resolve().parent
Array = np.ndarray[Any, np.dtype[Any]]


def main() -> int:
    """Exit code 0 if the artifact holds, else what `deploy-attn export` gave."""
    parser = argparse.ArgumentParser(description="Train, export and compare.")
    parser.add_argument("--output", type=Path, default=Path("out/digits"), help="folder for checkpoint and artifact")
    parser.add_argument("--target", default="onnxruntime-cpu", help="as in deploy-attn export")
    arguments = parser.parse_args()

    started = time.perf_counter()
    network = train()
    print(f"trained on 1257 images in {time.perf_counter() - started:.1f} s")
    artifact = export(network, arguments.output, arguments.target)
    for name, accuracy in top1(network, artifact).items():
        print(f"top-1 on 540 held-out images  {name:<30} {accuracy:6.2f} %")
    return 0


def export(network: nn.Module, output: Path, target: str) -> Path:
    """Runs the command that a user would, on the checkpoint and a batch of held-out images."""
    output.mkdir(parents=True, exist_ok=True)
    checkpoint, images, artifact = output / "digits.pt", output / "images.npy", output / "artifact"
    torch.save(network.state_dict(), checkpoint)
    np.save(images, digits()[1][:16])
    command = ["export", f"{HERE / 'network.py'}:build", "--checkpoint", str(checkpoint), "--input", str(images)]
    command += ["--fp16", "--dynamic-batch", "--target", target, "-o", str(artifact), "--force"]
    try:
        deploy_attn_main(command)
    except SystemExit as finished:
        if finished.code:
            sys.exit(finished.code)
    return artifact


def top1(network: nn.Module, artifact: Path) -> dict[str, float]:
    """Percent of held-out digits that each form of the network gets right."""
    _, images, _, labels = digits()
    half = (artifact / "model.fp16.onnx").read_bytes()
    graphs = {
        "ONNX FP32": (artifact / "model.onnx").read_bytes(),
        "ONNX FP16": half,
        "ONNX FP16, every node rounded": rounded_from_typed(onnx.load_from_string(half)).SerializeToString(),
    }
    with torch.inference_mode():
        outputs = {"PyTorch": network(torch.from_numpy(images)).numpy()}
    for name, graph in graphs.items():
        with OnnxRuntimeRunner(graph) as runner:
            outputs[name] = runner.infer({"input": images})["output"]
    return {name: float((scores.argmax(1) == labels).mean() * 100) for name, scores in outputs.items()}


if __name__ == "__main__":
    sys.exit(main())
