"""A sweep on a real scheduler with two worker processes, one of which is killed in the middle."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from deploy_attn.jetson.errors import BadRequest
from deploy_attn.sweeping import cluster
from deploy_attn.sweeping.plan import Effort
from deploy_attn.sweeping.process import job_of
from deploy_attn.sweeping.sweep import SweepOptions, SweepReport, sweep
from deploy_attn.sweeping.worker import answer
from tests.deploy_attn.sweeping.sweeps import FAKE, Fakes, plan
from tests.deploy_attn.sweeping.test_cell_file import OUTCOME

TARGET = "onnxruntime-cpu"
START_S = 60


@dataclass(frozen=True)
class Machines:
    """A scheduler of this test, and how its workers are started."""

    folder: Path
    processes: list[subprocess.Popen[bytes]]

    @property
    def file(self) -> Path:
        return self.folder / "scheduler.json"

    @property
    def address(self) -> str:
        return str(json.loads(self.file.read_text())["address"])

    def start(self, *arguments: object) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "dask", *map(str, arguments), "--no-dashboard"]
        with (self.folder / f"{len(self.processes)}.log").open("wb") as log:
            self.processes.append(subprocess.Popen(command, stdout=log, stderr=log))
        return self.processes[-1]

    def start_worker(self, resources: str = f"{TARGET}=1") -> subprocess.Popen[bytes]:
        place = self.folder / f"worker-{len(self.processes)}"
        alone = ("--nworkers", 1, "--nthreads", 1, "--no-nanny", "--local-directory", place)
        return self.start("worker", self.address, *alone, "--resources", resources)


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[Machines]:
    found = Machines(tmp_path, [])
    found.start("scheduler", "--host", "127.0.0.1", "--port", 0, "--scheduler-file", found.file)
    until(lambda: found.file.exists() and found.file.read_text())
    yield found
    for process in found.processes:
        process.kill()
        process.wait()


def until(what: Callable[[], Any]) -> None:
    began = time.monotonic()
    while not what():
        assert time.monotonic() - began < START_S
        time.sleep(0.02)


def workers(address: str) -> int:
    from distributed import Client

    with Client(address, set_as_default=False) as client:
        return len(client.scheduler_info(n_workers=-1)["workers"])


@contextlib.contextmanager
def meanwhile(action: Callable[[], None]) -> Iterator[None]:
    thread = threading.Thread(target=action)
    thread.start()
    yield
    thread.join()


def worker_of(fakes: Fakes, name: str) -> int:
    """The process id of the worker that began a cell."""
    until(lambda: fakes.lines(f"begin {name}"))
    return int(fakes.lines(f"begin {name}")[0].split()[-1])


def options(machines: Machines) -> SweepOptions:
    return SweepOptions(scheduler=machines.address, process=FAKE, patience=START_S)


def test_a_cell_whose_worker_is_killed_is_run_by_the_other_one(
    tmp_path: Path, fakes: Fakes, machines: Machines
) -> None:
    machines.start_worker()
    machines.start_worker()
    until(lambda: workers(machines.address) == 2)

    def kill() -> None:
        os.kill(worker_of(fakes, "stuck"), signal.SIGKILL)
        until(lambda: fakes.lines("orphan"))  # its cell's process ends with it
        fakes.go.touch()

    with meanwhile(kill):
        report = sweep(plan("stuck,se,crash,slow,eca"), tmp_path / "s", options(machines))
    assert done(report) == {"stuck": True, "se": True, "crash": False, "slow": True, "eca": True}
    assert len({line.split()[-1] for line in fakes.lines("begin stuck")}) == 2
    assert len(list((tmp_path / "s" / "artifacts").iterdir())) == 5
    again = sweep(plan("stuck,se,crash,slow,eca"), tmp_path / "s", options(machines))
    assert (again.ran, again.cells) == (0, report.cells)


def done(report: SweepReport) -> dict[str, bool]:
    return {kept.cell.module.name: kept.outcome.done for kept in report.cells}


def test_a_sweep_ends_when_its_last_worker_is_killed_and_goes_on_here(
    tmp_path: Path, fakes: Fakes, machines: Machines
) -> None:
    machines.start_worker()
    machines.start_worker("jetson-nano=1")  # a machine of another kind gets none of these cells
    until(lambda: workers(machines.address) == 2)
    with meanwhile(lambda: os.kill(worker_of(fakes, "stuck"), signal.SIGKILL)):
        report = sweep(plan("se,stuck,eca"), tmp_path / "s", replace(options(machines), patience=0.5))
    assert "stuck" in {cell.module.name for cell in report.not_run}
    assert len({line.split()[-1] for line in fakes.lines("begin")}) == 1
    assert len(report.cells) + len(report.not_run) == 3
    assert f"{len(report.not_run)} cells have not been run" in report.notes[0]
    assert "--resources 'onnxruntime-cpu=1'" in report.notes[0]
    fakes.go.touch()
    again = sweep(plan("se,stuck,eca"), tmp_path / "s", SweepOptions(process=FAKE))
    assert (again.ran, again.passed) == (len(report.not_run), True)


def test_a_sweep_ends_when_the_scheduler_is_killed(tmp_path: Path, fakes: Fakes, machines: Machines) -> None:
    machines.start_worker()
    until(lambda: workers(machines.address) == 1)

    def kill() -> None:
        worker_of(fakes, "stuck")
        machines.processes[0].kill()

    with meanwhile(kill):
        report = sweep(plan("stuck"), tmp_path / "s", options(machines))
    assert "The scheduler is gone, and 1 cells have not been run" in report.notes[0]
    assert len(report.not_run) == 1


def test_a_sweep_ends_when_the_scheduler_stops_answering(
    tmp_path: Path, fakes: Fakes, machines: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    machines.start_worker()
    until(lambda: workers(machines.address) == 1)

    def stop() -> None:
        worker_of(fakes, "stuck")
        monkeypatch.setattr(cluster, "_CONNECT_S", 0.2)
        machines.processes[0].send_signal(signal.SIGSTOP)

    with meanwhile(stop):
        report = sweep(plan("stuck"), tmp_path / "s", replace(options(machines), patience=0.5))
    assert "has shown no worker for onnxruntime-cpu for 0.5 s, and 1 cells have not been run" in report.notes[0]


def test_what_listens_and_does_not_answer_is_no_scheduler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "_CONNECT_S", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"tcp://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(BadRequest, match="does not answer as a scheduler does"):
            sweep(plan("se"), tmp_path / "s", SweepOptions(scheduler=address))
    assert not (tmp_path / "s").exists()


def test_a_scheduler_without_a_worker_for_the_target_is_refused(tmp_path: Path, machines: Machines) -> None:
    machines.start_worker("jetson-nano=1")
    until(lambda: workers(machines.address) == 1)
    with pytest.raises(BadRequest, match=r"has no worker for onnxruntime-cpu. The workers there are for: jetson-nano"):
        sweep(plan("se"), tmp_path / "s", replace(options(machines), patience=0))
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize("address", ["", "nonsense", "foo://127.0.0.1:1", "tcp://127.0.0.1:1"])
def test_a_scheduler_that_is_not_there_is_refused(
    tmp_path: Path, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "_CONNECT_S", 0.2)
    with pytest.raises(BadRequest, match="`dask scheduler` starts one"):
        sweep(plan("se"), tmp_path / "s", SweepOptions(scheduler=address))
    assert not (tmp_path / "s").exists()


def test_without_distributed_a_scheduler_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(BadRequest, match=r"pip install 'deploy-attn\[sweep\]'"):
        sweep(plan("se"), tmp_path / "s", SweepOptions(scheduler="tcp://127.0.0.1:1"))


class Answered:
    """A future that is done."""

    def __init__(self, answer: object) -> None:
        self.answer = answer
        self.status = "error" if isinstance(answer, Exception) else "finished"

    def exception(self) -> object:
        return self.answer

    def result(self, timeout: float) -> object:
        return self.answer


@pytest.mark.parametrize(
    ("received", "said"),
    [
        (ModuleNotFoundError("No module named 'deploy_attn'"), "has no deploy-attn, or another one"),
        (RuntimeError("it died on 4 different workers"), "came to no outcome (RuntimeError: it died"),
        (TimeoutError("no answer"), "came to no outcome (TimeoutError: no answer)"),
        (None, "the worker's answer is none"),
        ({"outcome": {}, "files": {}}, "the worker's answer is none"),
        ({"outcome": OUTCOME, "files": {"../x": b""}}, "files that are none of an artifact"),
        ({"outcome": OUTCOME, "files": {".hidden": b""}}, "files that are none of an artifact"),
        ({"outcome": OUTCOME, "files": {"a\0b": b""}}, "files that are none of an artifact"),
        ({"outcome": OUTCOME, "files": {"a" * 300: b""}}, "files that are none of an artifact"),
        ({"outcome": OUTCOME, "files": {"": b""}}, "files that are none of an artifact"),
        ({"outcome": OUTCOME, "files": {"x": "text"}}, "files that are none of an artifact"),
        ({"outcome": OUTCOME, "files": None}, "the worker's answer is none"),
    ],
)
def test_an_answer_that_is_none_is_a_failed_cell(received: object, said: str) -> None:
    finished = cluster._received(Answered(received))  # type: ignore[arg-type]
    assert finished is not None
    assert said in finished.outcome.reason
    assert not finished.files


@pytest.fixture
def worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import distributed

    monkeypatch.setattr(distributed, "get_worker", type("Worker", (), {"local_directory": str(tmp_path)}))


@pytest.mark.usefixtures("worker")
def test_the_job_of_a_worker_is_plain_values(fakes: Fakes) -> None:
    found = answer(json.loads(json.dumps(job_of(plan("se").cells[0], Effort()))), FAKE.program)
    assert json.loads(json.dumps(found["outcome"]))["status"] == "done"
    assert list(found["files"]) == ["manifest.json"]


@pytest.mark.usefixtures("worker")
def test_a_cell_that_hangs_on_a_worker_is_ended_at_its_limit(fakes: Fakes) -> None:
    found = answer(job_of(plan("stuck").cells[0], Effort(), 0.3), FAKE.program)
    assert "did not end within 0.3 s" in found["outcome"]["reason"]
