"""Keeps a client's session carried: a new transport whenever there is none, or the one there is in doubt."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import asyncio
import contextlib
import random
import time
from functools import lru_cache

from holdfast.errors import GaveUp, HoldfastError, NotTrusted, UsageError
from holdfast.hold.drivers.attempts import Attempts
from holdfast.hold.drivers.news import Fate, News, route_watch
from holdfast.hold.drivers.policy import Observer, SessionPolicy, now_s
from holdfast.hold.drivers.session import Session
from holdfast.hold.drivers.wire import LOGGER, PARTING_S, Wire
from holdfast.hold.heartbeat import Life
from holdfast.hold.retry import Budget
from holdfast.hold.session import core
from holdfast.hold.session.codes import Code
from holdfast.hold.session.core import Why
from holdfast.hold.session.states import Event, State
from holdfast.hold.session.terms import Memory
from holdfast.hold.transports.dial import Dialer
from holdfast.hold.transports.target import Target
from holdfast.policy import RetryBudget

GLANCE_S = 0.1
LINGER_S = 1.0
"""How long the last words of a session that the application has left are tried to be said."""


@lru_cache(maxsize=1024)
def _budget(target: Target, rule: RetryBudget) -> Budget:
    """One for all sessions with a target, also those that follow each other; the least used are forgotten."""
    return Budget(rule)


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
        self._policy = policy
        terms = policy.terms()
        window = memory.first_window(terms.window_bytes)
        if not window:
            raise UsageError("The sessions of this process have all the memory that they may have.")
        memory.enter(window)
        self.session = Session(core.Session(terms, memory, window), observer)
        self.session.leave = self.end
        self._attempts = Attempts(dialer, policy, self.session.core, self._expired, self._changed)
        self._event, self._news = asyncio.Event(), asyncio.Event()
        self._opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._losses: list[BaseException] = []
        self._budget = _budget(dialer.target, policy.budget)
        self._task = asyncio.create_task(self._keep(), name=f"session with {dialer.target}")
        self._task.add_done_callback(self._kept)
        if dialer.target.remote:
            route_watch().enter(self)

    async def open(self, deadline: float) -> Session:
        """Wait until the server has the session.

        Raises:
            GaveUp: nothing carried it in time, with the loss of each attempt.
            NotTrusted: another than the server answered, so that trying again would be in vain.
            SessionLost: the server refused it.
        """
        try:
            async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
                await asyncio.shield(self._opened)
        except TimeoutError:
            await self._abandon()
            raise GaveUp(self._losses, "no transport carried the session in time") from None
        except BaseException:
            await self._abandon()
            raise
        return self.session

    async def _abandon(self) -> None:
        """Nobody waits for it any more; waits for nothing either."""
        self._opened.cancel()
        if self.session.state in (State.OPEN, State.SUSPENDED):
            await self.session.abort()
        self.leave()

    async def end(self) -> None:
        """The application has left it; wait a little for what carries it to end, too."""
        wires = list(self._attempts.wires)
        self.leave()
        await asyncio.gather(*(wire.parted(PARTING_S) for wire in wires))

    def leave(self) -> None:
        """The application is done with it; the last words (CLOSE, RESET) may still have to be said."""
        if self.session.state not in (State.CLOSING, State.RESETTING) and not self._may_be_there:
            self._forget()
            return
        lingering = asyncio.get_running_loop().create_task(self._linger(), name="session leaves")
        lingering.add_done_callback(lambda _: self._forget())  # even if the loop ends before

    @property
    def _may_be_there(self) -> bool:
        """The server was told that the session begins, and has not answered: it would keep it for nobody."""
        opening = self.session.state is State.OPENING
        return opening and any(wire.linked and wire.link.up for wire in self._attempts.wires)

    async def _linger(self) -> None:
        one, end = self.session.core, time.monotonic() + LINGER_S
        while not one.ended and time.monotonic() < end:
            if one.state is State.OPEN:  # the answer came to who had left meanwhile
                await self.session.abort()
            await asyncio.sleep(0.01)

    def _forget(self) -> None:
        """Whether the server has heard or not: its transports and its share of the memory are free again."""
        self._task.cancel()
        for wire in list(self._attempts.wires):
            wire.give_up()
        self.session.core.lost(Event.EXPIRED, Why.EXPIRED)
        self.session.core.release()
        self.session.changed()

    def _kept(self, task: asyncio.Task[None]) -> None:
        """Nobody dials any more. What the application has not read of an ended session is its own now."""
        route_watch().leave(self)
        if self.session.core.ended:
            self.session.core.release()
        if task.cancelled() or (mistake := task.exception()) is None:
            return
        if not self._opened.done():
            self._opened.set_exception(mistake)
            return
        LOGGER.error("session %s has nobody to dial for it any more", self.session.id, exc_info=mistake)
        self.session.core.abort(Code.ABORTED, now_s())
        self.session.changed()

    # ---- what happens to its transports

    def read(self, news: News) -> None:
        """Addresses or routes of this machine have changed."""
        wire = self.session.wire
        if self.session.core.link is None or wire is None:
            dialled = self._attempts.addresses
            # Without any the name could not be looked up, which any change may mend.
            if not dialled or any(news.concerns(address.sockaddr[0]) for address in dialled):
                self._news.set()
            return
        ends = wire.ends
        fate = Fate.SAME if ends is None else news.fate(*ends)
        if fate is not Fate.SAME:
            wire.ask(fate is Fate.GONE)

    def _changed(self, wire: Wire) -> None:
        session = self.session
        if wire.linked:
            session.follow(wire)
        if wire.gone and wire in self._attempts.wires:
            self._attempts.wires.remove(wire)
        if session.core.state is not State.OPENING and not self._opened.done():
            if session.core.why is Why.STRANGER:
                self._opened.set_exception(NotTrusted(f"Not opened: {Why.STRANGER}."))
            elif session.core.state is State.LOST:
                self._opened.set_exception(session.error())
            else:
                self._opened.set_result(None)
        session.changed()
        if session.core.ended and not session.core.into.held_bytes:
            for other in [one for one in self._attempts.wires if not one.gone]:
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
                await self._attempts.carry()
                self.session.loss = None
                break  # if it is lost again already, that is counted where we came from
            except (OSError, HoldfastError, TimeoutError) as error:
                if isinstance(error, UsageError | NotTrusted) and not self._opened.done():
                    self._opened.set_exception(error)
                    return False
                # Later it is one more loss: a name may stand for another host, and for ours again. And
                # whoever spoils handshakes on the way must not be able to end what is only suspended.
                if isinstance(error, NotTrusted) or not isinstance(self.session.loss, NotTrusted):
                    self.session.loss = error
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
        await self._pause(asked_s)
        self._news.clear()
        await self._pause(self._policy.backoff.delay_s(failures, random.random()), unless=self._news)
        while not self._expired() and not self._budget.retry(time.monotonic()):
            await self._pause(0.2 + random.random() / 5)
        return self.session.core.ended

    def _expired(self) -> bool:
        """Whether it has ended, which nobody but the clock may have to say."""
        one = self.session.core
        one.look(now_s())
        if one.ended:
            self.session.loss = self.session.loss or self._attempts.loss
            self.session.changed()
        return one.ended

    async def _pause(self, seconds: float, unless: asyncio.Event | None = None) -> None:
        """Sleep, but not past the session's end, however long the server or the policy would like."""
        one, now = self.session.core, now_s()
        # One that is carried may be suspended at once.
        end_s = (now if one.suspended_s is None else one.suspended_s) + one.keep_s
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(seconds, max(0.0, end_s - now))):
                await (unless or asyncio.Event()).wait()

    async def _while_carried(self, seconds: float) -> None:
        """Sleep, but not past the end of what carries the session now."""
        link, end = self.session.core.link, time.monotonic() + seconds
        while self.session.core.link is link and link is not None and link.life is Life.ALIVE:
            left_s = end - time.monotonic()
            if left_s <= 0:
                return
            await asyncio.sleep(min(left_s, GLANCE_S))
