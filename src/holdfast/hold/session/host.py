"""A server's sessions: who is there, who may come, who has been away for too long."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections import OrderedDict
from collections.abc import Container

from holdfast.errors import UsageError
from holdfast.hold.session.core import Session
from holdfast.hold.session.half_open import HalfOpen
from holdfast.hold.session.keys import ID_BYTES, KEY_BYTES
from holdfast.hold.session.terms import Memory, Terms
from holdfast.hold.wire.session_pb2 import Location, Refusal, Welcome
from holdfast.policy.bounds import whole

REMEMBERED = 4096
"""How many ended sessions are remembered, so that a client that resumes one learns how it ended."""


class Host:
    """All sessions of one server process.

    Attributes:
        instance_id: random; another one after a restart, so that clients notice at once.
        terms: what it offers.
        memory: what all sessions may buffer.
        draining: no new sessions; those that are there go on.
        location: where this process is reached past whatever stands before it; None: clients are not told.
        refuses: why whoever asks is refused, whatever he asks for; None: nobody is.
        half_open: the places of transports whose first handshake is under way.
        later: handshakes that are under way on transports that are up.
        nobody, nobodys_key: a session that no client has, checked where one is asked for that is unknown.

    Args:
        terms: what it offers.
        memory: shared with whatever else holds sessions in this process.
        entropy: 48 random octets.
        most_sessions, most_half_open: bounds; the second holds for ``later`` by itself.
    """

    def __init__(
        self,
        terms: Terms,
        memory: Memory,
        entropy: bytes,
        *,
        most_sessions: int = 100_000,
        most_half_open: int = 512,
    ) -> None:
        if len(entropy) != ID_BYTES + KEY_BYTES:
            raise UsageError(f"entropy has {len(entropy)} bytes: give {ID_BYTES + KEY_BYTES}.")
        whole("most_sessions", most_sessions, 0, 1 << 32, "sessions")
        whole("most_half_open", most_half_open, 1, 1 << 32, "handshakes")
        self.instance_id, self.nobodys_key = entropy[:ID_BYTES], entropy[ID_BYTES:]
        self.terms, self.memory = terms, memory
        self.nobody = Session(terms, memory, 0)
        self.nobody.key = self.nobodys_key
        self.most_sessions = most_sessions
        self.draining = False
        self.location: Location | None = None
        self.refuses: Refusal | None = None
        self.retry_after_ms = 1000
        self.half_open, self.later = HalfOpen(most_half_open), 0
        self._sessions: dict[bytes, Session] = {}
        self._ended: OrderedDict[bytes, Session] = OrderedDict()

    @property
    def sessions(self) -> list[Session]:
        """Those that have not ended, as far as :meth:`look` knows."""
        return list(self._sessions.values())

    def __len__(self) -> int:
        return len(self._sessions)

    def find(self, session_id: bytes) -> Session | None:
        """The session of an id, even one that has ended and is remembered."""
        return self._sessions.get(session_id) or self._ended.get(session_id)

    def first_window(self) -> int:
        """What a new session's window would be now; 0: there is no room."""
        if len(self._sessions) >= self.most_sessions:
            return 0
        # Each of the other handshakes may become a session first.
        return self.memory.first_window(self.terms.window_bytes, others=len(self.half_open))

    def has_room(self, window: int) -> bool:
        """Whether a session that was offered this window may begin: handshakes on a transport that is up
        were promised nothing.
        """
        free = self.memory.cap_bytes - self.memory.promised_bytes
        return len(self._sessions) < self.most_sessions and 2 * window <= free

    def begin(self, welcome: Welcome, key: bytes) -> Session:
        """A new session, as it was offered and confirmed."""
        window = welcome.terms.limit
        self.memory.enter(window)
        session = Session(self.terms, self.memory, window)
        session.id, session.instance_id = welcome.session_id, self.instance_id
        session.key, session.generation = key, 1
        session.keep_s = welcome.terms.keep_ms / 1000
        self._sessions[session.id] = session
        return session

    def look(self, now_s: float, served: Container[bytes] = ()) -> list[Session]:
        """Time has passed: forget who was away too long; those that have just ended, in no order.

        Args:
            now_s: the time.
            served: the ids of sessions that somebody still serves; they count until that is over.
        """
        ended = []
        for session in self.sessions:
            session.look(now_s)
            if session.ended and session.id not in served:
                ended.append(session)
                self.forget(session)
        return ended

    def forget(self, session: Session) -> None:
        """A session has ended, and nobody serves it any more: only how it ended is remembered."""
        if self._sessions.pop(session.id, None) is None:
            return
        session.into.drop()
        session.release()
        self._ended[session.id] = session
        while len(self._ended) > REMEMBERED:
            self._ended.popitem(last=False)
