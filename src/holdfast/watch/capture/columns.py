"""The layout of the columns: one row for each connection of a capture, reset or not."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

SIDE_COLUMNS = (
    ("payload_bytes", "<u8"),
    ("last_data_ns", "<i8"),  # 0 without data
    ("packets", "<u4"),
    ("data_packets", "<u4"),
    ("syns", "<u4"),
    ("fins", "<u4"),
    ("rsts", "<u4"),
    ("retransmits", "<u4"),
    ("unseen_bytes", "<u4"),
    ("ip_id_zero", "<u4"),
    ("ip_id_steps", "<u4"),
    ("isn", "<u4"),
    ("syn_options", "<u2"),  # bits of flow.Option
    ("syn_flags", "<u2"),
    ("ip_id_last", "<u2"),
    ("ttl_first", "u1"),  # 0 without a segment that was no RST
    ("ttl_min", "u1"),
    ("ttl_max", "u1"),
    ("rst_ttl", "u1"),  # of the first RST, 0 without
    ("pad", "<u2"),
)

CONNECTION = (
    ("client", "V16"),  # IPv6, or IPv4 mapped into it
    ("server", "V16"),
    ("client_port", "<u2"),
    ("server_port", "<u2"),
    ("client_by", "u1"),  # flow.ClientBy
    ("ended_by", "u1"),  # flow.EndedBy
    ("tunnel", "u1"),  # flow.Tunnel
    ("zeek_states", "u1"),  # client's in the low four bits, server's in the high ones
    ("tunnel_id", "<u4"),
    ("source", "<u4"),
    ("first_number", "<u8"),
    ("first_ns", "<i8"),
    ("last_ns", "<i8"),
    ("syn_ns", "<i8"),  # 0 without
    ("syn_ack_ns", "<i8"),
    ("ack_ns", "<i8"),
    ("first_rst_ns", "<i8"),
    *((f"client_{name}", kind) for name, kind in SIDE_COLUMNS),
    *((f"server_{name}", kind) for name, kind in SIDE_COLUMNS),
)
"""Names and numpy kinds; ``numpy.dtype(list(CONNECTION))``. Packed, little-endian."""
