"""One new transport for a session: every address in a race, handshakes included."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import asyncio
import ssl
import time
from collections import deque
from collections.abc import Callable
from math import inf
from typing import Any

from holdfast.errors import HoldfastError, NotTrusted
from holdfast.hold.drivers.policy import SessionPolicy, now_s
from holdfast.hold.drivers.wire import LATE, Wire
from holdfast.hold.race import Address, Race
from holdfast.hold.session import core
from holdfast.hold.session.codes import Code, Violation
from holdfast.hold.session.handshake import Channel
from holdfast.hold.session.link import Link
from holdfast.hold.session.states import State
from holdfast.hold.transports.dial import Dialer
from holdfast.hold.wire.session_pb2 import BUSY, DRAINING

REDIAL_S, MOST_AT_ONCE = 0.5, 6
"""How long attempts have before another joins them, and how many there are at most."""

PATIENCE_S = 3.0
"""How long a server that was reached has for its part: more attempts would only make a busy one slower. Also
how long the other addresses have for theirs when one of them has shown that it is not to be trusted.
"""

REFUSED: dict[int, str] = {
    BUSY: "it has no room for another (BUSY)",
    DRAINING: "it takes no new ones (DRAINING)",
}
"""What is refused for now only."""


class NotCarried(HoldfastError):
    """One transport did not get to carry the session.

    Attributes:
        retry_after_s: how long the server asked to wait.
    """

    def __init__(self, why: str, retry_after_s: float = 0.0) -> None:
        super().__init__(why)
        self.retry_after_s = retry_after_s


class Attempts:
    """Whatever is tried to get one session carried by a new transport.

    Attributes:
        wires: those on which a handshake is under way or ended well; who is told of changes removes them.
        loss: the last failure of those that go on, or went on last; None: one of them carried it.
        addresses: which were dialled last.

    Args:
        dialer: how to reach the server.
        policy: how long each may take.
        session: to be carried.
        ended: whether the session has ended, which nobody but the clock may have to say.
        changed: told when anything happened to a wire.
    """

    def __init__(
        self,
        dialer: Dialer,
        policy: SessionPolicy,
        session: core.Session,
        ended: Callable[[], bool],
        changed: Callable[[Wire], object],
    ) -> None:
        self._dialer, self._policy, self._session = dialer, policy, session
        self._ended, self._changed = ended, changed
        self.wires: list[Wire] = []
        self.loss: BaseException | None = None
        self.addresses: deque[Address] = deque()
        self._reached_s = -inf
        self._last: Address | None = None  # what carried it
        self._vacant: Address | None = None  # a location at which nobody listened the last time

    def _home(self) -> Address | None:
        """Where the server says that it is reached itself, if that may be dialled."""
        if self._session.location is None or not self._policy.follow_location:
            return None
        return self._dialer.home(self._session.location, self._last)

    async def carry(self) -> None:
        """Make a new transport carry the session: every address in a race, handshakes included.

        The server's location is dialled first, and not held up by the lookup of the name.

        Raises:
            NotTrusted: none did, and at one address another than the server answered.
            OSError, HoldfastError: none did.
        """
        home = self._home()
        self.addresses = known = deque([home] if home is not None else [])
        race = Race(known)
        looking = asyncio.create_task(self._dialer.addresses(self._policy.handshake_s))
        looking.add_done_callback(_seen)
        running: set[asyncio.Task[Any]] = {looking}
        untrusted, verdict_s = None, inf
        self._reached_s, self.loss = -inf, None
        try:
            while not self._ended():
                running |= self._begun(race, home)
                if not running:
                    raise untrusted or self.loss or NotCarried("no address to dial")
                wait_s = race.wait_s(time.monotonic())
                done, running = await asyncio.wait(
                    running,
                    timeout=REDIAL_S if wait_s is None else wait_s,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                for task in done:
                    error = task.exception()
                    if error is not None:
                        self.loss = error
                        if isinstance(error, NotTrusted):
                            untrusted, verdict_s = error, min(verdict_s, time.monotonic() + PATIENCE_S)
                        race.lost(error if isinstance(error, OSError) else OSError(str(error)))
                    elif task is looking:
                        found = [address for address in looking.result() if address != home]
                        known.extend(found)
                        race.add(found)
                    else:
                        self.loss = None  # its traceback would keep the transport that failed
                        return
                if home is not None and self._session.location is None:
                    break  # it begins anew, which it does where it was dialled
                silent = time.monotonic() >= self._reached_s + PATIENCE_S
                if untrusted is not None and self._session.state is State.OPENING:
                    # Only what is under way may still make a difference.
                    if wait_s is None and time.monotonic() >= verdict_s:
                        raise untrusted
                    continue
                if silent and not done and wait_s is None and len(running) < MOST_AT_ONCE and known:
                    # What was lost on the way is sent again ever later; a new one comes through at once.
                    race = Race([known[0]])
                    known.rotate(-1)
            raise self.loss or NotCarried("the session ended, or began anew, before a transport carried it")
        finally:
            for task in running:
                task.cancel()

    def _begun(self, race: Race, home: Address | None) -> set[asyncio.Task[None]]:
        """Attempts at the addresses that are due."""
        begun = set()
        while (address := race.take(time.monotonic())) is not None:
            begun.add(attempt := asyncio.create_task(self._try(address, home)))
            attempt.add_done_callback(_seen)
        return begun

    async def _open(
        self, address: Address, changed: Callable[[Wire], object], reached: asyncio.Event
    ) -> tuple[Wire, Channel]:
        def answered() -> Wire:
            """A server did; its TLS and the handshake are still to come."""
            reached.set()
            self._reached_s = time.monotonic()
            return Wire(changed)

        async with asyncio.timeout(self._policy.handshake_s):
            return await self._dialer.open(address, answered)

    async def _try(self, address: Address, home: Address | None) -> None:
        """One address: dial, shake hands."""
        one, policy = self._session, self._policy
        settled = asyncio.Event()

        def changed(wire: Wire) -> None:
            settled.set()
            self._changed(wire)

        if address == home:
            self._vacant = None  # only what it does now says whether anybody is there
        began_s, reached = now_s(), asyncio.Event()
        opening = asyncio.create_task(self._open(address, changed, reached))
        try:
            wire, channel = await asyncio.shield(opening)
        except asyncio.CancelledError:
            # It lost the race. Uvloop 0.23 logs an error for each TLS handshake that is cancelled, so that
            # may come to its end; what still dials may wait for long.
            opening.add_done_callback(_unwanted)
            if not reached.is_set():
                opening.cancel()
            raise
        except ConnectionRefusedError:
            if address == home:
                self._vacant = home
            raise
        except ssl.SSLError as error:
            raise NotCarried(f"TLS: {error}") from error
        link = Link(
            channel, began_s, handshake_s=policy.handshake_s, rhythm=one.terms.rhythm,
            # When a newer transport has taken the session: this one is closed when this turn is over.
            on_over=lambda: asyncio.get_running_loop().call_soon(wire.flush),
        )  # fmt: skip
        wire.carry(link)
        if one.ended or wire.gone:
            wire.abort()
            raise _reason(wire)
        self.wires.append(wire)
        # Where nobody listens at its location, who answers at its address may say that its server is gone.
        wire.link.open(one, now_s(), front=home not in (None, address, self._vacant))
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
        self._last = address


def _seen(attempt: asyncio.Task[Any]) -> None:
    """An attempt that failed when another had won already is nobody's concern."""
    if not attempt.cancelled():
        attempt.exception()


def _unwanted(opening: asyncio.Task[tuple[Wire, Channel]]) -> None:
    """A transport that comes when another has won."""
    if not opening.cancelled() and opening.exception() is None:
        opening.result()[0].abort()


def _reason(wire: Wire) -> Exception:
    denied = wire.link.denied
    if denied is not None and denied.restarted:
        return NotCarried("Another server answered there, which does not have the session.")
    if denied is not None:
        why = REFUSED.get(denied.reason, f"its reason is {denied.reason}")
        told = f"The server refused the session: {why}; come again in {denied.retry_after_s:g} s."
        return NotCarried(told, denied.retry_after_s)
    error = wire.error
    if isinstance(error, Violation) and error.code is not Code.SUPERSEDED and not wire.link.up:
        return _stranger(error)
    if isinstance(error, Exception):
        return error
    return NotCarried(LATE if wire.link.late else "the transport ended before its handshake did")


def _stranger(error: Violation) -> NotTrusted:
    """What answered in a handshake cannot be the server."""
    if error.code is Code.BAD_PROOF:
        why = (
            "The server does not show that it has this key: give both ends the same psk=, or none; "
            "if they have it, somebody between them ends TLS."
        )
    else:
        why = f"What answers there does not speak the session protocol: check the address. {error}"
    found = NotTrusted(why)
    found.__cause__ = error
    return found
