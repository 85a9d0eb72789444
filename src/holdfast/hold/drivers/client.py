"""The client's end: dials until a transport carries the session, and again whenever it is in doubt."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import asyncio
import os
import random
import ssl
import time
from collections.abc import Callable, Collection
from types import TracebackType
from typing import Any

from holdfast.errors import GaveUp, HoldfastError, UsageError
from holdfast.hold.drivers.policy import Observer, SessionPolicy, now_s
from holdfast.hold.drivers.session import Session
from holdfast.hold.drivers.wire import LOGGER, Wire
from holdfast.hold.heartbeat import Life
from holdfast.hold.race import Address, Race
from holdfast.hold.retry import Budget
from holdfast.hold.session import core
from holdfast.hold.session.core import Why
from holdfast.hold.session.handshake import Channel
from holdfast.hold.session.link import Link
from holdfast.hold.session.states import Event, State
from holdfast.hold.session.terms import Memory
from holdfast.hold.transports.dial import Dialer, own_users
from holdfast.hold.transports.target import Target
from holdfast.hold.transports.trust import key_of

MEMORY = Memory()
"""What all sessions that this process dials may buffer."""

REDIAL_S, MOST_AT_ONCE = 0.5, 6
"""How long attempts have before another joins them, and how many there are at most."""

GLANCE_S = 0.1
LINGER_S = 1.0
"""How long the last words of a session that the application has left are tried to be said."""

_BUDGETS: dict[tuple[Target, object], Budget] = {}


class NotCarried(HoldfastError):
    """One transport did not get to carry the session.

    Attributes:
        retry_after_s: how long the server asked to wait.
    """

    def __init__(self, why: str, retry_after_s: float = 0.0) -> None:
        super().__init__(why)
        self.retry_after_s = retry_after_s


class Keeper:
    """Keeps one session carried, from its first handshake to its end.

    Args:
        dialer: how to reach the server.
        policy: how long and how often.
        observer: told of what happens to the session.
    """

    def __init__(
        self, dialer: Dialer, policy: SessionPolicy, observer: Observer | None, memory: Memory
    ) -> None:
        self._dialer, self._policy = dialer, policy
        terms = policy.terms()
        window = memory.first_window(terms.window_bytes)
        if not window:
            raise UsageError("The sessions of this process have all the memory that they may have.")
        memory.enter(window)
        self.session = Session(core.Session(terms, memory, window), observer)
        self.session.leave = self.leave
        self._wires: list[Wire] = []
        self._event = asyncio.Event()
        self._opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._losses: list[BaseException] = []
        self._budget = _BUDGETS.setdefault((dialer.target, policy.budget), Budget(policy.budget))
        self._task = asyncio.create_task(self._keep(), name=f"session with {dialer.target}")
        self._goaway_at: float | None = None

    async def open(self, deadline: float) -> Session:
        """Wait until the server has the session.

        Raises:
            GaveUp: nothing carried it in time, with the loss of each attempt.
            SessionLost: the server refused it.
        """
        try:
            async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
                await asyncio.shield(self._opened)
        except TimeoutError:
            self.leave()
            raise GaveUp(self._losses, "no transport carried the session in time") from None
        except BaseException:
            self.leave()
            raise
        return self.session

    def leave(self) -> None:
        """The application is done with it; the last words (CLOSE, RESET) may still have to be said."""
        if self.session.state not in (State.CLOSING, State.RESETTING):
            self._forget()
            return
        lingering = asyncio.get_running_loop().create_task(self._linger(), name="session leaves")
        lingering.add_done_callback(lambda _: self._forget())  # even if the loop ends before

    async def _linger(self) -> None:
        one, end = self.session.core, time.monotonic() + LINGER_S
        while not one.ended and time.monotonic() < end:
            await asyncio.sleep(0.01)

    def _forget(self) -> None:
        """Whether the server has heard or not: its transports and its share of the memory are free again."""
        self._task.cancel()
        for wire in list(self._wires):
            wire.give_up()
        self.session.core.lost(Event.EXPIRED, Why.EXPIRED)
        self.session.changed()

    # ---- what happens to its transports

    def _changed(self, wire: Wire) -> None:
        session, link = self.session, wire.link
        if session.core.link is link and session.wire is not wire:
            session.wire, session.peer = wire, wire.peer
        elif session.wire is wire and session.core.link is not link:
            session.wire = None
        if wire.gone and wire in self._wires:
            self._wires.remove(wire)
        if session.core.state is not State.OPENING and not self._opened.done():
            if session.core.state is State.LOST:
                self._opened.set_exception(session.error())
            else:
                self._opened.set_result(None)
        session.changed()
        if session.core.ended and not session.core.into.held_bytes:
            for other in [one for one in self._wires if not one.gone]:
                asyncio.get_running_loop().call_soon(other.give_up)
        if self._needs_transport or session.core.ended:
            self._event.set()

    @property
    def _needs_transport(self) -> bool:
        one = self.session.core
        if one.ended:
            return False
        if one.link is None:
            return True
        if one.link.goaway_s is not None:
            return True
        return one.link.life is Life.SUSPECT

    async def _keep(self) -> None:
        one, backoff = self.session.core, self._policy.backoff
        failures, carried_s = 0, time.monotonic()
        while not one.ended:
            if not self._needs_transport:
                self._event.clear()
                await self._event.wait()
                continue
            if one.link is not None and one.link.goaway_s:
                await self._while_carried(one.link.goaway_s * (0.5 + random.random() / 2))
            if time.monotonic() - carried_s >= backoff.stable_s:
                failures = 0
            # One that is accepted and dropped at once counts as a failure: no flood against a sick server.
            failures += 1
            if failures > 2:
                await self._pause(backoff.delay_s(failures - 2, random.random()))
            self._budget.request(time.monotonic())
            if not await self._carried():
                return
            carried_s = time.monotonic()

    async def _carried(self) -> bool:
        """Try until a transport carries the session; False: it has ended."""
        failures = 0
        while self._needs_transport:
            try:
                await self._carry()
                break  # if it is lost again already, that is counted where we came from
            except UsageError as error:
                if not self._opened.done():
                    self._opened.set_exception(error)
                return False
            except (OSError, HoldfastError, TimeoutError) as error:
                failures += 1
                del self._losses[:-15]
                self._losses.append(error)
                if await self._give_up_or_wait(failures):
                    return False
        return not self.session.core.ended

    async def _give_up_or_wait(self, failures: int) -> bool:
        """After a failed attempt; True: the session has ended."""
        LOGGER.debug("no transport for the session: %s", self._losses[-1])
        if self._expired():
            return True
        asked_s = getattr(self._losses[-1], "retry_after_s", 0.0)
        await self._pause(asked_s + self._policy.backoff.delay_s(failures, random.random()))
        while not self._expired() and not self._budget.retry(time.monotonic()):
            await self._pause(0.2 + random.random() / 5)
        return self.session.core.ended

    def _expired(self) -> bool:
        """Whether it has ended, which nobody but the clock may have to say."""
        one = self.session.core
        one.look(now_s())
        if one.ended:
            self.session.changed()
        return one.ended

    async def _pause(self, seconds: float) -> None:
        """Sleep, but not past the session's end, however long the server or the policy would like."""
        one = self.session.core
        if one.suspended_s is not None:
            seconds = min(seconds, max(0.0, one.suspended_s + one.keep_s - now_s()))
        await asyncio.sleep(seconds)

    async def _while_carried(self, seconds: float) -> None:
        """Sleep, but not past the end of what carries the session now."""
        link, end = self.session.core.link, time.monotonic() + seconds
        while self.session.core.link is link and link is not None and link.life is Life.ALIVE:
            left_s = end - time.monotonic()
            if left_s <= 0:
                return
            await asyncio.sleep(min(left_s, GLANCE_S))

    async def _carry(self) -> None:
        """Make a new transport carry the session: every address in a race, handshakes included.

        Raises:
            OSError, HoldfastError: none did.
        """
        addresses = await self._dialer.addresses(self._policy.handshake_s)
        race = Race(addresses)
        running: set[asyncio.Task[None]] = set()
        losses: list[BaseException] = []
        try:
            while not self._expired():
                while (address := race.take(time.monotonic())) is not None:
                    running.add(attempt := asyncio.create_task(self._try(address)))
                    attempt.add_done_callback(_seen)
                if not running:
                    raise losses[-1] if losses else NotCarried("no address to dial")
                wait_s = race.wait_s(time.monotonic())
                done, running = await asyncio.wait(
                    running,
                    timeout=REDIAL_S if wait_s is None else wait_s,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                for task in done:
                    error = task.exception()
                    if error is None:
                        return
                    losses.append(error)
                    race.lost(error if isinstance(error, OSError) else OSError(str(error)))
                if not done and wait_s is None and len(running) < MOST_AT_ONCE:
                    # What was lost on the way is sent again ever later; a new one comes through at once.
                    race = Race(addresses[:1])
            raise NotCarried("the session ended before a transport carried it")
        finally:
            for task in running:
                task.cancel()

    async def _open(self, address: Address, changed: Callable[[Wire], object]) -> tuple[Wire, Channel]:
        async with asyncio.timeout(self._policy.handshake_s):
            return await self._dialer.open(address, lambda: Wire(changed))

    async def _try(self, address: Address) -> None:
        """One address: dial, shake hands."""
        one, policy = self.session.core, self._policy
        settled = asyncio.Event()

        def changed(wire: Wire) -> None:
            settled.set()
            self._changed(wire)

        began_s = now_s()
        opening = asyncio.create_task(self._open(address, changed))
        try:
            wire, channel = await asyncio.shield(opening)
        except asyncio.CancelledError:
            # It lost the race. Uvloop 0.23 logs an error for each TLS handshake that is cancelled, so this
            # one may come to its end.
            opening.add_done_callback(_unwanted)
            raise
        except ssl.SSLError as error:
            raise NotCarried(f"TLS: {error}") from error
        wire.carry(Link(channel, began_s, handshake_s=policy.handshake_s, rhythm=one.terms.rhythm))
        self._wires.append(wire)
        if one.ended:
            wire.give_up()
            return
        wire.link.open(one)
        wire.flush()
        try:
            while one.link is not wire.link:
                if wire.gone or wire.link.over or one.ended:
                    raise _reason(wire)
                settled.clear()
                await settled.wait()
        except BaseException:
            wire.give_up()
            raise


def _seen(attempt: asyncio.Task[None]) -> None:
    """An attempt that failed when another had won already is nobody's concern."""
    if not attempt.cancelled():
        attempt.exception()


def _unwanted(opening: asyncio.Task[tuple[Wire, Channel]]) -> None:
    """A transport that comes when another has won."""
    if not opening.cancelled() and opening.exception() is None:
        opening.result()[0].abort()


def _reason(wire: Wire) -> Exception:
    denied = wire.link.denied
    if denied is not None:
        return NotCarried("the server refused the session", denied.retry_after_s)
    if isinstance(wire.error, Exception):
        return wire.error
    return NotCarried("the transport ended, or its time was up, before the handshake did")


class Dial:
    """A session that is about to be opened: ``async with`` it, ``await`` it, or ``with`` it to block.

    Args:
        url: ``tcp://host:port``, ``tls://host:port`` or ``unix:///path``.
        policy: how it is kept.
        psk: a pre-shared key of at least 32 bytes, or the path of a file that only its owner may read.
        tls: the context of ``tls://``; None: the system's authorities, TLS 1.3.
        deadline: of the opening, on ``time.monotonic()``; None: 30 seconds from now.
        observer: told of every :class:`~holdfast.hold.drivers.policy.SessionEvent`.
        peers: whose processes may be at the other end of a Unix socket; None: this user's and root's.

    Raises:
        UsageError: the URL is none, the key too short, or what is asked for would not be safe.
    """

    def __init__(
        self,
        url: str,
        *,
        policy: SessionPolicy | None = None,
        psk: bytes | str | os.PathLike[str] | None = None,
        tls: ssl.SSLContext | None = None,
        deadline: float | None = None,
        observer: Observer | None = None,
        peers: Collection[int] | None = None,
        memory: Memory | None = None,
    ) -> None:
        target, self._policy = Target.parse(url), policy or SessionPolicy()
        if target.port == 0 and target.scheme != "unix":
            raise UsageError(f"{url!r} has port 0: give the port at which the server listens.")
        if target.scheme == "tls":
            tls = tls or ssl.create_default_context()
        elif tls is not None:
            raise UsageError(f"A TLS context has no use with {target.scheme}://: use tls://.")
        self._dialer = Dialer(
            target, key_of(psk), tls, self._policy.socket_policy if target.scheme != "unix" else None,
            own_users() if peers is None else frozenset(peers),
        )  # fmt: skip
        self._deadline, self._observer = deadline, observer
        self._memory = memory or MEMORY
        self._session: Session | None = None
        self._blocking: Any = None

    async def open(self) -> Session:
        """The session, once the server has it.

        Raises:
            GaveUp: nothing carried it in time, with the loss of each attempt.
            SessionLost: the server refused it.
            UsageError: it would not be safe.
        """
        keeper = Keeper(self._dialer, self._policy, self._observer, self._memory)
        return await keeper.open(self._deadline if self._deadline is not None else time.monotonic() + 30)

    def __await__(self) -> Any:
        return self.open().__await__()

    async def __aenter__(self) -> Session:
        self._session = await self.open()
        return self._session

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._session is not None  # __aenter__ made it
        await self._session.__aexit__(kind, error, trace)

    def __enter__(self) -> Any:
        from holdfast.hold.drivers.blocking import BlockingSession

        self._blocking = BlockingSession(self)
        return self._blocking

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._blocking.__exit__(kind, error, trace)
