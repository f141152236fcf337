"""Names that exist, nearest to what was asked first."""

import difflib
from typing import Iterable


def known_names(asked: str, known: Iterable[str]) -> str:
    """A sentence for an error message: `Known: cbam, eca, se.`, nearest first."""

    def distance(name: str) -> float:
        return -difflib.SequenceMatcher(None, asked.lower(), name.lower()).ratio()

    return "Known: {}.".format(", ".join(sorted(sorted(known), key=distance)))
