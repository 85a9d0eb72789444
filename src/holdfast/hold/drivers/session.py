"""A session of an asyncio program: a duplex stream of bytes that goes on when its connection is reset."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self, TypeVar

from holdfast.errors import DeadlineExceeded, SessionLost, Truncated, UsageError
from holdfast.hold.asked import asked_deadline, asked_size, octets
from holdfast.hold.drivers.ended import Ending, in_words, session_lost, why_ended, why_open, why_unconfirmed
from holdfast.hold.drivers.policy import Happened, Observer, SessionEvent, now_s
from holdfast.hold.drivers.wire import LOGGER, Wire
from holdfast.hold.heartbeat import RoundTrip
from holdfast.hold.session import core
from holdfast.hold.session.codes import Code
from holdfast.hold.session.states import State
from holdfast.hold.sole import Sole

_E = TypeVar("_E", SessionLost, DeadlineExceeded)

LEAVING_S = 30.0
"""How long leaving ``async with`` waits for the peer to take the rest and to end its own direction."""

CHUNK_BYTES = 1 << 18
DONE = frozenset({State.CLOSED, State.CLOSING})
FAILED = (State.RESET, State.LOST, State.RESETTING)


@dataclass(frozen=True, slots=True)
class SessionCounters:
    """What went through a session.

    Attributes:
        bytes_received: taken by this application.
        bytes_sent: given by this application.
        confirmed_bytes: of those, how many the peer's session has.
        resumes: how often it was resumed.
        replayed_bytes: what was sent again.
        longest_gap_s: the longest time without transport.
        rtt_s, rttvar_s: of the transport of the moment (RFC 6298), None if not measured.
    """

    bytes_received: int
    bytes_sent: int
    confirmed_bytes: int
    resumes: int
    replayed_bytes: int
    longest_gap_s: float
    rtt_s: float | None
    rttvar_s: float | None


class Session(Sole):
    """One end of a session. One task may receive while another sends; cancelling either loses nothing.

    Every ``deadline`` is absolute ``time.monotonic()`` seconds, None waits without limit. Make one with
    ``holdfast.connect("tls://...")``; a server's are made by ``holdfast.serve``.

    Attributes:
        core: what decides.
        wire: what carries it now, and ``peer`` the address of what did last.
        gap_s: the longest time without transport.
        loss: why the last attempt to dial it failed; None while a transport carries it.
        parted: what ended the transport that carried it last.
        leave: called when the application is done with it.
    """

    __slots__ = (
        "_done",
        "_loop",
        "_lost_at_s",
        "_observer",
        "_readable",
        "_resumes",
        "_told",
        "_writable",
        "core",
        "gap_s",
        "leave",
        "loss",
        "parted",
        "peer",
        "wire",
    )

    def __init__(self, state: core.Session, observer: Observer | None = None) -> None:
        self.core = state
        self.wire: Wire | None = None
        self.peer: str | None = None
        self.gap_s = 0.0
        self.loss: BaseException | None = None
        self.parted: Ending | None = None
        self.leave: Callable[[], Awaitable[object]] | None = None
        self._loop = asyncio.get_running_loop()
        self._observer = observer
        self._readable: asyncio.Future[None] | None = None
        self._writable: asyncio.Future[None] | None = None
        self._done: asyncio.Future[None] | None = None
        self._lost_at_s: float | None = None
        self._resumes = 0
        self._told: Happened | None = None

    # ---- facts

    @property
    def id(self) -> str:
        """The session's public name, in hexadecimal."""
        return self.core.id.hex()

    @property
    def state(self) -> State:
        """See the states of the protocol."""
        return self.core.state

    @property
    def confirmed_bytes(self) -> int:
        """How many of the bytes sent have arrived in the peer's session."""
        return self.core.confirmed_bytes

    @property
    def counters(self) -> SessionCounters:
        """What went through so far."""
        wire = self.wire  # asked once: the loop's thread may take it away meanwhile
        heart = wire.link.heart if wire is not None else None
        trip = heart.trip if heart is not None else RoundTrip()
        out, into = self.core.out, self.core.into
        return SessionCounters(
            into.taken, out.end, self.core.confirmed_bytes, self.core.resumes, self.core.replayed_bytes,
            self.gap_s, trip.srtt_s, trip.rttvar_s,
        )  # fmt: skip

    # ---- the application

    async def recv(self, n: int = CHUNK_BYTES, *, deadline: float | None = None) -> bytes:
        """Up to ``n`` bytes as soon as any are there; ``b""`` at the end of the peer's stream.

        Raises:
            DeadlineExceeded: nothing came; nothing is lost.
            SessionLost: the session has ended otherwise, after all that had come was taken.
            UsageError: another task is receiving; at once: ``n`` is negative, or the deadline not a number.
        """
        one, size, limit_s = self.core, asked_size(n), asked_deadline(deadline)
        while True:
            if data := one.read(size):
                if one.ack_now and self.wire is not None:
                    self.wire.flush()
                return data
            if one.into.ended or not size:
                return b""
            if one.state in FAILED:
                raise self.error()
            if self._readable is not None:
                raise UsageError("another task is receiving on this session; let one task do it")
            self._readable = self._waiter()
            try:
                if limit_s == math.inf:
                    await self._readable  # nobody else waits for it, so it may be cancelled
                else:
                    await _until(self._readable, limit_s, lambda: "")
            finally:
                self._readable = None

    async def recv_exactly(self, n: int, *, deadline: float | None = None) -> bytes:
        """Exactly ``n`` bytes.

        Raises:
            Truncated: the stream ended before; ``partial`` is what there was.
            DeadlineExceeded, SessionLost: as :meth:`recv`; ``partial`` is what had come, which later
                calls do not give again.
            UsageError: as :meth:`recv`.
        """
        size, limit_s, parts = asked_size(n), asked_deadline(deadline), bytearray()
        try:
            while len(parts) < size:
                data = await self.recv(size - len(parts), deadline=limit_s)
                if not data:
                    raise Truncated(bytes(parts), f"{n} bytes had come")
                parts += data
        except (DeadlineExceeded, SessionLost) as error:
            error.partial = bytes(parts)
            raise
        except asyncio.CancelledError:
            self.core.into.put_back(bytes(parts))
            raise
        return bytes(parts)

    async def send(self, data: bytes | bytearray | memoryview, *, deadline: float | None = None) -> None:
        """Give all of ``data`` to the session, which keeps it until the peer has confirmed it.

        It waits while the buffer is full: because the peer does not read, or no transport is there.

        Raises:
            DeadlineExceeded: ``sent_bytes`` is how much the session took; it will arrive.
            SessionLost: the session has ended; ``sent_bytes`` likewise, ``confirmed_bytes`` what arrived.
            UsageError: this direction was ended before; at once: the deadline is not a number.
            TypeError, BufferError: ``data`` is no buffer of consecutive bytes.
        """
        limit_s = asked_deadline(deadline)
        one, at, size = self.core, 0, len(data if isinstance(data, bytes) else octets(data))
        while True:
            # A copy of each part, unless it is all there is and cannot change: what is kept until the peer
            # has confirmed it must not hold on to an object of any size.
            whole = isinstance(data, bytes) and size <= CHUNK_BYTES
            part = memoryview(data if whole else bytes(octets(data)[at : at + CHUNK_BYTES]))
            begin = at if whole else 0
            while begin < len(part) or not size:
                if one.given_up:
                    raise self._unsent(self.error(), at)
                took = one.write(part[begin:] if begin else part)
                begin, at = begin + took, at + took
                if self.wire is not None:
                    self.wire.flush()
                if at == size:
                    return
                if one.room() == 0:
                    try:
                        await self._wait_writable(limit_s, lambda _: "")
                    except DeadlineExceeded as late:
                        raise self._unsent(late, at) from None

    @staticmethod
    def _unsent(error: _E, sent_bytes: int) -> _E:
        error.sent_bytes = sent_bytes
        return error

    async def flush(self, *, deadline: float | None = None) -> None:
        """Wait until the peer's session has everything that was sent.

        Raises:
            DeadlineExceeded, SessionLost: before that; see ``confirmed_bytes``.
        """
        one, limit_s = self.core, asked_deadline(deadline)
        while not one.out.all_confirmed:
            if one.state in FAILED:
                raise self.error()
            one.ask()
            if self.wire is not None:
                self.wire.flush()
            await self._wait_writable(limit_s, why_unconfirmed)

    async def send_eof(self) -> None:
        """End this direction; the peer reads ``b""`` after all that was sent."""
        self.core.finish()
        if self.wire is not None:
            self.wire.flush()

    async def close(self, *, deadline: float | None = None) -> None:
        """End the session once everything has arrived, both ways. Unread bytes of the peer's reset it.

        Raises:
            DeadlineExceeded: the peer has not taken all, or not ended its direction; :meth:`abort` ends it.
            SessionLost: it had not all arrived.
        """
        limit_s = asked_deadline(deadline)
        self.core.close(now_s())
        if self.wire is not None:
            self.wire.flush()
        while not (self.core.ended or self.core.state in DONE):
            if self.core.state is State.RESETTING:
                break
            if self._done is None:
                self._done = self._waiter()
            await _until(self._done, limit_s, lambda: why_open(self.core))
        if self.core.state in FAILED:
            raise self.error()

    async def abort(self, code: int = Code.ABORTED) -> None:
        """Give the session up: the peer is told as soon as it can be, and nothing more is delivered.

        Raises:
            UsageError: the code does not fit 32 bits; the session goes on.
        """
        self.core.abort(code, now_s())
        if self.wire is not None:
            self.wire.flush()
        self.changed()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is not None:
                await self.abort()
            elif not self.core.ended and self.core.state is not State.RESETTING:
                await self._leave()
        finally:
            if self.leave is not None:
                await self.leave()

    async def _leave(self) -> None:
        """Close in time, or give up: nobody may be left to wait for ever."""
        try:
            await self.close(deadline=time.monotonic() + LEAVING_S)
        except asyncio.CancelledError:
            await self.abort()
            raise
        except DeadlineExceeded as late:
            await self.abort()
            raise DeadlineExceeded(why=f"{late.why}; so this end gave the session up") from None

    def error(self) -> SessionLost:
        """Why it ended, with what the peer has confirmed."""
        return session_lost(self.core, peer=self.peer, attempt=self.loss, parted=self.parted)

    async def _wait_writable(self, limit_s: float, late: Callable[[core.Session], str]) -> None:
        if self._writable is None:
            self._writable = self._waiter()
        await _until(self._writable, limit_s, lambda: late(self.core))

    def _waiter(self) -> asyncio.Future[None]:
        """To be woken by whoever moves the bytes, which another loop's future cannot be."""
        if asyncio.get_running_loop() is not self._loop:
            raise UsageError("This session belongs to another event loop: use it where it was opened.")
        return self._loop.create_future()

    # ---- whoever moves its bytes

    def follow(self, wire: Wire) -> None:
        """Something happened to a transport: it may carry the session now, or not any more."""
        if self.core.link is wire.link:
            self.wire, self.peer = wire, wire.peer
        elif self.wire is wire:
            self.wire, self.parted = None, wire.ending
            if isinstance(self.parted, BaseException):
                self.parted.with_traceback(None)  # which would keep the whole transport
        elif self.peer is None and wire.link.up:
            self.peer = wire.peer  # who ended it before it carried anything

    def changed(self) -> None:
        """Something happened: wake who waits for it, tell the observer."""
        one = self.core
        ended = one.ended or one.state in (State.RESETTING, State.CLOSING)
        if self._readable is not None and (one.into.held_bytes or one.into.ended or ended):
            _wake(self._readable)
        if self._writable is not None and (ended or one.room() or one.out.all_confirmed):
            waiting, self._writable = self._writable, None
            _wake(waiting)
        if self._done is not None and ended:
            waiting, self._done = self._done, None
            _wake(waiting)
        self._tell()

    def _tell(self) -> None:
        """Tell of what has changed since the last time."""
        one = self.core
        if one.state is State.OPENING or self._told is Happened.ENDED or not one.id:
            return  # of one that never began, whoever wanted to open it is told
        if one.ended:
            why = "" if one.state is State.CLOSED else why_ended(one, self.loss, self.parted)
            self._say(Happened.ENDED, why=why)
        elif one.link is None:
            if self._told is not Happened.SUSPENDED:
                self._lost_at_s = now_s()
                self._say(Happened.SUSPENDED, why=in_words(self.parted or ""))
        elif self._told is None:
            self._say(Happened.OPENED)
        elif self._told is Happened.SUSPENDED or one.resumes > self._resumes:
            gap_s = now_s() - self._lost_at_s if self._lost_at_s is not None else 0.0
            self._lost_at_s = None
            self.gap_s = max(self.gap_s, gap_s)
            self._say(Happened.RESUMED, gap_s)
        self._resumes = one.resumes

    def _say(self, what: Happened, recovery_s: float = 0.0, why: str = "") -> None:
        self._told = what
        one = self.core
        LOGGER.info(
            "session %s with %s: %s%s", self.id, self.peer or "its peer", what, why and f": {why}",
            extra={"holdfast_session": self.id, "holdfast_peer": self.peer,
                   "holdfast_resumes": one.resumes, "holdfast_why": why},
        )  # fmt: skip
        if self._observer is None:
            return
        event = SessionEvent(what, self.id, self.peer, one.resumes, one.replayed_bytes, recovery_s, why)
        try:
            self._observer(event)
        except Exception:  # noqa: BLE001 - a metric that fails ends no session
            LOGGER.exception("the observer failed with %s", event)


def _wake(waiting: asyncio.Future[None]) -> None:
    if not waiting.done():
        waiting.set_result(None)


async def _until(waiting: asyncio.Future[None], limit_s: float, late: Callable[[], str]) -> None:
    """Wait for a future that others may wait for too; ``late`` says what had not happened.

    Raises:
        DeadlineExceeded: it did not happen in time.
    """
    if limit_s == math.inf:
        await asyncio.shield(waiting)
        return
    try:
        async with asyncio.timeout(max(0.0, limit_s - time.monotonic())):
            await asyncio.shield(waiting)
    except TimeoutError:
        raise DeadlineExceeded(why=late()) from None
