"""Real children with a fake TensorRT on their path."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, Tuple

import pytest

from deploy_attn.jetson import tensorrt_child
from deploy_attn.jetson.errors import BadRequest, DeployAttnError
from deploy_attn.jetson.tensorrt_child import available_memory, build, probe
from tests.jetson.builds import FAKES, PLAN, gate
from tests.jetson.fake_tensorrt import builder


class Fake:
    """Children that import the fake of a version, with faults."""

    def __init__(self, patch: pytest.MonkeyPatch, folder: Path) -> None:
        self._patch = patch
        self.folder = folder
        (folder / tensorrt_child.MODEL).write_bytes(gate())

    def use(self, version: str, *faults: str) -> None:
        self._patch.syspath_prepend(FAKES / f"as_{version.replace('.', '_')}")
        self._patch.setenv(builder.FAULTS, ",".join(faults))

    def build(self, on_progress: Any = None, **asked: Any) -> Dict[str, Any]:
        return build(str(self.folder), asked, on_progress)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Fake:
    return Fake(monkeypatch, tmp_path)


@pytest.mark.parametrize(
    ("version", "weak"), [("8.0", True), ("8.2", True), ("8.5", True), ("10", True), ("11", False)]
)
def test_a_child_builds_with_each_version(fake: Fake, version: str, weak: bool) -> None:
    fake.use(version)
    if not weak:
        (fake.folder / tensorrt_child.MODEL).write_bytes(gate(typed=True))
    outcome = fake.build(precision="fp16", typed=not weak, plan=PLAN)
    assert outcome["built"] and outcome["precision_problems"] == []
    header, model = builder.split_engine((fake.folder / tensorrt_child.ENGINE).read_bytes())
    assert header["version"] == outcome["version"]
    assert model == (fake.folder / tensorrt_child.MODEL).read_bytes()


def test_progress_comes_while_the_builder_works_and_nothing_else_that_it_prints(fake: Fake) -> None:
    fake.use("10", builder.SLOW, builder.CHATTY)
    told: List[Tuple[float, Mapping[str, Any]]] = []
    fake.build(lambda step: told.append((time.monotonic(), step)))
    ended = time.monotonic()
    assert [tuple(step.values()) for _, step in told] == [
        ("Building engine", 0, 2),
        ("Autotuning", 0, 1),
        ("Autotuning", 1, 1),
        ("Autotuning", 1, 1),
        ("Building engine", 1, 2),
        ("Building engine", 2, 2),
    ]
    assert ended - told[0][0] > 0.4


def test_a_version_without_a_progress_monitor_tells_none(fake: Fake) -> None:
    fake.use("8.6")
    told: List[Mapping[str, Any]] = []
    fake.build(told.append)
    assert told == []


def test_a_failure_of_the_listener_ends_the_child(fake: Fake) -> None:
    fake.use("10", builder.SLOW)

    def fails(step: Mapping[str, Any]) -> None:
        raise KeyboardInterrupt

    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        fake.build(fails)
    assert time.monotonic() - began < 5
    assert not (fake.folder / tensorrt_child.ENGINE).exists()


def test_a_child_ends_with_the_process_that_started_it_however_that_ends(fake: Fake) -> None:
    fake.use("8.2", builder.ENDLESS)
    code = f"""
import sys
sys.path[:] = {sys.path!r}
from {tensorrt_child.__name__} import build
build({str(fake.folder)!r}, {{}})
"""
    caller = subprocess.Popen([sys.executable, "-c", code])
    told = fake.folder / "builder.pid"
    assert within_seconds(20, lambda: told.is_file() and told.read_text().endswith("\n"))
    child = int(told.read_text())
    caller.kill()
    caller.wait()
    try:
        assert within_seconds(10, lambda: not is_running(child))
    finally:
        if is_running(child):
            os.kill(child, signal.SIGKILL)


def within_seconds(seconds: float, happens: Callable[[], bool]) -> bool:
    ends = time.monotonic() + seconds
    while not happens() and time.monotonic() < ends:
        time.sleep(0.02)
    return happens()


def is_running(process: int) -> bool:
    """Whether it is there and no zombie, which in a container may wait for a parent that never looks."""
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def test_a_killed_builder_is_reported_as_out_of_memory_with_remedies_in_order(
    fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.use("8.2", builder.KILLED)
    monkeypatch.setattr(tensorrt_child, "available_memory", lambda: 913 << 20)
    with pytest.raises(DeployAttnError) as raised:
        fake.build()
    text = str(raised.value)
    assert text.startswith(
        "TensorRT's builder was killed (SIGKILL), as the system does when memory runs out. 913 MiB were"
    )
    places = [text.index(word) for word in ("multi-user.target", "nvzramconfig", "workspace", "--timing-cache")]
    assert places == sorted(places)
    assert raised.value.exit_code == 1


def test_where_the_system_does_not_tell_its_memory_the_report_says_so(
    fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.use("8.2", builder.KILLED)
    monkeypatch.setattr(tensorrt_child, "available_memory", lambda: None)
    with pytest.raises(DeployAttnError, match="How much memory there was is not known"):
        fake.build()


def test_available_memory_is_read_and_its_absence_is_none(tmp_path: Path) -> None:
    assert available_memory(str(tmp_path / "none")) is None
    file = tmp_path / "meminfo"
    file.write_text("MemTotal:  4059268 kB\nMemFree: 1 kB\nMemAvailable:    2048 kB\n")
    assert available_memory(str(file)) == 2048 * 1024
    file.write_text("MemTotal:  4059268 kB\n")
    assert available_memory(str(file)) is None


def test_a_builder_that_says_it_has_no_memory_gets_the_same_remedies(fake: Fake) -> None:
    fake.use("8.2", builder.OUT_OF_MEMORY)
    with pytest.raises(DeployAttnError, match=r"(?s)builder ran out of memory \(.*OutOfMemory.*multi-user"):
        fake.build()


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (builder.CRASHED, r"crashed on this graph \(SIGSEGV\)"),
        (builder.LEFT, r"crashed on this graph \(exit code 3: last words of the builder\)"),
        (builder.RAISED, r"crashed on this graph \(exit code 1: OSError: the disk is full\)"),
        (builder.GARBAGE, r"ended without an answer that can be read"),
        (builder.NO_OUTCOME, r"ended without an answer that can be read \(there is none\)"),
    ],
)
def test_however_a_child_ends_it_is_an_error_that_says_how(fake: Fake, fault: str, message: str) -> None:
    fake.use("8.2", fault)
    (fake.folder / "outcome.json").write_text('{"absent": "", "error": "", "messages": [], "built": true}')
    with pytest.raises(DeployAttnError, match=message) as raised:
        fake.build()
    assert raised.value.exit_code == 1


@pytest.mark.parametrize("answer", ["[]", "3", "{}", '"absent"', "", "[" * 100000])
def test_an_answer_of_another_form_is_an_error(fake: Fake, monkeypatch: pytest.MonkeyPatch, answer: str) -> None:
    child = f"import sys; open('outcome.json', 'w').write({answer[:9]!r} * {max(1, len(answer) // 9)})"
    monkeypatch.setattr(tensorrt_child, "_CHILD", child)
    with pytest.raises(DeployAttnError, match="ended without an answer that can be read"):
        fake.build()


def test_what_the_version_cannot_do_is_a_bad_request_also_from_a_child(fake: Fake) -> None:
    fake.use("8.2")
    with pytest.raises(BadRequest, match=r"from TensorRT 8\.6 on; this is 8\.2\.1\.8"):
        fake.build(version_compatible=True)


def test_a_timing_cache_by_a_relative_path_lies_where_the_caller_is(
    fake: Fake, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    fake.use("8.2")
    here = tmp_path_factory.mktemp("here")
    monkeypatch.chdir(here)
    fake.build(timing_cache="cache")
    assert (here / "cache").read_bytes().startswith(builder.CACHE)


def test_modules_beside_the_caller_are_found_by_the_child(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(FAKES / "as_8_4")
    monkeypatch.syspath_prepend("")
    assert fake.build()["version"] == "8.4.1.5"


def test_files_of_the_user_named_as_modules_of_python_do_no_harm(
    fake: Fake, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fake.use("8.2")
    shadows = tmp_path / "shadows"
    shadows.mkdir()
    modules = "types json enum re typing io difflib glob ctypes contextlib inspect threading"
    for name in modules.split():
        (shadows / f"{name}.py").write_text(f"raise ImportError('the wrong {name}')")
    monkeypatch.syspath_prepend(shadows)
    assert fake.build()["built"]


def test_files_in_the_folder_itself_do_no_harm(fake: Fake) -> None:
    for name in ("json", "sys", "importlib", "ctypes"):
        (fake.folder / f"{name}.py").write_text("raise ImportError('from the folder')")
    fake.use("8.2")
    assert fake.build()["built"]


def test_an_absent_module_is_told_by_a_build_and_refused_by_a_probe(
    fake: Fake, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert "no module of that name" in fake.build()["absent"]
    (tmp_path / "tensorrt.py").write_text("raise ImportError('libnvinfer.so.8: cannot open shared object file')")
    monkeypatch.syspath_prepend(tmp_path)
    assert fake.build()["absent"] == "libnvinfer.so.8: cannot open shared object file"
    with pytest.raises(BadRequest, match=r"cannot be imported \(libnvinfer\.so\.8: .*python3-libnvinfer"):
        probe()


def test_a_probe_tells_what_is_here(fake: Fake) -> None:
    fake.use("8.2")
    found = probe()
    assert (found["version"], found["weak_typing"]) == ("8.2.1.8", True)
    assert bool(found["device"]) != bool(found["no_device"])


def test_builds_side_by_side_do_not_meet(fake: Fake, tmp_path: Path) -> None:
    fake.use("10")
    outcomes: Dict[int, Dict[str, Any]] = {}

    def one(number: int) -> None:
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / tensorrt_child.MODEL).write_bytes(gate((number, 4, 8, 8)))
        outcomes[number] = build(str(folder), {"workspace_bytes": number})

    threads = [threading.Thread(target=one, args=(number,)) for number in (1, 2, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    engines = {number: (tmp_path / str(number) / tensorrt_child.ENGINE).read_bytes() for number in outcomes}
    assert {number: builder.split_engine(engine)[0]["workspace"] for number, engine in engines.items()} == {
        1: 1,
        2: 2,
        3: 3,
    }


def test_without_a_known_python_the_error_says_so(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "")
    with pytest.raises(DeployAttnError, match=r"does not know its own program"):
        fake.build()


def test_nothing_is_printed(fake: Fake, capfd: pytest.CaptureFixture[str]) -> None:
    fake.use("10", builder.CHATTY)
    fake.build()
    fake.use("10", builder.LEFT)
    with pytest.raises(DeployAttnError):
        fake.build()
    assert capfd.readouterr() == ("", "")
