"""What an end did when it reset its own connection: aborted, gave up, or answered what it no longer knew."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from holdfast.causes import Basis, Trigger
from holdfast.events import Evidence
from holdfast.policy import PROFILES
from holdfast.watch.capture.flow import ACK, FIN, SYN, Option, Packet
from holdfast.watch.diagnose.case import Case, round_trip_ns
from holdfast.watch.diagnose.finding import (
    FIN_WAIT_2_NS,
    Finding,
    Marks,
    by_mptcp,
    concluded,
    gave_up_waiting,
    own_fin,
    since_own_fin,
)
from holdfast.watch.diagnose.serial import ahead
from holdfast.watch.diagnose.shape import is_active_shape, is_passive_shape
from holdfast.watch.diagnose.signs import has_steady_ttl, is_late
from holdfast.watch.diagnose.words import bytes_words, duration

IDLE_NS = 100_000_000
"""So long a silence, and at least twenty round trips of it, makes a connection idle."""

# A member of Option would make each & with it another one, at the price of several rules.
_FASTCLOSE = int(Option.MPTCP_FASTCLOSE)

_TIMEOUTS_S = (1, 2, 3, 5, 10, 15, 20, 30, 45, 60, 90, 120, 300)
_TIMEOUT_SLACK_NS = 60_000_000
_SHORTEST_NS = min(_TIMEOUTS_S) * 1_000_000_000 - _TIMEOUT_SLACK_NS


def by_end(case: Case) -> Finding:
    """The end whose address it bears sent it: why."""
    rst = case.packet
    if rst.options & _FASTCLOSE:
        return concluded("mptcp_fastclose", case, "the RST carries MP_FASTCLOSE", 4, trigger=Trigger.ACTIVE)
    stated = by_mptcp(case)
    if stated is not None:
        return stated
    if case.sender.next_seq is None:
        return _never_spoke(case)
    handshake = _in_its_handshake(case)
    if handshake is not None:
        return handshake
    if is_active_shape(rst) or (_aborts(case) and not case.answers):
        return _aborted(case)
    if not rst.flags & ACK and not rst.window and not rst.options_bytes:
        return _answered(case)
    return Finding("unrecognised_sender", "unknown", (Evidence("its shape fits no known way to reset", 0),))


def _aborts(case: Case) -> bool:
    """RST,ACK with the exact number: how systems other than Linux abort."""
    rst = case.packet
    return bool(rst.flags & ACK) and rst.seq == case.sender.next_seq


def _never_spoke(case: Case) -> Finding:
    """That end sent nothing but RSTs while the capture ran."""
    trigger = case.trigger
    if trigger is not None and trigger.flags & (SYN | ACK) == SYN | ACK:
        return concluded(
            "unexpected_syn_ack",
            case,
            "a SYN-ACK for which no SYN was captured",
            3,
            trigger=Trigger.PASSIVE,
            noise="backscatter",
            sender="unknown",
        )
    if case.answers and is_passive_shape(case.packet):
        facts = (
            Evidence("bare RST without window, options or IP ID: its sender had no such connection", 3),
            Evidence("that end sent nothing else here, so nothing shows that it was that end", 0),
        )
        return Finding("peer_had_no_connection", "unknown", facts, trigger=Trigger.PASSIVE)
    return Finding(
        "unrecognised_sender",
        "unknown",
        (Evidence("the capture shows nothing else from that end", 0),),
        Basis.NONE,
    )


def _in_its_handshake(case: Case) -> Finding | None:
    """Resets before the handshake was over."""
    rst, trigger, sent = case.packet, case.trigger, case.sent
    if case.sender.last_ack is None and sent.isn is not None and not sent.syn_flags & ACK:
        return _dialler_resets(case)
    if (
        case.sender.data_packets
        or case.sender.fin
        or not sent.syn_flags & ACK
        or case.sender.packets > sent.syns
    ):
        return None
    # The queue is full when the handshake ends, not later: a connection that lived a while was accepted.
    began = next((one for one in case.heard if not one.flags & SYN), None)
    if trigger is None or began is None or not case.answers or not is_passive_shape(rst):
        return None
    if trigger.time_ns - began.time_ns > case.patience_ns:
        return None
    fact = "a bare RST answered the end of the handshake, although the SYN had been accepted"
    marks = ((trigger, "ends the handshake"),)
    return concluded("accept_queue_overflow", case, fact, 3, trigger=Trigger.PASSIVE, marks=marks)


def _dialler_resets(case: Case) -> Finding:
    """The end that dialled resets before it has acknowledged anything."""
    trigger, own_next = case.trigger, case.sender.next_seq
    if trigger is not None and own_next is not None and trigger.flags & ACK and case.answers:
        if trigger.ack != own_next:
            fact = (
                f"the answer acknowledged {ahead(trigger.ack, own_next):+,} "
                "bytes away from what had been sent"
            )
            return concluded(
                "stale_handshake_answer", case, fact, 3, trigger=Trigger.PASSIVE, noise="recovered_handshake"
            )
        if not trigger.flags & SYN:
            return concluded(
                "bad_handshake_ack", case, "an ACK without SYN answered its SYN", 2, trigger=Trigger.PASSIVE
            )
        stamp = trigger.ts_ecr
        sent = {one.ts_val for one in case.said}
        if stamp is not None and stamp not in sent:
            fact = "the SYN-ACK echoed a timestamp that was never sent"
            return concluded("handshake_timestamp_mismatch", case, fact, 3, trigger=Trigger.PASSIVE)
    fact = "it had dialled, and gave up before the handshake was over"
    return concluded("handshake_abandoned", case, fact, 3, noise="port_scan")


def _aborted(case: Case) -> Finding:
    """A stack resets by its own decision: a program's abort, or a timer."""
    sender, receiver = case.sender, case.receiver
    probes = _unanswered_probes(case)
    if probes:
        fact = f"{probes} keep-alive probe{'s' if probes > 1 else ''} had gone unanswered"
        return concluded("keepalive_timeout", case, fact, 4, trigger=Trigger.ACTIVE)
    own_lost = case.sender_unacked or 0
    if receiver.fin and own_lost and not gave_up_waiting(case):
        fact = f"the other end had closed, and {bytes_words(own_lost)} of its own were not acknowledged"
        return concluded("aborted_while_closing", case, fact, 3, trigger=Trigger.ACTIVE)
    if sender.fin:
        return _after_own_fin(case)
    lost = case.receiver_unacked or 0
    unanswered = _unanswered_bytes(case)
    if unanswered:
        unread: tuple[Evidence, ...] = (
            Evidence(f"the last {bytes_words(unanswered)} that it got were never answered", 2),
            Evidence(
                "closing with unread data does this; SO_LINGER 0 and a destroyed socket look the same", 0
            ),
        )
        unread += _gave_up_after(case)
        words = f"up to {bytes_words(unanswered)}"
        return Finding(
            "closed_with_unread_data",
            case.claimed,
            unread,
            trigger=Trigger.ACTIVE,
            lost=words,
            marks=_last_data(case),
        )
    full = _filled_bytes(case)
    if full:
        words = f"about {bytes_words(full)}"
        fact = f"its receive window had shrunk by {bytes_words(full)}: so much it had not read"
        return Finding(
            "closed_with_unread_data",
            case.claimed,
            (Evidence(fact, 3), *_gave_up_after(case)),
            trigger=Trigger.ACTIVE,
            lost=words,
            marks=((case.said[-1], "window nearly closed"),),
        )
    facts = [
        Evidence("it had answered all that came, or nothing had come: SO_LINGER 0 does this", 2),
        Evidence("a socket that was destroyed, or closed before it had read all, looks the same", 0),
        *_gave_up_after(case),
    ]
    if lost:
        facts.append(Evidence(f"{bytes_words(lost)} were on their way to it: it did not want the rest", 1))
    silent = not sender.payload_bytes and not receiver.payload_bytes
    return Finding(
        "peer_aborted",
        case.claimed,
        tuple(facts),
        trigger=Trigger.ACTIVE,
        noise="health_check" if silent and case.from_client and case.flow.syn_ns is not None else None,
    )


def _last_data(case: Case) -> Marks:
    """The last data that the other end sent."""
    last = next((one for one in reversed(case.heard) if one.payload_bytes), None)
    return () if last is None else ((last, "never answered"),)


def _gave_up_after(case: Case) -> tuple[Evidence, ...]:
    """How long after its last word an end aborted, if that is a time that people set as a limit."""
    said_ns = case.sender.last_data_ns
    if said_ns is None:
        return ()
    waited_ns = case.packet.time_ns - said_ns
    if waited_ns < _SHORTEST_NS:
        return ()
    limit_s = next((s for s in _TIMEOUTS_S if abs(waited_ns - s * 1_000_000_000) <= _TIMEOUT_SLACK_NS), None)
    if limit_s is None:
        return ()
    fact = f"it had waited {duration(waited_ns)} since its last data: a limit of {limit_s} s looks like this"
    return (Evidence(fact, 1),)


def _unanswered_probes(case: Case) -> int:
    """Keep-alive probes at the end of what the sender said, with nothing from the other end after them."""
    probes, known = 0, case.sender.next_seq
    last_heard = case.heard[-1].place if case.heard else -1
    for one in reversed(case.said):
        if one.place < last_heard or known is None:
            break
        if one.payload_bytes > 1 or ahead(one.seq, known) != -1 or one.flags & (SYN | FIN):
            break
        probes += 1
    return probes


def _unanswered_bytes(case: Case) -> int:
    """What the other end said last, after all that the sender of the RST said."""
    answered = next((one.place for one in reversed(case.said) if one.payload_bytes), -1)
    total = 0
    for one in reversed(case.heard):
        if one.place < answered:
            break
        total += one.payload_bytes
    return min(total, case.receiver.payload_bytes)


def _filled_bytes(case: Case) -> int:
    """By how much its receive window had shrunk when it spoke last; 0 for less than half."""
    windows = [one.window for one in case.said if not one.flags & SYN]
    if not windows or windows[-1] * 2 > max(windows):
        return 0
    return min(max(windows) - windows[-1] << (case.sent.window_scale or 0), case.receiver.payload_bytes)


def _after_own_fin(case: Case) -> Finding:
    fin_at, waited_ns = own_fin(case), since_own_fin(case)
    if waited_ns is not None and waited_ns >= FIN_WAIT_2_NS and not _data_after(case, fin_at):
        fact = f"its FIN was {duration(waited_ns)} old, and the other end had not closed"
        return concluded("fin_wait2_timeout", case, fact, 3, trigger=Trigger.ACTIVE)
    if _data_after(case, fin_at):
        return concluded(
            "closed_while_receiving",
            case,
            "it had closed while data was still coming",
            2,
            trigger=Trigger.ACTIVE,
        )
    fact = "it reset right after its own FIN, although nothing more had come"
    return concluded("linger2_negative", case, fact, 2, trigger=Trigger.ACTIVE)


def _data_after(case: Case, fin: Packet | None) -> bool:
    return fin is not None and any(one.payload_bytes and one.place > fin.place for one in case.heard)


def _answered(case: Case) -> Finding:
    """A stack answers a segment for which it has no connection any more."""
    if case.sender.rsts:
        return concluded(
            "late_segment",
            case,
            "it had reset the connection before",
            3,
            trigger=Trigger.PASSIVE,
            noise="segment_after_reset",
        )
    if (
        case.trigger is not None
        and ahead(case.trigger.ack, case.sent.next_seq or 0) > 0
        and not case.sender.data_packets
    ):
        fact = "the segment that it answers acknowledged what it had never sent"
        return concluded("bad_handshake_ack", case, fact, 2, trigger=Trigger.PASSIVE)
    if not case.sender.fin:
        return _unknown_there(case)
    late = case.trigger
    if case.receiver.fin and late is not None and late.payload_bytes and not late.flags & FIN:
        fact = f"{bytes_words(late.payload_bytes)} came after both ends had said goodbye"
        marks = ((late, "after both goodbyes"),)
        return concluded("late_segment", case, fact, 3, trigger=Trigger.PASSIVE, marks=marks)
    fin = own_fin(case)
    data = next(
        (p for p in case.heard if fin and p.payload_bytes and p.place > fin.place),
        None,
    )
    if fin is None or data is None:
        if case.trigger is not None and not case.trigger.payload_bytes and not case.receiver.fin:
            fact = "the other end had only acknowledged its FIN"
            return concluded("linger2_on_ack", case, fact, 2, trigger=Trigger.PASSIVE)
        return concluded("data_after_close", case, "it had closed before", 2, trigger=Trigger.PASSIVE)
    return _after_goodbye(case, fin, data)


def _after_goodbye(case: Case, fin: Packet, data: Packet) -> Finding:
    """It had said goodbye, and then the other end sent more."""
    idle_ns = _silence_before(case, fin)
    rtt_ns = round_trip_ns(case.flow) or 0
    served = any(one.payload_bytes and one.place < fin.place for one in case.said)
    if served and idle_ns is not None and idle_ns >= max(IDLE_NS, 20 * rtt_ns):
        idle, gap = duration(idle_ns), duration(data.time_ns - fin.time_ns)
        fact = f"it closed after {idle} of silence, and the next request came {gap} later"
        marks = ((fin, f"closed after {idle} idle"), (data, "next request"))
        return concluded("keepalive_race", case, fact, 3, trigger=Trigger.PASSIVE, marks=marks)
    marks = ((fin, "closed"), (data, "data after that"))
    acks_fin = data.flags & ACK and case.sender.next_seq is not None and data.ack == case.sender.next_seq
    before_data = any(
        p.flags & ACK and p.ack == data.ack and fin.place < p.place < data.place for p in case.heard
    )
    if acks_fin and not before_data:
        fact = "the segment that acknowledged its FIN brought more data"
        return concluded("closed_while_receiving", case, fact, 2, trigger=Trigger.PASSIVE, marks=marks)
    fact = f"the other end sent {bytes_words(data.payload_bytes)} after it had closed"
    return concluded("data_after_close", case, fact, 3, trigger=Trigger.PASSIVE, marks=marks)


def _silence_before(case: Case, fin: Packet) -> int | None:
    """How long no data had moved when the FIN was sent."""
    moved = [one.time_ns for one in case.before if one.payload_bytes and one.place < fin.place]
    return fin.time_ns - max(moved) if moved else None


def _unknown_there(case: Case) -> Finding:
    trigger, lost = case.trigger, case.sender_unacked
    last_ns = case.sender.last_ns
    if lost and trigger is not None and last_ns is not None and trigger.time_ns - last_ns > case.patience_ns:
        fact = f"it had given up: {bytes_words(lost)} of its own were never acknowledged"
        return concluded("late_segment", case, fact, 3, trigger=Trigger.PASSIVE)
    facts = [Evidence("bare RST in answer to a segment: its sender had no such connection (any more)", 3)]
    if is_late(case):
        facts = [Evidence("bare RST, as for a connection that its sender does not have (any more)", 1)]
    moved = [p.time_ns for p in case.before if trigger is not None and p.place < trigger.place]
    if trigger is not None and moved:
        idle_ns = trigger.time_ns - max(moved)
        if idle_ns >= IDLE_NS:
            facts.append(Evidence(silence(idle_ns), 1))
    steady = has_steady_ttl(case)
    if not steady:
        facts.append(Evidence("the hop counts of that end vary: they cannot confirm that it was that end", 0))
    sender = case.claimed if steady else "unknown"
    marks = ((trigger, "not known there"),) if trigger is not None else ()
    return Finding("peer_had_no_connection", sender, tuple(facts), trigger=Trigger.PASSIVE, marks=marks)


def silence(idle_ns: int) -> str:
    """A silence in words, and what on the way is known to forget a connection after such a time."""
    said = f"the connection had been silent for {duration(idle_ns)} before that segment"
    known = [
        (one.path_idle_s, one.path)
        for one in PROFILES.values()
        if one.path_idle_s is not None and one.path_idle_s * 1_000_000_000 <= idle_ns
    ]
    if not known:
        return said
    limit_s, path = max(known)
    return f"{said}; after {limit_s} s {path} forgets a connection"
