# SPDX-License-Identifier: Apache-2.0
"""Queues and buffers of a socket, as they are filled and emptied; any bytes are accepted."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import astuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.linux.sock_diag import iter_sockets
from holdfast.linux.socket_queues import Queues, SocketMemory, decode_memory, memory_of, queues_of

WHOLE = struct.pack("=9I", *range(1, 10))


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two ends of a connection on loopback."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname(), timeout=5) as client,
    ):
        server, _ = listener.accept()
        with server:
            yield client, server


def test_every_figure_has_its_place() -> None:
    assert decode_memory(WHOLE) == SocketMemory(1, 2, 3, 4, 5, 6, 7, 8, 9)


def test_every_cut_has_the_figures_that_fit() -> None:
    for length in range(len(WHOLE) + 1):
        assert astuple(decode_memory(WHOLE[:length])) == tuple(
            place + 1 if 4 * (place + 1) <= length else None for place in range(9)
        )


@settings(deadline=None)
@given(st.binary(max_size=100))
def test_trailing_junk_changes_nothing(junk: bytes) -> None:
    assert decode_memory(WHOLE + junk) == decode_memory(WHOLE)
    assert isinstance(decode_memory(junk), SocketMemory)


def test_what_waits_is_counted_until_it_is_read(pair: tuple[socket.socket, socket.socket]) -> None:
    client, server = pair
    client.sendall(b"12345")
    while queues_of(server).unread_bytes < 5:
        server.recv(5, socket.MSG_PEEK)
    assert queues_of(server) == Queues(5, 0, 0)
    assert server.recv(2) == b"12"
    assert queues_of(server) == Queues(3, 0, 0)


def test_what_finds_no_window_is_unsent(pair: tuple[socket.socket, socket.socket]) -> None:
    client, server = pair
    client.setblocking(False)
    written = 0
    try:
        while True:
            written += client.send(bytes(65536))
    except BlockingIOError:
        pass
    near, far = queues_of(client), queues_of(server)
    assert 0 < near.unsent_bytes <= near.unconfirmed_bytes <= written
    assert written - near.unconfirmed_bytes <= far.unread_bytes


def test_what_is_sent_and_not_confirmed_is_not_unsent(pair: tuple[socket.socket, socket.socket]) -> None:
    client, server = pair
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    queues = queues_of(client)
    while not queues.unconfirmed_bytes:  # until an ACK is delayed, as it is when not asked to be quick
        server.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 0)
        client.sendall(b"x")
        queues = queues_of(client)
    assert queues.unsent_bytes == 0


def test_the_memory_of_a_socket_is_what_sock_diag_tells(pair: tuple[socket.socket, socket.socket]) -> None:
    _, server = pair
    (listed,) = iter_sockets(inodes={os.fstat(server.fileno()).st_ino}, details=True)
    assert listed.memory == memory_of(server)


def test_a_listener_has_no_such_queues() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, pytest.raises(OSError):
        queues_of(listener)
