"""How sessions come onto one transport: every handshake on it; the first proves the transport too."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections import deque
from math import inf

from holdfast.hold.session.codes import Code, Violation
from holdfast.hold.session.core import Session
from holdfast.hold.session.frames import Buffer, Parser
from holdfast.hold.session.handshake import Channel, Said
from holdfast.hold.session.host import Host
from holdfast.hold.session.initiator import Initiator
from holdfast.hold.session.keys import Seal, Secrets
from holdfast.hold.session.outbox import Outbox
from holdfast.hold.session.responder import Responder
from holdfast.hold.wire.session_pb2 import BUSY

MOST_HANDSHAKES = 16
"""How many handshakes may be under way on one transport."""


class Entry:
    """The handshakes that are under way on a transport; frames are sealed from the first one on.

    Attributes:
        proven: both ends have proven themselves once.

    Args:
        channel: what the transport is.
        host: the server's sessions; None at the client.
        outbox, parser: of the transport.
        now_s: when the transport was there, from which on its first handshake counts.
        handshake_s: how long each may take, from its first frame on.
    """

    def __init__(
        self,
        channel: Channel,
        host: Host | None,
        outbox: Outbox,
        parser: Parser,
        *,
        now_s: float,
        handshake_s: float,
    ) -> None:
        self._channel, self._host, self._outbox, self._parser = channel, host, outbox, parser
        self._first_due_s, self._handshake_s = now_s + handshake_s, handshake_s
        self._under_way: dict[int, Initiator | Responder] = {}
        self._due_s: dict[int, float] = {}  # until when each must be over; the oldest is the first
        self._later: deque[tuple[Session, bool]] = (
            deque()
        )  # sessions to open once there is room for their handshakes
        self._last_handle = 0
        self._seal_next: Seal | None = None  # a server's, from the client's confirmation on
        self.proven = False

    def __len__(self) -> int:
        return len(self._under_way)

    @property
    def due_s(self) -> float:
        """Until when the next of them must be over, or the transport is given up."""
        if not self.proven:
            return self._first_due_s
        return next(iter(self._due_s.values()), inf)

    @property
    def _full(self) -> bool:
        return len(self._under_way) >= (MOST_HANDSHAKES if self.proven else 1)

    def open(self, session: Session, now_s: float, front: bool) -> None:
        """Begin a handshake (client). The first one proves the transport; what follows waits for that."""
        if self._full:
            self._later.append((session, front))
            return
        self._last_handle += 1
        initiator = Initiator(self._channel, session, front)
        self._begin(self._last_handle, initiator, now_s)
        self._say(self._last_handle, initiator.first())

    def _begin(self, handle: int, one: Initiator | Responder, now_s: float) -> None:
        self._under_way[handle] = one
        self._due_s[handle] = now_s + self._handshake_s

    def receive(self, kind: int, handle: int, payload: Buffer, now_s: float) -> Initiator | Responder | None:
        """A frame of a handshake; gives the end of it that has finished with that, well or badly.

        Raises:
            Violation: it has no place here, or a proof is wrong.
        """
        one = self._under_way.get(handle) or self._asked(handle, now_s)
        if isinstance(one, Initiator):
            said = one.receive(kind, payload)
            if one.agreed is not None:  # the confirmation is the first frame that is sealed
                self._seal_client(one.agreed.secrets)
            self._say(handle, said)
            finished = one.agreed is not None or one.denied is not None
        else:
            self._say(handle, one.receive(kind, payload, now_s))
            if one.agreed is not None and self._seal_next is not None:
                self._outbox.seal, self._seal_next = self._seal_next, None
            elif one.secrets is not None:
                self._seal_server(one.secrets)
            finished = one.agreed is not None or one.over
        if not finished:
            return None
        self._forget([handle])
        self.proven = self.proven or one.agreed is not None
        while self.proven and self._later and not self._full:
            session, front = self._later.popleft()
            self.open(session, now_s, front)
        return one

    def clear(self) -> None:
        """The transport is given up, and with it what was under way."""
        self._forget(list(self._under_way))
        self._later.clear()

    def _forget(self, handles: list[int]) -> None:
        for handle in handles:
            del self._under_way[handle], self._due_s[handle]
        if self._host is not None and self.proven:
            self._host.later -= len(handles)

    def _asked(self, handle: int, now_s: float) -> Responder:
        host = self._host
        if host is None or handle <= self._last_handle:  # none is used twice
            raise Violation(Code.OUT_OF_PLACE, f"a handshake on handle {handle}")
        if self._full:
            raise Violation(Code.TOO_MANY)
        refusal = host.refuses
        if self.proven:
            if refusal is None and host.later >= host.half_open.most:
                refusal = BUSY
            host.later += 1
        self._last_handle = handle
        responder = Responder(self._channel, host, refusal)
        self._begin(handle, responder, now_s)
        return responder

    def _say(self, handle: int, said: Said) -> None:
        for kind, payload in said:
            self._outbox.answer(kind, handle, payload)

    def _seal_client(self, secrets: Secrets) -> None:
        if self._channel.sealed and not self.proven:
            self._outbox.seal = Seal(secrets.client_traffic)
            self._parser.open = Seal(secrets.server_traffic).open

    def _seal_server(self, secrets: Secrets) -> None:
        """What the client says from its confirmation on is sealed; what we say, once it has confirmed."""
        if self._channel.sealed and not self.proven:
            self._parser.open = Seal(secrets.client_traffic).open
            self._seal_next = Seal(secrets.server_traffic)
