"""Parity inputs that any numpy makes again to the last bit, from a seed and a shape."""

from typing import Dict, NamedTuple, Optional, Sequence

import numpy as np

_MARGIN = 2.0**-48


class Rounded(NamedTuple):
    """Draws that lie too near the middle of two floats to be rounded alike everywhere: flat positions, and values."""

    positions: np.ndarray
    values: np.ndarray


def noise_inputs(
    shape: Sequence[int], seed: int, severe: bool, rounded: Optional[Rounded] = None
) -> Dict[str, np.ndarray]:
    """Inputs of `b c h w` in float32, the same for the same seed everywhere: the first is standard normal noise.

    With `severe`, the same noise with a mean of 20 sigma, up or down, in each
    channel, and 100 times the noise: sums over such maps and products of such
    features leave the range of FP16. Without, the noise negated: a network that
    was traced on the first and chose its way by the data shows that on the second.
    """
    random = np.random.RandomState(seed)
    normal = random.standard_normal(shape).astype(np.float32)
    if rounded is not None:
        normal.reshape(-1)[rounded.positions] = rounded.values
    if not severe:
        return {"normal": normal, "negated": -normal}
    means = np.float32(20) * random.choice([-1.0, 1.0], size=(1, shape[1], 1, 1)).astype(np.float32)
    return {"normal": normal, "far_mean": normal + means, "large": np.float32(100) * normal}


def close_calls(shape: Sequence[int], seed: int) -> np.ndarray:
    """Flat positions in the noise where another C library or compiler may give the neighbouring float.

    numpy draws x * sqrt(-2 log(r) / r) with r = x^2 + y^2 < 1 in double (Marsaglia's
    polar method). A last bit of the logarithm moves a draw v by about 2^-53 |v|, a
    fused multiply-add in r, where r is near 1, by 2^-53 / |v|. The margin is 32
    times both; it holds some hundred of 200,000 draws.
    """
    wide = np.random.RandomState(seed).standard_normal(shape).reshape(-1)
    with np.errstate(divide="ignore", over="ignore"):
        margin = _MARGIN * (np.abs(wide) + 1 / np.abs(wide))
        apart = (wide - margin).astype(np.float32) != (wide + margin).astype(np.float32)
    return np.flatnonzero(apart)


def twice_the_batch(x: np.ndarray) -> np.ndarray:
    """The batch and its mirror images, for a graph whose batch is open."""
    return np.ascontiguousarray(np.concatenate([x, x[..., ::-1]]))


def larger_map(x: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """The maps with so many rows and columns more, repeated from their start, for a graph whose size is open."""
    height, width = x.shape[2:]
    return np.ascontiguousarray(x[:, :, np.arange(height + rows) % height][..., np.arange(width + columns) % width])
