"""The catalogue's modules: any shape they say they take, and no form a parser would misread."""

from __future__ import annotations

import ast
import doctest
import inspect
import sys
from dataclasses import dataclass
from pathlib import Path

import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import deploy_attn
from deploy_attn import BadRequest, available, create
from deploy_attn.engines.target import FAMILIES
from deploy_attn.export.certificate import compare_modules
from deploy_attn.export.onnx_from_module import GraphRequest, onnx_from_module
from deploy_attn.modules import catalogue
from deploy_attn.modules.s2 import quarter_sizes
from tests.deploy_attn.catalogue_cases import CHANNEL_STEP, small

MODULES = Path(inspect.getfile(catalogue)).parent
FIXED_SIZE = ("fca", "mobilevit")  # and mhsa with pos_emb, see test_mhsa
IR = {13: 7, 17: 8, 20: 9}
READ_BY_TENSORRT_8_2 = {
    "Abs", "Add", "AveragePool", "Cast", "Concat", "Conv", "Div", "Erf", "Exp", "Gather", "Gemm", "HardSigmoid",
    "MatMul", "MaxPool", "Mul", "ReduceMax", "ReduceMean", "ReduceSum", "Relu", "Reshape", "Sigmoid", "Softmax",
    "Split", "Sqrt", "Sub", "Tanh", "Transpose", "Unsqueeze",
}  # fmt: skip
FORBIDDEN = {"ScatterND", "ScatterElements", "ConstantOfShape", "Where", "Shape", "Expand", "Loop", "If", "Slice"}


@pytest.mark.parametrize("entry", list(catalogue.entries()), ids=lambda entry: entry.name)
def test_an_entry_says_what_its_class_takes(entry: catalogue.Entry) -> None:
    form = type(create(entry.name, channels=32))
    parameters = dict(inspect.signature(form).parameters)
    assert form.__name__ == entry.class_name
    assert form.catalogue_name == entry.name
    assert (parameters.pop("channels").default is None) == (not entry.needs_channels)
    assert set(form.forms) == set(FAMILIES)
    assert {name: parameter.default for name, parameter in parameters.items()} == {
        option.name: option.default for option in entry.options
    }


@pytest.mark.parametrize("entry", list(catalogue.entries()), ids=lambda entry: entry.name)
def test_a_module_file_names_its_source(entry: catalogue.Entry) -> None:
    text = ast.get_docstring(ast.parse((MODULES / f"{entry.name}.py").read_text(encoding="utf-8")))
    assert text is not None
    assert (f"arXiv {entry.arxiv}" if entry.arxiv else "no arXiv version") in text.replace("\n", " ")
    assert "The source" in text
    assert "The export form" in text


@dataclass(frozen=True)
class Drawn:
    """A map that hypothesis draws, and what form is built for it."""

    steps: int
    height: int
    width: int
    family: str
    scale: float
    mean: float
    open_size: bool


DRAWN = st.builds(
    Drawn,
    steps=st.integers(1, 3),
    height=st.integers(2, 9),
    width=st.integers(2, 9),
    family=st.sampled_from(["cpu", "gpu"]),
    scale=st.sampled_from([1.0, 100.0]),
    mean=st.sampled_from([0.0, 20.0]),
    open_size=st.booleans(),
)


@pytest.mark.parametrize("name", available())
@given(drawn=DRAWN)
@settings(max_examples=12, deadline=None)
def test_forms_agree_on_any_shape(name: str, drawn: Drawn) -> None:
    channels = drawn.steps * CHANNEL_STEP.get(name, 5)
    patch = 2 if name == "mobilevit" else 1
    shape = (2, channels, patch * drawn.height, patch * drawn.width)
    options = {"reduction": 1} if name in ("se", "cbam", "cbam_residual", "fca") else {}
    reference = small(name, channels, **options)
    form = reference.export_form(shape, drawn.family, drawn.open_size and name not in FIXED_SIZE).eval()
    trial = compare_modules("drawn", reference, form, drawn.scale * torch.randn(shape).double() + drawn.mean)
    assert trial.error <= trial.bound


@pytest.mark.parametrize("name", available())
@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 7), (7, 1), (2, 2)])
@pytest.mark.parametrize("family", ["cpu", "gpu"])
def test_the_smallest_maps_agree_or_are_refused(name: str, height: int, width: int, family: str) -> None:
    options = {"patch_size": 1} if name == "mobilevit" else {}
    reference = small(name, **options)
    shape = (1, 32, height, width)
    if (name in ("simam", "srm") and height * width == 1) or (name == "non_local" and min(height, width) == 1):
        with pytest.raises(BadRequest, match=f"{name} cannot take map_height={height}, map_width={width}"):
            reference.export_form(shape, family)
        with pytest.raises(BadRequest, match=f"{name} cannot take map_height={height}, map_width={width}"):
            reference(torch.zeros(shape, dtype=torch.float64))
        return
    trial = compare_modules("small", reference, reference.export_form(shape, family), torch.randn(shape).double())
    assert trial.passed


@pytest.mark.parametrize("name", available())
@pytest.mark.parametrize("opset", [13, 17, 20])
@pytest.mark.parametrize("dynamic_batch", [False, True], ids=["static", "dynamic-batch"])
@pytest.mark.parametrize("family", ["cpu", "gpu"])
def test_no_exported_graph_has_a_forbidden_pattern(name: str, opset: int, dynamic_batch: bool, family: str) -> None:
    graph = _graph(name, family, GraphRequest(opset, IR[opset], dynamic_batch))
    assert not {node.op_type for node in graph.node} & FORBIDDEN
    known = {tensor.name for tensor in graph.initializer}
    targets = [node.input[1] for node in graph.node if node.op_type == "Reshape"]
    assert set(targets) <= known, "a Reshape takes its target from a run-time tensor"


@pytest.mark.parametrize("name", [name for name in available() if name not in FIXED_SIZE])
@pytest.mark.parametrize("family", ["cpu", "gpu"])
def test_a_graph_of_open_size_does_no_arithmetic_on_gathered_shapes(name: str, family: str) -> None:
    graph = _graph(name, family, GraphRequest(13, 7, dynamic_batch=True, dynamic_size=True))
    makers = {output: node.op_type for node in graph.node for output in node.output}
    assert not {node.op_type for node in graph.node} & (FORBIDDEN - {"Shape", "Slice", "Expand"})
    assert not [n for n in graph.node if n.op_type == "Gather" and makers.get(n.input[0]) == "Shape"]


@pytest.mark.parametrize("name", available())
def test_a_jetson_nano_gets_only_operators_that_its_parser_reads(name: str) -> None:
    """TensorRT 8.2: its InstanceNormalization is a plugin that loses FP16, axes as inputs are ignored."""
    graph = _graph(name, "gpu", GraphRequest(13, 7))
    operators = {node.op_type for node in graph.node}
    assert not operators & {"InstanceNormalization", "LayerNormalization", "GroupNormalization", "Einsum", "Pow"}
    assert operators <= READ_BY_TENSORRT_8_2
    reduces = [node for node in graph.node if node.op_type.startswith("Reduce") and node.op_type != "ReduceSum"]
    assert all(len(node.input) == 1 for node in reduces)


def _graph(name: str, family: str, request: GraphRequest) -> onnx.GraphProto:
    form = small(name).export_form((1, 32, 6, 4), family, request.dynamic_size).float().eval()
    with torch.inference_mode():
        return onnx_from_module(form, torch.zeros(1, 32, 6, 4), request).graph


@pytest.mark.parametrize("name", available())
def test_channels_last_maps_are_taken(name: str) -> None:
    reference = small(name)
    x = torch.randn(2, 32, 6, 4, dtype=torch.float64)
    last = x.to(memory_format=torch.channels_last)
    for form in (reference, reference.export_form((2, 32, 6, 4), "cpu"), reference.export_form((2, 32, 6, 4), "gpu")):
        with torch.inference_mode():
            assert torch.allclose(form(last), reference(x), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("name", available())
@pytest.mark.parametrize("family", ["cpu", "gpu"])
def test_a_channels_last_map_gives_the_same_graph(name: str, family: str) -> None:
    form = small(name).export_form((1, 32, 6, 4), family).float().eval()
    x = torch.randn(1, 32, 6, 4)
    with torch.inference_mode():
        plain, last = (
            onnx_from_module(form, x.to(memory_format=layout), GraphRequest(13, 7))
            for layout in (torch.contiguous_format, torch.channels_last)
        )
    assert last.SerializeToString() == plain.SerializeToString()


@pytest.mark.parametrize("name", available())
def test_a_reference_form_does_not_write_into_its_input(name: str) -> None:
    x = torch.randn(2, 32, 6, 4)
    before = x.clone()
    small(name).float()(x)
    assert torch.equal(x, before)


@pytest.mark.parametrize("name", available())
def test_a_reference_form_can_be_trained(name: str) -> None:
    form = small(name).float().train()
    x = torch.randn(2, 32, 6, 4, requires_grad=True)
    form(x).square().mean().backward()
    assert all(tensor.grad is not None for tensor in (x, *form.parameters()))


def test_no_module_writes_into_a_slice() -> None:
    for file in (MODULES / f"{name}.py" for name in (*available(), "base")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
            if isinstance(node, (ast.Assign, ast.AugAssign)):
                assert not any(isinstance(target, ast.Subscript) for target in targets), f"{file.name}:{node.lineno}"


@given(st.integers(1, 4096))
def test_quarters_cover_the_channels(channels: int) -> None:
    sizes = quarter_sizes(channels)
    assert sum(sizes) == channels
    assert min(sizes) >= 0
    assert max(sizes) - min(sizes) <= 1


def test_in_place_copies_on_one_thread_are_the_smear() -> None:
    """The source's own statements, written here only to be compared with."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        reference = create("s2", channels=16, semantics="smear").double().eval()
        x = torch.randn(2, 16, 7, 5, dtype=torch.float64)
        with torch.inference_mode():
            first, second, third = reference.get_submodule("mlp1")(x.permute(0, 2, 3, 1)).chunk(3, -1)
            copied_first = _in_place(first, (1, 2))
            copied_second = _in_place(second, (2, 1))
            mixed = reference.get_submodule("split_attention")(torch.stack([copied_first, copied_second, third], 1))
            eager = reference.get_submodule("mlp2")(mixed).permute(0, 3, 1, 2)
            assert torch.allclose(reference(x), eager, rtol=1e-12, atol=1e-12)
    finally:
        torch.set_num_threads(threads)


def _in_place(x: torch.Tensor, axes: tuple[int, int]) -> torch.Tensor:
    """Overlapping copies over quarters of the channels, as the source has them."""
    quarter = x.shape[-1] // 4
    for index in range(4):
        part = x[..., index * quarter : (index + 1) * quarter]
        axis, extent = axes[index // 2], x.shape[axes[index // 2]]
        ahead, behind = part.narrow(axis, 1, extent - 1), part.narrow(axis, 0, extent - 1)
        if index % 2 == 0:
            ahead.copy_(behind)
        else:
            behind.copy_(ahead)
    return x


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"name": "cbma", "channels": 32}, ["'cbma'", "Known: cbam, "]),
        ({"name": "se"}, ["needs channels"]),
        ({"name": "se", "channels": "32"}, ["needs channels", "'32'"]),
        ({"name": "se", "channels": 8}, ["channels >= reduction", "channels=8", "reduction=16"]),
        ({"name": "se", "channels": 0, "reduction": 1}, ["channels >= 1"]),
        ({"name": "se", "channels": 32, "reduction": 0}, ["reduction", "at least 1"]),
        ({"name": "se", "channels": 32, "squeeze": 4}, ["no option 'squeeze'", "reduction=16"]),
        ({"name": "se", "channels": 32, "reduction": "four"}, ["reduction", "int", "'four'"]),
        ({"name": "se", "channels": 32, "ratio": 4, "reduction": 4}, ["two names"]),
        ({"name": "cbam", "channels": 32, "kernel_size": 4}, ["odd kernel_size"]),
        ({"name": "cbam_residual", "channels": 32, "kernel_size": 48}, ["odd kernel_size"]),
        ({"name": "eca_fixed", "channels": 32, "kernel_size": 2}, ["odd kernel_size"]),
        ({"name": "eca", "channels": 32, "gamma": 0}, ["gamma", "at least 0.1"]),
        ({"name": "eca", "channels": 32, "gamma": float("nan")}, ["gamma", "at least 0.1", "nan"]),
        ({"name": "cbam", "channels": 32, "kernel_size": 99999}, ["kernel_size", "at most 255"]),
        ({"name": "s2", "channels": 32, "semantics": "shfit"}, ["semantics", "shift, smear"]),
        ({"name": "se", "channels": 8}, ["What would fit: channels=16; or reduction=8"]),
        ({"name": "se", "channels": 32, "gate": "relu"}, ["gate", "sigmoid, hard_sigmoid", "'relu'"]),
        ({"name": "cot", "channels": 30}, ["channels=30", "divisible by 4", "channels=28 or channels=32"]),
        ({"name": "cot", "channels": 32, "kernel_size": 4}, ["kernel_size=4", "kernel_size=3 or kernel_size=5"]),
        ({"name": "mobilevit", "channels": 8, "kernel_size": 2}, ["kernel_size=2", "kernel_size=1 or kernel_size=3"]),
        (
            {"name": "sk", "channels": 32, "groups": 5},
            ["channels divisible by groups", "groups=4 or groups=8"],
        ),
        ({"name": "sk", "channels": 32, "kernel_sizes": [3, 4]}, ["kernel_sizes=3,4", "odd kernel_sizes"]),
        ({"name": "sk", "channels": 32, "kernel_sizes": []}, ["kernel_sizes", "several with commas", "[]"]),
        ({"name": "sk", "channels": 32, "kernels": "3,x"}, ["kernel_sizes", "'3,x'"]),
        ({"name": "shuffle", "channels": 24}, ["channels=24", "groups=8", "2 * groups", "channels=16 or channels=32"]),
        (
            {"name": "mhsa", "channels": 30},
            ["heads=4", "channels=28 or channels=32; or heads=3 or heads=5"],
        ),
        ({"name": "mhsa", "channels": 32, "heads": 0}, ["heads", "at least 1"]),
        ({"name": "fca", "channels": 40}, ["frequencies=top16", "channels=32 or channels=48"]),
        ({"name": "bilinear", "channels": 8}, ["channels=8", "channels >= 16", "channels=16"]),
        ({"name": "non_local", "channels": 1}, ["channels=1", "channels=2", "inter_channels=1"]),
        ({"name": "non_local", "channels": 8, "mode": "dot"}, ["mode", "dot_product"]),
        ({"name": "gct", "channels": 8, "mode": "l3"}, ["mode", "l2, l1"]),
        ({"name": "simam", "e_lambda": 0.0}, ["e_lambda", "at least 1e-12"]),
        ({"name": "fca", "channels": 24}, ["frequencies=top8", "channels=16 or channels=32"]),
        (
            {"name": "fca", "channels": 3},
            ["channels >= reduction and channels divisible", "What would fit: channels=16."],
        ),
        ({"name": "shuffle", "channels": -1}, ["channels=-1", "What would fit: channels=16."]),
        ({"name": "encnet", "channels": 8, "codes": 10**9}, ["codes=1000000000", "at most 536870912"]),
        ({"name": "gsop", "channels": 2**63}, [f"channels={2**63}", "at most 536870912"]),
        ({"name": "se", "channels": 32, "reduction": "1_6"}, ["reduction", "'1_6'"]),
        ({"name": None, "channels": 32}, ["named by text", "None"]),
    ],
    ids=str,
)
def test_create_says_what_is_wrong(arguments: dict[str, object], words: list[str]) -> None:
    rest = dict(arguments)
    with pytest.raises(BadRequest) as refused:
        create(rest.pop("name"), **rest)  # type: ignore[arg-type]
    for word in words:
        assert word in str(refused.value)


@pytest.mark.parametrize(
    ("name", "options", "shape", "words"),
    [
        ("mobilevit", {}, (1, 32, 20, 14), ["map_height=20", "patch_size=7", "map_height=14 or map_height=21"]),
        ("mobilevit", {"patch_size": 4}, (1, 32, 8, 6), ["map_width=6", "map_width=4 or map_width=8", "patch_size=2"]),
        ("mhsa", {"pos_emb": True}, (1, 32, 15, 14), ["map_height=15", "width=14, height=14", "width=15"]),
        ("simam", {}, (1, 32, 1, 1), ["map_height=1, map_width=1", "variance", "map_height=2"]),
    ],
    ids=["rows", "columns", "positions", "one place"],
)
def test_a_map_that_does_not_fit_is_refused(
    name: str, options: dict[str, object], shape: tuple[int, int, int, int], words: list[str]
) -> None:
    form = create(name, channels=32, **options).eval()
    with pytest.raises(BadRequest) as built:
        form.export_form(shape)
    with pytest.raises(BadRequest) as run:
        form(torch.zeros(shape))
    for word in words:
        assert word in str(built.value)
        assert word in str(run.value)


def test_modules_without_channels_take_them_or_not() -> None:
    assert create("simam").export_form((1, 5, 4, 4)) is not None
    assert create("triplet", channels=5).export_form((1, 5, 4, 4)) is not None
    with pytest.raises(BadRequest, match="built for 5 channels"):
        create("simam", channels=5).export_form((1, 6, 4, 4))


def test_several_numbers_are_taken_as_text_or_as_a_sequence() -> None:
    for kernels in ("1,3", [1, 3], (1, 3)):
        assert len(create("sk", channels=8, kernels=kernels).get_submodule("convs").state_dict()) == 2 * 7


def test_the_examples_in_docstrings_hold() -> None:
    found = doctest.testmod(sys.modules["deploy_attn.modules.create"])
    assert found.attempted > 0
    assert found.failed == 0


def test_the_sources_own_argument_names_are_taken() -> None:
    assert create("se", channel=32, ratio=8).state_dict()["fc.0.weight"].shape == (4, 32)
    assert create("eca", channel=256, b=1, gamma=2).state_dict()["conv.weight"].shape == (1, 1, 5)


@pytest.mark.parametrize(("channels", "kernel_size"), [(1, 1), (4, 1), (7, 1), (8, 3), (64, 3), (256, 5), (2048, 7)])
def test_eca_derives_its_kernel_from_the_channels(channels: int, kernel_size: int) -> None:
    assert create("eca", channels=channels).state_dict()["conv.weight"].shape == (1, 1, kernel_size)


@pytest.mark.parametrize("name", available())
@pytest.mark.parametrize(
    ("shape", "family", "word"),
    [
        ((1, 32, 5), "cpu", "BxCxHxW"),
        ((1, 32, 0, 5), "cpu", "BxCxHxW"),
        ((1, 32, 2.5, 5), "cpu", "BxCxHxW"),
        (None, "cpu", "BxCxHxW"),
        ((1, 32, 5, 5), "tpu", "Known: cpu, gpu"),
    ],
)
def test_an_impossible_form_is_refused(name: str, shape: object, family: str, word: str) -> None:
    with pytest.raises(BadRequest, match=word):
        small(name).export_form(shape, family)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", [entry.name for entry in catalogue.entries() if entry.needs_channels])
def test_a_form_for_other_channels_is_refused(name: str) -> None:
    with pytest.raises(BadRequest, match="built for 32 channels"):
        small(name).export_form((1, 16, 6, 4))


@pytest.mark.parametrize("name", FIXED_SIZE)
def test_an_open_size_is_refused_where_the_graph_is_made_for_one(name: str) -> None:
    with pytest.raises(BadRequest, match=f"{name} cannot leave height and width open"):
        small(name).export_form((1, 32, 6, 4), dynamic_size=True)


def test_public_names_are_all_there() -> None:
    assert all(getattr(deploy_attn, name) is not None for name in deploy_attn.__all__)
    assert set(deploy_attn.__all__) == set(dir(deploy_attn))
    with pytest.raises(AttributeError):
        deploy_attn.nothing  # noqa: B018
