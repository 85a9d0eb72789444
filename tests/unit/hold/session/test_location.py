# SPDX-License-Identifier: Apache-2.0
"""Where a server says that it is: believed once it is proven, and what another's refusal then means."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from simulation.pair import TERMS, Joined, Pair

from holdfast.hold.heartbeat import Life
from holdfast.hold.session.codes import Code, Violation
from holdfast.hold.session.core import Why
from holdfast.hold.session.host import Host
from holdfast.hold.session.link import Link
from holdfast.hold.session.states import State
from holdfast.hold.session.terms import Memory
from holdfast.hold.wire.session_pb2 import BUSY, DRAINING, Location

V4, V6 = ip_address("192.0.2.7").packed, ip_address("2001:db8::7").packed


def another(pair: Pair) -> Host:
    """Another server's sessions, with the same key."""
    return Host(TERMS, Memory(1 << 22), b"another process".ljust(48))


def asked(pair: Pair, front: bool) -> Joined:
    """A transport to whatever host the pair has now, on which the client has asked and was answered."""
    joined = Joined(pair, None)
    joined.near.open(pair.client, pair.now_s, front=front)
    joined.settle()
    return joined


def test_the_newest_offer_says_where_the_server_is() -> None:
    pair = Pair()
    for told, known in (
        (Location(address=V4, port=9000), (V4, 9000)),
        (Location(address=V6, port=9001), (V6, 9001)),
        (None, None),
        (Location(address=V4, port=9000), (V4, 9000)),
    ):
        pair.host.location = told
        pair.opened().cut()
        assert pair.client.location == known


@pytest.mark.parametrize(
    ("address", "port"),
    [(b"", 9000), (b"\x7f", 9000), (V4 + b"\0", 9000), (V6 * 200, 9000), (V4, 0), (V4, 65536), (b"", 0)],
    ids=["none", "one octet", "five", "3,200", "no port", "too large a port", "empty"],
)
def test_what_is_no_address_is_passed_over(address: bytes, port: int) -> None:
    pair = Pair()
    pair.host.location = Location(address=V4, port=9000)
    pair.opened().cut()
    pair.host.location = Location(address=address, port=port)
    pair.opened()
    assert pair.client.state is State.OPEN and pair.client.location is None


@pytest.mark.parametrize("resumed", [False, True])
def test_nobody_on_the_way_can_lead_a_client_elsewhere(resumed: bool) -> None:
    """Each octet of the location changed."""
    for place in range(4):
        pair = Pair()
        if resumed:
            pair.opened().cut()
        pair.host.location = Location(address=V4, port=9000)
        joined = pair.join()
        joined.forth()
        answer = bytearray(b"".join(joined.far.pull(1 << 16, pair.now_s)))
        answer[answer.index(V4) + place] ^= 1
        with pytest.raises(Violation) as caught:
            joined.near.receive(bytes(answer), pair.now_s)
        assert caught.value.code is Code.BAD_PROOF
        assert pair.client.location is None
        joined.cut()
        pair.opened()
        assert pair.client.location == (V4, 9000)


@pytest.mark.parametrize("front", [True, False])
def test_another_servers_refusal_ends_a_session_only_where_its_own_would_answer(front: bool) -> None:
    pair = Pair()
    pair.opened().cut()
    ours, pair.host = pair.host, another(pair)
    denied = asked(pair, front).near.denied
    assert denied is not None and denied.restarted
    if not front:
        assert pair.client.why is Why.RESTARTED
        return
    assert pair.client.state is State.SUSPENDED
    pair.client.write(b"still here")
    pair.host = ours
    pair.opened()
    assert pair.server.read(20) == b"still here"


def test_another_servers_refusal_ends_nothing_that_is_in_doubt_either() -> None:
    """In doubt, a client dials anew, perhaps only where others answer."""
    pair = Pair()
    old = pair.opened()
    old.near.life = Life.SUSPECT
    pair.host = another(pair)
    asked(pair, front=True)
    pair.client.write(b"still here")
    old.settle()
    assert pair.server.read(20) == b"still here"


@pytest.mark.parametrize("reason", [BUSY, DRAINING])
def test_what_another_server_refuses_for_now_only_ends_nothing(reason: int) -> None:
    pair = Pair()
    pair.opened().cut()
    pair.host = another(pair)
    pair.host.refuses = reason  # type: ignore[assignment]  # the number of one
    asked(pair, front=True)
    assert pair.client.state is State.SUSPENDED


def test_the_sessions_own_server_may_end_it_wherever_it_answers() -> None:
    pair = Pair()
    pair.opened().cut()
    pair.now_s += TERMS.keep_s + 1
    asked(pair, front=True)
    assert pair.client.why is Why.EXPIRED


def test_who_begins_anew_knows_no_location() -> None:
    """The confirmation was lost, and another server answers: it says itself where it is."""
    pair = Pair()
    pair.host.location = Location(address=V4, port=9000)
    joined = pair.join()
    joined.forth()
    joined.back()
    joined.cut()
    assert pair.client.state is State.OPENING and pair.client.location == (V4, 9000)
    pair.host = another(pair)
    asked(pair, front=True)
    assert pair.client.state is State.OPENING and pair.client.location is None
    pair.opened()
    assert pair.client.state is State.OPEN and pair.client.instance_id == pair.host.instance_id


def test_a_handshake_that_waits_for_another_still_knows_where_it_leads() -> None:
    """On a transport that is up further sessions may be resumed, once the first is proven."""
    pair = Pair()
    pair.opened().cut()
    other = pair.session()
    pair.host = another(pair)
    near = Link(pair.channel, pair.now_s, rhythm=TERMS.rhythm)
    joined = Joined(pair, None)
    joined.near = near
    near.open(other, pair.now_s)
    near.open(pair.client, pair.now_s, front=True)
    joined.settle()
    assert other.state is State.OPEN and pair.client.state is State.SUSPENDED
