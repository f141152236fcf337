"""`fix_model`: a whole proven copy, or none; and what a proof sees."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto

from deploy_attn.engines.target import load_target
from deploy_attn.export.linting import fix, fixed_file, rewriting
from deploy_attn.export.linting.fix import fix_model
from deploy_attn.export.linting.fixes.bench import Bench
from deploy_attn.export.linting.fixes.table import FIXES
from deploy_attn.export.linting.lint import findings_of
from deploy_attn.export.linting.proof import Proof, prove
from deploy_attn.jetson.errors import BadRequest
from tests.export.linting.graphs import model_of, node, one

_NANO = "jetson-nano"


def _saved(model: onnx.ModelProto, folder: Path, name: str = "m.onnx") -> Path:
    onnx.save(model, folder / name)
    return folder / name


def _fixable() -> onnx.ModelProto:
    return one("ReduceMean", (2, 3, 4), {"axes": [1]}, opset=18, ir_version=10)


def _names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def _proof(before: onnx.ModelProto, after: onnx.ModelProto) -> Proof:
    return prove(before, after.SerializeToString())


def _errors(model: onnx.ModelProto) -> list[str]:
    return [finding.rule for finding in findings_of(model, load_target(_NANO)) if finding.is_error]


def _run(model: onnx.ModelProto, feeds: dict[str, np.ndarray[Any, Any]]) -> list[np.ndarray[Any, Any]]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    outputs: list[np.ndarray[Any, Any]] = session.run(None, feeds)
    return outputs


def _block(opset: int) -> onnx.ModelProto:
    """A transformer block in the forms that an exporter of opset 18 writes, weights and batch as it has them."""
    random = np.random.default_rng(0)
    width, heads = 16, 4
    nodes = [
        node("LayerNormalization", "x g1 b1", "n1", "norm1", axis=-1, epsilon=1e-6),
        node("MatMul", "n1 wqkv", "qkv", "qkv"),
        node("Reshape", "qkv to_heads", "split_heads", "heads", allowzero=1),
        node("Transpose", "split_heads", "first", "to_first", perm=[2, 0, 3, 1, 4]),
        node("Split", "first", "q3 k3 v3", "parts", axis=0, num_outputs=3),
        *(node("Squeeze", f"{part}3 zero", part, f"squeeze_{part}") for part in "qkv"),
        node("Transpose", "k", "kt", "keys", perm=[0, 1, 3, 2]),
        node("MatMul", "q kt", "scores", "scores"),
        node("Mul", "scores scale", "scaled", "scaling"),
        node("Softmax", "scaled", "weights", "softmax", axis=-1),
        node("MatMul", "weights v", "mixed", "mix"),
        node("Transpose", "mixed", "back", "to_back", perm=[0, 2, 1, 3]),
        node("Reshape", "back to_width", "joined", "join", allowzero=1),
        node("Add", "joined x", "h", "residual1"),
        node("LayerNormalization", "h g2 b2", "n2", "norm2", axis=2),
        node("MatMul", "n2 w1", "wide", "fc1"),
        *([node("Gelu", "wide", "act", "gelu")] if opset >= 20 else [node("Mish", "wide", "act", "mish")]),
        node("MatMul", "act w2", "narrow", "fc2"),
        node("Add", "narrow h", "tokens", "residual2"),
        node("ReduceMean", "tokens one", "y", "pool", keepdims=0),
    ]
    weights = {
        **{name: random.standard_normal(width).astype(np.float32) for name in ("g1", "b1", "g2", "b2")},
        "wqkv": random.standard_normal((width, 3 * width)).astype(np.float32) / 4,
        "w1": random.standard_normal((width, 2 * width)).astype(np.float32) / 4,
        "w2": random.standard_normal((2 * width, width)).astype(np.float32) / 4,
        "to_heads": [-1, 9, 3, heads, width // heads],
        "to_width": [-1, 9, width],
        "zero": [0],
        "one": [1],
        "scale": np.array(0.5, np.float32),
    }
    return model_of(nodes, {"x": ("batch", 9, width)}, {"y": ("batch", width)}, weights, opset, 10)


@pytest.mark.parametrize("opset", [18, 20, 21, 23])
def test_a_block_of_a_newer_opset_becomes_one_that_a_nano_reads(opset: int, tmp_path: Path) -> None:
    model = _block(opset)
    assert _errors(model)
    report = fix_model(_saved(model, tmp_path), _NANO)
    assert report.written == tmp_path / "m.fixed.onnx"
    copy = onnx.load(report.written)
    onnx.checker.check_model(copy, full_check=True)
    assert (copy.opset_import[0].version, copy.ir_version) == (13, 7)
    assert not _errors(copy)
    x = np.random.default_rng(5).standard_normal((3, 9, 16)).astype(np.float32)
    np.testing.assert_allclose(_run(copy, {"x": x})[0], _run(model, {"x": x})[0], rtol=1e-4, atol=1e-5)
    assert report.proof is not None
    assert [trial.name for trial in report.proof.trials] == ["normal", "large", "negative", "zeros", "another size"]
    assert report.proof.trials[0].shapes != report.proof.trials[-1].shapes
    kept = {"qkv", "heads", "softmax", "mix", "pool"}
    assert kept <= {item.name for item in copy.graph.node}


def test_the_report_says_for_which_finding_each_node_was_changed(tmp_path: Path) -> None:
    report = fix_model(_saved(_block(20), tmp_path), _NANO)
    assert {(item.rule, item.node) for item in report.fixed} >= {
        ("opset-above", ""),
        ("ir-above", ""),
        ("unsupported-operator", "norm1"),
        ("unsupported-operator", "gelu"),
        ("reduce-axes-input", "pool"),
        ("opset", "parts"),
    }
    assert not any(finding.is_error for finding in report.remaining)
    document = json.loads(json.dumps(report.as_dict(), allow_nan=False))
    assert document["passed"] is True
    assert document["proof"]["passed"] is True


def test_nothing_is_written_where_one_error_has_no_rewrite(tmp_path: Path) -> None:
    nodes = [node("ReduceMean", "x axes", "m"), node("Det", "m", "y")]
    model = model_of(nodes, {"x": (2, 3, 4, 4)}, {"y": (2, 1)}, {"axes": [1]}, opset=18)
    report = fix_model(_saved(model, tmp_path), _NANO)
    assert not report.passed
    assert report.written is None
    assert [finding.node for finding in report.remaining if finding.is_error] == ["Det"]
    assert ("reduce-axes-input", "ReduceMean") in {(item.rule, item.node) for item in report.fixed}
    assert _names(tmp_path) == ["m.onnx"]


def test_nothing_is_written_where_one_node_cannot_follow_the_opset(tmp_path: Path) -> None:
    nodes = [node("ReduceMean", "x axes", "m"), node("Pad", "m pads", "y", mode="wrap")]
    constants = {"axes": [1], "pads": [0, 0, 1, 0, 0, 1]}
    model = model_of(nodes, {"x": (2, 3, 4)}, {"y": (2, 1, 6)}, constants, opset=19)
    report = fix_model(_saved(model, tmp_path), _NANO)
    assert not report.passed
    assert [item.node for item in report.refused] == ["Pad"]
    assert {finding.rule for finding in report.remaining} >= {"opset-above", "pad-mode"}
    assert _names(tmp_path) == ["m.onnx"]


def test_a_copy_is_fixed_already(tmp_path: Path) -> None:
    first = fix_model(_saved(_block(20), tmp_path), _NANO)
    assert first.written is not None
    again = fix_model(first.written, _NANO)
    assert again.passed
    assert again.written is None
    assert not again.fixed


def _wrong_gelu(bench: Bench) -> str:
    bench.finish("Mul", [bench.node.input[0], bench.make("Sigmoid", [bench.node.input[0]])])
    return "written as something near"


def _absent(bench: Bench) -> str:
    bench.finish("Identity", ["nowhere"])
    return "written as nothing"


@pytest.mark.parametrize(("wrong", "why"), [(_wrong_gelu, "RMS relative off"), (_absent, "checker")])
def test_a_rewrite_that_is_wrong_is_not_written(
    wrong: Callable[[Bench], str], why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rewriting, "FIXES", {**FIXES, "Gelu": wrong})
    model = model_of(node("Gelu", "x", "y"), {"x": (2, 8)}, {"y": (2, 8)}, opset=20)
    report = fix_model(_saved(model, tmp_path), _NANO)
    assert not report.passed
    assert report.problem is not None
    assert why in report.problem
    assert _names(tmp_path) == ["m.onnx"]


def _pair(before: onnx.NodeProto, after: onnx.NodeProto, kind: int = TensorProto.FLOAT) -> tuple[Any, Any]:
    first, second = (
        model_of(item, {"x": ("n", 6)}, {"y": (kind, ("n", None))}, {"c": [1]}) for item in (before, after)
    )
    return first, second


_DIFFERENT = {
    "a sign that only negative inputs show": (node("Abs", "x", "y"), node("Relu", "x", "y")),
    "an overflow that only large inputs show": (node("Sinh", "x", "y"), node("Sin", "x", "y")),
    "another type": (node("Cast", "x", "y", to=1), node("Cast", "x", "y", to=11)),
    "another shape": (node("Identity", "x", "y"), node("ReduceSum", "x c", "y")),
    "NaN elsewhere": (node("Log", "x", "y"), node("Abs", "x", "y")),
}


@pytest.mark.parametrize("case", _DIFFERENT)
def test_a_proof_fails_for_a_graph_that_differs(case: str) -> None:
    proof = _proof(*_pair(*_DIFFERENT[case]))
    assert not proof.passed
    assert proof.failure


def test_a_proof_fails_where_integers_differ_in_one_place() -> None:
    graphs = _pair(node("ArgMax", "x", "y", axis=1), node("ArgMin", "x", "y", axis=1), TensorProto.INT64)
    assert "differs in" in str(_proof(*graphs).failure)


def test_a_proof_holds_where_both_have_nan_in_the_same_places() -> None:
    graph = _pair(node("Log", "x", "y"), node("Log", "x", "y"))
    assert _proof(*graph).passed


def test_a_proof_needs_values_to_compare() -> None:
    nodes = [node("Sub", "x x", "zero"), node("Log", "zero", "y")]
    model = model_of(nodes, {"x": (3,)}, {"y": (3,)})
    assert "no finite value" in str(_proof(model, model).failure)


def test_a_proof_needs_a_graph_that_repeats_itself() -> None:
    model = one("RandomNormalLike", (40,))
    assert "something else each time" in str(_proof(model, model).failure)


@pytest.mark.parametrize("dtype", [TensorProto.STRING, TensorProto.COMPLEX64])
def test_a_proof_needs_inputs_of_numbers(dtype: int) -> None:
    model = model_of(node("Identity", "x", "y"), {"x": (dtype, (3,))}, {"y": (dtype, (3,))})
    assert "values are made for numbers only" in str(_proof(model, model).failure)


def test_positions_are_within_what_they_point_into() -> None:
    nodes = [node("Cast", "i", "j", to=TensorProto.INT64), node("Gather", "w j", "y")]
    model = model_of(
        nodes, {"i": (TensorProto.INT32, ("n", 50))}, {"y": (None, None, 4)}, {"w": np.ones((3, 4), np.float32)}
    )
    proof = _proof(model, model)
    assert proof.passed
    assert len(proof.trials) == 5


def test_a_divisor_is_not_zero() -> None:
    integers = (TensorProto.INT64, (3,))
    model = model_of(node("Div", "a b", "y"), {"a": integers, "b": integers}, {"y": integers})
    assert _proof(model, model).passed


def test_inputs_of_no_declared_rank_cannot_be_tried() -> None:
    model = one("Relu", (2,))
    model.graph.input[0].type.tensor_type.ClearField("shape")
    assert "'x' is no tensor of a declared rank" in str(_proof(model, model).failure)


def test_a_tensor_without_elements_is_compared_by_its_shape() -> None:
    model = model_of(node("Relu", "x", "y"), {"x": (0, 3)}, {"y": (0, 3)})
    assert _proof(model, model).passed


def test_a_network_that_asks_for_a_certain_size_gets_it() -> None:
    nodes = [node("Reshape", "x rows", "m"), node("Relu", "m", "y")]
    model = model_of(nodes, {"x": ("n", 3, "h", "w")}, {"y": (None, 3072)}, {"rows": [1, 3072]})
    proof = _proof(model, model)
    assert proof.passed
    assert {trial.shapes["x"] for trial in proof.trials} == {(1, 3, 32, 32)}


def test_a_graph_that_amplifies_rounding_is_held_to_what_it_holds_itself() -> None:
    before = [node("Mul", "x big", "a"), node("Sin", "a", "y")]
    after = [node("Mul", "x part", "b", "part"), node("Mul", "b rest", "a"), before[1]]
    constants = {
        name: np.array(value, np.float32) for name, value in (("big", 310.7), ("part", 0.3), ("rest", 310.7 / 0.3))
    }
    graphs = [model_of(nodes, {"x": (64,)}, {"y": (64,)}, constants) for nodes in (before, after)]
    proof = _proof(*graphs)
    assert proof.passed
    assert max(trial.allowed.rms_relative for trial in proof.trials) > 1e-5
    assert all(trial.allowed.rms_relative <= 1e-3 for trial in proof.trials)


def test_weights_beside_the_model_come_into_the_copy(tmp_path: Path) -> None:
    onnx.save(_block(20), tmp_path / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=0)
    report = fix_model(tmp_path / "m.onnx", _NANO)
    assert report.written is not None
    elsewhere = report.written.rename(tmp_path / "elsewhere.onnx")
    (tmp_path / "m.data").unlink()
    x = np.ones((1, 9, 16), np.float32)
    assert np.isfinite(_run(onnx.load(elsewhere), {"x": x})[0]).all()


def test_over_two_gigabytes_with_its_weights_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    onnx.save(_block(20), tmp_path / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=0)
    monkeypatch.setattr(fixed_file, "_LARGEST", 6000)
    with pytest.raises(BadRequest, match="over 2 GB"):
        fix_model(tmp_path / "m.onnx", _NANO)
    assert _names(tmp_path) == ["m.data", "m.onnx"]


def test_a_file_that_is_there_is_replaced_with_force_only(tmp_path: Path) -> None:
    model = _saved(_fixable(), tmp_path)
    (tmp_path / "m.fixed.onnx").write_text("mine")
    with pytest.raises(BadRequest, match="exists already"):
        fix_model(model, _NANO)
    assert (tmp_path / "m.fixed.onnx").read_text() == "mine"
    assert fix_model(model, _NANO, force=True).written == tmp_path / "m.fixed.onnx"
    onnx.load(tmp_path / "m.fixed.onnx")


def _link(place: Path) -> None:
    place.symlink_to("m.onnx")


def _hard_link(place: Path) -> None:
    os.link(place.with_name("m.onnx"), place)


@pytest.mark.parametrize("make", [Path.mkdir, _link, _hard_link, os.mkfifo])
def test_force_replaces_plain_files_of_its_own_only(make: Callable[[Path], None], tmp_path: Path) -> None:
    model = _saved(_fixable(), tmp_path)
    content = model.read_bytes()
    make(tmp_path / "m.fixed.onnx")
    with pytest.raises(BadRequest, match="with -o"):
        fix_model(model, _NANO, force=True)
    assert model.read_bytes() == content
    assert _names(tmp_path) == ["m.fixed.onnx", "m.onnx"]


def test_the_model_and_its_weights_are_never_overwritten(tmp_path: Path) -> None:
    onnx.save(_fixable(), tmp_path / "m.onnx", save_as_external_data=True, location="w", size_threshold=0)
    for name in ("m.onnx", "w", "./m.onnx"):
        with pytest.raises(BadRequest, match="never overwrites"):
            fix_model(tmp_path / "m.onnx", _NANO, tmp_path / name, force=True)


def _artifact(folder: Path) -> Path:
    """A folder whose manifest vouches for its model."""
    folder.mkdir()
    model = _saved(_fixable(), folder, "model.onnx")
    (folder / "manifest.json").write_text(json.dumps({"files": {"model.onnx": "0"}}))
    return model


def test_artifacts_are_not_fixed(tmp_path: Path) -> None:
    model = _artifact(tmp_path / "art")
    (tmp_path / "link.onnx").symlink_to(model)
    before = _names(tmp_path / "art")
    for path in (tmp_path / "art", model, tmp_path / "link.onnx"):
        with pytest.raises(BadRequest, match="Export it again"):
            fix_model(path, _NANO, tmp_path / "copy.onnx")
    with pytest.raises(BadRequest, match="vouches for it"):
        fix_model(_saved(_fixable(), tmp_path), _NANO, model, force=True)
    assert _names(tmp_path / "art") == before


def test_a_manifest_of_something_else_is_no_artifact(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text(json.dumps({"name": "a web page"}))
    assert fix_model(_saved(_fixable(), tmp_path), _NANO).written is not None


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), PermissionError(13, "Permission denied")])
@pytest.mark.parametrize("call", ["mkstemp", "fsync", "link", "replace"])
def test_a_file_system_that_refuses_leaves_nothing(
    call: str, error: OSError, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object, **more: object) -> None:
        raise error

    model = _saved(_fixable(), tmp_path)
    if call == "replace":
        (tmp_path / "m.fixed.onnx").write_text("mine")
    monkeypatch.setattr(tempfile if call == "mkstemp" else os, call, refuse)
    with pytest.raises(BadRequest, match=str(error.strerror)):
        fix_model(model, _NANO, force=call == "replace")
    assert _names(tmp_path) == (["m.fixed.onnx", "m.onnx"] if call == "replace" else ["m.onnx"])
    assert call != "replace" or (tmp_path / "m.fixed.onnx").read_text() == "mine"


@pytest.mark.parametrize("ending", [SystemExit(143), KeyboardInterrupt()])
def test_a_kill_while_writing_leaves_nothing(
    ending: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def end(descriptor: int) -> None:
        raise ending

    monkeypatch.setattr(os, "fsync", end)
    with pytest.raises(type(ending)):
        fix_model(_saved(_fixable(), tmp_path), _NANO)
    assert _names(tmp_path) == ["m.onnx"]


def test_a_file_that_appears_meanwhile_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "m.fixed.onnx"

    def slow(original: onnx.ModelProto, copy: bytes) -> Proof:
        place.write_text("mine")
        return prove(original, copy)

    monkeypatch.setattr(fix, "prove", slow)
    with pytest.raises(BadRequest, match="appeared meanwhile"):
        fix_model(_saved(_fixable(), tmp_path), _NANO)
    assert place.read_text() == "mine"
    assert _names(tmp_path) == ["m.fixed.onnx", "m.onnx"]


def test_a_file_system_without_links_is_written_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    assert fix_model(_saved(_fixable(), tmp_path), _NANO).written is not None
    assert _names(tmp_path) == ["m.fixed.onnx", "m.onnx"]


def test_a_new_file_has_the_mode_that_new_files_get(tmp_path: Path) -> None:
    report = fix_model(_saved(_fixable(), tmp_path), _NANO)
    assert report.written is not None
    (tmp_path / "other").write_text("")
    assert report.written.stat().st_mode == (tmp_path / "other").stat().st_mode


def test_rewrites_do_not_go_below_opset_13(tmp_path: Path) -> None:
    profile = tmp_path / "old.toml"
    profile.write_text(
        'title = "old"\nfamily = "cpu"\nengine = "onnxruntime"\n[onnx]\n'
        'opset = { value = 11, mark = "recalled" }\nir_version = { value = 6, mark = "recalled" }\n'
    )
    report = fix_model(_saved(one("Relu", (2, 3), opset=14), tmp_path), str(profile))
    assert not report.passed
    assert "go down to 13" in report.refused[0].what
    assert _names(tmp_path) == ["m.onnx", "old.toml"]


_REDUCTIONS = tuple(
    f"Reduce{name}" for name in ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare")
)


@dataclass
class _Chain:
    """A chain of operators whose forms differ between opset 13 and the newer ones."""

    draw: st.DrawFn
    opset: int
    shape: list[int]
    current: str = "x"
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: dict[str, Any] = field(default_factory=dict)

    def add(self) -> None:
        steps = (self.reduce, self.normalise, self.pad, self.split, self.reshape) if self.shape else ()
        self.draw(st.sampled_from((self.activate, *steps)))()

    def activate(self) -> None:
        names = ("HardSwish", "Mish", "Relu", *(["Gelu"] if self.opset >= 20 else []))
        self._append(self.draw(st.sampled_from(names)))

    def reduce(self) -> None:
        self._append("Abs")
        keep = self.draw(st.integers(0, 1))
        axes = self.draw(st.lists(st.integers(0, len(self.shape) - 1), min_size=1, unique=True))
        signed = [axis - len(self.shape) * self.draw(st.integers(0, 1)) for axis in axes]
        self._append(self.draw(st.sampled_from(_REDUCTIONS)), [signed], keepdims=keep)
        self.shape = [1 if i in axes else e for i, e in enumerate(self.shape) if keep or i not in axes]

    def normalise(self) -> None:
        axis = self._axis()
        scale = np.linspace(0.5, 1.5, int(np.prod(self.shape[axis:])), dtype=np.float32).reshape(self.shape[axis:])
        self._append("LayerNormalization", [scale], axis=axis)

    def pad(self) -> None:
        axis, pads = self._axis(), [self.draw(st.integers(0, 2)) for _ in range(2)]
        self._append("Pad", [pads, None, [axis]])
        self.shape[axis] += sum(pads)

    def split(self) -> None:
        axis = self._axis()
        extent = self.shape[axis]
        possible = [n for n in range(1, extent + 1) if -(-extent // n) * (n - 1) < extent]
        parts = self.draw(st.sampled_from(possible))
        self._append("Split", [], [f"part{len(self.nodes)}_{i}" for i in range(1, parts)], axis=axis, num_outputs=parts)
        self.shape[axis] = -(-extent // parts)

    def reshape(self) -> None:
        self.shape.reverse()
        self._append("Reshape", [list(self.shape)], allowzero=self.draw(st.integers(0, 1)))

    def model(self, extents: list[int]) -> onnx.ModelProto:
        self.nodes.append(node("Identity", self.current, "y", "last"))
        return model_of(self.nodes, {"x": extents}, {"y": self.shape}, self.constants, self.opset, 10)

    def _axis(self) -> int:
        return self.draw(st.integers(-len(self.shape), len(self.shape) - 1))

    def _append(self, op_type: str, constants: Sequence[Any] = (), more: Sequence[str] = (), **attributes: Any) -> None:
        place = len(self.nodes)
        inputs = [self.current]
        for index, value in enumerate(constants):
            inputs.append("-" if value is None else f"c{place}_{index}")
            if value is not None:
                self.constants[inputs[-1]] = value
        self.current = f"t{place}"
        outputs = " ".join([self.current, *more])
        self.nodes.append(node(op_type, " ".join(inputs), outputs, f"n{place}", **attributes))


@st.composite
def _graphs(draw: st.DrawFn) -> onnx.ModelProto:
    extents = draw(st.lists(st.integers(1, 5), min_size=2, max_size=4))
    chain = _Chain(draw, draw(st.integers(18, 21)), list(extents))
    for _ in range(draw(st.integers(1, 4))):
        chain.add()
    return chain.model(extents)


@given(_graphs(), st.integers(0, 2**32 - 1))
@settings(max_examples=60)
def test_random_graphs_lowered_to_opset_13_compute_the_same_and_lint_clean(
    tmp_path_factory: pytest.TempPathFactory, model: onnx.ModelProto, seed: int
) -> None:
    folder = tmp_path_factory.mktemp("random")
    report = fix_model(_saved(model, folder), _NANO)
    assert report.written is not None, (report.problem, report.refused)
    copy = onnx.load(report.written)
    assert (copy.opset_import[0].version, copy.ir_version) == (13, 7)
    assert not _errors(copy)
    extents = [item.dim_value for item in model.graph.input[0].type.tensor_type.shape.dim]
    x = np.random.default_rng(seed).standard_normal(extents).astype(np.float32)
    got, want = _run(copy, {"x": x})[0], _run(model, {"x": x})[0]
    finite = np.isfinite(want)
    np.testing.assert_array_equal(got[~finite], want[~finite])
    scale = float(np.sqrt(np.mean(np.square(want[finite], dtype=np.float64)))) if finite.any() else 0.0
    np.testing.assert_allclose(got[finite], want[finite], rtol=1e-3, atol=1e-4 * scale)
