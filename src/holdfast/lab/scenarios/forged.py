"""RST segments that no TCP stack sent: injected from the path, or by a raw socket on the host itself."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from errno import ECONNRESET

from holdfast.causes import Direction
from holdfast.lab.app import App, Numbers
from holdfast.lab.label import Label
from holdfast.lab.network import Network
from holdfast.lab.rules import FROM_SERVER, SILENCE, path
from holdfast.lab.scenario import Needs, scenario
from holdfast.lab.scenarios.firewall import suffered_by
from holdfast.lab.scenarios.handshake import ISN, forged_pairs
from holdfast.lab.segment import RST, SYN, Datagram

REQUEST, ANSWER = "question", "answer"
FAR_TTL = 128  # not what Linux starts with, and seen one hop away


def conversing(net: Network, count: int) -> tuple[App, App]:
    """Connections that have carried a question and an answer, so that both ends know their peer."""
    server, client = net.established(count)
    client.send(REQUEST)
    server.receive(len(REQUEST))
    server.send(ANSWER)
    client.receive(len(ANSWER))
    return server, client


def forged(
    numbers: Iterable[Numbers], ahead: int = 0, *, ttl: int = FAR_TTL, window: int = 0
) -> list[Datagram]:
    """A RST to each connection as if from its peer, ``ahead`` of the number that would be exact."""
    return [
        Datagram(peer, local, RST, one.rcv_nxt + ahead, 0, window, ttl)
        for one in numbers
        for local, peer in [one.pair]
    ]


def carry_on(server: App, client: App) -> None:
    """The server, which was not told, sends more; the client's kernel knows nothing of it any more."""
    server.send("more")
    server.await_end(ECONNRESET)
    client.host.await_counter("TcpOutRsts", len(client.pairs))


@scenario(needs=Needs.RAW)
def injected(net: Network, count: int) -> Label:
    """Somebody on the path injects a RST with the exact number; the real peer carries on."""
    server, client = conversing(net, count)
    net.router.inject(forged(client.numbers()))
    client.await_end(ECONNRESET)
    carry_on(server, client)
    return suffered_by(client, "injected", "path")


@scenario(cause="injected", needs=Needs.RAW)
def injected_ladder(net: Network, count: int) -> Label:
    """Somebody on the path injects several RSTs with growing numbers, to hit one of them."""
    server, client = conversing(net, count)
    numbers = client.numbers()
    for ahead in (0, 1460, 2920):
        net.router.inject(forged(numbers, ahead))
    client.await_end(ECONNRESET)
    carry_on(server, client)
    return suffered_by(client, "injected", "path")


@scenario(cause="injected", needs=Needs.RAW)
def injected_ladder_down(net: Network, count: int) -> Label:
    """Somebody on the path guesses from above and hits last; the real peer has nothing more to say."""
    _, client = conversing(net, count)
    numbers = client.numbers()
    for ahead in (2920, 1460):
        net.router.inject(forged(numbers, ahead))
    net.client.await_counter("TcpExtTCPChallengeACK", count)
    net.router.inject(forged(numbers))
    client.await_end(ECONNRESET)
    return replace(suffered_by(client, "injected", "path"), alone=True)


@scenario(needs=Needs.RAW)
def ignored_in_window(net: Network, count: int) -> Label:
    """A forged RST is in the window but not exact; the kernel asks the peer (challenge ACK) and goes on."""
    server, client = conversing(net, count)
    net.router.inject(forged(client.numbers(), 100))
    net.client.await_counter("TcpExtTCPChallengeACK", count)
    still_alive(server, client)
    return suffered_by(client, "ignored_in_window", "path")


@scenario(needs=Needs.RAW)
def ignored_out_of_window(net: Network, count: int) -> Label:
    """A forged RST is far out of the window; the kernel ignores it."""
    server, client = conversing(net, count)
    seen = net.client.counters()["TcpInSegs"]
    net.router.inject(forged(client.numbers(), 1 << 30))
    net.client.await_counter("TcpInSegs", seen + count)
    still_alive(server, client)
    return suffered_by(client, "ignored_out_of_window", "path")


def still_alive(server: App, client: App) -> None:
    """The connections work."""
    client.send(REQUEST)
    server.receive(len(REQUEST))


@scenario(needs=Needs.RAW)
def unrecognised_sender(net: Network, count: int) -> Label:
    """A RST of no known stack's shape ends a silent connection, and its hop count gives nothing away."""
    _, client = conversing(net, count)
    net.router.inject(forged(client.numbers(), ttl=63, window=1234))
    client.await_end(ECONNRESET)
    return replace(suffered_by(client, "unrecognised_sender", "unknown"), alone=True)


@scenario(needs=Needs.RAW)
def not_sent_by_tcp(net: Network, count: int) -> Label:
    """A program on the server's own host resets its connections with a raw socket."""
    server, client = conversing(net, count)
    net.server.inject(forged(client.numbers(), ttl=64))
    client.await_end(ECONNRESET)
    return net.server.label("not_sent_by_tcp", "local", Direction.SENT, server, server.pairs)


@scenario(needs=Needs.RAW)
def handshake_abandoned(net: Network, count: int) -> Label:
    """A client resets its connection before the handshake is finished, as a SYN scanner does."""
    net.router.firewall(path(FROM_SERVER + SILENCE))
    server = net.server.app()
    pairs = forged_pairs(server.listen(), net.client.ip, count)
    for flags, seq in ((SYN, ISN), (RST, ISN + 1)):
        net.client.inject(Datagram(peer, local, flags, seq, window=500) for local, peer in pairs)
    net.server.await_counter("TcpExtEmbryonicRsts", count)
    return net.server.label("handshake_abandoned", "peer", Direction.RECEIVED, server, pairs)
