"""Names that exist, nearest to what was asked first."""

import difflib
from typing import Iterable

MOST_NAMES = 30  # more than the catalogue has; a user's own file may define hundreds


def known_names(asked: str, known: Iterable[str]) -> str:
    """A sentence for an error message: `Known: cbam, eca, se.`, nearest first."""

    def distance(name: str) -> float:
        return -difflib.SequenceMatcher(None, asked.lower(), name.lower()).ratio()

    names = sorted(sorted(known), key=distance)
    more = " and {} more".format(len(names) - MOST_NAMES) if len(names) > MOST_NAMES else ""
    return "Known: {}{}.".format(", ".join(names[:MOST_NAMES]), more)
