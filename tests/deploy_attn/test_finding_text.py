"""Holds that many findings are read at a glance: those of one kind and one fate in one line."""

from __future__ import annotations

from deploy_attn.export.certificate import Certificate, Trial
from deploy_attn.finding_text import finding_groups
from deploy_attn.rewriting.finding import Finding


def _found(path: str, error: float | None, reason: str | None = None, name: str = "se") -> Finding:
    certificate = None
    if error is not None:
        certificate = Certificate("SE", "SEExport", (Trial("normal", (1, 3), error, 1e-11),) * 9)
    return Finding((path,), "blog.Gate", name, ("keys",), reason is None, reason, certificate)


def test_a_finding_by_itself_is_told_with_its_place_its_class_and_its_worst_error() -> None:
    (line,) = finding_groups([_found("", 2e-16)])
    assert line == (
        "[green]replaced[/green]  se at the module itself (blog.Gate): 9 trials in float64, worst error 2.0e-16"
    )


def test_equal_ones_share_a_line_with_their_number_and_the_worst_of_them() -> None:
    (line,) = finding_groups([_found(f"layer{index}.gate", index * 1e-16) for index in range(1, 17)])
    assert "16 x se at layer1.gate, layer2.gate, layer3.gate, ..., layer16.gate (blog.Gate)" in line
    assert "144 trials in float64, worst error 1.6e-15" in line


def test_another_fate_mechanism_or_reason_is_another_line() -> None:
    findings = [
        _found("a", 1e-16),
        _found("b", 1e-16, name="eca"),
        _found("c", 1e-3, "not proven: worst error 1.0e-03"),
        _found("d", None, "the network does not call it [sic]"),
        _found("e", 1e-16),
    ]
    lines = list(finding_groups(findings))
    assert [line.split("  ")[0] for line in lines] == ["[green]replaced[/green]"] * 2 + [
        "[yellow]left alone[/yellow]"
    ] * 2
    assert "2 x se at a, e (blog.Gate)" in lines[0]
    assert lines[3].endswith("d (blog.Gate): the network does not call it \\[sic]")
