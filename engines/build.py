"""From an artifact to an engine file beside it, built once for each graph, runtime, device and set of options."""

from __future__ import annotations

import hashlib
import importlib
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from deploy_attn.engines.base import ENGINES
from deploy_attn.engines.builder import PRECISIONS, Builder, BuildJob, BuildOptions, Progress, Recipe, graph_of
from deploy_attn.engines.engine_file import EngineManifest, find_built, write_engine
from deploy_attn.engines.profile import Profile, shape_text
from deploy_attn.engines.target import load_target
from deploy_attn.jetson.artifact import Artifact, open_artifact
from deploy_attn.jetson.errors import BadRequest
from deploy_attn.jetson.suggest import known_names

BUILDERS: Mapping[str, str] = MappingProxyType(
    {
        "tensorrt": "deploy_attn.engines.builder_tensorrt:TensorRtBuilder",
        "tensorrt-rtx": "deploy_attn.engines.builder_rtx:RtxBuilder",
    }
)


@dataclass(frozen=True)
class BuildReport:
    """The engine that is there now.

    Attributes:
        folder: the artifact's.
        engine_file: the engine; its manifest is beside it.
        cached: it was there already, and was not built again.
        seconds: what the build took, 0 where it is cached.
        notes: what is worth knowing of the artifact as it goes to this target.
    """

    folder: Path
    engine_file: Path
    manifest: EngineManifest
    cached: bool
    seconds: float
    notes: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Always: a build that does not hold raises, and leaves nothing."""
        return True

    @property
    def warnings(self) -> tuple[str, ...]:
        return self.manifest.warnings

    def as_dict(self) -> dict[str, Any]:
        return {
            "passed": self.passed,
            "folder": str(self.folder),
            "engine_file": str(self.engine_file),
            "cached": self.cached,
            "seconds": round(self.seconds, 3),
            "notes": list(self.notes),
            "manifest": self.manifest.as_dict(),
        }


@dataclass(frozen=True)
class PreparedBuild:
    """A build that is possible here: everything was looked at, and nothing done."""

    builder: Builder
    recipe: Recipe

    def run(self, on_progress: Progress | None = None) -> BuildReport:
        """Builds, unless the same engine is there; `build_engine` says what is raised."""
        job, key = self.recipe.job, self.recipe.key
        folder = Path(job.artifact.path)
        there = None if job.options.force else find_built(folder, key)
        if there is not None:
            return BuildReport(folder, there.path, there.manifest, True, 0.0, self._notes())
        started = time.monotonic()
        built = self.builder.build(self.recipe, on_progress)
        digest = hashlib.sha256(built.content).hexdigest()
        manifest = EngineManifest(key, job.target.name, self.recipe.device, built.facts, built.warnings, digest)
        file = write_engine(folder, manifest, built.content)
        return BuildReport(folder, file.path, manifest, False, time.monotonic() - started, self._notes())

    def _notes(self) -> tuple[str, ...]:
        job = self.recipe.job
        return tuple(note for note in (_other_family(job), *_outside(job, self.recipe.profile)) if note)


def build_engine(
    path: str | Path,
    engine: str,
    target: str,
    options: BuildOptions | None = None,
    on_progress: Progress | None = None,
) -> BuildReport:
    """Builds the engine of an artifact for a target, unless it is there.

    Args:
        path: the artifact's folder; the engine is written into it.
        engine: `tensorrt`, which builds on the target itself, or `tensorrt-rtx`, which builds anywhere.
        target: a name of `list --targets`, or a profile of the user's own by its path.
        options: precision, shapes, flags.
        on_progress: called with what the builder reports, while it builds.

    Raises:
        BadRequest: not an artifact, no such engine or target, or one that cannot
            be built here; nothing was written.
        DamagedArtifact: a file differs from the manifest.
        DeployAttnError: the graph was refused, the builder was killed, or the
            engine does not hold to the precision plan; nothing was written.
    """
    return prepare_build(path, engine, target, options).run(on_progress)


def prepare_build(path: str | Path, engine: str, target: str, options: BuildOptions | None = None) -> PreparedBuild:
    """Looks whether a build is possible here; `build_engine` says what is taken and raised."""
    options = options or BuildOptions()
    builder = builder_of(engine)
    wanted = load_target(target)
    artifact = open_artifact(str(path))
    _check_writable(Path(path))
    job = BuildJob(artifact, wanted, _precision(artifact, options.precision), options)
    return PreparedBuild(builder, builder.recipe(job))


def builder_of(engine: str) -> Builder:
    """The builder of an engine's files.

    Raises:
        BadRequest: no such engine, or one without files of its own.
    """
    if engine not in ENGINES:
        raise BadRequest(f"Unknown engine {engine!r}. {known_names(engine, ENGINES)}")
    if engine not in BUILDERS:
        raise BadRequest(
            f"Engine {engine} has no engine file: it compiles a graph when it loads it. "
            f"`deploy-attn verify DIR --engine {engine}` runs it. Engines that are built: {', '.join(BUILDERS)}."
        )
    module, _, attribute = BUILDERS[engine].partition(":")
    found: type[Builder] = getattr(importlib.import_module(module), attribute)
    return found()


def _precision(artifact: Artifact, asked: str | None) -> str:
    if asked is None:
        return "fp16" if graph_of(artifact, "fp16") else "fp32"
    if asked not in PRECISIONS:
        raise BadRequest(f"Unknown precision {asked!r}. {known_names(asked, PRECISIONS)}")
    return asked


def _check_writable(folder: Path) -> None:
    """Before a build that may take minutes."""
    if not os.access(folder, os.W_OK | os.X_OK):
        raise BadRequest(
            f"{folder} cannot be written, and an engine lies beside its graph. "
            "Build a copy of the artifact in a folder that can be written."
        )


def _other_family(job: BuildJob) -> str | None:
    """The export forms of an artifact are chosen for the target that it was exported for."""
    name = job.artifact.manifest.get("target")
    try:
        exported_for = load_target(str(name))
    except BadRequest:
        return None  # a profile of the user's own, which need not be here
    if exported_for.family == job.target.family:
        return None
    return (
        f"The artifact was exported for {name}, in forms for a {exported_for.family}; those for a {job.target.family} "
        f"may be faster: export it with --target {job.target.name}."
    )


def _outside(job: BuildJob, profile: Profile) -> list[str]:
    """The parity cases that the engine will not take."""
    notes = []
    for case in job.artifact.cases() if profile else ():
        for name, span in profile.items():
            shape = case.inputs[name].shape
            if not all(low <= extent <= high for low, extent, high in zip(span.minimum, shape, span.maximum)):
                notes.append(
                    f"Parity case {case.name} ({shape_text(shape)}) is outside the profile and cannot be verified."
                )
    return notes
