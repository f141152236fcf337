"""Comparisons as an artifact's folder keeps them; a newer one takes the place of the last answer to its question."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from deploy_attn.benching.file import MOST, SCHEMA, bench_fields
from deploy_attn.engines.json_fields import Fields
from deploy_attn.engines.latency.result import Comparison
from deploy_attn.stored import changing, keep_text


@dataclass(frozen=True)
class Record:
    """A comparison, the precision of the artifact's graph in it, and when it ended (ISO 8601, UTC)."""

    precision: str
    when: str
    comparison: Comparison

    @classmethod
    def now(cls, precision: str, comparison: Comparison) -> Record:
        return cls(precision, datetime.now(timezone.utc).isoformat(timespec="seconds"), comparison)

    def as_dict(self) -> dict[str, Any]:
        return {"precision": self.precision, "when": self.when, **self.comparison.as_dict()}


@dataclass(frozen=True)
class RecordFile:
    """`bench-ENGINE.json` of one artifact.

    Attributes:
        name: the artifact's.
        artifact_sha256: of its manifest; records of another one are not kept.
    """

    folder: Path
    engine: str
    name: str
    artifact_sha256: str

    @property
    def file(self) -> Path:
        return self.folder / f"bench-{self.engine}.json"

    def kept(self) -> list[Mapping[str, Any]]:
        """The comparisons that are there, of this artifact.

        Raises:
            BadRequest: the file is none of this schema.
        """
        if not self.file.exists():
            return []
        top = bench_fields(self.file)
        if top.text("artifact_sha256") != self.artifact_sha256:
            return []
        return [part.values for part in top.parts("comparisons") if _question(part)]

    def keep(self, record: Record) -> None:
        """Adds a record as the newest, in place of one with the same precision, baseline, cache regime and threads.

        What other processes keep at the same time stays; of more than a file may hold, the oldest go.

        Raises:
            BadRequest: the file that is there is none, or cannot be written.
        """
        document = record.as_dict()
        question = self._asked(document)
        with changing(self.file):
            others = [one for one in self.kept() if self._asked(one) != question]
            content = {
                "schema_version": SCHEMA,
                "engine": self.engine,
                "name": self.name,
                "artifact_sha256": self.artifact_sha256,
                "comparisons": [*others, document][-MOST:],
            }
            keep_text(self.file, json.dumps(content, indent=2, allow_nan=False) + "\n")

    def _asked(self, document: Mapping[str, Any]) -> tuple[str, str, str, int]:
        return _question(Fields(self.file, document, ""))


def _question(part: Fields) -> tuple[str, str, str, int]:
    """What a comparison asks: a newer answer to the same takes its place."""
    conditions = part.part("conditions")
    threads = conditions.count("threads") if conditions.has("threads") else 0
    return part.text("precision"), part.part("baseline").text("label"), conditions.text("cache"), threads
