# SPDX-License-Identifier: Apache-2.0
"""Several sessions on one transport, which breaks at any byte; all of it decided by one seed.

What one application leaves unread may make the others wait, as the credit of a transport says; it may not
make them lose a byte, nor let more wait than was allowed.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

from simulation.ends import Broken
from simulation.pair import TERMS, Joined, Pair
from simulation.world import stream

from holdfast.hold.session.codes import Code, Violation
from holdfast.hold.session.core import Session
from holdfast.hold.session.states import State


@dataclass
class Way:
    """One direction of one session."""

    to_write: bytes
    to_read: bytes
    written: int = 0
    read: int = 0

    def use(self, session: Session, chance: random.Random, idle: bool) -> None:
        """What an application does in one turn; an idle one does not read."""
        if self.written < len(self.to_write):
            size = chance.randint(1, 400)
            self.written += session.write(self.to_write[self.written : self.written + size])
        elif not session.out.finished:
            session.finish()
        if not idle:
            data = session.read(chance.randint(1, 600))
            if data != self.to_read[self.read : self.read + len(data)]:
                raise Broken(f"other bytes than were written, after {self.read}")
            self.read += len(data)

    @property
    def done(self) -> bool:
        return self.read == len(self.to_read) and self.written == len(self.to_write)


class Shared:
    """A client and a server with some sessions between them, on one transport at a time.

    Attributes:
        resumes: how often a session was resumed, of all.
        waited: how often a transport had no credit left although a session had.
    """

    def __init__(self, seed: int) -> None:
        self.chance = chance = random.Random(seed)
        terms = replace(
            TERMS, transport_bytes=chance.randint(600, 6000), frame_bytes=chance.choice((64, 512))
        )
        self.pair = Pair(seed, sealed=chance.random() < 0.5, terms=terms)
        self.most_waiting = terms.credit_bytes
        count = chance.randint(2, 5)
        self.sessions = [self.pair.session(terms) for _ in range(count)]
        self.near: dict[int, Way] = {}
        self.far: dict[int, Way] = {}
        for number in range(count):
            there = stream(f"{seed} {number} there", chance.randint(0, 6000))
            back = stream(f"{seed} {number} back", chance.randint(0, 6000))
            self.near[number], self.far[number] = Way(there, back), Way(back, there)
        self.idle_until = [chance.choice((0, 0, 30, 80)) for _ in range(count)]
        self.resumes = self.waited = self.turn = 0
        self.brought = [0, 0]  # what waited already when the transport of the moment began

    def run(self) -> Shared:
        """Until every byte of every session has arrived.

        Raises:
            Broken: one did not, or came twice, or too much waited.
        """
        joined = self._join()
        cuts = self.chance.randint(0, 12)
        for self.turn in range(4000):
            self._use()
            most = None
            if cuts and self.chance.random() < 0.1:
                most, cuts = self.chance.randint(0, 900), cuts - 1
            if not self._move(joined, most):
                joined.cut()
                joined = self._join()
            if all(way.done for ways in (self.near, self.far) for way in ways.values()):
                return self
            self.pair.now_s += 0.02
            for link in (joined.near, joined.far):
                link.look(self.pair.now_s)
        raise Broken("it came to a stop")

    def _join(self) -> Joined:
        joined = Joined(self.pair, None)
        self.brought = [sum(one.into.held_bytes for one in ends) for ends in (self.sessions, self.pair.met)]
        for session in self.sessions:
            joined.near.open(session, self.pair.now_s)
        return joined

    def _move(self, joined: Joined, most: int | None) -> bool:
        """Both ways, at most so many bytes forth; False: that was not all, so the transport is dead."""
        try:
            size = joined.forth(most)
            if most is not None and size > most:
                return False
            joined.back()
            if joined.near.denied is not None:  # one whose beginning was lost begins anew
                joined.near.denied = None
                for session in self.sessions:
                    if session.key is None:
                        joined.near.open(session, self.pair.now_s)
        except Violation as error:
            if error.code is not Code.SUPERSEDED:
                raise
            return False
        for side, (link, ends) in enumerate(((joined.near, self.sessions), (joined.far, self.pair.met))):
            held = sum(one.into.held_bytes for one in ends)
            if held > self.brought[side] + self.most_waiting:
                raise Broken(f"{held} bytes wait, {self.most_waiting} were allowed")
            self.waited += link._allowance.left == 0 and any(one.out.sendable() for one in ends)
        return True

    def _use(self) -> None:
        by_id = {session.id: session for session in self.pair.met}
        for number, session in enumerate(self.sessions):
            idle = self.turn < self.idle_until[number]
            self.near[number].use(session, self.chance, idle)
            there = by_id.get(session.id)
            if there is not None and session.state is not State.OPENING:
                self.far[number].use(there, self.chance, idle)
        self.resumes = sum(session.resumes for session in self.sessions)
