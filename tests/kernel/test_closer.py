# SPDX-License-Identifier: Apache-2.0
"""Who closed it, where that is neither who opened it nor who ran when the RST was sent."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest
from kernel.quiet_network import connections, quiet_network
from kernel.watching import Pair, Watch, watching

from holdfast.causes import Direction
from holdfast.events import Endpoint

pytestmark = [pytest.mark.needs_bpf, pytest.mark.needs_netns]


@pytest.fixture(scope="module")
def watch() -> Iterator[Watch]:
    with watching() as running:
        yield running


ENDED = "it was closed because its process ended: no idle time-out did it"


def test_a_kernel_worker_that_collects_a_socket_is_not_its_owner(watch: Watch) -> None:
    """A descriptor lost in a cycle of unix sockets is closed by the kernel's collector (a kworker, 6.10)."""
    with quiet_network() as inside:

        def lose() -> list[Pair]:
            [(client, server)] = connections("127.0.0.1", 1)
            ends = [(Endpoint(*server.getsockname()), Endpoint(*client.getsockname()))]
            client.sendall(b"unread")
            one, other = socket.socketpair()
            socket.send_fds(one, [b"x"], [server.fileno(), other.fileno()])
            for sock in (server, one, other):
                sock.close()
            one, other = socket.socketpair()  # closing what is in flight calls the collector
            socket.send_fds(one, [b"x"], [one.fileno()])
            one.close()
            other.close()
            client.settimeout(5)
            with pytest.raises(ConnectionResetError):
                client.recv(1)
            client.close()
            return ends

        ends = inside(lose)
        told = watch.await_told(2, *ends)
    assert [(one.cause, one.owner and one.owner.pid) for one in told if one.direction is Direction.SENT] == [
        ("closed_with_unread_data", os.getpid())
    ]
