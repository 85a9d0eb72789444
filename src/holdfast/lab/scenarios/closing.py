"""Resets that follow from how a program closes or aborts its connections."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import socket
import time
from dataclasses import replace
from errno import ECONNABORTED, ECONNRESET, EPIPE

from holdfast.causes import Direction
from holdfast.events import Harm
from holdfast.lab.app import CLOSE_WAIT, FIN_WAIT_2, LAST_ACK, App
from holdfast.lab.label import ANY, Label, swapped
from holdfast.lab.network import Network
from holdfast.lab.rules import DROP_PURE_ACKS, path
from holdfast.lab.scenario import Needs, scenario
from holdfast.lab.segment import SYN, Datagram

REQUEST = "GET / HTTP/1.1\r\nHost: lab\r\n\r\n"
ANSWER = "HTTP/1.1 204 No Content\r\n\r\n"
NOTHING = Harm(unread_bytes=0, unsent_bytes=0, unacked_bytes=0)
UNREAD = replace(NOTHING, unread_bytes=len(REQUEST))
IDLE_S = 0.2  # what a keep-alive connection does between requests


def sent_by(app: App, cause: str, harm: Harm = ANY) -> Label:
    """The label of a reset that this program's host sent on each of its connections."""
    return app.host.label(cause, "local", Direction.SENT, app, app.pairs, harm)


def close_in_peace(server: App) -> None:
    """Close and wait until the peer has acknowledged it: only mini-sockets in FIN_WAIT_2 are left."""
    assert server.listening is not None
    server.close()
    server.host.await_sockets(FIN_WAIT_2, server.listening.port, len(server.pairs))


def unread_at_server(net: Network, count: int) -> tuple[App, App]:
    """Connections whose server has a request waiting to be read."""
    server, client = net.established(count)
    client.send(REQUEST)
    server.await_unread(len(REQUEST))
    return server, client


@scenario()
def closed_with_unread_data(net: Network, count: int) -> Label:
    """A server closes a connection without having read the request that waits in its socket."""
    server, client = unread_at_server(net, count)
    server.close()
    client.await_end(ECONNRESET)
    return sent_by(server, "closed_with_unread_data", UNREAD)


@scenario(cause="closed_with_unread_data", families=(4,))
def dual_stack_closed_with_unread_data(net: Network, count: int) -> Label:
    """A server that listens on :: for both families closes IPv4 connections without having read them."""
    server, client = net.server.app(), net.client.app()
    client.dial(server.listen(on="::"), count)
    server.accept(count)
    client.send(REQUEST)
    server.await_unread(len(REQUEST))
    server.close()
    client.await_end(ECONNRESET)
    return sent_by(server, "closed_with_unread_data", UNREAD)


@scenario(cause="exited_with_unread_data")
def killed_with_unread_data(net: Network, count: int) -> Label:
    """A server is killed with SIGKILL while requests wait unread."""
    server, client = unread_at_server(net, count)
    server.kill()
    client.await_end(ECONNRESET)
    return sent_by(server, "exited_with_unread_data", UNREAD)


@scenario()
def exited_with_unread_data(net: Network, count: int) -> Label:
    """A server exits while requests wait unread."""
    server, client = unread_at_server(net, count)
    server.exit()
    client.await_end(ECONNRESET)
    return sent_by(server, "exited_with_unread_data", UNREAD)


@scenario()
def linger_zero(net: Network, count: int) -> Label:
    """A program closes with SO_LINGER on and zero seconds, which means abort."""
    server, client = net.established(count)
    server.linger_zero()
    server.close()
    client.await_end(ECONNRESET)
    return sent_by(server, "linger_zero", NOTHING)


@scenario()
def connect_af_unspec(net: Network, count: int) -> Label:
    """A client dissolves its connections with connect(AF_UNSPEC) to use the sockets again."""
    server, client = net.established(count)
    client.disconnect()
    server.await_end(ECONNRESET)
    return sent_by(client, "connect_af_unspec", NOTHING)


@scenario()
def listener_closed(net: Network, count: int) -> Label:
    """A server closes its listening socket while finished connections wait to be accepted."""
    server, client, address = net.listening()
    client.dial(address, count)
    server.await_pending(count)
    server.close_listener()
    client.await_end(ECONNRESET)
    pairs = swapped(client.pairs)
    return net.server.label("listener_closed", "local", Direction.SENT, server, pairs)


@scenario(needs=Needs.DIAG)
def socket_destroyed(net: Network, count: int) -> Label:
    """An administrator destroys a connection with ss -K."""
    server, client = net.established(count)
    assert server.listening is not None
    net.server.run("ss", "-K", "-tn", "state", "established", "sport", "=", f":{server.listening.port}")
    server.await_end(ECONNABORTED)
    client.await_end(ECONNRESET)
    return sent_by(server, "socket_destroyed", NOTHING)


@scenario()
def data_after_close(net: Network, count: int) -> Label:
    """A server closes after its answer while the client keeps sending."""
    server, client = net.established(count)
    client.send("first half, ")
    server.receive(len("first half, "))
    close_in_peace(server)
    client.send("second half")
    client.await_end(EPIPE)
    return sent_by(server, "data_after_close")


@scenario()
def keepalive_race(net: Network, count: int) -> Label:
    """A server closes an idle keep-alive connection at the moment the next request comes."""
    server, client = net.established(count)
    for _ in range(2):
        client.send(REQUEST)
        server.receive(len(REQUEST))
        server.send(ANSWER)
        client.receive(len(ANSWER))
    time.sleep(IDLE_S)
    close_in_peace(server)
    client.send(REQUEST)
    client.await_end(EPIPE)
    return sent_by(server, "keepalive_race")


@scenario()
def data_after_shutdown(net: Network, count: int) -> Label:
    """A program shuts its reading side and the peer sends more."""
    server, client = net.established(count)
    server.shutdown(socket.SHUT_RDWR)
    client.await_state(CLOSE_WAIT)
    client.send(REQUEST)
    client.await_end(EPIPE)
    return sent_by(server, "data_after_shutdown")


@scenario()
def linger2_negative(net: Network, count: int) -> Label:
    """A program with TCP_LINGER2 below zero closes after the peer has acknowledged its FIN."""
    server, client = net.established(count)
    server.option(socket.IPPROTO_TCP, socket.TCP_LINGER2, -1)
    server.shutdown(socket.SHUT_WR)
    server.await_state(FIN_WAIT_2)
    server.close()
    client.await_end(EPIPE)
    return sent_by(server, "linger2_negative")


@scenario()
def linger2_on_ack(net: Network, count: int) -> Label:
    """A program with TCP_LINGER2 below zero closes and the peer acknowledges the FIN afterwards."""
    server, client = net.established(count)
    server.option(socket.IPPROTO_TCP, socket.TCP_LINGER2, -1)
    server.close()
    client.await_end(EPIPE)
    return sent_by(server, "linger2_on_ack")


@scenario(cause="data_after_shutdown")
def data_after_shutdown_read(net: Network, count: int) -> Label:
    """A program shuts reading in one call and writing in the next, and the peer sends more."""
    server, client = net.established(count)
    for how in (socket.SHUT_RD, socket.SHUT_WR):
        server.shutdown(how)
    server.await_state(FIN_WAIT_2)
    client.send(REQUEST)
    client.await_end(EPIPE)
    return sent_by(server, "data_after_shutdown")


@scenario(needs=Needs.FIREWALL)
def closed_while_receiving(net: Network, count: int) -> Label:
    """A server closes while an upload streams in: the segment that acknowledges its FIN carries data."""
    server, client = net.established(count)
    net.router.firewall(path(DROP_PURE_ACKS))
    server.close()
    client.await_state(CLOSE_WAIT)
    client.send("the rest of the upload")
    client.await_end(EPIPE)
    return sent_by(server, "closed_while_receiving")


@scenario(needs=Needs.RAW)
def syn_after_close(net: Network, count: int) -> Label:
    """A SYN from a port used again hits a connection that this host has closed and the peer has not."""
    server, _ = net.established(count)
    numbers = server.numbers()
    close_in_peace(server)
    net.client.inject(
        Datagram(peer, local, SYN, one.rcv_nxt, window=500) for one in numbers for local, peer in [one.pair]
    )
    net.server.await_counter("TcpOutRsts", count)
    return sent_by(server, "syn_after_close")


@scenario()
def aborted_while_closing(net: Network, count: int) -> Label:
    """A program aborts in LAST_ACK, while data that it wrote before its FIN still waits to be sent."""
    server, client, address = net.listening(options=[(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)])
    client.dial(address, count)
    server.accept(count)
    server.shutdown(socket.SHUT_WR)
    client.await_state(CLOSE_WAIT)
    client.fill()
    client.shutdown(socket.SHUT_WR)
    client.await_state(LAST_ACK)
    client.linger_zero()
    client.close()
    server.await_end(ECONNRESET)
    return sent_by(client, "aborted_while_closing")


@scenario()
def orderly_end(net: Network, count: int) -> Label:
    """Both ends close in peace: an ending without any reset, to compare with."""
    server, client = net.established(count)
    # Two CPUs may deliver the client's FIN before its ACK of ours. TIME_WAIT answers the old ACK, and the
    # client, closed by then, that answer with a RST: a real late_segment. So the ACK comes first.
    close_in_peace(server)
    client.receive(0)
    client.close()
    return client.host.label("orderly_end", "peer", Direction.RECEIVED, client, client.pairs)


@scenario(cause="orderly_end")
def taken_away(net: Network, count: int) -> Label:
    """A program takes its connections away in silence (TCP_REPAIR), as tools that move processes do."""
    _, client = net.established(count)
    client.vanish()
    client.host.await_gone(client.pairs)
    return client.host.label("orderly_end", "peer", Direction.RECEIVED, client, client.pairs)
