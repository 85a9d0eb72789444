"""Finished flows as bytes; ``native/capture_give.c`` gives the same."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from holdfast.watch.capture import columns
from holdfast.watch.capture.flow import Option
from holdfast.watch.capture.portable import zeek
from holdfast.watch.capture.portable.evidence import KeptRst
from holdfast.watch.capture.portable.flow import Flow
from holdfast.watch.capture.portable.segment import U64, Segment

_SIDE_NAMES = tuple(name for name, _ in columns.SIDE)


def row(flow: Flow, ended_by: int) -> bytes:
    """The row of a flow."""
    client, server = flow.key.ends[flow.client], flow.key.ends[1 - flow.client]
    values: list[object] = [
        client[0],
        server[0],
        client[1],
        server[1],
        flow.client_by,
        ended_by,
        flow.tunnel,
        flow.simultaneous,
        flow.key.tunnel_id,
        flow.source,
        flow.first_number,
        flow.first_ns,
        flow.last_ns,
        flow.syn_ns,
        flow.syn_ack_ns,
        flow.ack_ns,
        flow.first_rst_ns,
        flow.backwards,
        flow.vlan,
        flow.seen,
        flow.zeek_history.encode(),
        zeek.conclude(flow).encode(),
    ]
    for end in (flow.client, 1 - flow.client):
        values += [getattr(flow.sides[end], name) for name in _SIDE_NAMES]
    return columns.ROW_LAYOUT.pack(*values)


def _packet(flow: Flow, place: int, seg: Segment) -> bytes:
    bits = columns.FROM_CLIENT if seg.sender == flow.client else 0
    bits |= columns.V4 if seg.v4 else 0
    bits |= columns.DONT_FRAGMENT if seg.dont_fragment else 0
    return columns.PACKET_LAYOUT.pack(
        seg.time_ns,
        seg.offset & U64,
        seg.number,
        *seg.origin,
        place,
        seg.seq,
        seg.ack,
        seg.payload_bytes,
        seg.ts_val,
        seg.ts_ecr,
        seg.sack_right,
        seg.window,
        seg.flags,
        seg.ip_id,
        seg.options,
        seg.ttl,
        seg.options_bytes,
        seg.content,
        bits,
    )


def _rst(flow: Flow, kept: KeptRst) -> bytes:
    seg = kept.packet
    return columns.RST_LAYOUT.pack(
        _packet(flow, kept.place, seg),
        kept.moments[seg.sender],
        kept.moments[1 - seg.sender],
        flow.others - kept.others_before,
        seg.mptcp_reason if seg.options & Option.MPTCP_RST else columns.NO_REASON,
        len(seg.kept),
        seg.kept,
    )


def _icmp(flow: Flow, seg: Segment) -> bytes:
    return columns.ICMP_LAYOUT.pack(
        seg.time_ns,
        seg.offset & U64,
        seg.number,
        seg.origin[0],
        seg.mtu,
        seg.seq,
        seg.icmp_kind,
        seg.icmp_code,
        not seg.v4,
        seg.sender == flow.client,
        seg.reporter,
    )


def record(flow: Flow, of_row: bytes) -> bytes:
    """A row with the packets, RSTs and ICMP errors behind it."""
    evidence = flow.evidence
    assert evidence is not None
    body = b"".join(
        (
            of_row,
            *(_packet(flow, place, seg) for place, seg in evidence.packets),
            *(_rst(flow, kept) for kept in evidence.rsts),
            *(_icmp(flow, seg) for seg in evidence.icmp),
        )
    )
    head = (len(evidence.packets), len(evidence.rsts), len(evidence.icmp), evidence.left_out, 0)
    return columns.HEAD_LAYOUT.pack(columns.HEAD_LAYOUT.size + len(body), *head) + body
