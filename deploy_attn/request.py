"""What a user asks of an export."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from deploy_attn.export.input_spec import InputSpec, OneShape, specs_of
from deploy_attn.jetson.errors import BadRequest

DEFAULT_TARGET = "onnxruntime-cpu"


@dataclass(frozen=True)
class ExportRequest:
    """Everything that decides what an export writes.

    Attributes:
        name: a catalogue name, or `file.py:factory`.
        shape: `b c h w`, or text as on the command line (`mask=1x16:bool`), or
            several of these in the order of forward's arguments, or a dict by
            their names; None for the default, or what `input_file` holds.
        channels: short for a shape of the default size.
        fp16: write the typed FP16 graph and its plan as well.
        target: a target's name.
        dynamic_batch: leave the batch axis open.
        dynamic_size: leave height and width open.
        options: options of a catalogue module.
        checkpoint: weights to load.
        input_file: a photo, .npy array or .npz archive as the parity input, instead of noise.
        seed: for weights that no checkpoint gives, and for noise.
        output: the artifact's folder; None for `out/NAME`.
        force: replace an artifact that is there.
        tune: choose export forms and onnxruntime's settings by measurement on this machine.

    Paths may be given as text.

    Raises:
        BadRequest: a shape or a seed that cannot be.
    """

    name: str
    shape: OneShape | Sequence[OneShape] | Mapping[str, OneShape] | None = None
    channels: int | None = None
    fp16: bool = False
    target: str = DEFAULT_TARGET
    dynamic_batch: bool = False
    dynamic_size: bool = False
    options: Mapping[str, object] = field(default_factory=lambda: MappingProxyType({}))
    checkpoint: Path | None = None
    semantics: str | None = None
    input_file: Path | None = None
    seed: int = 0
    output: Path | None = None
    force: bool = False
    tune: bool = False

    def __post_init__(self) -> None:
        for name in ("checkpoint", "input_file", "output"):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, Path(value))
        if self.shape is not None:
            specs_of(self.shape)  # raises over what is no shape
        if not 0 <= self.seed < 2**32:
            raise BadRequest(f"A seed is a number from 0 to {2**32 - 1}, got {self.seed}.")

    @property
    def inputs(self) -> tuple[InputSpec, ...]:
        """What `shape` says of the inputs; empty where nothing was said."""
        return () if self.shape is None else specs_of(self.shape)
