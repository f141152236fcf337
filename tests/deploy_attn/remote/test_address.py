"""Addresses of boards, and which word of the command is what."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy_attn.jetson.errors import BadRequest
from deploy_attn.remote.address import Address, parse_address, split_words


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("nano", Address("nano")),
        ("jetson@nano", Address("nano", "jetson")),
        ("jetson@192.168.55.1:2222", Address("192.168.55.1", "jetson", 2222)),
        ("nano:22", Address("nano", None, 22)),
        ("::1", Address("::1")),
        ("fe80::1%eth0", Address("fe80::1%eth0")),
        ("jetson@[fe80::1%eth0]:2222", Address("fe80::1%eth0", "jetson", 2222)),
        ("[::1]", Address("::1")),
    ],
)
def test_an_address_is_read(text: str, address: Address) -> None:
    assert parse_address(text) == address
    assert parse_address(str(address)) == address


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "'' is not the address of a board"),
        ("@nano", "'' in '@nano' is not a user's name"),
        ("nano:", "'' is not a port from 1 to 65535"),
        ("nano:0", "'0' is not a port"),
        ("nano:65536", "'65536' is not a port"),
        ("nano:99999999999999999999", "is not a port"),
        ("nano:ssh", "'ssh' is not a port"),
        ("nano:²²", "is not a port"),
        ("[::1", "is not the address of a board"),
        ("[::1]22", "is not the address of a board"),
        ("-oProxyCommand=x", "is not the address of a board"),
        ("nano;reboot", "is not the address of a board"),
        ("$(reboot)@nano", "is not a user's name"),
        ("a b", "is not the address of a board"),
        ("../cbam", "is not the address of a board"),
        ("ssh://nano", "is not a port"),
    ],
)
def test_what_is_no_address_is_refused_with_an_example(text: str, why: str) -> None:
    with pytest.raises(BadRequest) as refused:
        parse_address(text)
    assert why in str(refused.value)
    assert "jetson@192.168.55.1" in str(refused.value)


def test_a_password_is_refused_and_not_repeated() -> None:
    with pytest.raises(BadRequest, match=r"holds a password.*ssh-copy-id") as refused:
        parse_address("jetson:secret@nano")
    assert "secret" not in str(refused.value)


@given(st.text(max_size=30))
def test_any_text_is_an_address_of_plain_characters_or_refused(text: str) -> None:
    try:
        address = parse_address(text)
    except BadRequest:
        return
    assert not set(f"{address.user}{address.host}") & set(" '\"`$;&|<>()\\/\n\0*?!{}")
    assert not set(address.label) - set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._@-")
    assert not address.label.startswith((".", "-"))


def test_the_last_word_is_what_runs(in_folder: Path) -> None:
    (in_folder / "cbam").mkdir()
    addresses, path = split_words(["a", "jetson@b:23", "cbam"])
    assert (addresses, path) == ((Address("a"), Address("b", "jetson", 23)), Path("cbam"))


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["cbam"], "at least one host"),
        (["nano", "absent"], "absent is neither an artifact's folder nor a capsule: it does not exist"),
        (["cbam", "nano"], "nano is neither .* cbam is there: name it last"),
        (["nano", "nano", "cbam"], "nano is named twice"),
        (["a@nano:22", "a@nano:22", "cbam"], "named twice"),
    ],
)
def test_words_in_the_wrong_place_are_told(in_folder: Path, words: list[str], why: str) -> None:
    (in_folder / "cbam").mkdir()
    with pytest.raises(BadRequest, match=why):
        split_words(words)
