"""Small files in which Linux tells about itself, under a root that a recorded tree can stand in for.

Everything a board says of itself is optional: whatever cannot be read is one
sentence, `Unreadable`, and never another error.
"""

import os
import re
import stat
from typing import List

_MOST_BYTES = 16 << 20
_NUMBER = re.compile(r"-?[0-9]{1,18}\Z")
_DIGITS = re.compile("([0-9]+)")


class Unreadable(Exception):
    """Why something is not known: names the file, and is a part of a sentence."""


class SystemFiles:
    """The files of a system by their absolute paths."""

    def __init__(self, root: str = "/") -> None:
        self.root = root

    @property
    def is_this_system(self) -> bool:
        """Whether the programs found here belong to these files."""
        return os.path.realpath(self.root) == os.path.realpath("/")

    def text(self, path: str) -> str:
        """Content without the blanks and zero bytes around it.

        Raises:
            Unreadable: missing, closed, no plain file, or nothing in it.
        """
        try:
            content = self._content(path)
        except PermissionError:
            raise Unreadable("{} may only be read by root".format(path)) from None
        except (FileNotFoundError, NotADirectoryError):
            raise Unreadable("there is no {}".format(path)) from None
        except BlockingIOError:  # a sensor whose part of the chip is switched off
            raise Unreadable("{} has no value at the moment".format(path)) from None
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise Unreadable("{} cannot be read ({})".format(path, reason)) from None
        text = content.decode("utf-8", "replace").strip("\0 \t\r\n")
        if not text:
            raise Unreadable("{} is empty".format(path))
        return text

    def number(self, path: str) -> int:
        """The integer with which the file begins; a unit may follow it.

        Raises:
            Unreadable: see `text`, or it begins otherwise.
        """
        word = self.text(path).split()[0]
        if not _NUMBER.match(word):
            raise Unreadable("{} holds no number ({!r})".format(path, word[:40]))
        return int(word)

    def names(self, folder: str) -> List[str]:
        """What is in a folder, `a2` before `a10`; nothing where it cannot be listed."""
        try:
            found = os.listdir(self._real(folder))
        except (OSError, ValueError):
            return []
        return sorted(found, key=_natural)

    def exists(self, path: str) -> bool:
        return os.path.exists(self._real(path))

    def _real(self, path: str) -> str:
        return os.path.join(self.root, path.lstrip("/"))

    def _content(self, path: str) -> bytes:
        real = self._real(path)
        if not stat.S_ISREG(os.stat(real).st_mode):
            raise ValueError("it is no plain file")
        # By descriptor: Python's own file objects give None, and no error, for a sensor that is switched off.
        descriptor = os.open(real, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            return _all(descriptor)
        finally:
            os.close(descriptor)


def _all(descriptor: int) -> bytes:
    parts: List[bytes] = []
    left = _MOST_BYTES
    while left > 0:
        part = os.read(descriptor, min(left, 1 << 16))
        if not part:
            break
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def _natural(name: str) -> List[str]:
    return [part.zfill(20) if part.isdigit() else part for part in _DIGITS.split(name)]
