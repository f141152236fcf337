"""Networks of all kinds through the command line: exported and verified, or told why not."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.deploy_attn.command_line import Cli, write_network


def test_an_operator_that_no_exporter_knows_is_one_message(in_folder: Path) -> None:
    """In a process of its own: what the exporter dumps bypasses Python's stdout."""
    (in_folder / "net.py").write_text(
        "import torch\n"
        "class Net(torch.nn.Module):\n"
        "    def forward(self, x):\n"
        "        return torch.linalg.qr(x)[0]\n"
        "def build():\n"
        "    return Net()\n",
        encoding="utf-8",
    )
    command = [sys.executable, "-m", "deploy_attn", "export", "net.py:build", "--shape", "1x3x8x8", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert json.loads(done.stdout)["exit_code"] == 2
    assert done.stderr.startswith("deploy-attn: The exporter refuses this network: ")
    assert "  aten::linalg_qr in the network itself (Net), net.py:4\n" in done.stderr
    assert len(done.stderr.splitlines()) < 10


def test_a_standard_transformer_layer_is_exported(cli: Cli, in_folder: Path) -> None:
    (in_folder / "net.py").write_text(
        "import torch, deploy_attn\n"
        "class Net(torch.nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.gate = deploy_attn.create('se', channels=16, reduction=4)\n"
        "        self.layer = torch.nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)\n"
        "    def forward(self, x):\n"
        "        return self.layer(self.gate(x).flatten(2).transpose(1, 2))\n"
        "def build():\n"
        "    return Net()\n",
        encoding="utf-8",
    )
    done = cli("export", "net.py:build", "--shape", "1x16x4x4", "--fp16")
    assert done.exit_code == 0, done.stdout + done.stderr
    assert "replaced  se at gate" in done.stdout


@pytest.mark.parametrize(
    ("init", "forward"),
    [
        ("", "return self.gate(x=x)"),
        ("", "return self.gate(x.mul_(2))"),
        ("", "return self.gate(x).argmax(1)"),
        ("", "return self.gate(x), torch.ones(3)"),
        ("", "return {'map': self.gate(x), 'more': [x.mean(1), (x.amax((2, 3)), None)]}"),
        ("self.first = torch.nn.LazyConv2d(16, 1)", "return self.gate(self.first(x))"),
        ("", "return self.gate(x).flatten(2).transpose(1, 2).sum(1)"),
        ("", "return self.gate(x).double()"),
    ],
    ids=["keyword", "in-place", "integers", "constant-output", "dict", "lazy", "tokens", "double-output"],
)
@pytest.mark.parametrize("more", [[], ["--dynamic-batch"]], ids=["static", "dynamic-batch"])
@pytest.mark.filterwarnings("ignore:ONNX Preprocess - Removing mutation:UserWarning")
def test_unusual_networks_are_exported(cli: Cli, in_folder: Path, init: str, forward: str, more: list[str]) -> None:
    write_network(in_folder, forward, init)
    done = cli("export", "net.py:build", "--shape", "2x16x6x5", "--fp16", *more)
    assert done.exit_code == 0, done.stdout + done.stderr
    assert "replaced  se at gate" in done.stdout


@pytest.mark.parametrize(
    ("init", "forward", "code", "words"),
    [
        ("", "return self.gate(x) + torch.rand_like(x)", 2, "two results for one input"),
        ("", "return self.gate(x)[:, :0]", 2, "empty tensor"),
        ("", "return torch.ones(2, 3)", 2, "do not depend on its input"),
        (
            "self.lock = __import__('threading').Lock()",
            "return self.gate(x)",
            2,
            "cannot be copied",
        ),
        (
            "self.table = [torch.ones(16, 1, 1, dtype=torch.float32)]",
            "return torch.matmul(self.gate(x)[..., :1, :1], self.table[0][:1])",
            2,
            "not in float64",
        ),
    ],
    ids=["random", "empty", "constant", "no-copy", "float32-only"],
)
def test_a_network_that_cannot_be_exported_is_told_why(
    cli: Cli, in_folder: Path, init: str, forward: str, code: int, words: str
) -> None:
    write_network(in_folder, forward, init)
    done = cli("export", "net.py:build", "--shape", "2x16x6x5", "--fp16")
    assert done.exit_code == code, done.stdout + done.stderr
    assert words in done.stderr
    assert not (in_folder / "out").exists()


def test_a_replacement_that_its_network_does_not_bear_is_taken_back(cli: Cli, in_folder: Path) -> None:
    write_network(in_folder, "return self.gate(x) * self.gate.fc[0].weight.sum()")
    done = cli("export", "net.py:build", "--shape", "2x16x6x5", "--fp16")
    assert done.exit_code == 0, done.stdout + done.stderr
    assert "left alone  se at gate" in done.stdout
    assert "raises AttributeError" in done.stdout


def test_a_rank_that_hangs_on_the_batch_is_refused_for_an_open_one(cli: Cli, in_folder: Path) -> None:
    write_network(in_folder, "return self.gate(x).squeeze(0)")
    assert cli("export", "net.py:build", "--shape", "1x16x6x5", "-o", "a").exit_code == 0
    done = cli("export", "net.py:build", "--shape", "2x16x6x5", "--dynamic-batch", "-o", "b")
    assert done.exit_code == 2
    assert "depends on the batch" in done.stderr


@pytest.mark.parametrize("name", ["shuffle", "srm", "gct"])
@pytest.mark.parametrize("target", ["onnxruntime-cpu", "jetson-nano"])
def test_a_fresh_network_whose_weights_are_alike_is_exported_for_any_size(
    cli: Cli, in_folder: Path, name: str, target: str
) -> None:
    write_network(
        in_folder,
        forward="return self.layers(x)",
        init=f"self.layers = torch.nn.Sequential(torch.nn.Conv2d(3, 32, 3), deploy_attn.create({name!r}, channels=32))",
    )
    done = cli("export", "net.py:build", "--shape", "1x3x16x16", "--target", target, "--fp16", "--dynamic-size")
    assert done.exit_code == 0, done.stderr


def test_a_module_that_was_left_alone_is_named_where_the_exporter_refuses(cli: Cli, in_folder: Path) -> None:
    write_network(
        in_folder,
        forward="y = self.fca(x).mean() + self.fca(x[:, :, ::2, ::2]).mean((1, 2, 3)); return torch.hypot(y, y)",
        init="self.fca = deploy_attn.create('fca', channels=16)",
    )
    done = cli("export", "net.py:build", "--shape", "1x16x16x16")
    assert done.exit_code == 2
    assert "Left as it was: fca: it is called with maps of several sizes" in done.stderr
