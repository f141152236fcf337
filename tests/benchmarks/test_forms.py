"""benchmarks/forms.py --choice: what was not decided is no success, and a module with one form costs nothing."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


def tried(chosen: str, decided: bool = True) -> list[dict[str, Any]]:
    """The forms of a module as `export --tune` tells them."""
    ratio = {"median": 1.2, "p10": 1.1, "p90": 1.3, "pairs": 40}
    shipped = {"form": "cpu", "ratio": None, "error": None, "chosen": chosen == "cpu", "decided": True, "reason": "A"}
    other = {"form": "gpu", "ratio": ratio, "error": 0.3, "chosen": chosen == "gpu", "decided": decided, "reason": "B"}
    return [shipped, other]


@pytest.fixture
def choice(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Any]:
    """Runs the script with these outcomes by module: its exit code, the rows by module and map, and what was asked."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    forms = importlib.import_module("forms")
    monkeypatch.setattr(forms, "machine", lambda: {"cpu": "a processor", "cores": 2})

    def run(found: dict[str, Any], *arguments: str) -> Any:
        asked = []

        def outcome(case: Any, shape: Any, seconds: float) -> Any:
            asked.append((case.label, forms.shape_text(shape)))
            return found[case.name]

        monkeypatch.setattr(forms, "tried_forms", outcome)
        file = tmp_path / "choice.json"
        options = ["--choice", "--names", *found, "--output", str(file), *arguments]
        monkeypatch.setattr(sys, "argv", ["forms.py", *options])
        code = forms.main()
        rows = json.loads(file.read_text(encoding="utf-8"))["rows"] if file.exists() else []
        return code, {(row["case"], row["shape"]): row for row in rows}, asked

    return run


@pytest.mark.parametrize(
    ("outcome", "code", "verdict"),
    [
        (tried("cpu"), 0, "stands"),
        (tried("gpu"), 1, "faster"),
        (tried("cpu", decided=False), 1, "not decided"),
    ],
)
def test_the_exit_code_and_the_row_tell_what_stands_from_what_was_not_decided(
    choice: Callable[..., Any], capsys: pytest.CaptureFixture[str], outcome: Any, code: int, verdict: str
) -> None:
    found, rows, _ = choice({"simam": outcome}, "--shapes", "1x64x8x8")
    assert found == code
    row = rows["simam", "1x64x8x8"]
    assert (row["verdict"], row["tried"]) == (verdict, outcome)
    told = capsys.readouterr()
    assert told.out.rstrip().endswith(
        f"cpu -{' chosen' if verdict != 'faster' else ''}  "
        f"gpu 1.20 +- 0.300{' chosen' if verdict == 'faster' else ''}  {verdict}"
    )
    assert ("simam at 1x64x8x8: gpu, B" in told.err) == bool(code)


def test_by_default_modules_with_several_forms_are_measured_on_two_maps(choice: Callable[..., Any]) -> None:
    code, rows, asked = choice({"simam": tried("cpu"), "se": tried("gpu"), "mhsa": tried("cpu")})
    assert code == 0, "se has one form, which nothing can beat"
    labels = ("mhsa", "mhsa pos_emb=True", "simam")
    assert asked == [(label, shape) for label in labels for shape in ("1x64x56x56", "1x256x28x28")]
    assert set(rows) == set(asked)
