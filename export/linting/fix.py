"""`lint --fix`: a copy of a model with every exact rewrite that its target needs, proven equal, or no copy at all."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deploy_attn.engines.target import Target, load_target
from deploy_attn.export.linting.finding import Finding
from deploy_attn.export.linting.fixed_file import check_output, check_source, default_output, load_weights, write_fixed
from deploy_attn.export.linting.graph import ONNX_DOMAINS
from deploy_attn.export.linting.lint import findings_of
from deploy_attn.export.linting.model_file import read_model
from deploy_attn.export.linting.proof import Proof, prove
from deploy_attn.export.linting.rewriting import HAZARD, VERSION_RULES, Change, Rewritten, rewritten
from deploy_attn.jetson.errors import first_line

if TYPE_CHECKING:
    import onnx

_FOLLOWS_OPSET = "opset"  # what a change is called that no finding asked for


@dataclass(frozen=True)
class Fixed:
    """One thing that was done: for which rule, to which node (empty for the whole model), and what."""

    rule: str
    node: str
    what: str


@dataclass(frozen=True)
class FixReport:
    """What became of a model.

    Attributes:
        model: the file that was looked at.
        target: what it is to be fixed for.
        written: the copy; None where nothing was written.
        fixed: what the copy has otherwise, or would have.
        remaining: what lint still finds, in the copy where there is one.
        refused: what needs a rewrite and has none that is exact.
        proof: both graphs over the same inputs; None where there was nothing to prove.
        problem: why nothing was written; None where it was, or where nothing needs a fix.
    """

    model: str
    target: str
    written: Path | None
    fixed: tuple[Fixed, ...]
    remaining: tuple[Finding, ...]
    refused: tuple[Change, ...]
    proof: Proof | None = None
    problem: str | None = None

    @property
    def passed(self) -> bool:
        """A proven copy was written, or nothing needs a fix."""
        return self.problem is None

    def as_dict(self) -> dict[str, Any]:
        return {
            "passed": self.passed,
            "model": self.model,
            "target": self.target,
            "written": None if self.written is None else str(self.written),
            "problem": self.problem,
            "fixed": [asdict(item) for item in self.fixed],
            "refused": [{"node": item.node, "op_type": item.op_type, "why": item.what} for item in self.refused],
            "remaining": [asdict(item) for item in self.remaining],
            "proof": None if self.proof is None else self.proof.as_dict(),
        }


def fix_model(path: str | Path, target: str, output: str | Path | None = None, force: bool = False) -> FixReport:
    """Writes a copy of a model in which what has an exact rewrite is rewritten.

    Never half-fixed: the copy is written, whole and at once, only if lint finds
    no error in it and onnxruntime computes the same with it. Weights that lie
    in other files come into the copy.

    Args:
        path: an ONNX file.
        target: a name from `target_names()`, or a profile by its path.
        output: the copy; MODEL.fixed.onnx beside the model where left out.
        force: replace a plain file that is there; never the model itself.

    Raises:
        BadRequest: no such target, not an ONNX file, a file of an artifact
            (whose hashes a rewrite would break), over 2 GB with its weights,
            or the copy may not be written where it should.
    """
    source, chosen = Path(path), load_target(target)
    place = default_output(source) if output is None else Path(output)
    check_source(source)
    model = read_model(source)
    check_output(place, source, model, force)
    load_weights(source, model)
    before = findings_of(model, chosen)
    work = rewritten(model, chosen, before)
    report = _judged(source, chosen, before, work)
    if report.problem is not None or not work.done:
        return report
    content = work.model.SerializeToString()
    proof, problem = _shown(model, content, work)
    report = replace(report, proof=proof, problem=problem)
    if problem is not None:
        return report
    write_fixed(place, content, force)
    return replace(report, written=place)


def _judged(source: Path, target: Target, before: list[Finding], work: Rewritten) -> FixReport:
    """What was done and what is left; the proof is to come."""
    after = list(_untouched(before, work)) if work.blocked else findings_of(work.model, target)
    problem = None
    if work.blocked:
        problem = "what the model needs cannot be rewritten exactly"
    elif any(finding.is_error for finding in after):
        problem = "errors are left that have no exact rewrite"
    return FixReport(
        model=str(source),
        target=target.name,
        written=None,
        fixed=tuple(_fixed(before, after, work)),
        remaining=tuple(sorted(after, key=lambda finding: not finding.is_error)),
        refused=work.refused,
        problem=problem,
    )


def _untouched(before: list[Finding], work: Rewritten) -> Iterator[Finding]:
    """What would be left of the findings if the copy were a model."""
    changed = {change.node for change in work.done if change.node}
    return (finding for finding in before if finding.node not in changed)


def _fixed(before: list[Finding], after: list[Finding], work: Rewritten) -> Iterator[Fixed]:
    """What was done, by the findings that it did away with; then what only follows the opset."""
    changes = {change.node: change for change in work.done if change.node}
    of_model = {change.rule: change for change in work.done if not change.node}
    left = {(finding.rule, _origin(finding.node, changes)) for finding in after}
    named = set()
    for finding in before:
        if (finding.rule, finding.node) in left or finding.rule.startswith(HAZARD):
            continue
        change = of_model.get(finding.rule) or changes.get(finding.node) or of_model.get(VERSION_RULES[0])
        if change is not None:
            named.add(change)
            yield Fixed(finding.rule, finding.node, change.what)
    for change in work.done:
        if change not in named:
            yield Fixed(change.rule or _FOLLOWS_OPSET, change.node, change.what)


def _origin(name: str, changes: dict[str, Change]) -> str:
    """The node that a new node stands for: new ones are called NODE/OPERATOR."""
    before = name.rpartition("/")[0]
    return before if before in changes and name not in changes else name


def _shown(model: onnx.ModelProto, content: bytes, work: Rewritten) -> tuple[Proof | None, str | None]:
    """The proof that what is about to be written is the model, and what speaks against writing it."""
    import onnx

    fault = _fault(content)
    if fault is not None and fault != _fault(model):
        return None, f"onnx's checker refuses the copy: {fault}"
    copy = onnx.load_from_string(content)
    opsets = {item.version for item in copy.opset_import if item.domain in ONNX_DOMAINS}
    if not opsets <= {work.opset} or copy.ir_version != work.model.ir_version:
        return None, f"the copy reads back with opset {opsets} and IR version {copy.ir_version}"
    del copy  # a second one of the weights
    proof = prove(model, content)
    return proof, None if proof.passed else f"the copy is not proven to compute the same: {proof.failure}"


def _fault(model: onnx.ModelProto | bytes) -> str | None:
    """What onnx's checker and its strict shape inference say against a model."""
    import onnx

    try:
        onnx.checker.check_model(model, full_check=True)
    except Exception as error:  # compiled code raises many types
        return first_line(error)
    return None
