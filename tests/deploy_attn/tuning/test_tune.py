"""`tune`: what is faster beyond doubt and keeps parity stays, everything that was tried is told, and it is stored."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deploy_attn import BadRequest, DeployAttnError, ExportRequest, export_artifact, verify
from deploy_attn.engines import load
from deploy_attn.engines.latency.blocks import Watch
from deploy_attn.engines.latency.protocol import Bench, Effort, compare
from deploy_attn.engines.latency.result import Candidate
from deploy_attn.engines.onnxruntime import OnnxRuntimeRunner, Settings
from deploy_attn.engines.pairs import Stopwatch
from deploy_attn.jetson.timing import Options
from deploy_attn.stored import keep_text
from deploy_attn.tuning import setting_search as search
from deploy_attn.tuning import text as tune_text
from deploy_attn.tuning import tune as module
from deploy_attn.tuning.tune import TuneOptions, Tuning, thread_counts, tune
from deploy_attn.tuning.turns import NotAtRest, Turns
from tests.deploy_attn.command_line import Cli
from tests.deploy_attn.judging import Judge


def no_faster(candidate: Candidate) -> float:
    return 1.0


def by_level(candidate: Candidate) -> float:
    return {"all": 1.0, "extended": 1.3, "basic": 1.4, "off": 0.5}[candidate.conditions["optimisation"]]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported") / "eca"
    return export_artifact(ExportRequest("eca", shape=(1, 8, 5, 6), fp16=True, output=folder)).folder


@pytest.fixture
def folder(exported: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(exported, tmp_path / "eca"))


@pytest.fixture
def cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine of six."""
    monkeypatch.setattr(module, "usable_cpus", lambda: 6)


@pytest.fixture(autouse=True)
def no_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wait for a turn goes by the clock."""
    monkeypatch.setattr(Turns, "of", lambda turns, side: side)


ONE = TuneOptions(threads=(1,))


def test_what_is_no_faster_beyond_doubt_leaves_the_settings_that_the_search_starts_from(folder: Path) -> None:
    tuning = tune(folder, ONE, compare=Judge(no_faster))
    for tuned in tuning.precisions.values():
        assert tuned.settings.as_dict() == {
            "level": "all",
            "intra_op_threads": 1,
            "denormals_zero": False,
            "spinning": False,
        }
        assert {one.reason for one in tuned.tried} == {"Less than 1.05"}
        assert not any(one.kept for one in tuned.tried)


def test_a_stage_starts_from_the_best_of_the_one_before(folder: Path) -> None:
    judge = Judge(by_level)
    tuned = tune(folder, ONE, compare=judge).precisions["fp32"]
    assert tuned.settings.level == "basic"
    assert [(one.settings.level, one.kept) for one in tuned.tried[:3]] == [
        ("extended", True),
        ("basic", True),
        ("off", False),
    ]
    assert tuned.tried[2].reason == "it is slower" or "0.36 times" in tuned.tried[2].reason
    assert judge.asked[1] == ("fp32, level basic, 1 thread", "fp32, level extended, 1 thread")
    assert all(one.settings.level == "basic" for one in tuned.tried[3:]), "subnormal numbers come after the levels"


DEFAULT = {"level": "all", "intra_op_threads": 0, "denormals_zero": False, "spinning": True}


@pytest.mark.usefixtures("cores")
def test_the_search_starts_from_the_default_and_holds_threads_that_do_not_spin_against_it(folder: Path) -> None:
    def by_threads(candidate: Candidate) -> float:
        return {0: 1.0, 6: 0.9, 4: 1.2, 2: 1.1, 1: 1.5}[candidate.conditions["intra_op_threads"]]

    judge = Judge(by_threads)
    tuned = tune(folder, compare=judge).precisions["fp32"]
    assert tuned.start.as_dict() == DEFAULT
    assert [(one.settings.intra_op_threads, one.kept) for one in tuned.tried[:4]] == [
        (6, False),
        (4, True),
        (2, False),
        (1, True),
    ]
    assert judge.asked[:3] == [
        ("fp32, level all, 6 threads", "fp32, level all, threads as onnxruntime chooses, spinning"),
        ("fp32, level all, 4 threads", "fp32, level all, threads as onnxruntime chooses, spinning"),
        ("fp32, level all, 2 threads", "fp32, level all, 4 threads"),
    ]
    assert tuned.settings.intra_op_threads == 1
    assert not any(one.settings.spinning for one in tuned.tried)


@pytest.mark.parametrize(
    ("judge", "decided"),
    [
        (Judge(no_faster), True),
        (Judge(lambda candidate: 1.3 if candidate.conditions["intra_op_threads"] else 1.0, error=0.5), False),
    ],
    ids=["nothing is faster", "the machine is noisy"],
)
@pytest.mark.usefixtures("cores")
def test_where_nothing_beats_the_default_it_is_stored_and_told(folder: Path, judge: Judge, decided: bool) -> None:
    tuning = tune(folder, compare=judge)
    stored = json.loads(tuning.file.read_text(encoding="utf-8"))["precisions"]["fp32"]
    assert (stored["settings"], stored["start"]) == (DEFAULT, DEFAULT)
    assert stored["tried"][0]["against"] == DEFAULT
    assert {one["decided"] for one in stored["tried"]} == {decided}
    lines = tune_text.setting_lines(tuning)
    assert lines[0] == "fp32: level all, threads as onnxruntime chooses, spinning: the default of onnxruntime stands"
    assert any("were not decided" in line for line in lines) != decided
    rows = tune_text.setting_rows(tuning)
    assert rows[0][1:] == (str(tuning.precisions["fp32"].start), "-", "yes", "the default of onnxruntime")
    assert [row[3] for row in rows if row[0] == "fp32"][1:] == ["-"] * len(stored["tried"])
    assert load(folder).conditions()["spinning"]
    assert verify(folder).conditions["settings"]["fp32"] == DEFAULT


@pytest.mark.usefixtures("cores")
@pytest.mark.parametrize(
    ("threads", "start"),
    [
        (None, Settings()),
        ((1,), Settings(intra_op_threads=1, spinning=False)),
        ((1, 4), Settings(intra_op_threads=4)),
    ],
)
def test_counts_that_are_asked_for_are_kept_to_from_the_start(
    threads: tuple[int, ...] | None, start: Settings, folder: Path
) -> None:
    options = TuneOptions(threads=threads)
    assert options.start == start
    tuned = tune(folder, options, compare=Judge(no_faster)).precisions["fp32"]
    assert tuned.settings == start
    assert start not in [one.settings for one in tuned.tried], "it is not held against itself"


def test_the_text_of_one_thread_says_that_its_default_stands(folder: Path) -> None:
    tuning = tune(folder, ONE, compare=Judge(no_faster))
    assert tune_text.setting_lines(tuning)[0] == "fp32: level all, 1 thread: the default at that many threads stands"


@pytest.mark.usefixtures("cores")
def test_what_ran_beside_other_programs_says_nothing_of_thread_counts(folder: Path) -> None:
    def wins(candidate: Candidate) -> float:
        return 2.0 if candidate.conditions["intra_op_threads"] == 1 else by_level(candidate)

    tuned = tune(folder, compare=Judge(wins, spoiled=1)).precisions["fp32"]
    assert [(one.kept, one.decided) for one in tuned.tried[:4]] == [(False, False)] * 4
    assert "other programs ran meanwhile" in tuned.tried[3].reason
    assert (tuned.settings.level, tuned.settings.intra_op_threads) == ("basic", 0), "levels suffer alike"


def test_sessions_that_spin_take_turns_and_others_need_none(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spinning: list[bool] = []

    def recorded(turns: Turns, side: Stopwatch) -> Stopwatch:
        spinning.append(turns.needed)
        return side

    monkeypatch.setattr(Turns, "of", recorded)
    tune(folder, compare=Judge(no_faster))
    threads, sides = len(TuneOptions().counts), 3
    assert spinning[: threads * sides] == [True] * threads * sides, "the default spins"
    assert not any(spinning[threads * sides : len(spinning) // 2]), "levels are compared without"
    spinning.clear()
    tune(folder, ONE, compare=Judge(by_level))
    assert spinning
    assert not any(spinning)


@pytest.mark.usefixtures("cores")
@pytest.mark.parametrize(("spun", "level"), [(1.4, "basic"), (1.0, "all")])
def test_a_level_that_wins_without_spinning_must_win_where_the_default_spins_too(
    spun: float, level: str, folder: Path
) -> None:
    def speed(candidate: Candidate) -> float:
        if candidate.conditions["intra_op_threads"]:
            return 0.5
        fast = spun if candidate.conditions["spinning"] else 1.4
        return fast if candidate.conditions["optimisation"] == "basic" else 1.0

    judge = Judge(speed)
    tuned = tune(folder, compare=judge).precisions["fp32"]
    assert tuned.settings == Settings(level=level)
    last = tuned.tried[-1]
    assert (last.settings, last.against, last.kept) == (Settings(level="basic"), Settings(), level == "basic")
    assert [one.settings.spinning for one in tuned.tried[:-1]] == [False] * len(tuned.tried[:-1])


def test_a_process_that_does_not_rest_decides_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def restless(turns: Turns, side: Stopwatch) -> Stopwatch:
        def once() -> float:
            raise NotAtRest("other threads ran")

        return once

    monkeypatch.setattr(Turns, "of", restless)
    tuned = tune(folder, compare=Judge(by_level)).precisions["fp32"]
    assert tuned.settings == Settings()
    assert {(one.reason, one.decided, one.ratio) for one in tuned.tried} == {
        ("not timed: other threads ran", False, None)
    }


def test_settings_that_fail_only_in_the_end_are_not_stored(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    infer = OnnxRuntimeRunner._infer
    chosen: list[Path] = []

    def wrong(runner: OnnxRuntimeRunner, feeds: Any) -> Any:
        outputs = infer(runner, feeds)
        return {name: y + np.float32(bool(chosen)) for name, y in outputs.items()}

    def keep(file: Path, text: str) -> Path:
        chosen.append(keep_text(file, text))
        return chosen[-1]

    monkeypatch.setattr(OnnxRuntimeRunner, "_infer", wrong)
    monkeypatch.setattr(module, "keep_text", keep)
    with pytest.raises(DeployAttnError, match=r"fails parity with the settings that were chosen.*They are not stored"):
        tune(folder, ONE, compare=Judge(by_level))
    assert chosen == [folder / "settings-onnxruntime.json"]
    assert not chosen[0].exists()


def test_what_was_chosen_is_stored_loaded_and_verified(folder: Path) -> None:
    tuning = tune(folder, ONE, compare=Judge(by_level))
    stored = json.loads(tuning.file.read_text(encoding="utf-8"))
    assert tuning.file == folder / "settings-onnxruntime.json"
    assert set(stored) == {"schema_version", "engine", "artifact_sha256", "precisions", "conditions"}
    assert set(stored["precisions"]) == {"fp32", "fp16"}
    first = stored["precisions"]["fp32"]
    assert (first["settings"]["level"], first["verified"]) == ("basic", True)
    assert first["tried"][0]["ratio"] == {"median": 1.3, "p10": 1.3, "p90": 1.3, "pairs": 40}
    assert load(folder).conditions()["optimisation"] == "basic"
    written = json.loads((folder / "verdict-onnxruntime.json").read_text(encoding="utf-8"))
    assert written["conditions"]["settings"]["fp32"] == first["settings"], "the verdict is one of these settings"
    assert [file.name for file in folder.iterdir() if "partial" in file.name] == []


def test_settings_that_break_parity_are_dropped_with_the_reason(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    infer = OnnxRuntimeRunner._infer

    def wrong(runner: OnnxRuntimeRunner, feeds: Any) -> Any:
        outputs = infer(runner, feeds)
        return {k: v + np.float32(runner.conditions()["optimisation"] == "basic") for k, v in outputs.items()}

    monkeypatch.setattr(OnnxRuntimeRunner, "_infer", wrong)
    tuned = tune(folder, ONE, compare=Judge(by_level)).precisions["fp32"]
    assert tuned.settings.level == "extended"
    dropped = tuned.tried[1]
    assert (dropped.settings.level, dropped.kept) == ("basic", False)
    assert "model.onnx, exact, normal, output: RMS relative" in dropped.reason


def test_an_artifact_that_fails_parity_is_not_tuned(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    infer = OnnxRuntimeRunner._infer
    monkeypatch.setattr(
        OnnxRuntimeRunner, "_infer", lambda self, feeds: {name: y + 1 for name, y in infer(self, feeds).items()}
    )
    with pytest.raises(DeployAttnError, match=r"fails parity before anything is tuned: model\.onnx, exact") as raised:
        tune(folder, ONE, compare=Judge(no_faster))
    assert raised.value.exit_code == 1
    assert not (folder / "settings-onnxruntime.json").exists()


def test_a_graph_that_the_engine_refuses_at_one_level_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    activate = OnnxRuntimeRunner._activate

    def refusing(runner: OnnxRuntimeRunner) -> Any:
        if runner.conditions()["optimisation"] == "extended":
            raise RuntimeError("no kernel for this node\nand more")
        return activate(runner)

    monkeypatch.setattr(OnnxRuntimeRunner, "_activate", refusing)
    tried = tune(folder, ONE, compare=Judge(no_faster)).precisions["fp32"].tried
    assert (tried[0].ratio, tried[0].reason) == (None, "the engine refused it: no kernel for this node")


def test_settings_of_another_export_are_replaced(folder: Path) -> None:
    (folder / "settings-onnxruntime.json").write_text("nothing of ours", encoding="utf-8")
    with pytest.raises(BadRequest, match="or delete"):
        verify(folder)
    tune(folder, ONE, compare=Judge(no_faster))
    assert verify(folder).passed


def test_a_link_is_replaced_and_what_it_points_to_is_not_written(folder: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious.txt"
    precious.write_text("mine", encoding="utf-8")
    (folder / "settings-onnxruntime.json").symlink_to(precious)
    tune(folder, ONE, compare=Judge(no_faster))
    assert precious.read_text(encoding="utf-8") == "mine"
    assert not (folder / "settings-onnxruntime.json").is_symlink()


def test_a_folder_that_cannot_take_the_settings_is_refused_before_anything_is_measured(folder: Path) -> None:
    (folder / "settings-onnxruntime.json").mkdir()
    judge = Judge(no_faster)
    with pytest.raises(BadRequest, match=r"settings-onnxruntime\.json cannot be written: Is a directory"):
        tune(folder, ONE, compare=judge)
    assert judge.asked == []


@pytest.mark.usefixtures("cores")
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"engine": "tensorrt"}, "tensorrt has no settings to tune.*--engine onnxruntime.*bench DIR --engine tensorrt"),
        ({"engine": "onnx"}, "Unknown engine 'onnx'"),
        ({"threads": (1, 7)}, "Asked for threads 1, 7; this process may use 6 cores"),
        ({"threads": (0,)}, "counts are from 1 to 6"),
        ({"threads": ()}, "Asked for threads none"),
        ({"seconds": 0.0}, "above 0"),
        ({"seconds": float("nan")}, "above 0"),
        ({"seconds": 1e9}, "up to 3600"),
    ],
)
def test_what_cannot_be_tuned_is_refused_with_what_can(options: dict[str, Any], words: str) -> None:
    with pytest.raises(BadRequest, match=words):
        TuneOptions(**options)


@pytest.mark.usefixtures("cores")
@pytest.mark.parametrize(
    ("threads", "counts"), [(None, (6, 4, 2, 1)), ((2, 1, 2), (2, 1)), (thread_counts("1,3"), (3, 1))]
)
def test_each_count_is_tried_once(threads: tuple[int, ...] | None, counts: tuple[int, ...]) -> None:
    assert TuneOptions(threads=threads).counts == counts


@pytest.mark.parametrize("text", ["", "1,", "two", "1;2"])
def test_counts_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(BadRequest, match="is not a list of counts"):
        thread_counts(text)


def test_the_command_shows_what_was_tried_and_prints_a_document(
    folder: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "comparing", lambda seconds, on_progress: Judge(by_level))
    shown = cli("tune", str(folder), "--threads", "1")
    assert shown.exit_code == 0, shown.stderr
    assert "level extended, 1 thread" in shown.stdout
    assert "1.30 (1.30..1.30)" in shown.stdout
    assert "fp32: level basic, 1 thread\n" in shown.stdout
    assert "PASS  9 of 9 checks hold" in shown.stdout
    document = json.loads(cli("tune", str(folder), "--threads", "1", "--json").stdout)
    assert document["precisions"]["fp32"]["settings"]["level"] == "basic"
    assert "with the settings that were tuned for it" in cli("verify", str(folder)).stdout
    assert cli("tune", str(folder), "--engine", "tensorrt").exit_code == 2
    assert cli("tune", str(folder), "--threads", "a").exit_code == 2
    assert cli("tune", str(folder.parent)).exit_code == 2


def test_comparisons_that_decided_nothing_are_counted(folder: Path) -> None:
    noisy = Judge(no_faster, refused="The machine is too noisy: something (1.0 cores).", error=0.1)
    tuning = tune(folder, ONE, compare=noisy)
    lines = tune_text.setting_lines(tuning)
    assert any("8 of 8 were not decided, for noise or for want of pairs" in line for line in lines)
    assert [row[-1] for row in tune_text.setting_rows(tuning)][1] == "The machine is too noisy: something"
    quiet = tune(folder, ONE, compare=Judge(no_faster))
    assert not any("not decided" in line for line in tune_text.setting_lines(quiet))


def test_a_real_search_measures_each_step_and_ends_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = export_artifact(ExportRequest("eca", shape=(1, 8, 5, 6), output=tmp_path / "eca")).folder
    monkeypatch.setattr(search, "LEVELS", ("all", "extended"))
    steps: list[Mapping[str, Any]] = []
    unwatched = Watch(read=lambda: None, sleep=lambda seconds: None)
    bench = Bench(on_progress=steps.append, watch=unwatched, warm_up=Options(warm_up=0.001, longest_warm_up=0.002))
    tuning: Tuning = tune(folder, ONE, compare=partial(compare, effort=Effort(pairs=4), bench=bench))
    assert all(one.ratio is not None and one.reason for one in tuning.precisions["fp32"].tried)
    assert {step["phase"] for step in steps} > {"fp32, level extended, 1 thread against fp32, level all, 1 thread"}
    assert verify(folder).passed
