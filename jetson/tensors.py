"""What a loaded graph says of an input or output."""

from typing import NamedTuple, Optional, Sequence, Tuple

import numpy as np


class Tensor(NamedTuple):
    """An input or output of a graph; an axis of None is open. `dtype` is numpy's name."""

    name: str
    dtype: str
    shape: Tuple[Optional[int], ...]

    def takes(self, shape: Sequence[int]) -> bool:
        """Whether an array of this shape fits."""
        return len(shape) == len(self.shape) and all(want in (None, got) for want, got in zip(self.shape, shape))

    def mismatch(self, array: np.ndarray) -> str:
        """A sentence on an input that does not fit."""
        return "Input {!r} takes {} of shape {}, got {} of shape {}.".format(
            self.name, self.dtype, shape_text(self.shape), array.dtype, shape_text(array.shape)
        )


def shape_text(shape: Sequence[Optional[int]]) -> str:
    return "x".join("?" if extent is None else str(extent) for extent in shape) or "scalar"
