"""From the bytes of a pcap or pcapng file to packets, and those to flows."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from holdfast.watch.capture import columns
from holdfast.watch.capture.portable import link
from holdfast.watch.capture.portable.segment import U64, Counts, signed
from holdfast.watch.capture.portable.table import Table

MAX_PACKET_BYTES = 1 << 20
MAX_INTERFACES = 1024
NO_ORIGIN = 65535
"""So many pairs of file and interface are told apart; the next one stands for all further ones."""

NO_LINK = 0xFFFFFFFF
_PIECE_BYTES = 1 << 18
_SECTION, _INTERFACE, _PACKET, _SIMPLE, _STATISTICS, _ENHANCED = 0x0A0D0D0A, 1, 2, 3, 5, 6
_MAGIC = {0xA1B2C3D4: "us", 0xA1B23C4D: "ns", 0xA1B2CD34: "modified"}


class _Broken(Exception):
    """The file stops making sense; the text says how."""


@dataclass(slots=True)
class _Interface:
    link: int
    snap_bytes: int = 0
    resolution: int = 6
    offset_s: int = 0
    dropped: int = 0

    def clock_ns(self, ticks: int) -> int:
        """Ticks in ns, modulo 2^64 where a hostile file overflows it."""
        power = self.resolution & 0x7F
        if self.resolution & 0x80:
            ns = ticks * 10**9 >> power
        elif power <= 9:
            ns = ticks * 10 ** (9 - power)
        else:
            ns = ticks // 10 ** (power - 9)
        return signed((ns & U64) + self.offset_s * 10**9)


class Capture:
    """The compiled ``_native.Capture`` in Python."""

    def __init__(self, max_flows: int, ring_bytes: int, evidence_bytes: int, rows: bool, /) -> None:
        if not 1 <= max_flows <= 1 << 28:
            raise ValueError("max_flows must be from 1 to 2**28")
        self._counts = Counts()
        self._table = Table(self._counts, max_flows, ring_bytes, evidence_bytes, rows)
        self._origin_count = 0
        self._stray = (0, 0)
        self._time_ns = 0
        self._kind = ""

    def begin_file(self, source: int, /) -> None:
        """Expect a file from its first byte."""
        self._source = source
        self._file_origin = self._origin_count
        self._note_origin(0)
        self._kind = ""
        self._order = "<"
        self._link = 0
        self._interfaces: list[_Interface] = []
        self._offset = self._skip = 0
        self._damage: str | None = None
        self._left = bytearray()

    def damaged(self) -> bool:
        """Whether the file stopped making sense."""
        return self._damage is not None

    def feed(self, data: bytes | bytearray | memoryview, /) -> int:
        """Take what is complete; gives how many bytes."""
        view = memoryview(data)
        at = 0
        try:
            if not self._kind:
                at = self._begin(view)
                self._offset += at
                if not self._kind:
                    return at
            while at < len(view):
                taken = self._next(view[at:])
                if not taken:
                    break
                at += taken
                self._offset += taken
        except _Broken as why:
            self._damage = str(why)
        return at

    def read(self, fd: int, most_bytes: int, /) -> int:
        """Read a file on from its descriptor; gives how many bytes were read, 0 at the end."""
        if self._damage is not None:
            return 0
        more = os.read(fd, min(most_bytes, _PIECE_BYTES))
        self._left += more
        del self._left[: self.feed(bytes(self._left))]
        return len(more)

    def end_file(self, left_bytes: int, /) -> tuple[int, str, int] | None:
        """None, or the offset and kind of the damage, and whether it is no capture at all."""
        left_bytes += len(self._left)
        broken = self._damage is not None
        if not broken and not self._kind:
            self._damage = "neither pcap nor pcapng" if left_bytes or self._offset else "an empty file"
        elif self._damage is None and (left_bytes or self._skip):
            self._damage = "the file ends inside a packet"
        if self._damage is None:
            return None
        return self._offset, self._damage, int(not self._kind or (broken and not self._offset))

    def finish(self) -> bool:
        """Give flows that are open, some at a time; whether there are more."""
        return self._table.finish()

    def records(self) -> bytes:
        """Flows with evidence that are complete."""
        return self._table.take_records()

    def rows(self) -> bytes:
        """All flows that are complete."""
        return self._table.take_rows()

    def counts(self) -> bytes:
        """What was counted so far."""
        return columns.COUNTS_LAYOUT.pack(*(getattr(self._counts, name) for name in columns.COUNTS))

    def _note_origin(self, interface: int) -> None:
        """Number this interface of the file; the sections of a file share those of equal index."""
        if self._file_origin + interface == self._origin_count <= NO_ORIGIN:
            if self._origin_count == NO_ORIGIN:
                self._stray = (self._source, interface)
            self._origin_count += 1

    # ---- framing

    def _begin(self, view: memoryview) -> int:
        if len(view) < 4:
            return 0
        for order in "<>":
            (magic,) = struct.unpack_from(f"{order}I", view)
            if magic == _SECTION:
                self._kind = "pcapng"
                return 0
            if magic in _MAGIC:
                if len(view) < 24:
                    return 0
                self._kind, self._order = _MAGIC[magic], order
                self._link = self._u32(view, 20) & 0x0FFFFFFF
                return 24
        raise _Broken("neither pcap nor pcapng")

    def _next(self, view: memoryview) -> int:
        if self._skip:
            taken = min(self._skip, len(view))
            self._skip -= taken
            return taken
        return self._block(view) if self._kind == "pcapng" else self._record(view)

    def _u32(self, view: memoryview, at: int) -> int:
        value: int = struct.unpack_from(f"{self._order}I", view, at)[0]
        return value

    def _u16(self, view: memoryview, at: int) -> int:
        value: int = struct.unpack_from(f"{self._order}H", view, at)[0]
        return value

    def _record(self, view: memoryview) -> int:
        header = 24 if self._kind == "modified" else 16
        if len(view) < header:
            return 0
        seconds, fraction, captured, original = struct.unpack_from(f"{self._order}4I", view)
        if captured > MAX_PACKET_BYTES:
            raise _Broken("a packet of more than 1 MiB")
        if not (seconds or fraction or captured or original):  # a packet of 1970 has a length
            raise _Broken("zeros in place of a packet")
        if len(view) - header < captured:
            return 0
        time_ns = seconds * 10**9 + fraction * (1 if self._kind == "ns" else 1000)
        self._packet(view[header : header + captured], original, time_ns, self._link, 0)
        return int(header + captured)

    def _block(self, view: memoryview) -> int:
        if len(view) < 12:
            return 0
        (kind,) = struct.unpack_from("<I", view)
        if kind == _SECTION:
            self._begin_section(view)
        else:
            kind = self._u32(view, 0)
        length: int = self._u32(view, 4)
        if length < 12 or length % 4:
            raise _Broken("a block with an impossible length")
        if length > MAX_PACKET_BYTES + 4096:
            if kind in (_SECTION, _INTERFACE, _PACKET, _SIMPLE, _ENHANCED):
                raise _Broken("a block of more than 1 MiB")
            taken: int = min(length, len(view))
            self._skip = length - taken
            return taken
        if len(view) < length:
            return 0
        if self._u32(view, length - 4) != length:
            raise _Broken("a block whose two lengths differ")
        self._body(kind, view[8 : length - 4])
        return length

    def _body(self, kind: int, body: memoryview) -> None:
        fine = True
        if kind in (_ENHANCED, _PACKET):
            fine = self._packet_block(kind, body)
        elif kind == _SIMPLE:
            fine = self._simple_block(body)
        elif kind == _INTERFACE:
            self._describe(body)
        elif kind == _STATISTICS:
            self._statistics(body)
        if not fine:
            raise _Broken("a packet block whose lengths contradict")

    def _begin_section(self, view: memoryview) -> None:
        (order,) = struct.unpack_from("<I", view, 8)
        self._order = ">" if order == 0x4D3C2B1A else "<"
        self._interfaces = []
        if order not in (0x4D3C2B1A, 0x1A2B3C4D):
            raise _Broken("a section in no known byte order")

    def _describe(self, body: memoryview) -> None:
        if len(body) < 8 or len(self._interfaces) == MAX_INTERFACES:
            return
        made = _Interface(self._u16(body, 0), self._u32(body, 4))
        self._note_origin(len(self._interfaces))
        self._interfaces.append(made)
        for code, value in self._options(body[8:]):
            if (code, len(value)) == (9, 1):
                made.resolution = value[0]
            if (code, len(value)) == (14, 8):
                (made.offset_s,) = struct.unpack(f"{self._order}q", value)

    def _options(self, area: memoryview) -> Iterator[tuple[int, memoryview]]:
        while len(area) >= 4:
            code, size = self._u16(area, 0), self._u16(area, 2)
            area = area[4:]
            if code == 0 or size > len(area):
                return
            yield code, area[:size]
            area = area[(size + 3) & ~3 :]

    def _statistics(self, body: memoryview) -> None:
        if len(body) < 12 or self._u32(body, 0) >= len(self._interfaces):
            return
        said = [value for code, value in self._options(body[12:]) if code in (5, 7) and len(value) == 8]
        if not said:
            return
        of = self._interfaces[self._u32(body, 0)]
        dropped = sum(struct.unpack(f"{self._order}Q", value)[0] for value in said) & U64
        self._counts.dropped = (self._counts.dropped + dropped - of.dropped) & U64
        of.dropped = dropped
        self._counts.drop_reports += 1

    def _packet_block(self, kind: int, body: memoryview) -> bool:
        if len(body) < 20:
            return False
        index = self._u16(body, 0) if kind == _PACKET else self._u32(body, 0)
        ticks = self._u32(body, 4) << 32 | self._u32(body, 8)
        captured = self._u32(body, 12)
        if captured > len(body) - 20:
            return False
        known = index < len(self._interfaces)
        of = self._interfaces[index] if known else _Interface(NO_LINK)
        data = body[20 : 20 + captured]
        self._packet(data, self._u32(body, 16), of.clock_ns(ticks), of.link, index if known else 0)
        return True

    def _simple_block(self, body: memoryview) -> bool:
        if len(body) < 4 or not self._interfaces:
            return False
        original = self._u32(body, 0)
        captured = min(len(body) - 4, original, self._interfaces[0].snap_bytes or original)
        # A simple packet has no time: it gets that of the packet before it.
        self._packet(body[4 : 4 + captured], original, self._time_ns, self._interfaces[0].link, 0)
        return True

    def _packet(self, data: memoryview, original: int, time_ns: int, link_type: int, index: int) -> None:
        counts = self._counts
        original = max(original, len(data))
        if not counts.packets:
            counts.first_ns = counts.last_ns = time_ns
        counts.packets += 1
        counts.first_ns = min(counts.first_ns, time_ns)
        counts.last_ns = max(counts.last_ns, time_ns)
        counts.bytes += original
        self._time_ns = time_ns
        placed = self._file_origin + index < NO_ORIGIN
        counts.unplaced += not placed
        origin = (self._source, index) if placed else self._stray
        frame = link.Frame(time_ns, self._offset, counts.packets, origin)
        seg = link.walk(counts, link_type, frame, bytes(data), original)
        if seg is not None:
            self._table.take(seg)
