# SPDX-License-Identifier: Apache-2.0
"""What somebody without the key can do before a proof: be refused, in bounded time and memory."""

from __future__ import annotations

import hmac
import random
from dataclasses import replace

import pytest
from simulation.pair import TERMS, Joined, Pair

from holdfast.hold.session import responder
from holdfast.hold.session.codes import Code, Violation
from holdfast.hold.session.entry import MOST_HANDSHAKES
from holdfast.hold.session.frames import CONTROL_BYTES, Kind, header
from holdfast.hold.session.host import Host
from holdfast.hold.session.keys import X25519
from holdfast.hold.session.link import Link
from holdfast.hold.session.outbox import MOST_ANSWERS
from holdfast.hold.session.states import State
from holdfast.hold.session.terms import Memory
from holdfast.hold.wire.heartbeat_pb2 import Ping
from holdfast.hold.wire.session_pb2 import BUSY, Hello, Resume, ResumeOk, Welcome


def server(pair: Pair) -> Link:
    return Link(pair.channel, pair.now_s, host=pair.host, on_session=pair.met.append)


@pytest.mark.parametrize("kind", [Kind.HELLO, Kind.RESUME, Kind.DATA, Kind.PING])
def test_oversized(kind: Kind) -> None:
    link = server(Pair())
    with pytest.raises(Violation) as caught:
        link.receive(header(kind, 1, CONTROL_BYTES + 1), 1000)
    assert caught.value.code is Code.TOO_LARGE and link.over


@pytest.mark.parametrize("kind", [Kind.HELLO, Kind.PING, Kind.RESET, 200])
@pytest.mark.parametrize("sealed", [True, False])
def test_only_data_may_be_large_after_the_proof(kind: int, sealed: bool) -> None:
    """Nothing counts what waits here of a frame that is not whole."""
    pair = Pair(sealed=sealed, terms=replace(TERMS, frame_bytes=1 << 18))
    joined = pair.opened()
    joined.far.receive(header(kind, 1, CONTROL_BYTES), pair.now_s)
    other = pair.join()
    other.settle()
    with pytest.raises(Violation) as caught:
        other.far.receive(header(kind, 1, CONTROL_BYTES + 1), pair.now_s)
    assert caught.value.code is Code.TOO_LARGE and other.far.over


def test_announced_and_never_sent_holds_nothing() -> None:
    """A header that promises 4 KiB takes the memory of what came, not of what was promised."""
    link = server(Pair())
    link.receive(header(Kind.HELLO, 1, CONTROL_BYTES) + b"x" * 10, 1000)
    assert link._parser.held_bytes == 22


def test_trickled_ends_at_one_absolute_deadline() -> None:
    pair = Pair()
    flight = b"".join(pair.join().near.pull(1 << 16, pair.now_s))
    link = server(pair)
    now_s = pair.now_s
    for octet in flight[:-1]:
        now_s += TERMS.handshake_s / 20  # each byte comes well within the time, all of them do not
        link.look(now_s)
        if link.over:
            break
        link.receive(bytes([octet]), now_s)
    assert link.over and now_s - pair.now_s <= TERMS.handshake_s + 0.6
    assert len(pair.host.half_open) == 1  # the one whose flight this is


@pytest.mark.parametrize("side", ["server", "client"])
def test_a_later_handshake_has_the_same_deadline(side: str) -> None:
    """Who has proven himself once must not hold them for ever; what is carried goes on elsewhere."""
    pair = Pair()
    joined = pair.opened()
    joined.near.open(pair.session(), pair.now_s)
    if side == "server":
        joined.forth()
        assert joined.far.next_s() <= pair.now_s + TERMS.handshake_s
        joined.back(0)  # the client gets no answer, and goes on to say that it is there
    link = joined.far if side == "server" else joined.near
    for _ in range(9):
        pair.now_s += TERMS.handshake_s / 10
        link.look(pair.now_s)
        assert not link.over
    pair.now_s += TERMS.handshake_s / 10
    link.look(pair.now_s)
    assert link.over
    joined.cut()
    pair.client.write(b"goes on")
    pair.opened()
    assert pair.server.read(10) == b"goes on"


def test_later_handshakes_are_bounded_over_all_transports() -> None:
    """Beyond that the answer is that the server is busy, and the transport goes on."""
    pair = Pair()
    pair.host = Host(TERMS, Memory(1 << 22), bytes(48), most_half_open=5)
    begun = []
    for _ in range(3):
        joined = Joined(pair, pair.session())
        joined.settle()
        begun.append(joined)
        for _ in range(3):
            joined.near.open(pair.session(), pair.now_s)
        joined.forth()
    assert pair.host.later == 5
    for joined in begun:
        joined.back()
    denied = [joined.near.denied for joined in begun]
    assert denied[:2] == [None, denied[1]] and denied[2] is not None and denied[2].reason == BUSY
    assert not any(joined.near.over or joined.far.over for joined in begun)
    begun[0].cut()
    assert pair.host.later == 2
    for joined in begun[1:]:
        joined.settle()
    assert pair.host.later == 0 and len(pair.host.half_open) == 0


def test_a_client_begins_no_more_at_once_than_its_server_takes() -> None:
    pair = Pair()
    joined = Joined(pair, None)
    for _ in range(3 * MOST_HANDSHAKES):
        joined.near.open(pair.session(), pair.now_s)
    joined.settle()
    assert len(pair.met) == 3 * MOST_HANDSHAKES and not joined.far.over


def test_half_open_handshakes_are_bounded() -> None:
    pair = Pair()
    pair.host = Host(TERMS, Memory(1 << 20), bytes(48), most_half_open=10)
    links = [server(pair) for _ in range(100)]
    assert [link.over for link in links] == [False] * 10 + [True] * 90
    assert len(pair.host.half_open) == 10
    links[0].lost(pair.now_s)
    assert not server(pair).over


def test_a_transport_that_lost_its_place_is_given_up() -> None:
    """Whoever drives links says where they come from, and who is to go."""
    pair = Pair()
    pair.host = Host(TERMS, Memory(1 << 20), bytes(48), most_half_open=2)
    first, second = server(pair), server(pair)
    place = pair.host.half_open.enter("elsewhere", lambda: None)
    assert place is not None and (first.over, second.over) == (True, False)
    ours = Link(pair.channel, pair.now_s, host=pair.host, place=place)
    ours.lost(pair.now_s)
    assert len(pair.host.half_open) == 1


@pytest.mark.parametrize("end", ["proven", "refused", "cut", "violation"])
def test_a_handshake_is_under_way_until_it_has_ended_and_counted_once(end: str) -> None:
    pair = Pair()
    joined = pair.join()
    assert len(pair.host.half_open) == 1
    if end == "proven":
        joined.settle()
    elif end == "refused":
        pair.host.draining = True
        joined.settle()
    elif end == "violation":
        with pytest.raises(Violation):
            joined.far.receive(header(99, 0, 0), pair.now_s)
    assert len(pair.host.half_open) == (1 if end == "cut" else 0)
    joined.cut()
    joined.far.look(pair.now_s + TERMS.handshake_s)
    assert len(pair.host.half_open) == 0


def test_reflected_proofs_are_worth_nothing() -> None:
    """A server's own frames, sent back to it, and a client's sent back to the client."""
    pair = Pair()
    joined = pair.join()
    joined.forth()
    answer = b"".join(joined.far.pull(1 << 16, pair.now_s))
    with pytest.raises(Violation):
        server(pair).receive(answer, pair.now_s)
    with pytest.raises(Violation):
        joined.near.receive(joined.said[0], pair.now_s)
    assert pair.met == []


def test_spliced_handshakes_do_not_fit() -> None:
    """The first flight of one transport and the confirmation of another."""
    pair = Pair()
    first, second = pair.join(), pair.join()
    first.forth()
    second.forth()
    second.back()
    confirmation = b"".join(second.near.pull(1 << 16, pair.now_s))
    first.far.pull(1 << 16, pair.now_s)
    with pytest.raises(Violation) as caught:
        first.far.receive(confirmation, pair.now_s)
    assert caught.value.code in (Code.BAD_SEAL, Code.BAD_PROOF) and pair.met == []


def test_another_binding_does_not_fit() -> None:
    """Somebody between the two ends, with a certificate of his own, passes on what both say."""
    pair = Pair()
    joined = pair.join()
    pair.channel = type(pair.channel)(
        "psk", b"other", pair.channel.psk, pair.channel.agreement, pair.channel.entropy
    )
    other = server(pair)
    other.receive(b"".join(joined.near.pull(1 << 16, pair.now_s)), pair.now_s)
    with pytest.raises(Violation, match="a proof is wrong"):
        joined.near.receive(b"".join(other.pull(1 << 16, pair.now_s)), pair.now_s)
    assert pair.met == []


@pytest.mark.parametrize("mode", ["psk", "tls", "unix"])
@pytest.mark.parametrize("resuming", [False, True])
def test_a_server_without_the_key_is_not_believed(
    monkeypatch: pytest.MonkeyPatch, mode: str, resuming: bool
) -> None:
    """It takes any first flight for good, and offers what only the real one may."""
    pair = Pair()
    pair.channel = replace(pair.channel, mode=mode)
    if resuming:
        pair.opened().cut()
    before = (pair.client.key, pair.client.generation, pair.client.state)
    joined = pair.join()
    impostor = Link(replace(pair.channel, psk=bytes(32)), pair.now_s, host=pair.host)
    monkeypatch.setattr(responder, "check", lambda expected, shown: True)
    if resuming:
        monkeypatch.setattr(pair.server, "key", bytes(32))
    impostor.receive(b"".join(joined.near.pull(1 << 16, pair.now_s)), pair.now_s)
    with pytest.raises(Violation, match=r"a proof is wrong \(of the server\)"):
        joined.near.receive(b"".join(impostor.pull(1 << 16, pair.now_s)), pair.now_s)
    assert (pair.client.key, pair.client.generation, pair.client.state) == before
    assert joined.near.over and not joined.near.up


@pytest.mark.parametrize("sizes", [(31, 32), (33, 32), (32, 31), (32, 0)])
@pytest.mark.parametrize("resuming", [False, True])
def test_nonces_and_public_keys_have_their_size(sizes: tuple[int, int], resuming: bool) -> None:
    """Both ends look before they compute anything with them."""
    nonce, public_key = map(bytes, sizes)
    pair = Pair(sealed=False)
    if resuming:
        pair.opened().cut()
    asked, answer = (
        (Resume(nonce=nonce, public_key=public_key), ResumeOk(instance_id=bytes(16)))
        if resuming
        else (Hello(nonce=nonce, public_key=public_key), Welcome(version=1, instance_id=bytes(16)))
    )
    answer.nonce, answer.public_key = nonce, public_key
    joined = pair.join()
    kinds = (Kind.RESUME, Kind.RESUME_OK) if resuming else (Kind.HELLO, Kind.WELCOME)
    for link, kind, message in zip((joined.far, joined.near), kinds, (asked, answer), strict=True):
        link.pull(1 << 16, pair.now_s)
        payload = message.SerializeToString()
        with pytest.raises(Violation) as caught:
            link.receive(header(kind, 1, len(payload)) + payload, pair.now_s)
        assert caught.value.code is Code.MALFORMED and link.over


def test_a_public_key_with_which_nothing_would_be_secret_is_refused() -> None:
    """Of low order: X25519 gives zeros, whatever the other key is (RFC 7748 section 6.1)."""
    for public in (bytes(32), bytes([1, *bytes(31)])):
        with pytest.raises(Violation) as caught:
            X25519(bytes(range(32))).shared(public)
        assert caught.value.code is Code.MALFORMED


def test_only_one_handshake_may_be_under_way_before_a_proof() -> None:
    pair = Pair()
    link = server(pair)
    flight = Hello(nonce=bytes(32), public_key=bytes(32)).SerializeToString()
    link.receive(header(Kind.HELLO, 1, len(flight)) + flight, pair.now_s)
    with pytest.raises(Violation) as caught:
        link.receive(header(Kind.HELLO, 2, len(flight)) + flight, pair.now_s)
    assert caught.value.code is Code.TOO_MANY and link.over


def test_handshakes_on_a_proven_transport_are_bounded() -> None:
    pair = Pair(sealed=False)
    joined = pair.opened()
    flight = Hello(nonce=bytes(32), public_key=bytes(32)).SerializeToString()
    hellos = [header(Kind.HELLO, handle, len(flight)) + flight for handle in range(2, 3 + MOST_HANDSHAKES)]
    joined.far.receive(b"".join(hellos[:-1]), pair.now_s)
    with pytest.raises(Violation) as caught:
        joined.far.receive(hellos[-1], pair.now_s)
    assert caught.value.code is Code.TOO_MANY


def test_a_session_id_alone_disturbs_nothing() -> None:
    pair = Pair()
    joined = pair.opened()
    thief = Pair(seed=9)
    thief.client.id, thief.client.key, thief.client.generation = pair.client.id, bytes(32), 1
    thief.client.instance_id, thief.client.state = pair.host.instance_id, State.SUSPENDED
    thief.host = pair.host
    thief.join().settle()
    assert thief.client.state is State.LOST
    assert pair.server.link is joined.far and pair.server.epoch == 1
    pair.client.write(b"undisturbed")
    joined.settle()
    assert pair.server.read(100) == b"undisturbed"


def test_who_asks_and_does_not_read_is_given_up() -> None:
    """The answers of a transport that takes nothing must not pile up."""
    pair = Pair(sealed=False)
    joined = pair.opened()
    payload = Ping(id=1).SerializeToString()
    ping = header(Kind.PING, 0, len(payload)) + payload
    with pytest.raises(Violation) as caught:
        for _ in range(1000):
            joined.far.receive(ping * 100, pair.now_s)
    assert caught.value.code is Code.UNHEARD and joined.far.over
    assert len(joined.far._outbox.take()) <= MOST_ANSWERS


def test_sessions_begun_together_on_one_transport_stay_within_the_memory() -> None:
    pair = Pair()
    pair.host = Host(TERMS, Memory(2 * 4096 * 4), bytes(48))
    joined = pair.opened()
    for _ in range(6):  # all are offered while there still is room
        joined.near.open(pair.session(), pair.now_s)
    with pytest.raises(Violation, match="too many"):
        joined.settle()
    assert joined.far.over and len(pair.met) == 4
    assert pair.host.memory.promised_bytes <= pair.host.memory.cap_bytes


def test_a_session_that_is_remembered_keeps_no_bytes() -> None:
    pair = Pair()
    joined = pair.opened()
    assert pair.server.write(bytes(4000)) == 4000
    joined.cut()
    pair.host.look(pair.now_s + TERMS.keep_s + 1)
    assert pair.server.state is State.LOST and pair.host.find(pair.client.id) is pair.server
    assert not pair.server.out._chunks and not pair.server.out._tail
    assert pair.server.out.held_bytes == 4000  # the number is what a SessionLost tells


def test_unread_bytes_of_an_ended_session_count_until_somebody_takes_them() -> None:
    pair = Pair()
    joined = pair.opened()
    before, share = pair.host.memory.promised_bytes, 2 * pair.server.window
    assert pair.client.write(bytes(4000)) == 4000
    joined.settle()
    pair.client.abort(Code.ABORTED, pair.now_s)
    joined.settle()
    assert pair.server.state is State.RESET and pair.host.memory.promised_bytes == before
    taken = 0
    while taken < 4000:
        assert pair.host.memory.promised_bytes == before
        taken += len(pair.server.read(600))
    assert pair.host.memory.promised_bytes == before - share
    pair.host.look(pair.now_s)
    assert pair.host.memory.promised_bytes == before - share, "given back once"


def test_an_ended_session_counts_while_somebody_serves_it() -> None:
    pair = Pair()
    joined = pair.opened()
    pair.client.abort(Code.ABORTED, pair.now_s)
    joined.settle()
    assert pair.host.look(pair.now_s, {pair.server.id}) == [] and len(pair.host) == 1
    assert pair.host.look(pair.now_s) == [pair.server] and len(pair.host) == 0


def test_an_unknown_session_costs_the_same_work_as_a_wrong_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    work: list[int] = []
    for known in (True, False):
        for generation in (1, 2, 3):
            pair = Pair()
            pair.opened().cut()
            pair.client.key, pair.client.generation = bytes(32), generation
            if not known:
                pair.client.id = bytes(16)
            joined = pair.join()
            flight = b"".join(joined.near.pull(1 << 16, pair.now_s))
            macs: list[bytes] = []

            def counted(key: bytes, data: bytes, name: str, macs: list[bytes] = macs) -> bytes:
                macs.append(key)
                return hmac.new(key, data, name).digest()

            with monkeypatch.context() as patch:
                patch.setattr("hmac.digest", counted)
                joined.far.receive(flight, pair.now_s)
            work.append(len(macs))
    assert len(set(work)) == 1 and work[0] > 2


def test_sealed_frames_neither_change_nor_repeat_nor_move() -> None:
    for spoil in range(3):
        pair = Pair()
        joined = pair.opened()
        pair.client.write(b"first")
        one = b"".join(joined.near.pull(1 << 16, pair.now_s))
        pair.client.write(b"second")
        two = b"".join(joined.near.pull(1 << 16, pair.now_s))
        bad = (one[:-1] + bytes([one[-1] ^ 1]), one + one, two + one)[spoil]
        with pytest.raises(Violation, match="does not open"):
            joined.far.receive(bad, pair.now_s)
        assert pair.server.read(100) in (b"", b"first")


@pytest.mark.parametrize("seed", range(60))
def test_noise_ends_in_a_typed_refusal(seed: int) -> None:
    """Random bytes, and real flights with random bytes changed, at every step of both ends."""
    chance = random.Random(seed)
    pair = Pair(seed, sealed=bool(seed % 2))
    joined = pair.join()
    for _ in range(30):
        link, source = chance.choice(((joined.far, joined.near), (joined.near, joined.far)))
        data = bytearray(
            b"".join(source.pull(1 << 16, pair.now_s)) or chance.randbytes(chance.randint(1, 99))
        )
        if chance.random() < 0.4:
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        try:
            link.receive(bytes(data), pair.now_s)
        except Violation:
            assert link.over
            joined.cut()
            joined = pair.join()
        assert link._parser.held_bytes <= (1 << 16)
        if pair.client.ended:
            break
