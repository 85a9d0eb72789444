"""One transport, from its first byte to its last: handshakes, then the frames of the sessions it carries."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Callable

from holdfast.hold.heartbeat import LEAD, Heartbeat, Life, Rhythm
from holdfast.hold.session.allowance import Allowance
from holdfast.hold.session.codes import Code, Violation
from holdfast.hold.session.core import Session
from holdfast.hold.session.entry import Entry
from holdfast.hold.session.frames import (
    ACK,
    ASK,
    DATA,
    LARGEST_BYTES,
    OFFSET,
    PAIR,
    Buffer,
    Frame,
    Kind,
    Parser,
    unpack,
)
from holdfast.hold.session.half_open import Place
from holdfast.hold.session.handshake import Agreed, Channel, Denied, parsed
from holdfast.hold.session.host import Host
from holdfast.hold.session.initiator import Initiator
from holdfast.hold.session.keys import TAG_BYTES
from holdfast.hold.session.outbox import Outbox
from holdfast.hold.session.states import Event, State
from holdfast.hold.session.terms import HANDSHAKE_S
from holdfast.hold.wire.heartbeat_pb2 import Ping, Pong
from holdfast.hold.wire.session_pb2 import GoAway, Reset

LEAST_FRAME_BYTES = 16
SESSION_EVENTS = {
    Kind.CLOSE: Event.CLOSE_THERE,
    Kind.CLOSE_OK: Event.CLOSE_CONFIRMED,
    Kind.RESET: Event.RESET_THERE,
    Kind.RESET_OK: Event.RESET_CONFIRMED,
}
ANSWERS = {Kind.CLOSE: Kind.CLOSE_OK, Kind.RESET: Kind.RESET_OK}


class Link:
    """One end of one transport; it is given bytes and the time, and gives bytes.

    Attributes:
        up: both ends have proven themselves, and what they say counts.
        over: give the transport up: nothing more will come of it. late: because a handshake took too long.
        life: what the heartbeat thinks of the peer.
        heart: the heartbeat, once up.
        more: what there was to send did not fit into the last :meth:`pull`.
        goaway_s: the peer asked to come back on another transport, after so many seconds.
        denied: how a handshake was refused.

    Args:
        channel: what the transport is.
        now_s: seconds on a clock that goes on while the machine sleeps.
        host: the server's sessions; None at the client.
        place: the one that the host gave this transport; None: it asks for one, as if of nowhere.
        handshake_s: how long a handshake may take in all, the first one from ``now_s`` on.
        rhythm: of the heartbeat.
        on_session: told of a session that begins on this transport (server).
        on_over: told once when the transport is to be given up, after what :meth:`pull` still gives.
    """

    def __init__(
        self,
        channel: Channel,
        now_s: float,
        *,
        host: Host | None = None,
        place: Place | None = None,
        handshake_s: float = HANDSHAKE_S,
        rhythm: Rhythm | None = None,
        on_session: Callable[[Session], object] = lambda session: None,
        on_over: Callable[[], object] = lambda: None,
    ) -> None:
        self._channel, self._host = channel, host
        self._parser = Parser()
        self._allowance = Allowance(0, 0)
        self._sessions: dict[int, Session] = {}
        self._dropped: list[Session] = []
        # Handles whose confirmation nothing has answered yet, and the session that was confirmed.
        self._waiting: dict[int, bytes] = {}
        self._greet = False
        self._outbox = Outbox()
        self._entry = Entry(channel, host, self._outbox, self._parser, now_s=now_s, handshake_s=handshake_s)
        self._rhythm = rhythm or (host.terms.rhythm if host is not None else Rhythm())
        self._on_session, self._on_over = on_session, on_over
        self.heart: Heartbeat | None = None
        self.up = self.over = self.late = self.more = False
        self.life = Life.ALIVE
        self.goaway_s: float | None = None
        self.denied: Denied | None = None
        if host is not None:
            self._place = place or host.half_open.enter(None, self._end)
            if self._place is None:
                self._end()

    # ---- what the driver calls

    @property
    def short(self) -> bool:
        """The peer is short of credit on this transport: what is taken should be granted soon."""
        return self._allowance.short

    def changed(self) -> list[Session]:
        """Those that it carries, and those that it has ceased to carry since this was last asked."""
        dropped, self._dropped = self._dropped, []
        return [*self._sessions.values(), *dropped]

    def open(self, session: Session, now_s: float, *, front: bool = False) -> None:
        """Begin a handshake that makes this transport carry a session (client); ``front`` as of
        :class:`~holdfast.hold.session.initiator.Initiator`.
        """
        self._entry.open(session, now_s, front)

    def receive(self, data: Buffer, now_s: float) -> None:
        """Bytes came; they are not needed any longer when this returns.

        Raises:
            Violation: the peer broke the protocol; :attr:`over` says to give the transport up.
        """
        if self.over:
            return
        if self.heart is not None:
            self.heart.heard(now_s)
        try:
            self._parser.feed(data)
            while (frame := self._parser.next()) is not None:
                self._frame(frame, now_s)
                if self.over:
                    return
        except Violation:
            self._end()
            raise

    def pull(self, room: int, now_s: float) -> list[Buffer]:
        """What is to go out now: about ``room`` bytes at most, and what is small regardless."""
        if self._greet and self.heart is not None and not self._waiting:
            self._greet = False
            self._ping(self.heart.ping(now_s))
        # Before any data: credit and acknowledgements must not wait behind it.
        unconfirmed, talking = False, []
        for handle, session in self._sessions.items():
            out = session.out
            unconfirmed = unconfirmed or out.in_flight
            if handle in self._waiting:
                continue
            # What is due later anyway goes along with data, so that a reply confirms what it replies to.
            if session.ack_now or (session.ack_due_s is not None and out.sendable()):
                self._outbox.put(ACK, handle, PAIR.pack(*session.acknowledged()))
            if out.cursor != out.last or session.say_now or session.ask_due:
                talking.append((handle, session))
        if self._allowance.short and self._allowance.grant(self._held_bytes):
            self._outbox.put(ACK, 0, PAIR.pack(self._allowance.came, self._allowance.limit))
        for handle, session in talking:
            room -= self._outbox.put_all(handle, session, room, self._allowance)
            unconfirmed = unconfirmed or session.out.in_flight
        parts = self._outbox.take()
        self.more = room <= 0 and any(session.out.sendable() for session in self._sessions.values())
        if self.heart is not None:
            if parts:
                self.heart.sent(now_s)
            self.heart.awaiting(unconfirmed, now_s)
        if len(self._sessions) > 1:  # the next time, somebody else's data goes first
            first = next(iter(self._sessions))
            self._sessions[first] = self._sessions.pop(first)
        return parts

    def look(self, now_s: float) -> None:
        """Time has passed: send what is due, give up who is dead."""
        if now_s >= self._entry.due_s:
            self.late = self.late or not self.over
            self._end()
            return
        if not self.up:
            return
        assert self.heart is not None  # up
        self.life = self.heart.look(now_s)
        if self.life is Life.DEAD:
            self._end()
            return
        if self.heart.ping_due(now_s):
            self._ping(self.heart.ping(now_s))
        for session in self._sessions.values():
            session.look(now_s)

    def next_s(self) -> float:
        """When to call :meth:`look` at the latest."""
        next_s = self._entry.due_s
        if self.heart is None or not self.up:
            return next_s
        next_s = min(next_s, self.heart.next_s())
        for session in self._sessions.values():
            if session.ack_due_s is not None and session.ack_due_s < next_s:
                next_s = session.ack_due_s
        return next_s

    def lost(self, now_s: float) -> None:
        """The transport is gone; the sessions that it carried are suspended."""
        self._end()
        for session in self._sessions.values():
            session.detach(self, now_s)
        self._dropped += self._sessions.values()
        self._sessions.clear()

    def go_away(self, after_s: float, text: str = "") -> None:
        """Ask the peer to come back on another transport (a drain)."""
        message = GoAway(reconnect_after_ms=round(after_s * 1000), text=text)
        self._outbox.put(Kind.GOAWAY, 0, message.SerializeToString())

    def release(self, session: Session) -> None:
        """Carry a session no more: a newer transport does. Without any left, the transport is done."""
        for handle, one in list(self._sessions.items()):
            if one is session:
                self._drop(handle)

    # ---- frames in

    def _frame(self, frame: Frame, now_s: float) -> None:
        kind, handle, payload, offset, flags = frame
        if kind < DATA:
            self._shake(kind, handle, payload, now_s)
            return
        if not self.up:
            raise Violation(Code.OUT_OF_PLACE, f"kind {kind} before any proof")
        if handle == 0:
            self._control(kind, payload, now_s)
            return
        if handle in self._waiting:
            self._heard_first(handle, now_s)
        session = self._sessions.get(handle)
        if kind == DATA:
            self._allowance.arrived(len(payload))
            if session is not None:
                session.arrived(offset, payload, now_s)
        elif kind == ACK:
            if session is not None:
                upto, limit = unpack(PAIR, payload)
                session.told(upto, limit, bool(flags & ASK))
        elif session is not None:
            self._carry(kind, handle, session, payload, now_s)

    @property
    def _held_bytes(self) -> int:
        """How much waits for applications, of all sessions."""
        return sum(session.into.held_bytes for session in self._sessions.values())

    def _carry(self, kind: int, handle: int, session: Session, payload: Buffer, now_s: float) -> None:
        """A frame of a session that this transport carries, and which is rarer than DATA and ACK."""
        if kind == Kind.FIN:
            session.fin_arrived(unpack(OFFSET, payload)[0])
        elif kind in (Kind.PING, Kind.PONG):
            self._beat(kind, session, payload, now_s)
        elif kind in SESSION_EVENTS:
            known = Kind(kind)
            code = parsed(Reset, payload).code if known is Kind.RESET else None
            if not session.ended:  # else this end was done with it before, and the peer crossed that
                session.event(SESSION_EVENTS[known], code)
            if known in ANSWERS:
                self._outbox.answer(ANSWERS[known], handle, b"")
            if session.ended:
                self._drop(handle)

    def _control(self, kind: int, payload: Buffer, now_s: float) -> None:
        if kind in (Kind.PING, Kind.PONG):
            self._beat(kind, None, payload, now_s)
        elif kind == Kind.GOAWAY:
            self.goaway_s = parsed(GoAway, payload).reconnect_after_ms / 1000
        elif kind == Kind.ACK:
            self._allowance.told(*unpack(PAIR, payload))
        elif kind in SESSION_EVENTS or kind in (Kind.DATA, Kind.FIN):
            raise Violation(Code.OUT_OF_PLACE, f"kind {kind} for no session")

    def _beat(self, kind: int, session: Session | None, payload: Buffer, now_s: float) -> None:
        """A PING or PONG, which also acknowledges."""
        assert self.heart is not None  # up
        message: Ping | Pong
        message = parsed(Ping, payload) if kind == Kind.PING else parsed(Pong, payload)
        if session is not None and message.HasField("next") and message.HasField("limit"):
            session.told(message.next, message.limit)
        if isinstance(message, Pong):
            self.heart.ponged(message, now_s)
            return
        pong = self.heart.pong(message, now_s)
        if session is not None:
            pong.next, pong.limit = session.acknowledged()
        handle = session.handle if session is not None else 0
        self._outbox.answer(Kind.PONG, handle, pong.SerializeToString())

    def _ping(self, ping: Ping) -> None:
        handle = 0
        if len(self._sessions) == 1:
            ((handle, session),) = self._sessions.items()
            if handle in self._waiting:
                handle = 0
            else:
                ping.next, ping.limit = session.acknowledged()
        self._outbox.put(Kind.PING, handle, ping.SerializeToString())

    # ---- handshakes

    def _shake(self, kind: int, handle: int, payload: Buffer, now_s: float) -> None:
        done = self._entry.receive(kind, handle, payload, now_s)
        if isinstance(done, Initiator):
            if done.agreed is not None:
                self._client_agreed(handle, done.agreed, now_s)
            self.denied = done.denied
        elif done is not None and done.agreed is not None:
            self._server_agreed(handle, done.agreed, now_s)
        if done is not None and not self.up:  # refused, and nothing else is carried here
            self._end()

    def _client_agreed(self, handle: int, agreed: Agreed, now_s: float) -> None:
        session = agreed.session
        self._waiting[handle] = session.id
        self._carries(handle, agreed, now_s)
        if agreed.position is not None:
            # The server proved that it has the session, so data may go at once, behind the confirmation.
            del self._waiting[handle]
            self._attach(handle, agreed, now_s)
        else:
            # Not the larger: a session that begins anew has nothing of what it was offered before.
            session.out.limit = agreed.limit

    def _heard_first(self, handle: int, now_s: float) -> None:
        """The server's first word on a new session: it has it."""
        session = self._sessions[handle]
        if self._waiting.pop(handle) == session.id and session.state is State.OPENING:
            session.attach(self, handle, 1, None)
        else:  # it was resumed, or begun anew, on another transport before this word came
            self._drop(handle)

    def _server_agreed(self, handle: int, agreed: Agreed, now_s: float) -> None:
        fresh = agreed.position is None
        if fresh:
            agreed.session.out.limit = agreed.limit
        self._carries(handle, agreed, now_s)
        self._attach(handle, agreed, now_s)
        if fresh:
            self._on_session(agreed.session)

    def _carries(self, handle: int, agreed: Agreed, now_s: float) -> None:
        """Both ends have proven themselves: the transport is up, and carries the session from here on."""
        session = agreed.session
        if agreed.frame_bytes:
            session.peer_frame_bytes = max(LEAST_FRAME_BYTES, min(agreed.frame_bytes, LARGEST_BYTES))
        self._sessions[handle] = session
        if self.up:
            return
        self.up = True
        self._allowance = Allowance(session.terms.credit_bytes, agreed.transport_limit)
        self._leave_half_open()
        self._parser.largest_bytes = session.terms.frame_bytes + OFFSET.size + TAG_BYTES
        self._parser.cut_through = not self._channel.sealed
        self.heart = Heartbeat(self._rhythm, now_s, LEAD if self._host is None else 1.0)
        self.heart.agree(agreed.heartbeat)
        if self._host is None:
            # The first measures the round trip, without which doubt would have to wait for a second.
            self._greet = True

    def _attach(self, handle: int, agreed: Agreed, now_s: float) -> None:
        """The newest transport wins; the one before is told last."""
        old, before = agreed.session.link, agreed.session.handle
        agreed.session.attach(self, handle, agreed.epoch, agreed.position)
        if old is self:
            del self._sessions[before]
        elif old is not None:
            old.release(agreed.session)

    def _drop(self, handle: int) -> None:
        """A session is carried no more."""
        session = self._sessions.pop(handle, None)
        if session is not None:
            self._dropped.append(session)
            if session.link is self:
                session.link = None
        if not self._sessions and not self._entry:
            self._end()

    def _leave_half_open(self) -> None:
        if self._host is not None and self._place is not None:
            self._host.half_open.leave(self._place)

    def _end(self) -> None:
        """Nothing more is taken; what is in the outbox may still go out."""
        if self.over:
            return
        self._leave_half_open()
        self._entry.clear()
        self.over = True
        self._on_over()
