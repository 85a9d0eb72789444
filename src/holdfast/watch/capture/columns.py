"""The layout of what the parsers give: one row for each connection, and records for those with evidence.

Native byte order, no padding; ``native/capture_facts.h`` names the same fields.
"""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import struct
from typing import Any

SIDE = (
    ("payload_bytes", "Q"),
    ("ip_bytes", "Q"),
    ("first_ns", "q"),
    ("last_ns", "q"),
    ("last_data_ns", "q"),
    ("packets", "I"),
    ("data_packets", "I"),
    ("syns", "I"),
    ("fins", "I"),
    ("rsts", "I"),
    ("retransmits", "I"),
    ("duplicates", "I"),
    ("ahead", "I"),
    ("unseen_bytes", "I"),
    ("keep_alives", "I"),
    ("zero_windows", "I"),
    ("ip_id_zero", "I"),
    ("ip_id_steps", "I"),
    ("dont_fragment", "I"),
    ("isn", "I"),
    ("first_seq", "I"),
    ("next_seq", "I"),
    ("highest_ack", "I"),
    ("window_bytes", "I"),
    ("fin_seq", "I"),
    ("sack_right", "I"),
    ("syn_options", "H"),  # bits of flow.Option
    ("syn_flags", "H"),
    ("syn_window", "H"),
    ("syn_payload_bytes", "H"),
    ("mss", "H"),
    ("ip_id_first", "H"),
    ("ip_id_last", "H"),
    ("seen", "H"),  # bits of Seen: which of the fields above hold something
    ("window_scale", "B"),
    ("ttl_first", "B"),
    ("ttl_last", "B"),
    ("ttl_min", "B"),
    ("ttl_max", "B"),
    ("rst_ttl", "B"),  # of the first RST, 0 without
    ("spare", "6s"),
)

FLOW = (
    ("client", "16s"),  # IPv6, or IPv4 mapped into it
    ("server", "16s"),
    ("client_port", "H"),
    ("server_port", "H"),
    ("client_by", "B"),  # flow.ClientBy
    ("ended_by", "B"),  # flow.EndedBy
    ("tunnel", "B"),  # flow.Tunnel
    ("simultaneous", "B"),
    ("tunnel_id", "I"),
    ("source", "I"),
    ("first_number", "Q"),
    ("first_ns", "q"),
    ("last_ns", "q"),
    ("syn_ns", "q"),
    ("syn_ack_ns", "q"),
    ("ack_ns", "q"),
    ("first_rst_ns", "q"),
    ("backwards", "I"),
    ("vlan", "H"),
    ("seen", "H"),  # bits of SeenTime
    ("zeek_history", "32s"),
    ("zeek_state", "8s"),
)

CONNECTION = (
    *FLOW,
    *((f"client_{name}", kind) for name, kind in SIDE),
    *((f"server_{name}", kind) for name, kind in SIDE),
)
"""Names and kinds of a row; with two exceptions, a ``client_`` or ``server_`` name is about what it sent."""


class Seen:
    """Bits of a side's ``seen``."""

    ISN, NEXT, ACK, WINDOW, FIN, SACK, MSS, WINDOW_SCALE, TIMESTAMPS, IP_ID, DATA, ANY, BEYOND_SYN = (
        1 << bit for bit in range(13)
    )


class SeenTime:
    """Bits of a flow's ``seen``."""

    SYN, SYN_ACK, ACK, RST = (1 << bit for bit in range(4))


def _layout(fields: tuple[tuple[str, str], ...]) -> struct.Struct:
    return struct.Struct("=" + "".join(kind for _, kind in fields))


FLOW_LAYOUT, SIDE_LAYOUT, ROW_LAYOUT = _layout(FLOW), _layout(SIDE), _layout(CONNECTION)
HEAD_LAYOUT = struct.Struct("=6I")  # bytes, packets, RSTs, ICMP errors, packets left out, spare
PACKET_LAYOUT = struct.Struct("=qQQ9I4H4B")
MOMENT_LAYOUT = struct.Struct("=qqQ8I2HB3x")
RST_LAYOUT = struct.Struct("=72s64s64sIHH64s")
ICMP_LAYOUT = struct.Struct("=qQQ3I4B16s")

COUNTS = (
    "packets",
    "bytes",
    "first_ns",
    "last_ns",
    "connections",
    "reset_connections",
    "tcp",
    "not_ip",
    "not_tcp",
    "icmp_errors",
    "fragments",
    "cut",
    "malformed",
    "unknown_link",
    "evicted",
    "without_packets",
    "dropped",
    "drop_reports",
)
COUNTS_LAYOUT = struct.Struct("=QQqq14Q")

NO_OFFSET = 0xFFFFFFFFFFFFFFFF
NO_REASON = 0xFFFF
FROM_CLIENT, V4, DONT_FRAGMENT = 1, 2, 4

_NUMPY_KINDS = {"Q": "u8", "q": "i8", "I": "u4", "H": "u2", "B": "u1"}


def as_array(rows: bytes | memoryview) -> Any:
    """These rows as a numpy structured array; addresses are ``V16``, names ``S``."""
    import numpy as np  # only those who want columns pay for it

    kinds = [
        (name, _NUMPY_KINDS.get(kind) or (f"S{kind[:-1]}" if name.startswith("zeek") else f"V{kind[:-1]}"))
        for name, kind in CONNECTION
    ]
    return np.frombuffer(rows, dtype=np.dtype(kinds))
