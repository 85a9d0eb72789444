"""Multipath TCP: resets of subflows, with its own reasons (RFC 8684 3.6)."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import struct
from errno import ECONNREFUSED, ECONNRESET

from holdfast.events import Endpoint
from holdfast.lab.app import LISTEN, App
from holdfast.lab.label import Label, swapped
from holdfast.lab.network import Host, Network
from holdfast.lab.rules import path
from holdfast.lab.scenario import Needs, scenario
from holdfast.lab.scenarios.closing import sent_by
from holdfast.lab.scenarios.handshake import ISN, answered, forged_pairs
from holdfast.lab.segment import SYN, Datagram

IPPROTO_MPTCP = 262
REQUEST = "question"
JOIN_PORT = 4100
# Kind 30, 12 octets, MP_JOIN of address 1, a token that nobody has, a nonce.
JOIN_NOBODY = struct.pack("!BBBBII", 30, 12, 0x10, 1, 0xDEADBEEF, 1)


def established(net: Network, count: int) -> tuple[App, App]:
    """A server and a client program with Multipath connections between them."""
    server, client = net.server.app(), net.client.app()
    client.dial(server.listen(protocol=IPPROTO_MPTCP), count, protocol=IPPROTO_MPTCP)
    server.accept(count)
    return server, client


@scenario(needs=Needs.MPTCP)
def mptcp_fastclose(net: Network, count: int) -> Label:
    """A server closes a Multipath connection without having read what waits in it."""
    server, client = established(net, count)
    client.send(REQUEST)
    server.await_unread(len(REQUEST))
    server.close()
    client.await_end(ECONNRESET)
    return sent_by(server, "mptcp_fastclose")


@scenario(needs=Needs.MPTCP)
def mptcp_protocol_error(net: Network, count: int) -> Label:
    """A subflow asks to join a Multipath connection that this host does not have."""
    server = net.server.app()
    pairs = forged_pairs(server.listen(protocol=IPPROTO_MPTCP), net.client.ip, count)
    net.client.inject(
        Datagram(peer, local, SYN, ISN, window=500, options=JOIN_NOBODY) for local, peer in pairs
    )
    return answered(net.server, "mptcp_protocol_error", server, pairs)


@scenario(needs=Needs.MPTCP)
def mptcp_prohibited(net: Network, count: int) -> Label:
    """A client opens a new Multipath connection on a port that is meant for joining old ones only."""
    # The kernel listens by itself, for the program that asked it to.
    administrator, client = net.server.app(), net.client.app()
    administrator.become("ip", "mptcp", "endpoint", "add", net.server.ip, "port", str(JOIN_PORT), "signal")
    net.server.await_sockets(LISTEN, JOIN_PORT, 1)
    client.dial(Endpoint(net.server.ip, JOIN_PORT), count, protocol=IPPROTO_MPTCP)
    client.await_end(ECONNREFUSED)
    return answered(net.server, "mptcp_prohibited", administrator, swapped(client.pairs))


@scenario(needs=Needs.MPTCP)
def mptcp_middlebox(net: Network, count: int) -> Label:
    """A box on the path rewrites the data of a subflow; the other subflow carries the connection on."""
    for host in (net.client, net.server):
        host.sysctl("net/mptcp", checksum_enabled=1)
        host.run("ip", "mptcp", "limits", "set", "subflow", "2")
    add_backup_address(net.client, net.family)
    server, client = established(net, count)
    client.send(REQUEST)
    server.receive(len(REQUEST))
    server.send(REQUEST)
    client.receive(len(REQUEST))
    net.server.await_counter("MPTcpExtMPJoinAckRx", count)
    ip = "ip" if net.family == 4 else "ip6"
    net.router.firewall(path(f"{ip} saddr {net.client.ip} tcp flags & psh == psh @ih,0,8 set 0x58"))
    client.send(REQUEST)
    server.receive(len(REQUEST))
    return answered(net.server, "mptcp_middlebox", server, server.pairs)


def add_backup_address(host: Host, family: int) -> None:
    """Give a host a second address, from which its connections get a subflow kept in reserve."""
    second, bits = host.ip + "2", {4: "/24", 6: "/64"}[family]
    # Deprecated from the start: programs that do not ask for it keep to the first address.
    extra = ["nodad", "preferred_lft", "0"] if family == 6 else []
    host.run("ip", "addr", "add", second + bits, "dev", "eth0", *extra)
    host.run("ip", "mptcp", "endpoint", "add", second, "dev", "eth0", "subflow", "backup")
