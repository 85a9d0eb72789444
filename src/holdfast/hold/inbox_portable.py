"""The compiled inbox in plain Python, where there was no compiler: same answers, slower."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from contextlib import suppress
from operator import index

from holdfast.errors import LimitExceeded, UsageError
from holdfast.hold.asked import asked_size

CAPACITY_BYTES = 1 << 16
"""What one read takes at most."""


class Inbox:
    """A buffer that is filled at its end and emptied at its start.

    It grows with what has come, never with what a peer has announced. An empty one has no memory, so that a
    connection which is silent costs nothing.

    Attributes:
        reserve_bytes: only what exceeds this may be taken without telling the protocol.
    """

    def __init__(self) -> None:
        self._allot(0)
        self._begin = self._end = 0
        self._searched = 0  # the delimiter looked for last does not start before this place
        self._delimiter = b""
        self.reserve_bytes = 0

    def _allot(self, size_bytes: int) -> None:
        # Never resized: views of it may be out.
        self._store = bytearray(size_bytes)
        self._view = memoryview(self._store)

    def __len__(self) -> int:
        return self._end - self._begin

    @property
    def capacity_bytes(self) -> int:
        """The memory that it occupies now."""
        return len(self._store)

    def space(self) -> memoryview:
        """Where to put what comes next; at least one byte. Say :meth:`add` after filling it."""
        if self._end == len(self._store):
            self._make_room()
        return self._view[self._end :]

    def _make_room(self) -> None:
        here = self._view[self._begin : self._end]
        # Each byte is moved a bounded number of times: to the front only if that frees half of the memory.
        if self._begin <= len(self._store) // 2:
            self._allot(len(here) + max(len(here), CAPACITY_BYTES))
        self._view[: len(here)] = here
        self._searched = max(0, self._searched - self._begin)
        self._begin, self._end = 0, len(here)

    def add(self, count: int, /) -> None:
        """``count`` bytes were put into :meth:`space`.

        Raises:
            UsageError: it had no room for so many.
        """
        if not 0 <= index(count) <= len(self._store) - self._end:
            raise UsageError(f"{count} bytes do not fit into the space of the inbox")
        self._end += count

    def peek(self, n: int, /) -> bytes:
        """Up to ``n`` bytes, left where they are.

        Raises:
            UsageError: ``n`` is negative.
        """
        return self._view[self._begin : min(self._begin + asked_size(n), self._end)].tobytes()

    def take(self, n: int, /) -> bytes:
        """Up to ``n`` bytes; errors as :meth:`peek`."""
        data = self.peek(n)
        self._drop(len(data))
        return data

    def take_into(self, buffer: bytearray | memoryview, /) -> int:
        """How many bytes were put at the start of ``buffer``."""
        size = min(memoryview(buffer).nbytes, len(self))
        memoryview(buffer).cast("B")[:size] = self._view[self._begin : self._begin + size]
        self._drop(size)
        return size

    def take_exactly(self, n: int, /) -> bytes | None:
        """``n`` bytes, None while there are fewer; errors as :meth:`peek`."""
        begin, end = self._begin, self._begin + index(n)
        if begin <= end < self._end:  # most messages: something stays, so nothing is to be tidied
            self._begin = end
            return self._view[begin:end].tobytes()
        return self.take(n) if self._end - begin >= n else None

    def take_until(self, delimiter: bytes, limit: int, /) -> bytes | None:
        """Everything to the end of the first ``delimiter``, None while it has not come.

        Raises:
            LimitExceeded: it did not end within ``limit`` bytes; they stay here.
            UsageError: the delimiter is empty.
        """
        limit = index(limit)
        if not isinstance(delimiter, bytes):  # a bytearray could be another one at the next call
            raise TypeError(f"the delimiter must be bytes, not {type(delimiter).__name__}")
        if not delimiter:
            raise UsageError("the delimiter is empty; give the bytes that end a frame")
        if delimiter != self._delimiter:
            self._delimiter, self._searched = delimiter, 0
        stop = min(self._end, self._begin + limit)
        at = self._store.find(delimiter, max(self._begin, self._searched), max(0, stop))
        if at >= 0:
            self._searched = 0
            return self.take(at + len(delimiter) - self._begin)
        if len(self) >= limit:
            raise LimitExceeded(self.peek(limit), limit)
        # The last bytes may be the beginning of a delimiter.
        self._searched = max(self._begin, self._end - len(delimiter) + 1)
        return None

    def _drop(self, size_bytes: int) -> None:
        self._begin += size_bytes
        if self._begin == self._end:
            self._begin = self._end = self._searched = 0
            self._view.release()
            with suppress(BufferError):  # a view is out: somebody is perhaps about to say add()
                self._store.clear()
            self._view = memoryview(self._store)
