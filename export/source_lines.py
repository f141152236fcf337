"""How a line of a user's source, and a module of a network, are named in a message."""

from __future__ import annotations

import os


def source_line(file: str, line: int) -> str:
    """`net.py:12`, from the current folder where the file is below it."""
    return f"{os.path.relpath(file) if file.startswith(os.getcwd() + os.sep) else file}:{line}"


def module_said(path: str, class_name: str) -> str:
    """`layer1.0 (Block)`."""
    return f"{path or 'the network itself'} ({class_name})"


def is_torchs_own(file: str) -> bool:
    """Whether a file is part of PyTorch, or hands its calls on."""
    import torch

    handed_on = os.path.join(os.path.dirname(__file__), "functions")  # every call goes through it
    return file.startswith((os.path.dirname(torch.__file__) + os.sep, handed_on + os.sep))
