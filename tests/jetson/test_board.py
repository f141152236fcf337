"""What a board is, from trees that were written as boards show themselves, and from damaged ones."""

import json
import os
from pathlib import Path
from typing import Any, Dict, List, Optional

import pytest

from deploy_attn.jetson import power_modes
from deploy_attn.jetson.board import Board, look
from deploy_attn.jetson.power_modes import PowerMode
from deploy_attn.jetson.programs import Finished, ProgramFailed
from deploy_attn.jetson.system_files import SystemFiles, Unreadable
from tests.jetson import boards

KIB = 1024
GARBAGE = ["", "garbage", "\ufffd\x01\x02 \x00", "-7", "1e400", "9" * 40, "0x10\n", "nan", "1_000", "٣"]
# Any text is a name, so nothing can be said against these.
FREE_TEXT = ("/proc/device-tree/model", "/proc/sys/kernel/osrelease")

EXPECTED: Dict[str, Dict[str, Any]] = {
    "nano": {
        "l4t": "32.7.1",
        "jetpack": "4.6.1",
        "module": "NVIDIA Jetson Nano Developer Kit",
        "soc": "tegra210",
        "compute_capability": "5.3",
        "tensorrt": "8.2.1",
        "cuda": "10.2.300",
        "memory_bytes": 4059480 * KIB,
        "available_bytes": 3220140 * KIB,
        "swap_bytes": 4 * 507480 * KIB,
        "swap_used_bytes": 6 * KIB * KIB,
        "swap_kind": "zram",
        "power_mode": PowerMode(0, "MAXN"),
        "max_power_mode": PowerMode(0, "MAXN"),
        "is_max_power": True,
        "gpu_clock_hz": 76800000,
        "gpu_min_clock_hz": 76800000,
        "gpu_max_clock_hz": 921600000,
        "clocks_pinned": False,
        "cpu_count": 4,
        "kernel": "4.9.253-tegra",
    },
    "tx2": {
        "l4t": "32.7.2",
        "jetpack": "4.6.2",
        "compute_capability": "6.2",
        "power_mode": PowerMode(3, "MAXP_CORE_ARM"),
        "max_power_mode": PowerMode(0, "MAXN"),
        "is_max_power": False,
        "cpu_count": 4,
    },
    "xavier-nx": {
        "l4t": "35.4.1",
        "jetpack": "5.1.2",
        "compute_capability": "7.2",
        "tensorrt": "8.5.2",
        "cuda": "11.4.19",
        "power_mode": PowerMode(5, "MODE_10W_DESKTOP"),
        "max_power_mode": PowerMode(2, "MODE_15W_6CORE"),  # as fast as 20 W for the GPU, with as many cores
        "is_max_power": False,
        "gpu_max_clock_hz": 510000000,
    },
    "agx-xavier": {
        "l4t": "35.6.4",
        "jetpack": "5.1.6",
        "cuda": "11.4",
        "swap_bytes": 0,
        "swap_kind": "none",
        "is_max_power": True,
        "clocks_pinned": True,
        "cpu_count": 8,
    },
    "orin-nano": {
        "l4t": "36.4.3",
        "jetpack": "6.2",
        "compute_capability": "8.7",
        "tensorrt": "10.3.0",
        "cuda": "12.6.11",
        "swap_kind": "file+zram",
        "power_mode": PowerMode(1, "25W"),
        "max_power_mode": PowerMode(2, "MAXN_SUPER"),
        "is_max_power": False,
        "clocks_pinned": False,
        "cpu_count": 6,
    },
    "agx-orin": {
        "l4t": "35.2.1",
        "jetpack": "5.1",
        "compute_capability": "8.7",
        "power_mode": PowerMode(3, "MODE_50W"),
        "is_max_power": False,
        "cpu_count": 12,
    },
    "thor": {
        "l4t": "38.2.1",
        "jetpack": "7.0",
        "soc": "tegra264",
        "compute_capability": "11.0",
        "tensorrt": "10.13.3",
        "cuda": "13.0.48",
        "power_mode": PowerMode(0, "MAXN"),
        "is_max_power": True,
        "gpu_max_clock_hz": 1575000000,  # of the graphics cluster, not of the video engine beside it
        "clocks_pinned": True,
        "cpu_count": 14,
    },
}


def found(board: Board, names: Any) -> Dict[str, Any]:
    return {name: getattr(board, name) for name in names}


@pytest.mark.parametrize("kind", sorted(boards.KINDS))
def test_a_board_is_what_its_files_say(kind: str, tmp_path: Path) -> None:
    board = look(boards.write(tmp_path, kind))
    assert found(board, EXPECTED[kind]) == EXPECTED[kind]
    assert board.module == boards.KINDS[kind].model
    assert board.unread == ()
    assert board.is_jetson


@pytest.mark.parametrize("kind", sorted(boards.KINDS))
def test_clocks_are_pinned_when_neither_gpu_nor_cpu_may_go_lower(kind: str, tmp_path: Path) -> None:
    root = boards.write(tmp_path, kind)
    boards.pin(root, kind)
    assert look(root).clocks_pinned is True
    boards.put(root, "/sys/devices/system/cpu/cpu0/cpufreq/scaling_min_freq", "100000\n")
    assert look(root).clocks_pinned is False


def test_an_empty_root_is_no_jetson_and_says_what_it_could_not_read(tmp_path: Path) -> None:
    board = look(str(tmp_path))
    assert not board.is_jetson
    known = [name for name in board._fields if getattr(board, name) is not None]
    assert known == ["python", "unread"]
    assert board.unread[0].startswith("This is no Jetson")
    assert all(sentence.endswith(".") for sentence in board.unread)
    assert len(board.unread) == 5  # and memory, swap, CPUs, kernel


def test_this_machine_can_be_looked_at() -> None:
    board = look()
    assert board.cpu_count is None or board.cpu_count >= 1
    assert board.memory_bytes is None or board.memory_bytes > 1 << 20
    json.dumps(board.as_dict())


def test_it_is_written_as_json_in_the_order_of_the_fields(tmp_path: Path) -> None:
    words = json.loads(json.dumps(look(boards.write(tmp_path, "orin-nano")).as_dict()))
    assert list(words) == list(Board._fields)
    assert words["power_mode"] == {"id": 1, "name": "25W"}
    assert words["unread"] == []


def board_files(kind: str) -> List[str]:
    of_sensors = ("/sys/bus", "/sys/class/thermal", "/sys/class/hwmon")
    names = sorted(set(boards._files(boards.KINDS[kind])) - set(FREE_TEXT))
    return [name for name in names if not name.startswith(of_sensors) and "/cpu/cpu1" not in name]


def differs(name: str, value: Any, whole: Any) -> bool:
    """A mode may lose its name and keep its number."""
    if name == "power_mode" and value is not None:
        return bool(value.id != whole.id or value.name not in (None, whole.name))
    return value is not None and bool(value != whole)


@pytest.mark.parametrize("kind", ["nano", "thor"])
def test_no_damage_to_a_file_makes_it_fail_or_say_something_else(kind: str, tmp_path: Path) -> None:
    root = boards.write(tmp_path, kind)
    whole = look(root)
    intact = boards._files(boards.KINDS[kind])
    for path in board_files(kind):
        for text in [None, *GARBAGE]:
            boards.put(root, path, text)
            other = look(root)
            pairs = [(name, getattr(other, name), getattr(whole, name)) for name in whole._fields[:-1]]
            wrong = [pair for pair in pairs if differs(*pair)]
            assert wrong == [], "{} with {!r}".format(path, text)
            lost = [name for name in whole._fields if getattr(other, name) is None]
            assert bool(lost) <= bool(other.unread), "{} with {!r}".format(path, text)
        boards.put(root, path, intact[path])
    assert look(root) == whole


@pytest.mark.parametrize("kind", ["nano", "agx-orin"])
def test_a_folder_or_a_pipe_or_a_loop_where_a_file_should_be_is_a_sentence(kind: str, tmp_path: Path) -> None:
    root = boards.write(tmp_path, kind)
    for path in ("/etc/nv_tegra_release", "/proc/meminfo", "/var/lib/nvpmodel/status"):
        os.unlink(root + path)
    os.mkdir(root + "/etc/nv_tegra_release")
    os.mkfifo(root + "/proc/meminfo")
    os.symlink("status", root + "/var/lib/nvpmodel/status")
    board = look(root)
    assert (board.l4t, board.memory_bytes, board.power_mode) == (None, None, None)
    said = " ".join(board.unread)
    assert "/etc/nv_tegra_release cannot be read (it is no plain file)" in said
    assert "/proc/meminfo cannot be read (it is no plain file)" in said
    assert "The power mode is not known: /var/lib/nvpmodel/status cannot be read" in said


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (PermissionError(13, "Permission denied"), "may only be read by root"),
        (BlockingIOError(11, "Resource temporarily unavailable"), "has no value at the moment"),
        (OSError(5, "Input/output error"), "cannot be read (Input/output error)"),
    ],
)
def test_a_file_that_cannot_be_read_says_why(
    error: OSError, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = boards.write(tmp_path, "nano")
    opened = os.open

    def closed(path: Any, *rest: Any, **more: Any) -> int:
        if str(path).endswith("cur_freq"):
            raise error
        return opened(path, *rest, **more)

    monkeypatch.setattr(os, "open", closed)
    board = look(root)
    assert (board.gpu_clock_hz, board.clocks_pinned) == (None, None)
    assert board.gpu_max_clock_hz is None
    assert len(board.unread) == 1
    assert words in board.unread[0]


def test_a_value_that_stops_while_it_is_read_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    boards.put(tmp_path, "/sys/temp", "41000\n")

    def stops(descriptor: int, count: int) -> bytes:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(os, "read", stops)
    with pytest.raises(Unreadable, match="/sys/temp has no value at the moment"):
        SystemFiles(str(tmp_path)).number("/sys/temp")


@pytest.mark.parametrize(("text", "value"), [("32760 ma\n", 32760), ("-256000", -256000), ("0\0", 0), ("  7 \n", 7)])
def test_a_number_may_have_a_unit_a_sign_and_blanks(text: str, value: int, tmp_path: Path) -> None:
    boards.put(tmp_path, "/sys/value", text)
    assert SystemFiles(str(tmp_path)).number("/sys/value") == value


def test_names_come_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for name in ("zone10", "zone2", "zone1", "other"):
        boards.put(tmp_path, "/sys/" + name, "x")
    files = SystemFiles(str(tmp_path))
    assert files.names("/sys") == ["other", "zone1", "zone2", "zone10"]
    assert files.names("/nowhere") == []
    assert files.names("/sys/other") == []


@pytest.mark.parametrize(
    ("release", "l4t"),
    [
        ("# R32 (release), REVISION: 6.1, GCID: 1, BOARD: t210ref", "32.6.1"),
        ("# R36 (release), REVISION: 5.0, GCID: 1", "36.5.0"),
        ("# R39 (release), REVISION: 2.0", "39.2.0"),
        ("# R32 (release)", None),
        ("R, REVISION: 7.1", None),
    ],
)
def test_the_l4t_release_is_that_of_its_first_line(release: str, l4t: Optional[str], tmp_path: Path) -> None:
    root = boards.write(tmp_path, "nano", **{"/etc/nv_tegra_release": release})
    assert look(root).l4t == l4t


DPKG = """Package: libnvinfer7
Status: deinstall ok config-files
Version: 7.0.0-1

Package: libnvinfer8
Status: install ok installed
Architecture: arm64
Version: 8.2.1-1+cuda10.2

Package: nvidia-jetpack
Status: install ok installed
Version: 4.6.9-b12
"""


def test_what_no_file_tells_is_in_the_list_of_packages(tmp_path: Path) -> None:
    changes = {
        "/var/lib/dpkg/status": DPKG,
        "/etc/nv_tegra_release": "# R32 (release), REVISION: 7.9, GCID: 1",
        "/usr/lib/aarch64-linux-gnu/libnvinfer.so.8.2.1": None,
    }
    board = look(boards.write(tmp_path, "nano", **changes))
    assert (board.l4t, board.jetpack, board.tensorrt) == ("32.7.9", "4.6.9", "8.2.1")


def test_a_release_that_nobody_knows_is_said_to_be_that(tmp_path: Path) -> None:
    root = boards.write(tmp_path, "nano", **{"/etc/nv_tegra_release": "# R99 (release), REVISION: 1.0"})
    board = look(root)
    assert (board.l4t, board.jetpack) == ("99.1.0", None)
    assert "L4T 99.1.0 is not in the table" in board.unread[0]


def test_the_newest_of_several_tensorrts_is_shown(tmp_path: Path) -> None:
    path = "/usr/lib/aarch64-linux-gnu/libnvinfer.so.10.0.1"
    assert look(boards.write(tmp_path, "nano", **{path: "elf"})).tensorrt == "10.0.1"


def test_the_clock_of_the_video_engine_is_not_that_of_the_gpu(tmp_path: Path) -> None:
    folder = "/sys/class/devfreq/gpu-gpc-0/{}_freq"
    board = look(boards.write(tmp_path, "thor", **{folder.format(part): None for part in ("cur", "min", "max")}))
    assert (board.gpu_clock_hz, board.clocks_pinned) == (None, None)
    assert "there is no GPU in /sys/class/devfreq" in board.unread[0]


@pytest.mark.parametrize(
    ("online", "count"), [("0", 1), ("0-3,5", 5), ("0,2,4", 3), ("3-1", None), ("0-99999", None), ("0-", None)]
)
def test_cpus_that_are_online_are_counted(online: str, count: Optional[int], tmp_path: Path) -> None:
    assert look(boards.write(tmp_path, "nano", **{"/sys/devices/system/cpu/online": online})).cpu_count == count


@pytest.mark.parametrize("line", ["/dev/zram0 partition \u00b2 0 5", "/swap file 10", "/swap file -1 0 -2"])
def test_a_line_of_swap_that_is_none_makes_swap_unknown(line: str, tmp_path: Path) -> None:
    board = look(boards.write(tmp_path, "nano", **{"/proc/swaps": "Filename Type Size Used Priority\n" + line}))
    assert (board.swap_bytes, board.swap_kind) == (None, None)
    assert "/proc/swaps has the line" in board.unread[0]


def modes(*named: Any) -> List[power_modes.ModeLimits]:
    return [power_modes.ModeLimits(*mode) for mode in named]


@pytest.mark.parametrize(
    ("known", "highest"),
    [
        ([(0, "15W", 6e8, 6), (1, "7W", 4e8, 4)], [0]),
        ([(0, "Max-N", None, 6), (1, "Max-Q", None, 4)], [0]),
        ([(0, "MAXN", None, 6), (1, "MAXN_SUPER", None, 6)], [1]),
        ([(0, "20W_2CORE", 1e9, 2), (1, "20W_6CORE", 1e9, 6), (2, "10W", 5e8, 4)], [1, 0]),
        ([(0, "MAXQ", 8e8, 4), (1, "CUSTOM", float("inf"), 4)], [1]),
        ([(0, "30W", None, 6), (1, "10W", 4e8, 4)], []),
        ([(4, "ONLY", None, 6)], [4]),
        ([], []),
    ],
)
def test_the_highest_mode_is_the_one_that_limits_the_gpu_least(known: List[Any], highest: List[int]) -> None:
    assert [mode.id for mode in power_modes.highest_modes(modes(*known))] == highest


def test_an_nvpmodel_conf_is_read_section_by_section() -> None:
    text = (
        "# < POWER_MODEL ID=9 NAME=COMMENT >\n<PARAM TYPE=CLOCK NAME=GPU>\nMAX_FREQ /sys/max\n"
        "<POWER_MODEL ID=7 NAME=A>\nCPU_ONLINE CORE_0 1\nCPU_ONLINE CORE_1 0\nGPU MAX_FREQ 2147483647\nGPU MIN_FREQ 5\n"
        "< POWER_MODEL NAME=NONUMBER >\nGPU MAX_FREQ 4\n"
        "  < POWER_MODEL  NAME=B ID=8 >\nGPU_POWER MAX_FREQ 3\nGPU MAX_FREQ x\n"
        "< POWER_MODEL ID=9 NAME=C >\nGPU MAX_FREQ -1\n< POWER_MODEL ID=10 NAME=D >\nGPU MAX_FREQ 640000000\n"
        "< PM_CONFIG DEFAULT=7 >\nGPU MAX_FREQ 6\n"
    )
    assert power_modes.parse_modes(text) == modes(
        (7, "A", float("inf"), 1), (8, "B", None, 0), (9, "C", float("inf"), 0), (10, "D", 6.4e8, 0)
    )


class Nvpmodel:
    """Stands for the program, on a root that is the running system."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, answer: Any) -> None:
        self.commands: List[List[str]] = []
        self._answer = answer
        monkeypatch.setattr(SystemFiles, "is_this_system", True)
        monkeypatch.setattr(power_modes, "find_program", lambda name: "/usr/sbin/" + name)
        monkeypatch.setattr(power_modes, "run_program", self._run)

    def _run(self, command: List[str], seconds: float) -> Finished:
        self.commands.append(command)
        if isinstance(self._answer, Exception):
            raise self._answer
        return Finished(*self._answer)


@pytest.mark.parametrize(
    ("answer", "mode", "words"),
    [
        ((0, "NVPM WARN: fan mode is not set!\nNV Power Mode: 5W\n1\n"), PowerMode(1, "5W"), ""),
        ((0, "NV Fan Mode:quiet\nNV Power Mode: MODE_15W\n2\n"), PowerMode(2, "MODE_15W"), ""),
        ((1, "NVPM ERROR: not root\n"), None, "`nvpmodel -q` said 'NVPM ERROR: not root'"),
        ((0, ""), None, "`nvpmodel -q` said 'nothing'"),
        (ProgramFailed("nvpmodel did not end within 5 s"), None, "and nvpmodel did not end within 5 s"),
    ],
)
def test_nvpmodel_is_asked_where_its_file_does_not_tell(
    answer: Any, mode: Optional[PowerMode], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = Nvpmodel(monkeypatch, answer)
    root = boards.write(tmp_path, "nano")
    assert look(root).power_mode == PowerMode(0, "MAXN")
    assert program.commands == []
    boards.put(root, "/var/lib/nvpmodel/status", None)
    board = look(root)
    assert program.commands == [["/usr/sbin/nvpmodel", "-q"]]
    assert board.power_mode == mode
    assert words in " ".join(board.unread)


def test_a_recorded_tree_never_asks_the_programs_of_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def asked(*arguments: Any) -> None:
        raise AssertionError("a program was looked for")

    monkeypatch.setattr(power_modes, "find_program", asked)
    root = boards.write(tmp_path, "nano", **{"/var/lib/nvpmodel/status": None})
    assert look(root).power_mode is None


def test_a_mode_without_a_name_keeps_its_number(tmp_path: Path) -> None:
    board = look(boards.write(tmp_path, "nano", **{"/var/lib/nvpmodel/status": "pmode:0011\n"}))
    assert board.power_mode == PowerMode(11, None)
    assert board.is_max_power is False


def test_any_mode_that_lets_the_gpu_run_as_fast_is_a_highest_one(tmp_path: Path) -> None:
    board = look(boards.write(tmp_path, "xavier-nx", **{"/var/lib/nvpmodel/status": "pmode:0000"}))
    assert board.is_max_power is True
    assert (board.power_mode, board.max_power_mode) == ((0, "MODE_15W_2CORE"), (2, "MODE_15W_6CORE"))
