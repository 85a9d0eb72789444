"""Frames on their way out of one transport, sealed where nothing below seals them."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from holdfast.hold.session.allowance import Allowance
from holdfast.hold.session.codes import Code, Violation
from holdfast.hold.session.core import Session
from holdfast.hold.session.frames import ACK, ASK, DATA_HEADER, HEADER, OFFSET, PAIR, Buffer, Kind
from holdfast.hold.session.keys import Seal
from holdfast.hold.session.states import State
from holdfast.hold.wire.session_pb2 import Reset

MOST_ANSWERS = 4096
"""How many frames may wait for a peer that asks (PING, HELLO, RESUME) and does not read the answers."""


class Outbox:
    """Frames in the order in which they go out, which is that in which they were put.

    Attributes:
        seal: what seals each frame from now on; None: they go as they are.
    """

    __slots__ = ("_frames", "seal")

    def __init__(self) -> None:
        self._frames: list[Buffer] = []
        self.seal: Seal | None = None

    def answer(self, kind: int, handle: int, payload: bytes) -> None:
        """One frame that the peer has asked for.

        Raises:
            Violation: it asks and does not read the answers.
        """
        if len(self._frames) >= MOST_ANSWERS:
            raise Violation(Code.UNHEARD)
        self.put(kind, handle, payload)

    def put(self, kind: int, handle: int, payload: bytes, flags: int = 0) -> None:
        """One frame."""
        if self.seal is not None:
            self._frames.append(self.seal.close(kind, handle, payload, flags))
        else:
            self._frames.append(HEADER.pack(kind, flags, 0, handle, len(payload)) + payload)

    def put_data(self, handle: int, offset: int, pieces: list[Buffer], size: int) -> None:
        """One frame of DATA. Unsealed, what the application gave is not copied."""
        if self.seal is None:
            self._frames.append(DATA_HEADER.pack(Kind.DATA, 0, 0, handle, size + OFFSET.size, offset))
            self._frames.extend(pieces)
        else:
            payload = b"".join((OFFSET.pack(offset), *pieces))
            self._frames.append(self.seal.close(Kind.DATA, handle, payload))

    def put_all(self, handle: int, session: Session, room: int, allowance: Allowance) -> int:
        """Whatever a session has to send, DATA at most ``room``; gives how much DATA that was."""
        if session.ended:  # on another transport, while this one seemed alive
            return 0
        if session.state is State.RESETTING:
            if session.say_now:
                session.say_now = False
                self.put(Kind.RESET, handle, Reset(code=session.code or 0).SerializeToString())
            return 0
        out, sent = session.out, 0
        largest = min(session.terms.frame_bytes, session.peer_frame_bytes)
        room = min(room, allowance.left, out.sendable())
        while sent < room:
            offset, size = out.cursor, min(largest, room - sent)
            self.put_data(handle, offset, out.take(size), size)
            sent += size
        allowance.went += sent
        if session.ask_due and out.cursor >= out.end:
            session.ask_due = False
            self.put(ACK, handle, PAIR.pack(*session.acknowledged()), ASK)
        if out.fin_due:
            self.put(Kind.FIN, handle, OFFSET.pack(out.take_fin()))
        if session.say_now:
            session.say_now = False
            self.put(Kind.CLOSE, handle, b"")
        return sent

    def take(self) -> list[Buffer]:
        """All of them; they are forgotten here."""
        frames, self._frames = self._frames, []
        return frames
