"""What opens a client's session."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import ssl
import time
from collections.abc import Collection
from types import TracebackType
from typing import Any

from holdfast.errors import UsageError
from holdfast.hold.drivers.asked import asked_observer, asked_opening, asked_peers, asked_policy
from holdfast.hold.drivers.keeper import Keeper
from holdfast.hold.drivers.policy import Observer, SessionPolicy
from holdfast.hold.drivers.session import Session
from holdfast.hold.session.terms import Memory
from holdfast.hold.transports.dial import Dialer
from holdfast.hold.transports.target import Target
from holdfast.hold.transports.trust import key_of

MEMORY = Memory()
"""What all sessions that this process dials may buffer."""


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
        UsageError: the URL is none, the key too short, an argument of the wrong kind, or what is asked for
            would not be safe.
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
        target, self._policy = Target.parse(url), asked_policy(policy)
        asked_opening(deadline)
        if target.port == 0 and target.scheme != "unix":
            raise UsageError(f"{url!r} has port 0: give the port at which the server listens.")
        if target.scheme == "tls":
            tls = tls or ssl.create_default_context()
        elif tls is not None:
            raise UsageError(f"A TLS context has no use with {target.scheme}://: use tls://.")
        self._dialer = Dialer(
            target, key_of(psk), tls, self._policy.socket_policy if target.scheme != "unix" else None,
            asked_peers(peers),
        )  # fmt: skip
        self._deadline, self._observer = deadline, asked_observer(observer)
        self._memory = memory or MEMORY
        self._session: Session | None = None
        self._blocking: Any = None

    async def open(self) -> Session:
        """The session, once the server has it.

        Raises:
            GaveUp: nothing carried it in time, with the loss of each attempt.
            NotTrusted: what answered has another key, certificate, user or protocol.
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
