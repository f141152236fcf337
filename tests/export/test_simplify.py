"""Holds that onnxsim is used only where it helps and only as far as it is proven to change nothing."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import onnx
import onnxsim
import pytest

from deploy_attn.engines.onnxruntime import OnnxRuntimeRunner
from deploy_attn.export.onnx_from_module import GraphRequest
from deploy_attn.export.simplify import Simplified, simplify

Tamper = Callable[[onnx.ModelProto], onnx.ModelProto]

REQUEST = GraphRequest(17, 8)
HEADER = '<ir_version: 8, opset_import: ["" : 17]>'
PLAIN = f"{HEADER} g (float[2, 3] x) => (float[2, 3] y) {{ [relu] y = Relu(x) }}"
FOLDABLE = f"""{HEADER}
g (float[batch, 3] x) => (float[batch, 3] y) <float[3] w = {{1, 2, 3}}> {{
  [same] a = Identity(x)
  [there] b = Transpose<perm = [1, 0]>(a)
  [back] c = Transpose<perm = [1, 0]>(b)
  [scale] d = Mul(c, w)
  [relu] y = Relu(d)
}}"""
FOLDED = f"""{HEADER}
g (float[batch, 3] x) => (float[batch, 3] y) <float[3] w = {{1, 2, 3}}> {{
  [scale] d = Mul(x, w)
  [relu] y = Relu(d)
}}"""


def _feeds() -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float32]]]:
    return {"x": np.random.RandomState(0).standard_normal((4, 3)).astype(np.float32)}


def _model(text: str) -> onnx.ModelProto:
    return onnx.parser.parse_model(text)


def _with_tampering(monkeypatch: pytest.MonkeyPatch, tamper: Tamper) -> tuple[onnx.ModelProto, Simplified]:
    """The foldable model, and what simplify makes of it where onnxsim does what `tamper` does."""
    monkeypatch.setattr(onnxsim, "simplify", lambda model, **_: (tamper(model), True))
    model = _model(FOLDABLE)
    return model, simplify(model, _feeds(), REQUEST)


def _instead(old: str, new: str) -> Tamper:
    """Answers with the folded graph, one thing in it changed."""
    assert old in FOLDED
    return lambda model: _model(FOLDED.replace(old, new))


def _raise(model: onnx.ModelProto) -> onnx.ModelProto:
    raise RuntimeError("no schema for Foo\nand a long trace")


def _raise_without_words(model: onnx.ModelProto) -> onnx.ModelProto:
    raise ValueError


def _without_names(model: onnx.ModelProto) -> onnx.ModelProto:
    folded = _model(FOLDED)
    folded.graph.node[0].ClearField("name")
    return folded


def test_onnxsim_is_not_imported_where_there_is_nothing_to_fold() -> None:
    program = f"""
import sys
import numpy, onnx
from deploy_attn.export.onnx_from_module import GraphRequest
from deploy_attn.export.simplify import simplify
model = onnx.parser.parse_model('''{PLAIN}''')
result = simplify(model, {{"x": numpy.zeros((2, 3), numpy.float32)}}, GraphRequest(17, 8))
assert result.model is model
print(result.outcome, "onnxsim" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("not needed False\n", "")


def test_a_graph_without_foldable_nodes_comes_back_as_it_is() -> None:
    model = _model(PLAIN)
    result = simplify(model, {"x": np.zeros((2, 3), np.float32)}, REQUEST)
    assert result.outcome == "not needed"
    assert result.model is model


def test_foldable_nodes_are_removed_and_nothing_else_changes() -> None:
    model = _model(FOLDABLE)
    result = simplify(model, _feeds(), REQUEST)
    assert result.outcome == "applied"
    # Releases of onnxsim differ in how much they fold.
    left = [node.name for node in result.model.graph.node]
    assert len(left) < len(model.graph.node)
    assert left[-2:] == ["scale", "relu"]
    assert list(result.model.graph.input) == list(model.graph.input)
    assert list(result.model.graph.output) == list(model.graph.output)
    with OnnxRuntimeRunner(result.model.SerializeToString()) as run:
        got = run.infer(_feeds())["y"]
    np.testing.assert_array_equal(got, np.maximum(_feeds()["x"] * np.array([1, 2, 3], np.float32), 0))


def test_the_graph_that_goes_in_is_not_written_to() -> None:
    model = _model(FOLDABLE)
    before = model.SerializeToString()
    assert simplify(model, _feeds(), REQUEST).model is not model
    assert model.SerializeToString() == before


def test_simplifying_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    simplify(_model(FOLDABLE), _feeds(), REQUEST)
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")


def test_what_compiled_code_says_of_a_fold_is_not_shown_and_stderr_is_the_callers_again(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def talks(model: onnx.ModelProto) -> onnx.ModelProto:
        os.write(2, b"WARNING: failed to run")
        return _model(FOLDED)

    _with_tampering(monkeypatch, talks)
    os.write(2, b"after")
    assert capfd.readouterr().err == "after"


@pytest.mark.parametrize(
    "tamper",
    [
        pytest.param(_instead("Relu(d)", "Relu(d)"), id="exact"),
        pytest.param(_instead("{1, 2, 3}", "{1.0000001, 2.0000002, 3.0000003}"), id="off by the last bit"),
        pytest.param(_instead("[scale]", "[other]"), id="other node names"),
    ],
)
def test_what_changes_nothing_is_applied(monkeypatch: pytest.MonkeyPatch, tamper: Tamper) -> None:
    _, result = _with_tampering(monkeypatch, tamper)
    assert result.outcome == "applied"
    assert len(result.model.graph.node) == 2


@pytest.mark.parametrize(
    ("tamper", "why"),
    [
        pytest.param(_raise, "no schema for Foo", id="it raises"),
        pytest.param(_raise_without_words, "ValueError", id="it raises without words"),
        pytest.param(_instead("Relu(d)", "Relu(e)"), "not valid ONNX", id="an invalid graph"),
        pytest.param(_instead("Mul(x, w)", "Foo(x, w)"), "not valid ONNX", id="an unknown operator"),
        pytest.param(_instead('"" : 17', '"" : 16'), "must be opset 17", id="another opset"),
        pytest.param(_instead("ir_version: 8", "ir_version: 9"), "IR 9", id="another IR"),
        pytest.param(
            _instead('"" : 17]', '"" : 17, "com.microsoft" : 1]'), "com.microsoft", id="an operator set of its own"
        ),
        pytest.param(
            _instead("[relu] y = Relu(d)", "[relu] y = Concat<axis = 0>(d, d)"),
            "it changed the shape of y",
            id="an output's extent",
        ),
        pytest.param(
            _instead("=> (float[batch, 3] y)", "=> (float[4, 3] y)"),
            "it changed the graph's outputs",
            id="a fixed batch",
        ),
        pytest.param(
            _instead("(float[batch, 3] x)", "(float[n, 3] x)"), "it changed the graph's inputs", id="a renamed batch"
        ),
        pytest.param(
            lambda model: _model(FOLDED.replace(" y", " z")), "it changed the graph's outputs", id="a renamed output"
        ),
        pytest.param(_instead("{1, 2, 3}", "{1, 2, 3.0001}"), r"it changed y by \d\.\de-05 RMS", id="a weight"),
        pytest.param(_instead("Relu(d)", "Abs(d)"), r"it changed y by \d\.\de", id="an operator"),
        pytest.param(_instead("Relu(d)", "Log(d)"), "it changed y by nan", id="NaN"),
        pytest.param(_without_names, "it left nodes without a name", id="a dropped node name"),
        pytest.param(_instead("[scale]", "[relu]"), "it left nodes without a name of their own", id="one name twice"),
        pytest.param(
            _instead(
                "[relu] y = Relu(d)",
                "[to] e = Cast<to = 16>(d) [relu] f = Relu(e) [from] y = Cast<to = 1>(f)",
            ),
            "onnxruntime refuses its graph",
            id="a kernel that nobody has",
        ),
    ],
)
def test_what_changes_anything_is_rolled_back_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, tamper: Tamper, why: str
) -> None:
    model, result = _with_tampering(monkeypatch, tamper)
    assert result.outcome.startswith("rolled back: ")
    assert "\n" not in result.outcome
    assert re.search(why, result.outcome), result.outcome
    assert result.model is model
    assert model == _model(FOLDABLE)


def test_a_transpose_alone_is_left_as_it_is_and_two_are_folded() -> None:
    once = "[t] y = Transpose<perm = [1, 0]>(x)"
    twice = "[t] t = Transpose<perm = [1, 0]>(x) [back] u = Transpose<perm = [1, 0]>(t) [relu] y = Relu(u)"
    feeds = {"x": np.ones((2, 2), np.float32)}
    for nodes, outcome in ((once, "not needed"), (twice, "applied")):
        model = onnx.parser.parse_model(f"{HEADER} g (float[2, 2] x) => (float[2, 2] y) {{ {nodes} }}")
        assert simplify(model, feeds, REQUEST).outcome == outcome


def test_the_nodes_of_a_gelu_stay_one_after_the_other() -> None:
    """Only so onnxruntime knows them, and runs them as one."""
    text = f"""{HEADER}
g (float[1, 2, 3, 3] x) => (float[1, 4, 3, 3] y)
<float root = {{1.4142135}}, float one = {{1}}, float half = {{0.5}},
 float[4, 2, 1, 1] w = {{1, 2, 3, 4, 5, 6, 7, 8}}> {{
  [same] a = Identity(x)
  [div] b = Div(a, root)
  [erf] c = Erf(b)
  [add] d = Add(c, one)
  [mul] e = Mul(a, d)
  [half] f = Mul(e, half)
  [conv] y = Conv(f, w)
}}"""
    feeds = {"x": np.random.RandomState(0).standard_normal((1, 2, 3, 3)).astype(np.float32)}
    found = simplify(_model(text), feeds, REQUEST)
    assert found.outcome == "applied"
    assert [node.op_type for node in found.model.graph.node] == ["Div", "Erf", "Add", "Mul", "Mul", "Conv"]
