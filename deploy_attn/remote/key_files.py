"""Which keys a login offers: the files of ~/.ssh/config, else OpenSSH's own, and the agent's; the rest is told."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asyncssh import SSHKey

_DEFAULTS = ("id_ed25519_sk", "id_ecdsa_sk", "id_ed25519", "id_ecdsa", "id_rsa")


@dataclass(frozen=True)
class KeyFiles:
    """The key files that are there.

    Attributes:
        usable: private keys that need nothing more.
        locked: private keys with a passphrase, which the agent may hold.
        public: public keys, which stand for one of the agent's.
        broken: what is no key.
        agent: the socket of ssh-agent; empty where there is none.
        only_these: of the agent's keys only those of the files.
        named: ~/.ssh/config names them.
    """

    usable: tuple[str, ...]
    locked: tuple[str, ...]
    public: tuple[str, ...]
    broken: tuple[str, ...]
    agent: str
    only_these: bool
    named: bool

    def offered(self) -> Sequence[str | SSHKey]:
        """For asyncssh, which ends a login over a file that it cannot read; nothing stands for its own defaults."""
        import asyncssh

        if not self.named and not self.broken:
            return ()
        files = list(self.usable)
        if self.only_these:  # these tell which of the agent's keys are meant
            files += [*self.locked, *self.public, *filter(os.path.isfile, (f"{file}.pub" for file in self.locked))]
        # A key that nobody knows, where the agent's are all: asyncssh takes no list without a key.
        return files or [asyncssh.generate_private_key("ssh-ed25519")]

    def told(self) -> str:
        """What was tried and what could not be, in sentences."""
        agent = "no ssh-agent is running"
        if self.agent:
            agent = "ssh-agent was asked too" if Path(self.agent).is_socket() else f"no ssh-agent is at {self.agent}"
        sentences = [f"Key files tried: {', '.join(self.usable) or 'none'}; {agent}."]
        if self.locked:
            needs = "needs a passphrase" if len(self.locked) == 1 else "need passphrases"
            sentences.append(f"{' and '.join(self.locked)} {needs}: `ssh-add {self.locked[0]}` first.")
        sentences += [f"{file} cannot be read as a key, and was left out." for file in self.broken]
        return " ".join(sentences)


def key_files(said: Callable[..., object]) -> KeyFiles:
    """Looks at the key files of a login.

    Args:
        said: what ~/.ssh/config says of an option, or a default.
    """
    given = said("IdentityFile")
    named = [os.path.expanduser(str(file)) for file in given if file] if isinstance(given, list) else []
    kinds: dict[str, list[str]] = {"usable": [], "locked": [], "public": [], "broken": []}
    for file in named or [os.path.expanduser(f"~/.ssh/{name}") for name in _DEFAULTS]:
        if os.path.isfile(file):
            kinds[_kind(file)].append(file)
    agent = said("IdentityAgent", os.environ.get("SSH_AUTH_SOCK", ""))  # nothing where it says `none`
    return KeyFiles(
        **{kind: tuple(files) for kind, files in kinds.items()},
        agent=os.path.expanduser(str(agent or "")),
        only_these=said("IdentitiesOnly") is True,
        named=bool(named),
    )


def _kind(file: str) -> str:
    import asyncssh

    try:
        asyncssh.read_private_key(file)
    except (asyncssh.KeyImportError, asyncssh.KeyEncryptionError) as error:
        if str(error).startswith("Passphrase"):
            return "locked"
    except OSError:
        return "broken"
    else:
        return "usable"
    try:
        asyncssh.read_public_key(file)
    except asyncssh.KeyImportError:
        return "broken"
    return "public"
