"""Made-up connections with a label each, as one place would capture them, and what captures do to them.

Nothing here touches a network: numbers, hop counts and times are those that real stacks and real
middleboxes give. Chance is passed in, so that the same seed gives the same capture.
"""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import NamedTuple

from holdfast.events import Endpoint
from holdfast.lab.segment import ACK, FIN, MODULUS, PSH, RST, SYN, Datagram, timestamps

START_NS = 1_764_000_000_000_000_000
MSS = 1448
REQUEST = b"GET /report HTTP/1.1\r\nHost: www.example.net\r\n\r\n"


class Sent(NamedTuple):
    """A segment and when the capture saw it."""

    time_ns: int
    segment: Datagram


@dataclass(frozen=True, slots=True)
class Connection:
    """Segments in the order of the capture, and the truth.

    Attributes:
        kind: which of :data:`KINDS` made it.
        sender: who sent the RST: ``client``, ``server`` or ``path``; None if there is none that counts.
        causes: what may be said of it; more than one where the wire shows them alike.
    """

    kind: str
    sender: str | None
    causes: tuple[str, ...]
    client: Endpoint
    server: Endpoint
    segments: tuple[Sent, ...]


@dataclass(slots=True)
class _End:
    """One end's stack: where its numbers are, how many hops away it is, how it counts."""

    address: Endpoint
    ttl: int
    stamps: bool
    counts: bool  # IP ID: a counter, else 0
    next: int
    ip_id: int
    clock: int
    last_sent: int = 0
    heard: int = 0


@dataclass(slots=True)
class Talk:
    """Writes a conversation down, segment by segment; times as the capture at the client sees them."""

    chance: Random
    number: int
    now_ns: int = 0
    segments: list[Sent] = field(default_factory=list)
    client: _End = field(init=False)
    server: _End = field(init=False)
    rtt_ns: int = field(init=False)

    def __post_init__(self) -> None:
        pick = self.chance
        self.now_ns = START_NS + self.number * 2_000_000 + pick.randrange(1_000_000)
        self.rtt_ns = pick.randrange(2_000_000, 120_000_000)
        stamps = pick.random() < 0.8
        high, low = divmod(self.number, 250)
        ends = (
            Endpoint(f"10.{high % 250}.{low}.7", 32768 + pick.randrange(28000)),
            Endpoint(f"198.{18 + high // 250}.{high % 250}.{low}", pick.choice((80, 443, 8080))),
        )
        ttls = (64, pick.choice((64, 64, 128, 255)) - pick.randrange(3, 22))
        self.client, self.server = (
            _End(end, ttl, stamps, pick.random() < 0.7, pick.randrange(MODULUS), pick.randrange(60000),
                 pick.randrange(1 << 30))
            for end, ttl in zip(ends, ttls, strict=True)
        )  # fmt: skip

    def wait(self, ns: int) -> None:
        """Let time pass."""
        self.now_ns += ns

    def elsewhere(self) -> int:
        """A TTL from some hops nearer or farther than the server, or from another kind of stack."""
        return self.chance.choice(
            [ttl for far in (-19, -9, 7, 35) if 0 < (ttl := self.server.ttl + far) < 256]
        )

    def half(self) -> None:
        """Let the server's answer come: what the client said must get there and back."""
        self.wait(self.rtt_ns + self.chance.randrange(20_000, 400_000))

    def put(self, end: _End, flags: int, data: int = 0, **other: object) -> Datagram:
        """A segment of an end's own stack, with its next numbers."""
        peer = self.server if end is self.client else self.client
        if end.counts:
            end.ip_id = (end.ip_id + 1) % 65536
        options = b""
        if end.stamps:
            options = timestamps((end.clock + self.now_ns // 1_000_000) % MODULUS, 1)
        made = Datagram(
            end.address, peer.address, flags, end.next, peer.next if flags & ACK else 0,
            window=501, ttl=end.ttl, ip_id=end.ip_id if end.counts else 0, options=options,
            payload=(REQUEST + b"x" * data)[:data] if end is self.client else b"x" * data,
        )  # fmt: skip
        made = dataclasses.replace(made, **other)  # type: ignore[arg-type]
        if not flags & RST:
            end.next = (made.seq + data + bool(flags & SYN) + bool(flags & FIN)) % MODULUS
        self.segments.append(Sent(self.now_ns, made))
        self.wait(self.chance.randrange(5_000, 60_000))
        return made

    def forge(self, end: _End, flags: int, **other: object) -> None:
        """A segment that only claims to come from an end."""
        peer = self.server if end is self.client else self.client
        made = Datagram(
            end.address, peer.address, flags, end.next, peer.next if flags & ACK else 0, ttl=end.ttl
        )
        self.segments.append(Sent(self.now_ns, dataclasses.replace(made, **other)))  # type: ignore[arg-type]
        self.wait(self.chance.randrange(3_000, 30_000))

    def answer(self, end: _End, trigger: Datagram) -> None:
        """What a stack without this connection answers (RFC 9293 3.5.2)."""
        if trigger.flags & ACK:
            self.forge(end, RST, seq=trigger.ack, ack=0, ttl=end.ttl, ip_id=0)
        else:
            after = trigger.seq + len(trigger.payload) + bool(trigger.flags & SYN)
            self.forge(end, RST | ACK, seq=0, ack=after % MODULUS, ttl=end.ttl, ip_id=0)

    def open(self) -> None:
        """The handshake."""
        self.put(self.client, SYN)
        self.half()
        self.put(self.server, SYN | ACK)
        self.put(self.client, ACK)

    def exchange(self, rounds: int | None = None) -> None:
        """Requests and answers."""
        for _ in range(rounds if rounds is not None else self.chance.randrange(1, 6)):
            self.put(self.client, PSH | ACK, self.chance.randrange(40, 900))
            self.half()
            for _ in range(self.chance.randrange(1, 6)):
                self.put(self.server, PSH | ACK, self.chance.randrange(60, MSS))
            self.put(self.client, ACK)
            self.wait(self.chance.randrange(1_000_000, 30_000_000))

    def abort(self, end: _End) -> None:
        """A stack's own decision; systems other than Linux leave window and options out."""
        if end.stamps:
            self.put(end, RST | ACK)
        else:
            self.put(end, RST | ACK, window=0)

    def told(self, kind: str, sender: str | None, *causes: str) -> Connection:
        """What was written down, with its label."""
        return Connection(
            kind, sender, causes, self.client.address, self.server.address, tuple(self.segments)
        )


def _closed(talk: Talk) -> Connection:
    """Both sides say goodbye."""
    talk.open()
    talk.exchange()
    talk.put(talk.client, FIN | ACK)
    talk.half()
    talk.put(talk.server, FIN | ACK)
    talk.put(talk.client, ACK)
    return talk.told("closed", None)


def _reset_after_goodbye(talk: Talk) -> Connection:
    """Both sides say goodbye, and one resets all the same."""
    _closed(talk)
    talk.abort(talk.client)
    return talk.told("reset_after_goodbye", "client", "orderly_end")


def _refused(talk: Talk) -> Connection:
    """Nobody listens."""
    syn = talk.put(talk.client, SYN)
    talk.half()
    talk.answer(talk.server, syn)
    return talk.told("refused", "unknown", "connection_refused")


def _unread(talk: Talk) -> Connection:
    """The server closes without reading the last request."""
    talk.open()
    talk.exchange()
    talk.put(talk.client, PSH | ACK, 400)
    talk.half()
    talk.put(talk.server, ACK)
    talk.abort(talk.server)
    return talk.told("unread", "server", "closed_with_unread_data")


def _cancelled(talk: Talk) -> Connection:
    """The client aborts while an answer streams in."""
    talk.open()
    talk.put(talk.client, PSH | ACK, 300)
    talk.half()
    for _ in range(6):
        talk.put(talk.server, ACK, MSS)
    talk.put(talk.client, ACK)
    for _ in range(3):
        talk.put(talk.server, ACK, MSS)
    talk.abort(talk.client)
    for _ in range(4):
        late = talk.put(talk.server, ACK, MSS)
        talk.answer(talk.client, late)
    return talk.told("cancelled", "client", "closed_with_unread_data", "peer_aborted")


def _aborted(talk: Talk) -> Connection:
    """The server aborts after its answer."""
    talk.open()
    talk.exchange()
    talk.abort(talk.server)
    return talk.told("aborted", "server", "peer_aborted")


def _race(talk: Talk) -> Connection:
    """The server closes an idle connection just when the next request comes."""
    talk.open()
    talk.exchange(3)
    talk.wait(5_000_000_000)
    talk.put(talk.server, FIN | ACK)
    talk.put(talk.client, ACK)
    request = talk.put(talk.client, PSH | ACK, 300)
    talk.half()
    talk.answer(talk.server, request)
    return talk.told("race", "server", "keepalive_race")


def _forgotten(talk: Talk) -> Connection:
    """The server's host has restarted."""
    talk.open()
    talk.exchange()
    talk.wait(20_000_000_000)
    request = talk.put(talk.client, PSH | ACK, 300)
    talk.half()
    talk.answer(talk.server, request)
    return talk.told("forgotten", "server", "peer_had_no_connection")


def _firewall(talk: Talk) -> Connection:
    """A firewall on the path rejects what it has no state for."""
    talk.open()
    talk.exchange()
    talk.wait(400_000_000_000)
    request = talk.put(talk.client, PSH | ACK, 300)
    talk.wait(talk.rtt_ns // 3)
    talk.forge(talk.server, RST, seq=request.ack, ack=0, ttl=64 - talk.chance.randrange(1, 3), ip_id=0)
    return talk.told("firewall", "path", "path_firewall_reject")


def _ladder(talk: Talk) -> Connection:
    """A censor sends three RSTs with growing numbers after a request, and the answer comes all the same."""
    talk.open()
    talk.put(talk.client, PSH | ACK, 517)
    talk.wait(talk.rtt_ns // 5)
    ttl = talk.elsewhere()
    for ahead in (0, 1460, 4380):
        talk.forge(
            talk.server, RST | ACK, seq=(talk.server.next + ahead) % MODULUS, ttl=ttl, window=8192, ip_id=64
        )
    talk.half()
    talk.put(talk.server, PSH | ACK, 1200)
    return talk.told("ladder", "path", "injected")


def _spoofed(talk: Talk) -> Connection:
    """An injector copies numbers, not the distance; the server, which knows nothing, goes on."""
    talk.open()
    talk.exchange()
    talk.forge(talk.server, RST, ack=0, ttl=talk.elsewhere())
    talk.half()
    for _ in range(2):
        late = talk.put(talk.server, PSH | ACK, 700)
        talk.answer(talk.client, late)
        talk.wait(5_000_000)
    return talk.told("spoofed", "path", "injected", "path_firewall_reject")


def _two_answers(talk: Talk) -> Connection:
    """An injector answers the SYN, turned around, before the server does."""
    syn = talk.put(talk.client, SYN)
    talk.wait(talk.rtt_ns // 10)
    after = (syn.seq + 1) % MODULUS
    talk.forge(
        talk.server, RST | ACK, seq=0, ack=after, ttl=talk.elsewhere(), ip_id=syn.ip_id, window=syn.window
    )
    talk.half()
    talk.put(talk.server, SYN | ACK)
    return talk.told("two_answers", "path", "injected")


def _both_ways(talk: Talk) -> Connection:
    """A device resets both ends at once, after a request."""
    talk.open()
    talk.put(talk.client, PSH | ACK, 600)
    talk.wait(talk.rtt_ns // 6)
    for end in (talk.server, talk.client):
        talk.forge(end, RST | ACK, ttl=47, window=502, ip_id=4711)
    return talk.told("both_ways", "path", "injected")


def _blind(talk: Talk) -> Connection:
    """Somebody guesses a number in the window; the connection lives on."""
    talk.open()
    talk.exchange()
    talk.forge(talk.server, RST, seq=(talk.server.next + 9000) % MODULUS, ack=0, ttl=talk.elsewhere())
    talk.put(talk.client, ACK)
    talk.exchange(2)
    return talk.told("blind", "path", "ignored_in_window", "ignored_out_of_window")


KINDS: dict[str, Callable[[Talk], Connection]] = {
    "closed": _closed,
    "reset_after_goodbye": _reset_after_goodbye,
    "refused": _refused,
    "unread": _unread,
    "cancelled": _cancelled,
    "aborted": _aborted,
    "race": _race,
    "forgotten": _forgotten,
    "firewall": _firewall,
    "ladder": _ladder,
    "spoofed": _spoofed,
    "two_answers": _two_answers,
    "both_ways": _both_ways,
    "blind": _blind,
}
"""Every kind of connection, by name."""


def connections(seed: int, each: int, kinds: Sequence[str] = tuple(KINDS)) -> Iterator[Connection]:
    """So many of each kind, all different."""
    chance = Random(seed)
    for number in range(each * len(kinds)):
        yield KINDS[kinds[number % len(kinds)]](Talk(chance, number))


@dataclass(frozen=True, slots=True)
class Harshness:
    """What a capture does to what it captures; shares between 0 and 1.

    Attributes:
        lost: missed by the capture, not by the receiver. swapped: changes places with the next.
        copied: seen twice, as by a span port; of those, half one hop later.
        detoured: took another way, some hops longer or shorter (ECMP for each packet).
    """

    lost: float = 0.0
    swapped: float = 0.0
    copied: float = 0.0
    detoured: float = 0.0


def disturbed(segments: Sequence[Sent], harsh: Harshness, chance: Random) -> list[Sent]:
    """The segments as such a capture has them."""
    kept: list[Sent] = []
    for one in segments:
        if chance.random() < harsh.lost:
            continue
        if chance.random() < harsh.detoured:
            ttl = max(1, one.segment.ttl - chance.choice((-1, 1, 2)))
            one = Sent(one.time_ns, dataclasses.replace(one.segment, ttl=ttl))
        kept.append(one)
        if chance.random() < harsh.copied:
            later = one.segment.ttl - (chance.random() < 0.5)
            kept.append(Sent(one.time_ns + 1_000, dataclasses.replace(one.segment, ttl=later)))
    at = 0
    while at + 1 < len(kept):
        if chance.random() < harsh.swapped:
            one, two = kept[at], kept[at + 1]
            # The capture stamps what it sees in the order in which it sees it.
            kept[at : at + 2] = [Sent(one.time_ns, two.segment), Sent(two.time_ns, one.segment)]
            at += 1
        at += 1
    return kept
