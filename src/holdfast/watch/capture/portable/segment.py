"""One segment on its way from the wire to its flow."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

U32 = 0xFFFFFFFF
U64 = 0xFFFFFFFFFFFFFFFF


class Key(NamedTuple):
    """The two ends in a fixed order, so that both directions have one key; and the tunnel's id."""

    ends: tuple[tuple[bytes, int], tuple[bytes, int]]
    tunnel_id: int


def signed(value: int, bits: int = 64) -> int:
    """The number that these bits are in two's complement."""
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> (bits - 1) else value


def after(a: int, b: int) -> bool:
    """Whether ``a`` follows ``b`` in the serial arithmetic of TCP."""
    return signed(a - b, 32) > 0


@dataclass(slots=True)
class Segment:
    """A TCP segment, or an ICMP error that quotes one (then ``icmp_kind`` is not 0)."""

    key: Key
    sender: int  # which end of the key
    time_ns: int
    offset: int
    number: int
    origin: tuple[int, int]  # index of the file, index of the interface in it
    ttl: int
    ip_id: int
    ip_bytes: int
    v4: bool
    dont_fragment: bool
    vlan: int
    tunnel: int
    seq: int
    ack: int = 0
    flags: int = 0
    window: int = 0
    payload_bytes: int = 0
    options: int = 0
    options_bytes: int = 0
    mss: int = 0
    window_scale: int = 0
    ts_val: int = 0
    ts_ecr: int = 0
    sack_right: int = 0
    mptcp_reason: int = 0
    content: int = 0
    payload: bytes = b""
    icmp_kind: int = 0
    icmp_code: int = 0
    mtu: int = 0
    reporter: bytes = b""
    kept: bytes = field(default=b"", init=False)


@dataclass(slots=True)
class Counts:
    """What is counted of a whole capture; the names of :data:`columns.COUNTS`."""

    packets: int = 0
    bytes: int = 0
    first_ns: int = 0
    last_ns: int = 0
    connections: int = 0
    reset_connections: int = 0
    tcp: int = 0
    not_ip: int = 0
    not_tcp: int = 0
    icmp_errors: int = 0
    fragments: int = 0
    cut: int = 0
    malformed: int = 0
    unknown_link: int = 0
    evicted: int = 0
    hurried: int = 0
    without_packets: int = 0
    unplaced: int = 0
    dropped: int = 0
    drop_reports: int = 0
