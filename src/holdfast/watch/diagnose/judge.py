"""From a captured flow to its record: every rule about one connection, in order."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2s

from holdfast.causes import CAUSES, Basis, Ending, Family, Severity
from holdfast.events import Endpoint, Evidence, Harm
from holdfast.watch.capture.flow import ACK, RST, ClientBy, Flow, IcmpError, Moment, Packet
from holdfast.watch.diagnose.captured import Finding, find, stated_by
from holdfast.watch.diagnose.case import Case, cases, round_trip_ns, unacked_bytes
from holdfast.watch.diagnose.explained import Explained, Side, Step, other
from holdfast.watch.diagnose.record import harm_words, wall_time
from holdfast.watch.diagnose.serial import ahead
from holdfast.watch.diagnose.settle import settling
from holdfast.watch.diagnose.signs import Sign, deciding_places, score, signs
from holdfast.watch.diagnose.stages import signature
from holdfast.watch.diagnose.validity import Validity, validity
from holdfast.watch.diagnose.words import bytes_words

STEPS_BEFORE, STEPS_AFTER = 14, 8
"""How many segments around the RST are kept for the diagram."""

_PORT_UNREACHABLE = {False: ((3, 3), (3, 9), (3, 10), (3, 13)), True: ((1, 4), (1, 1), (1, 5), (1, 6))}
_UNREACHABLE = {False: 3, True: 1}
_TOO_BIG = {False: (3, 4), True: (2, 0)}


@dataclass(frozen=True, slots=True)
class Judged:
    """A record, and what the rules about several connections still ask of its flow.

    Attributes:
        number: sequence number of the RST that decided.
        numbers: (whether from the client, sequence number) of each RST.
        isns: of client and server; None where the SYN was not captured.
        rst_ttl: of the deciding RST. claimed_ttl: lowest and highest of its claimed sender's other segments.
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


def judge(flow: Flow, file: str) -> Judged | None:
    """What became of a connection; None if nothing ended it (an ICMP error that it survived).

    Args:
        file: the name of its capture, for the record.
    """
    found = [(case, validity(case)) for case in cases(flow)]
    if not found:
        return _by_icmp(flow, file)
    case, valid = _deciding(found)
    marks = signs(case)
    finding = find(case, valid, marks)
    evidence = (
        *finding.evidence,
        *(one.evidence() for one in sorted(marks, key=lambda one: -abs(one.weight))),
        *(Evidence(fact, 0) for fact in valid.facts),
        *_circumstances(case, found),
    )
    explained = _record(case, valid, finding, evidence, score(marks), _steps(case, valid, marks), file)
    return Judged(
        explained,
        case.packet.seq,
        frozenset((rst.packet.from_client, rst.packet.seq) for rst in flow.rsts),
        (flow.sent_by_client.isn, flow.sent_by_server.isn),
        case.packet.ttl,
        _ttls(flow, True),
        _ttls(flow, False),
        finding.cause == "connection_refused",
        flow.sent_by_client.syn_flags,
        flow.sent_by_client.syn_options,
        not case.sender.data_packets and not case.sender.fin,
        case.answers,
        flow.first_ns,
        flow.last_ns,
        case.lossy,
    )


def _deciding(found: Sequence[tuple[Case, Validity]]) -> tuple[Case, Validity]:
    """The RST that ended the connection, else the first that may have, else the first."""
    order = {"yes": 0, "unknown": 1, "no": 2}
    return min(found, key=lambda one: order[one[1].obeyed])


def _ttls(flow: Flow, client: bool) -> tuple[int, int] | None:
    side = flow.sent_by(client)
    return None if side.ttl_min is None or side.ttl_max is None else (side.ttl_min, side.ttl_max)


def _record(
    case: Case,
    valid: Validity,
    finding: Finding,
    evidence: tuple[Evidence, ...],
    points: int,
    steps: tuple[Step, ...],
    file: str,
) -> Explained:
    flow, packet = case.flow, case.packet
    row = CAUSES[finding.cause]
    noise = row.noise or finding.noise is not None
    harm = Harm() if valid.obeyed == "no" else Harm(unacked_bytes=_in_flight(case))
    rtt_ns = round_trip_ns(flow)
    return Explained(
        id=identity(file, flow, packet.number),
        file=file,
        time=wall_time(packet.time_ns),
        time_ns=packet.time_ns,
        client=flow.client,
        server=flow.server,
        ends_known=flow.client_by in (ClientBy.SYN, ClientBy.SYN_ACK),
        claimed=case.claimed,
        sender=finding.sender,
        cause=finding.cause,
        sentence=sentence(
            finding.cause, case.claimed, flow.client, flow.server, finding.lost or lost_words(harm)
        ),
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
        harm=harm,
        evidence=evidence,
        score=points,
        remedy=row.remedy,
        stated=stated_by(case),
        settle=settling(finding, case, valid),
        zeek_state=flow.zeek_state,
        zeek_history=flow.zeek_history,
        signature_client=signature(flow, True),
        signature_server=signature(flow, False),
        resets=flow.sent_by_client.rsts + flow.sent_by_server.rsts,
        steps=steps,
    )


def identity(file: str, flow: Flow, number: int) -> str:
    """A short identifier, the same whenever the same capture is read."""
    facts = f"{file}{flow.client}{flow.server}{flow.first_ns}{number}"
    return blake2s(facts.encode(errors="surrogateescape"), digest_size=8).hexdigest()


def lost_words(harm: Harm) -> str | None:
    """What was on its way and not acknowledged; a capture does not see what lay unread in a host."""
    words = harm_words(harm)
    return "nothing seen in flight" if words == "nothing" else words


def sentence(cause_id: str, claimed: Side, client: Endpoint, server: Endpoint, lost: str | None) -> str:
    """The cause as one plain sentence about this connection; ``lost`` in words."""
    row = CAUSES[cause_id]
    names: dict[Side, str] = {"client": f"client {client}", "server": f"server {server}"}
    # Rows about a RST that was sent tell of its sender, the others of who suffers it.
    teller: Side = claimed if row.family is Family.SENT else other(claimed)
    ends = {"client": str(client), "server": str(server)}
    said = row.describe(names[teller], names[other(teller)], ends[teller], lost)
    # The table speaks from a host of its own; a capture stands beside both.
    said = said.replace("This host's", f"The {names[teller]}'s").replace(
        "This host", f"The host of {names[teller]}"
    )
    said = said.replace("this host", f"the host of {names[teller]}")
    return said[0].upper() + said[1:]


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


def _in_flight(case: Case) -> int | None:
    both = unacked_bytes(case.sender, case.receiver), unacked_bytes(case.receiver, case.sender)
    return None if None in both else sum(one for one in both if one)


def _idle_s(case: Case) -> float | None:
    moved = [one for one in (case.sender.last_data_ns, case.receiver.last_data_ns) if one is not None]
    return _seconds(case.packet.time_ns - max(moved)) if moved else None


def _seconds(ns: int) -> float:
    return round(ns / 1e9, 6)


def _circumstances(case: Case, found: Sequence[tuple[Case, Validity]]) -> list[Evidence]:
    facts = []
    stated = stated_by(case)
    if stated is not None:
        facts.append(f"the RST carries {stated}")
    ignored = sum(valid.obeyed == "no" for one, valid in found if one is not case)
    if ignored:
        facts.append(f"{ignored} other RST{'s' if ignored > 1 else ''} on this connection had no effect")
    names: tuple[tuple[str, Moment, Moment], ...] = (
        (case.claimed, case.sender, case.receiver),
        (other(case.claimed), case.receiver, case.sender),
    )
    for side, sent, heard in names:
        lost = unacked_bytes(sent, heard)
        if lost:
            facts.append(f"{bytes_words(lost)} of the {side} were not acknowledged")
    if case.lossy:
        facts.append("the capture missed segments of this connection: what it lacks proves nothing")
    if case.flow.backwards:
        facts.append("its times run backwards in places: segments may stand in the wrong order")
    if case.flow.client_by not in (ClientBy.SYN, ClientBy.SYN_ACK):
        facts.append("the handshake was not captured: which end dialled is a guess")
    return [Evidence(fact, 0) for fact in facts]


def _steps(case: Case, valid: Validity, found: Sequence[Sign]) -> tuple[Step, ...]:
    """The segments around the RST, and those that decide, wherever they are."""
    notes = deciding_places(found)
    if valid.shown_by is not None and valid.obeyed == "no":
        notes.setdefault(valid.shown_by.place, "not reset")
    around = (*case.before[-STEPS_BEFORE:], case.packet, *case.after[:STEPS_AFTER])
    kept = {one.place: one for one in around}
    for one in (*case.before, *case.after):
        if one.place in notes:
            kept[one.place] = one
    bases = {client: _base(case.flow, client) for client in (True, False)}
    return tuple(_step(one, bases, notes, case.packet) for _, one in sorted(kept.items()))


def _base(flow: Flow, client: bool) -> int:
    side = flow.sent_by(client)
    if side.isn is not None:
        return side.isn
    return side.first_seq if side.first_seq is not None else flow.packets[0].seq if flow.packets else 0


def _step(one: Packet, bases: dict[bool, int], notes: dict[int, str], rst: Packet) -> Step:
    zero = one.flags & RST and one.seq == 0
    return Step(
        one.time_ns,
        "client" if one.from_client else "server",
        one.flags,
        0 if zero else ahead(one.seq, bases[one.from_client]),
        ahead(one.ack, bases[not one.from_client]) if one.flags & ACK else None,
        one.payload_bytes,
        one.window,
        one.ttl,
        one.ip_id,
        one.options_bytes,
        notes.get(one.place, "this RST decided" if one.place == rst.place else ""),
        one.place in notes or one.place == rst.place,
    )


def _by_icmp(flow: Flow, file: str) -> Judged | None:
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
        id=identity(file, flow, error.number),
        file=file,
        time=wall_time(error.time_ns),
        time_ns=error.time_ns,
        client=flow.client,
        server=flow.server,
        ends_known=True,
        claimed="server",
        sender=_reporter(error, flow),
        cause=cause,
        sentence=sentence(cause, "server", flow.client, flow.server, None),
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
        remedy=row.remedy,
        zeek_state=flow.zeek_state,
        zeek_history=flow.zeek_history,
        resets=0,
    )
    return Judged(explained, first_ns=flow.first_ns, last_ns=flow.last_ns)


def _reporter(error: IcmpError, flow: Flow) -> str:
    return "server" if error.reporter == flow.server.ip else "path"
