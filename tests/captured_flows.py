# SPDX-License-Identifier: Apache-2.0
"""Flows from segments written down by hand: what the reader would give, without a reader.

The fold is slow and plain on purpose; it keeps every packet of a flow, and leaves Zeek's words to the reader.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from holdfast.events import Endpoint
from holdfast.watch.capture.flow import (
    ACK,
    FIN,
    RST,
    SYN,
    ClientBy,
    Content,
    EndedBy,
    Flow,
    Moment,
    Option,
    Packet,
    Rst,
    Side,
    Tunnel,
)

CLIENT, SERVER = Endpoint("192.0.2.10", 50000), Endpoint("198.51.100.80", 443)
START_NS = 1_764_000_000_000_000_000
MODULUS = 1 << 32
TIMESTAMPS_BYTES = 12


@dataclass(frozen=True, slots=True)
class Seg:
    """One segment on the wire; times in milliseconds since START_NS, numbers as on the wire."""

    ms: float
    client: bool
    flags: int
    seq: int = 0
    ack: int = 0
    data: int = 0
    window: int = 500
    ttl: int = 64
    ip_id: int | None = 1
    options_bytes: int = TIMESTAMPS_BYTES
    ts: tuple[int, int] | None = None
    df: bool = True
    content: int = Content.OTHER
    payload: bytes = b""
    mptcp_reason: int | None = None
    options: int = 0
    sack_right: int | None = None
    scale: int | None = None  # of a SYN


def ahead(one: int, other: int) -> int:
    return (one - other + (1 << 31)) % MODULUS - (1 << 31)


@dataclass
class _Direction:
    """What is known of one direction, packet after packet."""

    plain: list[Packet] = field(default_factory=list)
    every: list[Packet] = field(default_factory=list)
    next_seq: int | None = None
    last_ack: int | None = None
    window: int | None = None
    sack_right: int | None = None
    unseen: int = 0
    fin: bool = False
    scale: int = 0  # agreed for the windows of this direction

    def moment(self) -> Moment:
        data = [p for p in self.plain if p.payload_bytes]
        last = self.plain[-1] if self.plain else None
        return Moment(
            self.next_seq,
            self.last_ack,
            self.window,
            self.sack_right,
            len(self.plain),
            len(data),
            sum(p.payload_bytes for p in data),
            self.fin,
            len(self.every) - len(self.plain),
            last.time_ns if last else None,
            data[-1].time_ns if data else None,
            last.ttl if last else None,
            last.ip_id if last else None,
        )

    def take(self, packet: Packet, other: _Direction) -> None:
        self.every.append(packet)
        if packet.flags & RST:
            return
        self.plain.append(packet)
        self.fin |= bool(packet.flags & FIN)
        if self.next_seq is None or ahead(packet.after, self.next_seq) > 0:
            self.next_seq = packet.after
        if packet.flags & ACK:
            if self.last_ack is None or ahead(packet.ack, self.last_ack) > 0:
                self.last_ack, self.sack_right = packet.ack, None
            if packet.sack_right is not None:
                self.sack_right = packet.sack_right
            beyond = ahead(packet.ack, other.next_seq) if other.next_seq is not None else 0
            if beyond > 0:
                other.unseen = max(other.unseen, beyond)
        self.window = packet.window if packet.flags & SYN else packet.window << self.scale

    def side(self) -> Side:
        plain, ids = self.plain, [p.ip_id for p in self.plain if p.ip_id is not None]
        syn = next((p for p in plain if p.flags & SYN), None)
        data = [p for p in plain if p.payload_bytes]
        fin = next((p for p in plain if p.flags & FIN), None)
        ttls = [p.ttl for p in plain]
        steps = sum(1 <= (two - one) % 65536 <= 100 for one, two in itertools.pairwise(ids))
        return Side(
            packets=len(self.every),
            payload_bytes=sum(p.payload_bytes for p in data),
            ip_bytes=0,
            data_packets=len(data),
            syns=sum(bool(p.flags & SYN) for p in plain),
            fins=sum(bool(p.flags & FIN) for p in plain),
            rsts=len(self.every) - len(plain),
            isn=syn.seq if syn else None,
            syn_flags=syn.flags if syn else 0,
            syn_options=syn.options if syn else 0,
            syn_window=syn.window if syn else 0,
            syn_payload_bytes=syn.payload_bytes if syn else 0,
            mss=1460 if syn else None,
            window_scale=None,
            timestamps=any(p.ts_val is not None for p in plain),
            first_seq=plain[0].seq if plain else None,
            next_seq=self.next_seq,
            highest_ack=self.last_ack,
            window_bytes=self.window,
            fin_seq=fin.seq if fin else None,
            retransmits=0,
            duplicates=0,
            ahead=0,
            unseen_bytes=self.unseen,
            keep_alives=0,
            zero_windows=sum(p.window == 0 for p in plain),
            ttl_first=ttls[0] if ttls else None,
            ttl_last=ttls[-1] if ttls else None,
            ttl_min=min(ttls, default=None),
            ttl_max=max(ttls, default=None),
            ip_id_first=ids[0] if ids else None,
            ip_id_last=ids[-1] if ids else None,
            ip_id_zero=ids.count(0),
            ip_id_steps=steps,
            dont_fragment=sum(p.dont_fragment for p in plain),
            first_ns=plain[0].time_ns if plain else None,
            last_ns=plain[-1].time_ns if plain else None,
            last_data_ns=data[-1].time_ns if data else None,
        )


def packets_of(segments: Iterable[Seg]) -> list[Packet]:
    """The segments as the reader gives them, in the order in which they stand."""
    return [
        Packet(
            START_NS + int(s.ms * 1e6), at + 1, at * 100, 0, 0, at, s.client, s.flags, s.seq % MODULUS,
            s.ack % MODULUS, s.window, s.data, s.ttl, s.ip_id, s.df,
            s.options | (Option.TIMESTAMP if s.ts else 0), s.options_bytes,
            s.ts[0] if s.ts else None, s.ts[1] if s.ts else None, s.sack_right, s.content if s.data else 0,
        )
        for at, s in enumerate(segments)
    ]  # fmt: skip


def flow_of(segments: Sequence[Seg], client: Endpoint = CLIENT, server: Endpoint = SERVER) -> Flow:
    """One connection."""
    packets = packets_of(segments)
    sides = {True: _Direction(), False: _Direction()}
    moments: list[tuple[int, Moment, Moment]] = []
    scales = {one.client: one.scale for one in segments if one.flags & SYN}
    if None not in (scales.get(True), scales.get(False)):
        sides[True].scale, sides[False].scale = scales[True] or 0, scales[False] or 0
    for at, packet in enumerate(packets):
        own, other = sides[packet.from_client], sides[not packet.from_client]
        if packet.flags & RST:
            moments.append((at, own.moment(), other.moment()))
        own.take(packet, other)

    def first_ns(client: bool, flags: int, mask: int, after: int | None = None) -> int | None:
        return next(
            (
                p.time_ns
                for p in packets
                if p.from_client == client
                and p.flags & mask == flags
                and (after is None or p.time_ns >= after)
            ),
            None,
        )

    syn_ns, syn_ack_ns = first_ns(True, SYN, SYN | ACK), first_ns(False, SYN | ACK, SYN | ACK)
    by = ClientBy.SYN if syn_ns is not None else ClientBy.SYN_ACK if syn_ack_ns is not None else ClientBy.PORT
    times = [p.time_ns for p in packets]
    return Flow(
        client=client,
        server=server,
        client_by=by,
        tunnel=Tunnel.NONE,
        tunnel_id=0,
        vlan=0,
        sent_by_client=sides[True].side(),
        sent_by_server=sides[False].side(),
        first_ns=min(times),
        last_ns=max(times),
        first_number=1,
        source=0,
        syn_ns=syn_ns,
        syn_ack_ns=syn_ack_ns,
        ack_ns=None if syn_ack_ns is None else first_ns(True, ACK, ACK | SYN | RST, syn_ack_ns),
        backwards=sum(two < one for one, two in itertools.pairwise(times)),
        simultaneous=False,
        ended_by=EndedBy.CAPTURE,
        zeek_state="",
        zeek_history="",
        packets=tuple(packets),
        packets_left_out=0,
        rsts=tuple(
            Rst(
                packets[at], own, other, segments[at].payload, segments[at].mptcp_reason,
                sum(not p.flags & RST for p in packets[at + 1 :]),
            )
            for at, own, other in moments[:8]
        ),
        icmp_errors=(),
    )  # fmt: skip
