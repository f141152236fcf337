"""A bundle for a person: what went in, how large it is, and what to do with it."""

from __future__ import annotations

from deploy_attn.bundling import BundleReport

_PARTS = ("graphs", "reference", "runner", "rest")


def lines(report: BundleReport) -> list[str]:
    """The lines of `deploy-attn bundle`."""
    parts = ", ".join(f"{part} {_size(report.parts[part])}" for part in _PARTS)
    return [
        f"{report.name} for {report.target}: {_size(report.size_bytes)} (before compression: {parts})",
        *(f"left out: {file}: {reason}" for file, reason in report.left_out.items()),
        f"sha256: {report.sha256}",
        f"capsule: {report.archive}",
        f"on the device: tar xf {report.archive.name} && cd {report.folder} && python3 run.py",
    ]


def _size(nbytes: int) -> str:
    return f"{nbytes / 1e6:.2f} MB" if nbytes >= 1e6 else f"{nbytes / 1e3:.1f} kB"
