# SPDX-License-Identifier: Apache-2.0
"""Without rights: every destroyed socket is told once, and the counters agree with what was made."""

from __future__ import annotations

import os
import select
import socket
import struct
import subprocess
import sys
from collections import Counter

import pytest
from kernel.quiet_network import connections, netns, quiet_network

from holdfast.errors import KernelUnavailable
from holdfast.events import Event, Harm
from holdfast.watch.sockdiag import SockDiagSource

MANY = 23
HOSTS = ("127.86.8.1", "::1")


def settle(source: SockDiagSource, wanted: int) -> list[Event]:
    """Events, as soon as there are as many as wanted; the kernel tells them a moment later."""
    found: list[Event] = []
    poll = select.poll()
    poll.register(source.fileno(), select.POLLIN)
    while len(found) < wanted and poll.poll(5000):
        found += source.drain()
    assert source.lost() == 0
    return found


def abort(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


@pytest.mark.needs_netns
@pytest.mark.parametrize("host", HOSTS)
def test_unread_bytes_and_counters(host: str) -> None:
    def work() -> tuple[list[Event], dict[str, int], int]:
        with SockDiagSource() as source:
            for client, server in connections(host, MANY):
                client.sendall(b"unread")
                assert server.recv(6, socket.MSG_PEEK | socket.MSG_WAITALL) == b"unread"
                server.close()
                client.close()
            # The listener is destroyed as well.
            return settle(source, 2 * MANY + 1), dict(source.rates().counts), netns()

    with quiet_network() as inside:
        found, moved, namespace = inside(work)
    told = Counter((e.bytes_sent, e.bytes_received, e.harm.unread_bytes) for e in found if e.peer.port)
    assert told == {(6, 0, 0): MANY, (0, 6, 6): MANY}
    assert {(e.state, e.netns, e.reason, e.closer) for e in found} == {("CLOSED", namespace, None, None)}
    assert all(host in (e.local.ip, e.peer.ip) for e in found)
    assert len({e.cookie for e in found}) == len(found) == 2 * MANY + 1
    assert {name: moved[name] for name in ("OutRsts", "TCPAbortOnClose")} == {
        "OutRsts": MANY,
        "TCPAbortOnClose": MANY,
    }


@pytest.mark.needs_netns
def test_an_aborted_socket_is_told_without_its_figures() -> None:
    def work() -> tuple[list[Event], dict[str, int]]:
        with SockDiagSource() as source:
            for client, server in connections(HOSTS[0], MANY):
                client.sendall(b"12345")
                assert server.recv(5, socket.MSG_WAITALL) == b"12345"
                abort(server)
                client.close()
            return settle(source, 2 * MANY + 1), dict(source.rates().counts)

    with quiet_network() as inside:
        found, moved = inside(work)
    wiped = [e for e in found if not e.peer.port]
    assert len(wiped) == MANY + 1  # with the listener
    assert {(e.bytes_sent, e.bytes_received, e.harm) for e in wiped} == {(None, None, Harm())}
    assert Counter((e.bytes_sent, e.bytes_received) for e in found if e.peer.port) == {(5, 0): MANY}
    assert {name: moved[name] for name in ("OutRsts", "TCPAbortOnData")} == {
        "OutRsts": MANY,
        "TCPAbortOnData": MANY,
    }


@pytest.mark.needs_netns
def test_another_namespace_is_watched_from_outside() -> None:
    command = ["unshare", "--net", "sh", "-c", "ip link set lo up && echo ready && exec cat"]
    script = "import socket; socket.socket().connect_ex(('127.0.0.1', 1))"
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        try:
            assert child.stdout is not None
            assert child.stdout.readline() == b"ready\n"
            with SockDiagSource(child.pid) as source:
                enter = ["nsenter", f"--net=/proc/{child.pid}/ns/net", sys.executable, "-c", script]
                subprocess.run(enter, check=True, timeout=20)
                (found,) = settle(source, 1)
                assert found.netns == os.stat(f"/proc/{child.pid}/ns/net").st_ino
                assert source.rates().counts == {"OutRsts": 1, "AttemptFails": 1}
                assert source.rates().counts == {}
                child.kill()
                child.wait(10)
                with pytest.raises(KernelUnavailable):
                    source.rates()
        finally:
            child.kill()


# What it needs is imported before the rights go: the checkout may be closed to others.
NOBODY = """
import encodings.ascii, encodings.idna, os, select, socket
from holdfast.linux.capabilities import effective
from holdfast.watch.sockdiag import SockDiagSource
if os.geteuid() == 0:
    os.setgroups([])
    os.setresgid(65534, 65534, 65534)
    os.setresuid(65534, 65534, 65534)
with SockDiagSource() as source, socket.create_server(("127.86.8.3", 0)) as listener:
    client = socket.create_connection(listener.getsockname())
    server, _ = listener.accept()
    here = client.getsockname()
    client.sendall(b"unread")
    server.recv(6, socket.MSG_PEEK | socket.MSG_WAITALL)
    server.close()
    client.close()
    found = []
    poll = select.poll()
    poll.register(source.fileno(), select.POLLIN)
    while len(found) < 2 and poll.poll(5000):
        found += [e for e in source.drain() if here in (e.local, e.peer)]
print(effective(), sorted((e.bytes_sent, e.bytes_received, e.harm.unread_bytes) for e in found))
"""


def test_nobody_needs_rights_for_this() -> None:
    done = subprocess.run([sys.executable, "-c", NOBODY], capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "frozenset() [(0, 6, 6), (6, 0, 0)]\n"
