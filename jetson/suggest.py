"""Names that exist, nearest to what was asked first."""

import difflib
from typing import Iterable

MOST_NAMES = 30  # more than the catalogue has; a user's own file may define hundreds


def known_names(asked: str, known: Iterable[str]) -> str:
    """A sentence for an error message: `Known: cbam, eca, se.`, nearest first."""

    def distance(name: str) -> float:
        # The letters count beside their order: swapped ones are the commonest slip.
        given, known_as = asked.lower(), name.lower()
        in_order = difflib.SequenceMatcher(None, given, known_as).ratio()
        return -in_order - difflib.SequenceMatcher(None, sorted(given), sorted(known_as)).ratio()

    names = sorted(sorted(known), key=distance)
    more = " and {} more".format(len(names) - MOST_NAMES) if len(names) > MOST_NAMES else ""
    return "Known: {}{}.".format(", ".join(names[:MOST_NAMES]), more)
