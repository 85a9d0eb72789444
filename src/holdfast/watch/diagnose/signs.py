"""Who sent a RST: each fact for or against the end whose address it bears, with its weight.

The detectors are those of Weaver, Sommer and Paxson (NDSS 2009), in serial arithmetic; each takes care of
what makes it lie: copies of segments, reordering, capture loss, ports used again. One weak sign never
suffices.
"""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from holdfast.events import Evidence
from holdfast.watch.capture.flow import ACK, FIN, RST, SYN, Content, Packet
from holdfast.watch.diagnose.case import Case, acks_of, is_new_handshake, round_trip_ns
from holdfast.watch.diagnose.serial import ahead
from holdfast.watch.diagnose.shape import is_active_shape, is_passive_shape
from holdfast.watch.diagnose.words import duration

RACE_NS = 2_000_000_000
"""Only so long after a RST do its own detectors look: later, an old number may belong to somebody else."""

REORDER_NS = 3_000_000
"""Segments closer together than this may have changed places."""

LEAST_RTT_NS = 1_000_000
"""A shorter round trip says nothing about who answered too early."""

SAME_STREAM = 1 << 20
"""A number further ahead belongs to another connection whose SYN the capture missed."""

BOTH_SIDES_NS = 5_000_000

PROMPT_NS = 200_000_000
"""A stack answers at once: an answer that comes later than this, and than a round trip, is none."""

_NAMING = (Content.TLS_CLIENT_HELLO, Content.HTTP_REQUEST)


class Sign(NamedTuple):
    """One fact, its weight for a sender other than the claimed one, and the segments that show it."""

    fact: str
    weight: int
    note: str = ""
    shown_by: tuple[int, ...] = ()  # Packet.place

    def evidence(self) -> Evidence:
        """As it stands in a record."""
        return Evidence(self.fact, self.weight)


def signs(case: Case) -> list[Sign]:
    """Every sign, in the order in which a reader checks them by hand."""
    found = [
        _ttl(case),
        _ip_id(case),
        _mirror(case),
        _fragment_bit(case),
        _seen_once(case),
        talks_on(case),
        _two_answers(case),
        _raced(case),
        _beyond(case),
        _changing_numbers(case),
        _changing_acks(case),
        _both_sides(case),
        _too_early(case),
        _unprompted(case),
        _own_shape(case),
    ]
    return [one for one in found if one is not None]


def ttl_distance(case: Case) -> int | None:
    """How far the RST's TTL lies outside those of the same end; 0 inside; None if it sent nothing else.

    Positive: fewer hops away than that end, if both started with the same value.
    """
    low, high = case.sent.ttl_min, case.sent.ttl_max
    if low is None or high is None:
        return None
    if len(case.ttls) == 1:
        return _outside(case.packet.ttl, low, high)
    return min((_outside(ttl, low, high) for ttl in case.ttls), key=abs)


OTHER_STACK = 16
"""So many hops farther nobody is: that sender's TTL began at another value."""


def from_nearer(far: int) -> bool:
    """Whether a TTL that differs so from an end's can be that of a box on the way to it."""
    return far > 0 or far <= -OTHER_STACK


def has_steady_ttl(case: Case) -> bool:
    """Whether that end's segments all came the same way; copies of a span port are one hop further."""
    low, high = case.sent.ttl_min, case.sent.ttl_max
    return low is not None and high is not None and high - low <= (case.sent.duplicates > 0)


def _outside(ttl: int, low: int, high: int) -> int:
    return ttl - high if ttl > high else min(0, ttl - low)


def _ttl(case: Case) -> Sign | None:
    far, ttl = ttl_distance(case), case.packet.ttl
    if far is None:
        return None
    low, high = case.sent.ttl_min, case.sent.ttl_max
    usual = f"{low}" if low == high else f"{low} to {high}"
    steady = has_steady_ttl(case)
    here = (case.packet.place,)
    if far == 0:
        same = -1 if steady and not case.seen_once else 0
        return Sign(f"TTL {ttl}, as in the other segments from there ({usual})", same)
    weight = 3 if abs(far) > 1 and steady else 1
    return Sign(f"TTL {ttl}, but the other segments from there have {usual}", weight, "other TTL", here)


def _ip_id(case: Case) -> Sign | None:
    """A counter that jumps; absence proves nothing: Linux answers with 0, and a forger may copy it."""
    own, last = case.packet.ip_id, case.sender.ip_id
    counts = case.sent.ip_id_steps * 2 >= case.sent.packets - case.sent.rsts > 2
    if not own or last is None or not counts:
        return None
    step = (own - last) % 65536
    if min(step, 65536 - step) <= 100:
        return Sign(f"IP ID {own} continues the counter of that end ({last} before)", -1)
    return Sign(
        f"IP ID {own}, while that end counted its segments up to {last}",
        2,
        "IP ID jumps",
        (case.packet.place,),
    )


def _mirror(case: Case) -> Sign | None:
    """A middlebox that turns the segment it objects to around, and leaves its fields in."""
    rst, trigger = case.packet, case.trigger
    if trigger is None:
        return None
    here = (rst.place, trigger.place)
    if rst.ip_id and rst.ip_id == trigger.ip_id and rst.ip_id != case.sender.ip_id:
        return Sign(f"IP ID {rst.ip_id} is that of the segment it answers: turned around on the way", 3,
                    "same IP ID", here)  # fmt: skip
    if not rst.window or rst.window != trigger.window:
        return None
    if case.said and all(one.window != rst.window for one in case.said):
        return Sign(f"window {rst.window} is that of the segment it answers, and never was that end's", 2,
                    "same window", here)  # fmt: skip
    return None


def _fragment_bit(case: Case) -> Sign | None:
    rst, sent = case.packet, case.sent
    plain = sent.packets - sent.rsts
    if rst.ip_id is None or plain < 2 or sent.dont_fragment not in (0, plain):
        return None
    usual = sent.dont_fragment > 0
    if rst.dont_fragment == usual or (rst.dont_fragment and not rst.ip_id):
        return None
    word = {True: "set", False: "clear"}
    return Sign(
        f"don't-fragment is {word[rst.dont_fragment]}, in the other segments from there {word[usual]}", 1
    )


def _seen_once(case: Case) -> Sign | None:
    """A RST that came from that end would have passed both places, as all its other segments did."""
    if not case.seen_once:
        return None
    fact = "captured once, while the other segments were captured twice, on their way in and out"
    return Sign(fact, 3, "captured once", (case.packet.place,))


def talks_on(case: Case) -> Sign | None:
    """The claimed sender goes on after its own RST: it does not know of it (NDSS 2009 RST_SEQ_DATA)."""
    rst = case.packet
    known = case.sender.next_seq
    ended = next((one.place for one in case.heard_later if is_new_handshake(one)), None)
    for one in case.said_later:
        if one.flags & SYN or (ended is not None and one.place > ended):
            return None  # a new connection, or a handshake that recovers
        later_ns = one.time_ns - rst.time_ns
        if not 0 <= later_ns <= RACE_NS:
            continue
        fresh = bool(one.payload_bytes) and known is not None and ahead(one.after, known) > 0
        surely = _sent_after(one, case)
        # Sent before the RST it would lie below its number; only an answer may carry an older number.
        perhaps = fresh and ahead(one.seq, rst.seq) >= 0 and not case.flow.backwards
        if not (surely or perhaps):
            continue
        if not _same_stream(one, case):
            return None
        what = "new data" if fresh else "a segment"
        fact = f"{what} came from there {duration(later_ns)} after the RST: that end did not know of it"
        return Sign(fact, 4 if surely else 3, "talks on after “its” RST", (one.place,))
    return None


def _same_stream(one: Packet, case: Case) -> bool:
    known = case.sender.next_seq
    return known is None or abs(ahead(one.seq, known)) < SAME_STREAM


def _sent_after(one: Packet, case: Case) -> bool:
    """Whether a segment that arrived after the RST was also sent after it; in doubt, no."""
    rst = case.packet
    if _acknowledges_later(one, case):
        return True
    stamps = [p.ts_val for p in case.said if p.ts_val is not None]
    later_ns = one.time_ns - rst.time_ns
    if one.ts_val is not None and stamps:
        last = stamps[-1] if rst.ts_val is None else rst.ts_val
        return ahead(one.ts_val, last) > 0 and later_ns > REORDER_NS
    # No clock in the segments: what was under way in a network that reorders has arrived by then.
    spread_ns = max(REORDER_NS, case.patience_ns if case.flow.backwards else round_trip_ns(case.flow) or 0)
    return later_ns > spread_ns


def _acknowledges_later(one: Packet, case: Case) -> bool:
    """Whether it acknowledges what the receiver of the RST sent after that: no clock is needed then."""
    later = [p for p in case.heard_later if p.place < one.place and p.length]
    known = case.receiver.next_seq
    return (
        bool(one.flags & ACK)
        and known is not None
        and any(ahead(p.after, known) > 0 and ahead(one.ack, p.after) >= 0 for p in later)
    )


def _two_answers(case: Case) -> Sign | None:
    """A RST and a SYN-ACK for one SYN."""
    if not case.in_handshake or case.sender.next_seq is not None:
        return None
    for one in case.after:
        if is_new_handshake(one):
            return None
        answers = one.from_client == case.from_client and one.flags & (SYN | ACK) == SYN | ACK
        if answers and one.ack == case.receiver.next_seq:
            fact = "the same SYN was also answered by a SYN-ACK: two answers, two senders"
            return Sign(fact, 4, "second answer", (one.place, case.packet.place))
    return None


def _raced(case: Case) -> Sign | None:
    """A number that its end had long passed, and that no acknowledgment explains (NDSS 2009 DATA_SEQ_RST)."""
    rst, known = case.packet, case.sender.next_seq
    if known is None or rst.seq == 0 or case.in_handshake:
        return None
    behind = -ahead(rst.seq, known)
    if behind <= 1 or behind >= SAME_STREAM:
        return None
    heard = acks_of(case.heard)
    if rst.seq in heard or rst.seq == case.receiver.last_ack:
        return None
    fact = f"its number lies {behind:,} behind what that end had sent, and answers no acknowledgment"
    return Sign(fact, 1 if case.lossy else 2, "late number", (rst.place,))


def _beyond(case: Case) -> Sign | None:
    """A number ahead of all that its end had sent: a stack takes its next one, or an acknowledgment."""
    rst, known = case.packet, case.sender.next_seq
    if known is None or case.in_handshake or len(case.alike) > 1:
        return None  # several are judged together, by how their numbers change
    step = ahead(rst.seq, known)
    trigger = case.trigger
    if step <= 1 or (trigger is not None and trigger.flags & ACK and rst.seq == trigger.ack):
        return None
    fact = f"its number lies {step:,} ahead of all that end had sent"
    return Sign(fact, 1 if case.lossy else 3, "number never reached", (rst.place,))


def _changing_numbers(case: Case) -> Sign | None:
    """Growing numbers in RSTs of one direction, ahead of all sent or acknowledged (RST_SEQ_CHANGE)."""
    if len(case.alike) < 2:
        return None
    plain = [one.packet for one in case.alike]
    for first, second in zip(case.alike, case.alike[1:], strict=False):
        one, two = first.packet, second.packet
        step = ahead(two.seq, one.seq)
        sender, receiver = first.sender, first.receiver
        if step <= 2 or not 0 <= two.time_ns - one.time_ns < RACE_NS:
            continue
        if sender.fin or receiver.fin or receiver.rsts or _handshake(one, two):
            continue
        if sender.next_seq is None or ahead(two.seq, sender.next_seq) <= 0:
            continue
        # A passive RST takes its number from an acknowledgment; one between the two would explain the second.
        latest = [p for p in (*case.heard, *case.heard_later) if p.place < two.place]
        acks = [p.ack for p in latest if p.flags & ACK] + [receiver.last_ack or sender.next_seq]
        if any(ahead(two.seq, ack) <= 2 for ack in acks):
            continue
        places = tuple(packet.place for packet in plain)
        fact = f"{len(plain)} RSTs with growing numbers (+{step:,}): somebody guesses ahead of that end"
        return Sign(fact, 2 if case.lossy else 4, "guessed number", places)
    # Downwards, as who begins at the far end of the window: one fits, others are beyond all that was sent.
    known = case.sender.next_seq
    beyond = [p for p in plain if known is not None and ahead(p.seq, known) > 2]
    if known is None or len({p.seq for p in plain}) < 2 or not beyond or case.sender.fin or case.lossy:
        return None
    heard = acks_of((*case.heard, *case.heard_later))
    if all(p.seq in heard for p in beyond) or plain[-1].time_ns - plain[0].time_ns > RACE_NS:
        return None
    fact = (
        f"{len(plain)} RSTs with different numbers, {len(beyond)} of them beyond all that this end had sent"
    )
    return Sign(fact, 4, "guessed number", tuple(packet.place for packet in plain))


def _handshake(one: Packet, two: Packet) -> bool:
    """RST,ACK with number 0 answer SYNs, each its own."""
    return one.seq == 0 or two.seq == 0


def _changing_acks(case: Case) -> Sign | None:
    """RSTs that follow each other, with different acknowledgments of the unsent (RST_ACK_CHANGE)."""
    if len(case.alike) < 2:
        return None
    for first, second in zip(case.alike, case.alike[1:], strict=False):
        one, two = first.packet, second.packet
        if not one.flags & two.flags & ACK or one.ack == two.ack or two.time_ns - one.time_ns >= RACE_NS:
            continue
        low, high = case.received.first_seq, case.received.next_seq
        if low is None or high is None or case.lossy:
            continue
        if all(ahead(p.ack, low) < 0 or ahead(p.ack, high) > 0 for p in (one, two)):
            fact = "RSTs that follow each other acknowledge different numbers, and none that was ever sent"
            return Sign(fact, 3, "acknowledges the unsent", (one.place, two.place))
    return None


def _both_sides(case: Case) -> Sign | None:
    """RSTs to both ends at once, right after a request that names where it goes."""
    rst = case.packet
    for other in case.flow.rsts:
        back = other.packet
        if back.from_client == case.from_client or abs(back.time_ns - rst.time_ns) > BOTH_SIDES_NS:
            continue
        heard = acks_of(p for p in (*case.said, *case.said_later) if p.place < back.place)
        if back.flags & ACK == 0 and back.seq in heard:
            continue  # the other end answers what it no longer knows
        named = next((one for one in reversed(case.before) if one.payload_content in _NAMING), None)
        if named is None or rst.time_ns - named.time_ns > case.patience_ns:
            return None
        fact = "both ends were reset within 5 ms, right after a request that names its host"
        return Sign(fact, 3, "reset both ways", (rst.place, back.place, named.place))
    return None


def _too_early(case: Case) -> Sign | None:
    """An answer that came back sooner than that end can be reached; it may also confirm the end."""
    rst, rtt_ns, trigger = case.packet, case.sender_rtt_ns, case.trigger
    if rtt_ns is None or rtt_ns < LEAST_RTT_NS or trigger is None:
        return None
    took_ns = rst.time_ns - trigger.time_ns
    early, prompt = took_ns * 2 < rtt_ns, rtt_ns * 8 <= took_ns * 10 and took_ns <= rtt_ns * 2
    if took_ns < 0 or not (early or prompt) or not _needs(rst, trigger, case):
        return None
    if early:
        fact = (
            f"it came {duration(took_ns)} after what it answers; that end is {duration(rtt_ns)} away and back"
        )
        return Sign(fact, 3, "too early", (trigger.place, rst.place))
    return Sign(f"it came one round trip ({duration(took_ns)}) after what it answers", -1)


def _needs(rst: Packet, trigger: Packet, case: Case) -> bool:
    """Whether the RST's numbers could only be known to somebody who had seen the trigger, and it was new."""
    earlier = case.heard[:-1]
    if rst.flags & ACK:
        after = trigger.after
        return rst.ack == after and trigger.length > 0 and all(ahead(after, one.after) > 0 for one in earlier)
    return bool(trigger.flags & ACK) and rst.seq == trigger.ack and rst.seq not in acks_of(earlier)


def is_late(case: Case) -> bool:
    """Whether the last segment that the RST can answer had come long before it."""
    trigger = case.trigger
    return trigger is not None and case.packet.time_ns - trigger.time_ns > max(PROMPT_NS, case.patience_ns)


def _unprompted(case: Case) -> Sign | None:
    """The bare RST of a stack that answers, and nothing to answer: no end's own decision looks so."""
    rst, trigger = case.packet, case.trigger
    if trigger is None or not (is_passive_shape(rst) and case.answers and is_late(case)):
        return None
    late = duration(rst.time_ns - trigger.time_ns)
    fact = f"the shape of an answer, {late} after the last segment that it could answer"
    return Sign(fact, 1 if case.lossy else 2, "answers nothing", (rst.place,))


def _own_shape(case: Case) -> Sign | None:
    rst = case.packet
    if is_active_shape(rst):
        return Sign(
            "RST,ACK with window and TCP options: the shape of Linux resetting by its own decision", -2
        )
    if is_passive_shape(rst) and case.answers:
        return None  # a stack and a firewall make it alike
    if rst.flags & (ACK | FIN) == ACK and not rst.window and not rst.options_bytes:
        return None  # other systems abort like this
    if rst.flags & RST and is_passive_shape(rst):
        return Sign("the shape of an answer, but it answers no segment seen here", 0)
    return Sign("flags, window, options and IP ID together fit no Linux sender", 1)


def score(found: Sequence[Sign]) -> int:
    """The sum of the weights."""
    return sum([one.weight for one in found])


def deciding_places(found: Sequence[Sign]) -> dict[int, str]:
    """Segments that speak for another sender, and in short why."""
    notes: dict[int, list[str]] = {}
    for one in found:
        if one.weight > 0:
            for place in one.shown_by:
                notes.setdefault(place, []).append(one.note)
    return {place: ", ".join(words[:2]) for place, words in notes.items()}
