# SPDX-License-Identifier: Apache-2.0
"""sock_diag messages are parsed whole or not at all, and the kernel's answers match what we opened."""

from __future__ import annotations

import os
import select
import socket
import struct
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.errors import KernelUnavailable
from holdfast.linux.namespaces import netns_of
from holdfast.linux.netlink import messages
from holdfast.linux.sock_diag import (
    DestroyedSockets,
    Socket,
    iter_sockets,
    list_sockets,
    parse_socket,
)
from holdfast.linux.socket_queues import SocketMemory
from holdfast.linux.tcp_cc_info import BbrInfo, DctcpInfo, VegasInfo
from holdfast.linux.tcp_info import TcpInfo


def attribute(kind: int, value: bytes) -> bytes:
    padding = -len(value) % 4
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(padding)


def diag(family: int, local: bytes, peer: bytes, attributes: bytes = b"") -> bytes:
    """A ``struct inet_diag_msg`` of a socket in CLOSE_WAIT, with attributes."""
    ends = struct.pack(">HH", 443, 50000) + local.ljust(16, b"\0") + peer.ljust(16, b"\0")
    tail = struct.pack("=IQIIIII", 3, 0x1122334455667788, 0, 10, 20, 1000, 77)
    return bytes([family, 8, 0, 0]) + ends + tail + attributes


ATTRIBUTES = (
    attribute(2, bytes([1, 2]))
    + attribute(8, b"\3")
    + attribute(21 | 0x8000, struct.pack("=Q", 99))
    + attribute(15 | 0x8000, bytes(4))
)
V4 = diag(socket.AF_INET, bytes([127, 0, 0, 1]), bytes([192, 0, 2, 7]), ATTRIBUTES)
EXPECTED = Socket(
    local_ip="127.0.0.1",
    local_port=443,
    peer_ip="192.0.2.7",
    peer_port=50000,
    state="CLOSE_WAIT",
    cookie=0x1122334455667788,
    uid=1000,
    inode=77,
    netns=5,
    interface=3,
    receive_queue=10,
    send_queue=20,
    info=TcpInfo(state=1, ca_state=2),
    cgroup_id=99,
    shutdown=3,
)


def test_a_socket_with_everything() -> None:
    assert parse_socket(V4, netns=5) == EXPECTED


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        (socket.inet_pton(socket.AF_INET6, "2001:db8::1"), "2001:db8::1"),
        (socket.inet_pton(socket.AF_INET6, "::ffff:192.0.2.1"), "192.0.2.1"),
        (bytes(16), "::"),
    ],
)
def test_ipv6_and_mapped_addresses(raw: bytes, shown: str) -> None:
    found = parse_socket(diag(socket.AF_INET6, raw, raw))
    assert found is not None
    assert (found.local_ip, found.peer_ip, found.info) == (shown, shown, None)


def test_another_family_is_no_socket() -> None:
    assert parse_socket(diag(socket.AF_UNIX, b"", b"")) is None


DETAILS = attribute(7, struct.pack("=9I", *range(1, 10))) + attribute(4, b"cubic\0")


def test_buffers_and_algorithm() -> None:
    found = parse_socket(V4 + DETAILS)
    assert found is not None
    assert (found.memory, found.congestion) == (SocketMemory(*range(1, 10)), "cubic")
    assert found.cc_info is None


@pytest.mark.parametrize(
    ("kind", "value", "told"),
    [
        (3, struct.pack("=4I", 1, 2, 3, 4), VegasInfo(True, 2, 3, 4)),
        (9, struct.pack("=2H3I", 1, 0, 512, 5, 6), DctcpInfo(True, False, 0.5, 5, 6)),
        (16, struct.pack("=5I", 1, 1, 30, 256, 512), BbrInfo(1 << 32 | 1, 30, 1.0, 2.0)),
        (16, b"short", None),
    ],
)
def test_what_an_algorithm_tells_is_known_by_its_attribute(kind: int, value: bytes, told: object) -> None:
    found = parse_socket(V4 + attribute(kind, value))
    assert found is not None
    assert found.cc_info == told


@pytest.mark.parametrize(
    ("number", "timer"), [(1, "retransmit"), (2, "keep_alive"), (3, "time_wait"), (4, "window_probe")]
)
def test_a_timer_that_runs(number: int, timer: str) -> None:
    data = bytearray(V4)
    data[2:4] = bytes([number, 5])
    data[52:56] = struct.pack("=I", 1234)
    found = parse_socket(bytes(data))
    assert found is not None
    assert (found.timer, found.timer_tries, found.timer_ms) == (timer, 5, 1234)


def test_every_cut_gives_a_socket_or_none() -> None:
    for length in range(len(V4)):
        found = parse_socket(V4[:length])
        assert (found is None) == (length < 72)


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_any_attributes_are_survived(data: bytes) -> None:
    found = parse_socket(V4[:72] + data)
    assert found is not None
    assert found.cookie == EXPECTED.cookie


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_any_datagram_is_survived(data: bytes) -> None:
    for message in messages(data):
        parse_socket(message.payload)


def connection(family: int, host: str) -> tuple[socket.socket, socket.socket, socket.socket]:
    listener = socket.create_server((host, 0), family=family)
    client = socket.create_connection(listener.getsockname()[:2], timeout=5)
    server, _ = listener.accept()
    return listener, client, server


@pytest.mark.parametrize(("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_our_own_sockets_are_listed(family: int, host: str) -> None:
    try:
        listener, client, server = connection(family, host)
    except OSError as error:
        pytest.skip(f"no loopback address {host} here: {error}")
    with listener, client, server:
        client.sendall(b"unread")
        while len(server.recv(6, socket.MSG_PEEK)) < 6:
            pass
        near, far_port = client.getsockname()[1], server.getsockname()[1]
        ours = {(far_port, 0), (near, far_port), (far_port, near)}
        listed = ((one.local_port, one.peer_port, one) for one in list_sockets() if one.local_ip == host)
        found = {(local, peer): one for local, peer, one in listed if (local, peer) in ours}
        far = found[far_port, near]
        assert {ends: one.state for ends, one in found.items()} == {
            (far_port, 0): "LISTEN",
            (near, far_port): "ESTABLISHED",
            (far_port, near): "ESTABLISHED",
        }
        assert (far.receive_queue, far.uid, far.inode) == (6, os.geteuid(), os.fstat(server.fileno()).st_ino)
        assert far.netns == netns_of("thread-self")
        assert far.info is not None
        assert far.info.bytes_received == 6


def test_only_the_states_asked_for() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        found = list_sockets(state_names=["LISTEN"])
        assert {s.state for s in found} == {"LISTEN"}
        assert listener.getsockname()[1] in {s.local_port for s in found}


def test_one_port_of_either_end_one_file_and_details() -> None:
    listener, client, server = connection(socket.AF_INET, "127.0.0.1")
    with listener, client, server:
        near, far = client.getsockname()[1], server.getsockname()[1]
        found = list(iter_sockets(ports={near}))
        assert {(near, far), (far, near)} <= {(one.local_port, one.peer_port) for one in found}
        assert [one for one in found if near not in (one.local_port, one.peer_port)] == []
        assert {(one.memory, one.congestion) for one in found} == {(None, None)}
        inode = os.fstat(client.fileno()).st_ino
        (held,) = iter_sockets(inodes={inode}, details=True)
        assert (held.inode, held.local_port) == (inode, near)
        assert held.memory is not None and held.memory.receive_limit_bytes is not None
        assert held.memory.receive_limit_bytes == client.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
        name = client.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).rstrip(b"\0")
        assert held.congestion == name.decode()
        assert list(iter_sockets(inodes=())) == []


def test_a_reader_that_stops_early_leaves_nothing_open() -> None:
    listener, client, server = connection(socket.AF_INET, "127.0.0.1")
    with listener, client, server:
        before = os.listdir("/proc/self/fd")
        stream = iter_sockets()
        next(stream)
        stream.close()
        assert os.listdir("/proc/self/fd") == before


def test_a_namespace_without_its_process_is_one_clear_error() -> None:
    with pytest.raises(KernelUnavailable, match="needs a living process"):
        list_sockets(pid=1 << 30)


def cookie_of(sock: socket.socket) -> int:
    so_cookie = 57  # the socket module does not name it
    return int.from_bytes(sock.getsockopt(socket.SOL_SOCKET, so_cookie, 8), sys.byteorder)


def collect(destroyed: DestroyedSockets, cookies: set[int]) -> dict[int, Socket]:
    """Wait until all of these sockets were told."""
    found: dict[int, Socket] = {}
    poll = select.poll()
    poll.register(destroyed.fileno(), select.POLLIN)
    while found.keys() != cookies and poll.poll(5000):
        for one in destroyed.drain():
            if one.cookie in cookies:
                assert one.cookie not in found, "told twice"
                found[one.cookie] = one
    return found


def test_destroyed_sockets_are_told_once_each() -> None:
    with DestroyedSockets() as destroyed:
        listener, client, server = connection(socket.AF_INET, "127.0.0.1")
        with listener:
            client.sendall(b"12345")
            assert server.recv(5, socket.MSG_WAITALL) == b"12345"
            near, far = client.getsockname()[1], server.getsockname()[1]
            aborted, obeyed = cookie_of(server), cookie_of(client)
            server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            server.close()
            client.close()
            found = collect(destroyed, {aborted, obeyed})
        assert {(s.local_port, s.peer_port, s.state) for s in found.values()} == {
            (near, far, "CLOSED"),
            (far, 0, "CLOSED"),  # disconnecting wipes the peer's port and most figures
        }
        told = {cookie: (s.info.bytes_sent, s.info.bytes_received) for cookie, s in found.items() if s.info}
        assert told == {obeyed: (5, 0), aborted: (0, 0)}
        assert destroyed.overflows == 0


def test_a_flood_that_nobody_reads_is_counted() -> None:
    with DestroyedSockets(buffer_bytes=1) as small, DestroyedSockets() as witness:
        cookies = set()
        for _ in range(50):
            for sock in connection(socket.AF_INET, "127.0.0.1"):
                cookies.add(cookie_of(sock))
                sock.close()
        assert collect(witness, cookies).keys() == cookies
        told = {one.cookie for one in small.drain()}
        assert not cookies <= told
        assert small.overflows >= 1
