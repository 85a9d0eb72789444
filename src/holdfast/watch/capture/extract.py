"""Copies the packets of some connections out of captures, byte for byte."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import re
import struct
from collections.abc import Callable, Collection, Iterator, Sequence
from ipaddress import ip_address
from pathlib import Path

from holdfast.errors import UsageError
from holdfast.events import Endpoint
from holdfast.watch.capture import stream
from holdfast.watch.capture.read import each_once

_PCAP = {b"\xd4\xc3\xb2\xa1": "<", b"\x4d\x3c\xb2\xa1": "<", b"\x34\xcd\xb2\xa1": "<",
         b"\xa1\xb2\xc3\xd4": ">", b"\xa1\xb2\x3c\x4d": ">", b"\xa1\xb2\xcd\x34": ">"}  # fmt: skip
_MODIFIED = (b"\x34\xcd\xb2\xa1", b"\xa1\xb2\xcd\x34")
_SECTION = b"\x0a\x0d\x0d\x0a"
_PACKET_BLOCKS = (2, 3, 6)  # obsolete, simple, enhanced
_SHORT_BLOCKS = (0x0A0D0D0A, 1, *_PACKET_BLOCKS)
_LONGEST_BYTES = 1 << 20
_LONGEST_BLOCK_BYTES = _LONGEST_BYTES + 4096
"""Longer ones are left out, unless it is damage: as the parser has it."""

_CHUNK_BYTES = 1 << 20
_HEAD_BYTES = 256
"""A packet's addresses and ports are looked for so far in, which any stack of tunnels fits."""

_FEW = 40
"""An expression tries its alternatives one after the other: for more of them a set is quicker."""

Ends = tuple[Endpoint, Endpoint]


def extract(paths: Sequence[str], target: str, wanted: Collection[Ends]) -> int:
    """Write the packets of these connections, both ways, and ICMP errors that quote them; gives how many.

    The addresses and ports are looked for as they stand in a header, side by side, whatever lies around
    them: so it works for every link type and in tunnels, and misses segments with IP options or IPv6
    extension headers.

    Raises:
        UsageError: the target cannot be written, or the captures are of different kinds.
    """
    has = _finder({one for ends in wanted for one in _sides(ends)})
    count, kind = 0, None
    try:
        with Path(target).open("wb") as out:
            for path in each_once(paths)[0]:
                head, records = _records(path)
                if kind is None:
                    out.write(head)
                elif kind != head and not (kind.startswith(_SECTION) and head.startswith(_SECTION)):
                    raise UsageError(
                        f"{path} is of another kind than the captures before it: extract it alone."
                    )
                elif head.startswith(_SECTION):
                    out.write(head)
                kind = kind or head
                for frame, record in records:
                    if frame is None or has(frame):
                        out.write(record)
                        count += frame is not None
    except OSError as error:
        raise UsageError(f"{target} cannot be written ({error.strerror}).") from error
    return count


def _finder(heads: Collection[bytes]) -> Callable[[bytes], bool]:
    """Whether a packet has one of these in its head; quick for few and for many of them."""
    if len(heads) <= _FEW:
        pattern = re.compile(b"|".join(map(re.escape, sorted(heads))) or b"(?!)", re.DOTALL)
        return lambda frame: pattern.search(frame, 0, _HEAD_BYTES) is not None
    sizes = sorted({len(one) for one in heads})
    return lambda frame: any(
        frame[at : at + size] in heads
        for size in sizes
        for at in range(min(len(frame), _HEAD_BYTES) - size + 1)
    )


def _sides(ends: Ends) -> tuple[bytes, bytes]:
    packed = [(ip_address(end.ip).packed, struct.pack("!H", end.port)) for end in ends]
    (here, port), (there, other_port) = packed
    return here + there + port + other_port, there + here + other_port + port


class _Pieces:
    """A decompressed file, a given number of bytes at a time."""

    def __init__(self, path: str) -> None:
        self._stream, _ = stream.decompressed(stream.RawFile(path))
        self._kept = bytearray()
        self._into = memoryview(bytearray(_CHUNK_BYTES))

    def take(self, size: int) -> bytes:
        """So many bytes; fewer at the end, or where the file breaks."""
        while len(self._kept) < size:
            try:
                count = self._stream.readinto(self._into)
            except stream.errors():
                break
            if count == 0:
                break
            self._kept += self._into[: count or 0]
        taken = bytes(self._kept[:size])
        del self._kept[:size]
        return taken

    def skip(self, size: int) -> bool:
        """Leave so many bytes out; whether they were there."""
        while size:
            gone = len(self.take(min(size, _CHUNK_BYTES)))
            if not gone:
                return False
            size -= gone
        return True


def _records(path: str) -> tuple[bytes, Iterator[tuple[bytes | None, bytes]]]:
    """What the file begins with, and each further record: its packet (None if it is none) and its bytes."""
    pieces = _Pieces(path)
    magic = pieces.take(4)
    if magic in _PCAP:
        return magic + pieces.take(20), _pcap(pieces, _PCAP[magic], 24 if magic in _MODIFIED else 16)
    blocks = _blocks(pieces, magic)
    first = next(blocks, (None, b""))
    return first[1], blocks


def _pcap(pieces: _Pieces, order: str, head_bytes: int) -> Iterator[tuple[bytes | None, bytes]]:
    length = struct.Struct(f"{order}8xI")
    while len(head := pieces.take(head_bytes)) == head_bytes:
        (size,) = length.unpack_from(head)
        data = pieces.take(size) if size <= _LONGEST_BYTES else b""
        if len(data) != size or not any(head[:16]):  # the same damage as for the parser
            return
        yield data, head + data


def _blocks(pieces: _Pieces, magic: bytes) -> Iterator[tuple[bytes | None, bytes]]:
    order, head = "<", magic + pieces.take(4)
    while len(head) == 8:
        if head.startswith(_SECTION):
            mark = pieces.take(4)
            order = "<" if mark == b"\x4d\x3c\x2b\x1a" else ">"
        else:
            mark = b""
        kind, size = struct.unpack(f"{order}II", head)
        if size < 12 or size % 4:
            return
        if size > _LONGEST_BLOCK_BYTES:
            if kind in _SHORT_BLOCKS or not pieces.skip(size - 8):
                return
            head = pieces.take(8)
            continue
        body = mark + pieces.take(size - 8 - len(mark))
        if len(body) != size - 8:
            return
        yield (body if kind in _PACKET_BLOCKS else None), head + body
        head = pieces.take(8)
