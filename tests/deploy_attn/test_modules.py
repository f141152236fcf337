"""The catalogue's modules: any shape they say they take, and no form a parser would misread."""

from __future__ import annotations

import ast
import doctest
import inspect
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import deploy_attn
from deploy_attn import BadRequest, available, create
from deploy_attn.export.onnx_from_module import GraphRequest, onnx_from_module
from deploy_attn.modules import catalogue
from deploy_attn.modules.s2 import quarter_sizes

MODULES = Path(inspect.getfile(catalogue)).parent
FORBIDDEN = {"ScatterND", "ScatterElements", "ConstantOfShape", "Where", "Shape", "Expand", "Loop", "If", "Slice"}


@pytest.mark.parametrize("entry", list(catalogue.entries()), ids=lambda entry: entry.name)
def test_an_entry_says_what_its_class_takes(entry: catalogue.Entry) -> None:
    form = type(create(entry.name, channels=32))
    parameters = dict(inspect.signature(form).parameters)
    assert form.__name__ == entry.class_name
    assert form.catalogue_name == entry.name
    assert parameters.pop("channels") is not None
    assert {name: parameter.default for name, parameter in parameters.items()} == {
        option.name: option.default for option in entry.options
    }


@pytest.mark.parametrize("entry", list(catalogue.entries()), ids=lambda entry: entry.name)
def test_a_module_file_names_its_source(entry: catalogue.Entry) -> None:
    text = ast.get_docstring(ast.parse((MODULES / f"{entry.name}.py").read_text(encoding="utf-8")))
    assert text is not None
    assert f"arXiv {entry.arxiv}" in text.replace("\n", " ")
    assert "The source" in text
    assert "The export form" in text


@given(
    name=st.sampled_from(available()),
    channels=st.integers(1, 24),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    family=st.sampled_from(["cpu", "gpu"]),
)
@settings(max_examples=80, deadline=None)
def test_forms_agree_on_any_shape(name: str, channels: int, height: int, width: int, family: str) -> None:
    options = {"reduction": 1} if name in ("se", "cbam", "cbam_residual") else {}
    torch.manual_seed(channels)
    reference = create(name, channels=channels, **options).double().eval()
    form = reference.export_form((1, channels, height, width), family).eval()
    x = torch.randn(2, channels, height, width, dtype=torch.float64)
    with torch.inference_mode():
        assert torch.allclose(form(x), reference(x), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("name", available())
@pytest.mark.parametrize("opset", [13, 17, 20])
@pytest.mark.parametrize("dynamic_batch", [False, True], ids=["static", "dynamic-batch"])
@pytest.mark.parametrize("family", ["cpu", "gpu"])
def test_no_exported_graph_has_a_forbidden_pattern(name: str, opset: int, dynamic_batch: bool, family: str) -> None:
    form = create(name, channels=32).export_form((1, 32, 6, 5), family).eval()
    ir_version = {13: 7, 17: 8, 20: 9}[opset]
    with torch.inference_mode():
        graph = onnx_from_module(form, torch.zeros(1, 32, 6, 5), GraphRequest(opset, ir_version, dynamic_batch)).graph
    assert not {node.op_type for node in graph.node} & FORBIDDEN
    known = {tensor.name for tensor in graph.initializer}
    targets = [node.input[1] for node in graph.node if node.op_type == "Reshape"]
    assert set(targets) <= known, "a Reshape takes its target from a run-time tensor"


@pytest.mark.parametrize("name", available())
def test_a_reference_form_does_not_write_into_its_input(name: str) -> None:
    x = torch.randn(2, 32, 5, 6)
    before = x.clone()
    create(name, channels=32)(x)
    assert torch.equal(x, before)


@pytest.mark.parametrize("name", available())
def test_a_reference_form_can_be_trained(name: str) -> None:
    form = create(name, channels=32)
    form(torch.randn(2, 32, 5, 6)).square().mean().backward()
    assert all(parameter.grad is not None for parameter in form.parameters())


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
    ],
    ids=str,
)
def test_create_says_what_is_wrong(arguments: dict[str, object], words: list[str]) -> None:
    rest = dict(arguments)
    with pytest.raises(BadRequest) as refused:
        create(str(rest.pop("name")), **rest)
    for word in words:
        assert word in str(refused.value)


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
    [((1, 32, 5), "cpu", "BxCxHxW"), ((1, 32, 0, 5), "cpu", "BxCxHxW"), ((1, 32, 5, 5), "tpu", "Known: cpu, gpu")],
)
def test_an_impossible_form_is_refused(name: str, shape: tuple[int, ...], family: str, word: str) -> None:
    with pytest.raises(BadRequest, match=word):
        create(name, channels=32).export_form(shape, family)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["se", "cbam", "cbam_residual", "eca", "s2"])
def test_a_form_for_other_channels_is_refused(name: str) -> None:
    with pytest.raises(BadRequest, match="built for 32 channels"):
        create(name, channels=32).export_form((1, 16, 5, 5))


def test_a_kernel_larger_than_the_map_is_cropped_to_it() -> None:
    form = create("cbam_residual", channels=32).export_form((1, 32, 5, 20))
    assert form.get_parameter("spatial_gate.weight").shape == (1, 2, 9, 39)


def test_public_names_are_all_there() -> None:
    assert all(getattr(deploy_attn, name) is not None for name in deploy_attn.__all__)
    assert set(deploy_attn.__all__) == set(dir(deploy_attn))
    with pytest.raises(AttributeError):
        deploy_attn.nothing  # noqa: B018
