"""What the tests of the command line share: shapes, networks, and a look into folders."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.conftest import Finished

Cli = Callable[..., Finished]
SMALL = ("--shape", "1x32x8x7")
NETWORK = """
import torch
from torch import nn
import deploy_attn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.attention = deploy_attn.create("s2", channels=16)
        self.gates = nn.ModuleList([deploy_attn.create("se", channels=16, reduction=4)])
        self.again = self.gates[0]
        self.head = nn.Linear(16 * 8 * 8, 4)

    def forward(self, x):
        x = self.gates[0](self.attention(self.stem(x)))
        print("the network talks")
        return self.head(self.again(x).flatten(1))

def build():
    return Net()

def broken():
    return missing_name

def number():
    return 4

def leaves():
    raise SystemExit("bye")

instance = nn.ReLU()
"""


def files_of(folder: Path) -> dict[str, bytes]:
    """Contents by file name."""
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def write_network(folder: Path, forward: str, init: str = "", factory: str = "return Net()") -> None:
    """Writes net.py, whose Net gates its 16 channels with SE."""
    body = "".join(f"        {line}\n" for line in init.splitlines())
    (folder / "net.py").write_text(
        "import os, torch, deploy_attn\n"
        "class Net(torch.nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        f"{body}"
        "        self.gate = deploy_attn.create('se', channels=16, reduction=4)\n"
        "    def forward(self, x):\n"
        f"        {forward}\n"
        "def build():\n"
        f"    {factory}\n",
        encoding="utf-8",
    )
