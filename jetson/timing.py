"""Timing a graph: warm-up, repetition, and what the samples say.

The protocol, for a GPU and for a CPU alike: warm up for at least 0.2 s and
until two windows of time agree within 2 %, then take samples until the asked
time is over. A sample is one inference, or for a graph under 0.2 ms the mean of
several in a row, because neither the events' resolution nor the launch of a
single inference is small against it; the number in a row is part of the result.

On a GPU a sample lies between two events on the engine's own stream, and the
next one is queued before the last one is waited for: the GPU never idles
between them, so the time is the GPU's and not the launching CPU's.
"""

import math
import time
from array import array
from collections import deque
from contextlib import ExitStack, suppress
from typing import Any, Callable, Deque, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from .errors import BadRequest, DeployAttnError

Feeds = Mapping[str, np.ndarray]
Clock = Callable[[], float]

DURATION, QUICK_DURATION = 10.0, 1.0
_QUICK_WARM_UP = 2.0
_LONGEST = 3600.0

_SHORT_MS = 0.2  # below it, one inference alone is no sample
_SAMPLE_MS = 2.0  # what a sample of short inferences lasts
_MOST_IN_A_ROW = 1000  # a stream takes about 1024 launches before a further one waits
_FEWEST_IN_WINDOW = 3
_FEWEST_SAMPLES = 20
_PATIENCE = 4.0  # durations to wait for the fewest samples
_MOST_SAMPLES = 1 << 20  # 8 MiB of them
_RUNS_BEFORE_CAPTURE = 2  # TensorRT 8 allocates and loads plugins in its first ones
_GRAPH_TOLERANCE = 1e-3


class Options(NamedTuple):
    """How long to measure, in seconds; `agreement` is the change between windows at which the warm-up ends."""

    duration: float = DURATION
    warm_up: float = 0.2
    longest_warm_up: float = 10.0
    agreement: float = 0.02


_DEFAULTS = Options()


class WarmUp(NamedTuple):
    """What the warm-up took. `settled` is None where it was not judged; `change` is between its last two windows."""

    seconds: float
    inferences: Optional[int]
    settled: Optional[bool]
    change: Optional[float]


class Samples(NamedTuple):
    """Measured times.

    Attributes:
        milliseconds: of one inference each; the mean over `loop` of them where that is more than 1.
        loop: inferences in a row that one sample covers.
        wall_seconds: from the first sample's start to the last one's end, by the wall clock.
        warm_up: what came before them.
    """

    milliseconds: Sequence[float]
    loop: int
    wall_seconds: float
    warm_up: WarmUp


class Timing(NamedTuple):
    """One graph's times.

    Attributes:
        compute: of the graph alone, inputs and outputs on the device.
        end_to_end: inputs from the host and outputs to it, by the wall clock.
        cuda_graph: whether `compute` launched a captured graph.
        cuda_graph_error: why not, where it was tried.
        how: which tool measured, and by which clocks.
    """

    compute: Samples
    end_to_end: Samples
    cuda_graph: bool
    cuda_graph_error: str
    how: str

    def as_dict(self) -> Dict[str, Any]:
        """JSON values; a verdict's `timing`."""
        return {
            "how": self.how,
            "compute": summary(self.compute),
            "end_to_end": summary(self.end_to_end),
            "cuda_graph": self.cuda_graph,
            "cuda_graph_error": self.cuda_graph_error or None,
            "notes": self.notes(),
        }

    def notes(self) -> List[str]:
        """What a reader of the numbers must know, a sentence each."""
        found = ["{}: {}".format(name, note) for name, one in self._parts() for note in notes(one)]
        if self.cuda_graph_error:
            found.append("Timed without a CUDA graph: {}.".format(self.cuda_graph_error.rstrip(".")))
        return found

    def _parts(self) -> Tuple[Tuple[str, Samples], ...]:
        return (("compute", self.compute), ("end to end", self.end_to_end))


def options_for(duration: Optional[float] = None, quick: bool = False) -> Options:
    """The options of `--duration S` and `--quick`; a duration that is given holds also with `--quick`.

    Raises:
        BadRequest: the duration is no positive number of seconds up to an hour.
    """
    if duration is not None and not 0 < duration <= _LONGEST:  # NaN is neither
        raise BadRequest(
            "A duration of {!r} seconds was asked for; it is a number above 0 and up to {:g}.".format(
                duration, _LONGEST
            )
        )
    asked = duration if duration is not None else (QUICK_DURATION if quick else DURATION)
    longest = _QUICK_WARM_UP if quick else _DEFAULTS.longest_warm_up
    return Options(duration=asked, longest_warm_up=longest)


def summary(samples: Samples) -> Dict[str, Any]:
    """Statistics of samples, in milliseconds, as JSON values.

    Percentiles are linearly interpolated between the two nearest samples, at
    rank (n - 1) * p: numpy's own choice in every version.

    Raises:
        ValueError: there are no samples, or one is no time.
    """
    values = np.asarray(samples.milliseconds, dtype=np.float64)
    if not values.size or not np.all(np.isfinite(values)) or values.min() < 0:
        raise ValueError("{} samples, not all of them times".format(values.size))
    p10, median, p90, p99 = (float(value) for value in np.percentile(values, [10, 50, 90, 99]))
    inferences = int(values.size) * samples.loop
    return {
        "n": int(values.size),
        "loop": samples.loop,
        "inferences": inferences,
        "median_ms": median,
        "p10_ms": p10,
        "p90_ms": p90,
        "p99_ms": p99,
        "min_ms": float(values.min()),
        "max_ms": float(values.max()),
        "mean_ms": float(values.mean()),
        "per_second": inferences / samples.wall_seconds if samples.wall_seconds > 0 else None,
        "wall_seconds": samples.wall_seconds,
        "warm_up": dict(samples.warm_up._asdict()),
    }


def notes(samples: Samples) -> List[str]:
    """What a reader of these samples must know, a sentence each."""
    found = []
    if samples.loop > 1:
        found.append(
            "An inference is shorter than {:g} ms: each sample is the mean of {} in a row, so the percentiles are of "
            "such means.".format(_SHORT_MS, samples.loop)
        )
    elif float(np.median(samples.milliseconds)) < _SHORT_MS:
        found.append(
            "An inference is shorter than {:g} ms and each was timed alone: the clock's resolution and the launch are "
            "part of it.".format(_SHORT_MS)
        )
    if samples.warm_up.settled is False:
        found.append(
            "The times had not settled after {:.1f} s of warm-up: {}. Pin the clocks, end other programs, let the "
            "board cool.".format(samples.warm_up.seconds, _changed(samples.warm_up.change))
        )
    if len(samples.milliseconds) < _FEWEST_SAMPLES:
        found.append(
            "There are only {} samples: percentiles say little. Give it more --duration.".format(
                len(samples.milliseconds)
            )
        )
    return found


def time_engine(
    engine: Any, feeds: Feeds, cudart: Any, options: Options = _DEFAULTS, clock: Clock = time.perf_counter
) -> Timing:
    """Times a loaded `TensorRtEngine`.

    Compute is a captured CUDA graph where that can be had and proves to do the
    engine's work, else the engine queued again and again. End to end is
    `engine.infer`, which copies and waits, without a graph.

    Raises:
        BadRequest: the feeds are not the engine's.
        DeployAttnError: TensorRT or CUDA failed.
    """
    with ExitStack() as held:
        launch, graph_error = _launcher(engine, feeds, held)
        events = held.enter_context(_Events(cudart, engine.stream, launch))
        compute = _measured(events, options, clock)
    end_to_end = time_calls(lambda: engine.infer(feeds), options, clock)
    how = "compute by CUDA events on the engine's stream, end to end by the wall clock"
    return Timing(compute, end_to_end, not graph_error, graph_error, how)


def time_calls(call: Callable[[], Any], options: Options = _DEFAULTS, clock: Clock = time.perf_counter) -> Samples:
    """Times a call by the wall clock, for engines that are done when they return."""
    return _measured(_Calls(call, clock), options, clock)


def warm_up(call: Callable[[], Any], options: Options = _DEFAULTS, clock: Clock = time.perf_counter) -> WarmUp:
    """Calls until two windows of time agree, as before any timing."""
    return _warmed_up(_Calls(call, clock), options, clock)[1]


def stopwatch(engine: Any, feeds: Feeds, cudart: Any, held: ExitStack) -> Callable[[], float]:
    """What executes a loaded `TensorRtEngine` once and returns the seconds between events on its stream.

    Executions are those of `time_engine`'s compute: of a captured graph where that can be had. The engine's inputs
    and outputs stay on the device, and it may run nothing else meanwhile.

    Args:
        held: ends the events and the graph.
    """
    launch, _ = _launcher(engine, feeds, held)
    events = held.enter_context(_Events(cudart, engine.stream, launch))

    def once() -> float:
        events.queue(1)
        return events.result() / 1e3

    return once


class _Calls:
    """Times calls one after the other. `queue` begins a sample, `result` gives the oldest in milliseconds."""

    def __init__(self, call: Callable[[], Any], clock: Clock) -> None:
        self._call = call
        self._clock = clock
        self._done: Deque[float] = deque()

    def queue(self, loop: int) -> None:
        began = self._clock()
        for _ in range(loop):
            self._call()
        self._done.append((self._clock() - began) * 1e3)

    def result(self) -> float:
        return self._done.popleft()


class _Events:
    """The same on a stream, between events; two samples may be under way. A context manager over the events."""

    def __init__(self, cudart: Any, stream: Any, launch: Callable[[], Any]) -> None:
        self._cudart = cudart
        self._stream = stream
        self._launch = launch
        self._held = ExitStack()
        self._free: Deque[Tuple[Any, Any]] = deque()
        self._queued: Deque[Tuple[Any, Any]] = deque()

    def __enter__(self) -> "_Events":
        with ExitStack() as held:
            for _ in range(2):
                pair = (held.enter_context(self._cudart.event()), held.enter_context(self._cudart.event()))
                self._free.append(pair)
            self._held = held.pop_all()
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        self._held.__exit__(kind, error, trace)

    def queue(self, loop: int) -> None:
        began, ended = self._free.popleft()
        began.record(self._stream)
        for _ in range(loop):
            self._launch()
        ended.record(self._stream)
        self._queued.append((began, ended))

    def result(self) -> float:
        began, ended = self._queued.popleft()
        ended.synchronize()
        self._free.append((began, ended))
        elapsed: float = ended.milliseconds_since(began)
        return elapsed


def _launcher(engine: Any, feeds: Feeds, held: ExitStack) -> Tuple[Callable[[], Any], str]:
    """What queues one execution, and why it is no CUDA graph where it is none; the feeds are bound then."""
    for _ in range(_RUNS_BEFORE_CAPTURE):
        expected = engine.infer(feeds)
    reason = "the captured graph gave other outputs than the engine: not all of its work was captured"
    try:
        graph = held.enter_context(_captured(engine))
        # Outputs of other inputs, so that a graph that computes nothing does not leave the right ones standing.
        engine.infer({name: np.zeros_like(value) for name, value in feeds.items()})
        engine.bind(feeds)
        graph.launch(engine.stream)
        if _same(engine.fetch(), expected):
            return lambda: graph.launch(engine.stream), ""
    except DeployAttnError as error:
        reason = str(error)
    engine.infer(feeds)  # raises where it was not the graph alone that failed
    return engine.enqueue, reason


def _captured(engine: Any) -> Any:
    """One execution as a graph. The stream leaves its capture also where the execution cannot be captured."""
    engine.stream.begin_capture()
    try:
        engine.enqueue()
    except DeployAttnError:
        _leave_capture(engine.stream)
        raise
    return engine.stream.end_capture()


def _leave_capture(stream: Any) -> None:
    with suppress(DeployAttnError):  # the capture was invalid, which is why it is left
        stream.end_capture().close()


def _same(found: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray]) -> bool:
    return all(
        found[name].shape == array.shape
        and np.allclose(
            found[name].astype(np.float64),
            array.astype(np.float64),
            rtol=_GRAPH_TOLERANCE,
            atol=_GRAPH_TOLERANCE * _largest(array),
            equal_nan=True,
        )
        for name, array in expected.items()
    )


def _largest(values: np.ndarray) -> float:
    finite = np.abs(values[np.isfinite(values)].astype(np.float64))
    return float(finite.max()) if finite.size else 0.0


def _measured(watch: Any, options: Options, clock: Clock) -> Samples:
    loop, warm_up = _warmed_up(watch, options, clock)

    def is_enough(elapsed: float, count: int) -> bool:
        over = elapsed >= options.duration and (count >= _FEWEST_SAMPLES or elapsed >= _PATIENCE * options.duration)
        return over or count >= _MOST_SAMPLES

    values, seconds = _repeated(watch, loop, is_enough, clock)
    return Samples(values, loop, seconds, warm_up)


def _warmed_up(watch: Any, options: Options, clock: Clock) -> Tuple[int, WarmUp]:
    """How many inferences make a sample, found while warming up, and what the warm-up took."""
    window = options.warm_up / 2

    def is_enough(elapsed: float, count: int) -> bool:
        return (elapsed >= window and count >= _FEWEST_IN_WINDOW) or elapsed >= options.longest_warm_up

    began = clock()
    loop, inferences = 1, 0
    last: Optional[float] = None
    while True:
        values, _ = _repeated(watch, loop, is_enough, clock)
        inferences += len(values) * loop
        median = float(np.median(values))
        change = None if last is None else abs(median - last) / max(last, 1e-12)
        seconds = clock() - began
        settled = change is not None and change < options.agreement
        if settled or seconds >= options.longest_warm_up:  # two windows are the least that it takes
            return loop, WarmUp(seconds, inferences, settled, change)
        last = median
        if loop == 1 and median < _SHORT_MS:
            loop, last = _in_a_row(median), None  # windows of other samples do not compare


def _in_a_row(milliseconds: float) -> int:
    """How many inferences of a short graph make one sample."""
    if milliseconds * _MOST_IN_A_ROW <= _SAMPLE_MS:
        return _MOST_IN_A_ROW
    return int(math.ceil(_SAMPLE_MS / milliseconds))


def _repeated(
    watch: Any, loop: int, is_enough: Callable[[float, int], bool], clock: Clock
) -> Tuple["array[float]", float]:
    """Samples until there are enough, each queued before the last one is waited for; and the seconds of all."""
    values = array("d")
    began = clock()
    watch.queue(loop)
    while True:
        over = is_enough(clock() - began, len(values) + 1)
        if not over:
            watch.queue(loop)
        values.append(watch.result() / loop)
        if over:
            return values, clock() - began


def _changed(change: Optional[float]) -> str:
    if change is None:
        return "no two windows fit into it"
    return "the last two windows differ by {:.1f} %".format(change * 100)
