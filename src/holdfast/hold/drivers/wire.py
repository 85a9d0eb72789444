"""One transport under asyncio: moves bytes between it and its link, and keeps its time."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from typing import Any, cast

from holdfast.hold.drivers.ended import Ending
from holdfast.hold.drivers.news import SockAddr
from holdfast.hold.drivers.policy import now_s
from holdfast.hold.forks import mended_in_child
from holdfast.hold.heartbeat import Life
from holdfast.hold.session.codes import Code, Violation
from holdfast.hold.session.link import Link
from holdfast.hold.session.terms import ACK_DELAY_S
from holdfast.hold.transports.target import is_loopback

BUSY_S = 0.005
"""A transport that has something to send again so soon is busy."""

EARLY_S = 1.0
"""How much too early a timer may be: an idle one would otherwise wake the process beside each PING."""

LAST_WORDS_S = 5.0
"""How long a transport that was given up may take to end: its peer may never read, or never answer."""

PARTING_S = 0.1
"""How long whoever leaves waits for transports to end: a loop that is closed before resets them."""

LATE = "its handshake took longer than SessionPolicy.handshake_s"

LOGGER = logging.getLogger("holdfast.hold.session")
"""Where sessions are told of: the facts as fields ``holdfast_*`` of the record."""

SMALL_BYTES = 4096
"""So much is sooner copied than handed to the kernel in pieces."""

HIGH_BYTES = 1 << 18
"""What may wait in this process for the kernel: enough to keep it busy, little enough for a PING to pass."""


# glibc gives memory back to the kernel as soon as 128 KiB are free, and takes it again, page by page, for the
# next buffer: measured here, half of the time of a bulk transfer. Once a larger block was freed it keeps
# twice as much (mallopt(3), M_MMAP_THRESHOLD: "dynamic").
del (_block := [bytearray(4 << 20)])[0]


class _Room(threading.local):
    """A buffer for each thread, and so for each loop that runs."""

    def __init__(self) -> None:
        # A view, since asyncio's TLS writes into slices of it, and a slice of a bytearray is a copy.
        # It has room for two frames, so that most of them come whole.
        self.buffer = memoryview(bytearray(2 * HIGH_BYTES))


_ROOM = _Room()


class Wire(asyncio.BufferedProtocol):
    """The protocol of one transport.

    Attributes:
        link: what decides, once it is there; see :meth:`carry`.
        peer: the other end's address, still known when it is gone.
        gone: the transport is lost, or was given up.
        error: what ended it.

    Args:
        changed: called after anything happened to the link.
    """

    __slots__ = (
        "__weakref__",
        "_asked_s",
        "_below",
        "_changed",
        "_due_s",
        "_ended_there",
        "_flushing",
        "_parted",
        "_timer",
        "error",
        "gone",
        "link",
        "linked",
        "peer",
        "transport",
        "writable",
    )

    def __init__(self, changed: Callable[[Wire], object]) -> None:
        self._changed = changed
        self._timer: asyncio.TimerHandle | None = None
        self._due_s = self._asked_s = 0.0
        self.transport: asyncio.Transport | None = None
        self.writable = True
        self.gone = self.linked = False
        self._flushing = self._ended_there = False
        self._parted: asyncio.Future[None] | None = None
        self.error: BaseException | None = None
        self.peer: str | None = None
        mended_in_child(self, Wire._leave_to_parent)

    def _leave_to_parent(self) -> None:
        """In a forked child: one more word from here would break the parent's stream, and repeat a nonce."""
        self.gone = True

    # ---- asyncio calls these

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It is there."""
        self.transport = cast(asyncio.Transport, transport)
        self._below = _below(self.transport)
        self.transport.set_write_buffer_limits(high=HIGH_BYTES)
        self.peer = _name(transport.get_extra_info("peername"))

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where bytes are to go: one place for all transports of a thread, since none is kept."""
        return _ROOM.buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Bytes came."""
        if self.gone:
            return  # they crossed our end
        if not self.linked:  # a client speaks first
            self.give_up()
            return
        now = now_s()
        try:
            self.link.receive(_ROOM.buffer[:nbytes], now)
        except Violation as error:
            self.error = self.error or error
            # Outrun by another transport is what happens in a race, and nobody's fault.
            # Whoever has proven nothing may not fill the log.
            quiet = error.code is Code.SUPERSEDED or not self.link.up
            LOGGER.log(
                logging.DEBUG if quiet else logging.WARNING,
                "transport with %s given up: %s", self.peer, error,
                extra={"holdfast_peer": self.peer},
            )  # fmt: skip
        self.flush()
        self._changed(self)

    def pause_writing(self) -> None:
        """The kernel takes no more."""
        self.writable = False

    def resume_writing(self) -> None:
        """It does again."""
        self.writable = True
        self.flush()
        self._changed(self)

    def connection_lost(self, error: Exception | None) -> None:
        """It is gone, for whatever reason."""
        self.error = self.error or error
        self._ended_there = not self.gone
        self.transport = None
        if self._timer is not None:
            self._timer.cancel()
        self.give_up()
        if self._parted is not None and not self._parted.done():
            self._parted.set_result(None)

    # ---- its owner calls these

    @property
    def ending(self) -> Ending:
        """What ended it."""
        if self.error is not None:
            return self.error
        if self.linked and self.link.late:
            return LATE
        if self.linked and self.link.life is Life.DEAD:
            return "the peer gave no sign of life"
        if self.linked and self.link.goaway_s is not None:
            return "the peer asked for another one (GOAWAY)"
        return "the peer closed it" if self._ended_there else "this end closed it"

    def carry(self, link: Link) -> None:
        """From now on this link decides."""
        self.link, self.linked = link, True

    def flush(self) -> None:
        """Send what the link has to send, as far as the kernel takes it."""
        if self.transport is None or self.gone or self._flushing or not self.linked:
            return
        link, transport, now = self.link, self.transport, now_s()
        self._flushing = True  # a full buffer calls pause_writing, and that may come back to us
        try:
            # One that failed a write is gone, but says so in the loop's next turn only.
            while self.writable and not self._below.is_closing():
                parts = link.pull(HIGH_BYTES, now)
                if not parts:
                    break
                if sum(map(len, parts)) <= SMALL_BYTES:
                    transport.write(b"".join(parts))
                else:
                    transport.writelines(parts)
                if not link.more:
                    break
        finally:
            self._flushing = False
        if link.over:
            self.give_up()
            return
        self._set_timer(now)

    @property
    def ends(self) -> tuple[SockAddr, SockAddr] | None:
        """Its own address and the peer's; None where it has none, or none that could go."""
        if self.transport is None:
            return None
        local, peer = (self.transport.get_extra_info(name) for name in ("sockname", "peername"))
        if not (isinstance(local, tuple) and isinstance(peer, tuple)) or is_loopback(peer[0]):
            return None
        return local, peer

    def ask(self, gone: bool) -> None:
        """The way to the peer has changed, or is gone: see :meth:`Heartbeat.ask`."""
        if self.gone or not self.linked or self.link.heart is None:
            return
        now = now_s()
        self.link.heart.ask(now, gone)
        self.link.look(now)
        self.flush()
        self._changed(self)

    def give_up(self) -> None:
        """End it after what is under way; the sessions that it carried are suspended."""
        if self.gone:
            return
        self.gone = True
        if self._timer is not None:
            self._timer.cancel()
        if self.transport is not None:
            # Whatever is left to do: the peer may never read, or never end its own direction.
            self._timer = asyncio.get_running_loop().call_later(LAST_WORDS_S, self.transport.abort)
            self._part(self.transport)
        if self.linked:
            self.link.lost(now_s())
            self._changed(self)

    def _part(self, transport: asyncio.Transport) -> None:
        """End our direction, and let the peer's come to its end: to what is unread when a socket is closed,
        or comes later, Linux answers by a RST. Who has proven nothing, or broke the protocol, is not awaited.
        """
        if not (self.linked and self.link.up and self.error is None) or self._below.is_closing():
            transport.close()
        elif transport.can_write_eof():
            transport.write_eof()
        else:
            # Python's TLS has no half-close, and resets what crosses its own: wait until that is here.
            assert self.link.heart is not None  # up
            asyncio.get_running_loop().call_later(self.link.heart.trip.allowance_s, transport.close)

    async def parted(self, seconds: float) -> None:
        """Wait until the transport is no more, at most so long."""
        if self.transport is not None:
            if self._parted is None:
                self._parted = asyncio.get_running_loop().create_future()
            await asyncio.wait([self._parted], timeout=seconds)

    def abort(self) -> None:
        """Close it at once."""
        if self.transport is not None:
            self.transport.abort()
        self.give_up()

    def _set_timer(self, now: float) -> None:
        timer, soon_s = self._timer, now + ACK_DELAY_S
        if timer is not None and self._due_s <= soon_s:
            return  # nothing is ever due sooner than that
        if now < self._asked_s + BUSY_S:
            due_s = soon_s  # so that a busy transport need not ask each time
        else:
            self._asked_s, due_s = now, self.link.next_s()
        if timer is not None:
            if self._due_s <= due_s < self._due_s + EARLY_S:
                return  # it looks early, and sets itself again
            timer.cancel()
        self._due_s = due_s
        if due_s == float("inf"):
            self._timer = None
            return
        self._timer = asyncio.get_running_loop().call_later(max(0.001, due_s - now), self._look)

    def _look(self) -> None:
        self._timer, self._asked_s, now = None, 0.0, now_s()
        if self.link.next_s() > now:  # bytes came meanwhile, so nothing is due yet
            self._set_timer(now)
            return
        self.link.look(now)
        self.flush()
        self._changed(self)


def _below(transport: asyncio.Transport) -> asyncio.Transport:
    """What says whether a transport can still be written to.

    Asyncio's own of TLS does not ask the one below it (as of Python 3.13), which logs each write in vain.
    """
    found = getattr(getattr(transport, "_ssl_protocol", None), "_transport", None)
    return found if isinstance(found, asyncio.Transport) else transport


def _name(peername: Any) -> str | None:
    if isinstance(peername, tuple):
        host, port = peername[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    if isinstance(peername, bytes):
        return "@" + peername[1:].decode("utf-8", "replace")
    return peername or None
