"""Whether the receiver of a RST obeyed it: by its sequence number, and by what the receiver did next."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from holdfast.watch.capture.flow import ACK, FIN, RST, SYN, Packet
from holdfast.watch.diagnose.case import Case
from holdfast.watch.diagnose.serial import ahead
from holdfast.watch.diagnose.words import duration


class Place(StrEnum):
    """Where the RST's number lies for its receiver (RFC 9293 3.10.7, RFC 5961 3.2, Linux)."""

    ANSWERS_SYN = "answers_syn"  # SYN-SENT, and it acknowledges the SYN
    MISSES_SYN = "misses_syn"  # SYN-SENT, and it does not
    EXACT = "exact"  # the next number expected
    AFTER_FIN = "after_fin"  # the number of the FIN that the receiver has had: Linux accepts it
    SACK_EDGE = "sack_edge"  # the right edge of what was selectively acknowledged: Linux accepts it
    LAGGING = "lagging"  # what the receiver acknowledged last, while more was on its way to it
    IN_WINDOW = "in_window"  # RFC 5961: a challenge ACK, no reset
    OUTSIDE = "outside"  # dropped in silence
    UNKNOWN = "unknown"  # the capture does not show what the receiver expected


class Validity(NamedTuple):
    """What became of a RST.

    Attributes:
        obeyed: ``yes``, ``no`` or ``unknown``. place: where its number lies.
        facts: why, in words, for the evidence. shown_by: the segment of the receiver that tells, if one does.
    """

    obeyed: str
    place: Place
    facts: tuple[str, ...]
    shown_by: Packet | None = None


_WORDS = {
    Place.ANSWERS_SYN: "it acknowledges the SYN, so a dialling stack obeys it",
    Place.MISSES_SYN: "it does not acknowledge the SYN, so a dialling stack ignores it (RFC 9293 3.10.7.3)",
    Place.EXACT: "its sequence number is the one the receiver expected next",
    Place.AFTER_FIN: "its sequence number is that of the FIN before it, which Linux accepts",
    Place.SACK_EDGE: "its sequence number is the edge of what was selectively "
    "acknowledged, which Linux accepts",
    Place.LAGGING: "its sequence number is what the receiver had acknowledged; more was on its way",
    Place.OUTSIDE: "its sequence number is outside the receive window: ignored in silence (RFC 9293 3.5.3)",
    Place.UNKNOWN: "the capture does not show which sequence number the receiver expected",
}


def validity(case: Case) -> Validity:
    """What became of a RST, as far as the capture shows it."""
    where, distance = place(case)
    words = _WORDS.get(where) or (
        f"its sequence number is {distance:,} ahead of the next one: in the window, not exact, "
        "so it asks for a challenge ACK (RFC 5961 3.2)"
    )
    alive, shows = _goes_on(case, where)
    if alive is not None:
        return Validity("no", where, (words, shows), alive)
    dead = _answers_as_gone(case)
    if dead is not None:
        return Validity(
            "yes", where, (words, "the receiver then answered as a host without this connection"), dead
        )
    if where in (Place.OUTSIDE, Place.MISSES_SYN):
        return Validity("no", where, (words,))
    if where in (Place.IN_WINDOW, Place.UNKNOWN):
        return Validity("unknown", where, (words,))
    if where is Place.LAGGING:
        watched_ns = case.flow.last_ns - case.packet.time_ns
        return Validity("yes" if watched_ns > case.patience_ns else "unknown", where, (words,))
    return Validity("yes", where, (words,))


def place(case: Case) -> tuple[Place, int]:
    """Where the number lies, and how far ahead of the next one expected."""
    rst, sender, receiver = case.packet, case.sender, case.receiver
    if case.in_handshake and sender.next_seq is None:
        answers = rst.flags & ACK and rst.ack == receiver.next_seq
        return (Place.ANSWERS_SYN if answers else Place.MISSES_SYN), 0
    low = receiver.last_ack if receiver.last_ack is not None else sender.next_seq
    high = sender.next_seq if sender.next_seq is not None else receiver.last_ack
    if low is None or high is None:
        return Place.UNKNOWN, 0
    if ahead(low, high) > 0:
        # The receiver acknowledged what this capture never showed.
        high = low
    distance = ahead(rst.seq, high)
    if distance == 0:
        return Place.EXACT, 0
    if sender.fin and distance == -1:
        return Place.AFTER_FIN, 0
    if receiver.sack_right is not None and rst.seq == receiver.sack_right:
        return Place.SACK_EDGE, distance
    if rst.seq == low:
        return (Place.EXACT if _never_arrived(case) else Place.LAGGING), distance
    return _within(rst.seq, low, high, receiver.window_bytes), distance


def _never_arrived(case: Case) -> bool:
    """Whether what the receiver has not acknowledged had been on its way for too long to be still coming."""
    if not case.sender.payload_bytes:
        return True
    trigger, last_ns = case.trigger, case.sender.last_ns
    if trigger is None or last_ns is None:
        return False
    return trigger.ack == case.packet.seq and trigger.time_ns - last_ns > case.patience_ns


def _within(seq: int, low: int, high: int, window_bytes: int | None) -> Place:
    if ahead(seq, low) < 0:
        return Place.OUTSIDE
    if ahead(seq, high) < 0:
        return Place.UNKNOWN  # within what was on its way: either old by then, or not yet expected
    if window_bytes is None:
        return Place.UNKNOWN
    return Place.IN_WINDOW if ahead(seq, low) < window_bytes else Place.OUTSIDE


def _goes_on(case: Case, where: Place) -> tuple[Packet | None, str]:
    """A segment that the receiver would not send had it obeyed, and what it shows."""
    rst, horizon_ns = case.packet, case.patience_ns
    for one in case.heard_later:
        if one.flags & SYN:
            break  # it dials anew, which says nothing of the old connection
        later_ns = one.time_ns - rst.time_ns
        if where is Place.IN_WINDOW and _is_challenge(one, case) and later_ns <= horizon_ns:
            return one, f"the receiver answered with a challenge ACK {duration(later_ns)} later"
        known = case.sender.next_seq
        if known is not None and one.flags & ACK and ahead(one.ack, known) > case.sender.fin:
            return one, "the receiver went on and acknowledged later data"
        if later_ns > horizon_ns and not _was_under_way(one, case):
            return one, f"the receiver was still talking {duration(later_ns)} later"
    return None, ""


def _is_challenge(one: Packet, case: Case) -> bool:
    bare = one.flags & (ACK | FIN | RST | SYN) == ACK and not one.payload_bytes
    low, high = case.receiver.last_ack, case.sender.next_seq
    if not bare or one.seq != case.receiver.next_seq or low is None or high is None:
        return False
    return ahead(one.ack, low) >= 0 >= ahead(one.ack, high)  # it may acknowledge what still waited for that


def _was_under_way(one: Packet, case: Case) -> bool:
    """Whether a clock in the segment says that it was sent before the RST could arrive."""
    stamps = [p.ts_val for p in case.heard if p.ts_val is not None]
    return one.ts_val is not None and bool(stamps) and ahead(one.ts_val, stamps[-1]) <= 0


def _answers_as_gone(case: Case) -> Packet | None:
    """A passive RST of the receiver for a later segment: its stack has forgotten the connection."""
    claimed: list[Packet] = []
    for one in case.after:
        if one.from_client == case.from_client:
            claimed.append(one)
            continue
        answers = one.flags & (RST | ACK) == RST
        if answers and any(one.seq == p.ack for p in claimed if p.flags & (ACK | RST) == ACK):
            return one
    return None
