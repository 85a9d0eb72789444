"""TCP Fast Open: connections whose first data travels in the SYN."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import socket
from dataclasses import replace
from errno import ECONNRESET, ETIMEDOUT

from holdfast.lab.app import BACKLOG, SYN_RECEIVED, App
from holdfast.lab.label import Label
from holdfast.lab.network import Network
from holdfast.lab.rules import DROP_PURE_ACKS, path
from holdfast.lab.scenario import Needs, scenario
from holdfast.lab.scenarios.closing import NOTHING, sent_by
from holdfast.lab.scenarios.firewall import suffered_by

TCP = socket.IPPROTO_TCP
REQUEST = "question"
CLIENT_AND_SERVER = 3
QUEUE = (TCP, socket.TCP_FASTOPEN, BACKLOG)
ONE_RETRY = (TCP, socket.TCP_SYNCNT, 1)


def trusted_client(net: Network) -> App:
    """A client on a host that has a Fast Open cookie of the server's host."""
    for host in (net.client, net.server):
        host.sysctl(tcp_fastopen=CLIENT_AND_SERVER)
    server, client, address = net.listening(options=[QUEUE])
    client.dial_with_data(address, "", 1)
    server.accept(1)
    return net.client.app()


@scenario(cause="closed_with_unread_data")
def fastopen_closed_with_unread_data(net: Network, count: int) -> Label:
    """A server closes without having read the request that came inside the SYN."""
    client = trusted_client(net)
    server = net.server.app()
    address = server.listen(options=[QUEUE])
    client.dial_with_data(address, REQUEST, count)
    server.accept(count)
    server.await_unread(len(REQUEST))
    client.await_connected()
    server.close()
    client.await_end(ECONNRESET)
    return sent_by(server, "closed_with_unread_data", replace(NOTHING, unread_bytes=len(REQUEST)))


@scenario(needs=Needs.FIREWALL)
def fastopen_timeout(net: Network, count: int) -> Label:
    """A server works on a request that came inside the SYN, and the handshake is never finished."""
    client = trusted_client(net)
    net.server.sysctl(optional=True, tcp_rto_max_ms=1000)
    net.router.firewall(path(DROP_PURE_ACKS))
    server = net.server.app()
    address = server.listen(options=[QUEUE, ONE_RETRY])
    client.dial_with_data(address, REQUEST, count)
    server.accept(count)
    server.await_state(SYN_RECEIVED)
    server.await_end(ETIMEDOUT)
    return suffered_by(server, "fastopen_timeout", "unknown")
