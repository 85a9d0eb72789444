"""The server's end: accepts transports, runs a handler for each session, forgets who is away too long."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import asyncio
import contextlib
import os
import random
import socket
import ssl
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Generator, Hashable
from typing import Any, Self

from holdfast.errors import DeadlineExceeded, NotTrusted, SessionLost, Truncated, UsageError
from holdfast.hold.drivers.asked import asked_observer, asked_peers, asked_policy, check_handler
from holdfast.hold.drivers.listener import Listener, bound
from holdfast.hold.drivers.policy import Observer, SessionPolicy, now_s
from holdfast.hold.drivers.session import Session
from holdfast.hold.drivers.wire import LOGGER, PARTING_S, Wire
from holdfast.hold.options import apply
from holdfast.hold.session import core
from holdfast.hold.session.half_open import Place
from holdfast.hold.session.host import Host
from holdfast.hold.session.keys import ID_BYTES, KEY_BYTES
from holdfast.hold.session.link import Link
from holdfast.hold.session.states import State
from holdfast.hold.session.terms import LEAST_WINDOW_BYTES, MOST_MEMORY_BYTES, Memory
from holdfast.hold.transports.location import announced
from holdfast.hold.transports.target import Target, origin
from holdfast.hold.transports.trust import channel, check_creds, check_plain, key_of, peer_user, server_tls
from holdfast.hold.wire.session_pb2 import STRANGER, Location
from holdfast.policy.bounds import real, whole

MOST_STRANGERS = 16
"""How many may be about to be told at once that they are not served; more are closed without a word."""

Handle = Callable[[Session], Awaitable[None]]
LOOK_S = 0.25
"""How often is looked at the sessions that are away."""

SWEEP_EVERY = 40
"""In looks: how often at all of them, also those whose handler has gone."""


class SessionServer:
    """Serves sessions on one address: ``async with`` it, or ``await`` it and ``close`` it.

    Args:
        handle: run in a task for each session; when it returns, the session is closed.
        url: ``tcp://host:port``, ``tls://host:port`` or ``unix:///path``; port 0: the kernel chooses.
        policy: how sessions are kept.
        psk: a pre-shared key of at least 32 bytes, or the path of a file that only its owner may read.
        certificate, key: the PEM files of ``tls://``; the key only for its owner to read.
        location: this server's own address as a URL, where others serve at ``url`` as well (behind a load
            balancer): clients resume there. Port 0: that of ``url``.
        observer: told of every :class:`~holdfast.hold.drivers.policy.SessionEvent`.
        peers: whose processes may dial a Unix socket; None: this user's and root's.
        memory_bytes: what all sessions may buffer.
        most_sessions, most_half_open: how many there may be.
        sock: a bound socket to use instead of binding one.

    Raises:
        UsageError: what is asked for cannot be, or would not be safe.
    """

    def __init__(
        self,
        handle: Handle,
        url: str,
        *,
        policy: SessionPolicy | None = None,
        psk: bytes | str | os.PathLike[str] | None = None,
        certificate: str | os.PathLike[str] | None = None,
        key: str | os.PathLike[str] | None = None,
        location: str | None = None,
        observer: Observer | None = None,
        peers: Collection[int] | None = None,
        memory_bytes: int = 1 << 30,
        most_sessions: int = 100_000,
        most_half_open: int = 512,
        sock: socket.socket | None = None,
    ) -> None:
        check_handler(handle)
        self._target, self._policy = Target.parse(url), asked_policy(policy)
        self._key = key_of(psk)
        self._tls: ssl.SSLContext | None = None
        binding = b""
        if self._target.scheme == "tls":
            if certificate is None or key is None:
                raise UsageError("tls:// needs certificate= and key=, the paths of PEM files.")
            self._tls, binding = server_tls(certificate, key)
        elif certificate is not None or key is not None:
            raise UsageError(f"A certificate has no use with {self._target.scheme}://: use tls://.")
        self._channel = channel(self._target, self._key, binding)
        self._location = announced(location, self._target, self._key) if location is not None else None
        self._handle, self._observer = handle, asked_observer(observer)
        self._peers = asked_peers(peers)
        whole("memory_bytes", memory_bytes, 2 * LEAST_WINDOW_BYTES, MOST_MEMORY_BYTES, "bytes")
        entropy = os.urandom(ID_BYTES + KEY_BYTES)
        self.host = Host(
            self._policy.terms(), Memory(memory_bytes), entropy,
            most_sessions=most_sessions, most_half_open=most_half_open,
        )  # fmt: skip
        # Who is not among the peers is told so, with the instance that he may know, and is kept apart: he
        # must not take the places of those who are.
        self._strangers = Host(
            self.host.terms, self.host.memory, entropy, most_sessions=0, most_half_open=MOST_STRANGERS
        )
        self._strangers.refuses = STRANGER
        self._sock = sock
        self._listener: Listener | None = None
        self._sessions: dict[bytes, Session] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._wires: set[Wire] = set()
        self._away: set[Session] = set()
        self._looks = 0
        self._looking: asyncio.TimerHandle | None = None
        self._closed = False

    # ---- life

    async def start(self) -> Self:
        """Begin to listen.

        Raises:
            OSError: the address cannot be bound.
            UsageError: others than this host could reach it, without encryption or authentication.
        """
        loop = asyncio.get_running_loop()
        sock = self._sock or bound(self._target)
        try:
            if self._target.scheme == "tcp":
                check_plain(sock.getsockname()[0], self._key)
            if self._target.scheme != "unix":
                apply(self._policy.socket_policy, sock)  # every accepted socket inherits it
            self._listener = Listener(
                sock,
                lambda place: _Accepted(self, place),
                tls=self._tls,
                handshake_s=self._policy.handshake_s,
                half_open=self.host.half_open,
                bound_here=self._sock is None,
            )
            await self._listener.start()
            if self._location is not None:
                ip, port = self._location
                self.host.location = Location(address=ip, port=port or sock.getsockname()[1])
        except BaseException:
            sock.close()
            raise
        self._looking = loop.call_later(LOOK_S, self._look)
        return self

    @property
    def url(self) -> str:
        """Where clients dial, with the port that the kernel chose."""
        if self._listener is None or self._target.scheme == "unix":
            return str(self._target)
        return str(Target(self._target.scheme, *self._listener.address))

    @property
    def sessions(self) -> list[Session]:
        """Those that have not ended."""
        return list(self._sessions.values())

    def counts(self) -> dict[State, int]:
        """How many sessions are in each state."""
        return dict(Counter(session.state for session in self._sessions.values()))

    def drain(self, after_s: float | None = 1.0) -> None:
        """Take no new sessions, and ask those that are there to come back on another transport.

        Args:
            after_s: how long they may take, so that they do not all come at once; None: they stay where
                they are until they end.

        Raises:
            UsageError: it is no number of seconds up to a day.
        """
        if after_s is not None:
            real("after_s", after_s, 0, 86400)
        self.host.draining = True
        if after_s is None:
            return
        for wire in list(self._wires):
            if wire.link.up:
                wire.link.go_away(after_s * random.random())
                wire.flush()

    async def drained(self) -> None:
        """Wait until no handler of a session runs any more; after :meth:`drain` that is for good."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def close(self) -> None:
        """Stop: transports are closed, handlers are cancelled, and their sessions are forgotten."""
        if self._looking is not None:
            self._looking.cancel()
        if self._listener is not None:
            self._listener.close()
        self._closed = True
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        wires = list(self._wires)
        for wire in wires:
            wire.give_up()
        await asyncio.gather(*(wire.parted(PARTING_S) for wire in wires))
        for wire in wires:
            wire.abort()
        if self._listener is not None:
            await self._listener.wait_closed()
        await asyncio.sleep(0)  # transports close in the next turn of the loop

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def __await__(self) -> Generator[Any, None, Self]:
        return self.start().__await__()

    # ---- transports

    def met(self, wire: Wire, accepted_s: float, place: Place | None) -> None:
        """A transport is there, its TLS included: one whose TLS fails is never heard of."""
        transport = wire.transport
        assert transport is not None  # it was just made
        host, comes_from = self._host_for(transport)
        if place is None:
            place = host.half_open.enter(comes_from, wire.abort)
        if place is None:
            wire.abort()
            return
        place.evict = wire.abort
        link = Link(
            self._channel,
            accepted_s,
            host=host,
            place=place,
            handshake_s=self._policy.handshake_s,
            on_session=lambda session: self._begin(session, wire),
            on_over=lambda: self._over(wire),
        )
        wire.carry(link)
        if self._closed:
            wire.abort()
            return
        self._wires.add(wire)
        wire.flush()  # sets the timer of the handshake

    def _host_for(self, transport: asyncio.Transport) -> tuple[Host, Hashable]:
        """Whose sessions may be asked for on a transport, and where it comes from."""
        if self._target.scheme != "unix":
            peer = transport.get_extra_info("peername")  # None: gone already (uvloop)
            return self.host, origin(peer[0]) if peer else None
        sock = transport.get_extra_info("socket")
        try:
            check_creds(sock, self._peers)
        except NotTrusted as error:
            LOGGER.warning("transport refused: %s", error)
            return self._strangers, peer_user(sock)
        return self.host, peer_user(sock)

    def _over(self, wire: Wire) -> None:
        """A newer transport took its last session: close it when this turn is over."""
        asyncio.get_running_loop().call_soon(wire.flush)

    def changed(self, wire: Wire) -> None:
        """Something happened to a transport: its sessions may have to know."""
        link = wire.link
        for one in link.changed():
            session = self._sessions.get(one.id)
            if session is None:
                continue
            session.follow(wire)
            if one.suspended_s is not None:
                self._away.add(session)
            session.changed()
        if wire.gone:
            self._wires.discard(wire)

    # ---- sessions

    def _begin(self, one: core.Session, wire: Wire) -> None:
        session = Session(one, self._observer)
        session.wire, session.peer = wire, wire.peer
        if self._closed:
            return  # its transport is about to be given up
        self._sessions[one.id] = session
        task = asyncio.get_running_loop().create_task(self._run(session), name=f"session {session.id}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, session: Session) -> None:
        try:
            with contextlib.suppress(SessionLost, DeadlineExceeded, Truncated):
                async with session:
                    await _handled(self._handle(session))
        except Exception:  # noqa: BLE001 - the handler's own mistake ends its session, and no other
            LOGGER.exception("the handler of session %s failed", session.id)
        finally:
            self._sessions.pop(session.core.id, None)
            session.core.into.drop()  # nobody will read it
            if session.core.ended:
                self.host.forget(session.core)

    def _look(self) -> None:
        """Who was away for too long?"""
        for session in list(self._away):
            session.core.look(now_s())
            if session.core.ended:
                if session.core.id not in self._sessions:
                    self.host.forget(session.core)
                session.changed()
            if session.core.suspended_s is None:
                self._away.discard(session)
        self._looks += 1
        if self._looks % SWEEP_EVERY == 0:
            self.host.look(now_s(), self._sessions)
        self._looking = asyncio.get_running_loop().call_later(LOOK_S, self._look)


async def _handled(handling: Awaitable[object]) -> None:
    """An end of the stream where the handler awaits another message, and no part of it came, is in order."""
    try:
        await handling
    except Truncated as end:
        if end.partial:
            raise


class _Accepted(Wire):
    """A wire that tells its server when it is there."""

    __slots__ = ("_accepted_s", "_place", "_serving")

    def __init__(self, serving: SessionServer, place: Place | None) -> None:
        super().__init__(serving.changed)
        self._serving, self._accepted_s, self._place = serving, now_s(), place

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._serving.met(self, self._accepted_s, self._place)
