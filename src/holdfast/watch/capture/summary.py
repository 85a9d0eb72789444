"""What is told of a capture as a whole, while it is read and when it has been."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Damage:
    """Where a file stopped making sense; everything before it was read.

    Attributes:
        path: as given. offset: in the decompressed bytes. what: in words.
    """

    path: str
    offset: int
    what: str


@dataclass(frozen=True, slots=True)
class Progress:
    """How far reading is.

    Attributes:
        path: the file being read. read_bytes, total_bytes: of all files as they lie on disk (compressed);
            total_bytes is None if it cannot be known (standard input, a live interface).
        packets: so far. connections: so far.
    """

    path: str
    read_bytes: int
    total_bytes: int | None
    packets: int
    connections: int


@dataclass(frozen=True, slots=True)
class Summary:
    """The capture as a whole; every packet is in exactly one of the counts from ``tcp`` on.

    Attributes:
        packets: records read. bytes: their length on the wire. first_ns, last_ns: None if there was none.
        connections: flows seen. reset_connections: with at least one RST.
        tcp: segments that belong to a flow. not_ip, not_tcp: other traffic. icmp_errors: that quote TCP.
        fragments: IP fragments that are not the first (they carry no TCP header; nothing is reassembled).
        cut: captured too short to show a TCP header (snap length). malformed: lengths that contradict.
        unknown_link: link types we cannot read.
        evicted: open flows given up early for want of room (their later packets began new ones).
        hurried: closed flows given before they had been silent for 10 s, for want of room for evidence. All
            that they had shown is told; only a packet that came later than that is missing from them, and
            counts as a flow of its own.
        without_packets: flows that kept fewer than RING_PACKETS packets because memory was at its bound.
        unplaced: packets from files or interfaces after the first 65,535 of a reading: their ``source`` and
            ``interface`` are those of the first of them.
        dropped: packets that the kernel dropped before a live capture saw them; None for a file that
            does not say.
        damage: where files were cut or damaged. stopped: reading was stopped before the end.
        repeated: files that were named again, and read once. overlapping: files that begin well before the
            one that was read before them ends, so that segments stand in the wrong order or twice.
    """

    packets: int
    bytes: int
    first_ns: int | None
    last_ns: int | None
    connections: int
    reset_connections: int
    tcp: int
    not_ip: int
    not_tcp: int
    icmp_errors: int
    fragments: int
    cut: int
    malformed: int
    unknown_link: int
    evicted: int
    hurried: int
    without_packets: int
    unplaced: int
    dropped: int | None
    damage: tuple[Damage, ...]
    stopped: bool
    repeated: tuple[str, ...] = ()
    overlapping: tuple[str, ...] = ()
