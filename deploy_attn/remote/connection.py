"""A connection to a board, made as OpenSSH would: ~/.ssh/config, known_hosts, ssh-agent, key files, jump hosts."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deploy_attn.jetson.errors import BadRequest, first_line
from deploy_attn.remote.address import Address, parse_address
from deploy_attn.remote.host_keys import HostKeyCheck, known_hosts_files
from deploy_attn.remote.key_files import KeyFiles, key_files

if TYPE_CHECKING:
    from asyncssh import SSHClientConnection, SSHClientConnectionOptions, SSHKey

_CONNECT_SECONDS, _LOGIN_SECONDS = 15, 30
# A board that builds an engine may swap for a while and answer nothing.
_ALIVE_SECONDS, _ALIVE_COUNT = 15, 8


def check_installed() -> None:
    """Raises BadRequest where the SSH library is not installed."""
    try:
        importlib.import_module("asyncssh")
    except ImportError as error:
        raise BadRequest(
            f"`remote` needs asyncssh, which cannot be imported here ({first_line(error)}). Install it with "
            "`pip install 'deploy-attn[remote]'`, or copy the capsule of `deploy-attn bundle` to the board by hand and "
            "start `python3 run.py` there."
        ) from error


@dataclass(frozen=True)
class _Login:
    """What ~/.ssh/config and the address say of a host."""

    options: SSHClientConnectionOptions
    config: Path | None
    check: HostKeyCheck
    keys: KeyFiles

    @property
    def jumps(self) -> tuple[Address, ...]:
        """The hosts to go through, the first one first."""
        found = self.options.tunnel
        names = found.split(",") if isinstance(found, str) else []
        return tuple(parse_address(name.strip()) for name in names if name.strip().lower() != "none")


@contextlib.asynccontextmanager
async def connected(address: Address) -> AsyncIterator[SSHClientConnection]:
    """A connection that is logged in; closed in the end, with those to its jump hosts.

    Raises:
        BadRequest: the host cannot be reached, its key is unknown or has
            changed, it refuses the login, or ~/.ssh/config cannot be read.
    """
    async with contextlib.AsyncExitStack() as stack:
        tunnel = None
        login = _login(address)
        for jump in login.jumps:
            try:
                tunnel = await stack.enter_async_context(_closing(await _connect(_login(jump), tunnel)))
            except BadRequest as error:
                raise BadRequest(f"on the way, at {jump}: {error}") from error
        yield await stack.enter_async_context(_closing(await _connect(login, tunnel)))


@contextlib.asynccontextmanager
async def _closing(connection: SSHClientConnection) -> AsyncIterator[SSHClientConnection]:
    try:
        yield connection
    finally:
        connection.close()
        with contextlib.suppress(asyncio.TimeoutError, OSError):
            await asyncio.wait_for(connection.wait_closed(), 5)


def _login(address: Address) -> _Login:
    """Reads ~/.ssh/config for a host, and looks at the keys for it."""
    import asyncssh

    file = Path("~/.ssh/config").expanduser()
    config = file if file.is_file() else None
    try:
        options = asyncssh.SSHClientConnectionOptions(
            host=address.host,
            port=() if address.port is None else address.port,
            username=() if address.user is None else address.user,
            config=[str(config)] if config else [],
            client_keys=None,
            known_hosts=b"",
        )
    except (ValueError, OSError) as error:
        raise BadRequest(f"{file} cannot be used for {address}: {first_line(error)}. Mend it.") from error
    said = options.config.get
    name = options.host_key_alias or options.host
    files = known_hosts_files(said("UserKnownHostsFile"), said("GlobalKnownHostsFile"))
    check = HostKeyCheck(address, name, options.port, files)
    return _Login(options, config, check, key_files(said))


async def _connect(login: _Login, tunnel: SSHClientConnection | None) -> SSHClientConnection:
    import asyncssh

    check = login.check

    class Client(asyncssh.SSHClient):
        def validate_host_public_key(self, host: str, addr: str, port: int, key: SSHKey) -> bool:
            return check.refuse(key)

    try:
        return await asyncssh.connect(**_arguments(login), tunnel=tunnel, client_factory=Client)
    except asyncssh.HostKeyNotVerifiable as error:
        raise check.problem(error.reason) from error
    except asyncssh.PermissionDenied as error:
        raise BadRequest(_denied(login)) from error
    except (asyncssh.Error, OSError, asyncio.TimeoutError, ValueError) as error:
        if isinstance(error, (asyncssh.DisconnectError, ConnectionResetError)) and await _shows_another_kind(
            login, tunnel
        ):
            raise check.problem("") from error
        raise BadRequest(_unreachable(login, error)) from error


async def _shows_another_kind(login: _Login, tunnel: SSHClientConnection | None) -> bool:
    """Whether a handshake failed because the host has no key of the kind that is known of it, but another one."""
    import asyncssh

    options = login.options
    known = login.check.known_keys()
    if not known:
        return False
    with contextlib.suppress(asyncssh.Error, OSError, asyncio.TimeoutError, ValueError):
        looking = asyncssh.get_server_host_key(options.host, options.port, tunnel=tunnel, config=None)
        key = await asyncio.wait_for(looking, _CONNECT_SECONDS)
        return key is not None and key not in known and not login.check.refuse(key)
    return False


def _arguments(login: _Login) -> dict[str, Any]:
    """Keys and the agent only, and nothing of this machine lent to the board, whatever ~/.ssh/config has."""
    address = login.check.address
    return {
        "host": address.host,
        "port": () if address.port is None else address.port,
        "username": () if address.user is None else address.user,
        "config": [str(login.config)] if login.config else [],
        "known_hosts": login.check.look_up(),
        "client_keys": login.keys.offered(),
        "ignore_encrypted": True,
        "password_auth": False,
        "kbdint_auth": False,
        "host_based_auth": False,
        "gss_auth": False,
        "gss_kex": False,
        "preferred_auth": ["publickey"],
        "agent_forwarding": False,
        "x11_forwarding": False,
        "connect_timeout": _CONNECT_SECONDS,
        "login_timeout": _LOGIN_SECONDS,
        "keepalive_interval": _ALIVE_SECONDS,
        "keepalive_count_max": _ALIVE_COUNT,
    }


def _denied(login: _Login) -> str:
    place = f"{login.options.username}@{login.check.address.host}"
    return (
        f"the host refuses the login of {login.options.username} with a key. {login.keys.told()} Put a key on the "
        f"board with `ssh-copy-id{login.check.port_flag} {place}`; passwords are neither asked for nor sent."
    )


def _unreachable(login: _Login, error: BaseException) -> str:
    place = f"{login.options.host}, port {login.options.port}"
    waited = isinstance(error, asyncio.TimeoutError)
    why = f"no answer within {_CONNECT_SECONDS} s" if waited else _reason(error)
    return (
        f"no connection to {place}: {why}. See whether the board is on and reachable, and whether "
        f"`ssh{login.check.port_flag} {login.check.login}` connects."
    )


def _reason(error: BaseException) -> str:
    if isinstance(error, OSError) and error.errno and error.errno > 0:
        return os.strerror(error.errno)  # asyncio's own text says less
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return first_line(error)
