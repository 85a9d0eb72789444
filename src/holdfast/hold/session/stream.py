"""Bytes on their way: what may have to be sent again, and what the application has not taken yet."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections import deque

from holdfast.hold.session.codes import Code, Violation
from holdfast.hold.session.frames import Buffer

SMALL_BYTES = 4096
TAIL_BYTES = 1 << 16


class Outgoing:
    """What this end sends: everything from the first byte the peer has not confirmed.

    Offsets count from 0 at the start of the session. The end of the stream (FIN) takes one offset too.

    Attributes:
        first: the lowest offset not confirmed.
        end: the offset after the last byte that was written.
        cursor: the next offset to go out on the transport of the moment.
        limit: up to where the peer allows.
        finished: nothing more will be written.
    """

    __slots__ = ("_at", "_base", "_chunks", "_sent", "_skip", "_tail", "cursor", "end", "finished", "first",
                 "limit")  # fmt: skip

    def __init__(self) -> None:
        self.first = self.end = self.cursor = self.limit = 0
        self.finished = False
        self._sent = 0  # the highest offset that ever went out
        self._chunks: deque[Buffer] = deque()  # the first begins at or before `first`
        self._tail = bytearray()  # small writes, gathered until they go out
        self._base = 0  # the offset at which the first chunk begins
        self._at = self._skip = 0  # the cursor: so many chunks, so many bytes into the next

    @property
    def held_bytes(self) -> int:
        """How much is kept until it is confirmed."""
        return self.end - self.first

    @property
    def all_confirmed(self) -> bool:
        """Everything that was written has arrived, the FIN too if there is one."""
        return self.first == self.last

    @property
    def last(self) -> int:
        """The offset after everything, the FIN included."""
        return self.end + self.finished

    @property
    def in_flight(self) -> bool:
        """Something went out on this transport and is not confirmed."""
        return self.first < self.cursor

    def write(self, data: Buffer) -> None:
        """Add to the stream; what is not small is kept as it is, and must not change."""
        if len(data) < SMALL_BYTES and len(self._tail) < TAIL_BYTES:
            self._tail += data
        else:
            self._freeze()
            self._chunks.append(data)
        self.end += len(data)

    def _freeze(self) -> None:
        if self._tail:
            self._chunks.append(bytes(self._tail))
            self._tail.clear()

    def confirm(self, upto: int) -> None:
        """The peer has everything below ``upto``.

        Raises:
            Violation: that was never sent.
        """
        if upto > self._sent:
            raise Violation(Code.BAD_ACK, f"{upto} confirmed, {self._sent} sent")
        if upto <= self.first:
            return
        if upto > self.cursor:  # confirmed through an older transport, before the new one got there
            self._seek(upto)
        self.first = upto
        while self._chunks and self._base + len(self._chunks[0]) <= upto:
            self._base += len(self._chunks.popleft())
            self._at -= 1

    def rewind(self, upto: int) -> None:
        """On a new transport: the peer has everything below ``upto`` and wants the rest."""
        self._seek(upto)
        self.confirm(upto)

    def could_resume(self, upto: int) -> bool:
        """Whether what the peer says it wants next can be sent, and was sent before."""
        return self.first <= upto <= self._sent

    def _seek(self, upto: int) -> None:
        self._freeze()
        offset, self._at, self._skip = self._base, 0, 0
        for chunk in self._chunks:
            if offset + len(chunk) > upto:
                self._skip = max(0, upto - offset)
                break
            offset += len(chunk)
            self._at += 1
        self.cursor = upto

    def sendable(self) -> int:
        """How many bytes may go out now."""
        upto = self.limit if self.limit < self.end else self.end  # quicker than min() and max()
        return upto - self.cursor if upto > self.cursor else 0

    def take(self, most: int) -> list[Buffer]:
        """The next bytes to go out, at most so many and never more than :meth:`sendable`, as pieces."""
        wanted = min(most, self.sendable())
        pieces: list[Buffer] = []
        while wanted > 0:
            if self._at == len(self._chunks):
                self._freeze()
            chunk = self._chunks[self._at]
            size = min(wanted, len(chunk) - self._skip)
            whole = size == len(chunk)
            pieces.append(chunk if whole else memoryview(chunk)[self._skip : self._skip + size])
            wanted -= size
            self.cursor += size
            self._skip += size
            if self._skip == len(chunk):
                self._at, self._skip = self._at + 1, 0
        self._sent = max(self._sent, self.cursor)
        return pieces

    def drop(self) -> None:
        """Nothing goes out any more: keep the numbers, throw away the bytes."""
        self._chunks.clear()
        self._tail.clear()

    @property
    def fin_due(self) -> bool:
        """Only the FIN is left to go out; it needs no credit."""
        return self.finished and self.cursor == self.end

    def take_fin(self) -> int:
        """The offset of the FIN, which counts as sent."""
        self.cursor = self.end + 1
        self._sent = max(self._sent, self.cursor)
        return self.end


class Incoming:
    """What the peer sent and the application has not taken.

    Attributes:
        next: the next offset wanted: everything below has arrived.
        limit: up to where the peer may send; it never shrinks.
        ended: the FIN has arrived.
        held_bytes: how much waits for the application.
    """

    __slots__ = ("_chunks", "ended", "held_bytes", "limit", "next")

    def __init__(self) -> None:
        self.next = self.limit = self.held_bytes = 0
        self.ended = False
        self._chunks: deque[Buffer | bytearray] = deque()

    @property
    def taken(self) -> int:
        """How many bytes the application has taken."""
        return self.next - self.ended - self.held_bytes

    def accept(self, offset: int, data: Buffer) -> int:
        """Bytes from a transport; gives how many of them are new.

        Raises:
            Violation: bytes are missing before them, more came than was allowed, or after the FIN.
        """
        end = offset + len(data)
        if offset > self.next:
            raise Violation(Code.GAP, f"offset {offset}, {self.next} wanted")
        if end > self.limit:
            raise Violation(Code.OVER_CREDIT, f"up to {end}, {self.limit} allowed")
        if self.ended:
            if end > self.next - 1:
                raise Violation(Code.OUT_OF_PLACE, "data after the FIN")
            return 0
        new = end - self.next
        if new <= 0:
            return 0
        # Copied: what came belongs to the transport, and a small piece must not hold a large buffer.
        data = memoryview(data)[-new:]
        last = self._chunks[-1] if self._chunks else None
        if isinstance(last, bytearray) and len(last) < TAIL_BYTES and new < SMALL_BYTES:
            last += data
        else:
            # An object for each small piece would take many times what is counted: those that wait share one.
            self._chunks.append(bytearray(data) if last is not None and new < SMALL_BYTES else bytes(data))
        self.next = end
        self.held_bytes += new
        return new

    def finish(self, offset: int) -> None:
        """The FIN: the stream ends at ``offset``.

        Raises:
            Violation: bytes are missing before it, or it moved.
        """
        if self.ended:
            if offset != self.next - 1:
                raise Violation(Code.OUT_OF_PLACE, "a second FIN elsewhere")
            return
        if offset != self.next:
            raise Violation(Code.GAP, f"FIN at {offset}, {self.next} wanted")
        self.next, self.ended = offset + 1, True

    def read(self, most: int) -> bytes:
        """Up to ``most`` bytes, ``b""`` if none are there."""
        if not self._chunks or most <= 0:
            return b""
        chunk = self._chunks.popleft()
        if len(chunk) > most:
            self._chunks.appendleft(memoryview(chunk)[most:])
            chunk = memoryview(chunk)[:most]
        elif len(chunk) < most and len(chunk) < SMALL_BYTES and self._chunks:
            parts, size = [chunk], len(chunk)
            while self._chunks and size + len(self._chunks[0]) <= most:
                parts.append(self._chunks.popleft())
                size += len(parts[-1])
            chunk = b"".join(parts)
        self.held_bytes -= len(chunk)
        return chunk if isinstance(chunk, bytes) else bytes(chunk)

    def put_back(self, data: bytes) -> None:
        """What was read last was not used after all: the next read gives it again."""
        if data:
            self._chunks.appendleft(data)
            self.held_bytes += len(data)

    def drop(self) -> int:
        """Throw away what waits; gives how much that was."""
        dropped, self.held_bytes = self.held_bytes, 0
        self._chunks.clear()
        return dropped
