"""What every builder of engines shares: what is asked, what is put into the builder, what comes out."""

from __future__ import annotations

import abc
import contextlib
import hashlib
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy_attn.engines.engine_file import PLAN, EngineKey
from deploy_attn.engines.profile import (
    OpenShape,
    Profile,
    Shape,
    ShapeRange,
    check_profile,
    input_shapes,
    profile_from_cases,
    shape_text,
)
from deploy_attn.engines.target import Target
from deploy_attn.jetson.artifact import Artifact
from deploy_attn.jetson.errors import BadRequest, DamagedArtifact, DeployAttnError
from deploy_attn.jetson.tensorrt_build import MODEL

Progress = Callable[[Mapping[str, Any]], None]
PRECISIONS = ("fp32", "fp16")
_MOST_REASONS = 5


@dataclass(frozen=True)
class BuildOptions:
    """How an engine is built.

    Attributes:
        precision: `fp32` or `fp16`; None takes FP16 where the artifact has it.
        minimum: the least shape of an input with open axes; None is 1 on each of them.
        optimum: the shape to tune for; None is that of the first parity case.
        maximum: the largest shape; None is the largest of any parity case.
        version_compatible: for newer versions of TensorRT as well.
        hardware_compatible: for other GPUs as well, from compute capability 8.0 on.
        timing_cache: a file of measured kernels, read if it is there and written.
        force: build though the same engine is there.
    """

    precision: str | None = None
    minimum: Shape | None = None
    optimum: Shape | None = None
    maximum: Shape | None = None
    version_compatible: bool = False
    hardware_compatible: bool = False
    timing_cache: Path | None = None
    force: bool = False


@dataclass(frozen=True)
class BuildJob:
    """An artifact that holds, and what to build of it."""

    artifact: Artifact
    target: Target
    precision: str
    options: BuildOptions

    def graph_file(self, precision: str) -> str:
        """The artifact's graph of a precision.

        Raises:
            BadRequest: it has none.
        """
        file = graph_of(self.artifact, precision)
        if file is None:
            remedy = "with --fp16, or build with --precision fp32" if precision == "fp16" else "to have one"
            raise BadRequest(f"{self.artifact.path} has no graph in {precision}. Export it again {remedy}.")
        return file

    def content(self, file: str) -> bytes:
        """A file of the artifact, as its manifest vouches for it."""
        content = Path(self.artifact.file(file)).read_bytes()
        if hashlib.sha256(content).hexdigest() != self.artifact.manifest["files"][file]:
            raise DamagedArtifact(f"{file} of {self.artifact.path} changed while it was read. Export it again.")
        return content

    def plan(self) -> dict[str, str]:
        """`fp16` or `fp32` for each node of the FP32 graph, by its name."""
        try:
            nodes = json.loads(self.content(PLAN))["nodes"]
            return {str(node["node"]): str(node["precision"]) for node in nodes}
        except (ValueError, KeyError, TypeError) as error:
            raise DamagedArtifact(
                f"{PLAN} of {self.artifact.path} is no precision plan ({error!r}). Export it again."
            ) from error

    def profile(self, model: bytes) -> dict[str, ShapeRange]:
        """The shapes of every input with open axes: from the options, else from the parity cases.

        Raises:
            BadRequest: the options name shapes that the graph does not take.
        """
        inputs = input_shapes(model)
        cases = [{name: array.shape for name, array in case.inputs.items()} for case in self.artifact.cases()]
        if not cases or any(name not in case for name in inputs for case in cases):
            raise DamagedArtifact(f"{self.artifact.path} has no parity case for every input. Export it again.")
        asked = (self.options.minimum, self.options.optimum, self.options.maximum)
        if asked == (None, None, None):
            return profile_from_cases(inputs, cases)
        if len(inputs) != 1:
            raise BadRequest(
                f"--min, --opt and --max are for a graph with one input; this one has {', '.join(inputs)}. "
                "Leave them out: the shapes then come from the parity cases."
            )
        name, shape = next(iter(inputs.items()))
        fixed = {name: tuple(extent or 1 for extent in shape)}
        usual = profile_from_cases(inputs, cases).get(name) or ShapeRange(fixed[name], fixed[name], fixed[name])
        profile = {name: _asked_range(asked, usual)}
        _check_asked(profile, inputs)
        return profile if None in shape else {}


def graph_of(artifact: Artifact, precision: str) -> str | None:
    """The name of an artifact's graph of a precision; None where it has none."""
    graphs = artifact.manifest.get("graphs")
    for graph in graphs if isinstance(graphs, list) else ():
        if isinstance(graph, dict) and graph.get("precision") == precision:
            return str(graph.get("file"))
    return None


def refused(heading: str, reasons: Sequence[str], remedy: str = "") -> DeployAttnError:
    """An error with the first of many reasons, a line each, and what to do where that is known."""
    more = len(reasons) - _MOST_REASONS
    last = [f"and {more} more"] if more > 0 else []
    text = "\n  ".join([heading, *reasons[:_MOST_REASONS], *last])
    return DeployAttnError(f"{text}\n{remedy}" if remedy else text)


def _check_asked(profile: Profile, inputs: Mapping[str, OpenShape]) -> None:
    try:
        check_profile(profile, inputs)
    except BadRequest as error:
        raise BadRequest(f"{error} An axis is left open by `export --dynamic-batch` and `--dynamic-size`.") from error


def _asked_range(asked: tuple[Shape | None, Shape | None, Shape | None], usual: ShapeRange) -> ShapeRange:
    """The shapes asked for; what was not asked for gives way to them."""
    minimum, optimum, maximum = asked
    ranks = {len(shape) for shape in (*asked, usual.optimum) if shape is not None}
    if len(ranks) > 1:
        given = ", ".join(shape_text(shape) for shape in asked if shape is not None)
        raise BadRequest(f"The build was asked for shapes {given}; the input is of rank {len(usual.optimum)}.")
    least = minimum or tuple(map(min, usual.minimum, optimum or usual.minimum, maximum or usual.minimum))
    floor = tuple(map(max, least, optimum or least))
    most = maximum or tuple(map(max, usual.maximum, floor))
    best = optimum or tuple(min(max(low, middle), high) for low, middle, high in zip(least, usual.optimum, most))
    return ShapeRange(least, best, most)


@dataclass(frozen=True)
class Recipe:
    """All that a builder needs for one engine, and the key that the engine will have.

    Attributes:
        model: the graph, as a file holds it.
        profile: the shapes of its open inputs.
        plan: the precision of each node of the FP32 graph, where the engine is to hold to it; else empty.
        device: the GPU that builds, where one does.
    """

    job: BuildJob
    key: EngineKey
    model: bytes
    profile: Profile
    plan: Mapping[str, str]
    device: Mapping[str, Any] | None


@dataclass(frozen=True)
class Built:
    """An engine as a file holds it, what its builder said of it, and its warnings."""

    content: bytes
    facts: Mapping[str, Any]
    warnings: tuple[str, ...]


class Builder(abc.ABC):
    """One library that compiles graphs to engines."""

    @abc.abstractmethod
    def recipe(self, job: BuildJob) -> Recipe:
        """What to build here.

        Raises:
            BadRequest: it cannot be built here, and what to do.
        """

    @abc.abstractmethod
    def build(self, recipe: Recipe, on_progress: Progress | None) -> Built:
        """Builds it.

        Raises:
            DeployAttnError: it was refused, the builder was killed, or the
                engine does not hold to the plan.
        """


@contextlib.contextmanager
def build_folder(model: bytes) -> Iterator[Path]:
    """A temporary folder with the model, as `tensorrt_child.build` takes it.

    Raises:
        BadRequest: there is no room for it.
    """
    with contextlib.ExitStack() as stack:
        try:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="deploy-attn-build-")))
            (folder / MODEL).write_bytes(model)
        except OSError as error:
            raise BadRequest(
                f"A build needs a temporary folder, and {tempfile.gettempdir()} does not take it: "
                f"{error.strerror or error}. Make room there, or set TMPDIR to a folder that has some."
            ) from error
        yield folder


def target_capability(target: Target) -> str:
    """The compute capability that an engine for this target is for.

    Raises:
        BadRequest: the target names none.
    """
    capability = target.value("device.compute_capability")
    if capability is None:
        raise BadRequest(
            f"Target {target.name} names no compute capability, so no engine can be built for it. "
            "Choose a GPU of `deploy-attn list --targets`, or add device.compute_capability to a profile of your own."
        )
    return str(capability)
