"""What the machine of a bench does at most, measured once for each number of threads; a failure is a note."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deploy_attn.benching.subject import Subject
from deploy_attn.engines.machine_limits import measured_limits
from deploy_attn.jetson.errors import BadRequest


@dataclass
class Roofs:
    """Measures when it is first asked, for calls that read and write `size_bytes`."""

    size_bytes: int
    notes: list[str] = field(default_factory=list)
    _found: dict[int, dict[str, Any] | None] = field(default_factory=dict)

    def on(self, threads: int) -> dict[str, Any] | None:
        """As conditions of a record hold it; None where it cannot be measured."""
        if threads not in self._found:
            try:
                self._found[threads] = measured_limits(self.size_bytes, threads).as_dict()
            except BadRequest as error:
                self._found[threads] = None
                self.notes.append(f"{error} The records have no roof.")
        return self._found[threads]


def roofs_of(subject: Subject) -> Roofs:
    """For the timed case of an artifact: its inputs, its outputs, and weights of the size of its largest graph."""
    case, artifact = subject.case, subject.artifact
    moved = sum(array.nbytes for arrays in (case.inputs, case.outputs) for array in arrays.values())
    graphs = (Path(artifact.file(str(graph["file"]))) for graph in artifact.manifest["graphs"])
    return Roofs(moved + max(file.stat().st_size for file in graphs))
