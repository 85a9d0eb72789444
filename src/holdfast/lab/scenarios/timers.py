"""Endings that a kernel timer decides: the peer or the path has gone silent."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import socket
from errno import EHOSTUNREACH, ETIMEDOUT

from holdfast.causes import Direction
from holdfast.events import Harm
from holdfast.lab.app import FIN_WAIT_1, App
from holdfast.lab.label import Label
from holdfast.lab.network import Network
from holdfast.lab.rules import FROM_CLIENT, SILENCE, path
from holdfast.lab.scenario import Needs, scenario
from holdfast.lab.scenarios.closing import sent_by
from holdfast.lab.scenarios.firewall import suffered_by
from holdfast.lab.segment import ACK, FIN, Datagram

TCP = socket.IPPROTO_TCP
USER_TIMEOUT_MS = 300
UNACKED = "hello"
HARM = Harm(unread_bytes=0, unsent_bytes=0, unacked_bytes=len(UNACKED))


def silenced(net: Network, count: int) -> App:
    """A client whose connections have just lost their path."""
    _, client = net.established(count)
    net.router.firewall(path(SILENCE))
    return client


@scenario(needs=Needs.FIREWALL)
def keepalive_timeout(net: Network, count: int) -> Label:
    """The path goes dead under an idle connection and its keep-alive probes stay unanswered."""
    client = silenced(net, count)
    for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT):
        client.option(TCP, option, 1)
    client.option(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    client.await_end(ETIMEDOUT)
    return sent_by(client, "keepalive_timeout")


@scenario(needs=Needs.FIREWALL)
def user_timeout(net: Network, count: int) -> Label:
    """Data stays unacknowledged for longer than the program's TCP_USER_TIMEOUT."""
    client = silenced(net, count)
    client.user_timeout(USER_TIMEOUT_MS)
    client.send(UNACKED)
    client.await_end(ETIMEDOUT)
    return suffered_by(client, "user_timeout", "unknown", HARM)


@scenario(needs=Needs.FIREWALL)
def retransmission_timeout(net: Network, count: int) -> Label:
    """Data is retransmitted as often as tcp_retries2 allows and never acknowledged."""
    net.client.sysctl(tcp_retries2=1)
    client = silenced(net, count)
    client.send(UNACKED)
    client.await_end(ETIMEDOUT)
    return suffered_by(client, "retransmission_timeout", "unknown", HARM)


@scenario(needs=Needs.FIREWALL)
def unreachable_after_retries(net: Network, count: int) -> Label:
    """Retransmissions are answered by ICMP host unreachable until the kernel gives up."""
    net.client.sysctl(tcp_retries2=1)
    _, client = net.established(count)
    net.router.firewall(path(FROM_CLIENT + "reject with icmpx type host-unreachable"))
    client.send("hello")
    client.await_end(EHOSTUNREACH)
    return suffered_by(client, "unreachable_after_retries", "path")


@scenario(needs=Needs.FIREWALL)
def connect_timeout(net: Network, count: int) -> Label:
    """Nothing answers the SYN."""
    net.client.sysctl(tcp_syn_retries=1)
    net.client.sysctl(optional=True, tcp_syn_linear_timeouts=0, tcp_rto_max_ms=1000)
    net.router.firewall(path(SILENCE))
    _, client, address = net.listening()
    client.dial(address, count)
    client.await_end(ETIMEDOUT)
    return suffered_by(client, "connect_timeout", "unknown")


@scenario()
def zero_window_timeout(net: Network, count: int) -> Label:
    """A reader is stuck and its window stays shut for longer than the sender's TCP_USER_TIMEOUT."""
    server, client, address = net.listening(options=[(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)])
    client.dial(address, count)
    server.accept(count)
    client.user_timeout(USER_TIMEOUT_MS)
    client.fill()
    client.await_end(ETIMEDOUT)
    return suffered_by(client, "zero_window_timeout", "unknown")


@scenario(needs=Needs.RAW)
def fin_wait2_timeout(net: Network, count: int) -> Label:
    """A closed socket waits in FIN_WAIT_2 for a FIN that never comes, until tcp_fin_timeout."""
    net.server.sysctl(tcp_fin_timeout=1)
    server, _ = net.established(count)
    numbers = server.numbers()
    net.router.firewall(path(SILENCE))
    server.close()
    assert server.listening is not None
    net.server.await_sockets(FIN_WAIT_1, server.listening.port, count)
    # The kernel keeps the whole socket, and later resets, only if the segment that acknowledges its FIN
    # carries a FIN as well; this one's is old, so it is not taken for the end of the peer's stream.
    net.router.inject(
        Datagram(peer, local, FIN | ACK, seq=one.rcv_nxt - 1, ack=one.snd_nxt + 1, window=500, ttl=63)
        for one in numbers
        for local, peer in [one.pair]
    )
    net.server.await_counter("TcpOutRsts", count)
    return net.server.label("fin_wait2_timeout", "local", Direction.SENT, server, server.pairs)
