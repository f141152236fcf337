"""A bundle for a person: what went in, how large it is, and what to do with it."""

from __future__ import annotations

from deploy_attn.bundling import BundleReport, ReferenceSize

_PARTS = ("graphs", "reference", "runner", "rest")


def lines(report: BundleReport) -> list[str]:
    """The lines of `deploy-attn bundle`."""
    parts = ", ".join(f"{part} {_size(report.parts[part])}" for part in _PARTS)
    return [
        f"{report.name} for {report.target}: {_size(report.size_bytes)} (before compression: {parts})",
        _reference_line(report.reference),
        *(f"left out: {file}: {reason}" for file, reason in report.left_out.items()),
        f"sha256: {report.sha256}",
        f"capsule: {report.archive}",
        f"on the device: tar xf {report.archive.name} && cd {report.folder} && python3 run.py",
    ]


def _reference_line(reference: ReferenceSize) -> str:
    """Why the reference is as large as it is."""
    inputs = [
        _counted(reference.regenerated_inputs, "input", "made again on the board"),
        _counted(reference.stored_inputs, "input", f"whole ({_size(reference.stored_inputs_bytes)})"),
    ]
    outputs = [
        _counted(reference.thinned_outputs, "output", "by sampled elements and signed sums of all"),
        _counted(reference.stored_outputs, "output", "whole"),
    ]
    size = f"{_size(reference.size_bytes)} for {_size(reference.artifact_bytes)}"
    return f"reference: {size}: {', '.join(part for part in inputs + outputs if part)}"


def _counted(count: int, noun: str, how: str) -> str:
    return f"{count} {noun}{'s' * (count > 1)} {how}" if count else ""


def _size(nbytes: int) -> str:
    return f"{nbytes / 1e6:.2f} MB" if nbytes >= 1e6 else f"{nbytes / 1e3:.1f} kB"
