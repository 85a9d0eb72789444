# SPDX-License-Identifier: Apache-2.0
"""The mistakes of earlier systems, put into the protocol on purpose: the simulator must find each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from unittest.mock import patch

from simulation.ends import Broken
from simulation.world import run

from holdfast.hold.session.core import Session
from holdfast.hold.session.frames import Buffer
from holdfast.hold.session.link import Link
from holdfast.hold.session.responder import Responder
from holdfast.hold.session.stream import Incoming, Outgoing


def trim_on_send() -> Iterator[tuple[object, str, object]]:
    """What was handed to the kernel is forgotten, as if that meant that it arrived (NATS)."""
    take = Outgoing.take

    def forgetful(self: Outgoing, most: int) -> list[Buffer]:
        pieces = take(self, most)
        self.confirm(self.cursor)
        return pieces

    yield Outgoing, "take", forgetful


def drop_oldest() -> Iterator[tuple[object, str, object]]:
    """A full buffer throws away the oldest to take the newest (Eternal Terminal's ring, goet's)."""

    def dropping(self: Session, data: bytes) -> int:
        while self.room() < len(data) and self.out.first < self.out.end:
            self.out._sent = max(self.out._sent, self.out.first + 1)
            self.out.confirm(self.out.first + 1)
        self.out.write(data)
        return len(data)

    yield Session, "write", dropping


def implied_position() -> Iterator[tuple[object, str, object]]:
    """Whatever comes is taken for what comes next, from whichever transport (SignalR, RSocket, XMPP)."""
    accept = Incoming.accept
    yield Incoming, "accept", lambda self, offset, data: accept(self, self.next, data)
    yield Link, "release", lambda self, session: None


def no_fencing() -> Iterator[tuple[object, str, object]]:
    """A late confirmation of an older transport takes the session back from the newer one."""
    confirmed = Responder._confirmed

    def unfenced(self: Responder, payload: Buffer) -> object:
        found = self._host.find(getattr(self._asked, "session_id", b""))
        if found is None:
            return confirmed(self, payload)
        epoch, found.epoch = found.epoch, 0
        try:
            return confirmed(self, payload)
        finally:
            found.epoch = epoch

    yield Responder, "_confirmed", unfenced


def key_forgotten_too_early() -> Iterator[tuple[object, str, object]]:
    """The server moves to the next key when it offers it, before the client has shown that it has it."""
    resume = Responder._resume

    def hasty(self: Responder, asked: object, *rest: object) -> object:
        said = resume(self, asked, *rest)  # type: ignore[arg-type]  # as it was called
        session = self._host.find(asked.session_id)  # type: ignore[attr-defined]  # a Resume
        if session is not None and not self.over:
            session.proven(session.generation + 1)
        return said

    yield Responder, "_resume", hasty


MUTANTS: dict[str, Callable[[], Iterator[tuple[object, str, object]]]] = {
    function.__name__: function
    for function in (trim_on_send, drop_oldest, implied_position, no_fencing, key_forgotten_too_early)
}


@contextmanager
def mutated(name: str) -> Iterator[None]:
    """Inside, the protocol has this mistake."""
    with ExitStack() as stack:
        for where, attribute, value in MUTANTS[name]():
            stack.enter_context(patch.object(where, attribute, value))
        yield


def caught(name: str, seed: int) -> str | None:
    """How one seed finds the mistake, None if it does not."""
    with mutated(name):
        try:
            run(seed)
        except (Broken, AssertionError, IndexError) as error:
            return str(error) or type(error).__name__
    return None
