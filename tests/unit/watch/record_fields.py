"""One ring-buffer record by hand: every field of ``struct event`` in C's order, each with a value of its own.

The unit test packs it as the table says; the kernel test has the C compiler store the same values by name.
"""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import struct
from ipaddress import ip_address
from typing import NamedTuple

from holdfast.events import Earlier, Endpoint, Event, Harm, Kind, Process, Segment
from holdfast.watch.kernel.wire import Names, Shape

TICK_NS = 4_000_000
NAMES = Names(
    reasons={15: "TCP_KEEPALIVE_TIMEOUT"},
    tick_ns=TICK_NS,
    kernel_symbol=lambda address: f"k{address}",
    user_symbol=lambda pid, address: f"{pid}+{address}",
)

SHAPE = Shape.PROVOKED | Shape.ACK | Shape.DATA | Shape.SOCKET | Shape.LINGER_ZERO | Shape.OWNED
SHAPE |= Shape.SHUTDOWN | Shape.EARLIER | Shape.EARLIER_IDLE | Shape.UNACKED | Shape.ESTABLISHED


class Field(NamedTuple):
    """A leaf of ``struct event``: its C name, the letter of its type for ``struct``, its value."""

    name: str
    letter: str
    value: int | bytes


def _ip(text: str) -> bytes:
    address = ip_address(text)
    return address.packed if address.version == 6 else bytes(10) + b"\xff\xff" + address.packed


def _process(name: str, pid: int, comm: bytes) -> list[Field]:
    return [
        Field(f"{name}.pid", "I", pid),
        Field(f"{name}.uid", "I", pid + 1),
        Field(f"{name}.cgroup_id", "Q", pid + 2),
        Field(f"{name}.comm", "16s", comm),
    ]


FIELDS = [
    Field("key.netns", "I", 4_026_532_001),
    Field("key.shape", "I", SHAPE),
    Field("key.kind", "B", 1),
    Field("key.state", "B", 7),
    Field("key.state_before", "B", 1),
    Field("key.family", "B", 4),
    Field("key.reason", "h", 15),
    Field("key.error", "H", 110),
    Field("mono_ns", "Q", 9_000_000_000),
    Field("cookie", "Q", 1 << 40),
    Field("local", "16s", _ip("192.0.2.1")),
    Field("peer", "16s", _ip("2001:db8::2")),
    Field("local_port", "H", 443),
    Field("peer_port", "H", 51_000),
    Field("abi", "B", 2),
    Field("shutdown", "B", 3),
    Field("retransmits", "B", 4),
    Field("probes", "B", 5),
    *_process("opener", 1001, b"opener"),
    *_process("closer", 2001, b"sixteen-bytes-15"),
    Field("opened_ns", "Q", 1_000_000_000),
    Field("established_ns", "Q", 2_000_000_000),
    Field("bytes_sent", "Q", 31_001),
    Field("bytes_received", "Q", 31_002),
    Field("srtt_us", "I", 32_001),
    Field("min_rtt_us", "I", 32_002),
    Field("send_ago_ticks", "I", 32_003),
    Field("receive_ago_ticks", "I", 32_004),
    Field("unread_bytes", "I", 33_001),
    Field("unsent_bytes", "I", 33_002),
    Field("unacked_bytes", "I", 33_003),
    Field("user_timeout_ms", "I", 33_004),
    Field("rcv_nxt", "I", 34_001),
    Field("rcv_wnd", "I", 34_002),
    Field("snd_una", "I", 34_003),
    Field("snd_nxt", "I", 34_004),
    Field("baseline_ttl", "B", 61),
    Field("pad", "3s", b""),
    Field("drop_reason", "I", 35_001),
    Field("segment.seq", "I", 36_001),
    Field("segment.ack", "I", 36_002),
    Field("segment.window", "H", 36_003),
    Field("segment.ip_id", "H", 36_004),
    Field("segment.payload_bytes", "H", 5),
    Field("segment.flags", "B", 0x18),
    Field("segment.ttl", "B", 62),
    Field("segment.options_bytes", "B", 12),
    Field("segment.has_timestamp", "B", 1),
    Field("segment.version", "B", 4),
    Field("segment.pad", "5s", b""),
    Field("segment.payload", "32s", b"hello, and junk behind"),
    Field("earlier.closed_ns", "Q", 8_500_000_000),
    *_process("earlier.owner", 3001, b"earlier"),
    *_process("earlier.opener", 4001, b"earlier-opener"),
    Field("earlier.bytes_sent", "Q", 37_001),
    Field("earlier.bytes_received", "Q", 37_002),
    Field("earlier.idle_ticks", "I", 37_003),
    Field("earlier.error", "H", 104),
    Field("earlier.state_before", "B", 9),
    Field("earlier.exiting", "B", 1),
    *(Field(f"kernel_stack[{n}]", "Q", 0 if n == 13 else 41_000 + n) for n in range(14)),
    *(Field(f"user_stack[{n}]", "Q", 0 if n == 7 else 42_000 + n) for n in range(8)),
]

EVENT = Event(
    kind=Kind.RESET_SENT,
    mono_ns=9_000_000_000,
    local=Endpoint("192.0.2.1", 443),
    peer=Endpoint("2001:db8::2", 51_000),
    cookie=1 << 40,
    netns=4_026_532_001,
    reason="TCP_KEEPALIVE_TIMEOUT",
    state="CLOSED",
    state_before="ESTABLISHED",
    error=110,
    segment=Segment(
        flags=0x18,
        seq=36_001,
        ack=36_002,
        window=36_003,
        ttl=62,
        ip_id=36_004,
        options_bytes=12,
        has_timestamp=True,
        payload_bytes=5,
        payload=b"hello",
    ),
    opener=Process(1001, "opener", 1002, 1003),
    closer=Process(2001, "sixteen-bytes-15", 2002, 2003),
    baseline_ttl=61,
    rtt_us=32_001,
    min_rtt_us=32_002,
    lifetime_ns=7_000_000_000,
    send_ago_ns=32_003 * TICK_NS,
    receive_ago_ns=32_004 * TICK_NS,
    bytes_sent=31_001,
    bytes_received=31_002,
    harm=Harm(unread_bytes=33_001, unsent_bytes=33_002, unacked_bytes=33_003),
    rcv_nxt=34_001,
    rcv_wnd=34_002,
    snd_una=34_003,
    snd_nxt=34_004,
    shutdown=3,
    linger_zero=True,
    linger2_negative=False,
    orphaned=False,
    unaccepted=False,
    in_process=True,
    exiting=False,
    established=True,
    closing=True,
    user_timeout=False,
    unacked=True,
    in_window=None,
    exact=None,
    user_timeout_ms=33_004,
    retransmits=4,
    probes=5,
    forwarded=None,
    mptcp=False,
    kernel_stack=tuple(f"k{41_000 + n}" for n in range(13)),
    user_stack=tuple(f"2001+{42_000 + n}" for n in range(7)),
    earlier=Earlier(
        closed_ns_ago=500_000_000,
        owner=Process(3001, "earlier", 3002, 3003),
        opener=Process(4001, "earlier-opener", 4002, 4003),
        state_before="LAST_ACK",
        bytes_sent=37_001,
        bytes_received=37_002,
        idle_ns=37_003 * TICK_NS,
        error=104,
        served=False,
        was_idle=True,
        exiting=True,
    ),
)
"""What the record means."""


def packed(**differs: int | bytes) -> bytes:
    """The record, as C lays it out without a hole; names as in C, with ``_`` for ``.`` and brackets."""
    values = [
        differs.pop(field.name.replace(".", "_").replace("[", "_").rstrip("]"), field.value)
        for field in FIELDS
    ]
    assert not differs, f"no such field: {differs}"
    return struct.pack("<" + "".join(field.letter for field in FIELDS), *values)
