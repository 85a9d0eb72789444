# SPDX-License-Identifier: Apache-2.0
"""Tracepoints without BPF: 23 resets of each cause are told exactly, with state, path and process."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kernel.quiet_network import connections, quiet_network

from holdfast.events import Endpoint, Event, Kind
from holdfast.linux import counters
from holdfast.linux.btf import Btf
from holdfast.watch.tracepoint.source import TracepointSource

pytestmark = pytest.mark.needs_netns
MANY = 23
REASONED = len(Btf.of_kernel().parameters("btf_trace_tcp_send_reset") or ()) > 3
needs_reasons = pytest.mark.skipif(not REASONED, reason="this kernel gives no reasons (Linux 6.10 does)")
HOSTS = ("127.86.7.1", "::1")

Inside = Callable[[Callable[[], Any]], Any]


@pytest.fixture
def inside() -> Iterator[Inside]:
    with quiet_network() as run:
        yield run


@pytest.fixture
def source() -> Iterator[TracepointSource]:
    with TracepointSource() as source:
        yield source


def settle(source: TracepointSource, wanted: int, mine: Callable[[Event], bool]) -> list[Event]:
    """Events of ours, as soon as there are as many as wanted (at once: nothing is waited for twice)."""
    found: list[Event] = []
    deadline = time.monotonic() + 10
    while len(found) < wanted and time.monotonic() < deadline:
        found += [event for event in source.drain() if mine(event)]
    found += [event for event in source.drain() if mine(event)]
    assert source.lost() == 0
    return found


def counted(inside: Inside, work: Callable[[], Any]) -> tuple[Any, dict[str, int]]:
    def run() -> tuple[Any, dict[str, int]]:
        before = counters.read("thread-self")
        answer = work()
        return answer, counters.delta(before, counters.read("thread-self"))

    answer: tuple[Any, dict[str, int]] = inside(run)
    return answer


def pair(client: socket.socket, server: socket.socket) -> tuple[Endpoint, Endpoint]:
    return Endpoint(*client.getsockname()[:2]), Endpoint(*server.getsockname()[:2])


@needs_reasons
@pytest.mark.parametrize("host", HOSTS)
def test_closed_with_unread_data(host: str, inside: Inside, source: TracepointSource) -> None:
    def work() -> set[tuple[Endpoint, Endpoint]]:
        made = connections(host, MANY)
        ends = {pair(*both) for both in made}
        for client, server in made:
            client.sendall(b"unread")
            assert server.recv(6, socket.MSG_PEEK | socket.MSG_WAITALL) == b"unread"
            server.close()
            client.close()
        return ends

    ends, moved = counted(inside, work)
    found = settle(source, 3 * MANY, lambda e: (e.local, e.peer) in ends or (e.peer, e.local) in ends)
    told = Counter((e.kind, e.reason, e.state_before, e.error, e.closer and e.closer.pid) for e in found)
    assert told == {
        (Kind.RESET_SENT, "TCP_ABORT_ON_CLOSE", "ESTABLISHED", 0, os.getpid()): MANY,
        (Kind.RESET_RECEIVED, None, "ESTABLISHED", 0, None): MANY,
        (Kind.ERROR, None, "ESTABLISHED", 104, None): MANY,
    }
    assert {(e.peer, e.local) for e in found if e.kind == Kind.RESET_SENT} == ends
    assert {(e.local, e.peer) for e in found if e.kind == Kind.RESET_RECEIVED} == ends
    assert {e.opener and e.opener.pid for e in found if e.kind == Kind.RESET_RECEIVED} == {os.getpid()}
    for event in found:
        if event.kind == Kind.RESET_SENT:
            assert event.kernel_stack[:2] == ("tcp_send_active_reset", "__tcp_close")
            assert event.user_stack
    assert (moved["OutRsts"], moved["TCPAbortOnClose"]) == (MANY, MANY)


@needs_reasons
@pytest.mark.parametrize("host", HOSTS)
def test_closed_port(host: str, inside: Inside, source: TracepointSource) -> None:
    def work() -> int:
        with socket.create_server(
            (host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET
        ) as gone:
            port: int = gone.getsockname()[1]
        for _ in range(MANY):
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection((host, port), timeout=5)
        return port

    port, moved = counted(inside, work)
    closed = Endpoint(host, port)
    found = settle(source, 3 * MANY, lambda e: closed in (e.local, e.peer))
    told = Counter((e.kind, e.reason, e.state_before, e.error, e.closer) for e in found)
    assert told == {
        (Kind.RESET_SENT, "NO_SOCKET", None, 0, None): MANY,
        (Kind.RESET_RECEIVED, None, "SYN_SENT", 0, None): MANY,
        (Kind.ERROR, None, "SYN_SENT", 111, None): MANY,
    }
    assert all("do_syscall_64" not in e.kernel_stack for e in found if e.kind == Kind.RESET_SENT)
    assert (moved["OutRsts"], moved["AttemptFails"]) == (MANY, MANY)


@needs_reasons
def test_linger_zero_and_data_after_shutdown(inside: Inside, source: TracepointSource) -> None:
    def work() -> set[Endpoint]:
        made = connections(HOSTS[0], 2 * MANY)
        servers = {Endpoint(*client.getsockname()) for client, _ in made}
        for _, server in made[:MANY]:
            server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            server.close()
        for client, server in made[MANY:]:
            server.shutdown(socket.SHUT_RDWR)
            assert client.recv(1) == b""
            client.sendall(b"too late")
        for both in made:
            for sock in both:
                sock.close()
        return servers

    clients, moved = counted(inside, work)
    found = settle(source, 6 * MANY, lambda e: e.local in clients or e.peer in clients)
    told = Counter(
        (e.kind, e.reason, e.state_before, e.closer is not None) for e in found if e.kind != Kind.ERROR
    )
    assert told == {
        (Kind.RESET_SENT, "TCP_STATE", "ESTABLISHED", True): MANY,
        (Kind.RESET_RECEIVED, None, "ESTABLISHED", False): MANY,
        (Kind.SELF_RESET, None, "FIN_WAIT_2", False): MANY,
        (Kind.RESET_SENT, "TCP_ABORT_ON_DATA", "FIN_WAIT_2", False): MANY,
        (Kind.RESET_RECEIVED, None, "CLOSE_WAIT", False): MANY,
    }
    assert moved["OutRsts"] == 2 * MANY


SERVER = """
import signal, socket
listener = socket.create_server(("127.86.7.2", 0))
print(listener.getsockname()[1], flush=True)
served, _ = listener.accept()
served.recv(1, socket.MSG_PEEK)
print("full", flush=True)
signal.pause()
"""


def test_a_killed_process_is_named_although_it_is_gone(source: TracepointSource) -> None:
    with subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        port = int(child.stdout.readline())
        with socket.create_connection(("127.86.7.2", port), timeout=5) as client:
            here = Endpoint(*client.getsockname())
            client.sendall(b"x")
            assert child.stdout.readline() == "full\n"
            child.kill()
            child.wait(10)
            found = settle(source, 2, lambda e: here in (e.local, e.peer) and e.kind != Kind.ERROR)
    (sent,) = [e for e in found if e.kind == Kind.RESET_SENT]
    assert sent.closer is not None
    assert (sent.closer.pid, sent.closer.comm[:6]) == (child.pid, "python")
    assert "do_exit" in sent.kernel_stack


@needs_reasons
def test_a_small_ring_goes_round_without_loss() -> None:
    for _ in range(3):  # the ring is of the whole host: what strangers do may fill it
        with TracepointSource(ring_bytes=1 << 14) as source, quiet_network() as inside:
            found = []
            for _ in range(200):
                assert inside(lambda: socket.socket().connect_ex(("127.86.7.4", 1))) == 111
                found += [e for e in source.drain() if "127.86.7.4" in (e.local.ip, e.peer.ip)]
            lost = source.lost()
        if not lost:
            break
    assert lost == 0
    told = Counter((e.kind, e.reason, e.error) for e in found)
    assert told == {
        (Kind.RESET_SENT, "NO_SOCKET", 0): 200,
        (Kind.RESET_RECEIVED, None, 0): 200,
        (Kind.ERROR, None, 111): 200,
    }


def test_what_does_not_fit_is_counted() -> None:
    with TracepointSource(ring_bytes=4096) as source, quiet_network() as inside:
        closed = inside(lambda: [socket.socket().connect_ex(("127.86.7.3", 1)) for _ in range(300)])
        found = source.drain()
        # The kernel tells of losses when it next has room.
        deadline = time.monotonic() + 10
        while not source.lost() and time.monotonic() < deadline:
            inside(lambda: socket.socket().connect_ex(("127.86.7.3", 1)))
            source.drain()
        assert closed == [111] * 300
        assert len(found) < 3 * 300
        assert source.lost() > 0


def test_nothing_of_it_is_left_behind() -> None:
    before = set(os.listdir("/proc/self/fd"))
    mounts = Path("/proc/self/mounts").read_text()
    for _ in range(3):
        with TracepointSource():
            pass
    assert set(os.listdir("/proc/self/fd")) == before
    assert Path("/proc/self/mounts").read_text() == mounts
