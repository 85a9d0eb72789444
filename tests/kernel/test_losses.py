# SPDX-License-Identifier: Apache-2.0
"""Each way a real kernel ends a connection arrives as its typed error, with its evidence."""

from __future__ import annotations

import errno
import socket
import time
from collections.abc import Iterator

import pytest
from kernel.inside import inside

from holdfast.errors import (
    ConnectionAborted,
    ConnectionLost,
    ConnectionRefused,
    ConnectionTimedOut,
    ConnectionUnreachable,
    GaveUp,
)
from holdfast.events import Endpoint
from holdfast.hold.connection import Connection
from holdfast.hold.dial import connect
from holdfast.hold.options import apply
from holdfast.lab import Network
from holdfast.lab.rules import path
from holdfast.policy import KeepAlive, RetryPolicy, SocketPolicy

pytestmark = pytest.mark.needs_netns


@pytest.fixture
def net() -> Iterator[Network]:
    with Network(4) as net:
        yield net


def held(net: Network, policy: SocketPolicy | None = None) -> tuple[Connection, Endpoint]:
    """A connection from the client's host to a program at the server's, and that program's address."""
    address = net.server.app().listen()

    def dial() -> Connection:
        sock = socket.create_connection(address, timeout=5)
        sock.settimeout(None)
        if policy is not None:
            apply(policy, sock)
        return Connection(sock)

    return inside(net.client, dial), address


def lose(held: Connection, seconds: float = 20) -> ConnectionLost:
    with held, pytest.raises(ConnectionLost) as caught:
        held.recv(1, deadline=time.monotonic() + seconds)
    return caught.value


def black_hole(net: Network, address: Endpoint) -> None:
    net.router.firewall(path(f"tcp dport {address.port} drop", f"tcp sport {address.port} drop"))


def test_refused(net: Network) -> None:
    def dial() -> GaveUp:
        with pytest.raises(GaveUp) as caught:
            connect((net.server.ip, 9), policy=RetryPolicy(retries=0))
        return caught.value

    loss = inside(net.client, dial).losses[0]
    assert isinstance(loss, ConnectionRefused) and isinstance(loss, ConnectionRefusedError)
    assert (loss.errno, loss.cause, loss.peer) == (
        errno.ECONNREFUSED, "connection_refused", f"{net.server.ip}:9",
    )  # fmt: skip


def test_destroyed_by_an_administrator(net: Network) -> None:
    one, address = held(net)
    net.client.run("ss", "-K", "-tn", "dst", str(address.ip), "dport", "=", f":{address.port}")
    error = lose(one)
    assert isinstance(error, ConnectionAborted) and isinstance(error, ConnectionAbortedError)
    assert (error.errno, error.cause) == (errno.ECONNABORTED, "socket_destroyed")


def test_an_idle_peer_that_vanished(net: Network) -> None:
    one, address = held(net, SocketPolicy(KeepAlive(1, 1, 1)))
    black_hole(net, address)
    error = lose(one)
    assert isinstance(error, ConnectionTimedOut) and isinstance(error, TimeoutError)
    assert (error.errno, error.cause) == (errno.ETIMEDOUT, "keepalive_timeout")
    assert error.idle_s is not None and error.idle_s >= 2


def test_a_busy_peer_that_vanished(net: Network) -> None:
    one, address = held(net, SocketPolicy(user_timeout_ms=1000))
    one.sendall(b"arrives")
    time.sleep(0.1)
    black_hole(net, address)
    one.sendall(b"may have arrived")
    error = lose(one)
    assert isinstance(error, ConnectionTimedOut)
    assert (error.errno, error.cause) == (errno.ETIMEDOUT, "user_timeout")
    assert (error.unsent_bytes, error.unacked_bytes, error.acked_bytes) == (0, 16, 7)


def test_a_peer_that_does_not_read(net: Network) -> None:
    one, _ = held(net, SocketPolicy(user_timeout_ms=1500))
    with pytest.raises(ConnectionLost) as caught:
        one.sendall(bytes(64 << 20), deadline=time.monotonic() + 20)
    error = caught.value
    assert (error.errno, error.cause) == (errno.ETIMEDOUT, "zero_window_timeout")
    assert error.sent_bytes == one.counters.bytes_sent > 0
    assert error.unsent_bytes is not None and error.unsent_bytes > 0
    one.close()


def test_a_network_that_says_so(net: Network) -> None:
    one, address = held(net, SocketPolicy(user_timeout_ms=1500))
    reject = f"tcp dport {address.port} reject with icmp type host-unreachable"
    net.router.firewall(path(reject))
    one.sendall(b"x")
    error = lose(one)
    assert isinstance(error, ConnectionUnreachable)
    assert (error.errno, error.cause) == (errno.EHOSTUNREACH, "unreachable_after_retries")
