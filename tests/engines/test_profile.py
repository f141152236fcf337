"""The shapes that an engine takes: read from the graph, chosen from the parity cases, held against both."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy_attn.engines.profile import (
    ShapeRange,
    check_profile,
    input_shapes,
    profile_from_cases,
    shape_from_text,
    shape_text,
)
from deploy_attn.jetson.errors import BadRequest

EXTENTS = st.integers(1, 512)


def test_a_profile_goes_from_one_on_open_axes_over_the_first_case_to_the_largest() -> None:
    shapes = [{"x": (1, 8, 14, 20)}, {"x": (4, 8, 14, 14)}]
    assert profile_from_cases({"x": (None, 8, 14, None), "fixed": (1, 2)}, shapes) == {
        "x": ShapeRange((1, 8, 14, 1), (1, 8, 14, 20), (4, 8, 14, 20))
    }


@given(st.lists(st.tuples(EXTENTS, EXTENTS, EXTENTS), min_size=1, max_size=5), st.sets(st.integers(0, 2)))
def test_a_profile_covers_every_case_and_fits_the_graph(shapes: list[tuple[int, ...]], open_axes: set[int]) -> None:
    fixed = shapes[0]
    cases = [tuple(got if axis in open_axes else fixed[axis] for axis, got in enumerate(shape)) for shape in shapes]
    inputs = {"x": tuple(None if axis in open_axes else extent for axis, extent in enumerate(fixed))}
    profile = profile_from_cases(inputs, [{"x": case} for case in cases])
    check_profile(profile, inputs)
    assert set(profile) == ({"x"} if open_axes else set())
    for case in cases if profile else ():
        span = profile["x"]
        assert all(low <= extent <= high for low, extent, high in zip(span.minimum, case, span.maximum))


@given(st.lists(EXTENTS, min_size=1, max_size=5))
def test_a_shape_is_read_as_it_is_written(extents: list[int]) -> None:
    assert shape_from_text(shape_text(extents), "--min") == tuple(extents)


@pytest.mark.parametrize("text", ["", "x", "1x", "1x-2", "1x0", "1x2.0", "1 x 2", "axb", "1x²", "1x99999999999", "1,2"])
def test_whatever_is_no_shape_is_refused_with_the_option_that_it_was_given_to(text: str) -> None:
    with pytest.raises(BadRequest, match=r"--max .* is not a shape\. It takes numbers of at least 1, as in 1x64x56x56"):
        shape_from_text(text, "--max")


@pytest.mark.parametrize(("content", "message"), [(b"no such thing", "not an ONNX file"), (b"", "hold no graph")])
def test_other_bytes_have_no_inputs(content: bytes, message: str) -> None:
    with pytest.raises(BadRequest, match=message):
        input_shapes(content)
