"""What the three ways of running a graph on a board share: the job, and what a loaded graph can do."""

import io
import json
import time
from typing import TYPE_CHECKING, Any, Callable, ContextManager, Dict, Mapping, NamedTuple, Optional

import numpy as np

from .arguments import Options
from .capsule import Capsule
from .errors import BadRequest, DamagedArtifact
from .progress import Log

if TYPE_CHECKING:
    from . import timing

PLAN = "precision_plan.json"


class Job(NamedTuple):
    """A capsule that holds, what was asked, what the board is, where to say what happens, and the board's `/`."""

    capsule: Capsule
    options: Options
    board: Any
    log: Log
    root: str

    def graph(self, precision: str) -> Optional[str]:
        """The capsule's graph file of a precision; None where it has none."""
        for listed in self.capsule.artifact.manifest["graphs"]:
            if listed["precision"] == precision and listed["file"] in self.capsule.artifact.manifest["files"]:
                return str(listed["file"])
        return None

    def has_half(self) -> bool:
        """Whether the artifact was exported with --fp16."""
        return any(listed["precision"] == "fp16" for listed in self.capsule.artifact.manifest["graphs"])

    def content(self, file: str) -> bytes:
        with io.open(self.capsule.artifact.file(file), "rb") as stream:
            return stream.read()

    def plan(self) -> Dict[str, str]:
        """`fp16` or `fp32` for each node of the FP32 graph, by its name.

        Raises:
            BadRequest: the capsule has no plan.
            DamagedArtifact: it is none.
        """
        if PLAN not in self.capsule.artifact.manifest["files"]:
            raise BadRequest(
                "FP16 takes {}, which {} does not have. Export it with --fp16 and bundle it again, or run this with "
                "--precision fp32.".format(PLAN, self.capsule.name)
            )
        try:
            nodes = json.loads(self.content(PLAN).decode("utf-8"))["nodes"]
            return {str(node["node"]): str(node["precision"]) for node in nodes}
        except (ValueError, KeyError, TypeError) as error:
            raise DamagedArtifact("{} is no precision plan ({!r}). Export it again.".format(PLAN, error)) from error


class Loaded:
    """A graph of one precision, ready to run.

    `build` tells how it came to be; `note` is what a reader of its checks must
    know; `no_power` says why power cannot be measured, where it cannot.
    """

    no_power = ""

    def __init__(self, graph: str, build: Mapping[str, Any], note: str = "") -> None:
        self.graph = graph
        self.build = dict(build)
        self.note = note

    def infer(self, feeds: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        """Runs it once."""
        raise NotImplementedError

    def time(self, feeds: Mapping[str, np.ndarray], options: "timing.Options") -> Dict[str, Any]:
        """How long it takes, as JSON values with the keys of `timing.Timing.as_dict`."""
        raise NotImplementedError

    def keep_running(self, feeds: Mapping[str, np.ndarray], seconds: float) -> int:
        """Runs it again and again, for power; how often."""
        raise NotImplementedError


def repeated(call: Callable[[], Any], seconds: float) -> int:
    """Calls for so many seconds; how often."""
    ends = time.monotonic() + seconds
    count = 0
    while time.monotonic() < ends:
        call()
        count += 1
    return count


class Backend:
    """One way of running graphs."""

    name = ""

    def __init__(self, job: Job) -> None:
        self.job = job

    def conditions(self) -> Dict[str, Any]:
        """What a result depends on: versions, devices, threads. JSON values only."""
        raise NotImplementedError

    def cannot(self, precision: str) -> str:
        """Why a precision cannot be run; empty where it can."""
        raise NotImplementedError

    def prepare(self, precision: str) -> None:
        """Builds what a precision takes; all of it before the first is loaded, while memory is free.

        Raises:
            DeployAttnError: it cannot be built here.
        """

    def opened(self, precision: str) -> ContextManager[Loaded]:
        """The graph of a precision that was prepared, loaded while the block lasts.

        Raises:
            DeployAttnError: it cannot be loaded here.
        """
        raise NotImplementedError
