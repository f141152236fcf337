"""From a capsule to a verdict: what `python3 run.py` does on the board, step by step.

detect the board, warn of what spoils a result, check every hash, choose
the engine, build, compare, time, measure power, write the verdict.
"""

import contextlib
import sys
import time
from typing import Any, Dict, Sequence, Tuple

from . import board as boards
from . import conditions
from .arguments import Options, parse
from .artifact import Case
from .backend import Backend, Job, Loaded
from .capsule import open_capsule
from .choice import choose, precisions_of
from .errors import BadRequest, DeployAttnError
from .findings import Findings, blank_check, own_errors
from .output_folder import cannot_write, check_output
from .parity import check_manifest, checks_of
from .progress import Log, Stopped, signals_raise, stdout_kept, write_line
from .sensors import Sensors
from .verdict import BoardVerdict, remove_verdict, text_of, write_verdict

_INTERRUPTED = 130


def main(arguments: Sequence[str], folder: str, root: str = "/") -> int:
    """Runs the capsule in a folder; the exit code. `root` stands for `/`, for a tree that was recorded on a board.

    0: every check holds. 1: one does not, or an engine could not be built. 2:
    it could not be run as asked. 130: Ctrl-C.
    """
    as_json = "--json" in arguments
    try:
        options = parse(arguments, folder)
    except BadRequest as error:
        return _refuse(sys.stdout, str(error), error.exit_code, as_json)
    with stdout_kept() as stdout:
        try:
            with signals_raise():
                verdict = run(options, folder, root)
        except DeployAttnError as error:
            return _refuse(stdout, str(error), error.exit_code, as_json)
        except KeyboardInterrupt:
            return _refuse(
                stdout, "Interrupted: nothing was left running, and there is no verdict.", _INTERRUPTED, as_json
            )
        except Stopped as error:
            return _refuse(stdout, "The run was {}: there is no verdict.".format(error), error.exit_code, as_json)
        except MemoryError:
            return _refuse(stdout, "Not enough memory. End other programs, or add swap.", 1, as_json)
        except OSError as error:
            message = cannot_write(error)
            if message is None:
                raise
            return _refuse(stdout, message, BadRequest.exit_code, as_json)
        write_line(stdout, text_of(verdict.as_dict()).rstrip("\n") if as_json else _for_a_person(verdict))
        return 0 if verdict.passed else 1


def run(options: Options, folder: str, root: str = "/") -> BoardVerdict:
    """Does everything, writes verdict.json, and returns what it holds.

    Raises:
        DeployAttnError: it could not be run; there is no verdict then.
    """
    check_output(options.output)
    with Log(options.output) as log:
        remove_verdict(options.output)
        began = time.monotonic()
        capsule = open_capsule(folder)
        check_manifest(capsule.artifact)
        log.say("capsule {} for {}: every file is as it was bundled".format(capsule.name, capsule.target))
        clocks = _pinned_clocks(log, root) if options.pin_clocks else None
        with contextlib.ExitStack() as held:
            if clocks is not None:
                held.enter_context(clocks)
            board, sensors = boards.look(root), Sensors(root)
            log.say(_board_line(board))
            verdict = _examined(Job(capsule, options, board, log, root), sensors, began)
        if clocks is not None and clocks.problem is not None:
            verdict = verdict._replace(problems=verdict.problems + (clocks.problem,))
        log.say("{}: {}".format("PASS" if verdict.passed else "FAIL", write_verdict(options.output, verdict)))
    return verdict


def _examined(job: Job, sensors: Sensors, began: float) -> BoardVerdict:
    """The verdict of a board that was looked at: warnings first, then the engine, builds, parity, times and power."""
    before, limits = sensors.read(), sensors.limits()
    for warning in conditions.spoilers(job.board, before, before, limits):
        job.log.say("warning: {}".format(warning))
    backend, notes = choose(job)
    precisions, left_out = precisions_of(backend)
    found = Findings(began)
    found.warnings += notes + left_out
    for precision in precisions:
        _prepare(backend, precision, found)
    for precision in found.ready:
        _examine(backend, precision, sensors, found)
    after = sensors.read()
    found.warnings += conditions.spoilers(job.board, before, after, limits)
    return found.verdict(backend, before, after)


def _prepare(backend: Backend, precision: str, found: Findings) -> None:
    """Builds; what a parser or builder refuses is a finding, and the other precision may still be built."""
    try:
        backend.prepare(precision)
    except BadRequest:
        raise
    except DeployAttnError as error:
        found.problem(backend, precision, error)
        return
    found.ready.append(precision)


def _examine(backend: Backend, precision: str, sensors: Sensors, found: Findings) -> None:
    """Compares, and where the graph runs at all, times it and measures power."""
    job = backend.job
    cases = job.capsule.artifact.cases()
    try:
        with backend.opened(precision) as loaded:
            _compare(loaded, precision, job, cases, found)
            measured = _measured(loaded, cases[0], job, sensors)
            found.timing[precision], found.power[precision] = measured
    except Exception as error:
        if found.has_recorded(error):
            return
        if isinstance(error, BadRequest) or not isinstance(error, DeployAttnError):
            raise
        found.problem(backend, precision, error)


def _compare(loaded: Loaded, precision: str, job: Job, cases: Sequence[Case], found: Findings) -> None:
    blank = blank_check(job, loaded.graph, precision)
    try:
        checks = checks_of(found.noting_first(loaded.infer), cases, blank, own_errors(job))
    except (
        Exception
    ) as error:  # whatever the engine throws is a finding; on it goes, for what CUDA says next is no news
        found.refuse(loaded, blank, error)
        job.log.say("parity in {}: {}".format(precision, found.checks[-1].error))
        raise
    found.add(precision, loaded, checks)
    held = sum(check.passed for check in checks)
    job.log.say("parity in {}: {} of {} checks hold".format(precision, held, len(checks)))


# What follows is imported where it is used: the first result comes sooner without it.


def _pinned_clocks(log: Log, root: str) -> Any:
    from .clocks import PinnedClocks

    return PinnedClocks(log.say, root)


def _measured(loaded: Loaded, case: Case, job: Job, sensors: Sensors) -> Tuple[Dict[str, Any], Dict[str, Any]]:
    """Timing and power, on the inputs of a parity case."""
    from .measure import measure_power, measure_time

    return measure_time(loaded, case.inputs, job), measure_power(loaded, case.inputs, job, sensors)


def _for_a_person(verdict: BoardVerdict) -> str:
    from .summary import summary

    return summary(verdict)


def _board_line(board: boards.Board) -> str:
    """What the board is, in one line."""
    parts = [board.module or "not a Jetson"]
    named = (("JetPack", board.jetpack), ("L4T", board.l4t), ("TensorRT", board.tensorrt), ("CUDA", board.cuda))
    parts += ["{} {}".format(name, value) for name, value in named if value]
    if board.memory_bytes and board.available_bytes is not None:
        parts.append("{} of {} MiB memory available".format(board.available_bytes >> 20, board.memory_bytes >> 20))
    if board.swap_bytes is not None:
        parts.append(
            "{} MiB swap{}".format(board.swap_bytes >> 20, " ({})".format(board.swap_kind) if board.swap_kind else "")
        )
    if board.power_mode is not None:
        parts.append("power mode {}".format(board.power_mode.name or board.power_mode.id))
    if board.clocks_pinned is not None:
        parts.append("clocks pinned" if board.clocks_pinned else "clocks not pinned")
    return ", ".join(parts + ["Python {}".format(board.python)])


def _refuse(stdout: Any, message: str, exit_code: int, as_json: bool) -> int:
    """Says why on stderr, and on stdout as the document that --json promises."""
    write_line(sys.stderr, "run.py: {}".format(message))
    if as_json:
        write_line(stdout, text_of({"passed": False, "error": message, "exit_code": exit_code}).rstrip("\n"))
    return exit_code
