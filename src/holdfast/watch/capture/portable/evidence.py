"""What is kept of a flow with a RST or an ICMP error; ``native/capture_evidence.c`` says the same in C."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from holdfast.watch.capture.flow import (
    AFTER_RST_PACKETS,
    MAX_ICMP_ERRORS,
    MAX_PACKETS,
    MAX_RSTS,
    RST_PAYLOAD_BYTES,
)
from holdfast.watch.capture.portable.segment import Segment

# What each takes in the compiled parser, so that both reach the bound at the same packet.
_BYTES, _PACKET_BYTES, _RST_BYTES, _ICMP_BYTES = 48, 64, 264, 56


@dataclass(slots=True)
class KeptRst:
    """A RST with what was known when it came."""

    packet: Segment
    place: int
    moments: tuple[bytes, bytes]  # by end of the key
    others_before: int


@dataclass(slots=True)
class Evidence:
    """What only a flow with a RST or an ICMP error has."""

    packets: list[tuple[int, Segment]] = field(default_factory=list)
    left_out: int = 0
    next_place: int = 0
    after_left: int = 0
    rsts: list[KeptRst] = field(default_factory=list)
    icmp: list[Segment] = field(default_factory=list)

    @property
    def size_bytes(self) -> int:
        """What it takes; room is made in powers of two."""
        return (
            _BYTES
            + _room(len(self.packets)) * _PACKET_BYTES
            + _room(len(self.rsts)) * _RST_BYTES
            + _room(len(self.icmp)) * _ICMP_BYTES
        )

    def add_rst(self, seg: Segment, place: int, moments: tuple[bytes, bytes], others_before: int) -> None:
        """Note what was known when this RST came; it is not counted yet."""
        if len(self.rsts) < MAX_RSTS:
            seg.kept = seg.payload[:RST_PAYLOAD_BYTES]
            self.rsts.append(KeptRst(seg, place, moments, others_before))

    def add_icmp(self, seg: Segment) -> bool:
        """Keep an ICMP error that quotes a segment; whether there was room for it.

        It is worth the packets around it as much as a RST is.
        """
        if len(self.icmp) == MAX_ICMP_ERRORS:
            return False
        self.icmp.append(seg)
        self.after_left = AFTER_RST_PACKETS
        return True

    def follows(self, rst: bool) -> bool:
        """Whether the packet that came now is a RST or one of those that follow one."""
        if rst:
            self.after_left = AFTER_RST_PACKETS + 1
        wanted = self.after_left > 0
        self.after_left -= wanted
        return wanted

    def keep(self, last: int, ring: Collection[Segment]) -> None:
        """Keep what a ring remembers and is not kept yet; ``last`` is the place of the last packet in it."""
        for place, seg in enumerate(ring, last + 1 - len(ring)):
            if place < self.next_place:
                continue
            if len(self.packets) == MAX_PACKETS:
                self.left_out += 1
            else:
                self.packets.append((place, seg))
        self.next_place = last + 1


def _room(count: int) -> int:
    return 1 << (count - 1).bit_length() if count else 0
