"""How to run a capsule on boards."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from deploy_attn.jetson.arguments import ENGINES
from deploy_attn.jetson.errors import BadRequest
from deploy_attn.jetson.parity import PRECISIONS
from deploy_attn.jetson.suggest import known_names

REMOTE_FOLDER = "~/.cache/deploy-attn"
LONGEST = 3600.0  # seconds of timing, as run.py takes them
_VALUES = ("engine", "precision", "duration")


@dataclass(frozen=True)
class RemoteOptions:
    """How to run a capsule on boards.

    Attributes:
        target: what to bundle an artifact's folder for; its own target by default.
        engine, precision, duration, quick, pin_clocks: of run.py, which has its own defaults.
        output: where verdicts and logs go; the artifact's folder, or the one that the capsule lies in.
        remote_folder: on the board, where capsules are kept and run.
        python: the interpreter on the board.
        keep: leave on the board what was unpacked and made.
        timeout: seconds for copy and run on one board.
    """

    target: str | None = None
    engine: str | None = None
    precision: str | None = None
    duration: float | None = None
    quick: bool = False
    pin_clocks: bool = False
    output: Path | None = None
    remote_folder: str = REMOTE_FOLDER
    python: str = "python3"
    keep: bool = False
    timeout: float = 3600.0

    @property
    def arguments(self) -> tuple[str, ...]:
        """Of run.py."""
        given = {name: getattr(self, name) for name in _VALUES if getattr(self, name) is not None}
        pairs = [word for name, value in given.items() for word in (f"--{name}", str(value))]
        flags = ("--quick",) * self.quick + ("--pin-clocks",) * self.pin_clocks
        return (*pairs, *flags)

    def check(self) -> None:
        """Raises BadRequest for what no board could do, before any is asked."""
        for name, known in (("engine", ENGINES), ("precision", PRECISIONS)):
            asked = getattr(self, name)
            if asked is not None and asked not in known:
                raise BadRequest(f"Unknown {name} {asked!r}. {known_names(asked, known)}")
        if self.duration is not None and not 0 < self.duration <= LONGEST:
            raise BadRequest(f"--duration {self.duration:g} is not a number of seconds up to {LONGEST:g}.")
        if not 0 < self.timeout < math.inf:
            raise BadRequest(f"--timeout {self.timeout:g} is not a number of seconds.")
        for flag, text in (("--remote-folder", self.remote_folder), ("--python", self.python)):
            if not text.strip() or not text.isprintable() or text.startswith("-"):
                raise BadRequest(f"{flag} {text!r} is no path on a board.")
