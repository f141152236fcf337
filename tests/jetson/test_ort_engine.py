"""onnxruntime: refused before its import over a numpy that it would crash with, and run for real where it can."""

import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, List, Optional

import numpy as np
import pytest

from deploy_attn.jetson import ort_engine
from deploy_attn.jetson.errors import BadRequest, DeployAttnError
from deploy_attn.jetson.ort_engine import OrtEngine, check_numpy, installed
from deploy_attn.jetson.timing import Options, summary, time_calls
from tests.jetson.onnx_bytes import scaled_relu

FEED = np.array([[1.5, -2.0, 0.0], [3.0, -0.25, 8.0]], np.float32)


class Site:
    """A folder on the path with an onnxruntime that ends the interpreter when it is imported."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.folder, self._patch = folder, patch
        patch.setattr(sys, "path", [str(folder)])

    def put(self, opening: str, metadata: str = "", distribution: str = "onnxruntime-1.10.0.dist-info") -> None:
        package = self.folder / "onnxruntime"
        package.mkdir(exist_ok=True)
        (package / "__init__.py").write_text("import os\nos.abort()\n" + opening)
        described = self.folder / distribution
        described.mkdir(exist_ok=True)
        (described / "METADATA").write_text("Metadata-Version: 2.1\n" + metadata)

    def numpy_is(self, version: str) -> None:
        self._patch.setattr(np, "__version__", version)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    return Site(tmp_path, monkeypatch)


OF_1_10 = "Name: onnxruntime\nVersion: 1.10.0\nRequires-Dist: numpy (>=1.16.6)\nRequires-Dist: protobuf\n"


def refusal(site: Site, numpy: str) -> Optional[str]:
    """What is said about a numpy; None where nothing is."""
    site.numpy_is(numpy)
    try:
        check_numpy()
    except BadRequest as error:
        return str(error)
    return None


@pytest.mark.parametrize(
    ("numpy", "is_refused"),
    [("1.13.3", True), ("1.16.5", True), ("1.16.6", False), ("1.19.5", False), ("1.9.9", True), ("2.0.0rc1", False)],
)
def test_a_numpy_older_than_onnxruntime_was_built_for_is_refused(site: Site, numpy: str, is_refused: bool) -> None:
    site.put('__version__ = "1.10.0"\n', OF_1_10)
    assert (refusal(site, numpy) is not None) == is_refused


@pytest.mark.parametrize(
    ("line", "numpy", "wanted"),
    [
        ("numpy>=1.21.6", "1.19.5", ">=1.21.6"),
        ("numpy >=1.21.6", "1.21.6", None),
        ("numpy (>=1.14.0)", "1.15.0", ">=1.16.6"),
        ("numpy<2.0,>=1.21.6", "2.1.3", ">=1.21.6,<2.0"),
        ("numpy<2.0,>=1.21.6", "1.26.4", None),
        ("numpy<2.0.0", "2.0.0", ">=1.16.6,<2.0.0"),
        ("numpy", "1.16.6", None),
        ("numpy", "1.13.3", ">=1.16.6"),
        ("numpy>=9.9 ; python_version >= '3.99'", "1.26.4", None),
        ("numpydoc>=9.9", "1.26.4", None),
    ],
)
def test_what_the_metadata_asks_of_numpy_is_held(site: Site, line: str, numpy: str, wanted: Optional[str]) -> None:
    site.put("", "Name: onnxruntime\nVersion: 1.17.0\nRequires-Dist: {}\n".format(line))
    said = refusal(site, numpy)
    if wanted is None:
        assert said is None
    else:
        assert "onnxruntime 1.17.0 in {} needs numpy {}, and this is numpy {}.".format(
            site.folder / "onnxruntime", wanted, numpy
        ) in (said or "")


def test_the_refusal_says_what_to_do(site: Site) -> None:
    site.put('__version__ = "1.10.0"\n', OF_1_10)
    said = refusal(site, "1.13.3") or ""
    for part in ("was not imported", "python3 -m venv", "numpy>=1.16.6", "--engine tensorrt"):
        assert part in said
    assert ("<1.19.5" in said) == ("'pip<22'" in said) == (sys.version_info < (3, 7))


@pytest.mark.parametrize("distribution", ["onnxruntime_gpu-1.11.0.dist-info", "onnxruntime-1.11.0.dist-info"])
def test_any_distribution_of_onnxruntime_is_found(site: Site, distribution: str) -> None:
    site.put("", "Version: 1.11.0\nRequires-Dist: numpy (>=1.19)\n", distribution)
    assert installed() == (str(site.folder / "onnxruntime"), "1.11.0", " (>=1.19)")


def test_another_package_of_a_similar_name_is_no_onnxruntime(site: Site) -> None:
    site.put('__version__ = "1.10.0"\n', "Version: 3.0\nRequires-Dist: numpy>=9.9\n", "onnxruntime_tools-3.0.dist-info")
    assert refusal(site, "1.26.4") is None


def test_the_first_onnxruntime_on_the_path_is_the_one_that_is_judged(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.put('__version__ = "1.10.0"\n', OF_1_10)
    (tmp_path / "before").mkdir()
    first = Site(tmp_path / "before", monkeypatch)
    first.put('__version__ = "1.17.0"\n', "Version: 1.17.0\nRequires-Dist: numpy>=1.21.6\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path / "nothing"), str(first.folder), str(site.folder)])
    found = installed()
    assert found is not None
    assert (found.version, found.numpy) == ("1.17.0", ">=1.21.6")


def test_where_there_is_none_nothing_is_judged(site: Site) -> None:
    assert installed() is None
    assert refusal(site, "1.13.3") is None


def run_child(code: str, path: List[str]) -> "subprocess.CompletedProcess[bytes]":
    """Python code over the room as it is here, in a process that may end as it likes."""
    room = os.path.dirname(os.path.abspath(ort_engine.__file__))
    opening = (
        "import importlib.util, os, sys\n"
        "sys.path[:0] = {!r}\n"
        "spec = importlib.util.spec_from_file_location('room', os.path.join({!r}, '__init__.py'),\n"
        "    submodule_search_locations=[{!r}])\n"
        "sys.modules['room'] = importlib.util.module_from_spec(spec)\n"
        "from room import ort_engine\n"
        "from room.errors import BadRequest\n"
    ).format(path, room, room)
    command = [sys.executable, "-c", opening + code]
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=60, check=False)


_ASK = """
import numpy
numpy.__version__ = {!r}
try:
    ort_engine.import_onnxruntime()
except BadRequest as error:
    print(error, error.exit_code)
    sys.exit(2)
"""


def test_an_onnxruntime_that_would_crash_is_not_imported(site: Site) -> None:
    """A real process, so that the abort of the package would be seen: the other way round it is."""
    site.put('__version__ = "1.10.0"\n', OF_1_10)
    done = run_child(_ASK.format("1.13.3"), [str(site.folder)])
    assert done.returncode == 2, done.stderr
    assert b"needs numpy >=1.16.6, and this is numpy 1.13.3" in done.stdout
    assert run_child(_ASK.format("1.16.6"), [str(site.folder)]).returncode < 0


@pytest.mark.parametrize("opening", ["raise ImportError('DLL load failed')", "raise RuntimeError('no such library')"])
def test_an_onnxruntime_that_does_not_load_is_refused_with_its_reason(tmp_path: Path, opening: str) -> None:
    package = tmp_path / "onnxruntime"
    package.mkdir()
    (package / "__init__.py").write_text('__version__ = "1.10.0"\n' + opening)
    done = run_child(_ASK.format("1.26.4"), [str(tmp_path)])
    assert done.returncode == 2, done.stderr
    assert opening.split("'")[1].encode() in done.stdout
    assert b"ort/bin/pip install onnxruntime" in done.stdout


@pytest.mark.real_engine
class TestInOnnxruntime:
    """With the real one."""

    def test_a_graph_runs(self) -> None:
        with OrtEngine(scaled_relu(2.0, (2, 3))) as engine:
            assert engine.inputs == (("x", "float32", (2, 3)),)
            assert engine.outputs == (("y", "float32", (2, 3)),)
            for feed in (FEED, FEED.T.copy().T):  # the second is not dense
                outputs = engine.infer({"x": feed})
                assert list(outputs) == ["y"]
                assert outputs["y"].dtype == np.float32
                assert outputs["y"].tolist() == (np.maximum(FEED, 0) * 2).tolist()

    def test_an_open_axis_takes_any_extent(self) -> None:
        with OrtEngine(scaled_relu(2.0, (None, 3))) as engine:
            assert engine.inputs[0].shape == (None, 3)
            for count in (1, 5):
                assert engine.infer({"x": np.ones((count, 3), np.float32)})["y"].shape == (count, 3)
            with pytest.raises(BadRequest, match=r"takes float32 of shape \?x3, got float32 of shape 2x4"):
                engine.infer({"x": np.ones((2, 4), np.float32)})

    @pytest.mark.parametrize(
        ("feeds", "said"),
        [
            ({}, r"takes inputs \['x'\], got \[\]"),
            ({"z": FEED}, r"got \['z'\]"),
            ({"x": FEED, "z": FEED}, r"got \['x', 'z'\]"),
            ({"x": FEED.astype(np.float64)}, "takes float32 of shape 2x3, got float64"),
            ({"x": FEED[0]}, "got float32 of shape 3"),
        ],
    )
    def test_feeds_that_do_not_fit_are_refused(self, feeds: Dict[str, Any], said: str) -> None:
        with OrtEngine(scaled_relu(2.0, (2, 3))) as engine, pytest.raises(BadRequest, match=said):
            engine.infer(feeds)

    @pytest.mark.parametrize("content", [b"", b"not a graph", scaled_relu(2.0, (2, 3))[:-9], b"\0" * 64])
    def test_what_is_no_graph_is_refused(self, content: bytes) -> None:
        engine = OrtEngine(content)
        with pytest.raises(BadRequest, match="cannot load this graph of {} bytes".format(len(content))):
            engine.__enter__()

    def test_conditions_say_what_a_result_depends_on(self) -> None:
        import onnxruntime

        with OrtEngine(scaled_relu(2.0, (2, 3)), threads=1) as engine:
            found = engine.conditions()
        assert found["version"] == onnxruntime.__version__
        assert found["numpy"] == np.__version__
        assert (found["provider"], found["intra_op_threads"]) == ("CPUExecutionProvider", 1)

    def test_an_engine_that_is_not_loaded_does_not_run(self) -> None:
        engine = OrtEngine(scaled_relu(2.0, (2, 3)))
        with pytest.raises(RuntimeError, match="not loaded"):
            engine.infer({"x": FEED})
        with engine:
            engine.infer({"x": FEED})
        with pytest.raises(RuntimeError, match="not loaded"):
            engine.infer({"x": FEED})

    def test_what_onnxruntime_raises_is_an_error_of_ours(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class Failing:
            def run(self, names: Any, feeds: Any) -> Any:
                raise RuntimeError("[ONNXRuntimeError] : 1 : FAIL : Non-zero status code.\nmore")

        with OrtEngine(scaled_relu(2.0, (2, 3))) as engine:
            monkeypatch.setattr(engine, "_session", Failing())
            with pytest.raises(DeployAttnError, match="failed while it ran the graph: .*Non-zero status code.$"):
                engine.infer({"x": FEED})

    def test_a_threads_setting_reaches_the_session(self) -> None:
        with OrtEngine(scaled_relu(2.0, (2, 3)), threads=1) as engine:
            assert engine._session.get_session_options().intra_op_num_threads == 1
            assert engine._session.get_providers() == ["CPUExecutionProvider"]

    def test_its_calls_can_be_timed(self) -> None:
        with OrtEngine(scaled_relu(2.0, (2, 3)), threads=1) as engine:
            options = Options(duration=0.02, warm_up=0.02, longest_warm_up=0.2)
            found = summary(time_calls(lambda: engine.infer({"x": FEED}), options))
        assert found["median_ms"] > 0
        assert found["inferences"] > 20


def test_a_graph_of_the_tests_is_read_back(tmp_path: Path) -> None:
    """What the tests feed to onnxruntime is a graph also to the reader of the fakes."""
    from tests.jetson.fake_tensorrt.onnx_reader import read_graph

    graph = read_graph(scaled_relu(2.0, (None, 3)))
    assert [node.operator for node in graph.nodes] == ["Relu", "Mul"]
    assert graph.inputs == {"x": (None, 3)}
    with io.open(str(tmp_path / "model.onnx"), "wb") as stream:
        assert stream.write(scaled_relu(0.5, (1,))) > 50
