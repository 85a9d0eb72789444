"""From the bytes that a parser gives to facts."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dataclasses
import functools
import ipaddress
from collections.abc import Iterator
from typing import Any

from holdfast.events import Endpoint
from holdfast.watch.capture import columns
from holdfast.watch.capture.columns import FROM_CLIENT, NO_OFFSET, NO_REASON, V4, Seen, SeenTime
from holdfast.watch.capture.flow import (
    ClientBy,
    EndedBy,
    Flow,
    IcmpError,
    Moment,
    Option,
    Packet,
    Rst,
    Side,
    Tunnel,
)

_MAPPED = b"\0" * 10 + b"\xff\xff"
_bare = tuple.__new__
_TIMESTAMP, _SACK = int(Option.TIMESTAMP), int(Option.SACK)
_SIDE_AT = columns.FLOW_LAYOUT.size
_ROW_BYTES = columns.ROW_LAYOUT.size
_HEAD_BYTES = columns.HEAD_LAYOUT.size
_PACKET_BYTES = columns.PACKET_LAYOUT.size
_RST_BYTES = columns.RST_LAYOUT.size
_ICMP_BYTES = columns.ICMP_LAYOUT.size


@functools.lru_cache(maxsize=4096)
def address(raw: bytes) -> str:
    """The text of an address; one that is mapped into IPv6 as IPv4."""
    if raw.startswith(_MAPPED):
        return ".".join(map(str, raw[12:]))
    return str(ipaddress.IPv6Address(raw))


def split(records: bytes) -> Iterator[memoryview]:
    """Each record apart."""
    at, whole = 0, memoryview(records)
    while at < len(whole):
        (length,) = columns.HEAD_LAYOUT.unpack_from(whole, at)[:1]
        yield whole[at : at + length]
        at += length


def packet(fields: tuple[int, ...]) -> Packet:
    """One packet from its unpacked fields."""
    (
        time_ns,
        offset,
        number,
        source,
        interface,
        place,
        seq,
        ack,
        payload_bytes,
        ts_val,
        ts_ecr,
        sack_right,
        window,
        flags,
        ip_id,
        options,
        ttl,
        options_bytes,
        content,
        bits,
    ) = fields
    stamped = options & _TIMESTAMP
    values = (
        time_ns,
        number,
        offset if offset != NO_OFFSET else None,
        source,
        interface,
        place,
        bits & FROM_CLIENT != 0,
        flags,
        seq,
        ack,
        window,
        payload_bytes,
        ttl,
        ip_id if bits & V4 else None,
        bits & columns.DONT_FRAGMENT != 0,
        options,
        options_bytes,
        ts_val if stamped else None,
        ts_ecr if stamped else None,
        sack_right if options & _SACK else None,
        content,
    )
    return _bare(Packet, values)  # past the __new__ of named tuples, which takes a third of the time


def moment(raw: bytes) -> Moment:
    """What was known of one direction."""
    (
        last_ns,
        last_data_ns,
        payload_bytes,
        next_seq,
        last_ack,
        window_bytes,
        sack_right,
        packets,
        data_packets,
        rsts,
        fins,
        ip_id,
        seen,
        ttl,
    ) = columns.MOMENT_LAYOUT.unpack(raw)
    return Moment(
        next_seq=next_seq if seen & Seen.NEXT else None,
        last_ack=last_ack if seen & Seen.ACK else None,
        window_bytes=window_bytes if seen & Seen.WINDOW else None,
        sack_right=sack_right if seen & Seen.SACK else None,
        packets=packets,
        data_packets=data_packets,
        payload_bytes=payload_bytes,
        fin=fins > 0,
        rsts=rsts,
        last_ns=last_ns if packets else None,
        last_data_ns=last_data_ns if seen & Seen.DATA else None,
        ttl=ttl if seen & Seen.ANY else None,
        ip_id=ip_id if seen & Seen.IP_ID else None,
    )


def rst(raw: tuple[Any, ...]) -> Rst:
    """One RST from its unpacked fields."""
    segment, sender, receiver, after_packets, reason, payload_bytes, payload = raw
    return Rst(
        packet(columns.PACKET_LAYOUT.unpack(segment)),
        moment(sender),
        moment(receiver),
        payload[:payload_bytes],
        reason if reason != NO_REASON else None,
        after_packets,
    )


def icmp_error(raw: tuple[Any, ...]) -> IcmpError:
    """One ICMP error from its unpacked fields."""
    time_ns, offset, number, source, mtu, quoted_seq, kind, code, v6, about_client, reporter = raw
    return IcmpError(
        time_ns=time_ns,
        number=number,
        offset=offset if offset != NO_OFFSET else None,
        source=source,
        kind=kind,
        code=code,
        v6=bool(v6),
        reporter=address(reporter),
        mtu=mtu,
        about_client=bool(about_client),
        quoted_seq=quoted_seq,
    )


_ALWAYS, _IF_ANY_PACKET = 1 << 16, 1 << 17
_SIDE_NAMES = [*(name for name, _ in columns.SIDE), "timestamps"]
_KNOWN_IF = {
    "isn": Seen.ISN,
    "mss": Seen.MSS,
    "window_scale": Seen.WINDOW_SCALE,
    "first_seq": Seen.NEXT,
    "next_seq": Seen.NEXT,
    "highest_ack": Seen.ACK,
    "window_bytes": Seen.WINDOW,
    "fin_seq": Seen.FIN,
    "ttl_first": Seen.ANY,
    "ttl_last": Seen.ANY,
    "ttl_min": Seen.ANY,
    "ttl_max": Seen.ANY,
    "ip_id_first": Seen.IP_ID,
    "ip_id_last": Seen.IP_ID,
    "first_ns": _IF_ANY_PACKET,
    "last_ns": _IF_ANY_PACKET,
    "last_data_ns": Seen.DATA,
}
# For each field of Side, in order: where it is among the names, and the bit without which it is None.
_SIDE_PLAN = [
    (_SIDE_NAMES.index(field.name), _KNOWN_IF.get(field.name, _ALWAYS)) for field in dataclasses.fields(Side)
]
_SEEN_AT, _PACKETS_AT = _SIDE_NAMES.index("seen"), _SIDE_NAMES.index("packets")


def side(raw: tuple[Any, ...]) -> Side:
    """One direction from its unpacked fields."""
    seen = raw[_SEEN_AT]
    raw = (*raw, seen & Seen.TIMESTAMPS != 0)
    seen |= _ALWAYS | (_IF_ANY_PACKET if raw[_PACKETS_AT] else 0)
    values: list[Any] = [raw[at] if seen & bit else None for at, bit in _SIDE_PLAN]
    return Side(*values)


_FLOW_NAMES = tuple(name for name, _ in columns.FLOW)


def flow(record: memoryview) -> Flow:
    """One flow with its evidence from its record."""
    _, packets, rsts, icmp_errors, left_out, _ = columns.HEAD_LAYOUT.unpack_from(record)
    at = _HEAD_BYTES
    raw = dict(zip(_FLOW_NAMES, columns.FLOW_LAYOUT.unpack_from(record, at), strict=True))
    sides = [
        side(columns.SIDE_LAYOUT.unpack_from(record, place))
        for place in (at + _SIDE_AT, at + _SIDE_AT + columns.SIDE_LAYOUT.size)
    ]
    at += _ROW_BYTES
    packets_end = at + packets * _PACKET_BYTES
    rsts_end = packets_end + rsts * _RST_BYTES
    icmp_end = rsts_end + icmp_errors * _ICMP_BYTES
    seen = raw["seen"]
    return Flow(
        client=Endpoint(address(raw["client"]), raw["client_port"]),
        server=Endpoint(address(raw["server"]), raw["server_port"]),
        client_by=ClientBy(raw["client_by"]),
        tunnel=Tunnel(raw["tunnel"]),
        tunnel_id=raw["tunnel_id"],
        vlan=raw["vlan"],
        sent_by_client=sides[0],
        sent_by_server=sides[1],
        first_ns=raw["first_ns"],
        last_ns=raw["last_ns"],
        first_number=raw["first_number"],
        source=raw["source"],
        syn_ns=raw["syn_ns"] if seen & SeenTime.SYN else None,
        syn_ack_ns=raw["syn_ack_ns"] if seen & SeenTime.SYN_ACK else None,
        ack_ns=raw["ack_ns"] if seen & SeenTime.ACK else None,
        backwards=raw["backwards"],
        simultaneous=bool(raw["simultaneous"]),
        ended_by=EndedBy(raw["ended_by"]),
        zeek_state=raw["zeek_state"].rstrip(b"\0").decode("ascii"),
        zeek_history=raw["zeek_history"].rstrip(b"\0").decode("ascii"),
        packets=tuple(map(packet, columns.PACKET_LAYOUT.iter_unpack(record[at:packets_end]))),
        packets_left_out=left_out,
        rsts=tuple(map(rst, columns.RST_LAYOUT.iter_unpack(record[packets_end:rsts_end]))),
        icmp_errors=tuple(map(icmp_error, columns.ICMP_LAYOUT.iter_unpack(record[rsts_end:icmp_end]))),
    )
