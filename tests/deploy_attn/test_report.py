"""`deploy-attn report`: verdicts of the host and of boards in one table, and none that cannot be trusted in it."""

from __future__ import annotations

import copy
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deploy_attn import BadRequest, ExportRequest, export_artifact
from deploy_attn.bundling import bundle
from deploy_attn.jetson.capsule import unpack
from deploy_attn.jetson.parity import Check, Tolerance
from deploy_attn.jetson.power import Window, energy_per_inference
from deploy_attn.jetson.timing import Samples, Timing, WarmUp
from deploy_attn.jetson.verdict import BoardVerdict
from deploy_attn.presentation import show_report
from deploy_attn.reporting import ABOUT_TIMES, report
from deploy_attn.verdict_file import read_verdict
from tests.deploy_attn.command_line import Cli

NANO = "NVIDIA Jetson Nano Developer Kit"
HOST = "verdict-onnxruntime.json"
TIMES = Samples([1.0, 2.0, 4.0], 1, 0.007, WarmUp(0.2, 100, True, 0.01))
SHORT = Samples([0.125] * 40, 16, 0.08, WarmUp(0.2, 100, True, 0.01))
WATTS = [(0.1 * tick, 5.0) for tick in range(101)]

Document = dict[str, Any]


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported") / "se"
    return export_artifact(ExportRequest("se", shape=(1, 16, 5, 6), fp16=True, output=folder)).folder


@pytest.fixture
def folder(exported: Path, in_folder: Path) -> Path:
    return shutil.copytree(exported, in_folder / "se").relative_to(in_folder)


def loaded(file: Path) -> Document:
    found: Document = json.loads(file.read_text(encoding="utf-8"))
    return found


def board_document(folder: Path, **more: Any) -> Document:
    """What run.py writes on a Nano, made by the code that makes it there."""
    manifest, tolerance = loaded(folder / "manifest.json"), Tolerance(2e-3, 1e-1, "four roundings")
    checks = [check for check in read_verdict(folder / HOST).checks if check.bracket != "pessimistic"]
    half = [check._replace(graph="model.onnx", bracket="device") for check in checks if check.precision == "fp16"]
    whole = [check for check in checks if check.precision == "fp32"]
    assert half[0].tolerance[:2] == tolerance[:2]
    fields: Document = {
        "name": "se",
        "target": "jetson-nano",
        "engine": "tensorrt",
        "checks": tuple(whole + half),
        "conditions": {"engine": "tensorrt", "version": "8.2.1.8", "artifact_sha256": manifest["manifest_sha256"]},
        "board": {"module": NANO, "l4t": "32.7.1"},
        "builds": {},
        "timing": {
            "fp32": Timing(TIMES, SHORT, True, "", "by events").as_dict(),
            "fp16": Timing(SHORT, SHORT, False, "not captured", "by events").as_dict(),
        },
        "power": {
            "fp32": energy_per_inference(WATTS, Window(0.0, 10.0, 1000)).as_dict(),
            "fp16": {"refused": "Power could not be measured: there is no power monitor."},
        },
        "temperatures": {"before": {"GPU": 30.0}, "after": {"GPU": 41.0}},
        "throttling": {},
        "warnings": ("The clocks are not pinned: run as root with --pin-clocks.",),
        "problems": (),
        "capsule": {},
        "seconds": {},
    }
    return BoardVerdict(**{**fields, **more}).as_dict()


def written(file: Path, document: object) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(document), encoding="utf-8")
    return file


@pytest.fixture
def board(folder: Path) -> Path:
    """A board's verdict in a folder of its own."""
    return written(Path("nano/verdict.json"), board_document(folder))


def rows(text: str, beginning: str) -> list[list[str]]:
    """Cells of the table's lines that begin so; columns are three blanks apart."""
    lines = [line.strip() for line in text.splitlines()]
    return [
        [cell.strip() for cell in line.split("   ") if cell.strip()] for line in lines if line.startswith(beginning)
    ]


def test_a_board_s_verdict_stands_in_the_table_of_the_host_s(cli: Cli, folder: Path, board: Path) -> None:
    done = cli("report", folder, board)
    assert (done.exit_code, done.stderr) == (0, "")
    (heading,) = rows(done.stdout, "where")
    shared = ["graph", "bracket", "case", "output", "RMS relative", "allowed", "max abs", "cosine"]
    figures = ["timed", "median ms", "p90", "p99", "n", "J/inference", "n"]
    assert heading == ["where", "engine", "precision", *shared, *figures]
    host, nano = read_verdict(folder / HOST), read_verdict(board)
    assert len(rows(done.stdout, "Linux ")) == len(host.checks)
    found = [row for row in rows(done.stdout, NANO) if row[-1] == "ok"]
    assert len(found) == len(nano.checks)
    first = nano.checks[0].comparison
    assert first is not None
    assert found[0][:8] == [
        NANO,
        "tensorrt 8.2.1.8",
        "fp32",
        "model.onnx",
        "exact",
        "normal",
        "output",
        f"{first.rms_relative:.1e}",
    ]
    assert found[0][8] == "1e-05"
    assert found[0][11:] == ["compute", "2", "3.6", "3.96", "3", "0.05", "101", "ok"]
    assert found[1][11:] == ["ok"]
    half = next(row for row in found if row[2] == "fp16")
    assert half[3:5] == ["model.onnx", "device"]
    assert half[11:] == ["compute", "0.125", "0.125", "0.125", "40 of 16 in a row", "ok"]
    assert done.stdout.splitlines()[-1] == "PASS  2 of 2 verdicts hold"


def test_a_capsule_that_ran_is_taken_as_a_folder_and_as_its_file(folder: Path, cli: Cli) -> None:
    capsule = bundle(folder, "onnxruntime-cpu", "capsule.tar.gz")
    unpack("capsule.tar.gz", ".")
    done = subprocess.run([sys.executable, "run.py", "--quick"], cwd=capsule.folder, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    for named in (capsule.folder, f"{capsule.folder}/verdict.json"):
        shown = cli("report", folder, named)
        assert (shown.exit_code, shown.stderr) == (0, "")
        assert shown.stdout.endswith("PASS  2 of 2 verdicts hold\n")
        assert "end to end" in shown.stdout


def test_what_spoils_a_run_and_what_was_not_measured_is_said_below_the_table(
    cli: Cli, folder: Path, board: Path
) -> None:
    lines = cli("report", folder, board).stdout.splitlines()
    place = f"{NANO}, tensorrt 8.2.1.8"
    assert f"warning  {place}: The clocks are not pinned: run as root with --pin-clocks." in lines
    assert f"note  {place}, fp16, no energy: Power could not be measured: there is no power monitor." in lines
    assert f"note  {place}, fp16: Timed without a CUDA graph: not captured." in lines
    end_to_end = "end to end 0.125 ms, p90 0.125, p99 0.125 (n 40 of 16 in a row)"
    assert f"{place}, fp32: compute 2 ms, p90 3.6, p99 3.96 (n 3); {end_to_end}; 0.05 J an inference (n 101)" in lines
    assert ABOUT_TIMES in lines
    assert "never compared" in ABOUT_TIMES


def test_without_times_nothing_is_said_of_them(cli: Cli, folder: Path) -> None:
    done = cli("report", folder)
    assert done.exit_code == 0
    assert "median ms" not in done.stdout
    assert ABOUT_TIMES not in done.stdout


def test_json_is_one_document_with_each_verdict_whole(cli: Cli, folder: Path, board: Path) -> None:
    done = cli("report", folder, board, "--json")
    found = json.loads(done.stdout)
    sha256 = loaded(folder / "manifest.json")["manifest_sha256"]
    assert (done.exit_code, found["passed"], found["set_apart"]) == (0, True, [])
    assert found["artifact"] == {"name": "se", "sha256": sha256}
    assert [one["verdict"] for one in found["verdicts"]] == [loaded(folder / HOST), loaded(board)]
    assert [one["where"] for one in found["verdicts"]][1] == NANO
    assert found["about_times"] == ABOUT_TIMES


def failed(document: Document) -> None:
    measured = document["checks"][0]["measured"]
    measured.update(rms_relative=0.5, worst_relative=3.0)
    document["checks"][0]["passed"] = document["passed"] = False


def not_finite(document: Document) -> None:
    document["checks"][0]["measured"].update(dict.fromkeys(["rms_relative", "max_abs", "cosine", "worst_relative"]))
    document["checks"][0]["measured"]["non_finite"] = 7
    document["checks"][0]["passed"] = document["passed"] = False


def refused(document: Document) -> None:
    document["checks"][0].update(measured=None, error="the engine refused the graph: no kernel", passed=False)
    document["passed"] = False


def problem(document: Document) -> None:
    document.update(passed=False, problems=["fp16: The parser refuses this graph:\n  node 'a': no such operator"])


def without_reason(document: Document) -> None:
    document["passed"] = False


def without_checks(document: Document) -> None:
    document.update(passed=False, checks=[])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (failed, "model.onnx, exact, normal, output: RMS relative 5.00e-01 of 1e-05 allowed; worst element"),
        (not_finite, "model.onnx, exact, normal, output: 7 values are NaN or Inf, the first at"),
        (refused, "model.onnx, exact, normal, output: the engine refused the graph: no kernel"),
        (
            problem,
            "problem  NVIDIA Jetson Nano Developer Kit, tensorrt 8.2.1.8: fp16: The parser refuses this graph:\n",
        ),
        (problem, "\n    node 'a': no such operator\n"),
        (without_reason, "the run says that it failed, and not why"),
        (without_checks, "FAIL  0 of 0 checks hold on NVIDIA Jetson Nano Developer Kit"),
    ],
)
def test_one_verdict_that_failed_fails_the_report(
    cli: Cli, folder: Path, board: Path, change: Callable[[Document], None], said: str
) -> None:
    document = loaded(board)
    change(document)
    written(board, document)
    done = cli("report", folder, board)
    assert done.exit_code == 1
    assert said in done.stdout
    assert done.stdout.splitlines()[-1] == "FAIL  1 of 2 verdicts hold"


def test_a_verdict_of_another_artifact_is_set_apart(cli: Cli, folder: Path, board: Path) -> None:
    document = loaded(board)
    document["conditions"]["artifact_sha256"] = "ab" * 32
    written(board, document)
    done = cli("report", board, folder)
    assert done.exit_code == 1
    here = loaded(folder / "manifest.json")["manifest_sha256"]
    reason = f"it is of another artifact (se, manifest {'ab' * 6}) than the report (se, manifest {here[:12]})."
    assert f"set apart  {board}: {reason}" in done.stdout
    assert not rows(done.stdout, NANO)
    assert done.stdout.splitlines()[-1] == "FAIL  1 of 2 verdicts hold, 1 set apart"
    assert json.loads(cli("report", board, folder, "--json").stdout)["set_apart"][0]["file"] == str(board)


def test_without_a_folder_the_first_verdict_says_which_artifact_it_is_about(folder: Path, board: Path) -> None:
    other = board_document(folder)
    other["conditions"]["artifact_sha256"] = "ab" * 32
    found = report([board, written(Path("other/verdict.json"), other)])
    assert [one.file for one in found.verdicts] == [board]
    assert [one.verdict.file for one in found.set_apart] == [Path("other/verdict.json")]
    assert not found.passed


def test_a_verdict_that_does_not_say_what_it_is_of_holds_alone_and_not_beside_others(folder: Path, board: Path) -> None:
    document = loaded(board)
    del document["conditions"]["artifact_sha256"]
    written(board, document)
    assert report([board]).passed
    found = report([folder, board])
    assert not found.passed
    assert "it does not say which artifact it is of" in found.set_apart[0].reason


def test_a_host_s_verdict_named_as_a_file_is_of_the_folder_it_lies_in(folder: Path, board: Path) -> None:
    found = report([folder / HOST, board])
    assert found.passed
    assert len(found.verdicts) == 2


def test_a_verdict_of_what_the_folder_held_before_is_set_apart(folder: Path) -> None:
    document = loaded(folder / HOST)
    document["conditions"]["artifact_sha256"] = "ab" * 32
    written(folder / HOST, document)
    found = report([folder])
    assert (found.passed, found.verdicts) == (False, ())
    assert "other files than the folder holds" in found.set_apart[0].reason


def test_an_artifact_that_was_changed_is_no_measure_for_verdicts(cli: Cli, folder: Path) -> None:
    with (folder / "model.onnx").open("ab") as stream:
        stream.write(b"x")
    done = cli("report", folder)
    assert done.exit_code == 1
    assert "model.onnx: changed since the export" in done.stderr


def test_boards_of_one_kind_are_told_apart_by_their_folders_and_files(cli: Cli, folder: Path) -> None:
    document = board_document(folder)
    for file in ("a/verdict.json", "b/verdict.json", "se/verdict-kitchen-tensorrt.json"):
        written(Path(file), document)
    found = report(["a", "b", folder])
    assert [one.where for one in found.verdicts][:2] == [f"a: {NANO}", f"b: {NANO}"]
    assert f"kitchen: {NANO}" in [one.where for one in found.verdicts]
    assert found.passed


def test_a_folder_of_results_is_searched_one_level_down_and_a_file_counts_once(folder: Path) -> None:
    for name in ("b", "a"):
        written(Path("results") / name / "verdict.json", board_document(folder))
    found = report(["results", "results/a", Path("results/a/verdict.json").resolve()])
    assert [one.file for one in found.verdicts] == [
        Path("results/a/verdict.json").resolve(),
        Path("results/b/verdict.json"),
    ]


def test_cases_that_nobody_ran_are_noted(cli: Cli, folder: Path, board: Path) -> None:
    document = loaded(board)
    document["checks"] = [check for check in document["checks"] if check["case"] == "normal"]
    written(board, document)
    assert f"note  {board}: nothing was checked on far_mean, large." in cli("report", folder, board).stdout
    document["checks"][0].update(case="all", measured=None, error="no kernel", passed=False)
    document["passed"] = False
    written(board, document)
    assert "nothing was checked" not in cli("report", folder, board).stdout


def test_what_was_compared_in_part_is_noted(cli: Cli, folder: Path, board: Path) -> None:
    document = loaded(board)
    document["checks"][0]["compared"] = "2,048 of 10,752 elements, and all of them in 2,048 signed sums"
    for check in document["checks"][1:]:
        check["compared"] = "all 480 elements"
    written(board, document)
    lines = cli("report", folder, board).stdout.splitlines()
    total, place = len(document["checks"]), f"{NANO}, tensorrt 8.2.1.8"
    compared = "compared 2,048 of 10,752 elements, and all of them in 2,048 signed sums"
    assert [line for line in lines if "elements" in line] == [f"note  {place}: 1 of {total} checks {compared}"]


def test_an_fp32_check_that_was_allowed_more_says_why(cli: Cli, folder: Path, board: Path) -> None:
    document = loaded(board)
    document["checks"][0]["tolerance"].update(rms_relative=1e-4, reason="the module itself is 1.2e-05 off")
    written(board, document)
    assert "model.onnx, normal: the module itself is 1.2e-05 off" in cli("report", board).stdout


def test_only_end_to_end_times_are_named_so(cli: Cli, folder: Path, board: Path) -> None:
    document = loaded(board)
    document["timing"] = {
        "fp32": {"how": "on the CPU", "compute": None, "end_to_end": document["timing"]["fp32"]["end_to_end"]}
    }
    written(board, document)
    found = rows(cli("report", board).stdout, NANO)
    assert found[0][11:16] == ["end to end", "0.125", "0.125", "0.125", "40 of 16 in a row"]


@pytest.mark.parametrize(
    ("paths", "said"),
    [
        (["missing.json"], "missing.json cannot be read: No such file or directory."),
        (["empty"], "empty holds no verdict. `deploy-attn verify` writes one"),
        (["bare"], "`deploy-attn verify bare` writes one there."),
        (["capsule"], "`python3 run.py` in capsule, on the board, writes one there."),
        (["pipe"], "pipe is not read: it is not a plain file."),
        (["large.json"], "large.json is not read: it is larger than 16 MiB."),
    ],
)
def test_what_holds_no_verdict_is_refused(cli: Cli, folder: Path, paths: list[str], said: str) -> None:
    Path("empty").mkdir()
    shutil.copytree(folder, "bare", ignore=shutil.ignore_patterns("verdict*"))
    written(Path("capsule/capsule.json"), {})
    os.mkfifo("pipe")
    with Path("large.json").open("wb") as stream:
        stream.truncate((16 << 20) + 1)
    done = cli("report", *paths)
    assert done.exit_code == 2
    assert said in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "it is not JSON (Expecting value"),
        (b"{", "it is not JSON ("),
        (b"[]", "it holds an empty list, and not an object."),
        (b"\xff\xfe", "it is not JSON ("),
        (b'{"engine": NaN}', "it is not JSON (NaN is no number of JSON)"),
        (b'{"engine": 1e999}', "it is not JSON (1e999 is too large for a number)"),
        (b'{"engine": "a", "engine": "b"}', 'it is not JSON ("engine" is there twice)'),
        (b'{"a": ' * 100000 + b"1" + b"}" * 100000, "it is nested too deeply."),
        (b'{"engine": ' + b"9" * 5000 + b"}", "it is not JSON ("),
        (b"{}", "'engine' is missing."),
        (b'{"schema_version": 2, "engine": "tensorrt"}', "'schema_version' is 2, and this release reads 1."),
        (b'{"schema_version": "1"}', "'schema_version' is \"1\", and not a count."),
    ],
)
def test_a_file_that_is_no_verdict_is_refused_by_name(cli: Cli, in_folder: Path, content: bytes, said: str) -> None:
    Path("bad.json").write_bytes(content)
    done = cli("report", "bad.json")
    assert done.exit_code == 2
    assert done.stderr.startswith("deploy-attn: bad.json is not read: ")
    assert said in done.stderr
    assert "make it there again." in done.stderr


def put(document: Document, place: str, value: object) -> None:
    """Sets what `checks.0.measured.max_abs` names; deletes it for Ellipsis."""
    *way, last = [int(word) if word.isdigit() else word for word in place.split(".")]
    target: Any = document
    for word in way:
        target = target[word]
    if value is ...:
        del target[last]
    else:
        target[last] = value


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        ("passed", "yes", "'passed' is \"yes\", and neither true nor false."),
        ("passed", ..., "'passed' is missing."),
        ("engine", 4, "'engine' is 4, and not a text."),
        ("conditions", [], "'conditions' is an empty list, and not an object."),
        ("conditions.version", 8.2, "'conditions.version' is 8.2, and not a text."),
        ("conditions.artifact_sha256", 1, "'conditions.artifact_sha256' is 1, and not a text."),
        ("checks", {}, "'checks' is an empty object, and not a list."),
        ("checks", [], "'passed' is true, which its own checks or problems contradict."),
        ("checks", [{}] * 2001, "'checks' is a list of 2001 checks, and no verdict has more than 2000."),
        ("checks.0", 3, "'checks[0]' is 3, and not an object."),
        ("checks.1.precision", "int8", "'checks[1].precision' is \"int8\", and not fp32 or fp16."),
        ("checks.0.measured.rms_relative", "small", "measured.rms_relative' is \"small\", and not a number."),
        ("checks.0.measured.rms_relative", True, "'checks[0].measured.rms_relative' is true, and not a number."),
        ("checks.0.measured.rms_relative", 10**400, "is an integer of more than 64 bits, and not a finite number."),
        ("checks.0.measured.rms_relative", -1, "measured.rms_relative' is -1, and no error can be less than 0."),
        ("checks.0.measured.rms_relative", 0.5, "'checks[0].passed' is true, which its own numbers contradict."),
        ("checks.0.measured.rms_relative", None, "'checks[0].passed' is true, which its own numbers contradict."),
        ("checks.0.measured.non_finite", 2, "'checks[0].passed' is true, which its own numbers contradict."),
        ("checks.0.measured.non_finite", -1, "'checks[0].measured.non_finite' is -1, and not a count."),
        ("checks.0.measured.worst_index", [1.5], "measured.worst_index' is a list of 1, and not a list of counts."),
        ("checks.0.measured", None, "'checks[0].error' is null, and there is nothing measured either."),
        ("checks.0.tolerance.rms_relative", 2, "'checks[0].tolerance.rms_relative' is 2, and no tolerance."),
        ("checks.0.tolerance.worst_relative", None, "'checks[0].tolerance.worst_relative' is null, and no tolerance."),
        ("checks.0.tolerance", ..., "'checks[0].tolerance' is missing."),
        ("warnings", "hot", "'warnings' is \"hot\", and not a list."),
        ("warnings", [1], "'warnings' holds more than texts."),
        ("problems", ["it broke"], "'passed' is true, which its own checks or problems contradict."),
        ("board", "Nano", "'board' is \"Nano\", and not an object."),
        ("board.module", 7, "'board.module' is 7, and not a text."),
        ("timing", 1.5, "'timing' is 1.5, and not an object."),
        ("timing.fp32", 1.5, "'timing.fp32' is 1.5, and not an object."),
        ("checks.0.tolerance.rms_relative", 1, "'checks[0].tolerance.rms_relative' is 1, and no tolerance."),
        ("timing.fp32.compute.median_ms", -2, "'timing.fp32.compute.median_ms' is -2, and no time."),
        ("timing.fp32.compute.p90_ms", None, "'timing.fp32.compute.p90_ms' is null, and no time."),
        ("timing.fp32.compute.p99_ms", ..., "'timing.fp32.compute.p99_ms' is missing."),
        ("timing.fp32.compute.n", 0, "'timing.fp32.compute.n' is 0, and a time needs samples."),
        ("power.fp32.samples", 0, "from 0 samples, and no energy."),
        ("power.fp32.samples", "many", "'power.fp32.samples' is \"many\", and not a count."),
        ("power.fp32.joules_per_inference", -0.5, "'power.fp32.joules_per_inference' is -0.5 from 101 samples"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_refused_with_its_file_and_key(
    cli: Cli, folder: Path, board: Path, place: str, value: object, said: str
) -> None:
    document = loaded(board)
    put(document, place, value)
    written(board, document)
    done = cli("report", folder, board)
    assert done.exit_code == 2
    assert done.stderr.startswith(f"deploy-attn: {board} is not read: ")
    assert said in done.stderr
    assert done.stdout == ""


def test_a_refusal_is_one_document_with_json(cli: Cli, in_folder: Path) -> None:
    done = cli("report", "missing.json", "--json")
    assert (done.exit_code, json.loads(done.stdout)["exit_code"]) == (2, 2)


def test_a_verdict_s_words_are_no_markup_and_no_command_to_the_terminal(cli: Cli, folder: Path, board: Path) -> None:
    document = loaded(board)
    document["board"]["module"] = "[red]Nano[/red]\x1b[2J\ud800"
    document["warnings"] = ["[/nothing]", "one\ntwo\x07"]
    document["checks"][0]["case"] = "[bold]"
    written(board, document)
    shown = cli("report", board).stdout
    assert "\x1b" not in shown
    assert "[red]Nano[/red]\\x1b[2J\\ud800" in shown
    assert "[/nothing]" in shown
    assert "one\n    two\\x07" in shown
    assert "[bold]" in shown


PLACES = ["engine", "passed", "checks", "checks.0", "checks.0.measured", "checks.0.tolerance.reason", "conditions",
          "board", "board.module", "timing", "timing.fp32", "timing.fp32.compute", "timing.fp32.notes", "power",
          "power.fp32", "power.fp16.refused", "warnings", "problems", "schema_version", "name"]  # fmt: skip
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.sampled_from(PLACES), value=VALUES)
def test_whatever_stands_in_a_verdict_it_is_shown_or_refused(
    exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], place: str, value: object
) -> None:
    document = copy.deepcopy(board_document(exported))
    put(document, place, value)
    file = written(tmp_path / "verdict.json", document)
    try:
        found = report([file])
    except BadRequest as error:
        assert str(error).startswith(f"{file} is not read: ")
        return
    show_report(found)
    json.dumps(found.as_dict(), allow_nan=False)
    assert capsys.readouterr().out.splitlines()[-1].startswith("PASS" if found.passed else "FAIL")


def test_a_check_of_the_board_and_of_the_host_is_read_as_it_was_written(folder: Path) -> None:
    host = read_verdict(folder / HOST)
    assert [check.as_dict() for check in host.checks] == loaded(folder / HOST)["checks"]
    assert all(isinstance(check, Check) for check in host.checks)
