"""The shape of a map is read from any layout that the map was put into."""

from __future__ import annotations

import pytest
import torch

from deploy_attn.export.layout import Layout, laid_out, map_shape

MAP = torch.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5)


@pytest.mark.parametrize(
    ("layout", "shape", "read"),
    [
        ("b c h w", (2, 3, 4, 5), (2, 3, 4, 5)),
        ("b h w c", (2, 4, 5, 3), (2, 3, 4, 5)),
        ("b n c", (2, 20, 3), (2, 3, 20, 1)),
    ],
)
def test_a_layout_is_read_as_it_was_made(layout: Layout, shape: tuple[int, ...], read: tuple[int, ...]) -> None:
    made = laid_out(MAP, layout)
    assert made.shape == shape
    assert made.is_contiguous()
    assert map_shape(shape, layout) == read
    assert map_shape((*shape, 1), layout) is None
    last = MAP if layout == "b c h w" else MAP.movedim(1, -1)
    assert torch.equal(made.flatten(), last.flatten())
