"""Batches of datagrams for asyncio, on any event loop that has ``add_reader``, such as uvloop's."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import asyncio
import os
import socket
import time
from types import TracebackType
from typing import Self

from holdfast.errors import DeadlineExceeded, UsageError
from holdfast.hold.asked import asked_deadline
from holdfast.hold.datagrams import ANY_UDP_BYTES, Batch, attempt

__all__ = ["DatagramReader"]

FAIR_BATCHES = 8
"""After so many batches that were there already, the other tasks have their turn."""

NAP_S = 0.001

SLICE_S = 0.5
"""How soon a socket that was closed under the reader is noticed: no loop tells of that."""


class DatagramReader:
    """Batches from one socket, for one task at a time: ``async for batch in reader``.

    It receives only while somebody waits for a batch. What comes meanwhile stays in the socket's buffer,
    and what has no room there the kernel drops, as it does with every datagram; a full SO_RCVBUF is the
    only queue. The socket stays the caller's: close the reader first, then the socket.

    Args:
        sock: as for :func:`~holdfast.hold.datagrams.recv_batch`; blocking or not makes no difference.
        max_messages: as there, for each batch.
        max_bytes: as there.
    """

    def __init__(
        self, sock: socket.socket, *, max_messages: int = 64, max_bytes: int = ANY_UDP_BYTES
    ) -> None:
        self._sock, self._max_messages, self._max_bytes = sock, max_messages, max_bytes
        self._waiter: asyncio.Future[bool] | None = None
        self._busy = self._closed = False
        self._streak = 0

    async def recv_batch(self, *, deadline: float | None = None) -> Batch[bytes]:
        """At least one datagram and what else is there; empty only if the reader is or becomes closed.

        Cancelling it loses no datagram. For a limit use ``deadline``: ``asyncio.wait_for`` of Python 3.11 can
        drop a result that comes at the moment its time is up.

        Args:
            deadline: absolute ``time.monotonic()`` seconds; None waits without limit, whatever the
                socket's own timeout.

        Raises:
            DeadlineExceeded: nothing came in time.
            UsageError: another task waits on this reader, or the deadline is not a number.
            OSError: as for :func:`~holdfast.hold.datagrams.recv_batch`; EBADF for a socket that was closed
                under the reader, noticed within half a second.
        """
        if self._busy:
            raise UsageError("Another task receives from this reader; make one reader for each socket.")
        limit = asked_deadline(deadline)
        self._busy = True
        try:
            await self._take_turns()
            return await self._receive(limit)
        finally:
            self._busy = False

    def close(self) -> None:
        """End the iteration, also of a task that waits; the socket stays open."""
        self._closed = True
        self._wake()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Batch[bytes]:
        batch = await self.recv_batch()
        if not batch:
            raise StopAsyncIteration
        return batch

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def _take_turns(self) -> None:
        """Let others run now and then; before receiving, so that a cancellation takes nothing away."""
        self._streak += 1
        if self._streak > FAIR_BATCHES:
            self._streak = 0
            await asyncio.sleep(0)

    async def _receive(self, limit: float) -> Batch[bytes]:
        woken_in_vain = False
        while not self._closed:
            batch = attempt(self._sock, self._max_messages, self._max_bytes)
            if batch:
                return batch
            left_s = limit - time.monotonic()
            if left_s <= 0:
                raise DeadlineExceeded()
            # An unread error queue keeps the socket ready with nothing to receive: that would spin.
            if woken_in_vain:
                await asyncio.sleep(NAP_S)
            self._streak = 0
            woken_in_vain = await self._wait(min(left_s, SLICE_S))
        return Batch()

    async def _wait(self, left_s: float) -> bool:
        """Until the time is up or the reader is closed; True if the socket was readable before."""
        loop = asyncio.get_running_loop()
        fd = self._sock.fileno()
        self._waiter = loop.create_future()
        timer = loop.call_later(left_s, self._wake)
        try:
            loop.add_reader(fd, self._wake, True)
            return await self._waiter
        finally:
            # The number of a socket that was closed meanwhile may be another's by now, and so may its reader.
            if self._sock.fileno() == fd or not _is_open(fd):
                loop.remove_reader(fd)
            self._waiter = None
            timer.cancel()

    def _wake(self, readable: bool = False) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(readable)


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True
