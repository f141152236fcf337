"""Lint: every rule over a model or an artifact, for one target."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deploy_attn.engines.target import Target, load_target
from deploy_attn.export.linting.finding import Finding
from deploy_attn.export.linting.graph import LintGraph
from deploy_attn.export.linting.memory import Memory, estimate, memory_rule
from deploy_attn.export.linting.model_file import read_model
from deploy_attn.export.linting.parser import parser_of
from deploy_attn.export.linting.rules import PARSER_RULES, TARGET_RULES
from deploy_attn.jetson.errors import BadRequest, DamagedArtifact, DeployAttnError

if TYPE_CHECKING:
    import onnx

_PLAN = "precision_plan.json"


@dataclass(frozen=True)
class LintedGraph:
    """One graph file that was looked at.

    Attributes:
        file: its name.
        opset: of ONNX's own operators; 0 where it imports none of them.
        ir_version: of the file.
        nodes: how many, those of subgraphs included.
        memory: what it needs on the device; None where the device's memory is not known.
    """

    file: str
    opset: int
    ir_version: int
    nodes: int
    memory: Memory | None


@dataclass(frozen=True)
class LintReport:
    """What was looked at, for which target, and what was found; each finding says in which graph."""

    model: str
    target: str
    graphs: tuple[LintedGraph, ...]
    findings: tuple[Finding, ...]

    @property
    def passed(self) -> bool:
        """Nothing would be refused or misread."""
        return not any(finding.is_error for finding in self.findings)

    @property
    def opset(self) -> int:
        return self.graphs[0].opset

    @property
    def ir_version(self) -> int:
        return self.graphs[0].ir_version

    @property
    def nodes(self) -> int:
        return self.graphs[0].nodes

    @property
    def memory(self) -> Memory | None:
        return self.graphs[0].memory

    def as_dict(self) -> dict[str, Any]:
        return {
            "passed": self.passed,
            "model": self.model,
            "target": self.target,
            "opset": self.opset,
            "ir_version": self.ir_version,
            "nodes": self.nodes,
            "graphs": [asdict(graph) for graph in self.graphs],
            "findings": [asdict(finding) for finding in self.findings],
        }


def lint(path: str | Path, target: str) -> LintReport:
    """Looks for what a target would refuse, misread or run badly.

    Args:
        path: an ONNX file, or a folder that `export` wrote: each of its graphs
            is looked at as the target would get it. A graph file in such a
            folder counts as the artifact's where the manifest vouches for it.
        target: a name from `target_names()`, or a profile by its path.

    Raises:
        BadRequest: no such target, or no ONNX file or artifact at that path.
        DamagedArtifact: a file of the artifact differs from its manifest.
    """
    return lint_for(Path(path), load_target(target))


def lint_for(path: Path, target: Target) -> LintReport:
    """`lint` for a target that is loaded."""
    files = _files_of_artifact(path) if path.is_dir() else {path: _plan_beside(path)}
    graphs: list[LintedGraph] = []
    findings: list[Finding] = []
    for file, half_planned in files.items():
        graph = LintGraph(read_model(file), half_planned)
        memory = estimate(graph, target)
        found = sorted(_findings(graph, target, memory), key=lambda finding: not finding.is_error)
        findings.extend(replace(finding, graph=file.name) for finding in found)
        graphs.append(LintedGraph(file.name, graph.opset, graph.model.ir_version, len(graph.nodes), memory))
    return LintReport(str(path), target.name, tuple(graphs), tuple(findings))


def findings_of(model: onnx.ModelProto, target: Target, half_planned: frozenset[str] | None = None) -> list[Finding]:
    """What the rules find in a model in memory.

    Args:
        model: a valid one, as `read_model` gives it.
        target: where it is going.
        half_planned: names of the nodes that a precision plan runs in FP16; None where there is no plan.
    """
    graph = LintGraph(model, half_planned)
    return list(_findings(graph, target, estimate(graph, target)))


def _findings(graph: LintGraph, target: Target, memory: Memory | None) -> Iterator[Finding]:
    for rule in TARGET_RULES:
        yield from _whole(rule(graph, target), rule.__name__)
    yield from memory_rule(graph, target, memory)
    parser = parser_of(target)
    if parser is not None:
        for parser_rule in PARSER_RULES:
            yield from _whole(parser_rule(graph, parser), parser_rule.__name__)


def _whole(found: Iterator[Finding], rule: str) -> Iterator[Finding]:
    """A rule's findings; where it meets a node that ONNX does not allow, it stops, and that is one more."""
    try:
        yield from found
    except Exception as error:  # a malformed node may raise anything
        yield Finding(
            "not-judged",
            "",
            "",
            "risky",
            f"the rule {rule} stopped at something that it does not expect ({type(error).__name__}: {error}), "
            "and what it would have found after that is missing",
            "see what onnx.checker.check_model(model, full_check=True) says; if that is nothing, report this model",
        )


def _files_of_artifact(folder: Path) -> Mapping[Path, frozenset[str]]:
    """The graphs of an artifact whose hashes hold, each with the nodes that its plan runs in FP16."""
    from deploy_attn.jetson.artifact import open_artifact

    artifact = open_artifact(str(folder))
    listed = artifact.manifest.get("graphs")
    names = [graph.get("file") for graph in listed if isinstance(graph, dict)] if isinstance(listed, list) else []
    if not names or not all(isinstance(name, str) for name in names):
        raise DamagedArtifact(f"The manifest of {folder} lists no graphs. Export the artifact again.")
    planned = _half_nodes(Path(artifact.file(_PLAN))) if _PLAN in artifact.manifest["files"] else frozenset()
    return {Path(artifact.file(str(name))): planned for name in names}


def _plan_beside(file: Path) -> frozenset[str] | None:
    """The FP16 nodes of an artifact's graph, where the file is one that the manifest beside it vouches for."""
    if not file.with_name("manifest.json").is_file():
        return None
    from deploy_attn.jetson.artifact import SELF_HASH, file_sha256, manifest_sha256, read_manifest

    try:
        manifest = read_manifest(str(file.parent))
        files = manifest.get("files", {})
        graph, plan = files.get(file.name), files.get(_PLAN)
        vouched = manifest.get(SELF_HASH) == manifest_sha256(manifest) and graph == file_sha256(str(file))
        if not vouched:
            return None
        if plan is None:
            return frozenset()
        beside = file.with_name(_PLAN)
        return _half_nodes(beside) if plan == file_sha256(str(beside)) else None
    except (DeployAttnError, OSError, AttributeError, TypeError, ValueError):
        return None  # a manifest that is none vouches for nothing


def _half_nodes(plan: Path) -> frozenset[str]:
    try:
        nodes = json.loads(plan.read_text(encoding="utf-8"))["nodes"]
        return frozenset(node["node"] for node in nodes if node["precision"] == "fp16")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise BadRequest(f"{plan} cannot be read as a precision plan: {error}. Export the artifact again.") from error
