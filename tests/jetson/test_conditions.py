"""What spoils a result: one sentence each, and none where nothing does."""

from pathlib import Path
from typing import Any, Dict, List, Optional

import pytest

from deploy_attn.jetson.board import Board, look
from deploy_attn.jetson.conditions import spoilers
from deploy_attn.jetson.power_modes import PowerMode
from deploy_attn.jetson.sensors import Reading, Sensors
from tests.jetson import boards

GIB = 1 << 30
CALM = Reading({"GPU": 40.0}, {"oc1": 5, "oc3": 0}, {"pwm-fan": 3, "gpu-throttle-alert": 0}, 921600000)


@pytest.fixture
def board(tmp_path: Path) -> Board:
    """One that nothing spoils."""
    root = boards.write(
        tmp_path, "nano", **{"/proc/swaps": "Filename Type Size Used Priority\n/swapfile file 9 0 -2\n"}
    )
    boards.pin(root, "nano")
    return look(root)


def reading(**changes: Any) -> Reading:
    return CALM._replace(**changes)


def test_nothing_is_said_of_a_board_that_is_as_it_should_be(board: Board) -> None:
    assert spoilers(board, CALM, CALM, {"GPU": 97.0}) == []


@pytest.mark.parametrize(
    ("changes", "words", "todo"),
    [
        (
            {"power_mode": PowerMode(1, "5W"), "is_max_power": False},
            "The power mode is 1 (5W), not the highest",
            "`sudo nvpmodel -m 0` for MAXN",
        ),
        (
            {"power_mode": PowerMode(9, None), "is_max_power": False, "max_power_mode": PowerMode(2, "MAXN_SUPER")},
            "The power mode is 9, not",
            "`sudo nvpmodel -m 2` for MAXN_SUPER",
        ),
        ({"power_mode": None, "is_max_power": None}, "The power mode is not known", "`sudo nvpmodel -q`"),
        ({"is_max_power": None, "max_power_mode": None}, "Whether power mode 0 (MAXN) is the highest", "Compare only"),
        (
            {"clocks_pinned": False, "gpu_clock_hz": 76800000, "gpu_min_clock_hz": 76800000},
            "the GPU is at 77 MHz of 922 MHz and may fall to 77 MHz",
            "--pin-clocks",
        ),
        ({"clocks_pinned": None}, "Whether the clocks are pinned is not known", "--pin-clocks"),
        ({"gpu_clock_hz": None}, "Whether the clocks are pinned is not known", "--pin-clocks"),
        ({"available_bytes": 3 * GIB // 2 - 1}, "Only 1.5 GiB of memory are available", "set-default multi-user"),
        ({"swap_kind": "file+zram"}, "Swap is on zram", "`sudo systemctl disable nvzramconfig`"),
        ({"swap_bytes": 0, "swap_kind": "none"}, "There is no swap beside 3.9 GiB", "`sudo mkswap /swapfile`"),
    ],
)
def test_a_state_of_the_board_is_one_sentence_with_what_to_do(
    changes: Dict[str, Any], words: str, todo: str, board: Board
) -> None:
    found = spoilers(board._replace(**changes), CALM, CALM)
    assert len(found) == 1
    assert words in found[0]
    assert todo in found[0]
    assert found[0].endswith(".")


@pytest.mark.parametrize(
    "changes",
    [
        {"available_bytes": 3 * GIB // 2},
        {"available_bytes": None},
        {"swap_bytes": 0, "swap_kind": "none", "memory_bytes": 8 * GIB},
        {"swap_bytes": None, "swap_kind": None},
        {"swap_kind": "file"},
    ],
)
def test_what_does_not_spoil_is_not_said(changes: Dict[str, Any], board: Board) -> None:
    assert spoilers(board._replace(**changes), CALM, CALM) == []


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ({"oc1": 5}, {"oc1": 7}, ["2 times for under-voltage (oc1)"]),
        ({"oc2": 0}, {"oc2": 1}, ["1 times for average over-current (oc2)"]),
        ({"oc3": 0, "oc1": 0}, {"oc3": 4000, "oc1": 1}, ["4000 times for momentary", "1 times for under-voltage"]),
        ({"gpu-throttle-alert": 1}, {"gpu-throttle-alert": 4}, ["gpu-throttle-alert rose by 3"]),
        ({"oc1": 5}, {"oc1": 5}, []),
        ({"oc1": 5}, {"oc1": 1}, []),
        ({}, {"oc1": 9}, []),
        ({"oc1": 9}, {}, []),
    ],
)
def test_only_what_rose_while_it_ran_is_throttling(
    before: Dict[str, int], after: Dict[str, int], words: List[str], board: Board
) -> None:
    found = spoilers(board, reading(throttle_counters=before), reading(throttle_counters=after))
    assert len(found) == len(words)
    assert all(word in sentence for word, sentence in zip(words, found))


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ({}, {"gpu-balanced": 2}, "(gpu-balanced at step 2) while this ran"),
        ({"gpu-balanced": 1}, {"gpu-balanced": 2}, "while this ran"),
        ({"gpu-balanced": 2}, {"gpu-balanced": 2}, "already before this ran"),
        ({"gpu-balanced": 2}, {"gpu-balanced": 0}, None),
        ({"pwm-fan": 0}, {"pwm-fan": 4}, None),
        ({"PWM-FAN": 0}, {"PWM-FAN": 4}, None),
    ],
)
def test_a_cooling_device_that_is_on_is_throttling_unless_it_is_a_fan(
    before: Dict[str, int], after: Dict[str, int], words: Optional[str], board: Board
) -> None:
    found = spoilers(board, reading(cooling_states=before), reading(cooling_states=after))
    assert len(found) == (0 if words is None else 1)
    assert words is None or words in found[0]


def test_one_alert_that_both_counts_and_cools_is_said_once(board: Board) -> None:
    alert = "gpu-throttle-alert"
    after = reading(throttle_counters={alert: 2}, cooling_states={alert: 1})
    assert len(spoilers(board, reading(throttle_counters={alert: 1}), after)) == 1


@pytest.mark.parametrize(("hz", "count"), [(921600000, 0), (910000000, 0), (768000000, 1), (None, 0)])
def test_a_pinned_gpu_below_its_clock_was_slowed_down(hz: Optional[int], count: int, board: Board) -> None:
    found = spoilers(board, CALM, reading(gpu_clock_hz=hz))
    assert len(found) == count
    assert not count or "768 MHz after the measurement, pinned at 922 MHz" in found[0]


@pytest.mark.parametrize(("celsius", "count"), [(94.0, 0), (94.1, 1), (105.0, 1)])
def test_a_zone_at_its_limit_is_too_hot(celsius: float, count: int, board: Board) -> None:
    found = spoilers(board, CALM, reading(temperatures={"GPU": celsius, "CPU": 200.0}), {"GPU": 97.0})
    assert len(found) == count
    assert not count or "GPU is at {:.1f} C, and from 97.0 C on".format(celsius) in found[0]


def test_a_machine_that_is_no_jetson_has_no_mode_and_no_clocks_to_spoil(tmp_path: Path) -> None:
    board = look(str(tmp_path))
    empty = Sensors(str(tmp_path)).read()
    assert spoilers(board, empty, empty) == []


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("nano", ["clocks are not pinned", "zram"]),
        ("xavier-nx", ["nvpmodel -m 2", "clocks are not pinned", "zram"]),
        ("agx-xavier", []),
        ("orin-nano", ["nvpmodel -m 2", "clocks are not pinned", "Only 1.0 GiB", "zram"]),
        ("thor", []),
    ],
)
def test_recorded_boards_are_told_what_spoils_them(kind: str, words: List[str], tmp_path: Path) -> None:
    root = boards.write(tmp_path, kind)
    sensors = Sensors(root)
    found = spoilers(look(root), sensors.read(), sensors.read(), sensors.limits())
    assert len(found) == len(words)
    assert all(word in sentence for word, sentence in zip(words, found))
