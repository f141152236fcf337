"""Builds in a process of its own, seen from outside.

TensorRT is native code: it can crash, and on a board with 4 GB the system kills
what takes too much memory. There either is an error like any other, and all the
memory of the build is free again before the engine runs.
"""

import io
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from typing import Any, Callable, Dict, List, Mapping, Optional

from . import tensorrt_build
from .errors import BadRequest, DeployAttnError
from .tensorrt_module import RTX, TENSORRT, how_to_install, title

Progress = Callable[[Mapping[str, Any]], None]

MODEL, ENGINE = tensorrt_build.MODEL, tensorrt_build.ENGINE

_MEMINFO = "/proc/meminfo"
_KILLED = 9
OUT_OF_MEMORY = re.compile("out ?of ?memory|insufficient memory|bad_alloc|MemoryAllocation", re.IGNORECASE)

# What the child needs of the standard library comes first, from where Python itself finds it: in the working folder or
# on the caller's path a file of the user may have the name of one of its modules. This package goes by another name,
# since importing the whole project would take longer than many builds.
_CHILD = """
import sys
sys.path[:] = [entry for entry in sys.path if entry]
import ctypes, contextlib, difflib, enum, glob, importlib, importlib.util
import inspect, io, json, os, re, threading, types, typing
verb, folder, package = sys.argv[1:4]
sys.path[:] = sys.argv[4:]
spec = importlib.util.spec_from_file_location(
    "deploy_attn_child", os.path.join(package, "__init__.py"), submodule_search_locations=[package]
)
sys.modules[spec.name] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sys.modules[spec.name])
build = importlib.import_module(spec.name + ".tensorrt_build")
build.end_with_the_caller()
build.main(verb, folder)
"""

_REMEDIES = (
    "run without a desktop (`sudo systemctl set-default multi-user.target`, then reboot)",
    "add 4 to 8 GB of swap as a file and switch zram off (`sudo systemctl disable nvzramconfig`), which helps what the "
    "CPU allocates and not the GPU",
    "give the builder a smaller workspace (`workspace_mib` in a target of your own, 64 to 256 MiB)",
    "end other programs, and build with --precision fp16, fixed shapes and a --timing-cache",
)


def build(folder: str, request: Mapping[str, Any], on_progress: Optional[Progress] = None) -> Dict[str, Any]:
    """Has a process of its own build `model.onnx` of a folder; the engine is then `engine` beside it.

    Args:
        folder: holds the model; request, outcome and engine are written into it.
        request: module, profile {input: [minimum, optimum, maximum]}, compute_capability, precision, typed,
            plan {node: fp16 | fp32}, workspace_bytes, timing_cache, version_compatible, hardware_compatible.
        on_progress: gets {"phase": ..., "step": ..., "steps": ...} while the builder works, where it tells.

    Returns:
        absent (why the module cannot be imported, else empty), version, capabilities, refusals, built, messages,
        layers and layers_from, precision_problems, precision_notes, device.

    Raises:
        BadRequest: this version cannot do what the request asks.
        DeployAttnError: the builder ran out of memory, crashed, or left no
            answer that can be read.
    """
    defaults: Dict[str, Any] = {
        "module": TENSORRT,
        "profile": {},
        "compute_capability": None,
        "precision": "fp32",
        "typed": False,
        "plan": {},
        "workspace_bytes": None,
        "timing_cache": None,
        "version_compatible": False,
        "hardware_compatible": False,
    }
    whole = dict(defaults, **request)
    if whole["timing_cache"]:
        whole["timing_cache"] = os.path.abspath(whole["timing_cache"])
    outcome = _run(tensorrt_build.BUILD, folder, whole, on_progress)
    if not outcome["built"] and any(OUT_OF_MEMORY.search(text) for text in _errors(outcome)):
        said = "ran out of memory ({})".format(_errors(outcome)[-1].strip().rstrip("."))
        raise out_of_memory(whole["module"], said, "")
    return outcome


def probe(module: str = TENSORRT) -> Dict[str, Any]:
    """What TensorRT and GPU are here, asked in a process of its own.

    Returns:
        version, weak_typing, device {name, compute_capability} or None, and no_device, the reason, where there is none.

    Raises:
        BadRequest: the module cannot be imported.
        DeployAttnError: it crashes when it is.
    """
    with tempfile.TemporaryDirectory(prefix="deploy-attn-probe-") as folder:
        outcome = _run(tensorrt_build.PROBE, folder, {"module": module}, None)
    if outcome["absent"]:
        raise BadRequest(
            "{} was asked for and cannot be imported ({}). {}".format(
                title(module), outcome["absent"], how_to_install(module)
            )
        )
    return outcome


def available_memory(file: str = _MEMINFO) -> Optional[int]:
    """Bytes that a program could still get, as Linux estimates it; None where it does not say."""
    try:
        with io.open(file, encoding="ascii", errors="replace") as stream:
            found = re.search(r"^MemAvailable:\s*(\d+) kB", stream.read(), re.MULTILINE)
    except OSError:
        return None
    return int(found.group(1)) * 1024 if found else None


def _run(verb: str, folder: str, request: Mapping[str, Any], on_progress: Optional[Progress]) -> Dict[str, Any]:
    if not sys.executable:
        raise DeployAttnError("This Python does not know its own program (sys.executable), which a build has to start.")
    module = request["module"]
    with io.open(os.path.join(folder, tensorrt_build.REQUEST), "w", encoding="utf-8") as stream:
        stream.write(json.dumps(request))
    answer = os.path.join(folder, tensorrt_build.OUTCOME)
    if os.path.exists(answer):
        os.unlink(answer)
    before = available_memory()
    with tempfile.TemporaryFile() as words:
        code = _wait(_command(verb, folder), folder, words, on_progress)
        words.seek(0)
        last_words = words.read().decode("utf-8", "replace").strip().splitlines()[-1:]
    if code == -_KILLED:
        raise out_of_memory(
            module, "was killed (SIGKILL), as the system does when memory runs out", told_memory(before)
        )
    if code != 0:
        raise _crashed(module, code, last_words)
    return _read(answer, module)


def _command(verb: str, folder: str) -> List[str]:
    here = os.path.dirname(os.path.abspath(__file__))
    path = [os.path.abspath(entry) for entry in sys.path]  # the child works in another folder
    return [sys.executable, "-c", _CHILD, verb, os.path.abspath(folder), here] + path


def _wait(command: List[str], folder: str, words: Any, on_progress: Optional[Progress]) -> int:
    """Runs the child to its end, passing on what it reports; ends it if that fails. Its exit code."""
    pipe = subprocess.PIPE  # nothing is written to stdin: its end tells the child that nobody waits any more
    process = subprocess.Popen(command, cwd=folder, stdin=pipe, stdout=pipe, stderr=words)
    try:
        for line in process.stdout or ():
            step = _progress(line)
            if step is not None and on_progress is not None:
                on_progress(step)
        return process.wait()
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        for end in (process.stdin, process.stdout):
            if end is not None:
                end.close()


def _progress(line: bytes) -> Optional[Mapping[str, Any]]:
    """A line of the child as a step of the build; None for whatever else a library prints."""
    try:
        step = json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError):
        return None
    return step if isinstance(step, dict) and set(step) == {"phase", "step", "steps"} else None


def _read(answer: str, module: str) -> Dict[str, Any]:
    expected = "The builder of {} ended without an answer that can be read ({}). Build again."
    try:
        with io.open(answer, encoding="utf-8") as stream:
            outcome = json.load(stream)
    except FileNotFoundError as error:
        raise DeployAttnError(expected.format(title(module), "there is none")) from error
    except (OSError, ValueError, RecursionError) as error:
        raise DeployAttnError(expected.format(title(module), error)) from error
    if not isinstance(outcome, dict) or "absent" not in outcome:
        raise DeployAttnError(expected.format(title(module), "it is not an outcome"))
    if outcome.get("error"):
        kind = BadRequest if outcome.get("exit_code") == BadRequest.exit_code else DeployAttnError
        raise kind(outcome["error"])
    return outcome


def _crashed(module: str, code: int, last_words: List[str]) -> DeployAttnError:
    how = signal_name(-code) if code < 0 else "exit code {}".format(code)
    hint = "If the graph has the operator Attention, export it as plain operations."
    return DeployAttnError(
        "{}'s builder crashed on this graph ({}{}). {}".format(
            title(module),
            how,
            "".join(": {}".format(line.strip().rstrip(".")) for line in last_words),
            hint if module == RTX else "`deploy-attn lint` shows what its parser is known to misread.",
        )
    )


def signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return "signal {}".format(number)


def out_of_memory(module: str, what: str, memory: str) -> DeployAttnError:
    steps = "".join("\n  {}. {}".format(number, remedy) for number, remedy in enumerate(_REMEDIES, 1))
    return DeployAttnError("{}'s builder {}.{} In this order:{}".format(title(module), what, memory, steps))


def told_memory(available: Optional[int]) -> str:
    if available is None:
        return " How much memory there was is not known: {} does not say.".format(_MEMINFO)
    return " {} MiB were available when it began.".format(available // (1024 * 1024))


def _errors(outcome: Mapping[str, Any]) -> List[str]:
    return [text for severity, text in outcome["messages"] if severity.endswith("ERROR")]
