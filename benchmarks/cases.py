"""What the benchmarks measure: modules with their options, weights that hide nothing, and files of results."""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

import deploy_attn
from deploy_attn.engines.latency.machine import cpu_name
from deploy_attn.modules.base import ReferenceForm
from deploy_attn.modules.catalogue import Shape
from deploy_attn.modules.disturb import disturb_constants

MEASURED = Path(__file__).resolve().parents[1] / "docs" / "measured"
Result = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """A module and the options that it is measured with; some follow the map's height and width."""

    label: str
    name: str
    options: Callable[[int, int], Mapping[str, object]]

    def reference(self, shape: Shape) -> ReferenceForm:
        """A seeded reference form, with noise on what starts as a constant: a gate of zero would hide a wrong graph."""
        torch.manual_seed(0)
        form = deploy_attn.create(self.name, channels=shape[1], **self.options(*shape[2:])).eval()
        disturb_constants(form)
        return form


def _patches_that_fit(height: int, width: int) -> Mapping[str, object]:
    return {"patch_size": 7 if height % 7 == width % 7 == 0 else 2}


def _table_of_the_map(height: int, width: int) -> Mapping[str, object]:
    return {"pos_emb": True, "width": height, "height": width}


def _pooling_that_exports(height: int, width: int) -> Mapping[str, object]:
    """The source pools to the size of its DCT, which the exporter takes only where that divides the map."""
    return {"dct_height": _divisor(height), "dct_width": _divisor(width)}


def _divisor(extent: int) -> int:
    return next(size for size in (7, 13, extent) if extent % size == 0)


_OPTIONS: Mapping[str, Callable[[int, int], Mapping[str, object]]] = {
    "fca": _pooling_that_exports,
    "mobilevit": _patches_that_fit,
}
_MORE = {"mhsa": (Case("mhsa pos_emb=True", "mhsa", _table_of_the_map),)}


def cases(names: Sequence[str]) -> list[Case]:
    """The cases of these modules, of all if none is named, in alphabetical order."""
    found = []
    for name in deploy_attn.available():
        if not names or name in names:
            found += [Case(name, name, _OPTIONS.get(name, lambda height, width: {})), *_MORE.get(name, ())]
    return found


def shape_text(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))


def shape_from_text(text: str) -> Shape:
    batch, channels, height, width = map(int, text.split("x"))
    return batch, channels, height, width


def name_argument(text: str) -> str:
    """A catalogue name, for argparse."""
    if text not in deploy_attn.available():
        raise argparse.ArgumentTypeError(f"{text!r} is not one of {', '.join(deploy_attn.available())}")
    return text


def machine() -> dict[str, object]:
    """The processor as the operating system names it."""
    return {"cpu": cpu_name(), "cores": os.cpu_count()}


def versions(*distributions: str) -> dict[str, str]:
    return {"python": platform.python_version(), **{name: version(name) for name in distributions}}


class Results:
    """A JSON file of rows; rows that are measured anew replace those of the same key.

    Raises:
        SystemExit: some rows of the file would stay, and were measured under another head (another
            machine, version or method): one table must not mix them.
    """

    def __init__(self, file: Path, head: Result, key: Sequence[str], renewed: Iterable[tuple[str, ...]]) -> None:
        self._file, self._head, self._key = file, head, key
        self._rows: dict[tuple[str, ...], Result] = {}
        if not file.exists():
            return
        before = json.loads(file.read_text(encoding="utf-8"))
        stays = {self._key_of(row): row for row in before.pop("rows")}
        for one in renewed:
            stays.pop(one, None)
        if stays and before != json.loads(json.dumps(head)):
            raise SystemExit(f"{file} was measured under other conditions; measure all of it anew, without filters.")
        self._rows = stays

    def add(self, row: Result) -> None:
        """Takes a row and writes the file, so that a run that is stopped loses nothing."""
        self._rows[self._key_of(row)] = row
        rows = [self._rows[key] for key in sorted(self._rows)]
        head = json.dumps(self._head, indent=2, allow_nan=False).removesuffix("\n}")
        lines = ",\n".join(f"    {json.dumps(row, allow_nan=False)}" for row in rows)
        self._file.parent.mkdir(parents=True, exist_ok=True)
        self._file.write_text(f'{head},\n  "rows": [\n{lines}\n  ]\n}}\n', encoding="utf-8")

    def _key_of(self, row: Result) -> tuple[str, ...]:
        return tuple(str(row[name]) for name in self._key)
