"""What a board's runner may end in, and what a host may answer instead of a board: one clear message each."""

from __future__ import annotations

import io
import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from deploy_attn.remote import conversation, on_board
from tests.deploy_attn.command_line import Cli
from tests.deploy_attn.remote.capsules import padded
from tests.deploy_attn.remote.sshd import Board, is_alive, wait_for

Make = Callable[[str], Path]


@pytest.mark.parametrize(
    ("run", "exit_code", "why"),
    [
        ("judge(passed=False, problems=['not built'])\nsys.exit(1)", 1, None),
        ("print('run.py: no engine. Mend it.')\nsys.exit(2)", 2, "could not serve it: run.py: no engine. Mend it."),
        ("judge()\nos.kill(os.getpid(), signal.SIGKILL)", 1, "killed by SIGKILL before it ended. That is what a"),
        ("raise ValueError('a bug')", 1, "there is no verdict.json; .* ValueError: a bug"),
        ("os.symlink('/etc/passwd', os.path.join(HERE, 'verdict.json'))", 1, "there is no verdict.json"),
        ("put('verdict.json', 'x' * (5 << 20))", 1, "verdict.json is 5,242,880 bytes, which no verdict has"),
    ],
)
def test_a_run_that_does_not_pass_says_why(
    cli: Cli, board: Board, capsule: Make, run: str, exit_code: int, why: str | None
) -> None:
    done = cli("remote", board.address, capsule(run + "\n"), "--json")
    (host,) = json.loads(done.stdout)["hosts"]
    assert (done.exit_code, host["exit_code"], host["passed"]) == (exit_code, exit_code, False)
    assert host["error"] is None if why is None else re.search(why, host["error"])
    assert board.left_behind() == []


def test_names_of_files_are_never_the_boards(cli: Cli, board: Board, capsule: Make, in_folder: Path) -> None:
    run = "put('run.log', 'log')\njudge(engine='../../../verdict')\n"
    cli("remote", board.address, capsule(run), "-o", "here", "--engine", "onnxruntime")
    (file,) = (in_folder / "here").iterdir()
    assert file.name == f"run-{board.address.replace(':', '_')}-onnxruntime.log"


def test_a_link_where_the_verdict_goes_is_not_followed(cli: Cli, board: Board, capsule: Make, in_folder: Path) -> None:
    (in_folder / "precious").write_text("mine", encoding="utf-8")
    name = f"verdict-{board.address.replace(':', '_')}-onnxruntime.json"
    (in_folder / name).symlink_to("precious")
    assert cli("remote", board.address, capsule("judge()\n"), "-o", ".").exit_code == 0
    assert (in_folder / "precious").read_text(encoding="utf-8") == "mine"
    assert not (in_folder / name).is_symlink()


def test_a_talkative_runner_is_cut_short_and_cannot_touch_the_terminal(cli: Cli, board: Board, capsule: Make) -> None:
    run = "sys.stdout.buffer.write(b'\\x1b[2J\\x07\\xff\\n')\n"
    run += "sys.stdout.write('z' * 3000 + '\\n' + 'line\\n' * 70000)\nsys.stdout.flush()\njudge()\n"
    done = cli("remote", board.address, capsule(run))
    assert done.exit_code == 0, done.stdout
    assert "\x1b" not in done.stderr
    assert "\\x1b[2J" in done.stderr
    assert max(map(len, done.stderr.splitlines())) < 2200
    assert len(done.stderr) < 3 << 20
    assert done.stderr.rstrip().endswith("... more than is shown here; run.log has what the runner logged")


@pytest.mark.parametrize("gone", ["closed", None])
def test_a_run_does_not_end_because_nobody_reads_its_progress(
    cli: Cli, board: Board, capsule: Make, monkeypatch: pytest.MonkeyPatch, gone: str | None
) -> None:
    class Closed(io.StringIO):
        def write(self, _: str) -> int:
            raise BrokenPipeError

    archive = capsule("print('at work')\njudge()\n")
    monkeypatch.setattr(sys, "stderr", gone and Closed())
    done = cli("remote", board.address, archive)
    assert done.exit_code == 0, done.stdout


def test_processes_that_a_runner_leaves_are_ended(cli: Cli, board: Board, capsule: Make) -> None:
    run = "if os.fork() == 0:\n    tell_pid()\n    time.sleep(60)\njudge()\n"
    done = cli("remote", board.address, capsule(run))
    assert done.exit_code == 0, done.stdout
    wait_for(lambda: not is_alive(board.pid()))


def test_a_runner_ends_with_the_program_that_watches_it(cli: Cli, board: Board, capsule: Make) -> None:
    run = "tell_pid()\nos.kill(os.getppid(), signal.SIGKILL)\ntime.sleep(60)\n"
    done = cli("remote", board.address, capsule(run))
    assert done.exit_code == 2
    assert "the program on the board was killed (SIGKILL) while the capsule ran" in done.stdout
    wait_for(lambda: not is_alive(board.pid()))
    assert cli("remote", board.address, capsule("judge()\n")).exit_code == 0
    assert board.left_behind() == []


def test_the_host_waits_longer_than_the_board_takes_to_end_a_runner() -> None:
    assert [signum for signum, _ in on_board.GRACE] == [signal.SIGINT, signal.SIGTERM, signal.SIGKILL]
    assert sum(seconds for _, seconds in on_board.GRACE) < conversation._STOPPING
    assert conversation._ALIVE_EVERY * 3 < on_board.SILENCE


@pytest.mark.parametrize("alive_every", [0.2, 60.0])
def test_a_run_goes_on_while_the_host_gives_signs_of_life(
    cli: Cli, board: Board, capsule: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, alive_every: float
) -> None:
    """With a board that waits for two seconds only."""
    program = Path(on_board.__file__).read_text(encoding="utf-8")
    assert f"SILENCE = {on_board.SILENCE}" in program
    impatient = program.replace(f"SILENCE = {on_board.SILENCE}", "SILENCE = 2.0")
    (tmp_path / "on_board.py").write_text(impatient, encoding="utf-8")
    monkeypatch.setattr(conversation, "__file__", str(tmp_path / "conversation.py"))
    monkeypatch.setattr(conversation, "_ALIVE_EVERY", alive_every)
    done = cli("remote", board.address, capsule("tell_pid()\ntime.sleep(3.5)\njudge()\n"))
    assert done.exit_code == (0 if alive_every < 1.0 else 2), done.stdout
    assert not is_alive(board.pid())
    assert board.left_behind() == []


def test_a_runner_that_will_not_end_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    grace = ((signal.SIGINT, 0.1), (signal.SIGTERM, 0.1), (signal.SIGKILL, 5.0))
    monkeypatch.setattr(on_board, "GRACE", grace)
    code = (
        "import signal, time\nfor s in (2, 15): signal.signal(s, signal.SIG_IGN)\nprint(1, flush=True)\ntime.sleep(60)"
    )
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as runner:
        assert runner.stdout is not None
        runner.stdout.readline()
        on_board.end(runner)
        assert runner.wait(0) == -signal.SIGKILL


@pytest.mark.parametrize(
    ("python3", "why"),
    [
        (
            None,
            "python3 is not there on the board. Install one (`sudo apt install python3`), or name one with --python.",
        ),
        (
            "echo 'This account is not available.'; exit 1",
            "exit code 1 before the capsule was copied. It said: This account is",
        ),
        ("echo 'deploy-attn: this is Python 3.5.2' >&2; exit 1", "python3 is Python 3.5.2 on the board; it takes 3.6"),
        ("kill -KILL $$", "the program on the board was killed (SIGKILL) before the capsule was copied"),
        ("echo '@deploy-attn [1]'; sleep 5", "the host answers what its program on the board never says"),
        ("echo '@deploy-attn {\"found\": 3}'; sleep 5", "the host's answer lacks 'found'"),
        ("echo '@deploy-attn {}'; sleep 5", "the host's answer lacks 'found'"),
        (
            'echo \'@deploy-attn {"found": {}}\'; echo \'@deploy-attn {"ended": {"returncode": true}}\'',
            "no proper 'returncode'",
        ),
        ("cat /dev/zero", "the host sent more than 2.0 MiB, far beyond a run's answer"),
        ("yes a line that is as long as lines are", "the host sent more than 2.0 MiB, far beyond a run's answer"),
        ("yes a line that is as long as lines are >&2", "the host sent more than 2.0 MiB, far beyond a run's answer"),
        ("sleep 5", "python3 on the board answered nothing in 1 s"),
    ],
)
def test_a_host_that_is_no_board_is_told_apart(
    cli: Cli, board: Board, real_capsule: Path, monkeypatch: pytest.MonkeyPatch, python3: str | None, why: str
) -> None:
    monkeypatch.setattr(conversation, "_MOST_RECEIVED", 2 << 20)
    monkeypatch.setattr(conversation, "_FIRST_ANSWER", 1.0)
    monkeypatch.setattr(conversation, "_STOPPING", 0.2)
    script = board.folder / "bin" / "python3"
    script.unlink()
    if python3 is not None:
        script.write_text(f"#!/bin/sh\n{python3}\n", encoding="utf-8")
        script.chmod(0o755)
    name = "python3" if python3 else "python3-absent"
    done = cli("remote", board.address, real_capsule, *(() if python3 else ("--python", name)))
    assert done.exit_code == 2
    assert why.replace("python3 is not", f"{name} is not") in done.stdout
    assert len(done.stdout) < 6000


def test_a_board_is_heard_while_the_capsule_is_copied(
    cli: Cli, board: Board, real_capsule: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that takes nothing more of it and says why."""
    monkeypatch.setattr(conversation, "_STOPPING", 0.2)
    board_says(board, {"found": {}}, {"refused": "no more"})
    done = cli("remote", board.address, padded(real_capsule, tmp_path, 8 << 20), "--timeout", "4")
    assert done.exit_code == 2
    assert "no more" in done.stdout


def test_what_a_board_says_is_bounded_here_too(
    cli: Cli, board: Board, real_capsule: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversation, "_STOPPING", 0.2)
    board_says(board, {"found": {"there": True}}, {"line": "z" * 5000}, {"refused": "y" * 5000})
    done = cli("remote", board.address, real_capsule)
    assert "z" * 2000 in done.stderr
    assert max(map(len, (done.stderr + done.stdout).splitlines())) < 2200


def board_says(board: Board, *news: Mapping[str, object]) -> None:
    """Lets a host answer as the program on a board would, and nothing more."""
    lines = "".join(f"echo '{on_board.MARK}{json.dumps(one)}'\n" for one in news)
    (board.folder / "bin" / "python3").write_text(f"#!/bin/sh\n{lines}sleep 5\n", encoding="utf-8")


def test_a_capsule_that_arrives_damaged_is_not_kept(tmp_path: Path) -> None:
    request = {"size": 5, "sha256": "0" * 64}
    with pytest.raises(on_board.Refused, match=r"arrived damaged.*Run it again"):
        on_board.receive(request, str(tmp_path / "capsule.tar.gz"), io.BytesIO(b"bytes"))
    assert list(tmp_path.iterdir()) == []


def test_a_python_that_cannot_be_started_is_named(cli: Cli, board: Board, real_capsule: Path) -> None:
    done = cli("remote", board.address, real_capsule, "--python", "/etc/passwd")
    assert done.exit_code == 2
    assert "/etc/passwd cannot be started on the board: " in done.stdout


def test_a_login_shell_may_talk_first(cli: Cli, board: Board, capsule: Make, python36: str) -> None:
    script = board.folder / "bin" / "python3"
    script.write_text(f'#!/bin/sh\necho Welcome to the board\nexec {python36} "$@"\n', encoding="utf-8")
    assert cli("remote", board.address, capsule("judge()\n")).exit_code == 0
