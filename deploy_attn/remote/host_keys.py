"""Whether a host is the one that it says it is: known_hosts, as OpenSSH keeps it, and nothing else decides."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from deploy_attn.jetson.errors import BadRequest, first_line

if TYPE_CHECKING:
    from asyncssh import SSHKey, SSHKnownHosts

    from deploy_attn.remote.address import Address

_SYSTEM = "/etc/ssh/ssh_known_hosts"
_DEFAULT_PORT = 22


@dataclass
class SeenKey:
    """The key that a host showed and that known_hosts does not hold; empty while it showed none."""

    key: SSHKey | None = None
    known: list[SSHKey] = field(default_factory=list)


@dataclass(frozen=True)
class HostKeyCheck:
    """Where to look for a host's key, and under which name.

    Attributes:
        address: as the user named the host, for messages.
        name: that known_hosts has it under: HostKeyAlias, else the host's name.
        port: that it listens on.
        files: known_hosts, those that exist.
    """

    address: Address
    name: str
    port: int
    files: tuple[str, ...]
    seen: SeenKey = field(default_factory=SeenKey)

    def known_keys(self) -> list[SSHKey]:
        """What known_hosts holds for the host."""
        port = None if self.port == _DEFAULT_PORT else self.port
        return list(dict.fromkeys(self.look_up()(self.name, "", port)[0]))

    def look_up(self) -> Callable[[str, str, int | None], tuple[Sequence[SSHKey], ...]]:
        """What known_hosts holds of a name: keys of hosts, of authorities, and revoked ones.

        By name only, as OpenSSH does: else any known host could answer in place of one
        whose name leads to its address.
        """
        import asyncssh

        known = self._read()
        return lambda name, peer, port: asyncssh.match_known_hosts(known, name, "", port)[:3]

    def _read(self) -> SSHKnownHosts:
        import asyncssh

        try:
            return asyncssh.read_known_hosts(list(self.files)) if self.files else asyncssh.import_known_hosts("")
        except (ValueError, OSError) as error:
            raise BadRequest(f"{' or '.join(self.files)} cannot be read: {first_line(error)}. Mend it.") from error

    def refuse(self, key: SSHKey) -> bool:
        """Keeps an untrusted key for the message; never trusts it."""
        self.seen.key = key
        self.seen.known = self.known_keys()
        return False

    def problem(self, reason: str) -> BadRequest:
        """What to tell of a host whose key did not hold."""
        key, known = self.seen.key, self.seen.known
        if key is None:
            return BadRequest(f"{reason}. {self._where()} Ask who runs the host, and mend known_hosts by hand.")
        if known:
            return BadRequest(self._changed(key, known))
        print_key = f"ssh-keyscan{self.port_flag} {self.name}"
        return BadRequest(
            f"the host's key is unknown: {_named(key)}. {self._where()} Compare it with what the board itself says "
            f"(`ssh-keygen -lf /etc/ssh/ssh_host_{_kind(key)}_key.pub` on it). If it is the same, connect once with "
            f"`ssh{self.port_flag} {self.login}` and accept it, or add it with `{print_key} >> ~/.ssh/known_hosts`."
        )

    def _changed(self, key: SSHKey, known: Sequence[SSHKey]) -> str:
        held = " and ".join(_named(one) for one in known)
        return (
            f"THE HOST'S KEY HAS CHANGED, and nothing was sent: it shows {_named(key)}, but known_hosts "
            f"holds {held}. Another machine may be answering in its place. {self._where()} Only if you know why it "
            f"changed (the board was flashed again), remove the old one with `ssh-keygen -R {self._entry()!r}` "
            f"and connect once with `ssh{self.port_flag} {self.login}`."
        )

    def _where(self) -> str:
        looked = ", ".join(self.files) or "no known_hosts file, for there is none"
        return f"Looked for {self._entry()} in {looked}."

    def _entry(self) -> str:
        return self.name if self.port == _DEFAULT_PORT else f"[{self.name}]:{self.port}"

    @property
    def login(self) -> str:
        return self.address.host if self.address.user is None else f"{self.address.user}@{self.address.host}"

    @property
    def port_flag(self) -> str:
        return "" if self.port == _DEFAULT_PORT else f" -p {self.port}"


def known_hosts_files(user_files: object, system_files: object) -> tuple[str, ...]:
    """The files to look into, those that can be read, from what ~/.ssh/config says of them.

    `none` and an empty list stand for no file at all: then no host is known.
    """
    user = user_files if isinstance(user_files, list) else ["~/.ssh/known_hosts", "~/.ssh/known_hosts2"]
    system = system_files if isinstance(system_files, list) else [_SYSTEM, f"{_SYSTEM}2"]
    files = [os.path.expanduser(str(file)) for file in (*user, *system)]
    return tuple(file for file in files if Path(file).is_file() and os.access(file, os.R_OK))


def _named(key: SSHKey) -> str:
    return f"{_kind(key).upper()} {key.get_fingerprint()}"


def _kind(key: SSHKey) -> str:
    name = key.get_algorithm()
    return next((kind for kind in ("ed25519", "ecdsa", "rsa") if kind in name), name)
