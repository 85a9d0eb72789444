"""Capture files of raw IP datagrams."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import struct
from collections.abc import Iterable

LINKTYPE_RAW, SNAP_BYTES, MAGIC_NS = 101, 65535, 0xA1B23C4D


def pcap(datagrams: Iterable[tuple[int, bytes]]) -> bytes:
    """A pcap file with nanoseconds, in the order given.

    Args:
        datagrams: when each was seen (nanoseconds since 1970), and its bytes, which may be cut short.
    """
    made = [struct.pack("<IHHiIII", MAGIC_NS, 2, 4, 0, 0, SNAP_BYTES, LINKTYPE_RAW)]
    for time_ns, data in datagrams:
        seconds, rest_ns = divmod(time_ns, 1_000_000_000)
        made += (struct.pack("<IIII", seconds, rest_ns, len(data), _length(data)), data)
    return b"".join(made)


def _length(data: bytes) -> int:
    """What the IP header says, else what there is."""
    version = data[0] >> 4 if data else 0
    told = 0
    if version == 4 and len(data) >= 20:
        told = struct.unpack_from("!H", data, 2)[0]
    elif version == 6 and len(data) >= 40:
        told = 40 + struct.unpack_from("!H", data, 4)[0]
    return max(told, len(data))
