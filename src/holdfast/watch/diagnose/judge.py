"""From a captured flow to its record: every rule about one connection, in order."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from holdfast.causes import CAUSES, Basis, Ending, Severity
from holdfast.events import Evidence
from holdfast.watch.capture.flow import ClientBy, Flow, IcmpError
from holdfast.watch.capture.flow import Side as Sent
from holdfast.watch.diagnose.captured import find, stated_by
from holdfast.watch.diagnose.case import Case, cases, round_trip_ns
from holdfast.watch.diagnose.explained import Explained, Window, other
from holdfast.watch.diagnose.finding import Finding, Marks
from holdfast.watch.diagnose.settle import settling
from holdfast.watch.diagnose.signs import Sign, deciding_places, score, signs
from holdfast.watch.diagnose.stages import signature
from holdfast.watch.diagnose.validity import Validity, validity
from holdfast.watch.diagnose.words import bytes_words

STEPS_BEFORE, STEPS_AFTER = 14, 8
"""How many segments around the RST are kept for the diagram."""

_OBEYED_ORDER = {"yes": 0, "unknown": 1, "no": 2}

_PORT_UNREACHABLE = {False: ((3, 3), (3, 9), (3, 10), (3, 13)), True: ((1, 4), (1, 1), (1, 5), (1, 6))}
_UNREACHABLE = {False: 3, True: 1}
_TOO_BIG = {False: (3, 4), True: (2, 0)}


class Judged(NamedTuple):
    """A record, and what the rules about several connections still ask of its flow.

    Attributes:
        number: sequence number of the RST that decided.
        numbers: (whether from the client, sequence number) of each RST.
        isns: of client and server; None where the SYN was not captured.
        rst_ttl: of the deciding RST. copy_ttls: the lowest and the highest of it and its copies.
        client_ttl, server_ttl: lowest and highest TTL of what each end sent, RSTs aside.
        refused: it answered a SYN. syn_flags, syn_options: of the client's SYN.
        quiet: the claimed sender had sent no data and no FIN. answers: a passive answer to a segment.
        first_ns, last_ns: of the flow. lossy: the capture missed some of it.
    """

    explained: Explained
    number: int | None = None
    numbers: frozenset[tuple[bool, int]] = frozenset()
    isns: tuple[int | None, int | None] = (None, None)
    rst_ttl: int | None = None
    copy_ttls: tuple[int, int] | None = None
    client_ttl: tuple[int, int] | None = None
    server_ttl: tuple[int, int] | None = None
    refused: bool = False
    syn_flags: int = 0
    syn_options: int = 0
    quiet: bool = False
    answers: bool = False
    first_ns: int = 0
    last_ns: int = 0
    lossy: bool = False


def judge(flow: Flow, files: Sequence[str]) -> Judged | None:
    """What became of a connection; None if nothing ended it (an ICMP error that it survived).

    Args:
        files: names of the captures, in the order in which they are read; the record names its own.
    """
    return judge_all([flow], files)[0]


def judge_all(flows: Sequence[Flow], files: Sequence[str]) -> list[Judged | None]:
    """:func:`judge` for each of some flows, in a quarter less time from about ten of them on.

    Each rule sees all flows before the next one does: so its code is still in the processor's caches.
    """
    found = [[(case, validity(case)) for case in cases(flow)] for flow in flows]
    resets = [each for each in found if each]
    deciding = [_deciding(each) for each in resets]
    marks = [signs(case) for case, _ in deciding]
    findings = [find(case, valid, own) for (case, valid), own in zip(deciding, marks, strict=True)]
    evidence = [
        (
            *finding.evidence,
            *[one.evidence() for one in sorted(own, key=_heaviest_first)],
            *[Evidence(fact, 0) for fact in valid.facts],
            *_circumstances(case, each),
        )
        for (case, valid), own, finding, each in zip(deciding, marks, findings, resets, strict=True)
    ]
    windows = [
        _window(case, valid, own, finding.marks)
        for (case, valid), own, finding in zip(deciding, marks, findings, strict=True)
    ]
    records = [
        _record(
            case,
            valid,
            finding,
            facts,
            score(own),
            window,
            [one for one, _ in each],
            files[case.packet.source],
        )
        for (case, valid), own, finding, facts, window, each in zip(
            deciding, marks, findings, evidence, windows, resets, strict=True
        )
    ]
    judged = iter([_judged(record, case) for record, (case, _) in zip(records, deciding, strict=True)])
    return [next(judged) if each else _by_icmp(flow, files) for flow, each in zip(flows, found, strict=True)]


def _judged(explained: Explained, case: Case) -> Judged:
    flow = case.flow
    return Judged(
        explained,
        case.packet.seq,
        frozenset([(rst.packet.from_client, rst.packet.seq) for rst in flow.rsts]),
        (flow.sent_by_client.isn, flow.sent_by_server.isn),
        case.packet.ttl,
        (min(case.ttls), max(case.ttls)),
        _ttls(flow, True),
        _ttls(flow, False),
        explained.cause == "connection_refused",
        flow.sent_by_client.syn_flags,
        flow.sent_by_client.syn_options,
        not case.sender.data_packets and not case.sender.fin,
        case.answers,
        flow.first_ns,
        flow.last_ns,
        case.lossy,
    )


def _heaviest_first(one: Sign) -> int:
    return -abs(one.weight)


def _deciding(found: Sequence[tuple[Case, Validity]]) -> tuple[Case, Validity]:
    """The RST that ended the connection, else the first that may have, else the first."""
    return min(found, key=lambda one: _OBEYED_ORDER[one[1].obeyed])


def _ttls(flow: Flow, client: bool) -> tuple[int, int] | None:
    side = flow.sent_by(client)
    return None if side.ttl_min is None or side.ttl_max is None else (side.ttl_min, side.ttl_max)


def _record(
    case: Case,
    valid: Validity,
    finding: Finding,
    evidence: tuple[Evidence, ...],
    points: int,
    window: Window,
    all_cases: Sequence[Case],
    file: str,
) -> Explained:
    flow, packet = case.flow, case.packet
    row = CAUSES[finding.cause]
    noise = row.noise or finding.noise is not None
    unacked = None if valid.obeyed == "no" else _in_flight(case)
    rtt_ns = round_trip_ns(flow)
    return Explained(
        file=file,
        number=packet.number,
        time_ns=packet.time_ns,
        client=flow.client,
        server=flow.server,
        ends_known=flow.client_by in (ClientBy.SYN, ClientBy.SYN_ACK),
        claimed=case.claimed,
        sender=finding.sender,
        cause=finding.cause,
        lost=finding.lost or lost_words(unacked),
        basis=finding.basis,
        severity=Severity.INFO if noise else row.severity,
        noise=noise,
        obeyed=valid.obeyed,
        trigger=finding.trigger,
        state=state(case),
        lifetime_s=_seconds(packet.time_ns - flow.first_ns),
        bytes_sent=flow.sent_by_client.payload_bytes,
        bytes_received=flow.sent_by_server.payload_bytes,
        rtt_us=None if rtt_ns is None else rtt_ns // 1000,
        idle_s=_idle_s(case),
        unacked_bytes=unacked,
        evidence=evidence,
        score=points,
        stated=stated_by(case),
        settle=settling(finding, case, valid),
        zeek_state=flow.zeek_state,
        zeek_history=flow.zeek_history,
        signature_client=signature(flow, all_cases, True),
        signature_server=signature(flow, all_cases, False),
        resets=flow.sent_by_client.rsts + flow.sent_by_server.rsts,
        window=window,
    )


def state(case: Case) -> str:
    """The receiver's state when the RST came, as the capture shows it (RFC 9293 spelling)."""
    if case.in_handshake:
        return "SYN_SENT"
    if case.sender.fin:
        return "LAST_ACK" if case.receiver.fin else "CLOSE_WAIT"
    if case.receiver.fin:
        acked = case.sender.last_ack is not None and case.sender.last_ack == case.receiver.next_seq
        return "FIN_WAIT_2" if acked else "FIN_WAIT_1"
    half_open = case.sender.last_ack is None and case.sent.isn is not None and case.from_client
    return "SYN_RECEIVED" if half_open else "ESTABLISHED"


def lost_words(unacked: int | None) -> str | None:
    """What was on its way and not acknowledged; a capture does not see what lay unread in a host."""
    if unacked is None:
        return None
    return (
        f"{unacked:,} unacknowledged byte{'' if unacked == 1 else 's'}"
        if unacked
        else "nothing that was seen in flight"
    )


def _in_flight(case: Case) -> int | None:
    ours, theirs = case.sender_unacked, case.receiver_unacked
    return None if ours is None or theirs is None else ours + theirs


def _idle_s(case: Case) -> float | None:
    moved = [one for one in (case.sender.last_data_ns, case.receiver.last_data_ns) if one is not None]
    return _seconds(case.packet.time_ns - max(moved)) if moved else None


def _seconds(ns: int) -> float | None:
    """None where the times of the capture run backwards: a length below zero says nothing."""
    return round(ns / 1e9, 6) if ns >= 0 else None


def _circumstances(case: Case, found: Sequence[tuple[Case, Validity]]) -> list[Evidence]:
    facts = []
    stated = stated_by(case)
    if stated is not None:
        facts.append(f"the RST carries {stated}")
    ignored = sum([valid.obeyed == "no" for one, valid in found if one is not case])
    if ignored:
        facts.append(f"{ignored} other RST{'s' if ignored > 1 else ''} on this connection had no effect")
    for side, lost in (
        (case.claimed, case.sender_unacked),
        (other(case.claimed), case.receiver_unacked),
    ):
        if lost:
            facts.append(f"{bytes_words(lost)} of the {side} were not acknowledged")
    if case.lossy:
        facts.append("the capture missed segments of this connection: what it lacks proves nothing")
    if case.flow.backwards:
        facts.append("its times run backwards in places: segments may stand in the wrong order")
    if case.flow.client_by not in (ClientBy.SYN, ClientBy.SYN_ACK):
        facts.append("the handshake was not captured: which end dialled is a guess")
    return [Evidence(fact, 0) for fact in facts]


def _window(case: Case, valid: Validity, found: Sequence[Sign], marks: Marks) -> Window:
    """The segments around the RST, and those that decide, wherever they are."""
    notes = deciding_places(found)
    for packet, note in marks:
        notes.setdefault(packet.place, note)
    if valid.shown_by is not None and valid.obeyed == "no":
        notes.setdefault(valid.shown_by.place, "not reset")
    around = (*case.before[-STEPS_BEFORE:], case.packet, *case.after[:STEPS_AFTER])
    missing = [place for place in notes if not around[0].place <= place <= around[-1].place]
    if missing:
        far = [one for one in (*case.before, *case.after) if one.place in missing]
        around = tuple(sorted((*around, *far), key=lambda one: one.place))
    bases = _base(case.flow.sent_by_server, case), _base(case.flow.sent_by_client, case)
    return Window(around, bases, notes, case.packet.place)


def _base(side: Sent, case: Case) -> int:
    if side.isn is not None:
        return side.isn
    return side.first_seq if side.first_seq is not None else case.packet.seq


def _by_icmp(flow: Flow, files: Sequence[str]) -> Judged | None:
    """An ICMP error that ended the attempt to connect."""
    errors = [one for one in flow.icmp_errors if (one.kind, one.code) != _TOO_BIG[one.v6]]
    if not errors or flow.syn_ack_ns is not None or flow.sent_by_server.packets:
        return None
    error = errors[0]
    if error.kind != _UNREACHABLE[error.v6]:
        return None
    refused = (error.kind, error.code) in _PORT_UNREACHABLE[error.v6]
    cause = "icmp_refused" if refused else "icmp_error"
    row = CAUSES[cause]
    facts = (
        Evidence(
            f"ICMP{'v6' if error.v6 else ''} type {error.kind} code {error.code} from {error.reporter}", 4
        ),
    )
    explained = Explained(
        file=files[error.source],
        number=error.number,
        time_ns=error.time_ns,
        client=flow.client,
        server=flow.server,
        ends_known=True,
        claimed="server",
        sender=_reporter(error, flow),
        cause=cause,
        basis=Basis.OBSERVED,
        severity=row.severity,
        noise=False,
        obeyed="yes",
        ending=Ending.REFUSED_BY_ICMP if refused else Ending.UNREACHABLE,
        state="SYN_SENT",
        lifetime_s=_seconds(error.time_ns - flow.first_ns),
        bytes_sent=flow.sent_by_client.payload_bytes,
        bytes_received=0,
        evidence=facts,
        zeek_state=flow.zeek_state,
        zeek_history=flow.zeek_history,
        resets=0,
    )
    return Judged(explained, first_ns=flow.first_ns, last_ns=flow.last_ns)


def _reporter(error: IcmpError, flow: Flow) -> str:
    return "server" if error.reporter == flow.server.ip else "path"
