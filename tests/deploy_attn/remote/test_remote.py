"""`deploy-attn remote` against a real sshd, with a board of Python 3.6 and onnxruntime 1.10."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from deploy_attn.engines.parity import verify
from deploy_attn.jetson.capsule import unpack
from deploy_attn.jetson.errors import BadRequest
from deploy_attn.remote import capsule_file, connection, fleet
from deploy_attn.remote.address import Address
from deploy_attn.remote.on_board import KEPT_CAPSULES, Folder, Refused, forget_old, sha256_of
from tests.deploy_attn.command_line import Cli
from tests.deploy_attn.remote.capsules import archive_of, padded
from tests.deploy_attn.remote.conftest import User
from tests.deploy_attn.remote.sshd import Board, Wire, is_alive, wait_for

Make = Callable[[str], Path]
PASSES = "judge()\n"
FAILS = "judge(passed=False, problems=['no engine'])\nsys.exit(1)\n"
WAITS = "tell_pid()\nprint('at work', flush=True)\ntime.sleep(60)\njudge()\n"
ONNXRUNTIME = ("--engine", "onnxruntime", "--quick", "--duration", "0.05")
SOURCE = Path(__file__).parent / "full_disk.c"


@pytest.fixture(scope="module")
def full_disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    library = tmp_path_factory.mktemp("disk") / "full_disk.so"
    flags = ["-shared", "-fPIC", "-Wall", "-Wextra", "-Werror", "-O1"]
    subprocess.run([shutil.which("cc") or "cc", *flags, "-o", library, SOURCE, "-ldl"], check=True)
    return library


def test_an_artifact_runs_on_the_board_and_its_verdict_comes_back(cli: Cli, board: Board, artifact: Path) -> None:
    done = cli("remote", board.address, artifact, *ONNXRUNTIME)
    assert done.exit_code == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("se-jetson-nano.tar.gz for jetson-nano, ")
    assert lines[1].startswith(f"PASS     {board.address}  onnxruntime: 3 of 3 checks hold; ")
    assert lines[1].endswith("capsule copied")
    assert lines[-1] == "PASS  1 of 1 boards passed"
    name = board.address.replace(":", "_")
    verdict = json.loads((artifact / f"verdict-{name}-onnxruntime.json").read_text(encoding="utf-8"))
    assert verdict["conditions"]["python"].startswith("3.6.")
    assert verdict["board"]["python"].startswith("3.6.")
    assert_equals_the_hosts(verdict["checks"], artifact)
    assert "PASS" in (artifact / f"run-{name}-onnxruntime.log").read_text(encoding="utf-8")
    assert f"[{board.address}] PASS  3 of 3 checks hold in onnxruntime 1.10.0\n" in done.stderr
    assert board.left_behind() == []


def assert_equals_the_hosts(there: list[dict[str, Any]], artifact: Path) -> None:
    here = verify(artifact).as_dict()["checks"]
    keys = ("graph", "precision", "bracket", "case", "output", "passed", "tolerance")
    assert [[check[key] for key in keys] for check in there] == [[check[key] for key in keys] for check in here]
    for one, other in zip(there, here, strict=True):
        assert abs(one["measured"]["rms_relative"] - other["measured"]["rms_relative"]) < 1e-6


def test_json_is_one_document_and_progress_goes_to_stderr(cli: Cli, board: Board, capsule: Make) -> None:
    done = cli("remote", board.address, capsule("print('on stdout')\n" + PASSES), "--json")
    report = json.loads(done.stdout)
    assert (done.exit_code, report["passed"], report["exit_code"]) == (0, True, 0)
    (host,) = report["hosts"]
    assert (host["host"], host["copied"], host["error"]) == (board.address, True, None)
    assert host["verdict"] == json.loads(Path(host["verdict_file"]).read_text(encoding="utf-8"))
    assert f"[{board.address}] on stdout\n" in done.stderr


def test_an_unchanged_capsule_is_not_copied_again(cli: Cli, board: Board, artifact: Path, capsule: Make) -> None:
    archive = capsule(PASSES)
    assert "capsule copied" in cli("remote", board.address, archive).stdout
    again = cli("remote", board.address, archive)
    assert "capsule was there" in again.stdout
    assert "is there already, and is not copied again" in again.stderr
    (name,) = board.capsules()
    there = board.cache / "capsules" / name
    there.write_bytes(there.read_bytes()[:-1])
    assert "capsule copied" in cli("remote", board.address, archive).stdout
    assert there.read_bytes() == archive.read_bytes()


def test_a_capsule_that_is_there_costs_few_bytes(
    cli: Cli, board: Board, user: User, capsule: Make, tmp_path: Path
) -> None:
    archive = padded(capsule(PASSES), tmp_path, 1 << 20)
    wires = [Wire(board), Wire(board)]
    user.know(*(board.known(wire.port) for wire in wires))
    for wire in wires:
        assert cli("remote", f"127.0.0.1:{wire.port}", archive).exit_code == 0
    assert [wire.sent > 1 << 20 for wire in wires] == [True, False]
    assert wires[1].sent < 50_000


def test_options_reach_the_runner_and_the_board(cli: Cli, board: Board, capsule: Make, in_folder: Path) -> None:
    archive = capsule("put('arguments', repr(sys.argv[1:]))\n" + PASSES)
    options = ("--engine", "trtexec", "--precision", "fp16", "--duration", "2.5", "--quick", "--pin-clocks")
    places = ("--remote-folder", "~/a folder", "--python", "~/../bin/python3", "--keep", "-o", "brought")
    done = cli("remote", board.address, archive, *options, *places)
    assert done.exit_code == 0, done.stderr
    (kept,) = (board.home / "a folder").glob("deploy-attn-kept-*/*/arguments")
    assert kept.read_text(encoding="utf-8") == repr(
        ["--engine", "trtexec", "--precision", "fp16", "--duration", "2.5", "--quick", "--pin-clocks"]
    )
    assert f"left on the board: {kept.parents[1]}" in done.stdout
    assert [file.suffix for file in (in_folder / "brought").iterdir()] == [".json"]


def test_boards_run_at_the_same_time(
    cli: Cli, board: Board, second_board: Board, capsule: Make, tmp_path: Path
) -> None:
    """Each waits for the other: one after the other, neither would end well."""
    meeting = tmp_path / "meeting"
    meeting.mkdir()
    run = f"""
place = {str(meeting)!r}
put(os.path.join(place, str(os.getpid())), "")
until = time.time() + 20
while len(os.listdir(place)) < 2:
    if time.time() > until:
        sys.exit("alone")
    time.sleep(0.01)
judge()
"""
    done = cli("remote", board.address, second_board.address, capsule(run))
    assert done.exit_code == 0, done.stderr
    assert done.stdout.endswith("PASS  2 of 2 boards passed\n")


@pytest.mark.parametrize(
    ("second", "exit_code"), [(PASSES, 2), ("judge(passed=False, problems=['no'])\nsys.exit(1)", 1)]
)
def test_one_failing_board_stops_no_other(cli: Cli, board: Board, capsule: Make, second: str, exit_code: int) -> None:
    """Where a verdict does not hold that decides, whatever became of the others."""
    done = cli("remote", "127.0.0.1:1", board.address, capsule(second), "--json")
    first, there = json.loads(done.stdout)["hosts"]
    assert (done.exit_code, first["exit_code"], there["exit_code"]) == (exit_code, 2, exit_code % 2)
    assert "no connection to 127.0.0.1, port 1: Connection refused." in first["error"]


def test_a_bug_over_one_board_stops_no_other(
    cli: Cli, board: Board, second_board: Board, capsule: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def connected(address: Address) -> contextlib.AbstractAsyncContextManager[Any]:
        return {board.address: connection.connected}[str(address)](address)

    monkeypatch.setattr(fleet, "connected", connected)
    done = cli("remote", second_board.address, board.address, capsule(PASSES), "--json")
    broken, there = json.loads(done.stdout)["hosts"]
    assert (done.exit_code, broken["exit_code"], there["exit_code"]) == (1, 1, 0)
    assert broken["error"].startswith("unexpected KeyError: ")


def test_a_second_run_on_a_board_is_refused(cli: Cli, board: Board, user: User, capsule: Make) -> None:
    user.configure(f"Host one two\n HostName 127.0.0.1\n Port {board.port}\n")
    done = cli("remote", "one", "two", capsule("time.sleep(0.7)\n" + PASSES), "--json")
    hosts = sorted(json.loads(done.stdout)["hosts"], key=lambda host: str(host["exit_code"]))
    assert [host["exit_code"] for host in hosts] == [0, 2]
    assert "another run is under way in" in hosts[1]["error"]


def test_a_connection_that_drops_ends_the_runner_and_leaves_the_capsule(
    cli: Cli, board: Board, user: User, capsule: Make
) -> None:
    archive, wire = capsule(WAITS), Wire(board)
    user.know(board.known(), board.known(wire.port))
    pids: list[int] = []

    def cut() -> None:
        pids.append(board.pid())
        wire.cut()

    with meanwhile(cut):
        done = cli("remote", f"127.0.0.1:{wire.port}", archive)
    assert done.exit_code == 2
    assert "the connection was lost while the capsule ran" in done.stdout
    assert "Run it again: a capsule that arrived whole is not copied again." in done.stdout
    wait_for(lambda: not is_alive(pids[0]))
    wait_for(lambda: board.left_behind() == [])
    assert board.capsules() == [f"{sha256_of(str(archive))}.tar.gz"]


def test_a_connection_that_drops_while_copying_leaves_nothing(
    cli: Cli, board: Board, user: User, capsule: Make, tmp_path: Path
) -> None:
    archive = padded(capsule(PASSES), tmp_path, 3 << 20)
    wire = Wire(board, cut_after=1 << 20)
    user.know(board.known(), board.known(wire.port))
    done = cli("remote", f"127.0.0.1:{wire.port}", archive)
    assert done.exit_code == 2
    assert "the connection was lost while the capsule was copied" in done.stdout
    wait_for(lambda: board.capsules() == [])
    assert "capsule copied" in cli("remote", board.address, archive).stdout


@pytest.mark.parametrize("room", [20_000, 400_000])
def test_a_full_disk_is_named(cli: Cli, board: Board, python36: str, full_disk: Path, capsule: Make, room: int) -> None:
    """While the capsule is copied, and while it is unpacked."""
    disk = {"LD_PRELOAD": str(full_disk), "DISK_FOLDER": str(board.cache), "DISK_BYTES": str(room)}
    board.set_python(python36, **disk)
    archive = capsule(PASSES)
    done = cli("remote", board.address, archive)
    assert done.exit_code == 2
    assert f"there is no space in {board.cache}: " in done.stdout
    assert "Make room on the board, or name a folder on another disk with --remote-folder." in done.stdout
    assert board.left_behind() == []
    assert len(board.capsules()) == (room > 100_000)
    board.set_python(python36)
    assert cli("remote", board.address, archive).exit_code == 0


@pytest.mark.parametrize("locale", ["C", "C.UTF-8"])
def test_a_folder_on_the_board_may_have_any_name(
    cli: Cli, board: Board, python36: str, capsule: Make, locale: str
) -> None:
    board.set_python(python36, LC_ALL=locale)
    done = cli("remote", board.address, capsule(PASSES), "--remote-folder", "~/café ☃", "--keep", "--json")
    (host,) = json.loads(done.stdout)["hosts"]
    assert (done.exit_code, host["error"]) == (0, None)
    assert Path(host["kept"]).parent == board.home / "café ☃"
    assert Path(host["kept"]).is_dir()


def test_a_verdict_that_cannot_be_kept_is_told_all_the_same(
    cli: Cli, board: Board, capsule: Make, in_folder: Path
) -> None:
    name = f"verdict-{board.address.replace(':', '_')}-onnxruntime.json"
    (in_folder / name).mkdir()
    done = cli("remote", board.address, capsule(PASSES), "-o", ".", "--json")
    (host,) = json.loads(done.stdout)["hosts"]
    assert (done.exit_code, host["exit_code"], host["verdict"]["passed"], host["verdict_file"]) == (2, 2, True, None)
    assert f"{name} cannot be written: Is a directory. Choose a folder with -o." in host["error"]
    done = cli("remote", board.address, capsule(PASSES), "-o", ".")
    assert f"unsaved  {board.address}  onnxruntime: 1 of 1 checks hold" in done.stdout
    done = cli("remote", board.address, capsule("judge(passed=False, problems=['no'])\nsys.exit(1)"), "-o", ".")
    assert done.exit_code == 1
    assert f"FAIL     {board.address}  onnxruntime: 1 of 1 checks hold" in done.stdout


def test_what_cannot_fit_is_not_even_copied(tmp_path: Path) -> None:
    with Folder(str(tmp_path)) as folder, pytest.raises(Refused, match=r"there is no space in .* MiB are free"):
        folder.check_space(1 << 62)


def test_a_folder_that_cannot_be_written_is_named(cli: Cli, board: Board, capsule: Make) -> None:
    done = cli("remote", board.address, capsule(PASSES), "--remote-folder", "/proc/none")
    assert done.exit_code == 2
    assert "/proc/none" in done.stdout
    assert "Name a folder that can be written with --remote-folder." in done.stdout


@pytest.mark.parametrize(("signum", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt_ends_the_runner_on_the_board_and_cleans_up(
    cli: Cli, board: Board, capsule: Make, signum: signal.Signals, exit_code: int
) -> None:
    pids: list[int] = []

    def interrupt() -> None:
        pids.append(board.pid())
        os.kill(os.getpid(), signum)

    def own(*_: object) -> None:
        pytest.fail("the signal came to the one who listened before")

    before = signal.signal(signum, own)
    try:
        with meanwhile(interrupt):
            done = cli("remote", board.address, capsule(WAITS))
        assert signal.getsignal(signum) == own
    finally:
        signal.signal(signum, before)
    assert done.exit_code == exit_code
    assert not is_alive(pids[0])
    assert board.left_behind() == []


def test_a_run_that_takes_too_long_is_ended(cli: Cli, board: Board, capsule: Make) -> None:
    done = cli("remote", board.address, capsule(WAITS), "--timeout", "1.5")
    assert done.exit_code == 2
    assert "the run did not end within 1.5 s, and was ended. Allow more with --timeout." in done.stdout
    assert not is_alive(board.pid())
    assert board.left_behind() == []


def test_what_another_run_left_is_cleaned(cli: Cli, board: Board, capsule: Make) -> None:
    for name in ("deploy-attn-run-abc_1234", "deploy-attn-kept-abc_1234", "capsules"):
        (board.cache / name).mkdir(parents=True)
    (board.cache / "capsules" / f"{'0a' * 32}.tar.gz.12.part").write_bytes(b"half")
    assert cli("remote", board.address, capsule(PASSES)).exit_code == 0
    assert board.left_behind() == ["deploy-attn-kept-abc_1234"]
    assert len(board.capsules()) == 1


def test_what_is_the_users_in_a_folder_on_the_board_stays(cli: Cli, board: Board, capsule: Make) -> None:
    mine = ["capsules/mine.part", "capsules/mine.tar.gz", "run-1/weights", "deploy-attn-run-mine/notes", "kept-1/x"]
    for name in mine:
        (board.home / "work" / name).parent.mkdir(parents=True, exist_ok=True)
        (board.home / "work" / name).write_text("mine", encoding="utf-8")
        os.utime(board.home / "work" / name, (0, 0))
    for number in range(KEPT_CAPSULES):
        (board.home / "work" / "capsules" / f"{number:064x}.tar.gz").write_bytes(b"")
    assert cli("remote", board.address, capsule(PASSES), "--remote-folder", "~/work").exit_code == 0
    assert [name for name in mine if not (board.home / "work" / name).exists()] == []


def test_a_board_keeps_its_newest_capsules(tmp_path: Path) -> None:
    files = [tmp_path / f"{number:064x}.tar.gz" for number in range(KEPT_CAPSULES + 3)]
    for number, file in enumerate(files):
        file.write_bytes(b"")
        os.utime(file, (number, number))
    forget_old(str(files[-1]))
    assert sorted(tmp_path.iterdir()) == files[3:]


def test_the_capsule_that_is_to_run_is_never_removed(tmp_path: Path) -> None:
    """A board without a battery for its clock may be years behind the files of an earlier start."""
    files = [tmp_path / f"{number:064x}.tar.gz" for number in range(KEPT_CAPSULES + 3)]
    for number, file in enumerate(files):
        file.write_bytes(b"")
        os.utime(file, (number, number))
    forget_old(str(files[0]))
    assert sorted(tmp_path.iterdir()) == [files[0], *files[4:]]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"no archive", "cannot be unpacked"),
        (archive_of({"../run.py": b""}), "reaches outside its folder"),
        (archive_of({"cbam/run.py": b""}), "is not a capsule: it has no capsule.json"),
    ],
)
def test_what_is_no_capsule_goes_to_no_board(cli: Cli, in_folder: Path, content: bytes, why: str) -> None:
    (in_folder / "capsule.tar.gz").write_bytes(content)
    done = cli("remote", "127.0.0.1:1", "capsule.tar.gz")
    assert done.exit_code == 2
    assert why in done.stderr
    assert "no connection" not in done.stderr


def test_a_folder_that_takes_no_verdict_is_told_before_any_board_is_asked(
    cli: Cli, real_capsule: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    done = cli("remote", "127.0.0.1:1", real_capsule)
    assert (done.exit_code, done.stdout) == (2, "")
    assert f"{real_capsule.parent} cannot be written, and verdicts go there." in done.stderr


def test_a_board_is_asked_for_more_room_than_the_files_take(real_capsule: Path, in_folder: Path) -> None:
    folder = Path(unpack(str(real_capsule), str(in_folder)))
    files = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    assert files < capsule_file.capsule_file(real_capsule, None).unpacked_bytes < 2 * files


def test_what_is_no_file_is_not_read(cli: Cli, in_folder: Path) -> None:
    """Neither waits for a writer nor fills the memory."""
    os.mkfifo(in_folder / "pipe")
    for name in ("pipe", "/dev/zero"):
        done = cli("remote", "127.0.0.1:1", name)
        assert (done.exit_code, done.stdout) == (2, "")
        assert f"{name} is not a plain file." in done.stderr


def test_an_unpacked_capsule_is_told_from_an_artifact(cli: Cli, real_capsule: Path, in_folder: Path) -> None:
    folder = unpack(str(real_capsule), str(in_folder))
    done = cli("remote", "127.0.0.1:1", folder)
    assert done.exit_code == 2
    assert f"{folder} is an unpacked capsule. Name its archive, or the artifact's folder." in done.stderr


def test_a_capsule_that_changes_while_it_is_read_goes_to_no_board(
    real_capsule: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = tmp_path / "capsule.tar.gz"
    shutil.copy(real_capsule, archive)

    def slow(file: str, folder: str) -> str:
        place = unpack(file, folder)
        archive.write_bytes(b"another")
        return place

    monkeypatch.setattr(capsule_file, "unpack", slow)
    with pytest.raises(BadRequest, match=r"changed while it was read. Run it again"):
        capsule_file.capsule_file(archive, None)


def test_a_tampered_capsule_goes_to_no_board(cli: Cli, real_capsule: Path, tmp_path: Path) -> None:
    tampered = padded(real_capsule, tmp_path, 10, name="jetson/extra.py")
    done = cli("remote", "127.0.0.1:1", tampered)
    assert done.exit_code == 2
    assert "jetson/extra.py: not a file of the capsule" in done.stderr


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (("--engine", "tensorrt-rtx"), "Unknown engine 'tensorrt-rtx'"),
        (("--precision", "int8"), "Unknown precision 'int8'"),
        (("--duration", "0"), "--duration 0 is not"),
        (("--duration", "nan"), "--duration nan is not"),
        (("--timeout", "nan"), "--timeout"),
        (("--python", ""), "--python '' is no path on a board"),
        (("--remote-folder", "a\nb"), "is no path on a board"),
        (("--target", "jetson-orin"), "is a capsule for jetson-nano, not for jetson-orin"),
        (("-o", "/proc/none/x"), "cannot be made"),
    ],
)
def test_what_no_board_could_do_asks_none(cli: Cli, real_capsule: Path, options: tuple[str, ...], why: str) -> None:
    done = cli("remote", "127.0.0.1:1", real_capsule, *options, "--json")
    assert done.exit_code == 2
    assert why in json.loads(done.stdout)["error"]


def test_without_its_library_it_says_what_to_install(
    cli: Cli, real_capsule: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "asyncssh", None)
    done = cli("remote", "nano", real_capsule)
    assert done.exit_code == 2
    assert "pip install 'deploy-attn[remote]'" in done.stderr


@contextlib.contextmanager
def meanwhile(job: Callable[[], None]) -> Iterator[None]:
    """Runs a job beside the block, and waits for it."""
    thread = threading.Thread(target=job)
    thread.start()
    try:
        yield
    finally:
        thread.join(20)
        assert not thread.is_alive()
