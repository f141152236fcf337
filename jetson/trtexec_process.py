"""A trtexec that runs: in a folder, to its end, with what it said. How one that failed did."""

import io
import os
import re
import subprocess
from typing import Callable, List, NamedTuple, Optional, Sequence, Tuple

from .errors import DeployAttnError
from .tensorrt_child import OUT_OF_MEMORY, available_memory, out_of_memory, signal_name, told_memory
from .tensorrt_module import TENSORRT
from .trtexec import Tool

LOG = "trtexec.log"

_LINE = re.compile(r"\[[^\]]*\] \[(?P<severity>[VIWEF])\] (?:\[TRT\] )?(?P<text>.*)")
_UNKNOWN = re.compile(r"Unknown option: (\S+)")
_NO_GRAPH = re.compile(
    r"not permitted under CUDA graph capture|useCudaGraph flag has been ignored|graph capture failed"
)
_LAST_WORDS = 4

OnLine = Callable[[str], None]


class Ended(NamedTuple):
    """A trtexec that ended: its exit code, what it said as (severity, text), and the bytes that were free before."""

    code: int
    messages: List[Tuple[str, str]]
    memory_before: Optional[int]

    def errors(self) -> List[str]:
        return [" ".join(text.split()) for severity, text in self.messages if severity in ("E", "F")]

    def no_graph(self) -> str:
        """Why no CUDA graph was captured; empty where nothing says so."""
        return next((text for _, text in self.messages if _NO_GRAPH.search(text)), "")


def run(tool: Tool, flags: Sequence[str], folder: str, on_line: Optional[OnLine]) -> Ended:
    """Runs it to its end in a folder, where its log stays; ends it if that fails."""
    process = subprocess.Popen(
        [tool.path] + list(flags),
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,  # a Ctrl-C ends it once, from here
    )
    messages: List[Tuple[str, str]] = []
    before = available_memory()
    try:
        with io.open(os.path.join(folder, LOG), "wb") as log:
            for raw in process.stdout or ():
                log.write(raw)
                line = raw.decode("utf-8", "replace").rstrip("\r\n")
                _take(line, messages)
                if on_line is not None:
                    on_line(line)
        return Ended(process.wait(), messages, before)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()


def check_memory_and_flags(tool: Tool, ended: Ended) -> None:
    """Raises DeployAttnError where memory ran out, or where this version refused a flag."""
    if ended.code == -9:
        said = "in trtexec was killed (SIGKILL), as the system does when memory runs out"
        raise out_of_memory(TENSORRT, said, told_memory(ended.memory_before))
    said_so = [text for text in ended.errors() if OUT_OF_MEMORY.search(text)]
    said_so += [text for _, text in ended.messages[-1:] if OUT_OF_MEMORY.search(text)]
    if said_so:
        said = "in trtexec ran out of memory ({})".format(said_so[-1].rstrip("."))
        raise out_of_memory(TENSORRT, said, told_memory(ended.memory_before))
    unknown = [match.group(1) for match in map(_UNKNOWN.search, ended.errors()) if match]
    if unknown:
        raise DeployAttnError(
            "{} at {} refuses the flags {}, which its version has as NVIDIA released it. Use TensorRT's Python "
            "module.".format(tool.title(), tool.path, ", ".join(unknown))
        )


def crashed(tool: Tool, ended: Ended) -> DeployAttnError:
    how = signal_name(-ended.code) if ended.code < 0 else "exit code {}".format(ended.code)
    last = ended.errors() or [text for _, text in ended.messages]
    said = "; ".join(text.strip().rstrip(".") for text in last[-_LAST_WORDS:])
    return DeployAttnError("{} failed ({}){}.".format(tool.title(), how, ": " + said if said else " without a message"))


def _take(line: str, messages: List[Tuple[str, str]]) -> None:
    """Adds a line to what was said: a message of its own, or more of the last one. Most of a log is not kept."""
    if line.startswith("&&&&"):
        return
    match = _LINE.match(line)
    if match is None:
        if messages:
            severity, text = messages[-1]
            messages[-1] = (severity, "{}\n{}".format(text, line))
        elif line.strip():
            messages.append(("I", line))  # the dynamic loader's words have no severity
        return
    if messages and not _is_worth_keeping(*messages[-1]):
        messages.pop()
    messages.append((match.group("severity"), match.group("text")))


def _is_worth_keeping(severity: str, text: str) -> bool:
    return (
        severity in "WEF"
        or text.startswith(("Engine Layer Information:", "Layers:", "Layer("))
        or bool(_NO_GRAPH.search(text))
    )
