"""What asyncio calls on behalf of a stream: bytes in, room for bytes out, and how it ended."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import asyncio
import math
import os
import socket
import ssl
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from errno import ECONNRESET, EPIPE
from typing import cast

from holdfast.errors import ConnectionLost, Truncated, UsageError
from holdfast.hold import calls
from holdfast.hold.cause_source import CauseSource
from holdfast.hold.classify import Phase
from holdfast.hold.counters import Counters
from holdfast.hold.first_error import Ended
from holdfast.hold.inbox import Inbox
from holdfast.hold.loss import address, is_half_closed, is_over, lost
from holdfast.hold.tls import TlsError

HIGH_WATER_BYTES = 1 << 18
"""With so much waiting to be taken, nothing more is read: the peer's kernel, then the peer, must wait."""

FAREWELL_S = 1.0
"""How long closing a TLS stream waits for the peer's close_notify."""


NAP_S = 0.001
IN_VAIN = 3
"""So many reads that bring nothing, one after the other, are no accident."""


class StreamProtocol(asyncio.BufferedProtocol):
    """Fills the inbox, stops reading while it is full, and remembers the first error.

    Attributes:
        inbox: what came and was not taken.
        wanted: how much the reader waits for, if that is more than the high-water mark.
        waited_for: a task waits for what comes, and what is here is the beginning of it.
        ended: nothing more will come: end of stream, error or closed.
        paused: the loop reads no more until enough was taken.
        full: the transport asks to send no more for now.
        error: the first error.
        local, peer: addresses, kept after a reset.
        on_made: called once connected, or when that has failed.
        not_made: why it has failed.
    """

    def __init__(self, causes: CauseSource | None) -> None:
        self.inbox = Inbox()
        self.wanted = 0
        self.waited_for = False
        self.ended = self.full = False
        self.error: Ended | None = None
        self.local: str | None = None
        self.peer: str | None = None
        self.on_made: Callable[[], None] | None = None
        self.not_made: OSError | None = None
        self.transport: asyncio.Transport
        self._sock: socket.socket
        self._causes = causes
        self._tls: ssl.SSLObject | None = None
        self.paused = self._closing = self._cut = self._clean_end = self._shut = False
        self._in_vain = 0  # reads since the last that brought something
        self._came: asyncio.Future[None] | None = None
        self._room: asyncio.Future[None] | None = None
        self._gone: asyncio.Future[None]
        self._bytes_received = self._bytes_sent = self._receives = self._sends = 0

    def counters(self) -> Counters:
        """What went through so far; ``sends`` counts what was handed to the transport."""
        return Counters(self._bytes_received, self._bytes_sent, self._receives, self._sends)

    # ---- called by the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.BaseProtocol."""
        self.transport = cast(asyncio.Transport, transport)
        self._gone = asyncio.get_running_loop().create_future()
        self._tls = transport.get_extra_info("ssl_object")
        try:
            self._adopt(transport.get_extra_info("socket").fileno())
        except OSError as error:
            # Else the peer would wait for ever: asyncio goes on with a protocol that failed here.
            self.not_made = error
            self.transport.abort()
        made, self.on_made = self.on_made, None  # it knows the stream, which knows us: no cycle
        if made is not None:
            made()

    def _adopt(self, fd: int) -> None:
        # A socket of our own on the same file: when asyncio tells of a loss, its own may be closed already.
        self._sock = socket.socket(fileno=os.dup(fd))
        self.local = address(self._sock, socket.socket.getsockname)
        self.peer = address(self._sock, socket.socket.getpeername)
        self._shut = is_half_closed(self._sock)
        # Whatever the transport keeps itself is not yet the kernel's, and must be waited for.
        # TCP pauses above the mark, TLS at it.
        self.transport.set_write_buffer_limits(high=0 if self._tls is None else 1, low=0)

    def get_buffer(self, sizehint: int) -> memoryview:
        """See asyncio.BufferedProtocol."""
        self._in_vain += 1
        if self._in_vain > IN_VAIN:
            # Soon, because libuv does not expect to be stopped in the middle of a read.
            asyncio.get_running_loop().call_soon(self._nap)
        return self.inbox.space()

    def buffer_updated(self, nbytes: int) -> None:
        """See asyncio.BufferedProtocol."""
        self._in_vain = 0
        self.inbox.add(nbytes)
        self._bytes_received += nbytes
        self._receives += 1
        if not self.paused and len(self.inbox) >= max(HIGH_WATER_BYTES, self.wanted):
            self.paused = True
            self._reserve()
            self.transport.pause_reading()
        _wake(self._came)

    def _nap(self) -> None:
        # Ready, and nothing there: an unread error queue keeps EPOLLERR set, and the loop would spin.
        silent = self._in_vain and not self.ended and self._tls is None
        if silent and not self.paused and not self.transport.is_closing():
            self.transport.pause_reading()
            asyncio.get_running_loop().call_later(NAP_S, self._read_on)

    def _read_on(self) -> None:
        if not self.paused and not self.transport.is_closing():
            self.transport.resume_reading()

    def eof_received(self) -> bool:
        """See asyncio.BaseProtocol. The other direction of TCP stays open."""
        if self._tls is None:
            self._check_end()
            self._finish()
            return True
        # asyncio calls this for a cut stream too; OpenSSL knows whether close_notify came.
        with suppress(ssl.SSLError):
            self._clean_end = self._tls.read(1) == b""
        return False

    def _check_end(self) -> None:
        """Tell the end of the peer's stream from a reset whose error somebody took, by reading SO_ERROR."""
        # As in Connection: a FIN of the peer does not end both directions.
        if not self._shut and self._sock.family != socket.AF_UNIX and is_over(self._sock):
            self.error = self._lost(ConnectionResetError(ECONNRESET, os.strerror(ECONNRESET)), Phase.OPEN)
        self._clean_end = self.error is None

    def pause_writing(self) -> None:
        """See asyncio.BaseProtocol."""
        self.full = True

    def resume_writing(self) -> None:
        """See asyncio.BaseProtocol."""
        self.full = False
        _wake(self._room)

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.BaseProtocol."""
        if self.not_made is None:
            self._conclude(exc)
            self._sock.close()
        self._finish()
        self.full = False
        _wake(self._room)
        _wake(self._gone)

    def _conclude(self, exc: Exception | None) -> None:
        """Remember the first error."""
        # Closing, and nothing left to send or no time for it: what happens now is of no consequence.
        if self._closing and (self._cut or not self.full):
            return
        if isinstance(exc, OSError) and not isinstance(exc, ssl.SSLError):
            self._take_the_rest(exc)
        elif self._tls is not None and not (self._clean_end or self._closing):
            self.error = self.error or _broken_off(exc)

    def _take_the_rest(self, exc: OSError) -> None:
        """What the kernel still holds comes before the error that, perhaps, a send has met."""
        while self._tls is None:
            try:
                count = calls.receive_into(self._sock, self.inbox.space(), -math.inf, None)
            except OSError:
                break
            if count <= 0:
                break
            self.inbox.add(count)
            self._bytes_received += count
            self._receives += 1
        # FIN leaves after all else: while the transport is full it has not.
        sent_fin = self._shut and not self.full
        phase = Phase.CLOSED_HERE if sent_fin else Phase.PEER_CLOSED if self.ended else Phase.OPEN
        self.error = self.error or self._lost(exc, phase)

    def _lost(self, error: OSError, phase: Phase, sent_bytes: int = 0) -> ConnectionLost | None:
        return lost(
            self._sock,
            error,
            phase,
            local=self.local,
            peer=self.peer,
            source=self._causes,
            sent_bytes=sent_bytes,
        )

    def _finish(self) -> None:
        self.ended = True
        _wake(self._came)

    # ---- called by the stream

    def taken(self) -> None:
        """Something was taken from the inbox: read on if there is room again."""
        if self.paused and len(self.inbox) < self._low_water_bytes():
            self.paused = False
            self._reserve()
            self._read_on()

    def _reserve(self) -> None:
        """Say how much the compiled fronts must leave: to whoever waits for it, all of it."""
        low_water_bytes = self._low_water_bytes() if self.paused else 0
        self.inbox.reserve_bytes = sys.maxsize if self.waited_for else low_water_bytes

    def _low_water_bytes(self) -> int:
        return max(HIGH_WATER_BYTES // 2, self.wanted)

    async def wait_for_data(self, limit_s: float) -> bool:
        """Whether more came, at the latest when the stream ended or time was up.

        Raises:
            ConnectionLost, Truncated, TlsError: the stream ended by an error, and all that came was told.
            UsageError: it was closed here.
        """
        before = self._bytes_received
        self.taken()
        self.waited_for = True
        self._reserve()
        try:
            while self._bytes_received == before and not self.ended:
                self._came = asyncio.get_running_loop().create_future()
                if not await _in_time(self._came, limit_s):
                    break
        finally:
            self.waited_for = False
            self._reserve()
        if self._bytes_received > before:
            return True
        # Once the peer has ended its stream, an error that a send meets does not change how that ended.
        if self.error is not None and not self._clean_end:
            raise self.latched()
        self._check_open()
        return False

    async def wait_for_room(self, limit_s: float) -> bool:
        """Whether the transport has handed all it had to the kernel; False if time was up."""
        while self.full:
            self._room = asyncio.get_running_loop().create_future()
            if not await _in_time(self._room, limit_s):
                return not self.full
        return True

    def write(self, data: bytes | memoryview) -> None:
        """Hand one chunk to the transport."""
        self.transport.write(data)
        self._bytes_sent += len(data)
        self._sends += 1

    async def check_writable(self, sent_bytes: int) -> bool:
        """True while sending makes sense.

        Raises:
            ConnectionLost, Truncated, TlsError: the first error; with ``sent_bytes``.
            ConnectionClosed: this end has shut its direction, or the peer has closed.
            UsageError: it was closed here.
        """
        if self.transport.is_closing() and not self._closing:
            await _look_once()  # a send has met an error: connection_lost() is about to tell which
        if self.error is not None:
            raise self.latched(sent_bytes)
        self._check_open()
        if self._shut or self.transport.is_closing():
            phase = Phase.CLOSED_HERE if self._shut else Phase.PEER_CLOSED
            found = self._lost(BrokenPipeError(EPIPE, os.strerror(EPIPE)), phase, sent_bytes)
            assert found is not None  # EPIPE is in the table for every phase
            raise found
        return True

    def shut(self) -> None:
        """Send FIN after what was written.

        Raises:
            UsageError: it was closed here.
        """
        self._check_open()
        if self.error is None and not self._shut:
            self._shut = True
            self.transport.write_eof()

    async def close(self, limit_s: float) -> None:
        """Close after all was sent, or at once when time is up."""
        self._closing = True
        self._finish()
        self.transport.close()
        if self._tls is not None and not self.full:
            # All is sent; only the peer's own farewell could still come, and it may never do.
            limit_s = min(limit_s, time.monotonic() + FAREWELL_S)
        try:
            gone = await _in_time(asyncio.shield(self._gone), limit_s)
        except asyncio.CancelledError:  # a timeout around it is a deadline too
            self._cut_off()
            raise
        if not gone:
            self._cut_off()
            await asyncio.shield(self._gone)

    def _cut_off(self) -> None:
        """End a close that still waits for the peer."""
        # Not transport.abort(): over TLS it fails on CPython 3.11. The transport sees its end and goes.
        self._cut = True
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)

    def abort(self) -> None:
        """Close at once."""
        self._closing = self._cut = True
        self._finish()
        self.transport.abort()

    def latched(self, sent_bytes: int = 0) -> Ended:
        """The first error, to be raised once more."""
        assert self.error is not None
        found = self.error.again(sent_bytes)
        found.__cause__ = self.error.__cause__
        return found

    def _check_open(self) -> None:
        if self._closing:
            raise UsageError("the stream is closed; connect again")


def _broken_off(exc: Exception | None) -> Truncated | TlsError:
    """How a TLS stream ended without the peer's close_notify."""
    # OpenSSL's own "EOF" is a cut too, and a failed certificate is told by the handshake.
    if isinstance(exc, ssl.SSLError) and not isinstance(exc, (ssl.SSLEOFError, ssl.SSLZeroReturnError)):
        ended: Truncated | TlsError = TlsError.of(exc)
    else:
        ended = Truncated(b"", "its TLS close_notify")
    ended.__cause__ = exc
    return ended


def _wake(waiter: asyncio.Future[None] | None) -> None:
    if waiter is not None and not waiter.done():
        waiter.set_result(None)


async def _in_time(waiter: asyncio.Future[None], limit_s: float) -> bool:
    if limit_s == math.inf:
        await waiter
        return True
    left_s = limit_s - time.monotonic()
    if left_s <= 0:
        await _look_once()
        return waiter.done()
    try:
        async with asyncio.timeout(left_s):
            await waiter
    except TimeoutError:
        return False
    return True


async def _look_once() -> None:
    # One turn of the loop to look at its sockets, one to run what it found there.
    await asyncio.sleep(0)
    await asyncio.sleep(0)
