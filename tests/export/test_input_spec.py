"""Holds that shapes, types and names of inputs are read as they are written, or refused with what is possible."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy_attn.export.input_spec import TYPES, InputSpec, specs_of
from deploy_attn.jetson.errors import BadRequest

SHAPES = st.lists(st.integers(1, 28), min_size=1, max_size=6).map(tuple)  # the largest is below the most values
NAMES = st.none() | st.from_regex(r"[a-z_][a-z0-9_]{0,8}", fullmatch=True)


@given(SHAPES, NAMES, st.sampled_from(TYPES))
def test_an_input_is_read_back_from_its_own_text(shape: tuple[int, ...], name: str | None, dtype: str) -> None:
    spec = InputSpec(shape, name, dtype)
    assert specs_of(spec.text) == (spec,)


@pytest.mark.parametrize(
    ("shapes", "specs"),
    [
        ((1, 3, 8, 8), [InputSpec((1, 3, 8, 8))]),
        ([1, 3, 8, 8], [InputSpec((1, 3, 8, 8))]),
        ("1X3x8x8", [InputSpec((1, 3, 8, 8))]),
        (((1, 3, 8, 8), (1, 4)), [InputSpec((1, 3, 8, 8)), InputSpec((1, 4))]),
        (["1x3x8x8", "ids=1x4:int64"], [InputSpec((1, 3, 8, 8)), InputSpec((1, 4), "ids", "int64")]),
        ({"x": (1, 3), "m": "1x4:bool"}, [InputSpec((1, 3), "x"), InputSpec((1, 4), "m", "bool")]),
    ],
    ids=str,
)
def test_shapes_come_alone_in_a_row_or_by_name(shapes: Any, specs: list[InputSpec]) -> None:
    assert list(specs_of(shapes)) == specs


@pytest.mark.parametrize(
    ("shapes", "said"),
    [
        ("1x64x-5", "is not a shape"),
        ("1x", "is not a shape"),
        ("", "is not a shape"),
        ("=1x3", "is not a shape"),
        ("1x3:", "is not a shape"),
        ("1x3:float16", "cannot be of type 'float16'. Known: float32, int64, int32, bool"),
        ("two words=1x3", "names no argument"),
        ("1x²", "is not a shape"),
        ((1, 0, 3), "is not a shape"),
        ((True, 3), "is not a shape"),
        ((1.0, 3), "is not a shape"),
        ((1,) * 7, "is not a shape"),
        ((2**15, 2**15), "at most"),
        (3, "is not a shape"),
        ([(1, 3), 4], "is not a shape"),
        (["x=1x3", "x=1x4"], "twice"),
        (["x=1x3", "1x4"], "Put those without a name first"),
        ({"x": None}, "is not a shape"),
    ],
    ids=str,
)
def test_what_is_no_input_is_refused(shapes: Any, said: str) -> None:
    with pytest.raises(BadRequest, match=said):
        specs_of(shapes)
