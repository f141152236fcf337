"""What spoils a measurement on a board, each as a sentence with what to do about it."""

from types import MappingProxyType
from typing import Dict, Iterator, List, Mapping, Optional

from .board import Board
from .power_modes import PowerMode
from .sensors import Reading

# CUDA, cuBLAS and cuDNN take about this much before a build begins.
_LEAST_AVAILABLE = 3 << 29
# Boards on which a build needs swap.
_SMALL_MEMORY = 9 << 29
# A reading of a pinned clock may be this much off.
_CLOCK_TOLERANCE = 0.02
_NEAR_CELSIUS = 3.0

_ALARMS: Mapping[str, str] = MappingProxyType(
    {"oc1": "under-voltage", "oc2": "average over-current", "oc3": "momentary over-current"}
)


def spoilers(board: Board, before: Reading, after: Reading, limits: Optional[Mapping[str, float]] = None) -> List[str]:
    """What in the board's state makes a result slower than, or not comparable with, another one.

    Args:
        board: as it was when the measurement ran.
        before: of `Sensors.read`, before it.
        after: and after it.
        limits: of `Sensors.limits`.
    """
    found: List[str] = []
    if board.is_jetson:
        found += _mode(board)
        found += _clocks(board, after)
    found += _memory(board)
    found += _throttling(before, after)
    found += _heat(after, limits or {})
    return found


def _mode(board: Board) -> Iterator[str]:
    best = board.max_power_mode
    if board.power_mode is None:
        yield "The power mode is not known and may not be the highest. `sudo nvpmodel -q` shows it."
    elif board.is_max_power is None:
        yield "Whether power mode {} is the highest is not known. Compare only with results of the same mode.".format(
            _title(board.power_mode)
        )
    elif not board.is_max_power and best is not None:
        yield (
            "The power mode is {}, not the highest of this board. Run `sudo nvpmodel -m {}` for {} (some boards then "
            "ask for a reboot) and measure again.".format(_title(board.power_mode), best.id, best.name)
        )


def _clocks(board: Board, after: Reading) -> Iterator[str]:
    now, least, most = board.gpu_clock_hz, board.gpu_min_clock_hz, board.gpu_max_clock_hz
    if board.clocks_pinned is None or now is None or least is None or most is None:
        yield "Whether the clocks are pinned is not known. Run as root with --pin-clocks."
    elif not board.clocks_pinned:
        yield (
            "The clocks are not pinned: the GPU is at {} of {} and may fall to {}, so times depend on what ran before. "
            "Run as root with --pin-clocks, or `sudo jetson_clocks` before.".format(_mhz(now), _mhz(most), _mhz(least))
        )
    elif after.gpu_clock_hz is not None and after.gpu_clock_hz < most * (1.0 - _CLOCK_TOLERANCE):
        yield (
            "The GPU was slowed down: {} after the measurement, pinned at {}. Give it a stronger supply and more "
            "cooling, and measure again.".format(_mhz(after.gpu_clock_hz), _mhz(most))
        )


def _memory(board: Board) -> Iterator[str]:
    available, kinds = board.available_bytes, (board.swap_kind or "").split("+")
    if available is not None and available < _LEAST_AVAILABLE:
        yield (
            "Only {} of memory are available, and a build takes 1.5 GiB before it begins: it may be killed. Run "
            "without a desktop (`sudo systemctl set-default multi-user.target`, then reboot) and end other "
            "programs.".format(_gib(available))
        )
    if "zram" in kinds:
        yield (
            "Swap is on zram, which takes CPU and the memory it is to save. Run `sudo systemctl disable nvzramconfig`, "
            "add a swap file, and reboot."
        )
    if board.swap_bytes == 0 and board.memory_bytes is not None and board.memory_bytes < _SMALL_MEMORY:
        yield (
            "There is no swap beside {} of memory: a build may be killed. Add a swap file of 4 to 8 GB (`sudo "
            "fallocate -l 4G /swapfile`, `sudo chmod 600 /swapfile`, `sudo mkswap /swapfile`, `sudo swapon "
            "/swapfile`).".format(_gib(board.memory_bytes))
        )


def _throttling(before: Reading, after: Reading) -> Iterator[str]:
    alarms = _rises(before.throttle_counters, after.throttle_counters)
    for name, rise in alarms.items():
        if name in _ALARMS:
            yield (
                "The board slowed itself down {} times for {} ({}) while this ran. Use a supply that holds its voltage "
                "under load (on a Nano the barrel jack, not micro USB), or a lower power mode.".format(
                    rise, _ALARMS[name], name
                )
            )
        else:
            yield "{} rose by {} while this ran: the board slowed itself down. {}".format(name, rise, _COOLING)
    for name, state in after.cooling_states.items():
        if "fan" not in name.lower() and name not in alarms and state > 0:
            since = "while this ran" if state > before.cooling_states.get(name, 0) else "already before this ran"
            yield "The kernel slowed the board down ({} at step {}) {}. {}".format(name, state, since, _COOLING)


_COOLING = "Give it more cooling, let it cool down, and measure again."


def _heat(after: Reading, limits: Mapping[str, float]) -> Iterator[str]:
    for zone, celsius in after.temperatures.items():
        limit = limits.get(zone)
        if limit is not None and celsius > limit - _NEAR_CELSIUS:
            yield "{} is at {:.1f} C, and from {:.1f} C on the board slows itself down. {}".format(
                zone, celsius, limit, _COOLING
            )


def _rises(before: Mapping[str, int], after: Mapping[str, int]) -> Dict[str, int]:
    """By how much each counter that was there before rose."""
    both = {name: after[name] - before[name] for name in after if name in before}
    return {name: rise for name, rise in both.items() if rise > 0}


def _title(mode: PowerMode) -> str:
    return str(mode.id) if mode.name is None else "{} ({})".format(mode.id, mode.name)


def _mhz(hz: int) -> str:
    return "{:.0f} MHz".format(hz / 1e6)


def _gib(nbytes: int) -> str:
    return "{:.1f} GiB".format(nbytes / float(1 << 30))
