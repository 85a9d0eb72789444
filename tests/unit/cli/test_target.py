# SPDX-License-Identifier: Apache-2.0
"""HOST:PORT in every spelling, and one sentence for what is none."""

from __future__ import annotations

import socket
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.cli import target
from holdfast.cli.target import Target
from holdfast.errors import UsageError
from holdfast.linux.sock_diag import Socket

LOCAL = frozenset({"127.0.0.1"})


@pytest.mark.parametrize(
    ("words", "hosts", "port", "ours"),
    [
        ("443", None, 443, True),
        (":443", None, 443, True),
        ("*:443", None, 443, True),
        ("*:*", None, None, True),
        ("[]:0443", None, 443, True),
        ("127.0.0.1:1", LOCAL, 1, True),
        ("127.0.0.1:*", LOCAL, None, True),
        ("[::1]:65535", frozenset({"::1"}), 65535, True),
        ("[::ffff:192.0.2.1]:80", frozenset({"192.0.2.1"}), 80, False),
        ("[2001:DB8:0::7]:80", frozenset({"2001:db8::7"}), 80, False),
        ("192.0.2.1:80", frozenset({"192.0.2.1"}), 80, False),
    ],
)
def test_spellings(words: str, hosts: frozenset[str] | None, port: int | None, ours: bool) -> None:
    assert target.parse(words) == Target(words, hosts, port, ours)


def test_names_are_looked_up() -> None:
    found = target.parse("localhost:80")
    assert found.hosts is not None
    assert found.hosts <= {"127.0.0.1", "::1"}
    assert found.ours


def test_a_service_may_be_named() -> None:
    try:
        number = socket.getservbyname("https", "tcp")
    except OSError:
        pytest.skip("no /etc/services here")
    assert target.parse(":https").port == number


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (":70000", "port 70000 is not between 1 and 65535."),
        (":0", "port 0 is not between 1 and 65535."),
        ("9" * 5000, f"port {'9' * 20} is not between 1 and 65535."),
        ("10.0.0.2", "'10.0.0.2' has no port: write HOST:PORT, or HOST:* for every port."),
        ("2001:db8::1:80", "write an IPv6 address in brackets, [ADDRESS]:PORT."),
        ("[::1]", "'[::1]' is no address: write [ADDRESS]:PORT."),
        ("[::1:80", "'[::1:80' is no address: write [ADDRESS]:PORT."),
        ("127.0.0.1:", "'127.0.0.1:' has no port: '' is no known service."),
        ("127.0.0.1:no-such", "'127.0.0.1:no-such' has no port: 'no-such' is no known service."),
        ("\x1b[1m:80", "the host '\\x1b[1m' cannot be found"),
        ("a" * 64 + ".invalid:80", "cannot be found"),
        ("\udcff:80", "the host '\\udcff' cannot be found"),
    ],
)
def test_what_is_none_is_one_sentence(words: str, sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        target.parse(words)
    assert sentence in str(caught.value)


@given(st.text(alphabet="[]:*.019af\x00\udcff é-", max_size=12))
def test_anything_is_a_target_or_a_sentence(words: str) -> None:
    try:
        found = target.parse(words)
    except UsageError as error:
        assert str(error).endswith(".")
    else:
        assert found.words == words


CONNECTION = Socket("127.0.0.1", 80, "192.0.2.1", 5000, "ESTABLISHED", 1, 0, 1)
LISTENER = Socket("0.0.0.0", 80, "0.0.0.0", 0, "LISTEN", 2, 0, 1)


@pytest.mark.parametrize(
    ("words", "connection", "listener"),
    [
        (":80", True, True),
        (":5000", True, False),
        (":81", False, False),
        ("127.0.0.1:80", True, True),
        ("127.0.0.1:*", True, True),
        ("127.0.0.1:5000", False, False),
        ("192.0.2.1:5000", True, False),
        ("192.0.2.1:80", False, False),
        ("192.0.2.1:*", True, False),
        ("0.0.0.0:80", False, True),
        ("*:*", True, True),
    ],
)
def test_either_end_is_meant_and_a_listener_on_every_address(
    words: str, connection: bool, listener: bool
) -> None:
    found = target.parse(words)
    assert (found.matches(CONNECTION), found.matches(LISTENER)) == (connection, listener)
    assert found.matches(replace(LISTENER, local_ip="::")) == listener
