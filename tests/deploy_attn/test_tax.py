"""What attention costs: each block in its three versions, the network, and a control."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from deploy_attn import BadRequest, create
from deploy_attn.rewriting.replacement import Wanted
from deploy_attn.tax import TaxOptions, attention_tax
from tests.deploy_attn.command_line import Cli

QUICK = TaxOptions(seconds=0.01)


class Gate(nn.Module):
    """A gate alone, as many networks have it: its map is multiplied outside."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, 4, 1, bias=False)
        self.fc2 = nn.Conv2d(4, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        mean, largest = x.mean((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)
        both = (self.fc2(torch.relu(self.fc1(pooled))) for pooled in (mean, largest))
        return torch.sigmoid(sum(both))


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.heavy = create("mhsa", channels=16)
        self.gate = Gate(16)
        self.idle = create("eca", channels=16)

    def forward(self, x: Tensor) -> Tensor:
        x = self.heavy(self.stem(x))
        gated: Tensor = x * self.gate(x)
        return gated


def test_each_block_and_the_network_are_timed_in_three_versions() -> None:
    report = attention_tax(Network(), torch.randn(1, 3, 20, 20), QUICK)
    assert [block.name for block in report.blocks] == ["heavy", "gate"]
    heavy, gate = report.blocks
    assert heavy.class_name.endswith("MHSA")
    assert all(value is not None and value > 0 for value in heavy.milliseconds.values())
    assert heavy.share is not None
    assert heavy.share > 0.5, "nothing is left of a block that is removed"
    assert gate.gain is not None
    assert gate.tax is None
    assert "a constant, which takes no time" in str(gate.note)
    total = report.total
    assert total.note is None
    assert total.gain is not None
    assert total.tax is not None
    assert total.share is not None
    assert total.share > 0.2, "most of this network is attention"
    assert len(report.control.ratios) >= 8
    assert [finding.paths for finding in report.left_alone] == [("idle",)]


def test_the_report_is_json_with_conditions() -> None:
    document = attention_tax(nn.Sequential(create("se", channels=16)), torch.randn(1, 16, 6, 5), QUICK).as_dict()
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    assert document["passed"] is True
    assert document["conditions"]["intra_op_threads"] == 1
    assert document["blocks"][0]["written_over_rewritten"]["pairs"] >= 30
    assert set(document["total"]["ms"]) == {"written", "rewritten", "removed"}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"engine": "tensorrt"}, "onnxruntime or onnxruntime-cuda"),
        ({"threads": 0}, "1 thread or more"),
        ({"seconds": 0.0}, "more than 0"),
        ({"seconds": float("nan")}, "more than 0"),
    ],
)
def test_what_cannot_be_measured_is_refused(options: dict[str, object], words: str) -> None:
    with pytest.raises(BadRequest, match=words):
        TaxOptions(**options)  # type: ignore[arg-type]  # rows of different fields


def test_a_network_without_attention_has_no_tax() -> None:
    with pytest.raises(BadRequest, match="no attention that was found and proven"):
        attention_tax(nn.Conv2d(3, 3, 1), torch.randn(1, 3, 4, 4), QUICK)


def test_the_command_prints_a_table_and_a_document(cli: Cli, in_folder: Path) -> None:
    (in_folder / "net.py").write_text(
        "from torch import nn\nfrom deploy_attn import create\n\n\n"
        "def build():\n    return nn.Sequential(nn.Conv2d(3, 16, 1), create('cbam', channels=16))\n"
    )
    done = cli("tax", "net.py:build", "--shape", "1x3x16x16", "--seconds", "0.01")
    assert done.exit_code == 0, done.stderr
    assert "cbam" in done.stdout
    assert "control" in done.stdout
    document = json.loads(cli("tax", "net.py:build", "--shape", "1x3x16x16", "--seconds", "0.01", "--json").stdout)
    assert document["blocks"][0]["recognised_as"] == "cbam"
    refused = cli("tax", "net.py:build", "--shape", "1x3x16x16", "--engine", "tensorrt")
    assert refused.exit_code == 2


SHIFTS = """
from torch import nn
from deploy_attn import create

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.gate = nn.Conv2d(3, 16, 1), create("se", channels=16, reduction=4)

    def forward(self, x):
        y = self.gate(self.stem(x))
        y[:, :, 1:] = y[:, :, :-1]
        return y

def build():
    return Net()
"""


def test_a_network_with_two_meanings_is_measured_in_the_one_that_is_chosen(cli: Cli, in_folder: Path) -> None:
    (in_folder / "net.py").write_text(SHIFTS)
    arguments = ("tax", "net.py:build", "--shape", "1x3x6x6", "--seconds", "0.01", "--json")
    refused = cli(*arguments)
    assert refused.exit_code == 2
    assert "Choose one: --semantics shift" in refused.stderr
    assert "net.py:12" in refused.stderr
    done = cli(*arguments, "--semantics", "smear")
    assert done.exit_code == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["conditions"]["semantics"] == "smear"
    assert [block["name"] for block in document["blocks"]] == ["gate"]
    assert all(milliseconds > 0 for milliseconds in document["total"]["ms"].values())
    unknown = cli(*arguments, "--semantics", "shfit")
    assert unknown.exit_code == 2
    assert "There is no semantics 'shfit'; it is shift or smear." in unknown.stderr


@pytest.mark.parametrize(("target", "family"), [("onnxruntime-cpu", "cpu"), ("jetson-nano", "gpu")])
def test_the_forms_are_those_of_the_targets_family(monkeypatch: pytest.MonkeyPatch, target: str, family: str) -> None:
    def stopped(network: nn.Module, arguments: object, wanted: Wanted) -> None:
        raise InterruptedError(wanted.engine)

    monkeypatch.setattr("deploy_attn.tax.rewrite_settled", stopped)
    with pytest.raises(InterruptedError, match=family):
        attention_tax(create("se", channels=16), torch.randn(1, 16, 4, 4), TaxOptions(target=target))
