"""The catalogue as a table and as JSON, without any library."""

from __future__ import annotations

from collections.abc import Sequence

from deploy_attn.modules.catalogue import entries
from deploy_attn.modules.settings import option_text

_HEADINGS = ("NAME", "YEAR", "ARXIV", "TITLE", "OPTIONS", "NEEDS")


def catalogue_table() -> str:
    """One row a module, columns aligned."""
    rows = [_HEADINGS]
    for entry in entries():
        options = " ".join(f"{option.name}={option_text(option.default)}" for option in entry.options) or "-"
        needs = ", ".join(constraint.text for constraint in (*entry.constraints, *entry.map_constraints)) or "-"
        rows.append((entry.name, str(entry.year), entry.arxiv or "-", entry.title, options, needs))
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADINGS))]
    table = "\n".join(_line(row, widths) for row in rows)
    return f"{table}\n\nOptions are set with --set NAME=VALUE, channels with --channels, height and width with --shape."


def catalogue_json() -> str:
    """A JSON array, one object a module."""
    import json

    return json.dumps(
        [
            {
                "name": entry.name,
                "title": entry.title,
                "year": entry.year,
                "arxiv": entry.arxiv,
                "options": [
                    {
                        "name": option.name,
                        "default": option.default,
                        "meaning": option.meaning,
                        "choices": list(option.choices),
                        "minimum": option.minimum,
                        "maximum": option.maximum,
                    }
                    for option in entry.options
                ],
                "constraints": [constraint.text for constraint in entry.constraints],
                "map_constraints": [constraint.text for constraint in entry.map_constraints],
                "open_map_constraints": [constraint.text for constraint in entry.open_map_constraints],
                "parameters": entry.parameters,
                "macs": entry.macs,
                "hazards": list(entry.hazards),
                "source_arguments": dict(entry.source_arguments),
            }
            for entry in entries()
        ],
        indent=2,
    )


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, widths)).rstrip()
