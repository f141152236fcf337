"""A user's own network through the command line: several inputs, files of them, checkpoints, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from deploy_attn import BadRequest, ExportRequest, export_artifact
from deploy_attn.jetson.artifact import open_artifact, read_manifest
from deploy_attn.sources import network_from_factory
from tests.deploy_attn.command_line import Cli

SOURCE = """
import torch, deploy_attn
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.norm = nn.BatchNorm2d(16)
        self.gate = deploy_attn.create("se", channels=16, reduction=4)
        self.table = nn.Embedding(50, 16)

    def forward(self, image, mask=None, *, tokens=None):
        y = self.gate(self.norm(self.stem(image)))
        if mask is not None:
            y = y * mask
        if tokens is not None:
            y = y + self.table(tokens).mean(1)[:, :, None, None]
        return {"map": y, "pooled": [y.mean((2, 3)), None]}

class Reshapes(Net):
    def forward(self, image):
        y = self.gate(self.stem(image))
        return y.reshape(int(y.shape[0]), 16, -1) * torch.ones(int(y.shape[0]), 1, 1)

class Holds(Net):
    def __init__(self):
        super().__init__()
        self.place = nn.Parameter(torch.ones(2, 16, 1, 1))
    def forward(self, image):
        return self.gate(self.stem(image)) * self.place

class Fails(Net):
    def forward(self, image):
        return self.gate(image)

class Quiet(Net):
    def train(self, mode=True):
        super().train(mode)

class Hooked(Net):
    def __init__(self):
        super().__init__()
        self.kept = {}
        self.stem.register_forward_hook(lambda module, given, result: self.kept.update(map=result))
    def forward(self, image):
        self.stem(image)
        return self.gate(self.kept["map"])

@torch.compile(backend="eager")
def doubled(x):
    return x * 2

class Decorated(Net):
    def forward(self, image):
        return doubled(self.gate(self.stem(image)))

def build(): return Net()
def quiet(): return Quiet()
def hooked(): return Hooked()
def decorated(): return Decorated()
def compiled(): return torch.compile(nn.DataParallel(Net()), backend="eager")
def half(): return Net().half().to(memory_format=torch.channels_last).train()
def normed(): return nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 16, 1)), Net().gate)
def lazy(): return nn.Sequential(nn.LazyConv2d(16, 1), nn.LazyBatchNorm2d(), Net().gate)
def reshapes(): return Reshapes()
def holds(): return Holds()
def fails(): return Fails()
def needs(width, depth=2, *, heads): return Net()
def nothing(): Net()
def a_class(): return Net
def a_pair(): return Net(), 3
def scripted(): return torch.jit.script(nn.Conv2d(3, 4, 1))
def on_meta():
    with torch.device("meta"):
        return Net()
def numbers():
    net = Net()
    net.forward = lambda image: (net.gate(net.stem(image)), 3.5)
    return net
"""


@pytest.fixture
def net(in_folder: Path) -> str:
    (in_folder / "my net.py").write_text(SOURCE, encoding="utf-8")
    return "my net.py"


def _passes(cli: Cli, *arguments: object) -> str:
    done = cli("export", *arguments)
    assert done.exit_code == 0, done.stdout + done.stderr
    return done.stdout


def _refused(cli: Cli, *arguments: object) -> str:
    done = cli("export", *arguments)
    assert done.exit_code == 2, done.stdout + done.stderr
    assert done.stdout == ""
    assert not Path("out").exists()
    return done.stderr


@pytest.mark.parametrize("target", ["onnxruntime-cpu", "jetson-nano"])
def test_several_inputs_are_named_typed_and_open(cli: Cli, net: str, target: str) -> None:
    shapes = ("--shape", "2x3x8x7", "--shape", "mask=2x1x8x7", "--shape", "tokens=2x5:int32")
    text = _passes(cli, f"{net}:build", *shapes, "--fp16", "--dynamic-batch", "--target", target, "-o", "a")
    assert "image Bx3x8x7, mask Bx1x8x7, tokens Bx5" in text
    assert "replaced  se at gate" in text
    assert "The network returns None as 'pooled_1'" in text
    graph = onnx.load("a/model.fp16.onnx").graph
    inputs = {value.name: value.type.tensor_type for value in graph.input}
    assert list(inputs) == ["image", "mask", "tokens"]
    assert inputs["tokens"].elem_type == onnx.TensorProto.INT32
    assert {kind.shape.dim[0].dim_param for kind in inputs.values()} == {"batch"}
    assert [value.name for value in graph.output] == ["map", "pooled_0"]
    manifest = read_manifest("a")
    assert manifest["inputs"]["tokens"] == {"shape": ["batch", 5], "dtype": "int32"}
    assert manifest["input_file"] is None
    cases = open_artifact("a").cases()
    assert [case.name for case in cases] == ["normal", "negated", "larger_batch"]
    assert cases[2].inputs["tokens"].shape == (4, 5)
    assert cli("verify", "a").exit_code == 0


def test_python_takes_shapes_by_name(net: str) -> None:
    report = export_artifact(ExportRequest(f"{net}:build", shape={"image": (1, 3, 8, 8), "tokens": "1x4:int64"}))
    assert report.passed
    assert list(report.manifest["inputs"]) == ["image", "tokens"]
    with pytest.raises(BadRequest, match="names no input"):
        ExportRequest(f"{net}:build", shape={})


def test_an_archive_gives_inputs_their_names_shapes_and_values(cli: Cli, net: str) -> None:
    image, tokens = np.random.RandomState(0).standard_normal((1, 3, 8, 8)), np.array([[49, 0, 7]])
    np.savez("in.npz", image=image, tokens=tokens)
    assert "tokens 1x3" in _passes(cli, f"{net}:build", "--input", "in.npz", "--fp16", "-o", "a")
    (case,) = open_artifact("a").cases()
    np.testing.assert_array_equal(case.inputs["tokens"], tokens)
    np.testing.assert_array_equal(case.inputs["image"], image.astype(np.float32))
    assert read_manifest("a")["input_file"]["file"] == "in.npz"


@pytest.mark.parametrize("factory", ["compiled", "half", "normed", "lazy", "quiet"])
def test_networks_that_were_compiled_halved_or_normed_are_read_as_they_are(cli: Cli, net: str, factory: str) -> None:
    assert "replaced  se at" in _passes(cli, f"{net}:{factory}", "--shape", "2x3x8x7", "--fp16")


def _state(factory: str = "build") -> dict[str, torch.Tensor]:
    torch.manual_seed(5)
    network = network_from_factory(Path("my net.py"), factory)
    network(torch.zeros(2, 3, 8, 7))
    return dict(network.state_dict())


@pytest.mark.parametrize("factory", ["build", "compiled", "lazy", "normed"])
def test_a_checkpoint_fills_the_network_whatever_the_seed(cli: Cli, net: str, factory: str) -> None:
    torch.save({"epoch": 3, "ema": {f"module.{key}": value for key, value in _state(factory).items()}}, "net.pt")
    for folder, *more in (("a", "--checkpoint", "net.pt"), ("b", "--checkpoint", "net.pt", "--seed", "7"), ("c",)):
        _passes(cli, f"{net}:{factory}", "--shape", "1x3x8x7", "-o", folder, *more)
    first, again, own = (Path(folder, "model.onnx").read_bytes() for folder in "abc")
    assert first == again
    assert first != own


def test_a_checkpoint_of_another_network_is_told_by_counts_and_the_nearest_keys(cli: Cli, net: str) -> None:
    state = {key.replace("stem", "steam"): value for key, value in _state().items()}
    state.update({f"head.{index}": torch.zeros(1) for index in range(500)})
    torch.save(state, "net.pt")
    message = _refused(cli, f"{net}:build", "--shape", "1x3x8x7", "--checkpoint", "net.pt")
    assert "of its 10 keys 8 are in the file, which holds 510, in the same shape" in message
    assert "missing: stem.weight (16, 3, 3, 3), nearest in the file: steam.weight" in message
    assert "unexpected: and 490 more" in message
    assert len(message.splitlines()) < 30


@pytest.mark.parametrize(
    ("factory", "words"),
    [
        ("needs", ["needs arguments (width, heads)", "returns needs(width=...)"]),
        ("nothing", ["returned None", "Is there a return missing?"]),
        ("a_class", ["returned the class Net", "Return Net()"]),
        ("a_pair", ["returned a tuple of Net, int", "Return that one alone"]),
        ("scripted", ["compiled by torch.jit"]),
        ("on_meta", ["stem (Conv2d) has no weights", "'meta'"]),
        ("numbers", ["returns float as 'output_1'"]),
        ("hooked", ["A copy of the network computes something else", "Does a hook or a lambda hold the network"]),
        ("decorated", ["Take torch.compile off the functions"]),
        ("fails", ["does not run on an input of 2x3x8x8, in gate", "return self.gate(image)", "--shape or --input"]),
    ],
)
@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")
def test_a_network_that_cannot_be_is_refused_and_nothing_is_written(
    cli: Cli, net: str, factory: str, words: list[str]
) -> None:
    message = _refused(cli, f"{net}:{factory}", "--shape", "2x3x8x8")
    for word in words:
        assert word in message
    assert "untraceable.py" not in message, "frames of ours say nothing about the network"


@pytest.mark.parametrize(
    ("shapes", "words"),
    [
        (["2x3x8x8", "mask=2x1x8x8", "mask=2x1x8x8"], "name an argument twice"),
        (["mask=2x1x8x8"], "missing a required argument: 'image'"),
        (["2x3x8x8", "makks=2x1x8x8"], "takes (image, mask=None, *, tokens=None)"),
        (["2x3x8x8", "2x1x8x8", "2x4:int64"], "given 3 by place"),
        (["2x3x8x8:float64"], "Known: float32, int64, int32, bool"),
    ],
)
def test_inputs_that_forward_does_not_take_are_refused(cli: Cli, net: str, shapes: list[str], words: str) -> None:
    message = _refused(cli, f"{net}:build", *(part for shape in shapes for part in ("--shape", shape)))
    assert words in message


@pytest.mark.parametrize(
    ("factory", "words"),
    [
        ("reshapes", ["bakes the size", "my net.py:"]),
        (
            "holds",
            ["--dynamic-batch and does not run on an input of 4x3x8x8", "self.place", "Leave --dynamic-batch out"],
        ),
    ],
)
def test_a_batch_that_the_network_holds_is_refused_where_it_shall_be_open(
    cli: Cli, net: str, factory: str, words: list[str]
) -> None:
    message = _refused(cli, f"{net}:{factory}", "--shape", "2x3x8x8", "--dynamic-batch")
    for word in words:
        assert word in message
    _passes(cli, f"{net}:{factory}", "--shape", "2x3x8x8")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("pack", "pack is a folder. A network is named as file.py:factory"),
        ("pack.py:build", "pack.py: no such file"),
        ("folder.py:build", "folder.py is a folder"),
        ("weights.pt", "weights.pt is no attention module"),
        ("pack.net:build", "is no attention module. A network is named as file.py:factory"),
        ("my net.py:", "my net.py: names no factory"),
        ("pack/net.py:build", "write `from blocks import ...` for `from .blocks import ...`"),
    ],
)
def test_a_name_that_is_no_factory_is_refused(cli: Cli, net: str, name: str, words: str) -> None:
    for folder in ("pack", "folder.py"):
        Path(folder).mkdir()
    Path("weights.pt").touch()
    Path("pack/net.py").write_text("from .blocks import build\n", encoding="utf-8")
    assert words in _refused(cli, name, "--shape", "1x3x8x8")


def test_the_report_groups_alike_blocks_and_json_has_each(cli: Cli, net: str, in_folder: Path) -> None:
    (in_folder / "many.py").write_text(
        "import torch, deploy_attn\n"
        "def build():\n"
        "    return torch.nn.Sequential(*[deploy_attn.create('se', channels=16) for _ in range(9)])\n",
        encoding="utf-8",
    )
    text = _passes(cli, "many.py:build", "--shape", "1x16x5x5", "-o", "a")
    assert text.count("replaced") == 1
    assert "replaced  9 x se at 0, 1, 2, ..., 8 (deploy_attn.modules.se.SE): 81 trials" in text
    report = json.loads(_passes(cli, "many.py:build", "--shape", "1x16x5x5", "-o", "b", "--json"))
    assert len(report["findings"]) == 9
