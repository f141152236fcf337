"""Engines that are built on the board before they run: what to build, from what, and where it is kept."""

import contextlib
import io
import os
import platform
import shutil
import tempfile
import time
from typing import Any, Dict, Iterator, List, Mapping, NamedTuple, Optional, Tuple

from .backend import PLAN, Backend, Job
from .engine_cache import StoredEngine, engine_path, find, key_of, store
from .errors import BadRequest, DeployAttnError
from .target_fit import check_device, check_tensorrt
from .tensorrt_build import ENGINE, MODEL
from .tensorrt_module import TENSORRT, how_to_install

TIMING_CACHE = "timing.cache"
_MIB = 1 << 20


class Builder(NamedTuple):
    """What builds: a version of TensorRT, whether it sets precision itself, and the GPU, where that is known."""

    version: str
    weak: bool
    device: Optional[Mapping[str, Any]]


class BuiltEngines(Backend):
    """A backend whose engines are built here, and kept beside the verdict.

    Raises:
        BadRequest: capsule and board do not fit together.
    """

    def __init__(self, job: Job, builder: Builder) -> None:
        super().__init__(job)
        check_device(job.capsule, builder.device)
        check_tensorrt(job.capsule, builder.version)
        self.builder = builder
        self.engines: Dict[str, StoredEngine] = {}

    def conditions(self) -> Dict[str, Any]:
        return {
            "engine": self.name,
            "version": self.builder.version,
            "device": self.builder.device,
            "engine_sha256": {precision: engine.sha256 for precision, engine in self.engines.items()},
        }

    def cannot(self, precision: str) -> str:
        if precision == "fp16" and not self.job.has_half():
            return "the artifact was exported without --fp16"
        if self.job.graph(self._graph_of(precision)) is None:
            return "TensorRT {} takes {} only from a typed graph, which a capsule for {} does not have".format(
                self.builder.version, precision, self.job.capsule.target
            )
        return ""

    def prepare(self, precision: str) -> None:
        request = self.request(precision)
        key = key_of(self._made_from(precision, request))
        path = engine_path(self.job.options.output, self.name, precision, key)
        engine = None if self.job.options.rebuild else find(path, key)
        if engine is not None:
            self.job.log.say("engine in {}: {} is there already".format(precision, os.path.basename(path)))
        else:
            self.job.log.say(
                "engine in {}: {} {} builds it, which takes minutes on a small board".format(
                    precision, self.name, self.builder.version
                )
            )
            content, facts = self._built(request, self.job.content(self.graph_file(precision)))
            engine = store(path, key, content, facts)
            self.job.log.say("engine in {}: built in {:.1f} s".format(precision, facts["seconds"]))
        self.engines[precision] = engine

    def build(self, folder: str, request: Mapping[str, Any]) -> Dict[str, Any]:
        """Builds MODEL of a folder into ENGINE beside it; the outcome as `tensorrt_child.build` gives it."""
        raise NotImplementedError

    def graph_file(self, precision: str) -> str:
        """The graph that this version builds a precision from."""
        file = self.job.graph(self._graph_of(precision))
        if file is None:
            raise BadRequest("The capsule cannot be run in {}: {}.".format(precision, self.cannot(precision)))
        return file

    def request(self, precision: str) -> Dict[str, Any]:
        """What to build, as `tensorrt_child.build` takes it."""
        half, asked = precision == "fp16", self.job.options.workspace_mib
        mebibytes = asked or self.job.capsule.facts.get("runtime.workspace_mib")
        return {
            "module": TENSORRT,
            "profile": dict(self.job.capsule.profile),
            "precision": precision,
            "typed": half and not self.builder.weak,
            "plan": self.job.plan() if half else {},
            "workspace_bytes": None if mebibytes is None else int(mebibytes) * _MIB,
            "timing_cache": os.path.join(self.job.options.output, TIMING_CACHE),
        }

    def facts(self, precision: str) -> Dict[str, Any]:
        """How the engine of a precision came to be, for the verdict."""
        stored = self.engines[precision]
        named = {"file": os.path.basename(stored.path), "sha256": stored.sha256, "from_cache": stored.from_cache}
        return dict(stored.facts, **named)

    def _graph_of(self, precision: str) -> str:
        """The precision of the graph that a precision is built from."""
        return "fp32" if self.builder.weak else precision

    def _made_from(self, precision: str, request: Mapping[str, Any]) -> Dict[str, Any]:
        files = self.job.capsule.artifact.manifest["files"]
        return {
            "engine": self.name,
            "version": self.builder.version,
            "device": self.builder.device,
            "system": "{} {}".format(platform.system(), platform.machine()),
            "graph": files[self.graph_file(precision)],
            "plan": files.get(PLAN) if precision == "fp16" else None,
            "request": {name: value for name, value in request.items() if name not in ("plan", "timing_cache")},
        }

    def _built(self, request: Mapping[str, Any], model: bytes) -> Tuple[bytes, Dict[str, Any]]:
        """The engine and what its builder said."""
        began = time.monotonic()
        with _folder_with(model, self.job.options.output) as folder:
            outcome = self.build(folder, request)
            for severity, text in outcome["messages"]:
                self.job.log.keep("{}: {}".format(severity, text))
            raise_unless_right(outcome, self.builder.version)
            with io.open(os.path.join(folder, ENGINE), "rb") as stream:
                content = stream.read()
        facts = {
            "version": outcome["version"],
            "seconds": round(time.monotonic() - began, 3),
            "layers": outcome["layers"],
            "layers_from": outcome["layers_from"],
            "precision_notes": outcome["precision_notes"],
            "warnings": [text for severity, text in outcome["messages"] if severity == "WARNING"],
            "workspace_bytes": request["workspace_bytes"],
        }
        return content, facts


def raise_unless_right(outcome: Mapping[str, Any], version: str) -> None:
    """Raises DeployAttnError with everything that parser and builder said, unless there is an engine to the plan."""
    errors = [" ".join(text.split()) for severity, text in outcome["messages"] if severity.endswith("ERROR")]
    if outcome["absent"]:
        raise BadRequest(
            "TensorRT cannot be imported any more ({}). {}".format(outcome["absent"], how_to_install(TENSORRT))
        )
    if outcome["refusals"]:
        reasons = ["node {node!r} ({operator}): {code}: {reason}".format(**one) for one in outcome["refusals"]]
        raise _refused("The parser of TensorRT {} refuses this graph:".format(version), reasons)
    if not outcome["built"]:
        heading = "The builder of TensorRT {} gave no engine:".format(version)
        raise _refused(heading, errors or ["it does not say why"])
    if outcome["precision_problems"]:
        heading = "The engine that TensorRT {} built does not hold to {}; it was thrown away:".format(version, PLAN)
        raise _refused(heading, list(outcome["precision_problems"]))


def _refused(heading: str, reasons: List[str]) -> DeployAttnError:
    return DeployAttnError("\n  ".join([heading] + reasons))


@contextlib.contextmanager
def _folder_with(model: bytes, parent: str) -> Iterator[str]:
    """A folder with the model, gone afterwards. Not below /tmp, which on a board may be its memory."""
    folder = tempfile.mkdtemp(prefix=".build-", dir=parent)
    try:
        with io.open(os.path.join(folder, MODEL), "wb") as stream:
            stream.write(model)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
