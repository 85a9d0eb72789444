"""Resets during the handshake, or by a host that knows nothing of the connection."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from errno import ECONNREFUSED, ECONNRESET, ETIMEDOUT

from holdfast.causes import Direction
from holdfast.events import Endpoint
from holdfast.lab.app import CLOSE_WAIT, ESTABLISHED, SYN_RECEIVED, App
from holdfast.lab.label import Label, Pair, swapped
from holdfast.lab.network import Host, Network
from holdfast.lab.rules import DROP_PURE_ACKS, FROM_SERVER, OPEN, SILENCE, path
from holdfast.lab.scenario import Needs, scenario
from holdfast.lab.segment import ACK, PSH, SYN, Datagram, timestamps

CLOSED_PORT = 4
FIRST_FORGED_PORT = 41001
ISN = 1_000_000
USER_TIMEOUT_MS = 300


def forged_pairs(local: Endpoint, peer_ip: str, count: int) -> tuple[Pair, ...]:
    """Addresses of connections that no program ever opened."""
    return tuple((local, Endpoint(peer_ip, FIRST_FORGED_PORT + n)) for n in range(count))


def answered(host: Host, cause: str, owner: App | None, pairs: tuple[Pair, ...]) -> Label:
    """The label of passive resets, once the host has sent one for each pair."""
    host.await_counter("TcpOutRsts", len(pairs))
    return host.label(cause, "local", Direction.SENT, owner, pairs)


@scenario()
def closed_port(net: Network, count: int) -> Label:
    """A client dials a port where nobody listens."""
    client = net.client.app()
    client.dial(Endpoint(net.server.ip, CLOSED_PORT), count)
    client.await_end(ECONNREFUSED)
    return answered(net.server, "closed_port", None, swapped(client.pairs))


@scenario(needs=Needs.FIREWALL)
def accept_queue_overflow(net: Network, count: int) -> Label:
    """Handshakes finish when the accept queue is full, and tcp_abort_on_overflow is set."""
    net.server.sysctl(tcp_abort_on_overflow=1)
    backlog = 2 * count
    server, client, address = net.listening(backlog=backlog)
    crowd = net.router.app("lab-crowd")
    crowd.dial(address, backlog)
    server.await_pending(backlog)
    net.router.firewall(path(DROP_PURE_ACKS))
    client.dial(address, count)
    client.await_state(ESTABLISHED)
    crowd.dial(address, 1)  # a queue is full only when it holds one more than the backlog
    server.await_pending(backlog + 1)
    net.router.firewall(OPEN)
    client.send("hello")
    client.await_end(ECONNRESET)
    return answered(net.server, "accept_queue_overflow", server, swapped(client.pairs))


@scenario(needs=Needs.RAW)
def segment_to_listener(net: Network, count: int) -> Label:
    """Segments of connections that this server never had reach its listening port, as after a rehash."""
    server = net.server.app()
    pairs = forged_pairs(server.listen(), net.client.ip, count)
    net.client.inject(Datagram(peer, local, ACK, seq=ISN, ack=ISN, window=500) for local, peer in pairs)
    return answered(net.server, "segment_to_listener", server, pairs)


@scenario(needs=Needs.RAW)
def duplicate_syn(net: Network, count: int) -> Label:
    """A second SYN with another sequence number comes from the same port while the first is half-open."""
    net.router.firewall(path(FROM_SERVER + SILENCE))
    server = net.server.app()
    pairs = forged_pairs(server.listen(), net.client.ip, count)
    for seq in (ISN, ISN + 100):
        net.client.inject(Datagram(peer, local, SYN, seq=seq, window=500) for local, peer in pairs)
    return answered(net.server, "duplicate_syn", server, pairs)


def dialling(net: Network, count: int) -> App:
    """A client in SYN_SENT; its SYNs never reach the server, nor the server's segments the client."""
    net.router.firewall(path(SILENCE))
    _, client, address = net.listening()
    client.dial(address, count)
    return client


@scenario(needs=Needs.RAW)
def stale_handshake_answer(net: Network, count: int) -> Label:
    """A SYN is answered by a SYN-ACK that acknowledges what was never sent."""
    client = dialling(net, count)
    net.router.inject(
        Datagram(peer, local, SYN | ACK, seq=ISN, ack=one.snd_nxt + 1000, window=500, ttl=63)
        for one in client.numbers()
        for local, peer in [one.pair]
    )
    return answered(net.client, "stale_handshake_answer", client, client.pairs)


@scenario(cause="stale_handshake_answer", needs=Needs.RAW)
def port_reused_after_crash(net: Network, count: int) -> Label:
    """A client that lost its power dials again from the same ports, and the server still has the old ones."""
    server, client = net.established(count)
    address = server.pairs[0][0]
    client.vanish()
    again = net.client.app()
    for local, _ in client.pairs:
        again.dial(address, 1, source_port=local.port)
    server.await_end(ECONNRESET)
    return answered(net.client, "stale_handshake_answer", again, again.pairs)


@scenario(needs=Needs.RAW)
def handshake_timestamp_mismatch(net: Network, count: int) -> Label:
    """A SYN is answered by a SYN-ACK that echoes a timestamp which was never sent."""
    client = dialling(net, count)
    net.router.inject(
        Datagram(peer, local, SYN | ACK, ISN, one.snd_nxt, 500, ttl=63, options=timestamps(1, 1))
        for one in client.numbers()
        for local, peer in [one.pair]
    )
    return answered(net.client, "handshake_timestamp_mismatch", client, client.pairs)


@scenario(needs=Needs.RAW)
def bad_handshake_ack(net: Network, count: int) -> Label:
    """Two hosts open at the same time, and the last acknowledgement covers what was never sent."""
    client = dialling(net, count)
    numbers = client.numbers()
    for flags, ahead in ((SYN, 0), (ACK, 1000)):
        net.router.inject(
            Datagram(peer, local, flags, ISN + (flags == ACK), one.snd_nxt + ahead, 500, ttl=63)
            for one in numbers
            for local, peer in [one.pair]
        )
        if flags == SYN:
            client.await_state(SYN_RECEIVED)
    return answered(net.client, "bad_handshake_ack", client, client.pairs)


@scenario(needs=Needs.RAW)
def unexpected_syn_ack(net: Network, count: int) -> Label:
    """SYN-ACKs reach a host that never dialled, as when somebody else dials in its name."""
    pairs = forged_pairs(Endpoint(net.client.ip, CLOSED_PORT), net.server.ip, count)
    net.server.inject(Datagram(peer, local, SYN | ACK, seq=ISN, ack=ISN, window=500) for local, peer in pairs)
    return answered(net.client, "unexpected_syn_ack", None, pairs)


@scenario(cause="unexpected_syn_ack", needs=Needs.FIREWALL)
def client_gave_up(net: Network, count: int) -> Label:
    """A client gives up its dial before the server's SYN-ACK arrives."""
    net.router.firewall(path(FROM_SERVER + SILENCE))
    _, client, address = net.listening()
    client.dial(address, count)
    client.close()
    net.router.firewall(OPEN)
    return answered(net.client, "unexpected_syn_ack", client, client.pairs)


@scenario(needs=Needs.RAW)
def unknown_connection(net: Network, count: int) -> Label:
    """Data comes for connections that this host never had, to a port without any socket."""
    pairs = forged_pairs(Endpoint(net.server.ip, CLOSED_PORT), net.client.ip, count)
    net.client.inject(
        Datagram(peer, local, PSH | ACK, ISN, ISN, 500, payload=b"hello") for local, peer in pairs
    )
    return answered(net.server, "unknown_connection", None, pairs)


@scenario(cause="unknown_connection", needs=Needs.FIREWALL)
def rebooted_peer(net: Network, count: int) -> Label:
    """A server loses its power and comes back; its clients go on sending on the old connections."""
    _, client = net.established(count)
    net.replace_server()
    client.send("hello")
    client.await_end(ECONNRESET)
    return answered(net.server, "unknown_connection", None, swapped(client.pairs))


@scenario(needs=Needs.RAW)
def late_segment(net: Network, count: int) -> Label:
    """A segment arrives late, after both ends had closed and this host had forgotten the connection."""
    server, client = net.established(count)
    numbers = client.numbers()
    server.close()
    client.await_state(CLOSE_WAIT)
    client.close()
    net.client.await_gone(client.pairs)
    net.server.inject(
        Datagram(peer, local, PSH | ACK, one.rcv_nxt, one.snd_nxt, 500, payload=b"late")
        for one in numbers
        for local, peer in [one.pair]
    )
    return answered(net.client, "late_segment", client, client.pairs)


@scenario(cause="late_segment", needs=Needs.FIREWALL)
def late_after_timeout(net: Network, count: int) -> Label:
    """A client timed out on a dead path; when the path heals the server, which noticed nothing, sends."""
    server, client = net.established(count)
    net.router.firewall(path(SILENCE))
    client.user_timeout(USER_TIMEOUT_MS)
    client.send("are you there?")
    client.await_end(ETIMEDOUT)
    net.router.firewall(OPEN)
    server.send("yes")
    server.await_end(ECONNRESET)
    return answered(net.client, "late_segment", client, client.pairs)
