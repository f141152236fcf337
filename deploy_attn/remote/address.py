"""Where a board is: [user@]host[:port], or a name of ~/.ssh/config."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from deploy_attn.jetson.errors import BadRequest

# Names may reach a ProxyCommand, which a shell reads: nothing that a shell takes for more than a name.
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*")
_HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_IPV6 = re.compile(r"[0-9A-Fa-f:]*:[0-9A-Fa-f:.]*(%[A-Za-z0-9_.-]+)?")
_EXAMPLE = "Name it as jetson@192.168.55.1, jetson@nano:2222 or [fe80::1%eth0]:22, or as ~/.ssh/config does."
_MOST_PORT = 65535


@dataclass(frozen=True)
class Address:
    """A board; `user` and `port` are None where ~/.ssh/config or its defaults decide."""

    host: str
    user: str | None = None
    port: int | None = None

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        user = "" if self.user is None else f"{self.user}@"
        return f"{user}{host}" + ("" if self.port is None else f":{self.port}")

    @property
    def label(self) -> str:
        """The address as a part of a file's name."""
        return re.sub(r"[^A-Za-z0-9._@-]", "_", str(self))


def parse_address(text: str) -> Address:
    """Reads an address.

    Raises:
        BadRequest: it is none, or it holds a password.
    """
    user, at, place = text.rpartition("@")
    if ":" in user:
        # Not repeated: what stands behind the colon is likely a password.
        raise BadRequest(
            f"The address of {place!r} holds a password, and none is taken: it would show in `ps` and in the shell's "
            "history. Log in with a key (`ssh-copy-id USER@HOST`) or with ssh-agent."
        )
    host, port = _host_and_port(place, text)
    if at and not _USER.fullmatch(user):
        raise BadRequest(f"{user!r} in {text!r} is not a user's name. {_EXAMPLE}")
    if not (_HOST.fullmatch(host) or _IPV6.fullmatch(host)):
        raise BadRequest(f"{text!r} is not the address of a board. {_EXAMPLE}")
    if port is not None and not (port.isascii() and port.isdigit() and 1 <= int(port[:6]) <= _MOST_PORT):
        raise BadRequest(f"{text!r}: {port!r} is not a port from 1 to {_MOST_PORT}. {_EXAMPLE}")
    return Address(host, user if at else None, None if port is None else int(port))


def split_words(words: Sequence[str]) -> tuple[tuple[Address, ...], Path]:
    """The boards and what to run on them, from the command's words: the last one is the artifact or capsule.

    Raises:
        BadRequest: a board or the artifact is missing, in the wrong place, or named twice.
    """
    usage = "Usage: deploy-attn remote [user@]host[:port] [more hosts] DIR_OR_CAPSULE"
    if len(words) < 2:
        raise BadRequest(f"{usage}: at least one host and, last, a folder that `export` wrote or a capsule.")
    path = Path(words[-1])
    if not path.exists():
        earlier = next((word for word in words[:-1] if Path(word).exists()), None)
        hint = f" {earlier} is there: name it last." if earlier else ""
        raise BadRequest(f"{path} is neither an artifact's folder nor a capsule: it does not exist.{hint} {usage}")
    addresses = tuple(parse_address(word) for word in words[:-1])
    for number, address in enumerate(addresses):
        if address.label in {one.label for one in addresses[:number]}:
            raise BadRequest(f"{address} is named twice: two runs on one board would spoil each other's timings.")
    return addresses, path


def _host_and_port(place: str, text: str) -> tuple[str, str | None]:
    if place.startswith("["):
        host, bracket, rest = place[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise BadRequest(f"{text!r} is not the address of a board. {_EXAMPLE}")
        return host, rest[1:] if rest else None
    if place.count(":") > 1:
        return place, None  # IPv6 without brackets
    host, colon, port = place.partition(":")
    return host, port if colon else None
