"""Scenarios that change settings of the whole machine; they refuse to run outside a virtual one."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from holdfast.lab.label import Label
from holdfast.lab.network import Network
from holdfast.lab.scenario import Needs, scenario
from holdfast.lab.scenarios.closing import sent_by


@contextmanager
def machine_setting(name: str, value: str) -> Iterator[None]:
    """A setting of the machine changed for a while."""
    file = Path("/proc/sys/net/ipv4", name)
    before = file.read_text()
    file.write_text(value)
    try:
        yield
    finally:
        file.write_text(before)


@scenario(needs=Needs.VM)
def orphan_memory(net: Network, count: int) -> Label:
    """Programs close with unsent data when the machine already has more orphans than it allows."""
    server, client, address = net.listening(options=[(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)])
    client.dial(address, count)
    server.accept(count)
    client.fill()
    # Not 0: the kernel compares with a count of orphans that it renews ten times a second only.
    with machine_setting("tcp_max_orphans", "-1"):
        client.close()
        net.client.await_counter("TcpExtTCPAbortOnMemory", count)
    return sent_by(client, "orphan_memory")
