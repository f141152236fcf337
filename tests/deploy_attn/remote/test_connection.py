"""Host keys, logins and the way to a host, as OpenSSH has them, against a real sshd."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import asyncssh
import pytest

from deploy_attn.remote import connection
from tests.conftest import Finished
from tests.deploy_attn.command_line import Cli
from tests.deploy_attn.remote.conftest import User
from tests.deploy_attn.remote.sshd import Board, wait_for

Try = Callable[[str], Finished]


@pytest.fixture
def attempt(cli: Cli, board: Board, capsule: Callable[[str], Path]) -> Try:
    """Runs a capsule that passes on a host."""
    archive = capsule("judge()\n")
    return lambda host: cli("remote", host, archive)


def another_key(kind: str = "ssh-ed25519") -> asyncssh.SSHKey:
    return asyncssh.generate_private_key(kind)


def line_for(board: Board, key: asyncssh.SSHKey) -> str:
    return f"[127.0.0.1]:{board.port} {key.export_public_key().decode('ascii').strip()}\n"


@pytest.mark.parametrize("content", [None, "", "# nothing\n"])
def test_an_unknown_key_is_refused_with_its_fingerprint(
    attempt: Try, board: Board, user: User, content: str | None
) -> None:
    known_hosts = user.ssh / "known_hosts"
    known_hosts.unlink()
    if content is not None:
        user.know(content)
    done = attempt(board.address)
    assert done.exit_code == 2
    assert f"the host's key is unknown: ED25519 {board.host_key.get_fingerprint()}." in done.stdout
    assert "ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub" in done.stdout
    assert f"ssh-keyscan -p {board.port} 127.0.0.1 >> ~/.ssh/known_hosts" in done.stdout
    assert f"Looked for [127.0.0.1]:{board.port} in " in done.stdout
    assert (known_hosts.read_text(encoding="utf-8") if known_hosts.exists() else None) == content
    assert board.capsules() == []


@pytest.mark.parametrize("kind", ["ssh-ed25519", "ecdsa-sha2-nistp256"])
def test_a_changed_key_is_refused_loudly(attempt: Try, board: Board, user: User, kind: str) -> None:
    """Also where the host has no key any more of the kind that is known."""
    old = another_key(kind)
    user.know(line_for(board, old))
    done = attempt(board.address)
    assert done.exit_code == 2
    assert "THE HOST'S KEY HAS CHANGED, and nothing was sent" in done.stdout
    assert f"it shows ED25519 {board.host_key.get_fingerprint()}" in done.stdout
    assert old.get_fingerprint() in done.stdout
    assert f"ssh-keygen -R '[127.0.0.1]:{board.port}'" in done.stdout
    assert board.capsules() == []


def test_a_revoked_key_is_refused(attempt: Try, board: Board, user: User) -> None:
    user.know(board.known(), f"@revoked {board.known()}")
    done = attempt(board.address)
    assert done.exit_code == 2
    assert "Host key is revoked" in done.stdout


def test_a_host_may_be_known_by_a_hash_of_its_name(attempt: Try, board: Board, user: User) -> None:
    if shutil.which("ssh-keygen") is None:
        pytest.fail("ssh-keygen is missing: apt-get install openssh-client")
    subprocess.run(
        [str(shutil.which("ssh-keygen")), "-H", "-f", user.ssh / "known_hosts"], check=True, capture_output=True
    )
    assert "127.0.0.1" not in (user.ssh / "known_hosts").read_text(encoding="utf-8")
    assert attempt(board.address).exit_code == 0


def test_a_broken_known_hosts_is_named(attempt: Try, board: Board, user: User) -> None:
    user.know("@nonsense line\n")
    done = attempt(board.address)
    assert done.exit_code == 2
    assert f"{user.ssh / 'known_hosts'} cannot be read" in done.stdout


@pytest.mark.parametrize(
    "line", ["UserKnownHostsFile none", "UserKnownHostsFile /dev/null", "StrictHostKeyChecking no"]
)
def test_no_configuration_switches_the_check_off(attempt: Try, board: Board, user: User, line: str) -> None:
    if "Strict" in line:
        user.know()
    user.configure(f"Host nano\n HostName 127.0.0.1\n Port {board.port}\n {line}\n")
    done = attempt("nano")
    assert done.exit_code == 2
    assert board.host_key.get_fingerprint() in done.stdout


def test_a_key_that_the_board_does_not_take_is_told(attempt: Try, board: Board, user: User) -> None:
    board.authorize(another_key())
    done = attempt(board.address)
    assert done.exit_code == 2
    name = board.address.partition("@")[0]
    assert f"the host refuses the login of {name} with a key. Key files tried: {user.ssh}/id_ed25519" in done.stdout
    assert f"ssh-copy-id -p {board.port} {name}@127.0.0.1" in done.stdout
    assert "passwords are neither asked for nor sent" in done.stdout


def test_a_key_with_a_passphrase_is_named(attempt: Try, board: Board, user: User) -> None:
    file = user.ssh / "id_ed25519"
    file.write_bytes(user.key.export_private_key("pkcs8-pem", passphrase="words of mine"))  # noqa: S106
    done = attempt(board.address)
    assert done.exit_code == 2
    assert (
        f"Key files tried: none; no ssh-agent is running. {file} needs a passphrase: `ssh-add {file}` first."
        in done.stdout
    )


@pytest.fixture
def agent(user: User, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An ssh-agent that holds the user's key, whose file is gone."""
    for program in ("ssh-agent", "ssh-add"):
        if shutil.which(program) is None:
            pytest.fail(f"{program} is missing: apt-get install openssh-client")
    socket = Path(os.environ.get("TMPDIR", "/tmp")) / f"agent-{os.getpid()}"  # noqa: S108 - a socket's path is short
    process = subprocess.Popen([str(shutil.which("ssh-agent")), "-D", "-a", socket], stdout=subprocess.DEVNULL)
    try:
        wait_for(socket.exists)
        monkeypatch.setenv("SSH_AUTH_SOCK", str(socket))
        (user.ssh / "id_ed25519").chmod(0o600)
        subprocess.run([str(shutil.which("ssh-add")), "-q", user.ssh / "id_ed25519"], check=True)
        (user.ssh / "id_ed25519").unlink()
        yield
    finally:
        process.terminate()
        process.wait(10)


@pytest.mark.usefixtures("agent")
def test_the_agent_is_asked(attempt: Try, board: Board) -> None:
    assert attempt(board.address).exit_code == 0
    board.authorize(another_key())
    assert "Key files tried: none; ssh-agent was asked too." in attempt(board.address).stdout


@pytest.mark.usefixtures("agent")
def test_nothing_of_this_machine_is_lent_to_a_board(
    cli: Cli, board: Board, user: User, capsule: Callable[[str], Path]
) -> None:
    user.configure("Host *\n ForwardAgent yes\n ForwardX11 yes\n")
    lent = "set(os.environ) & {'SSH_AUTH_SOCK', 'DISPLAY'}"
    done = cli("remote", board.address, capsule(f"sys.exit(3) if {lent} else judge()\n"))
    assert done.exit_code == 0, done.stdout


@pytest.mark.usefixtures("agent")
@pytest.mark.parametrize(
    ("configuration", "why"),
    [
        ("IdentityFile ~/.ssh/absent", None),
        ("IdentityFile ~/.ssh/garbage", None),
        ("IdentityFile ~/.ssh/mine.pub", None),
        ("IdentityFile ~/.ssh/mine.pub\n IdentitiesOnly yes", None),
        ("IdentityFile ~/.ssh/garbage\n IdentityFile ~/.ssh/mine.pub\n IdentitiesOnly yes", None),
        ("IdentityFile ~/.ssh/locked\n IdentitiesOnly yes", None),
        ("IdentityFile ~/.ssh/other\n IdentitiesOnly yes", "other needs a passphrase: `ssh-add "),
        ("IdentityFile ~/.ssh/garbage\n IdentitiesOnly yes", "garbage cannot be read as a key, and was left out."),
        ("IdentityAgent none", "Key files tried: none; no ssh-agent is running."),
        ("IdentityAgent ~/.ssh/absent", "no ssh-agent is at "),
    ],
)
def test_the_files_of_the_configuration_and_the_agent_go_together_as_in_openssh(
    attempt: Try, board: Board, user: User, configuration: str, why: str | None
) -> None:
    (user.ssh / "garbage").write_text("garbage", encoding="utf-8")
    (user.ssh / "mine.pub").write_bytes(user.key.export_public_key())
    for name, key in (("locked", user.key), ("other", another_key())):
        (user.ssh / name).write_bytes(key.export_private_key("pkcs8-pem", passphrase="words"))  # noqa: S106
        (user.ssh / f"{name}.pub").write_bytes(key.export_public_key())
    user.configure(f"Host *\n {configuration}\n")
    done = attempt(board.address)
    assert done.exit_code == (0 if why is None else 2), done.stdout
    assert why is None or why in done.stdout


def test_a_key_file_that_is_damaged_does_not_stop_the_others(attempt: Try, board: Board, user: User) -> None:
    (user.ssh / "id_ed25519").rename(user.ssh / "id_rsa")
    (user.ssh / "id_ed25519").write_text("-----BEGIN OPENSSH PRIVATE KEY-----\nx\n", encoding="utf-8")
    assert attempt(board.address).exit_code == 0
    (user.ssh / "id_rsa").unlink()
    done = attempt(board.address)
    assert done.exit_code == 2
    assert f"{user.ssh / 'id_ed25519'} cannot be read as a key, and was left out." in done.stdout


def test_names_keys_and_jump_hosts_come_from_the_configuration(attempt: Try, board: Board, user: User) -> None:
    (user.ssh / "id_ed25519").rename(user.ssh / "nano key")
    login = f'HostName 127.0.0.1\n Port {board.port}\n IdentityFile ~/.ssh/absent\n IdentityFile "~/.ssh/nano key"\n'
    user.configure(f"Host nano jump\n {login}\nHost far\n {login} ProxyJump jump\n")
    done = attempt("nano")
    assert done.exit_code == 0, done.stdout
    done = attempt("far")
    assert done.exit_code == 0, done.stdout
    assert "capsule was there" in done.stdout


def test_an_address_that_is_known_by_another_name_does_not_count(attempt: Try, board: Board, user: User) -> None:
    user.configure(f"Host nano\n HostName localhost\n AddressFamily inet\n Port {board.port}\n")
    done = attempt("nano")
    assert done.exit_code == 2
    assert f"Looked for [localhost]:{board.port} in " in done.stdout


def test_a_jump_host_is_checked_as_well(attempt: Try, board: Board, user: User) -> None:
    place = f"HostName 127.0.0.1\n Port {board.port}\n"
    user.configure(f"Host far\n {place} ProxyJump jump\nHost jump\n {place} HostKeyAlias other\n")
    done = attempt("far")
    assert done.exit_code == 2
    assert f"on the way, at jump: the host's key is unknown: ED25519 {board.host_key.get_fingerprint()}" in done.stdout


def test_a_jump_host_that_reaches_nothing_is_told(attempt: Try, board: Board, user: User) -> None:
    place = f"HostName 127.0.0.1\n Port {board.port}\n"
    user.configure(f"Host far\n HostName 127.0.0.1\n Port 1\n ProxyJump jump\nHost jump\n {place}")
    done = attempt("far")
    assert done.exit_code == 2
    assert "no connection to 127.0.0.1, port 1: " in done.stdout


@pytest.mark.parametrize(
    ("configuration", "host", "why"),
    [
        ("Host *\n Port abc\n", "nano", "config cannot be used for nano"),
        ("Host *\n ProxyJump a;b\n", "nano", "'a;b' is not the address of a board"),
        ("", "127.0.0.1:1", "no connection to 127.0.0.1, port 1: Connection refused"),
        ("", "no-such-host.invalid", "no connection to no-such-host.invalid, port 22: "),
    ],
)
def test_a_host_that_cannot_be_reached_is_told(
    attempt: Try, user: User, configuration: str, host: str, why: str
) -> None:
    user.configure(configuration)
    done = attempt(host)
    assert done.exit_code == 2
    assert why in done.stdout


@pytest.mark.parametrize("limit", ["_CONNECT_SECONDS", "_LOGIN_SECONDS"])
@pytest.mark.parametrize("hello", [b"", b"SSH-2.0-silent\r\n"])
def test_a_host_that_answers_nothing_is_given_up(
    attempt: Try, monkeypatch: pytest.MonkeyPatch, hello: bytes, limit: str
) -> None:
    """Neither before it says that it speaks SSH nor after it."""
    monkeypatch.setattr(connection, limit, 0.5)
    began = time.monotonic()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port, taken = listener.getsockname()[1], []

        def greet() -> None:
            taken.append(listener.accept()[0])
            taken[0].sendall(hello)

        thread = threading.Thread(target=greet)
        thread.start()
        done = attempt(f"127.0.0.1:{port}")
        thread.join(10)
        taken[0].close()
    assert done.exit_code == 2
    assert f"no connection to 127.0.0.1, port {port}: " in done.stdout
    assert time.monotonic() - began < 10


def test_a_port_that_speaks_no_ssh_is_told(cli: Cli, board: Board, real_capsule: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def greet() -> None:
            connection, _ = listener.accept()
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            connection.close()

        thread = threading.Thread(target=greet)
        thread.start()
        done = cli("remote", f"127.0.0.1:{listener.getsockname()[1]}", real_capsule, "--json")
        thread.join(10)
    assert done.exit_code == 2
    assert "no connection to 127.0.0.1" in json.loads(done.stdout)["hosts"][0]["error"]
