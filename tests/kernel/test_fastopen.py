"""The first message travels in the SYN, seen on the wire; paths that lose it are found out and avoided."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import pytest
from kernel.inside import inside

from holdfast.errors import ConnectionRefused, ConnectionTimedOut, GaveUp
from holdfast.events import Endpoint
from holdfast.hold.fastopen import FastOpen, Outcome
from holdfast.hold.options import effective
from holdfast.lab import Network
from holdfast.lab.app import App
from holdfast.lab.rules import FROM_CLIENT, OPEN, SILENCE, path
from holdfast.lab.segment import ACK, SYN, Datagram
from holdfast.policy import PROFILES

pytestmark = pytest.mark.needs_netns

QUEUE = (socket.IPPROTO_TCP, socket.TCP_FASTOPEN, 64)
CLIENT, CLIENT_AND_SERVER = 1, 3
FIRST = b"GET /answer" + b"." * 40
BARE_SYN = FROM_CLIENT + "tcp flags & (syn | ack) == syn "
IP_BYTES = {4: 20, 6: 40}
# Of TCP, a SYN with the usual options has 40 bytes; one that wishes for a cookie 44, one with a cookie 52.
PLAIN_BYTES, COOKIE_BYTES = 40, 60


def soon(seconds: float) -> float:
    return time.monotonic() + seconds


def longer_than(tcp_bytes: int, family: int) -> str:
    return f"{BARE_SYN} meta length > {tcp_bytes + IP_BYTES[family]} "


@pytest.fixture(params=[4, pytest.param(6, marks=pytest.mark.slow)])
def net(request: pytest.FixtureRequest) -> Iterator[Network]:
    with Network(request.param) as made:
        for host in (made.client, made.server):
            host.sysctl(tcp_fastopen=CLIENT_AND_SERVER)
        yield made


def opened(net: Network, fast: FastOpen, server: App, *, idempotent: bool = True) -> Outcome:
    """Send the first message in a new connection, and have the server read all of it."""
    to = server.listening
    assert to is not None

    def work() -> Outcome:
        sock, outcome = fast.connect(
            to, FIRST, deadline=soon(4), idempotent=idempotent, policy=PROFILES["lan"].policy
        )
        with sock:
            assert effective(sock).keepalive == PROFILES["lan"].policy.keepalive
            server.accept(1)
            server.receive(len(FIRST))
            server.close()
        return outcome

    return inside(net.client, work)


def served(net: Network) -> App:
    server = net.server.app()
    server.listen(options=[QUEUE])
    return server


def syns(net: Network) -> list[Datagram]:
    """The SYNs that reached the server since the last call."""
    return [one for out, one in net.server.sniffed() if not out and one.flags & (SYN | ACK) == SYN]


def test_the_second_connection_has_its_message_in_the_syn(net: Network) -> None:
    server, fast = served(net), FastOpen()
    net.server.sniff()
    assert opened(net, fast, server) is Outcome.NO_COOKIE
    assert [one.payload for one in syns(net)] == [b""]
    assert opened(net, fast, server) is Outcome.USED
    assert [one.payload for one in syns(net)] == [FIRST]


def test_what_is_not_marked_idempotent_never_travels_in_a_syn(net: Network) -> None:
    server, fast = served(net), FastOpen()
    opened(net, fast, server)
    net.server.sniff()
    assert opened(net, fast, server, idempotent=False) is Outcome.NOT_IDEMPOTENT
    assert [one.payload for one in syns(net)] == [b""]


@pytest.mark.parametrize("least_bytes", [PLAIN_BYTES, COOKIE_BYTES], ids=["option", "data"])
def test_a_path_that_loses_it_is_avoided_until_it_may_be_mended(net: Network, least_bytes: int) -> None:
    """The message arrives all the same, a second late; only that once."""
    now_s = [1000.0]
    server, fast = served(net), FastOpen(clock=lambda: now_s[0])
    assert opened(net, fast, server) is Outcome.NO_COOKIE
    net.router.firewall(path(longer_than(least_bytes, net.family) + "drop"))
    assert opened(net, fast, server) is Outcome.LOST
    net.server.sniff()
    assert opened(net, fast, server) is Outcome.AVOIDED
    assert len(syns(net)) == 1
    net.router.firewall(OPEN)
    now_s[0] += 3599
    assert opened(net, fast, server) is Outcome.AVOIDED
    now_s[0] += 2
    assert opened(net, fast, server) is Outcome.USED
    # That one went through begins the count again: the next loss is worth an hour, not two.
    fast.memory.lost(net.server.ip, now_s[0])
    assert not fast.memory.avoids(net.server.ip, now_s[0] + 3600)


def test_a_path_that_loses_the_wish_for_a_cookie_is_avoided_too(net: Network) -> None:
    server, fast = served(net), FastOpen()
    net.router.firewall(path(longer_than(PLAIN_BYTES, net.family) + "drop"))
    assert [opened(net, fast, server) for _ in range(2)] == [Outcome.LOST, Outcome.AVOIDED]


def test_a_path_that_resets_it_is_gone_round_at_once(net: Network) -> None:
    server, fast = served(net), FastOpen()
    opened(net, fast, server)
    net.router.firewall(path(longer_than(PLAIN_BYTES, net.family) + "reject with tcp reset"))
    assert opened(net, fast, server) is Outcome.LOST
    assert opened(net, fast, server) is Outcome.AVOIDED


def test_a_host_that_forbids_it_connects_the_usual_way(net: Network) -> None:
    net.client.sysctl(tcp_fastopen=0)
    assert opened(net, FastOpen(), served(net)) is Outcome.UNAVAILABLE


def test_a_server_that_takes_the_data_no_longer_gets_it_the_usual_way(net: Network) -> None:
    server, fast = served(net), FastOpen()
    opened(net, fast, server)
    net.server.sysctl(tcp_fastopen=CLIENT)
    assert [opened(net, fast, server) for _ in range(2)] == [Outcome.LOST, Outcome.AVOIDED]


def test_a_server_without_it_costs_nothing(net: Network) -> None:
    net.server.sysctl(tcp_fastopen=CLIENT)
    server, fast = served(net), FastOpen()
    assert [opened(net, fast, server) for _ in range(2)] == [Outcome.NO_COOKIE] * 2


def test_a_silent_path_is_a_timeout(net: Network) -> None:
    server, fast = served(net), FastOpen()
    opened(net, fast, server)
    net.router.firewall(path(SILENCE))
    to = server.listening
    assert to is not None
    with pytest.raises(GaveUp) as caught:
        inside(net.client, lambda: fast.connect(to, FIRST, deadline=soon(0.2), idempotent=True))
    assert [type(loss) for loss in caught.value.losses] == [ConnectionTimedOut]


def test_a_closed_port_is_refused_and_nothing_is_learned_from_it(net: Network) -> None:
    server, fast = served(net), FastOpen()
    opened(net, fast, server)
    closed = Endpoint(net.server.ip, 9)
    with pytest.raises(GaveUp) as caught:
        inside(net.client, lambda: fast.connect(closed, FIRST, deadline=soon(2), idempotent=True))
    assert [type(loss) for loss in caught.value.losses] == [ConnectionRefused]
    assert opened(net, fast, server) is Outcome.USED
