"""Text that came from elsewhere, made fit for a terminal; nothing heavy is loaded from here."""

from __future__ import annotations


def plain(text: str) -> str:
    """Text with an escape for all that does not print, so that none of it reaches the terminal as a command."""
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def encodable(text: str, encoding: str | None) -> str:
    """Text with an escape for all that a stream's encoding lacks; None stands for UTF-8."""
    encoding = encoding or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)
