"""A policy is put on a socket and read back; what is refused is told with its reason."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import asyncio
import errno
import os
import re
import socket
import ssl
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from holdfast.errors import KernelUnavailable, UsageError
from holdfast.hold.connection import Connection
from holdfast.hold.options import TCP_FASTOPEN_CONNECT, apply, effective
from holdfast.hold.stream import wrap
from holdfast.policy import PROFILES, KeepAlive, Profile, SocketPolicy

EVERYTHING = SocketPolicy(KeepAlive(7, 3, 2), 12_345, 65_537, True, True)
EVERYTHING_LATE = replace(EVERYTHING, fastopen_connect=False)  # all that a connected socket takes


@pytest.fixture(params=[socket.AF_INET, socket.AF_INET6], ids=["ipv4", "ipv6"])
def sock(request: pytest.FixtureRequest) -> Iterator[socket.socket]:
    with socket.socket(request.param, socket.SOCK_STREAM) as opened:
        yield opened


def test_the_kernel_takes_all_of_a_policy(sock: socket.socket) -> None:
    apply(EVERYTHING, sock)
    assert effective(sock) == EVERYTHING
    # The same by numbers, so that two options which are mixed up in both directions are found.
    by_number = [sock.getsockopt(socket.IPPROTO_TCP, number) for number in (4, 5, 6, 18, 25, 1, 30)]
    assert by_number == [7, 3, 2, 12_345, 65_537, 1, 1]


@pytest.mark.parametrize("profile", PROFILES.values(), ids=list(PROFILES))
def test_the_kernel_takes_every_profile(profile: Profile, sock: socket.socket) -> None:
    apply(profile.policy, sock)
    assert effective(sock) == profile.policy


def test_a_socket_left_alone_has_the_default_policy(sock: socket.socket) -> None:
    assert effective(sock) == SocketPolicy()


def test_a_policy_is_the_whole_truth_its_defaults_switch_off(sock: socket.socket) -> None:
    apply(EVERYTHING, sock)
    apply(SocketPolicy(), sock)
    assert effective(sock) == SocketPolicy()


def test_what_is_set_already_is_not_set_again() -> None:
    class Counting(socket.socket):
        made = 0

        def setsockopt(self, *arguments: object) -> None:
            type(self).made += 1
            super().setsockopt(*arguments)  # type: ignore[call-overload]

    with Counting(socket.AF_INET, socket.SOCK_STREAM) as sock:
        apply(EVERYTHING, sock)
        apply(EVERYTHING, sock)
        assert Counting.made == 8


def connected() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname(), timeout=5)
        return client, listener.accept()[0]


def test_both_ends_of_a_connection_can_be_tuned() -> None:
    client, server = connected()
    with client, server:
        for end in (client, server):
            apply(PROFILES["lan"].policy, end)
            assert effective(end) == PROFILES["lan"].policy


def test_fast_open_after_the_connect_is_too_late() -> None:
    client, server = connected()
    with client, server:
        words = "The kernel refused TCP_FASTOPEN_CONNECT = 1 (Invalid argument): set it before connect()."
        with pytest.raises(UsageError, match=re.escape(words)):
            apply(EVERYTHING, client)


def test_fast_open_that_was_used_need_not_be_switched_off() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as client:
        client.setsockopt(socket.IPPROTO_TCP, TCP_FASTOPEN_CONNECT, 1)
        client.settimeout(5)
        client.connect(listener.getsockname())
        client.send(b"hello")
        apply(SocketPolicy(nodelay=True), client)
        assert effective(client) == SocketPolicy(nodelay=True, fastopen_connect=True)


def test_tls_and_asyncio_sockets_are_sockets_too() -> None:
    async def tuned() -> SocketPolicy:
        async def serve(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.close()

        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            apply(PROFILES["lan"].policy, writer)
            found = effective(writer.transport)
            writer.close()
            await writer.wait_closed()
            return found

    assert asyncio.run(tuned()) == PROFILES["lan"].policy
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    with context.wrap_socket(socket.socket(), server_hostname="example") as secured:
        apply(PROFILES["lan"].policy, secured)
        assert effective(secured) == PROFILES["lan"].policy


def test_a_transport_without_a_socket_is_told() -> None:
    class Gone:
        def get_extra_info(self, name: str) -> None:
            assert name == "socket"

    with pytest.raises(UsageError, match="has no socket"):
        effective(Gone())


@pytest.mark.parametrize(
    ("family", "kind", "words"),
    [
        (socket.AF_UNIX, socket.SOCK_STREAM, "no TCP socket but one of family AF_UNIX"),
        (socket.AF_INET, socket.SOCK_DGRAM, "no TCP socket but a SOCK_DGRAM of protocol 0"),
        (socket.AF_INET6, socket.SOCK_DGRAM, "no TCP socket but a SOCK_DGRAM of protocol 0"),
    ],
)
def test_other_sockets_are_refused(family: int, kind: int, words: str) -> None:
    with socket.socket(family, kind) as sock:
        for act in (lambda: apply(SocketPolicy(), sock), lambda: effective(sock)):
            with pytest.raises(UsageError, match=words):
                act()


def test_a_closed_socket_is_refused() -> None:
    sock = socket.socket()
    sock.close()
    for act in (lambda: apply(EVERYTHING, sock), lambda: effective(sock)):
        with pytest.raises(UsageError, match=r"cannot be tuned \(Bad file descriptor\): tune it before"):
            act()


class Refusing:
    """A TCP socket whose kernel refuses one option."""

    family, type = socket.AF_INET, socket.SOCK_STREAM

    def __init__(self, option: int, number: int, proto: int = 0) -> None:
        self.option, self.number, self.proto = option, number, proto

    def getsockopt(self, level: int, option: int, /) -> int:
        if option == self.option and self.number != errno.EPERM and self.number != errno.EINVAL:
            raise OSError(self.number, os.strerror(self.number))
        return 0

    def setsockopt(self, level: int, option: int, value: int, /) -> None:
        if option == self.option and level == socket.IPPROTO_TCP:
            raise OSError(self.number, os.strerror(self.number))


@pytest.mark.parametrize(
    ("option", "number", "proto", "error", "sentence"),
    [
        (25, errno.ENOPROTOOPT, 0, KernelUnavailable,
         "TCP_NOTSENT_LOWAT = 65537 is not available here: it needs Linux 3.12."),
        (30, errno.EOPNOTSUPP, 0, KernelUnavailable,
         "TCP_FASTOPEN_CONNECT = 1 is not available here: it needs Linux 4.11 with bit 1 set in "
         "net.ipv4.tcp_fastopen."),
        (18, errno.EOPNOTSUPP, socket.IPPROTO_MPTCP, KernelUnavailable,
         "TCP_USER_TIMEOUT = 12345 is not available here: it needs Linux 2.6.37, or a socket of plain TCP: "
         "this one is Multipath TCP."),
        (4, errno.EPERM, 0, KernelUnavailable,
         "TCP_KEEPIDLE = 7 is not available here: it needs the right to set it; a sandbox forbids it."),
        (6, errno.EINVAL, 0, UsageError,
         "The kernel refused TCP_KEEPCNT = 2 (Invalid argument): give another value."),
    ],
)  # fmt: skip
def test_what_is_refused_is_told_with_option_value_and_reason(
    option: int, number: int, proto: int, error: type[Exception], sentence: str
) -> None:
    with pytest.raises(error) as refused:
        apply(EVERYTHING, Refusing(option, number, proto))
    assert str(refused.value) == sentence


def test_an_option_that_the_kernel_does_not_know_reads_as_off() -> None:
    assert effective(Refusing(25, errno.ENOPROTOOPT)) == SocketPolicy()
    apply(SocketPolicy(), Refusing(25, errno.ENOPROTOOPT))


def test_a_profile_stands_for_its_policy(sock: socket.socket) -> None:
    apply(PROFILES["lan"], sock)
    assert effective(sock) == PROFILES["lan"].policy


def test_a_connection_and_a_stream_are_tuned_like_their_socket() -> None:
    near, far = connected()
    with far, Connection(near) as held:
        apply(EVERYTHING_LATE, held)
        assert effective(held) == effective(near) == EVERYTHING_LATE

    async def tune() -> SocketPolicy:
        near, far = connected()
        with far:
            async with await wrap(near) as stream:
                apply(EVERYTHING_LATE, stream)
                return effective(stream)

    assert asyncio.run(tune()) == EVERYTHING_LATE


@pytest.mark.parametrize("nothing", [None, "cloud", 5, object()])
def test_what_is_no_socket_or_no_policy_is_refused_in_a_sentence(nothing: Any, sock: socket.socket) -> None:
    with pytest.raises(UsageError, match="give a TCP socket"):
        apply(EVERYTHING, nothing)
    with pytest.raises(UsageError, match="give a SocketPolicy"):
        apply(nothing, sock)
