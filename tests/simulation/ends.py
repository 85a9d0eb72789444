# SPDX-License-Identifier: Apache-2.0
"""The two ends: each a driver and an application, which write, read, stall and dial as chance has it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from simulation.network import Wire

from holdfast.hold.heartbeat import Life
from holdfast.hold.session.codes import Violation
from holdfast.hold.session.core import Session
from holdfast.hold.session.states import State

if TYPE_CHECKING:
    from simulation.world import World

LATEST_S = 900.0


class Broken(AssertionError):
    """The promise was broken: bytes lost, doubled or reordered, memory over its bound, or no end."""


class End:
    """One end: its driver and its application."""

    def __init__(self, world: World, name: str, outgoing: bytes, expected: bytes) -> None:
        self.world, self.name = world, name
        self.outgoing, self.expected = outgoing, expected
        self.session: Session | None = None
        self.wires: list[Wire] = []
        self.written = 0
        self.read = bytearray()
        self.offset_s = world.chance.uniform(0, 1000)
        self.stalled_until_s = 0.0
        self.violations: list[Violation] = []
        self.highest_epoch = 0
        self.done = False

    def clock(self) -> float:
        return self.world.now_s + self.offset_s

    def serve(self, wire: Wire) -> None:
        """What a driver does whenever something happened to a link."""
        parts = wire.link.pull(1 << 16, self.clock())
        if parts:
            wire.send(b"".join(parts))
        if wire.link.over and not wire.dead:
            wire.close()
        self.react()
        if not wire.dead:
            self.set_timer(wire)

    def set_timer(self, wire: Wire) -> None:
        due_s = wire.link.next_s() - self.offset_s
        if due_s < wire.timer_s - 1e-9 and due_s < LATEST_S:
            wire.timer_s = max(due_s, self.world.now_s + 1e-4)
            self.world.at(wire.timer_s, self.look, wire)

    def look(self, wire: Wire) -> None:
        if wire.dead:
            return
        if self.stalled_until_s > self.world.now_s:
            self.world.at(self.stalled_until_s, self.look, wire)
            return
        wire.timer_s = float("inf")
        wire.link.look(self.clock())
        self.serve(wire)

    def pump(self) -> None:
        """The application did something: whoever carries the session may have to send."""
        for wire in list(self.wires):
            if self.session is not None and wire.link is self.session.link:
                self.serve(wire)

    def app(self) -> None:
        """The application: writes, reads, ends, at its own pace."""
        chance, session = self.world.chance, self.session
        if self.stalled_until_s > self.world.now_s:
            self.world.at(self.stalled_until_s, self.app)
            return
        if session is not None and not session.ended:
            self._use(session)
            self.check(session)
            self.pump()
        if not self.done:
            wait_s = chance.uniform(0.001, 0.03) if chance.random() < 0.95 else chance.uniform(0.1, 1)
            self.world.at(self.world.now_s + wait_s, self.app)

    def _use(self, session: Session) -> None:
        chance = self.world.chance
        if self.written < len(self.outgoing):
            wanted = self.outgoing[self.written : self.written + chance.randint(1, 300)]
            self.written += session.write(wanted)
        if chance.random() < 0.1:
            session.ask()
        if self.written == len(self.outgoing):
            session.finish()
        if chance.random() < 0.8:
            self.take(session, chance.randint(1, 400))
        if session.into.ended and not session.into.held_bytes and session.out.finished:
            session.close(self.clock())

    def take(self, session: Session, most: int) -> None:
        self.read += session.read(most)
        if self.read != self.expected[: len(self.read)]:
            raise Broken(f"{self.name} read other bytes than were written, before {len(self.read)}")

    def check(self, session: Session) -> None:
        window = session.terms.window_bytes
        if session.into.held_bytes > window or session.out.held_bytes > window:
            raise Broken(f"{self.name} holds more than its window")
        if session.epoch < self.highest_epoch:
            raise Broken(f"{self.name} went back from epoch {self.highest_epoch} to {session.epoch}")
        self.highest_epoch = session.epoch

    @property
    def over(self) -> bool:
        """Everything arrived. If only the very last answer was lost, nobody comes back to repeat it."""
        return self.session is not None and (self.session.ended or self.session.state is State.CLOSING)

    def react(self) -> None:
        """For the client: dial where that is called for."""

    def finished(self) -> None:
        session = self.session
        if session is None or not self.over:
            raise Broken(f"{self.name} did not end: {session and session.state}")
        if session.state not in (State.CLOSING, State.CLOSED):
            raise Broken(f"{self.name} ended {session.state} ({session.why}, {session.code})")
        if bytes(self.read) != self.expected:
            raise Broken(f"{self.name} read {len(self.read)} of {len(self.expected)} bytes")


class Client(End):
    """The end that dials."""

    dialling = False
    failures = 0

    def react(self) -> None:
        assert self.session is not None
        if self.session.ended:
            self.done = True
            for wire in list(self.wires):
                if (not wire.dead and wire.link.over) or not wire.dead:
                    wire.close()
            return
        carried = self.session.link is not None
        suspect = any(wire.link.life is Life.SUSPECT for wire in self.wires if wire.link is self.session.link)
        shaking = any(not wire.link.up or wire.link is not self.session.link for wire in self.wires)
        twice = self.world.chance.random() < self.world.plan.double_dials and len(self.wires) < 3
        if ((not carried or suspect) and not shaking) or (twice and not carried):
            self.dial_later()

    def dial_later(self) -> None:
        if not self.dialling:
            self.dialling = True
            self.world.at(self.world.now_s + self.world.chance.uniform(0, 0.1), self.dial)

    def dial(self) -> None:
        self.dialling = False
        if self.stalled_until_s > self.world.now_s:
            self.dialling = True
            self.world.at(self.stalled_until_s, self.dial)
            return
        session = self.session
        assert session is not None
        if not session.ended:
            self.world.connect(self, self.world.server)
