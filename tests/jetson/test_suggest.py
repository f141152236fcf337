"""Names that exist are listed whole, nearest to what was asked first, in an order that never wavers."""

from typing import List

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy_attn.jetson.suggest import MOST_NAMES, known_names

NAMES = st.lists(st.text("abcdeXYZ_", min_size=1, max_size=6), min_size=1, unique=True)


@pytest.mark.parametrize(("asked", "nearest"), [("cbma", "cbam"), ("see", "se"), ("ec", "eca"), ("CBAM", "cbam")])
def test_the_nearest_name_comes_first(asked: str, nearest: str) -> None:
    assert known_names(asked, ["eca", "se", "cbam"]).startswith(f"Known: {nearest}, ")


def test_swapped_letters_are_near() -> None:
    names = ["se", "cbam", "cbam_residual", "eca", "eca_fixed", "s2"]
    assert known_names("cmab", names).startswith("Known: cbam, ")
    assert known_names("es", names).startswith("Known: se, ")


def test_names_that_are_equally_near_are_in_alphabetical_order() -> None:
    assert known_names("zzz", ["se", "cbam", "eca"]) == "Known: cbam, eca, se."


def test_names_may_come_from_an_iterator() -> None:
    assert known_names("b", iter(("a", "b"))) == "Known: b, a."


@given(asked=st.text(max_size=6), names=NAMES)
def test_every_name_is_listed_once_whatever_was_asked(asked: str, names: List[str]) -> None:
    sentence = known_names(asked, names)
    assert sentence.startswith("Known: ")
    assert sentence.endswith(".")
    listed, _, rest = sentence[len("Known: ") : -1].partition(" and ")
    shown = listed.split(", ")
    assert len(set(shown)) == len(shown) == min(len(names), MOST_NAMES)
    assert set(shown) <= set(names)
    assert rest == (f"{len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else "")


def test_only_the_nearest_of_many_names_are_listed() -> None:
    sentence = known_names("name7", [f"name{index}" for index in range(100)])
    assert sentence.startswith("Known: name7, ")
    assert sentence.endswith(" and 70 more.")


@given(asked=st.text(max_size=6), names=NAMES)
def test_the_order_in_which_names_are_given_does_not_matter(asked: str, names: List[str]) -> None:
    assert known_names(asked, names) == known_names(asked, reversed(names))


@given(names=NAMES)
def test_a_name_that_exists_is_its_own_nearest(names: List[str]) -> None:
    distinct = list({name.lower(): name for name in names}.values())
    assert known_names(distinct[-1], distinct)[len("Known: ") : -1].split(", ")[0] == distinct[-1]
