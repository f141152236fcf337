"""Clocks pinned for a while: with a program that stands for jetson_clocks, down to its habits."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, List, Optional

import pytest

from deploy_attn.jetson import clocks, programs
from deploy_attn.jetson.board import look
from deploy_attn.jetson.clocks import PinnedClocks
from deploy_attn.jetson.errors import BadRequest
from deploy_attn.jetson.programs import ProgramFailed, find_program, run_program
from tests.jetson import boards, fake_jetson_clocks

ROOM = os.path.realpath(os.path.dirname(os.path.abspath(clocks.__file__)))


class FakeBoard:
    """A tree of a Nano and its jetson_clocks; a step of that may do something else."""

    def __init__(self, folder: Path, store: str = ":", pin: str = ":", restore: str = ":") -> None:
        self._folder = folder
        self.root = boards.write(folder / "root", "nano")
        self.program = fake_jetson_clocks.install(str(folder), self.root, store, pin, restore)
        self.told: List[str] = []

    @property
    def calls(self) -> List[str]:
        """The first word of each call."""
        path = self._folder / "calls"
        return [(line.split() or ["pin"])[0] for line in path.read_text().splitlines()] if path.exists() else []

    @property
    def minimum(self) -> int:
        return int(look(self.root).gpu_min_clock_hz or 0)

    def pinned(self) -> PinnedClocks:
        return PinnedClocks(self.told.append, self.root, self.program)


ALL = ["--store", "pin", "--restore"]
FREE, PINNED = 76800000, 921600000


@pytest.fixture(autouse=True)
def as_root(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()


def left(tmp_path: Path) -> List[str]:
    return [str(path) for path in (tmp_path / "temporary").rglob("*.conf")]


def test_clocks_are_pinned_inside_and_as_before_after(tmp_path: Path) -> None:
    board = FakeBoard(tmp_path)
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    with board.pinned() as held:
        assert board.minimum == PINNED
        assert look(board.root).clocks_pinned is True
        assert len(left(tmp_path)) == 1
        assert board.told == [
            "Clocks are pinned until the end of this run. If it is killed: `sudo jetson_clocks --restore {}`, or "
            "reboot.".format(left(tmp_path)[0])
        ]
    assert board.minimum == FREE
    assert board.calls == ALL
    assert held.problem is None
    assert os.listdir(str(tmp_path / "temporary")) == []
    assert handlers == [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt, SystemExit, GeneratorExit])
def test_an_error_inside_goes_on_after_the_clocks_are_restored(error: Any, tmp_path: Path) -> None:
    board = FakeBoard(tmp_path)
    with pytest.raises(error), board.pinned():
        raise error
    assert board.minimum == FREE
    assert board.calls == ALL


def test_without_root_nothing_is_run_and_it_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    board = FakeBoard(tmp_path)
    with pytest.raises(BadRequest, match="needs root.*with sudo"):
        board.pinned().__enter__()
    assert (board.calls, board.minimum) == ([], FREE)


def test_without_jetson_clocks_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clocks, "find_program", lambda name: None)
    with pytest.raises(BadRequest, match="there is no jetson_clocks here"):
        PinnedClocks(root=str(tmp_path)).__enter__()


@pytest.mark.parametrize(
    ("store", "words"),
    [
        ("echo 'Error: Run this script as a root user'; exit 1", "exit code 1, it said 'Error: Run this script"),
        ("echo 'Please run the script after 30 Seconds'; exit 255", "exit code 255, it said 'Please run"),
        ("exit 0", "stored nothing"),
        (": > $2; exit 0", "stored nothing"),
    ],
)
def test_clocks_that_cannot_be_stored_are_not_pinned(store: str, words: str, tmp_path: Path) -> None:
    board = FakeBoard(tmp_path, store=store)
    with pytest.raises(BadRequest) as raised:
        board.pinned().__enter__()
    assert words in str(raised.value)
    assert board.calls == ["--store"]
    assert board.minimum == FREE
    assert left(tmp_path) == []


def test_a_pin_that_says_error_and_ends_with_0_is_a_failure_and_is_undone(tmp_path: Path) -> None:
    pin = "cat $gpu/max_freq > $gpu/min_freq; echo 'Error: Failed to max GPU frequency!'; exit 0"
    board = FakeBoard(tmp_path, pin=pin)
    with pytest.raises(BadRequest, match="could not pin the clocks: exit code 0, it said 'Error: Failed to max"):
        board.pinned().__enter__()
    assert board.calls == ALL
    assert board.minimum == FREE


@pytest.mark.parametrize(
    ("restore", "words"),
    [
        ("echo 'Error: Failed to restore /sys/x'; exit 0", "it said 'Error: Failed to restore /sys/x'"),
        ("exit 3", "exit code 3, it said 'nothing'"),
        ("exit 0", "says that it restored the clocks, but cpu0, cpu1, cpu2, cpu3, gpu may not go as low as before"),
    ],
)
def test_clocks_that_were_not_restored_are_told_and_the_way_back_is_kept(
    restore: str, words: str, tmp_path: Path
) -> None:
    board = FakeBoard(tmp_path, restore=restore)
    with board.pinned() as held:
        pass
    assert words in str(held.problem)
    assert board.told[-1] == held.problem
    stored = left(tmp_path)
    assert len(stored) == 1
    assert "`sudo jetson_clocks --restore {}`, or reboot.".format(stored[0]) in str(held.problem)


def test_a_failed_restore_does_not_hide_the_error_inside(tmp_path: Path) -> None:
    board = FakeBoard(tmp_path, restore="exit 3")
    with pytest.raises(ZeroDivisionError), board.pinned():
        raise ZeroDivisionError
    assert "exit code 3" in board.told[-1]


def test_a_program_that_hangs_is_ended_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clocks, "_SECONDS", 0.3)
    board = FakeBoard(tmp_path, pin="sleep 60")
    start = time.monotonic()
    with pytest.raises(BadRequest, match="could not pin the clocks: .*did not end within 0.3 s"):
        board.pinned().__enter__()
    assert time.monotonic() - start < 10
    assert board.calls == ALL


def test_a_temporary_folder_with_a_blank_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my folder").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "my folder"))
    board = FakeBoard(tmp_path)
    with board.pinned() as held:
        assert os.listdir(str(tmp_path / "my folder")) == []
    assert (held.problem, board.minimum) == (None, FREE)


def test_clocks_that_were_pinned_before_stay_pinned(tmp_path: Path) -> None:
    board = FakeBoard(tmp_path)
    boards.put(board.root, "/sys/class/devfreq/57000000.gpu/min_freq", "921600000\n")
    with board.pinned() as held:
        pass
    assert (held.problem, board.minimum) == (None, PINNED)


def test_a_pin_that_does_nothing_and_says_nothing_is_a_failure(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="the GPU may still fall to 76 MHz"):
        FakeBoard(tmp_path, pin="exit 0").pinned().__enter__()


def test_a_ctrl_c_while_the_clocks_are_being_pinned_restores_them_at_once(tmp_path: Path) -> None:
    board = FakeBoard(tmp_path)
    held = board.pinned()
    failure = held._failure

    def interrupted(what: str, arguments: List[str]) -> Optional[str]:
        found = failure(what, arguments)
        if what == "pin the clocks":
            assert board.minimum == PINNED
            raise KeyboardInterrupt
        return found

    held._failure = interrupted  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        held.__enter__()
    assert (board.minimum, board.calls) == (FREE, ALL)


def test_a_second_run_that_pins_is_refused_until_the_first_has_ended(tmp_path: Path) -> None:
    board = FakeBoard(tmp_path)
    with board.pinned():
        with pytest.raises(BadRequest, match="Another run with --pin-clocks"):
            board.pinned().__enter__()
        assert board.minimum == PINNED
    with board.pinned():
        assert board.minimum == PINNED
    assert board.minimum == FREE


def test_a_handler_of_the_caller_stays(tmp_path: Path) -> None:
    got: List[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: got.append(number))
    try:
        with FakeBoard(tmp_path).pinned():
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.05)
        assert got == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)


CHILD = """
import os, sys, time
sys.path.insert(0, {parent!r})
from jetson import clocks
clocks.os.geteuid = lambda: 0
with clocks.PinnedClocks(root={root!r}, program={program!r}):
    print("inside", flush=True)
    {body}
print("after", flush=True)
"""


def child(board: FakeBoard, body: str) -> "subprocess.Popen[str]":
    code = CHILD.format(parent=os.path.dirname(ROOM), root=board.root, program=board.program, body=body)
    return subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        universal_newlines=True,
        start_new_session=True,
    )


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, -signal.SIGINT), (signal.SIGTERM, 128 + 15), (signal.SIGHUP, 128 + 1)]
)
def test_a_signal_to_the_whole_group_restores_the_clocks(number: int, code: int, tmp_path: Path) -> None:
    board = FakeBoard(tmp_path)
    process = child(board, "time.sleep(60)")
    assert process.stdout is not None
    assert process.stdout.readline() == "inside\n"
    assert board.minimum == PINNED
    os.killpg(process.pid, number)  # as a terminal or a session that ends does
    output, _ = process.communicate(timeout=30)
    assert output == ""
    assert process.returncode in (code, 1 if number == signal.SIGINT else code)  # Python 3.6 ends with 1
    assert board.calls == ALL
    assert board.minimum == FREE


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_the_clocks_are_being_restored_waits_and_then_ends_the_run(number: int, tmp_path: Path) -> None:
    board = FakeBoard(tmp_path, restore="touch $here/restoring; sleep 0.5")
    process = child(board, "pass")
    while not (tmp_path / "restoring").exists():
        time.sleep(0.01)
    os.killpg(process.pid, number)
    output, _ = process.communicate(timeout=30)
    assert output == "inside\n"
    assert process.returncode != 0
    assert (board.minimum, board.calls) == (FREE, ALL)


def test_a_signal_while_the_clocks_are_being_pinned_restores_them(tmp_path: Path) -> None:
    board = FakeBoard(tmp_path, pin="cat $gpu/max_freq > $gpu/min_freq; touch $here/pinning; sleep 30")
    process = child(board, "pass")
    while not (tmp_path / "pinning").exists():
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGTERM)
    output, _ = process.communicate(timeout=30)
    assert output == ""
    assert process.returncode == 128 + 15
    assert (board.minimum, board.calls) == (FREE, ALL)


def test_an_end_that_skips_the_block_restores_them_all_the_same(tmp_path: Path) -> None:
    board = FakeBoard(tmp_path)
    body = "held = clocks.PinnedClocks(root={!r}, program={!r}); held.__enter__(); sys.exit(0)"
    process = child(board, "pass\n" + body.format(board.root, board.program))
    process.communicate(timeout=30)
    assert process.returncode == 0
    assert board.calls == ALL + ALL
    assert board.minimum == FREE


def test_a_thread_can_pin_without_touching_signals(tmp_path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    board = FakeBoard(tmp_path)

    def use() -> int:
        with board.pinned():
            return board.minimum

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(use).result() == PINNED
    assert board.minimum == FREE


def test_a_program_is_found_on_the_path_or_among_those_of_the_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = tmp_path / "jetson_clocks"
    mine.write_text("#!/bin/sh\n")
    mine.chmod(0o700)
    monkeypatch.setattr(programs, "_FOLDERS", (str(tmp_path),))
    monkeypatch.setenv("PATH", str(tmp_path / "elsewhere"))
    assert find_program("jetson_clocks") == str(mine)
    assert find_program("no_such_program") is None


def test_a_program_gets_no_input_and_its_errors_are_output(tmp_path: Path) -> None:
    done = run_program(["/bin/sh", "-c", "read answer || echo nothing >&2; exit 4"], 10.0)
    assert (done.code, done.output) == (4, "nothing\n")
    with pytest.raises(ProgramFailed, match="cannot be started"):
        run_program([str(tmp_path / "none")], 1.0)


def test_what_a_program_started_ends_with_it() -> None:
    start = time.monotonic()
    with pytest.raises(ProgramFailed, match="did not end within 0.2 s"):
        run_program(["/bin/sh", "-c", "sleep 60 & sleep 60"], 0.2)
    assert time.monotonic() - start < 10
