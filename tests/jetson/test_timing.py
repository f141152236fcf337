"""Timing: statistics by hand, warm-up and repetition on a clock of its own, engines on the stub of CUDA."""

import itertools
import json
import math
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple

import numpy as np
import pytest

from deploy_attn.jetson import timing
from deploy_attn.jetson.cudart import VARIABLE, CudaError, Cudart
from deploy_attn.jetson.errors import BadRequest, DeployAttnError
from deploy_attn.jetson.tensorrt_engine import TensorRtEngine
from deploy_attn.jetson.timing import Options, Samples, WarmUp, notes, options_for, summary, time_calls, time_engine
from tests.jetson import stub
from tests.jetson.fake_tensorrt.builder import engine_bytes
from tests.jetson.fake_tensorrt.versions import module

SETTLED = WarmUp(0.2, 100, True, 0.001)
VERSIONS = ("8.0", "8.2", "8.4", "8.5", "8.6", "10", "11")
ONES = np.ones((2, 3), np.float32)
SHORT = Options(duration=0.05, warm_up=0.02, longest_warm_up=0.2)


def ticks() -> Callable[[], float]:
    """A clock on which a millisecond is over whenever it is read: a busy machine changes no test."""
    milliseconds = itertools.count()
    return lambda: next(milliseconds) / 1e3


def samples(values: List[float], loop: int = 1, seconds: float = 1.0, warm_up: WarmUp = SETTLED) -> Samples:
    return Samples(values, loop, seconds, warm_up)


def percentile_by_hand(values: List[float], part: float) -> float:
    ordered = sorted(values)
    rank = (len(ordered) - 1) * part
    low, high = math.floor(rank), math.ceil(rank)
    return ordered[low] + (ordered[high] - ordered[low]) * (rank - low)


@pytest.mark.parametrize("count", [1, 2, 3, 10, 11, 99, 100, 1001])
def test_percentiles_are_interpolated_between_the_nearest_samples(count: int) -> None:
    values = [float((7919 * place) % 1009) for place in range(count)]
    found = summary(samples(values))
    for key, part in (("p10_ms", 0.1), ("median_ms", 0.5), ("p90_ms", 0.9), ("p99_ms", 0.99)):
        assert found[key] == pytest.approx(percentile_by_hand(values, part), rel=1e-12), key
    assert (found["min_ms"], found["max_ms"]) == (min(values), max(values))
    assert found["mean_ms"] == pytest.approx(sum(values) / count)
    assert found["n"] == count


def test_a_summary_of_known_samples() -> None:
    found = summary(samples([5.0, 1.0, 2.0, 4.0, 3.0], loop=4, seconds=0.5))
    expected = {"n": 5, "loop": 4, "inferences": 20, "median_ms": 3.0, "p10_ms": 1.4, "p90_ms": 4.6, "p99_ms": 4.96}
    expected.update({"min_ms": 1.0, "max_ms": 5.0, "mean_ms": 3.0, "per_second": 40.0, "wall_seconds": 0.5})
    warm_up = found.pop("warm_up")
    assert warm_up == {"seconds": 0.2, "inferences": 100, "settled": True, "change": 0.001}
    assert found == {key: pytest.approx(value) for key, value in expected.items()}


def test_a_summary_is_json() -> None:
    text = json.dumps(summary(samples([np.float32(1), 2.0])), allow_nan=False)
    assert json.loads(text)["median_ms"] == 1.5


def test_throughput_of_no_time_is_not_known() -> None:
    assert summary(samples([0.0], seconds=0.0))["per_second"] is None


@pytest.mark.parametrize("values", [[], [1.0, math.nan], [math.inf], [-0.1, 1.0]])
def test_what_is_no_time_has_no_summary(values: List[float]) -> None:
    with pytest.raises(ValueError, match="samples"):
        summary(samples(values))


@pytest.mark.parametrize(
    ("duration", "quick", "expected"),
    [(None, False, (10.0, 10.0)), (None, True, (1.0, 2.0)), (3.5, False, (3.5, 10.0)), (3.5, True, (3.5, 2.0))],
)
def test_duration_and_quick_choose_the_seconds(duration: Optional[float], quick: bool, expected: Any) -> None:
    found = options_for(duration, quick)
    assert (found.duration, found.longest_warm_up) == expected
    assert (found.warm_up, found.agreement) == (0.2, 0.02)


@pytest.mark.parametrize("duration", [0.0, -1.0, math.nan, math.inf, 3601.0])
def test_a_duration_that_is_none_is_refused(duration: float) -> None:
    with pytest.raises(BadRequest, match="above 0 and up to 3600"):
        options_for(duration)


class Work:
    """Calls that take the seconds of a list, the last of them for ever, on a clock that they alone move."""

    def __init__(self, seconds: Callable[[int], float]) -> None:
        self.now, self.calls = 100.0, 0
        self._seconds = seconds

    def clock(self) -> float:
        return self.now

    def call(self) -> None:
        self.now += self._seconds(self.calls)
        self.calls += 1

    def timed(self, options: Options) -> Samples:
        return time_calls(self.call, options, self.clock)


def test_calls_are_timed_one_by_one() -> None:
    found = Work(lambda place: 0.003 if place % 2 else 0.005).timed(Options(duration=1.0))
    assert found.loop == 1
    assert set(np.round(found.milliseconds, 6)) == {3.0, 5.0}
    assert found.wall_seconds == pytest.approx(sum(found.milliseconds) / 1e3)
    assert 1.0 <= found.wall_seconds < 1.02
    assert found.warm_up.settled is True
    assert notes(found) == []


def test_the_warm_up_lasts_200_ms_even_where_all_agrees() -> None:
    work = Work(lambda place: 0.001)
    found = work.timed(Options(duration=0.05))
    assert 0.2 <= found.warm_up.seconds < 0.21
    assert found.warm_up.change == pytest.approx(0.0, abs=1e-9)
    assert found.warm_up.inferences == work.calls - len(found.milliseconds)


def test_the_warm_up_lasts_until_two_windows_agree() -> None:
    # Clocks that come up: 10 ms, then 1 % less with each call, 4 ms from the 92nd on.
    found = Work(lambda place: max(0.010 * 0.99**place, 0.004)).timed(Options(duration=0.1))
    assert found.warm_up.settled is True
    assert found.warm_up.seconds > 0.6
    assert found.warm_up.change is not None
    assert found.warm_up.change < 0.02
    assert set(np.round(found.milliseconds, 6)) == {4.0}


def test_a_warm_up_that_never_settles_ends_and_says_so() -> None:
    found = Work(lambda place: 0.001 * 1.003**place).timed(Options(duration=0.1, longest_warm_up=1.5))
    assert found.warm_up.settled is False
    assert 1.5 <= found.warm_up.seconds < 2.5
    said = [note for note in notes(found) if "not settled" in note]
    assert len(said) == 1
    assert "differ by" in said[0]


def test_a_warm_up_of_one_slow_call_has_nothing_to_compare() -> None:
    found = Work(lambda place: 7.0).timed(Options(duration=1.0, longest_warm_up=5.0))
    assert found.warm_up.change is None
    assert any("no two windows" in note for note in notes(found))


def test_an_agreement_of_windows_counts_only_below_two_percent() -> None:
    # Windows of about 100 ms whose medians differ by 3 %, up and down.
    work = Work(lambda place: 0)
    work._seconds = lambda place: 0.01 if int((work.now - 100) / 0.1001) % 2 else 0.0103
    found = work.timed(Options(duration=0.1, longest_warm_up=3.0))
    assert found.warm_up.settled is False
    assert found.warm_up.seconds >= 3.0


@pytest.mark.parametrize(
    ("milliseconds", "loop"), [(0.19, 11), (0.1, 20), (0.05, 40), (0.003, 667), (0.001, 1000), (0.0, 1000)]
)
def test_short_inferences_are_timed_in_a_row_and_shown_as_such(milliseconds: float, loop: int) -> None:
    # Now and then the clock jumps, so that a call that takes no time ends too.
    work = Work(lambda place: milliseconds / 1e3 if milliseconds else (0.011 if place % 5000 == 4999 else 0.0))
    found = work.timed(Options(duration=0.05, longest_warm_up=1.0))
    assert found.loop == loop
    assert summary(found)["loop"] == loop
    assert summary(found)["inferences"] == loop * len(found.milliseconds)
    if milliseconds:
        assert found.milliseconds[0] == pytest.approx(milliseconds, rel=1e-6)
        assert found.warm_up.seconds >= 0.3, "a window of single calls was compared with one of calls in a row"
    assert any("the mean of {} in a row".format(loop) in note for note in notes(found))


def test_an_inference_of_0_2_ms_is_timed_alone() -> None:
    found = Work(lambda place: 0.000201).timed(Options(duration=0.05))
    assert found.loop == 1
    assert notes(found) == []


def test_slow_calls_are_given_time_for_enough_samples() -> None:
    found = Work(lambda place: 0.1).timed(Options(duration=1.0))
    assert len(found.milliseconds) == 20
    assert notes(found) == []


def test_very_slow_calls_end_after_four_durations_and_say_that_they_are_few() -> None:
    found = Work(lambda place: 1.0).timed(Options(duration=1.0))
    assert len(found.milliseconds) <= 6
    assert any("only {} samples".format(len(found.milliseconds)) in note for note in notes(found))


def test_samples_do_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "_MOST_SAMPLES", 500)
    found = Work(lambda place: 0.001).timed(Options(duration=10.0))
    assert len(found.milliseconds) == 500


def test_what_a_call_raises_is_raised() -> None:
    def call() -> None:
        raise DeployAttnError("the engine failed")

    with pytest.raises(DeployAttnError, match="the engine failed"):
        time_calls(call, SHORT)


class GraphCudart(Cudart):
    """The stub of CUDA with a graph that runs the engine again, as one that captured it would, and times of its own."""

    def __init__(self, milliseconds: Callable[[int], float] = lambda launches: 1.5 * launches) -> None:
        super().__init__()
        self.milliseconds = milliseconds
        self.launches = 0
        self.log: List[str] = []
        self.work: Optional[Callable[[], None]] = None
        self.graphs = 0

    def stream(self) -> Any:
        stream: Any = super().stream()
        end_capture = stream.end_capture

        def ended() -> Any:
            graph: Any = end_capture()
            launch = graph.launch

            def launched(on: Any) -> None:
                launch(on)
                self.graphs += 1
                if self.work is not None:
                    self.work()

            graph.launch = launched
            return graph

        stream.end_capture = ended
        return stream

    def event(self) -> Any:
        event: Any = super().event()
        record = event.record

        def recorded(stream: Any) -> None:
            record(stream)
            event.at = self.launches + self.graphs
            self.log.append("record")

        def synchronized() -> None:
            self.log.append("wait")

        event.record, event.synchronize = recorded, synchronized
        event.milliseconds_since = lambda earlier: self.milliseconds(event.at - earlier.at)
        return event


class Device:
    """The stub of CUDA, and engines on fakes of TensorRT."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.path, self._log = stub.compiled(str(folder)), folder / "log"
        self._monkeypatch = monkeypatch
        monkeypatch.setenv(VARIABLE, self.path)
        monkeypatch.setenv(stub.LOG, str(self._log))

    def fail(self, calls: str) -> None:
        self._monkeypatch.setenv(stub.FAIL, calls)

    def count(self, name: str) -> int:
        return [call[0] for call in stub.calls(str(self._log))].count(name)

    @property
    def live(self) -> int:
        return stub.live(self.path)


@pytest.fixture
def device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Device:
    return Device(tmp_path, monkeypatch)


def engine_of(version: str, cudart: Cudart, **more: Any) -> TensorRtEngine:
    """An engine that doubles its input."""
    trt = module(version)
    tensors = [{"name": "x", "mode": "INPUT"}, {"name": "y", "mode": "OUTPUT"}]
    io = [dict(tensor, dtype="FLOAT", shape=[2, 3]) for tensor in tensors]
    header: Dict[str, Any] = {"version": trt.__version__, "precision": "fp32", "profiles": [], "layers": [], "io": io}
    header.update({"multiples": {"y": ["x", 2]}}, **more)
    return TensorRtEngine(engine_bytes(header, b""), trt, cudart)


def counted(engine: TensorRtEngine, cudart: GraphCudart) -> Iterator[None]:
    enqueue = engine.enqueue

    def enqueued() -> None:
        cudart.launches += 1
        enqueue()

    engine.enqueue = enqueued  # type: ignore[method-assign]
    cudart.work = enqueue
    yield


@pytest.mark.parametrize("version", VERSIONS)
def test_an_engine_is_timed_as_a_graph_on_its_own_stream(device: Device, version: str) -> None:
    cudart = GraphCudart()
    with engine_of(version, cudart) as engine:
        next(counted(engine, cudart))
        found = time_engine(engine, {"x": ONES}, cudart, SHORT, ticks())
        assert found.cuda_graph
        assert found.cuda_graph_error == ""
        assert set(found.compute.milliseconds) == {1.5}
        assert cudart.graphs >= len(found.compute.milliseconds)
        assert set(np.round(found.end_to_end.milliseconds, 9)) == {1.0}
        assert min(len(found.compute.milliseconds), len(found.end_to_end.milliseconds)) >= 20
        assert device.count("cudaStreamCreate") == 1
        assert device.count("cudaStreamBeginCapture") == 1
    assert device.live == 0
    told = found.as_dict()
    assert json.loads(json.dumps(told, allow_nan=False)) == told
    assert told["compute"]["median_ms"] == 1.5


@pytest.mark.parametrize("version", VERSIONS)
def test_a_stopwatch_gives_the_seconds_between_two_events(device: Device, version: str) -> None:
    cudart = GraphCudart()
    with ExitStack() as held:
        engine = held.enter_context(engine_of(version, cudart))
        next(counted(engine, cudart))
        once = timing.stopwatch(engine, {"x": ONES}, cudart, held)
        recorded = cudart.log.count("record")
        assert [once(), once()] == [0.0015, 0.0015]
        assert cudart.log.count("record") == recorded + 4
    assert device.live == 0


def test_a_warm_up_by_itself_says_what_it_took() -> None:
    calls: List[int] = []
    found = timing.warm_up(lambda: calls.append(0), SHORT, ticks())
    assert found.settled
    assert found.inferences == len(calls)


def test_each_sample_is_queued_before_the_last_one_is_waited_for(device: Device) -> None:
    cudart = GraphCudart()
    with engine_of("8.2", cudart) as engine:
        next(counted(engine, cudart))
        time_engine(engine, {"x": ONES}, cudart, SHORT, ticks())
    under_way = list(itertools.accumulate(0.5 if step == "record" else -1 for step in cudart.log))
    assert max(under_way) == 2
    assert under_way.count(2) > len(under_way) / 4


def test_short_engines_run_in_a_row_between_two_events(device: Device) -> None:
    cudart = GraphCudart(lambda launches: 0.04 * launches)
    with engine_of("8.2", cudart) as engine:
        next(counted(engine, cudart))
        found = time_engine(engine, {"x": ONES}, cudart, SHORT, ticks())
    assert found.compute.loop == 50
    assert set(np.round(found.compute.milliseconds, 9)) == {0.04}
    assert any(note.startswith("compute: ") and "mean of 50 in a row" in note for note in found.notes())


def test_the_stubs_own_events_and_graph_are_used(device: Device) -> None:
    """Its graph computes nothing, which is found, and the engine is timed without it."""
    cudart = Cudart()
    with engine_of("8.2", cudart) as engine:
        found = time_engine(engine, {"x": ONES}, cudart, SHORT, ticks())
        assert not found.cuda_graph
        assert "other outputs than the engine" in found.cuda_graph_error
        assert set(found.compute.milliseconds) == {1.5}
    assert device.count("cudaEventElapsedTime") >= len(found.compute.milliseconds)
    assert device.count("cudaGraphLaunch") == 1
    assert device.live == 0


@pytest.mark.parametrize(
    ("failure", "said"),
    [
        ("cudaStreamBeginCapture=900", "cudaStreamBeginCapture"),
        ("cudaStreamEndCapture=901", "cudaStreamEndCapture"),
        ("cudaGraphInstantiateWithFlags=2", "cudaGraphInstantiate"),
        ("cudaGraphLaunch=700", "illegal memory access"),
    ],
)
def test_an_engine_that_cannot_be_captured_is_timed_without_and_says_why(
    device: Device, failure: str, said: str
) -> None:
    device.fail(failure)
    cudart = GraphCudart()
    with engine_of("8.2", cudart) as engine:
        next(counted(engine, cudart))
        found = time_engine(engine, {"x": ONES}, cudart, SHORT, ticks())
    assert not found.cuda_graph
    assert said in found.cuda_graph_error
    assert found.as_dict()["cuda_graph_error"] == found.cuda_graph_error
    assert any(note.startswith("Timed without a CUDA graph: cuda") for note in found.notes())
    assert set(found.compute.milliseconds) == {1.5}
    assert device.live == 0


def test_a_stream_leaves_its_capture_when_tensorrt_refuses_to_be_captured(device: Device) -> None:
    cudart = GraphCudart()
    with engine_of("8.2", cudart) as engine:
        enqueue, capturing = engine.enqueue, engine.stream.begin_capture
        state = {"capturing": False}

        def begin() -> None:
            state["capturing"] = True
            capturing()

        def enqueued() -> None:
            if state["capturing"]:
                state["capturing"] = False
                raise DeployAttnError("TensorRT could not run the engine: operation not permitted.")
            cudart.launches += 1
            enqueue()

        engine.stream.begin_capture, engine.enqueue = begin, enqueued  # type: ignore[method-assign]
        found = time_engine(engine, {"x": ONES}, cudart, SHORT, ticks())
    assert "operation not permitted" in found.cuda_graph_error
    assert device.count("cudaStreamEndCapture") == 1
    assert device.live == 0


def test_a_fault_that_outlives_the_capture_is_an_error(device: Device) -> None:
    device.fail("cudaGraphLaunch=700 cudaMemcpyAsync=700@9")
    cudart = GraphCudart()
    with pytest.raises(CudaError, match="illegal memory access"), engine_of("8.2", cudart) as engine:
        next(counted(engine, cudart))
        time_engine(engine, {"x": ONES}, cudart, SHORT, ticks())
    assert device.live == 0


def test_what_was_asked_is_bound_again_where_the_proof_of_a_graph_fails(device: Device) -> None:
    cudart = GraphCudart()
    bound: List[float] = []
    timed: List[float] = []
    with engine_of("8.2", cudart) as engine:
        bind, enqueue = engine.bind, engine.enqueue

        def bind_noted(feeds: Any) -> None:
            bound.append(float(feeds["x"].sum()))
            bind(feeds)

        def enqueued() -> None:
            timed.append(bound[-1])
            if bound[-1] == 0:
                raise DeployAttnError("TensorRT could not run the engine on zeros.")
            cudart.launches += 1
            enqueue()

        engine.bind, engine.enqueue = bind_noted, enqueued  # type: ignore[method-assign]
        found = time_engine(engine, {"x": ONES}, cudart, SHORT, ticks())
    assert "on zeros" in found.cuda_graph_error
    assert timed.count(0.0) == 1
    assert set(timed[timed.index(0.0) + 1 :]) == {6.0}


def test_a_failure_in_the_middle_of_timing_gives_everything_back(device: Device) -> None:
    device.fail("cudaGraphLaunch=719@6")
    cudart = GraphCudart()
    with engine_of("8.2", cudart) as engine:
        before = device.live
        next(counted(engine, cudart))
        with pytest.raises(CudaError, match="cudaGraphLaunch"):
            time_engine(engine, {"x": ONES}, cudart, SHORT, ticks())
        assert device.live == before + 2  # the engine's input and output
    assert device.live == 0


def test_outputs_that_are_nan_do_not_rule_out_a_graph(device: Device) -> None:
    cudart = GraphCudart()
    feed = np.array([[np.nan, 1, np.inf], [0, 1, 2]], np.float32)
    with engine_of("8.2", cudart) as engine:
        next(counted(engine, cudart))
        assert time_engine(engine, {"x": feed}, cudart, SHORT, ticks()).cuda_graph


def test_feeds_that_are_not_the_engines_are_refused(device: Device) -> None:
    cudart = Cudart()
    with engine_of("8.2", cudart) as engine, pytest.raises(BadRequest, match="takes inputs"):
        time_engine(engine, {"z": ONES}, cudart, SHORT, ticks())


def test_a_timing_tells_both_kinds_of_time_apart() -> None:
    compute, end_to_end = samples([1.0] * 30, loop=3), samples([4.0] * 5)
    told = timing.Timing(compute, end_to_end, True, "", "by hand").as_dict()
    assert (told["compute"]["median_ms"], told["end_to_end"]["median_ms"]) == (1.0, 4.0)
    assert told["cuda_graph_error"] is None
    parts: List[Tuple[str, str, str]] = [note.partition(": ") for note in told["notes"]]
    assert [part[0] for part in parts] == ["compute", "end to end"]
