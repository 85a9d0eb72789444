"""Bytes that were received and not yet taken: no I/O, so that every driver frames alike."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from holdfast.errors import LimitExceeded, UsageError

CAPACITY_BYTES = 1 << 16
"""What an empty inbox holds: one read takes at most this much at once."""


class Inbox:
    """A buffer that is filled at its end and emptied at its start.

    It grows with what has come, never with what a peer has announced, and shrinks again when it is empty.
    """

    def __init__(self) -> None:
        self._allot(CAPACITY_BYTES)
        self._begin = self._end = 0
        self._searched = 0  # the delimiter looked for last does not start before this place
        self._delimiter = b""

    def _allot(self, size_bytes: int) -> None:
        # Never resized: views of it may be out.
        self._store = bytearray(size_bytes)
        self._view = memoryview(self._store)

    def __len__(self) -> int:
        return self._end - self._begin

    def space(self) -> memoryview:
        """Where to put what comes next; at least one byte. Say :meth:`add` after filling it."""
        if self._end == len(self._store):
            self.need(len(self) + CAPACITY_BYTES if not self._begin else 0)
        return self._view[self._end :]

    def add(self, count: int) -> None:
        """``count`` bytes were put into :meth:`space`."""
        self._end += count

    def put(self, data: bytes) -> None:
        """Append ``data``."""
        self.need(len(self) + len(data))
        self._view[self._end : self._end + len(data)] = data
        self._end += len(data)

    def need(self, size_bytes: int) -> None:
        """Make room for ``size_bytes`` in all, of which some are here already."""
        if self._begin + size_bytes <= len(self._store) and self._end < len(self._store):
            return
        here = self._view[self._begin : self._end]
        if size_bytes > len(self._store):
            self._allot(max(size_bytes, 2 * len(here)))
        self._view[: len(here)] = bytes(here)
        self._move_to_front(len(here))

    def _move_to_front(self, size_bytes: int) -> None:
        self._searched = max(0, self._searched - self._begin)
        self._begin, self._end = 0, size_bytes

    def peek(self, n: int) -> bytes:
        """Up to ``n`` bytes, left where they are."""
        if n < 0:
            raise UsageError(f"{n} bytes were asked for; ask for 0 or more")
        return self._view[self._begin : min(self._begin + n, self._end)].tobytes()

    def take(self, n: int) -> bytes:
        """Up to ``n`` bytes."""
        data = self.peek(n)
        self._begin += len(data)
        if self._begin == self._end:
            self._begin = self._end = self._searched = 0
            if len(self._store) > CAPACITY_BYTES:
                self._allot(CAPACITY_BYTES)
        return data

    def take_into(self, buffer: memoryview) -> int:
        """How many bytes were put at the start of ``buffer``."""
        data = self.take(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def take_exactly(self, n: int) -> bytes | None:
        """``n`` bytes, None while there are fewer."""
        begin, end = self._begin, self._begin + n
        if begin <= end < self._end:  # most messages: something stays, so nothing is to be tidied
            self._begin = end
            return self._view[begin:end].tobytes()
        return self.take(n) if self._end - begin >= n else None

    def take_until(self, delimiter: bytes, limit: int) -> bytes | None:
        """Everything to the end of the first ``delimiter``, None while it has not come.

        Raises:
            LimitExceeded: it did not end within ``limit`` bytes; they stay here.
        """
        if not delimiter:
            raise UsageError("the delimiter is empty; give the bytes that end a frame")
        if delimiter != self._delimiter:
            self._delimiter, self._searched = delimiter, 0
        stop = min(self._end, self._begin + limit)
        at = self._store.find(delimiter, max(self._begin, self._searched), stop)
        if at >= 0:
            self._searched = 0
            return self.take(at + len(delimiter) - self._begin)
        if len(self) >= limit:
            raise LimitExceeded(self.peek(limit), limit)
        # The last bytes may be the beginning of a delimiter.
        self._searched = max(self._begin, self._end - len(delimiter) + 1)
        return None
