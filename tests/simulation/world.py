# SPDX-License-Identifier: Apache-2.0
"""A world with two ends of a session and a hostile network, all of it decided by one seed.

Time is a number, chance a seeded generator, and a transport two queues of bytes that break at any byte. What
was under way when a transport broke may still arrive, late and beside what its successor brings.
"""

from __future__ import annotations

import hashlib
import heapq
import random
from collections.abc import Callable

from simulation.ends import LATEST_S, Broken, Client, End
from simulation.network import Transport, Wire
from simulation.plan import Plan

from holdfast.hold.heartbeat import Rhythm
from holdfast.hold.session.core import Session
from holdfast.hold.session.handshake import Channel
from holdfast.hold.session.host import Host
from holdfast.hold.session.keys import NO_KEY, X25519, Agreement
from holdfast.hold.session.link import Link
from holdfast.hold.session.terms import Memory, Terms

PSK = hashlib.sha256(b"simulation").digest()


class QuickAgreement:
    """A key agreement that keeps no secrets and takes no time: here only its shape counts."""

    def __init__(self, private: bytes) -> None:
        self.public = hashlib.sha256(b"public" + private).digest()

    def shared(self, public: bytes) -> bytes:
        return hashlib.sha256(b"".join(sorted((self.public, public)))).digest()


def stream(name: str, size: int) -> bytes:
    """Bytes in which any two places look different."""
    return random.Random(name).randbytes(size)


class World:
    """Everything, for one plan.

    Args:
        plan: what happens.
        agreement: X25519, or something quicker.
    """

    def __init__(self, plan: Plan, agreement: Agreement | None = None) -> None:
        self.plan = plan
        self.chance = random.Random(plan.seed * 7919 + 1)
        self.now_s = 0.0
        self._events: list[tuple[float, int, Callable[..., None], tuple[object, ...]]] = []
        self._count = 0
        self.cuts = plan.cuts
        self.transports = 0
        self.met: list[Session] = []
        mode = "psk" if plan.sealed else "plain"
        psk = PSK if plan.sealed else NO_KEY
        self.channel = Channel(mode, b"", psk, agreement or QuickAgreement, self.chance.randbytes)
        there, back = stream(f"{plan.seed} there", plan.sizes[0]), stream(f"{plan.seed} back", plan.sizes[1])
        self.client, self.server = Client(self, "client", there, back), End(self, "server", back, there)
        rhythm = Rhythm(can_s=0.5, want_s=1.0, least_s=0.2)
        self.terms = [
            Terms(window_bytes=size, frame_bytes=plan.frame_bytes, keep_s=5000, handshake_s=5, rhythm=rhythm)
            for size in plan.windows
        ]
        self.memory = [Memory(1 << 20), Memory(1 << 20)]
        self.host = Host(self.terms[1], self.memory[1], self.chance.randbytes(48))
        window = self.memory[0].first_window(plan.windows[0])
        self.memory[0].enter(window)
        self.client.session = Session(self.terms[0], self.memory[0], window)

    def at(self, when_s: float, do: Callable[..., None], *given: object) -> None:
        self._count += 1
        heapq.heappush(self._events, (max(when_s, self.now_s), self._count, do, given))

    def connect(self, client: End, server: End) -> None:
        """A new transport, which may be one that breaks."""
        self.transports += 1
        transport = Transport(self, client, server)
        near, far = transport.wires
        if self.cuts > 0:
            self.cuts -= 1
            # Half of them break within a handshake, at any byte of it.
            most = 600 if self.chance.random() < 0.5 else 4000
            self.chance.choice((near, far)).left = self.chance.randint(0, most)
        near.link = Link(self.channel, client.clock(), handshake_s=5, rhythm=self.terms[0].rhythm)
        far.link = Link(self.channel, server.clock(), host=self.host, on_session=self._met)
        assert client.session is not None
        client.wires.append(near)
        server.wires.append(far)
        near.link.open(client.session, client.clock())
        client.serve(near)
        server.set_timer(far)
        if self.plan.replay_first_flights and self.chance.random() < 0.5:
            self.at(self.now_s + self.chance.uniform(0, 0.5), self._replay, near)

    def _replay(self, victim: Wire) -> None:
        """Somebody sends again what a client said on another transport, and never answers."""
        transport = Transport(self, self.client, self.server)
        near, far = transport.wires
        near.dead = True
        far.link = Link(self.channel, self.server.clock(), host=self.host, on_session=self._met)
        self.server.wires.append(far)
        size = self.chance.choice(
            (len(victim.first_flight), self.chance.randint(0, len(victim.first_flight)))
        )
        far.arrive(victim.first_flight[:size])
        self.server.set_timer(far)
        self.at(self.now_s + self.chance.uniform(0, 1), far.gone)

    def _met(self, session: Session) -> None:
        """A session begins at the server. One that the client has given up already never carries anything."""
        self.met.append(session)
        client = self.client.session
        assert client is not None
        if session.id == client.id:
            self.server.session, self.server.highest_epoch = session, 0
            self.server.written = 0
            self.server.read.clear()

    def _stall(self, end: End, for_s: float) -> None:
        end.stalled_until_s = max(end.stalled_until_s, self.now_s + for_s)

    def _jump(self, end: End, by_s: float) -> None:
        end.offset_s += by_s
        for wire in list(end.wires):
            wire.timer_s = float("inf")
            end.look(wire)

    def run(self) -> World:
        """Until both ends have closed.

        Raises:
            Broken: a promise was broken.
        """
        for at_s in self.plan.moves:
            self.at(at_s, self.client.dial)
        for name, at_s, for_s in self.plan.stalls:
            self.at(at_s, self._stall, getattr(self, name), for_s)
        for name, at_s, by_s in self.plan.jumps:
            self.at(at_s, self._jump, getattr(self, name), by_s)
        self.at(0, self.client.dial)
        self.at(0, self.client.app)
        self.at(0, self.server.app)
        ends = (self.client, self.server)
        while self._events and not all(end.over for end in ends):
            self.now_s, _, do, given = heapq.heappop(self._events)
            if self.now_s > LATEST_S:
                break
            do(*given)
        for end in ends:
            if end.session is not None and end.over:
                end.take(end.session, 1 << 20)
            end.finished()
        if any(one.into.next or one.out.first for one in self.met if one is not self.server.session):
            raise Broken("bytes went through a session that is not the client's")
        for memory in self.memory:
            if memory.promised_bytes > memory.cap_bytes:
                raise Broken("more memory is promised than there is")
        return self


def run(seed: int, agreement: Agreement | None = None) -> World:
    """One seed, from its plan to its end."""
    return World(Plan.of(seed), agreement or (X25519 if seed % 97 == 0 else None)).run()
