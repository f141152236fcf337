"""Holds that the traced graph is of the opset, IR, names and shapes that were asked for, or is refused."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from deploy_attn.engines.onnxruntime import OnnxRuntimeRunner
from deploy_attn.export.arguments import Arguments
from deploy_attn.export.onnx_from_module import GraphRequest, _make_names_unique, checked, onnx_from_module
from deploy_attn.export.refused import place_of_operator
from deploy_attn.export.results import named_outputs
from deploy_attn.jetson.errors import BadRequest, DeployAttnError
from tests.export.networks import Returns


class _Gate(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(x.mean((2, 3), keepdim=True))


class _Network(nn.Module):
    """A convolution, the same gate twice, and arithmetic with constants."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.stage = nn.Sequential(nn.ReLU(), _Gate())

    def forward(self, x: Tensor) -> Tensor:
        x = self.stage(self.stem(x))
        result: Tensor = 2 * self.stage(x) + 1
        return result


class _WithTable(nn.Module):
    """A network that returns a constant beside its result, as detectors return anchors."""

    table: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("table", torch.arange(4.0))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return torch.relu(x), 2 * self.table


def _x(batch: int = 2) -> Tensor:
    return torch.randn(batch, 3, 6, 5, generator=torch.Generator().manual_seed(3))


def _network() -> _Network:
    torch.manual_seed(3)
    return _Network().eval()


def _exported(module: nn.Module, opset: int = 17, ir_version: int = 8, dynamic_batch: bool = False) -> onnx.ModelProto:
    with torch.inference_mode():
        return onnx_from_module(module, _x(), GraphRequest(opset, ir_version, dynamic_batch))


def _axes(value: onnx.ValueInfoProto) -> list[int | str]:
    return [
        axis.dim_param if axis.HasField("dim_param") else axis.dim_value for axis in value.type.tensor_type.shape.dim
    ]


@pytest.mark.parametrize(("opset", "ir_version"), [(13, 7), (17, 8), (18, 8), (20, 9)])
def test_opset_and_ir_of_the_bytes_are_those_asked_for(opset: int, ir_version: int) -> None:
    read_back = onnx.load_from_string(_exported(_network(), opset, ir_version).SerializeToString())
    assert [(item.domain, item.version) for item in read_back.opset_import] == [("", opset)]
    assert read_back.ir_version == ir_version
    onnx.checker.check_model(read_back, full_check=True)


@pytest.mark.parametrize(("opset", "ir_version"), [(13, 7), (17, 8), (20, 9)])
def test_the_graph_computes_what_the_module_computes(opset: int, ir_version: int) -> None:
    network = _network()
    with OnnxRuntimeRunner(_exported(network, opset, ir_version).SerializeToString()) as run:
        got = run.infer({"input": _x().numpy()})["output"]
    np.testing.assert_allclose(got, network(_x()).detach().numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("opset", "ir_version"),
    [
        pytest.param(13, 8, id="IR newer than the exporter's"),
        pytest.param(17, 9, id="IR newer than the exporter's, 17"),
        pytest.param(13, 3, id="IR without initializers"),
        pytest.param(13, 6, id="IR older than the opset"),
        pytest.param(20, 8, id="IR older than the opset, 20"),
    ],
)
def test_an_impossible_pair_is_refused_and_both_are_named(opset: int, ir_version: int) -> None:
    with pytest.raises(DeployAttnError, match=f"opset {opset}, IR {ir_version}"):
        _exported(_network(), opset, ir_version)


def test_one_output_is_named_output() -> None:
    graph = _exported(_network()).graph
    assert [value.name for value in graph.input] == ["input"]
    assert [value.name for value in graph.output] == ["output"]


@pytest.mark.parametrize("kind", [tuple, list])
def test_several_outputs_are_numbered_in_order(kind: Callable[[object], object]) -> None:
    model = _exported(Returns(lambda x: kind([x.relu(), x.mean(1), x.flatten(1)])))
    assert [value.name for value in model.graph.output] == ["output_0", "output_1", "output_2"]
    with OnnxRuntimeRunner(model.SerializeToString()) as run:
        got = run.infer({"input": _x().numpy()})
    np.testing.assert_allclose(got["output_1"], _x().mean(1).numpy(), rtol=1e-5, atol=1e-6)
    assert got["output_2"].shape == (2, 90)


@pytest.mark.parametrize(
    "function",
    [
        pytest.param(lambda x: (x, x.relu()), id="the input"),
        pytest.param(lambda x: (x.relu(),) * 2, id="one tensor twice"),
        pytest.param(lambda x: (x.relu(), x.mean()), id="a scalar"),
    ],
)
def test_odd_outputs_keep_their_names(function: Callable[[Tensor], object]) -> None:
    assert [value.name for value in _exported(Returns(function)).graph.output] == ["output_0", "output_1"]


def test_an_output_whose_key_is_a_number_is_exported() -> None:
    assert [value.name for value in _exported(Returns(lambda x: {0: x + 1, 8: x.mean()})).graph.output] == [
        "output_0",
        "output_8",
    ]


def test_a_constant_output_keeps_its_name_and_value() -> None:
    model = _exported(_WithTable())
    assert [value.name for value in model.graph.output] == ["output_0", "output_1"]
    with OnnxRuntimeRunner(model.SerializeToString()) as run:
        np.testing.assert_array_equal(run.infer({"input": _x().numpy()})["output_1"], [0, 2, 4, 6])


class _Mixed(nn.Module):
    """A map, whole numbers and a keyword; parameters are called as arguments and results are."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor([2.0]))
        self.sum = nn.Parameter(torch.tensor([3.0]))
        self.table = nn.Embedding(4, 3)

    def forward(self, x: Tensor, index: Tensor, *, scale: Tensor) -> dict[str, object]:
        y = x * self.scale + scale * self.sum
        return {"sum": y + self.table(index)[:, :, None, None], "more": [y, (index, None)], "same": y}


def test_nested_arguments_and_results_are_flat_in_the_graph_and_keep_their_names() -> None:
    torch.manual_seed(0)
    network = _Mixed().eval()
    example = Arguments((torch.randn(2, 3, 6, 5), torch.tensor([3, 1])), {"scale": torch.tensor([0.5])})
    with torch.inference_mode():
        wanted = named_outputs(network(*example.positional, **example.named))
        graph = onnx_from_module(network, example, GraphRequest(13, 7))
    assert [value.name for value in graph.graph.input] == ["x", "index", "scale"]
    assert [value.name for value in graph.graph.output] == ["sum", "more_0", "more_1_0", "same"] == list(wanted)
    assert not network._forward_hooks
    assert not network._forward_pre_hooks
    with OnnxRuntimeRunner(graph.SerializeToString()) as run:
        got = run.infer({name: tensor.numpy() for name, tensor in zip(("x", "index", "scale"), example.tensors)})
    for name, tensor in wanted.items():
        np.testing.assert_allclose(got[name], tensor.numpy(), rtol=1e-6)


class _Masks(nn.Module):
    def forward(self, image: Tensor, mask: Tensor, unread: Tensor | None = None) -> Tensor:
        return image * mask[:, :, None, None]


def test_every_input_has_its_own_open_axes() -> None:
    network = _Masks()
    example = Arguments((torch.randn(2, 3, 6, 5), torch.randn(2, 3)), {})
    graph = onnx_from_module(network, example, GraphRequest(17, 8, dynamic_batch=True, dynamic_size=True)).graph
    assert [_axes(value) for value in graph.input] == [["batch", 3, "height", "width"], ["batch", 3]]


def test_an_input_that_nothing_depends_on_is_named() -> None:
    with pytest.raises(BadRequest, match="do not depend on unread"):
        onnx_from_module(_Masks(), Arguments((_x(), torch.randn(2, 3), _x()), {}), GraphRequest(17, 8))


def test_an_operator_that_is_refused_is_found_in_every_module_that_has_it() -> None:
    def refused(x: Tensor) -> Tensor:
        result: Tensor = torch.linalg.qr(x)[0]
        return result

    with pytest.raises(BadRequest) as caught:
        network = nn.Sequential(nn.ReLU(), nn.Sequential(Returns(refused)), Returns(refused))
        onnx_from_module(network, _x(), GraphRequest(13, 7))
    head, *places, advice = str(caught.value).splitlines()
    assert "'aten::linalg_qr' to ONNX opset version 13" in head
    assert [place.split(",")[0].strip() for place in places] == [
        "aten::linalg_qr in 1.0 (Returns)",
        "aten::linalg_qr in 2 (Returns)",
    ]
    assert all("test_onnx_from_module.py:" in place for place in places)
    assert advice.startswith("Replace the operation")


def test_an_operator_is_found_by_the_name_that_the_exporter_gives_it() -> None:
    network = nn.Sequential(nn.ReLU(), Returns(lambda x: x.unfold(2, 2, 1)))
    message = "Unsupported: ONNX export of operator Unfold, input size not accessible."
    assert place_of_operator(network, [_x()], message).startswith("  aten::unfold in 1 (Returns), ")


def test_every_axis_of_a_static_graph_is_a_number() -> None:
    graph = _exported(Returns(lambda x: (x.relu(), x.mean((2, 3))))).graph
    assert _axes(graph.input[0]) == [2, 3, 6, 5]
    assert [_axes(value) for value in graph.output] == [[2, 3, 6, 5], [2, 3]]


def test_an_extent_that_follows_from_values_is_no_number() -> None:
    graph = _exported(Returns(lambda x: (x[x > 0], x.relu()))).graph
    chosen, plain = (_axes(value) for value in graph.output)
    assert isinstance(chosen[0], str)
    assert plain == [2, 3, 6, 5]


def test_an_open_batch_is_axis_0_of_every_end_and_the_rest_is_fixed() -> None:
    model = _exported(Returns(lambda x: (x.relu(), x.flatten(2).mean(2))), dynamic_batch=True)
    assert _axes(model.graph.input[0]) == ["batch", 3, 6, 5]
    assert [_axes(value) for value in model.graph.output] == [["batch", 3, 6, 5], ["batch", 3]]
    with OnnxRuntimeRunner(model.SerializeToString()) as run:
        assert run.infer({"input": _x(5).numpy()})["output_1"].shape == (5, 3)


@pytest.mark.parametrize(
    ("function", "axes"),
    [
        (lambda x: x.mean(0), [3, 6, 5]),
        (lambda x: x.transpose(0, 1) + 1, [3, "batch", 6, 5]),
        (lambda x: x.flatten(0, 1) * 2, [0, 6, 5]),
        (lambda x: x.sum(), []),
    ],
)
def test_an_open_batch_is_stated_where_it_is_and_nowhere_else(
    function: Callable[[Tensor], Tensor], axes: list[object]
) -> None:
    assert _axes(_exported(Returns(function), dynamic_batch=True).graph.output[0]) == axes


def test_node_names_are_unique_and_carry_the_module_path() -> None:
    names = [node.name for node in _exported(_network()).graph.node]
    assert len(set(names)) == len(names)
    assert "/stem/Conv" in names
    gates = [name for name in names if name.startswith("/stage/stage.1") and name.endswith("/Sigmoid")]
    assert len(gates) == 2


@pytest.mark.parametrize(
    "names", [("a", "a", "a"), ("a", "a", "a_1"), ("a_1", "a", "a"), ("", "", "x"), ("/Relu", "", "")]
)
def test_names_that_the_exporter_leaves_empty_or_equal_are_made_unique(names: tuple[str, str, str]) -> None:
    nodes = [onnx.helper.make_node("Relu", [f"t{index}"], [f"t{index + 1}"], name) for index, name in enumerate(names)]
    graph = onnx.helper.make_graph(nodes, "g", [], [])
    _make_names_unique(graph)
    made = [node.name for node in graph.node]
    assert "" not in made
    assert len(set(made)) == 3
    assert made[0] == (names[0] or "/Relu")


@pytest.mark.parametrize(
    "function",
    [
        pytest.param(lambda x: 2 * x + 1, id="scalars"),
        pytest.param(lambda x: x[:, 1:, ::2], id="slices"),
        pytest.param(lambda x: x + torch.arange(5.0), id="a tensor made inside"),
        pytest.param(lambda x: x.reshape(2, -1), id="a shape"),
    ],
)
@pytest.mark.parametrize("opset", [13, 17])
def test_no_constant_node_is_left(function: Callable[[Tensor], Tensor], opset: int) -> None:
    model = _exported(Returns(function), opset, {13: 7, 17: 8}[opset])
    assert "Constant" not in {node.op_type for node in model.graph.node}
    with OnnxRuntimeRunner(model.SerializeToString()) as run:
        got = run.infer({"input": _x().numpy()})["output"]
    np.testing.assert_allclose(got, function(_x()).numpy(), rtol=1e-6)


def test_an_operator_that_the_exporter_refuses_is_named() -> None:
    with pytest.raises(DeployAttnError, match="linalg_svd"):
        _exported(Returns(lambda x: torch.linalg.svd(x)[1]))


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")
def test_a_module_that_was_compiled_is_named() -> None:
    network = nn.Sequential(nn.ReLU(), nn.Sequential(torch.jit.script(nn.Conv2d(3, 4, 1))))
    with pytest.raises(BadRequest, match=r"torch\.jit compiled 1\.0; build"):
        _exported(network)


def test_a_refusal_leaves_stdout_to_the_caller(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(DeployAttnError):
        _exported(Returns(lambda x: torch.linalg.svd(x)[1]))
    assert capfd.readouterr().out == ""


def _frozen_branch(x: Tensor) -> Tensor:
    return x if bool(x.sum() > 0) else -x


def test_a_branch_that_the_trace_freezes_is_warned_of() -> None:
    with pytest.warns(torch.jit.TracerWarning, match="Python boolean"):  # type: ignore[attr-defined]
        _exported(Returns(_frozen_branch))


class _Attention(nn.Module):
    """torch's own attention over the places of a map, in a layer of torch's own."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(3, 1, 8, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.layer(x.flatten(2).transpose(1, 2))
        return result


def test_torchs_own_attention_is_exported_without_warnings_and_its_fast_path_is_left_on() -> None:
    torch.manual_seed(0)
    network = _Attention().eval()
    model = _exported(network)
    assert torch.backends.mha.get_fastpath_enabled()
    with OnnxRuntimeRunner(model.SerializeToString()) as run:
        got = run.infer({"input": _x().numpy()})["output"]
    np.testing.assert_allclose(got, network(_x()).detach().numpy(), rtol=1e-4, atol=1e-5)


def test_an_export_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    _exported(_network())
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")


VALID = '<ir_version: 8, opset_import: ["" : 17]> g (float[2] x) => (float[2] y) { [n] y = Relu(x) }'


def test_a_checked_model_is_read_back_unchanged() -> None:
    model = onnx.parser.parse_model(VALID)
    assert checked(model, GraphRequest(17, 8)) == model


@pytest.mark.parametrize(
    ("text", "found"),
    [
        pytest.param(VALID.replace("17", "16"), "opset 17, IR 8.*16", id="another opset"),
        pytest.param(VALID.replace("ir_version: 8", "ir_version: 7"), "IR 7", id="another IR"),
        pytest.param(VALID.replace("17]", '17, "com.microsoft" : 1]'), "com.microsoft", id="another domain"),
        pytest.param(VALID.replace("Relu(x)", "Relu(z)"), "not valid ONNX", id="an input that nobody makes"),
        pytest.param(VALID.replace("Relu", "Relux"), "not valid ONNX", id="an unknown operator"),
        pytest.param(VALID.replace("=> (float[2] y)", "=> (float[3] y)"), "not valid ONNX", id="a wrong shape"),
    ],
)
def test_a_model_that_is_not_what_was_asked_for_is_refused(text: str, found: str) -> None:
    with pytest.raises(DeployAttnError, match=found):
        checked(onnx.parser.parse_model(text), GraphRequest(17, 8))
