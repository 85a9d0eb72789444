"""Concludes what happened on one pair of addresses from all events that were seen on it."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dataclasses
from bisect import bisect_left
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass

from holdfast.causes import Basis, Direction, Ending, Trigger
from holdfast.events import Endpoint, Event, Evidence, Kind
from holdfast.watch.diagnose.endings import error_cause
from holdfast.watch.diagnose.ignored import ignored_cause
from holdfast.watch.diagnose.received import received_cause, ttl_difference
from holdfast.watch.diagnose.sent import ACK, Verdict, sent_cause
from holdfast.watch.diagnose.stated import stated_reason

CLOSE_TO_RESET_NS = 10_000_000
"""The kernel closes a connection just before it sends the reset, or just after."""


@dataclass(frozen=True, slots=True)
class Conclusion:
    """What one event means, and the conclusion about the other end of the same RST, if both were seen.

    ``after_reset``: it answers a segment of a connection for which this host had sent a RST already.
    """

    event: Event
    verdict: Verdict
    ending: Ending
    direction: Direction
    sender: str
    obeyed: str = "unknown"
    sent_by: Conclusion | None = None
    heard_by: Event | None = None
    after_reset: bool = False


def conclude(events: Sequence[Event]) -> list[Conclusion]:
    """Every reset or other ending among ``events`` of one connection (both ends of it, if both are here).

    Order of time is not trusted: on one host the receiver of an active reset is logged before its
    sender. A RST seen leaving, with the mirrored addresses and the same sequence number, is the cause.
    """
    of = _by_kind(events)
    refused = {(event.peer, event.local) for event in of[Kind.RESET_RECEIVED] if event.state == "SYN_SENT"}
    sent = _once_more([_sent(event, refused) for event in of[Kind.RESET_SENT]])
    sent += _foreign(of[Kind.RST_LEFT], of[Kind.REJECTED], of[Kind.RESET_SENT])
    received: list[Conclusion] = []
    if of[Kind.RESET_RECEIVED]:
        senders, unseen = _Senders(sent), _Unseen(of)
        received = [_received(event, senders.take(event), unseen) for event in of[Kind.RESET_RECEIVED]]
    heard = {id(one.sent_by): one.event for one in received if one.sent_by is not None}
    sent = [
        dataclasses.replace(one, obeyed="yes", heard_by=heard[id(one)]) if id(one) in heard else one
        for one in sent
    ]
    return [*sent, *received, *_ignored(of, sent), *_errors(of), *_destroyed(of[Kind.DESTROYED])]


def _by_kind(events: Iterable[Event]) -> dict[Kind, list[Event]]:
    found: dict[Kind, list[Event]] = {kind: [] for kind in Kind}
    for event in events:
        found[event.kind].append(event)
    return found


def _sent(event: Event, refused: Container[tuple[Endpoint, Endpoint]]) -> Conclusion:
    verdict = sent_cause(event)
    if verdict.basis is Basis.NONE and event.reason == "NO_SOCKET" and (event.local, event.peer) in refused:
        fact = Evidence("the other end, on this host too, was refused in SYN_SENT", 3)
        verdict = verdict._replace(cause="closed_port", basis=Basis.INFERRED, evidence=(fact,))
    return Conclusion(event, verdict, Ending.RESET, Direction.SENT, "local")


def _once_more(sent: Sequence[Conclusion]) -> list[Conclusion]:
    """The same; of late segments it is told whether this host had sent a RST for their connection before."""
    if not any(one.verdict.cause == "late_segment" for one in sent):
        return list(sent)
    resets_ns: dict[object, list[int]] = {}
    for one in sorted(sent, key=lambda one: one.event.mono_ns):
        resets_ns.setdefault(_place(one.event), []).append(one.event.mono_ns)

    def told(one: Conclusion) -> Conclusion:
        late = one.event
        if one.verdict.cause != "late_segment" or late.earlier is None:
            return one
        own_ns = resets_ns[_place(late)]
        at = bisect_left(own_ns, late.mono_ns - late.earlier.closed_ns_ago - CLOSE_TO_RESET_NS)
        if own_ns[at] >= late.mono_ns:
            return one
        fact = Evidence("this host had answered with a reset already, while this segment was on its way", 3)
        verdict = one.verdict._replace(evidence=(*one.verdict.evidence, fact))
        return dataclasses.replace(one, verdict=verdict, after_reset=True)

    return [told(one) for one in sent]


def _foreign(left: Sequence[Event], rejected: Sequence[Event], sent: Sequence[Event]) -> list[Conclusion]:
    """RSTs that left this host and that no tcp_send_reset explains."""
    ours = {(event.local, event.peer) for event in sent if event.segment is not None}
    dropped = {(event.local, event.peer): event for event in rejected}
    found = []
    for event in left:
        ends = (event.local, event.peer)
        if ends in ours:
            continue  # TCP's own answer, sent late: it waited for the neighbour's address
        if ends in dropped:
            fact = Evidence("netfilter dropped the segment that this RST answers", 5)
            verdict = Verdict("local_firewall_reject", Basis.OBSERVED, (fact,), Trigger.PASSIVE)
            drop = dropped[ends]
            event = dataclasses.replace(event, opener=drop.opener, forwarded=drop.forwarded)
        else:
            fact = Evidence(
                "a RST left this host, and neither TCP nor a firewall rule was seen to send it", 4
            )
            verdict = Verdict("not_sent_by_tcp", Basis.INFERRED, (fact,))
        found.append(Conclusion(event, verdict, Ending.RESET, Direction.SENT, "local"))
    return found


class _Senders:
    """RSTs seen leaving, found by the number that each must have: a story may hold thousands.

    A RST ends one connection: who is taken for one receiver is not there for the next.
    """

    def __init__(self, sent: Sequence[Conclusion]) -> None:
        self._by_number: dict[tuple[Endpoint, Endpoint], dict[int | None, dict[int, Conclusion]]] = {}
        for at, one in enumerate(sent):
            groups = self._by_number.setdefault((one.event.local, one.event.peer), {})
            groups.setdefault(_number(one.event), {})[at] = one

    def take(self, received: Event) -> Conclusion | None:
        """Who sent what this event received, the first of several."""
        found = self._find(received)
        if found is None:
            return None
        group, at = found
        return group.pop(at)

    def see(self, received: Event) -> Conclusion | None:
        """The same; it stays there for others."""
        found = self._find(received)
        return None if found is None else found[0][found[1]]

    def _find(self, received: Event) -> tuple[dict[int, Conclusion], int] | None:
        groups = self._by_number.get((received.peer, received.local), {})
        rst = received.segment
        numbers: Iterable[int | None] = groups if rst is None else (rst.seq, None)
        found = [
            (at, group)
            for group in (groups.get(number, {}) for number in numbers)
            if (at := next((at for at, one in group.items() if _sent_this(one.event, received)), None))
            is not None
        ]
        if not found:
            return None
        at, group = min(found, key=lambda one: one[0])
        return group, at


def _number(sent: Event) -> int | None:
    """The sequence number of a RST that left; None where it is not known, or one of several."""
    if sent.kind is Kind.RST_LEFT:
        return sent.segment.seq if sent.segment is not None else None
    if sent.segment is not None:  # passive: RFC 9293 3.5.2 says which number it takes
        return sent.segment.ack if sent.segment.flags & ACK else 0
    return sent.snd_nxt if sent.snd_nxt == sent.snd_una else None


class _Unseen:
    """What is asked about a reset whose sender was not seen."""

    def __init__(self, of: dict[Kind, list[Event]]) -> None:
        self._arrived: dict[object, list[Event]] = {}
        for rst in of[Kind.RST_ARRIVED]:
            self._arrived.setdefault(rst.cookie or _place(rst), []).append(rst)
        self._answered: dict[tuple[Endpoint, Endpoint], Event] = {}
        for late in of[Kind.RESET_SENT]:
            ends = (late.local, late.peer)
            if late.segment is not None and (
                ends not in self._answered or self._answered[ends].mono_ns < late.mono_ns
            ):
                self._answered[ends] = late

    def arrived(self, event: Event) -> list[Event]:
        """Every RST that came to the socket of ``event``; one seen only as dropped has no cookie."""
        own = self._arrived.get(event.cookie, []) if event.cookie else []
        return own + self._arrived.get(_place(event), [])

    def answered(self, reset: Event) -> list[Event]:
        """That this host reset the peer because it went on talking after ``reset``: the last time of them."""
        late = self._answered.get((reset.local, reset.peer))
        return [late] if late is not None and late.mono_ns > reset.mono_ns else []


def _place(event: Event) -> tuple[int | None, Endpoint, Endpoint]:
    return event.netns, event.local, event.peer


def _received(event: Event, sender: Conclusion | None, unseen: _Unseen) -> Conclusion:
    if sender is None:
        verdict, who = received_cause(event, unseen.arrived(event), unseen.answered(event))
        stated = stated_reason(event.segment) if event.segment is not None else None
        if stated is not None:
            verdict = verdict._replace(evidence=(*verdict.evidence, stated))
        return Conclusion(event, verdict, Ending.RESET, Direction.RECEIVED, who, "yes")
    verdict, who = _joined(event, sender)
    return Conclusion(event, verdict, Ending.RESET, Direction.RECEIVED, who, "yes", sender)


def _sent_this(sent: Event, received: Event) -> bool:
    """Whether the RST that ``sent`` tells of is the one that ``received`` obeyed."""
    if (sent.local, sent.peer) != (received.peer, received.local):
        return False
    if sent.netns != received.netns and _stays_inside(received.local.ip):
        return False  # every namespace has these addresses, and no segment leaves it
    rst = received.segment
    if rst is None:
        return True  # segments are not looked at: the mirrored addresses must do
    if sent.kind is Kind.RST_LEFT or sent.segment is not None:
        return _number(sent) == rst.seq
    if sent.snd_nxt is None or sent.snd_una is None:
        return True
    # tcp_acceptable_seq(): SND.NXT, or less if the peer's window has shrunk.
    return (sent.snd_nxt - rst.seq) % 2**32 <= (sent.snd_nxt - sent.snd_una) % 2**32


def _stays_inside(ip: str) -> bool:
    return ip == "::1" or ip.startswith("127.")


def _joined(event: Event, sender: Conclusion) -> tuple[Verdict, str]:
    cause = sender.verdict.cause
    seen = Evidence("the RST was seen leaving its sender on this host", 10)
    verdict = sender.verdict._replace(evidence=(*sender.verdict.evidence, seen))
    if cause == "local_firewall_reject":
        on_path = sender.event.forwarded
        return (verdict._replace(cause="path_firewall_reject") if on_path else verdict), "path"
    if cause != "not_sent_by_tcp":
        return verdict, "peer"
    if sender.event.spoofed:
        fact = Evidence("its address does not exist where it left: someone on the path made it up", 10)
        return Verdict("injected", Basis.OBSERVED, (*verdict.evidence, fact)), "path"
    if event.segment is not None and ttl_difference(event, event.segment):
        fact = Evidence("it left from a place other than the peer: its TTL is not the peer's", 5)
        return Verdict("injected", Basis.INFERRED, (*verdict.evidence, fact)), "path"
    return verdict, "peer"


def _ignored(of: dict[Kind, list[Event]], sent: Sequence[Conclusion]) -> list[Conclusion]:
    if not of[Kind.RST_ARRIVED]:
        return []
    senders = _Senders(sent)
    ended = {event.cookie for event in of[Kind.RESET_RECEIVED]}
    ended_places = {_place(event) for event in of[Kind.RESET_RECEIVED]}
    found = []
    for event in of[Kind.RST_ARRIVED]:
        if event.cookie in ended if event.cookie else _place(event) in ended_places:
            continue
        verdict = ignored_cause(event)
        if verdict is None:
            continue
        sender = senders.see(event)
        who = "peer" if sender is not None else "unknown"
        spoofed = sender is not None and sender.event.spoofed
        if spoofed or (event.segment is not None and ttl_difference(event, event.segment)):
            who = "path"
        found.append(Conclusion(event, verdict, Ending.RESET, Direction.RECEIVED, who, "no", sender))
    return found


_RESETS = (Kind.RESET_SENT, Kind.RESET_RECEIVED, Kind.SELF_RESET)


def _errors(of: dict[Kind, list[Event]]) -> list[Conclusion]:
    told = {event.cookie for kind in _RESETS for event in of[kind] if event.cookie}
    # Without a cookie (kernels whose hooks are untyped) the addresses of a socket's own reset must do.
    told_ends = {
        (event.local, event.peer)
        for kind in _RESETS
        for event in of[kind]
        if not event.cookie and event.state not in (None, "TIME_WAIT", "LISTEN")
    }
    found = []
    for event in of[Kind.ERROR]:
        if event.cookie in told or (event.local, event.peer) in told_ends:
            continue  # the reset's own record says it
        ended = error_cause(event)
        if ended is not None:
            ending, verdict = ended
            # An ICMP error never comes from the peer's TCP.
            who = "path" if ending in (Ending.UNREACHABLE, Ending.REFUSED_BY_ICMP) else "unknown"
            found.append(Conclusion(event, verdict, ending, Direction.RECEIVED, who))
    return found


def _destroyed(events: Iterable[Event]) -> list[Conclusion]:
    """Sockets that were destroyed with data at risk: all that can be told without rights."""
    found = []
    for event in events:
        harm = event.harm
        if harm.unread_bytes or harm.unsent_bytes or harm.unacked_bytes:
            fact = Evidence("the socket was destroyed with data at risk; without rights nothing tells why", 0)
            verdict = Verdict("unknown", Basis.NONE, (fact,))
            found.append(Conclusion(event, verdict, Ending.ABORTED, Direction.RECEIVED, "unknown"))
    return found
