"""From the bytes that a parser gives to facts."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import functools
import ipaddress
from collections.abc import Callable, Iterator, Mapping, Sequence
from operator import itemgetter
from typing import Any

from holdfast.events import Endpoint
from holdfast.watch.capture import columns
from holdfast.watch.capture.columns import (
    DONT_FRAGMENT,
    FROM_CLIENT,
    NO_OFFSET,
    NO_REASON,
    V4,
    Seen,
    SeenTime,
)
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
_TIMESTAMP, _SACK = int(Option.TIMESTAMP), int(Option.SACK)
_SIDE_AT, _SIDE_BYTES = columns.FLOW_LAYOUT.size, columns.SIDE_LAYOUT.size
_ROW_BYTES = columns.ROW_LAYOUT.size
_HEAD_BYTES = columns.HEAD_LAYOUT.size
_PACKET_BYTES = columns.PACKET_LAYOUT.size
_RST_BYTES = columns.RST_LAYOUT.size
_ICMP_BYTES = columns.ICMP_LAYOUT.size


@functools.lru_cache(maxsize=4096)
def address(raw: bytes) -> str:
    """The text of an address; one that is mapped into IPv6 as IPv4."""
    if raw.startswith(_MAPPED):
        return "{}.{}.{}.{}".format(*raw[12:])
    return str(ipaddress.IPv6Address(raw))


def split(records: bytes) -> Iterator[memoryview]:
    """Each record apart."""
    at, whole = 0, memoryview(records)
    while at < len(whole):
        (length,) = columns.HEAD_LAYOUT.unpack_from(whole, at)[:1]
        yield whole[at : at + length]
        at += length


_PACKET_NAMES = (
    *("time_ns", "offset", "number", "source", "interface", "place", "seq", "ack", "payload_bytes"),
    *("ts_val", "ts_ecr", "sack_right", "window", "flags", "ip_id", "options", "ttl", "options_bytes"),
    *("payload_content", "bits"),
)
"""The fields of ``PACKET_LAYOUT``."""

_OPTIONS_AT, _BITS_AT, _OFFSET_AT = map(_PACKET_NAMES.index, ("options", "bits", "offset"))
_CONSTANTS = (None, False, True)
_NONE, _FALSE, _TRUE = range(-3, 0)
"""Where these stand behind the fields."""


def _pick_of(kind: int) -> Callable[[tuple[Any, ...]], tuple[Any, ...]]:
    """What puts the fields of such a packet, and ``_CONSTANTS`` behind them, into the order of Packet."""
    places = {name: at for at, name in enumerate(_PACKET_NAMES)}
    places["from_client"] = _TRUE if kind & FROM_CLIENT else _FALSE
    places["dont_fragment"] = _TRUE if kind & DONT_FRAGMENT else _FALSE
    if kind & _LIVE:
        places["offset"] = _NONE
    if not kind & V4:
        places["ip_id"] = _NONE
    if not kind & _TIMESTAMP:
        places["ts_val"] = places["ts_ecr"] = _NONE
    if not kind & _SACK:
        places["sack_right"] = _NONE
    return itemgetter(*(places[name] for name in Packet._fields))


# A capture has few kinds of packets and very many packets: what each kind lacks is found out once.
_KIND_BITS, _KIND_OPTIONS, _LIVE = FROM_CLIENT | V4 | DONT_FRAGMENT, _TIMESTAMP | _SACK, 32
_PICKS = [_pick_of(kind) for kind in range(_LIVE * 2)]


def packets(raw: memoryview | bytes) -> Iterator[Packet]:
    """The packets that lie here side by side."""
    for fields in columns.PACKET_LAYOUT.iter_unpack(raw):
        kind = fields[_OPTIONS_AT] & _KIND_OPTIONS | fields[_BITS_AT] & _KIND_BITS
        if fields[_OFFSET_AT] == NO_OFFSET:
            kind |= _LIVE
        # Packet._make() would check the length of each, which its layout gives.
        yield tuple.__new__(Packet, _PICKS[kind](fields + _CONSTANTS))


_ALWAYS, _IF_ANY_PACKET = 1 << 16, 1 << 17


def _plan(
    fields: Sequence[str], names: Sequence[str], known_if: Mapping[str, int]
) -> Callable[[int], Callable[[tuple[Any, ...]], Any]]:
    """For what is ``seen``, what puts ``names`` and None behind them into the order of ``fields``.

    ``known_if``: the bit without which a field is None.
    """

    @functools.lru_cache(maxsize=1024)
    def pick_of(seen: int) -> Callable[[tuple[Any, ...]], Any]:
        places = [names.index(name) if seen & known_if.get(name, _ALWAYS) else -1 for name in fields]
        return itemgetter(*places)

    return pick_of


_MOMENT_NAMES = (
    *("last_ns", "last_data_ns", "payload_bytes", "next_seq", "last_ack", "window_bytes", "sack_right"),
    *("packets", "data_packets", "rsts", "fins", "ip_id", "seen", "ttl", "fin"),
)
_moment_plan = _plan(
    Moment._fields,
    _MOMENT_NAMES,
    {
        "next_seq": Seen.NEXT,
        "last_ack": Seen.ACK,
        "window_bytes": Seen.WINDOW,
        "sack_right": Seen.SACK,
        "last_ns": _IF_ANY_PACKET,
        "last_data_ns": Seen.DATA,
        "ttl": Seen.ANY,
        "ip_id": Seen.IP_ID,
    },
)
_MOMENT_SEEN_AT, _MOMENT_PACKETS_AT, _MOMENT_FINS_AT = map(_MOMENT_NAMES.index, ("seen", "packets", "fins"))


def moment(raw: bytes) -> Moment:
    """What was known of one direction."""
    fields = columns.MOMENT_LAYOUT.unpack(raw)
    seen = fields[_MOMENT_SEEN_AT] | (_ALWAYS | _IF_ANY_PACKET if fields[_MOMENT_PACKETS_AT] else _ALWAYS)
    return Moment._make(_moment_plan(seen)((*fields, fields[_MOMENT_FINS_AT] > 0, None)))


def rst(raw: tuple[Any, ...]) -> Rst:
    """One RST from its unpacked fields."""
    segment, sender, receiver, after_packets, reason, payload_bytes, payload = raw
    return Rst(
        next(packets(segment)),
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


_SIDE_NAMES = (*(name for name, _ in columns.SIDE), "timestamps")
_side_plan = _plan(
    Side._fields,
    _SIDE_NAMES,
    {
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
    },
)
_SEEN_AT, _PACKETS_AT = _SIDE_NAMES.index("seen"), _SIDE_NAMES.index("packets")


def side(raw: tuple[Any, ...]) -> Side:
    """One direction from its unpacked fields."""
    seen = raw[_SEEN_AT]
    known = seen | (_ALWAYS | _IF_ANY_PACKET if raw[_PACKETS_AT] else _ALWAYS)
    return Side._make(_side_plan(known)((*raw, seen & Seen.TIMESTAMPS != 0, None)))


# Looking a member up is quicker than asking its class for it.
_CLIENT_BY = {int(one): one for one in ClientBy}
_TUNNEL = {int(one): one for one in Tunnel}
_ENDED_BY = {int(one): one for one in EndedBy}


def flow(record: memoryview) -> Flow:
    """One flow with its evidence from its record."""
    _, packet_count, rst_count, icmp_count, left_out, _ = columns.HEAD_LAYOUT.unpack_from(record)
    at = _HEAD_BYTES
    (
        client,
        server,
        client_port,
        server_port,
        client_by,
        ended_by,
        tunnel,
        simultaneous,
        tunnel_id,
        source,
        first_number,
        first_ns,
        last_ns,
        syn_ns,
        syn_ack_ns,
        ack_ns,
        _,
        backwards,
        vlan,
        seen,
        zeek_history,
        zeek_state,
    ) = columns.FLOW_LAYOUT.unpack_from(record, at)
    sent_by_client = side(columns.SIDE_LAYOUT.unpack_from(record, at + _SIDE_AT))
    sent_by_server = side(columns.SIDE_LAYOUT.unpack_from(record, at + _SIDE_AT + _SIDE_BYTES))
    at += _ROW_BYTES
    packets_end = at + packet_count * _PACKET_BYTES
    rsts_end = packets_end + rst_count * _RST_BYTES
    icmp_end = rsts_end + icmp_count * _ICMP_BYTES
    return Flow(
        client=Endpoint(address(client), client_port),
        server=Endpoint(address(server), server_port),
        client_by=_CLIENT_BY[client_by],
        tunnel=_TUNNEL[tunnel],
        tunnel_id=tunnel_id,
        vlan=vlan,
        sent_by_client=sent_by_client,
        sent_by_server=sent_by_server,
        first_ns=first_ns,
        last_ns=last_ns,
        first_number=first_number,
        source=source,
        syn_ns=syn_ns if seen & SeenTime.SYN else None,
        syn_ack_ns=syn_ack_ns if seen & SeenTime.SYN_ACK else None,
        ack_ns=ack_ns if seen & SeenTime.ACK else None,
        backwards=backwards,
        simultaneous=bool(simultaneous),
        ended_by=_ENDED_BY[ended_by],
        zeek_state=zeek_state.rstrip(b"\0").decode("ascii"),
        zeek_history=zeek_history.rstrip(b"\0").decode("ascii"),
        packets=tuple(packets(record[at:packets_end])),
        packets_left_out=left_out,
        rsts=tuple(map(rst, columns.RST_LAYOUT.iter_unpack(record[packets_end:rsts_end]))),
        icmp_errors=tuple(map(icmp_error, columns.ICMP_LAYOUT.iter_unpack(record[rsts_end:icmp_end]))),
    )
