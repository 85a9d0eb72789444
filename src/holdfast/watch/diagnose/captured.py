"""Why a captured connection was reset, and by whom: the first rule that fits, with what speaks for it."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Sequence

from holdfast.causes import MPTCP_CODES, Trigger
from holdfast.events import Evidence
from holdfast.watch.capture.flow import ACK
from holdfast.watch.diagnose.by_end import by_end
from holdfast.watch.diagnose.case import Case, is_copy
from holdfast.watch.diagnose.finding import Finding, by_mptcp, concluded, gave_up_waiting
from holdfast.watch.diagnose.received import INJECTED_SCORE, SUSPECT_SCORE
from holdfast.watch.diagnose.serial import ahead
from holdfast.watch.diagnose.shape import is_passive_shape
from holdfast.watch.diagnose.signs import Sign, from_nearer, has_steady_ttl, score, talks_on, ttl_distance
from holdfast.watch.diagnose.stated import reason_in
from holdfast.watch.diagnose.validity import Place, Validity


def find(case: Case, valid: Validity, found: Sequence[Sign]) -> Finding:
    """What one RST means.

    Args:
        valid: what became of it. found: its signs (:func:`holdfast.watch.diagnose.signs.signs`).
    """
    points = score(found)
    if _is_benign(case):
        return concluded(
            "orderly_end",
            case,
            "both ends had sent FIN, and all data was acknowledged",
            3,
            noise="after_both_fins",
        )
    if valid.obeyed == "no":
        return _ignored(case, valid, points)
    if case.in_handshake and case.sender.next_seq is None:
        return _refused(case, points)
    by_path = _on_path(case, found, points)
    if by_path is not None:
        return by_path
    return by_end(case)


def _is_benign(case: Case) -> bool:
    """Both FINs were sent, and nothing of what either end sent was lost."""
    rst, next_seq = case.packet, case.receiver.next_seq
    # A FIN that the capture missed shows in what the RST acknowledges.
    unseen = rst.flags & ACK and next_seq is not None and ahead(rst.ack, next_seq) == 1
    if not (case.sender.fin and (case.receiver.fin or unseen)) or gave_up_waiting(case):
        return False
    return not (case.receiver_unacked or case.sender_unacked)


def _ignored(case: Case, valid: Validity, points: int) -> Finding:
    near = valid.place in (Place.IN_WINDOW, Place.EXACT, Place.LAGGING)
    sender = "path" if points >= INJECTED_SCORE else "unknown" if points >= SUSPECT_SCORE else case.claimed
    if valid.place is Place.UNKNOWN:
        sender = sender if sender == "path" else "unknown"
    if valid.place is Place.MISSES_SYN:
        sender = "unknown" if points < INJECTED_SCORE else "path"
    cause = "ignored_in_window" if near else "ignored_out_of_window"
    return Finding(cause, sender, (Evidence("the receiver kept its connection", 3),))


def _refused(case: Case, points: int) -> Finding:
    stated = by_mptcp(case)
    if stated is not None and points < SUSPECT_SCORE:
        return stated
    facts = [Evidence("a RST answered the SYN", 3)]
    if points >= INJECTED_SCORE:
        return Finding("injected", "path", tuple(facts))
    if is_passive_shape(case.packet):
        facts.append(Evidence("a closed port and a firewall's REJECT look the same from here", 0))
    return Finding("connection_refused", "unknown", tuple(facts), trigger=Trigger.PASSIVE)


def _on_path(case: Case, found: Sequence[Sign], points: int) -> Finding | None:
    """Somebody between the ends, or nobody who can be named."""
    rst, far = case.packet, ttl_distance(case)
    guessed = any("RSTs with" in one.fact or one.note in ("same IP ID", "reset both ways") for one in found)
    prompt = case.trigger is not None and rst.time_ns - case.trigger.time_ns <= case.patience_ns
    answers = is_passive_shape(rst) and case.answers and prompt
    if answers and not guessed:
        marks = ((case.trigger, "rejected on its way"),) if case.trigger is not None else ()
        if (
            far
            and from_nearer(far)
            and has_steady_ttl(case)
            and (points < INJECTED_SCORE or _swallowed(case))
        ):
            way = "nearer" if far > 0 else "farther"
            hops = f"{abs(far)} hop{'' if abs(far) == 1 else 's'} {way}"
            fact = f"bare RST that answers the segment before it, from {hops} than that end"
            return concluded(
                "path_firewall_reject", case, fact, 3, sender="path", trigger=Trigger.PASSIVE, marks=marks
            )
        if case.seen_once and _stopped_here(case):
            fact = "neither it nor the segment that it answers was captured twice: a rule here rejected that"
            return concluded(
                "path_firewall_reject", case, fact, 3, sender="path", trigger=Trigger.PASSIVE, marks=marks
            )
        if _swallowed(case) and talks_on(case) is not None:
            fact = "bare RST that answers the segment before it, while that end goes on: a rule did it"
            return concluded(
                "path_firewall_reject", case, fact, 3, sender="path", trigger=Trigger.PASSIVE, marks=marks
            )
    if points >= INJECTED_SCORE:
        return concluded("injected", case, f"independent signs add up to {points}", 0, sender="path")
    if points >= SUSPECT_SCORE:
        fact = f"signs add up to {points}: too many for that end, too few to accuse somebody else"
        return concluded("unrecognised_sender", case, fact, 0, sender="unknown")
    return None


def _stopped_here(case: Case) -> bool:
    """Whether the segment that the RST answers has no copy either, though all others have one."""
    trigger = case.trigger
    return trigger is not None and sum(is_copy(one, trigger) for one in case.flow.packets) == 1


def _swallowed(case: Case) -> bool:
    """Whether the segment that the RST answers never arrived: a rule that rejects a segment drops it."""
    trigger = case.trigger
    if trigger is None or not trigger.length:
        return False
    acks = [one.ack for one in case.said_later if one.flags & ACK]
    return not any(ahead(ack, trigger.after) >= 0 for ack in acks)


def stated_by(case: Case) -> str | None:
    """What the RST itself says of its reason, None if nothing; the text is the sender's, and hostile."""
    code = case.rst.mptcp_reason
    if code is not None:
        return f"MP_TCPRST code {code}: {MPTCP_CODES.get(code, 'not assigned')}"
    return reason_in(case.rst.payload)
