"""Files of cells: what is written is read again, and what contradicts itself is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from deploy_attn.jetson.errors import BadRequest
from deploy_attn.sweeping.cell_file import Figures, Kept, Outcome, Spread, read_cell
from deploy_attn.sweeping.plan import Cell, Effort, Module
from tests.deploy_attn.sweeping.fake_cell import OUTCOME as FAKE_OUTCOME

OUTCOME = MappingProxyType(FAKE_OUTCOME)
CELL = Cell(Module("se", (("reduction", "8"),)), "1x8x4x4", "fp16", "onnxruntime")


def outcome(reason: str = "", figures: Figures | None = None, holds: bool | None = None) -> Outcome:
    return Outcome(reason, holds, figures, "there", {"torch": "2"}, "2026-01-01T00:00:00+00:00", 1.5)


@pytest.mark.parametrize(
    "kept",
    [
        Kept("abc", CELL, Effort("naive", 2.0), "se-abc", outcome("", Figures(1.0, 2.0, 30), holds=True)),
        Kept(
            "abc",
            CELL,
            Effort(),
            "se-abc",
            outcome("", Figures(1.0, 2.0, 9, "naive", Spread(1.1, 1.0, 1.2, 9, 0.1), None, "too few"), holds=True),
        ),
        Kept("abc", CELL, Effort(), None, outcome("it crashed")),
        Kept("abc", CELL, Effort(), "se-abc", outcome("parity", holds=False)),
    ],
)
def test_what_is_written_is_read_again(tmp_path: Path, kept: Kept) -> None:
    (tmp_path / "abc.json").write_text(json.dumps(kept.as_dict()))
    assert read_cell(tmp_path / "abc.json") == kept


DAMAGE: list[tuple[str, Callable[[dict[str, Any]], Any]]] = [
    ("'schema_version' is 2", lambda d: d.update(schema_version=2)),
    ("'key' is \"other\"", lambda d: d.update(key="other")),
    ("'artifact' is \"../../etc\"", lambda d: d.update(artifact="../../etc")),
    ("'status' is \"odd\"", lambda d: d.update(status="odd")),
    ("'status' is \"done\", which the reason", lambda d: d.update(reason="it crashed")),
    ("'status' is \"done\", without a verdict", lambda d: d.update(holds=False)),
    ("'status' is \"done\", without a verdict", lambda d: d.update(figures=None)),
    (r"'figures\.median_ms' is -1", lambda d: d["figures"].update(median_ms=-1)),
    (r"'figures\.ratio\.median' is null", lambda d: d["figures"]["ratio"].update(median=None)),
    (r"'figures\.ratio\.error' is -1", lambda d: d["figures"]["ratio"].update(error=-1)),
    (r"'cell\.shape' is missing", lambda d: d["cell"].pop("shape")),
    (r"'cell\.options\.reduction' is 8", lambda d: d["cell"]["options"].update(reduction=8)),
]


@pytest.mark.parametrize(("said", "damage"), DAMAGE)
def test_a_file_that_contradicts_itself_is_refused(
    tmp_path: Path, said: str, damage: Callable[[dict[str, Any]], Any]
) -> None:
    figures = Figures(1.0, 2.0, 30, "naive", Spread(1.1, 1.0, 1.2, 30, 0.1), "faster", None)
    document = Kept("abc", CELL, Effort(), "se-abc", outcome("", figures, holds=True)).as_dict()
    damage(document)
    (tmp_path / "abc.json").write_text(json.dumps(document))
    with pytest.raises(BadRequest, match=said):
        read_cell(tmp_path / "abc.json")
