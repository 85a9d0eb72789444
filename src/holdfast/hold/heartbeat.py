"""Signs of life in both directions: when to speak, when to doubt the peer, when to give it up.

It is told the time and touches no clock. Alone, it works on any stream that has frames; see :class:`Beats`.
"""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from google.protobuf.message import DecodeError

from holdfast.errors import UsageError
from holdfast.hold.wire.heartbeat_pb2 import Beat, Ping, Pong
from holdfast.hold.wire.heartbeat_pb2 import Terms as WireTerms
from holdfast.policy.bounds import real

NEVER = float("inf")
FIRST_RTO_S = 1.0
"""RFC 6298 section 2: what to expect while no round trip was measured."""

GRANULARITY_S = 0.001
DEAD_AFTER = 2.5
"""In intervals: two signs of life may be late or lost, as in AMQP, and half of one is for the path."""

EXPECTED_S = 0.5
"""The least time that an awaited answer has before its absence is suspicious."""

LONGEST_S = 3600.0
"""The longest interval. A peer that claims a longer one would never be given up; it counts as this."""

LEAST_S = 0.001
"""The shortest interval: they travel in milliseconds."""

LONGEST_ASKED_S = 60.0
"""The longest interval that a peer is asked to leave between two Pings."""

LEAD = 0.9
"""The part of its interval after which a client speaks, so that its PING comes before the server's own."""


class Life(StrEnum):
    """What is thought of the peer."""

    ALIVE = "alive"
    SUSPECT = "suspect"
    DEAD = "dead"


@dataclass(frozen=True, slots=True)
class Rhythm:
    """How often one end can speak and wants to hear.

    Attributes:
        can_s: the shortest time between two signs of life that this end promises; 0: it promises none.
        want_s: how often it wants to hear the peer; 0: it does not mind silence.
        least_s: Pings that come closer than this are answered by asking for longer intervals.

    Raises:
        UsageError: a number that makes no sense.
    """

    can_s: float = 10.0
    want_s: float = 30.0
    least_s: float = 1.0

    def __post_init__(self) -> None:
        for name in ("can_s", "want_s", "least_s"):
            value = getattr(self, name)
            real(name, value, 0, LONGEST_S)
            if 0 < value < LEAST_S:  # as 0 ms on the wire it would stand for never
                raise UsageError(
                    f"{name} is {value!r}: give 0, or from {LEAST_S:g} to at most {LONGEST_S:g}."
                )

    def wire(self) -> bytes:
        """As it travels: a Terms of heartbeat.proto."""
        return WireTerms(
            can_ms=round(self.can_s * 1000), want_ms=round(self.want_s * 1000)
        ).SerializeToString()


def interval_s(can_ms: int, want_ms: int) -> float:
    """One direction's interval: the larger of what its sender can and its receiver wants (STOMP 1.2)."""
    return min(max(can_ms, want_ms) / 1000, LONGEST_S) if can_ms and want_ms else NEVER


class RoundTrip:
    """The smoothed round trip and its variation (RFC 6298 section 2), in seconds.

    Attributes:
        srtt_s, rttvar_s: None until one was measured.
    """

    __slots__ = ("rttvar_s", "srtt_s")

    def __init__(self) -> None:
        self.srtt_s: float | None = None
        self.rttvar_s: float | None = None

    def measured(self, rtt_s: float) -> None:
        """One more measurement."""
        if self.srtt_s is None or self.rttvar_s is None:
            self.srtt_s, self.rttvar_s = rtt_s, rtt_s / 2
            return
        self.rttvar_s += (abs(self.srtt_s - rtt_s) - self.rttvar_s) / 4
        self.srtt_s += (rtt_s - self.srtt_s) / 8

    @property
    def allowance_s(self) -> float:
        """How long after it was due a sign of life may come: a round trip and four variations."""
        if self.srtt_s is None or self.rttvar_s is None:
            return FIRST_RTO_S
        return self.srtt_s + max(GRANULARITY_S, 4 * self.rttvar_s)


class Heartbeat:
    """The heartbeat of one end of one transport.

    Attributes:
        trip: the round trip as measured by Pings.
        stalls: how often this process itself was found to have stood still.
        slowed: how often the peer asked for longer intervals.

    Args:
        rhythm: what this end can and wants.
        now_s: seconds on a clock that goes on while the machine sleeps (CLOCK_BOOTTIME).
        lead: the part of its interval after which this end speaks; LEAD at one end saves the other's.
    """

    __slots__ = (
        "_ask_s",
        "_asked_s",
        "_awaited",
        "_hear_every_s",
        "_heard_s",
        "_id",
        "_lead",
        "_looked_s",
        "_ping_came_s",
        "_pinged_s",
        "_question",
        "_send_every_s",
        "_sent_s",
        "_slower_ms",
        "_slower_s",
        "rhythm",
        "slowed",
        "stalls",
        "trip",
    )  # fmt: skip

    def __init__(self, rhythm: Rhythm, now_s: float, lead: float = 1.0) -> None:
        self.rhythm, self._lead = rhythm, lead
        self.trip = RoundTrip()
        self.stalls = self.slowed = 0
        self._send_every_s = self._hear_every_s = NEVER
        self._heard_s = self._sent_s = self._looked_s = now_s
        self._ping_came_s = -NEVER
        self._slower_ms = 0
        self._slower_s = 0.0  # what the peer asked to leave between two Pings
        self._asked_s: float | None = None  # since when an acknowledgement or an answer is awaited
        self._ask_s = NEVER  # when a Ping is due that shall tell whether the path still holds
        self._question = 0  # its id, until it is answered
        self._awaited = False  # the last Ping has no answer yet
        self._pinged_s = -NEVER
        self._id = 0

    def agree(self, wire: bytes) -> None:
        """The peer's terms, as they travel. What is no Terms counts as a peer that promises nothing."""
        try:
            peer = WireTerms.FromString(wire)
        except DecodeError:
            peer = WireTerms()
        can_ms, want_ms = round(self.rhythm.can_s * 1000), round(self.rhythm.want_s * 1000)
        self._send_every_s = self._lead * interval_s(can_ms, peer.want_ms)
        self._hear_every_s = interval_s(peer.can_ms, want_ms)

    @property
    def send_every_s(self) -> float:
        """How often this end shows life; infinite if never."""
        return self._send_every_s

    @property
    def hear_every_s(self) -> float:
        """How often the peer should; infinite if it need not."""
        return self._hear_every_s

    def heard(self, now_s: float) -> None:
        """Bytes came, whatever they were."""
        self._heard_s = now_s
        if self._asked_s is not None:
            self._asked_s = now_s

    def sent(self, now_s: float) -> None:
        """Bytes left, whatever they were."""
        self._sent_s = now_s

    def awaiting(self, something: bool, now_s: float) -> None:
        """Whether what was sent waits for an acknowledgement: then silence is suspicious sooner."""
        if not something and not self._question and self._ask_s == NEVER:
            self._asked_s = None
        elif something and self._asked_s is None:
            self._asked_s = now_s

    def ask(self, now_s: float, gone: bool = False) -> None:
        """The path may not hold any more: a Ping is due as soon as one may go, its answer as that of data.

        Args:
            gone: it does not: the peer is suspect from now on, until it is heard.
        """
        self.look(now_s)  # so that what was our own sleep is not taken for the peer's silence
        self._ask_s = min(self._ask_s, max(now_s, self._pinged_s + self._apart_s))
        if gone:
            self._asked_s = -NEVER

    # ---- what the wire sees

    @property
    def _apart_s(self) -> float:
        """What lies at least between two Pings of which the second is not due by the interval."""
        return max(self.rhythm.least_s, self._slower_s, self.trip.allowance_s)

    def ping_due(self, now_s: float) -> bool:
        """Whether to send a Ping now: this end was silent long enough, or an answer is overdue."""
        if now_s >= min(self._sent_s + self._send_every_s, self._ask_s):
            return True
        overdue = self.doubt_s() - self.trip.allowance_s
        return now_s >= overdue and now_s >= self._pinged_s + self._apart_s

    def ping(self, now_s: float) -> Ping:
        """A Ping, to be sent now."""
        self._id += 1
        self._pinged_s, self._awaited = now_s, True
        if self._ask_s != NEVER:
            self._ask_s, self._question = NEVER, self._id
            if self._asked_s is None:
                self._asked_s = now_s
        self.sent(now_s)
        return Ping(id=self._id)

    def pong(self, ping: Ping, now_s: float) -> Pong:
        """The answer to a Ping, to be sent now."""
        # Who keeps the interval that we expect is never too early, nor asked for a longer one.
        least_s = min(self.rhythm.least_s, self._hear_every_s)
        # Half of that is room for Pings that the path has pushed together.
        early = now_s - self._ping_came_s < least_s / 2
        if early:
            most_ms = round(min(LONGEST_ASKED_S, self._hear_every_s) * 1000)
            self._slower_ms = min(max(2 * self._slower_ms, round(2000 * least_s)), most_ms)
        self._ping_came_s = now_s
        self.sent(now_s)
        return Pong(id=ping.id, slower_ms=self._slower_ms if early else 0)

    def ponged(self, pong: Pong, now_s: float) -> None:
        """An answer came. One that nobody asked for is ignored."""
        if pong.slower_ms and self._send_every_s != NEVER:
            self.slowed += 1
            self._slower_s = max(self._slower_s, min(pong.slower_ms, 600_000) / 1000)
            self._send_every_s = max(self._send_every_s, self._slower_s)
        if pong.id == self._id and self._awaited:
            # What is far longer was our own sleep as likely as the path's, and would be remembered for hours.
            self.trip.measured(min(max(0.0, now_s - self._pinged_s), self._patience_s))
            self._awaited = False
        if 0 < self._question <= pong.id:
            self._question, self._asked_s = 0, None

    # ---- what is thought of the peer

    @property
    def _patience_s(self) -> float:
        """How long an answer that is awaited may take."""
        return max(EXPECTED_S, 2 * self.trip.allowance_s)

    def doubt_s(self) -> float:
        """When the peer becomes suspect, if nothing comes until then."""
        allowance_s = self.trip.allowance_s
        silent_s = self._heard_s + self._hear_every_s + allowance_s
        if self._asked_s is None:
            return silent_s
        return min(silent_s, self._asked_s + self._patience_s)

    def look(self, now_s: float) -> Life:
        """What to think of the peer now. Call it at :meth:`next_s` and whenever something happens.

        If this process was not able to look for longer than an interval (it was stopped, its loop was
        blocked, the machine slept), what the peer sent meanwhile may wait unread: the silence then counts
        from now, and a Ping is due at once.
        """
        borne_s = max(EXPECTED_S, min(self._hear_every_s, self._send_every_s, 30.0))
        late_s = now_s - max(self._looked_s, min(self.next_s(), now_s))
        self._looked_s = now_s
        if late_s > borne_s:
            self.stalls += 1
            self._heard_s = now_s
            if self._send_every_s != NEVER:  # their sum would be no number
                self._sent_s = -NEVER
            if self._asked_s is not None:
                self._asked_s = now_s
            return Life.ALIVE
        if now_s >= self._heard_s + DEAD_AFTER * self._hear_every_s + self.trip.allowance_s:
            return Life.DEAD
        return Life.SUSPECT if now_s >= self.doubt_s() else Life.ALIVE

    def next_s(self) -> float:
        """When something may be due that nobody announces: the time to look again."""
        doubt_s = self.doubt_s()
        overdue_s = max(doubt_s - self.trip.allowance_s, self._pinged_s + self._apart_s)
        dead_s = self._heard_s + DEAD_AFTER * self._hear_every_s + self.trip.allowance_s
        soonest_s = min(self._sent_s + self._send_every_s, self._ask_s, overdue_s, dead_s)
        return min(soonest_s, doubt_s) if doubt_s > self._looked_s else soonest_s


class Beats:
    """A heartbeat on a stream of your own: give each message a frame.

    Args:
        rhythm: what this end can and wants.
        now_s: seconds, as for :class:`Heartbeat`.
    """

    def __init__(self, rhythm: Rhythm, now_s: float) -> None:
        self.heart = Heartbeat(rhythm, now_s)

    def opening(self) -> bytes:
        """The first message of either end: its terms."""
        return Beat(terms=WireTerms.FromString(self.heart.rhythm.wire())).SerializeToString()

    def due(self, now_s: float) -> bytes | None:
        """A message to send now, if one is due."""
        if not self.heart.ping_due(now_s):
            return None
        return Beat(ping=self.heart.ping(now_s)).SerializeToString()

    def received(self, message: bytes, now_s: float) -> bytes | None:
        """What a message of the peer calls for: an answer to send, or nothing. Nonsense is passed over."""
        self.heart.heard(now_s)
        try:
            beat = Beat.FromString(message)
        except DecodeError:
            return None
        kind = beat.WhichOneof("kind")
        if kind == "terms":
            self.heart.agree(beat.terms.SerializeToString())
        elif kind == "ping":
            return Beat(pong=self.heart.pong(beat.ping, now_s)).SerializeToString()
        elif kind == "pong":
            self.heart.ponged(beat.pong, now_s)
        return None
