# SPDX-License-Identifier: Apache-2.0
"""What is special about TLS: bytes that no poll can see, reads that must write, errors without a number."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conformance.drivers import Certificate, handshaking, reset, tcp_pair, unix_pair

from holdfast.errors import ConnectionReset, DeadlineExceeded
from holdfast.hold.connection import Connection
from holdfast.hold.tls import TlsCalls


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[Connection, ssl.SSLSocket]]:
    certificate = Certificate(tmp_path)
    near, far = tcp_pair()
    with handshaking(certificate, far) as made:
        near = certificate.client.wrap_socket(near, server_hostname="localhost")
    held = Connection(near)
    yield held, made[0]
    held.close()
    made[0].close()


Pair = tuple[Connection, ssl.SSLSocket]


def test_bytes_that_openssl_holds_are_not_waited_for(pair: Pair) -> None:
    near, far = pair
    far.sendall(b"one record, read in pieces")
    assert near.recv(3, deadline=time.monotonic() + 9) == b"one"
    assert near.recv(99, deadline=0.0) == b" record, read in pieces"


class Renegotiating(socket.socket):
    """A socket whose reads must write first, as after a request for a key update."""

    suppress_ragged_eofs = True
    asked = 0

    def recv(self, size: int, flags: int = 0) -> bytes:
        self.asked += 1
        if self.asked <= 2:
            raise ssl.SSLWantWriteError
        return b"data"


def test_a_read_that_must_write_first_waits_for_room(monkeypatch: pytest.MonkeyPatch) -> None:
    raw, far = unix_pair()
    with Renegotiating(fileno=raw.detach()) as near, far:
        assert TlsCalls().receive(near, 9, time.monotonic() + 9, None) == b"data"
        assert near.asked == 3
        # With its buffer full there is no room to write, so the same read waits for it, in vain.
        near.setblocking(False)
        with pytest.raises(BlockingIOError):
            while True:
                near.send(bytes(1 << 16))
        near.asked = 0
        assert TlsCalls().receive(near, 9, time.monotonic() + 0.02, None) == -1


def test_a_reset_has_its_number_although_python_lost_it(pair: Pair) -> None:
    near, far = pair
    near.sendall(b"unread")
    reset(far)
    with pytest.raises(ConnectionReset):
        near.recv(1, deadline=time.monotonic() + 9)


def test_a_send_out_of_time_counts_whole_records(pair: Pair) -> None:
    near, _ = pair
    with pytest.raises(DeadlineExceeded) as caught:
        near.sendall(bytes(32 << 20), deadline=time.monotonic() + 0.1)
    assert caught.value.sent_bytes % (1 << 14) == 0 < caught.value.sent_bytes
