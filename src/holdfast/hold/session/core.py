"""One end of a session: a duplex stream of bytes that any number of transports carry, one after the other."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

from holdfast.errors import UsageError
from holdfast.hold.session.codes import Code, Violation
from holdfast.hold.session.frames import Buffer
from holdfast.hold.session.keys import next_key
from holdfast.hold.session.states import ENDED, SAID, Event, State, following
from holdfast.hold.session.stream import Incoming, Outgoing
from holdfast.hold.session.terms import ACK_DELAY_S, Memory, Terms
from holdfast.hold.wire.session_pb2 import Position

if TYPE_CHECKING:
    from holdfast.hold.session.link import Link


class Why(StrEnum):
    """Why a session was lost."""

    EXPIRED = "no transport carried it for as long as it is kept"
    UNKNOWN = "the server does not have it, or does not accept the proof"
    RESTARTED = "the server was restarted and has forgotten it"
    GAP = "the two ends disagree on what was sent"
    REFUSED = "the server does not take it"
    STRANGER = "the server does not serve processes of this user: it would have to name him in its peers="


class Session:
    """One end of a session; it decides and does nothing.

    Attributes:
        state: see :data:`~holdfast.hold.session.states.TRANSITIONS`.
        ended: nothing more will happen to it.
        id, instance_id: of the session and of the server process that has it; empty until one is known.
        location: address (4 or 16 octets) and port at which that process says that it is reached.
        epoch: which transport carries it, counted by the server; the newest wins.
        generation: how often its key was changed.
        key: the session's key; None before the first handshake.
        out, into: the two directions.
        link, handle: what carries it now.
        suspended_s: since when nothing does.
        why, code: how it ended: the reason of a loss, the code of a reset.
        reset_here: it was this end that reset it.
        ack_now, ack_due_s: an acknowledgement is due, or can wait until then.
        ask_due: the peer is to be asked for one, behind what is still to be sent.
        say_now: RESET or CLOSE is due on this transport, by the state.
        peer_frame_bytes: the largest payload of DATA that the peer takes.
        resumes, replayed_bytes: how often it was resumed, and what was sent again for that.

    Args:
        terms: this end's.
        memory: shared by all sessions of the process.
        window: what ``memory`` admitted it with.
    """

    __slots__ = (
        "_acked",
        "_asked",
        "_closing",
        "_memory",
        "_offered",
        "_sharing",
        "ack_due_s",
        "ack_now",
        "ask_due",
        "code",
        "ended",
        "epoch",
        "generation",
        "handle",
        "id",
        "instance_id",
        "into",
        "keep_s",
        "key",
        "link",
        "location",
        "out",
        "peer_frame_bytes",
        "replayed_bytes",
        "reset_here",
        "resumes",
        "say_now",
        "state",
        "suspended_s",
        "terms",
        "why",
        "window",
    )

    def __init__(self, terms: Terms, memory: Memory, window: int) -> None:
        self.terms, self._memory, self.window = terms, memory, window
        self._sharing = True
        self.state, self.ended = State.OPENING, False
        self.id = self.instance_id = b""
        self.location: tuple[bytes, int] | None = None
        self.epoch = self._offered = self.generation = 0
        self.key: bytes | None = None
        self.keep_s = terms.keep_s
        self.out, self.into = Outgoing(), Incoming()
        self.into.limit = window
        self._acked = 0  # the last `next` that the peer was told
        self._asked, self.ask_due = 0, False  # up to where it was asked what it has
        self.ack_due_s: float | None = None
        self.ack_now = self.say_now = self.reset_here = False
        self._closing = False
        self.peer_frame_bytes = terms.frame_bytes
        self.link: Link | None = None
        self.handle = 0
        self.suspended_s: float | None = None
        self.why: Why | None = None
        self.code: int | None = None
        self.resumes = self.replayed_bytes = 0

    # ---- the application's side

    @property
    def given_up(self) -> bool:
        """It has ended, or is about to by a RESET of this end: nothing is given or taken any more."""
        return self.ended or self.state is State.RESETTING

    @property
    def confirmed_bytes(self) -> int:
        """How many of the bytes written have arrived at the peer's session."""
        return min(self.out.first, self.out.end)

    def room(self) -> int:
        """How many bytes may be written now."""
        free = self.window - self.out.held_bytes
        if free <= 0 and self.window < self.terms.window_bytes and not self.ended:
            self._grow()
            free = self.window - self.out.held_bytes
        return max(0, free)

    def write(self, data: Buffer) -> int:
        """Take as much of ``data`` as there is room for; gives how much. It must not change any more.

        Raises:
            UsageError: after :meth:`finish`, or the session has ended.
        """
        if self.out.finished or self.given_up:
            raise UsageError("Nothing can be written to this direction of the session: it has ended.")
        size = min(self.room(), len(data))
        if size:
            self.out.write(data if size == len(data) else memoryview(data)[:size])
        return size

    def finish(self) -> None:
        """End this direction; the peer reads what was written and then the end."""
        if not self.given_up:
            self.out.finished = True

    def read(self, most: int) -> bytes:
        """Up to ``most`` bytes that have come; ``b""``: none are there (see ``into.ended``)."""
        data = self.into.read(most)
        if self.ended:
            if not self.into.held_bytes:
                self.release()
        elif data and not self.into.ended:
            self._grant()
        if data and self.link is not None and self.link.short:
            self.ack_now = True  # this session may have nothing to grant, but its transport
        return data

    def close(self, now_s: float) -> None:
        """End both directions once everything has arrived. What the peer still sends resets the session."""
        if self.ended:
            return
        if self.into.held_bytes:
            self.abort(Code.CLOSED_UNREAD, now_s)
            return
        self._closing = True
        self.finish()
        self._conclude()

    def abort(self, code: int, now_s: float) -> None:
        """Give the session up: the peer is told, and neither end gets anything more. The first code holds.

        Raises:
            UsageError: the code cannot be told: it has 32 bits.
        """
        if not isinstance(code, int) or not 0 <= code < 1 << 32:
            raise UsageError(
                f"A session cannot be given up with code {code!r}: give one from 0 to {2**32 - 1}."
            )
        if self.given_up:
            return
        self._to(Event.RESET_HERE)
        self.code, self.reset_here = code, True
        if self.state is State.RESETTING and self.link is None and self.suspended_s is None:
            self.suspended_s = now_s

    # ---- credit and acknowledgement

    def _grow(self) -> None:
        least = max(self.into.limit - self.into.taken, self.out.held_bytes, self.window)
        wanted = min(2 * self.window, self.terms.window_bytes)
        self.window = self._memory.resize(self.window, wanted, least)

    def _grant(self) -> None:
        """After the application took something: give the peer more credit, once it is worth a frame."""
        into = self.into
        taken = into.taken
        if into.limit - into.next < self.window // 2 and self.window < self.terms.window_bytes:
            self._grow()
        elif self._memory.promised_bytes > self._memory.cap_bytes // 2:
            self._shrink()
        limit = taken + self.window
        if limit - into.limit >= self.window // 4 or (into.limit == into.next and limit > into.limit):
            into.limit = limit
            self.ack_now = True

    def _shrink(self) -> None:
        """Where memory is scarce, keep no more than a fair share."""
        least = max(self.into.limit - self.into.taken, self.out.held_bytes)
        self.window = self._memory.resize(self.window, self.window, min(least, self.window))

    def position(self) -> Position:
        """Where this end stands."""
        into, out = self.into, self.out
        return Position(next=into.next, first=out.first, end=out.last, limit=into.limit)

    def acknowledged(self) -> tuple[int, int]:
        """What an ACK, a PING or a PONG says: next offset wanted, limit. It counts as said."""
        self._acked = self.into.next
        self.ack_due_s, self.ack_now = None, False
        return self.into.next, self.into.limit

    def ask(self) -> None:
        """Have the peer say at once, and not when it suits, that it has all that was written so far."""
        if self.out.end > max(self._asked, self.out.first):
            self._asked, self.ask_due = self.out.end, True

    def told(self, upto: int, limit: int, ask: bool = False) -> None:
        """The peer has everything below ``upto``, allows up to ``limit``, and may want to know the same.

        Raises:
            Violation: it cannot have that.
        """
        self.out.confirm(upto)
        if limit > self.out.limit:
            self.out.limit = limit
        if ask:
            self.ack_now = True
        self._conclude()

    def arrived(self, offset: int, data: Buffer, now_s: float) -> None:
        """DATA came.

        Raises:
            Violation: see :meth:`Incoming.accept`.
        """
        into = self.into
        if self.given_up:
            return
        new = into.accept(offset, data)
        if self._closing and new:
            self.abort(Code.CLOSED_UNREAD, now_s)
            return
        if into.next - self._acked >= self.window // 4:
            self.ack_now = True
        elif self.ack_due_s is None:
            self.ack_due_s = now_s + ACK_DELAY_S

    def fin_arrived(self, offset: int) -> None:
        """FIN came.

        Raises:
            Violation: see :meth:`Incoming.finish`.
        """
        if self.given_up:
            return
        self.into.finish(offset)
        self.ack_now = True
        self._conclude()

    def _conclude(self) -> None:
        """Both directions have ended and arrived, and the application has closed: tell the peer."""
        if self._closing and self.into.ended and self.out.all_confirmed and self.state is State.OPEN:
            self._to(Event.CLOSE_HERE)

    def look(self, now_s: float) -> None:
        """Time has passed."""
        if self.ack_due_s is not None and now_s >= self.ack_due_s:
            self.ack_now = True
        if self.suspended_s is not None and now_s >= self.suspended_s + self.keep_s:
            self.lost(Event.EXPIRED, Why.EXPIRED)

    # ---- transports

    def offer_epoch(self) -> int:
        """A number for a transport that is about to carry it."""
        self._offered = max(self._offered, self.epoch) + 1
        return self._offered

    def key_of(self, generation: int) -> bytes | None:
        """The key of a generation: the one that holds, or the next, which the peer may have already."""
        if self.key is None:
            return None
        following = next_key(self.key)  # always, so that the time it takes says nothing
        return {self.generation: self.key, self.generation + 1: following}.get(generation)

    def proven(self, generation: int) -> None:
        """The peer has the key of this generation: the one before is not needed any more."""
        if generation == self.generation + 1:
            self.key, self.generation = self.key_of(generation), generation

    def attach(self, link: Link, handle: int, epoch: int, position: Position | None) -> None:
        """From now on this transport carries it. ``position`` is the peer's; None in a new session."""
        self._to(Event.ATTACHED)
        self.link, self.handle, self.epoch = link, handle, epoch
        self.suspended_s = None
        if position is not None:
            self.resumes += 1
            upto = max(position.next, self.out.first)
            self.replayed_bytes += max(0, self.out.cursor - upto)
            self.out.rewind(upto)
            self.out.limit = max(self.out.limit, position.limit)
            self.ask_due = self._asked > self.out.first
        self.ack_now, self.say_now = True, self.state in SAID
        self._conclude()

    def detach(self, link: Link, now_s: float) -> None:
        """A transport is gone, which may have been the one that carries the session."""
        if self.link is not link:
            return
        self.link = None
        if not self.ended:
            self.suspended_s = now_s
            self._to(Event.DETACHED)

    def could_resume(self, position: Position) -> bool:
        """Whether nothing is missing between what both ends have."""
        return self.out.could_resume(max(position.next, self.out.first)) and self.into.next >= position.first

    def event(self, event: Event, code: int | None = None) -> None:
        """RESET, CLOSE and their answers came.

        Raises:
            Violation: that has no place in this state.
        """
        if event is Event.CLOSE_THERE and self.state is State.OPEN:
            # The peer says so only once everything of both directions has arrived.
            if not (self.into.ended and self.out.finished):
                raise Violation(Code.OUT_OF_PLACE, "CLOSE before both ends have finished")
            self.out.confirm(self.out.last)
        self._to(event)
        if code is not None and self.code is None:
            self.code = code

    def lost(self, event: Event, why: Why) -> None:
        """The server refused it, or it was kept long enough."""
        if not self.ended:
            self._to(event)
            if self.state is State.LOST:
                self.why = why

    def _to(self, event: Event) -> None:
        self.state, before = following(self.state, event), self.state
        if self.state is not before:
            self.say_now = self.state in SAID
        self.ended = self.state in ENDED
        if self.ended:
            self.suspended_s = None
            self.out.drop()  # it may be remembered for long, and its memory is somebody else's now
            if not self.into.held_bytes:
                self.release()

    def release(self) -> None:
        """It has ended, and nobody will take what may still wait: give its share of the memory back."""
        if self._sharing:
            self._sharing = False
            self._memory.leave(self.window)
