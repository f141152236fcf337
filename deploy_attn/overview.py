"""The commands and what each does, in one line; `--help` without any library."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

COMMANDS: Mapping[str, str] = MappingProxyType(
    {
        "list": "Show the catalogue (names, papers, options, constraints) or, with --targets, the targets.",
        "export": "Write a module or network as a verified ONNX artifact.",
        "verify": "Re-check an artifact from its own files; torch is not needed.",
        "lint": "Find what a target would refuse or misread in any ONNX file, without that target.",
        "build": "Build an artifact's engine for a target, beside it.",
        "bench": "Time an artifact against rivals or another one, pair by pair, or --estimate its floor on a target.",
        "bundle": "Pack an artifact and its runner into one file for a device.",
        "remote": "Run an artifact's capsule on boards over SSH, and bring their verdicts back.",
        "report": "Show verdicts of the host and of boards in one table, or all that is known as a page.",
        "sweep": "Measure modules x shapes x precisions x engines, here or on several machines; resumable.",
        "tune": "Choose onnxruntime's settings for an artifact by measurement, and store them in it.",
        "fuse": "Write a module as one operator that is compiled here, for onnxruntime on this CPU.",
        "tax": "Measure what the attention of a network costs: as written, in export form, and removed.",
        "doctor": "Show what is installed here, and what is missing for what.",
    }
)


def overview() -> str:
    width = max(map(len, COMMANDS))
    commands = "\n".join(f"  {name:<{width}}  {summary}" for name, summary in COMMANDS.items())
    return f"""Usage: deploy-attn COMMAND [OPTIONS] ...

Vision attention out of PyTorch and onto a Jetson or a desktop GPU.

Commands:
{commands}

  deploy-attn COMMAND --help  shows a command's options.
  deploy-attn --version       shows the version.

Start with: deploy-attn export cbam --fp16"""
