"""The page of artifacts: read, put together, and written as one file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from deploy_attn.html_report.across import across_section
from deploy_attn.html_report.blocks import Page, Section
from deploy_attn.html_report.conditions import conditions_section
from deploy_attn.html_report.facts import standings
from deploy_attn.html_report.latency import latency_section
from deploy_attn.html_report.precision import precision_section
from deploy_attn.html_report.rooflines import roofline_section
from deploy_attn.html_report.subjects import Subject, subjects_of
from deploy_attn.html_report.verdicts import verdict_section
from deploy_attn.jetson.errors import BadRequest
from deploy_attn.output_file import check_output, write_output

Form = Literal["html", "markdown"]
_SUFFIXES: Mapping[Form, tuple[str, ...]] = MappingProxyType(
    {"html": (".html", ".htm"), "markdown": (".md", ".markdown")}
)


@dataclass(frozen=True)
class PageReport:
    """A page, and where it was written; `file` is None where only its text was asked for."""

    passed: bool
    artifacts: tuple[str, ...]
    text: str
    file: Path | None

    def as_dict(self) -> dict[str, Any]:
        return {
            "passed": self.passed,
            "artifacts": list(self.artifacts),
            "file": None if self.file is None else str(self.file),
            "size_bytes": len(self.text.encode("utf-8")),
            "text": self.text if self.file is None else None,
        }


def page_report(
    paths: Sequence[str | Path], form: Form, output: str | Path | None = None, force: bool = False
) -> PageReport:
    """Makes the page of one or several artifacts.

    Args:
        paths: artifacts' folders, folders of such, and verdicts or folders of verdicts of these artifacts.
        form: `html`, one file that loads nothing, or `markdown`.
        output: the file; None for the text alone.
        force: replace a file that is there.

    Raises:
        BadRequest: what `subjects_of` says, something that the form needs is not installed, or the file exists or
            cannot be written.
        DamagedArtifact: a file of an artifact's folder differs from its manifest.
    """
    file = None if output is None else _destination(Path(output), form, force)
    subjects = subjects_of(paths)
    page = _page(subjects)
    if form == "html":
        from deploy_attn.html_report.html import html_of as text_of
    else:
        from deploy_attn.html_report.markdown import markdown_of as text_of
    text = text_of(page)
    if file is not None:
        write_output(file, text.encode("utf-8"), force)
    return PageReport(page.passed, tuple(subject.label for subject in subjects), text, file)


def _page(subjects: Sequence[Subject]) -> Page:
    reports = [subject.report for subject in subjects]
    held = sum(verdict.passed for report in reports for verdict in report.verdicts)
    named = sum(len(report.verdicts) + len(report.set_apart) for report in reports)
    several = f"{len(subjects)} artifacts" if len(subjects) > 1 else subjects[0].label
    return Page(
        title=f"Report on {several}",
        passed=all(report.passed for report in reports),
        summary=f"{held} of {named} verdicts hold.",
        sections=tuple(_sections(subjects)),
    )


def _sections(subjects: Sequence[Subject]) -> Iterator[Section]:
    found = [one for subject in subjects for one in standings(subject)]
    yield across_section(subjects, found)
    yield roofline_section(subjects, found)
    for number, subject in enumerate(subjects, 1):
        anchor = f"artifact{number}"
        parts = (verdict_section, latency_section, precision_section, conditions_section)
        title = subject.label if len(subjects) == 1 else f"{number}. {subject.label}"
        yield Section(title, anchor, (), tuple(part(subject, anchor) for part in parts))


def _destination(file: Path, form: Form, force: bool) -> Path:
    suffixes = _SUFFIXES[form]
    check_output(file, force, f"report{suffixes[0]}")
    if file.suffix.lower() not in suffixes:
        other = "leave --markdown out for a page in HTML" if form == "markdown" else "add --markdown for Markdown"
        raise BadRequest(f"{file} would hold {form}, which its name does not say: name it {suffixes[0]}, or {other}.")
    return file
