"""Frames: what a transport of sessions carries, written and read in pieces of any size."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections import deque
from collections.abc import Callable
from enum import IntEnum
from struct import Struct
from typing import NamedTuple

from holdfast.hold.session.codes import Code, Violation

Buffer = bytes | memoryview

HEADER = Struct("!BBHII")
"""Kind, flags, two zero octets, handle, length of the payload; big endian."""

DATA_HEADER = Struct("!BBHIIQ")
"""As HEADER, and the offset with which the payload of a DATA frame begins."""

OFFSET = Struct("!Q")
PAIR = Struct("!QQ")
"""The payload of an ACK: next offset wanted, limit."""

ASK = 1
"""A flag of ACK: acknowledge at once."""

CONTROL_BYTES = 4096
"""The largest payload of a frame that is not DATA, and of any from somebody who has proven nothing."""

LARGEST_BYTES = 1 << 20
"""No frame is larger, whatever was agreed."""

OPTIONAL_FROM = 128
"""Kinds from here on may be passed over by whoever does not know them."""


class Kind(IntEnum):
    """What a frame is."""

    HELLO = 1
    WELCOME = 2
    RESUME = 3
    RESUME_OK = 4
    PROOF = 5
    CONFIRM = 6
    REFUSED = 7
    DATA = 16
    FIN = 17
    ACK = 18
    RESET = 19
    RESET_OK = 20
    CLOSE = 21
    CLOSE_OK = 22
    PING = 32
    PONG = 33
    GOAWAY = 34


KINDS = {int(kind): kind for kind in Kind}

DATA, ACK = int(Kind.DATA), int(Kind.ACK)
"""Of nearly every frame. Python 3.11 takes five times as long to find a member of an enumeration."""

HEADER_BYTES, DATA_HEADER_BYTES, OFFSET_BYTES = HEADER.size, DATA_HEADER.size, OFFSET.size


class Frame(NamedTuple):
    """One frame, or a piece of a DATA frame; its payload is only valid until the parser is fed again.

    Attributes:
        kind: a :class:`Kind`, or the number of one that may be passed over.
        handle: which session of the transport; 0 is the transport itself.
        payload: without header, opened, and of DATA without the offset.
        offset: where the payload of DATA belongs in the stream.
        flags: as received; of ACK, see :data:`ASK`.
    """

    kind: int
    handle: int
    payload: Buffer
    offset: int = 0
    flags: int = 0

    @property
    def wire(self) -> bytes:
        """The whole frame as it travels (not for pieces of DATA)."""
        return header(self.kind, self.handle, len(self.payload), self.flags) + self.payload


def unpack(form: Struct, payload: Buffer) -> tuple[int, ...]:
    """The numbers of a payload that has nothing else.

    Raises:
        Violation: its length is another.
    """
    if len(payload) != form.size:
        raise Violation(Code.MALFORMED, f"{len(payload)} bytes")
    return form.unpack(payload)


def header(kind: int, handle: int, length: int, flags: int = 0) -> bytes:
    """The 12 octets before a payload."""
    return HEADER.pack(kind, flags, 0, handle, length)


class Parser:
    """Cuts what arrives into frames, however it was cut on its way.

    It holds back at most one frame. Once ``cut_through``, a DATA frame is given in pieces as they come.

    Attributes:
        largest_bytes: the largest payload of DATA that is taken.
        cut_through: DATA need not be whole; set when frames are not sealed.
        open: gives the payload of a sealed frame, from its header and what it carries; None: none is sealed.
    """

    __slots__ = ("_at", "_data", "_handle", "_inside", "_offset", "_parts", "_short", "cut_through",
                 "largest_bytes", "open")  # fmt: skip

    def __init__(self) -> None:
        self.largest_bytes = CONTROL_BYTES
        self.cut_through = False
        self.open: Callable[[bytes, Buffer], bytes] | None = None
        self._data: Buffer = b""
        self._at = 0
        self._parts: deque[bytes] = deque()  # what came of a frame that is not whole
        self._short = 0  # how many bytes it lacks
        self._inside = self._handle = self._offset = 0  # of the DATA frame that is under way

    def feed(self, data: Buffer) -> None:
        """More from the transport. Call :meth:`next` until it gives None before feeding again.

        ``data`` must stay as it is until then, and no longer.
        """
        if self._short > len(data):
            # Joined only once it is worth while, so that a trickle costs no more than a flood.
            self._short -= len(data)
            self._parts.append(bytes(data))
            return
        if self._parts:
            self._parts.append(bytes(data))
            data = b"".join(self._parts)
            self._parts.clear()
        self._short = 0
        self._data, self._at = memoryview(data), 0

    def next(self) -> Frame | None:
        """The next frame or piece; None: it takes more data.

        Raises:
            Violation: a frame that is too large, that does not open, or of a kind that nobody may pass over.
        """
        if self._inside:
            return self._piece()
        if self._short:
            return None
        data, at = self._data, self._at
        there = len(data) - at
        if there < HEADER_BYTES:
            self._hold(HEADER_BYTES - there)
            return None
        kind, flags, _, handle, length = HEADER.unpack_from(data, at)
        most = self.largest_bytes if kind == DATA else CONTROL_BYTES
        if length > most:
            raise Violation(Code.TOO_LARGE, f"a frame of {length} bytes, {most} at most")
        if kind not in KINDS and kind < OPTIONAL_FROM:
            raise Violation(Code.UNKNOWN_KIND, f"kind {kind}")
        if self.cut_through and kind == DATA:
            if length <= OFFSET_BYTES:
                raise Violation(Code.MALFORMED, "DATA without data")
            if there < DATA_HEADER_BYTES:
                self._hold(DATA_HEADER_BYTES - there)
                return None
            (self._offset,) = OFFSET.unpack_from(data, at + HEADER_BYTES)
            self._inside, self._handle = length - OFFSET_BYTES, handle
            self._at = at + DATA_HEADER_BYTES
            return self._piece()
        end = HEADER_BYTES + length
        if end > there:
            self._hold(end - there)
            return None
        self._at = end = at + end
        payload = data[at + HEADER_BYTES : end]
        if self.open is not None:
            payload = self.open(bytes(data[at : at + HEADER.size]), payload)
        if kind != DATA:
            return Frame(kind, handle, payload, 0, flags)
        if len(payload) <= OFFSET_BYTES:
            raise Violation(Code.MALFORMED, "DATA without data")
        return Frame(kind, handle, memoryview(payload)[OFFSET_BYTES:], OFFSET.unpack_from(payload)[0], flags)

    def _piece(self) -> Frame | None:
        data, at = self._data, self._at
        taken = min(self._inside, len(data) - at)
        if not taken:
            self._data, self._at = b"", 0
            return None
        piece = Frame(DATA, self._handle, data[at : at + taken], self._offset)
        self._at = at + taken
        self._offset += taken
        self._inside -= taken
        return piece

    def _hold(self, short: int) -> None:
        if self._at < len(self._data):
            self._parts.append(bytes(self._data[self._at :]))
        self._data, self._at, self._short = b"", 0, short

    @property
    def held_bytes(self) -> int:
        """How much of an unfinished frame is kept."""
        return sum(map(len, self._parts)) + len(self._data) - self._at
