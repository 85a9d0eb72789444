# SPDX-License-Identifier: Apache-2.0
"""A world with two ends of a session and a hostile network, all of it decided by one seed.

Time is a number, chance a seeded generator, and a transport two queues of bytes that break at any byte. What
was under way when a transport broke may still arrive, late and beside what its successor brings.
"""

from __future__ import annotations

import hashlib
import heapq
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from holdfast.hold.heartbeat import Life, Rhythm
from holdfast.hold.session.codes import Violation
from holdfast.hold.session.core import Session
from holdfast.hold.session.handshake import Channel
from holdfast.hold.session.host import Host
from holdfast.hold.session.keys import NO_KEY, X25519, Agreement
from holdfast.hold.session.link import Link
from holdfast.hold.session.states import State
from holdfast.hold.session.terms import Memory, Terms

LATEST_S = 900.0
PSK = hashlib.sha256(b"simulation").digest()


class Broken(AssertionError):
    """The promise was broken: bytes lost, doubled or reordered, memory over its bound, or no end."""


class QuickAgreement:
    """A key agreement that keeps no secrets and takes no time: here only its shape counts."""

    def __init__(self, private: bytes) -> None:
        self.public = hashlib.sha256(b"public" + private).digest()

    def shared(self, public: bytes) -> bytes:
        return hashlib.sha256(b"".join(sorted((self.public, public)))).digest()


def stream(name: str, size: int) -> bytes:
    """Bytes in which any two places look different."""
    return random.Random(name).randbytes(size)


@dataclass
class Plan:
    """What one seed does.

    Attributes:
        cut_at: after how many bytes each transport breaks, by direction; None: it does not.
        moves: when the client dials although its transport is well, as after a change of address.
        stalls: when and for how long an end stands still: (end, at, for).
        jumps: when an end's clock leaps forward: (end, at, by), as when a laptop slept.
    """

    seed: int
    sealed: bool
    windows: tuple[int, int]
    frame_bytes: int
    sizes: tuple[int, int]
    cuts: int
    replay_first_flights: bool
    double_dials: float
    moves: list[float] = field(default_factory=list)
    stalls: list[tuple[str, float, float]] = field(default_factory=list)
    jumps: list[tuple[str, float, float]] = field(default_factory=list)

    @classmethod
    def of(cls, seed: int) -> Plan:
        chance = random.Random(seed)
        return cls(
            seed=seed,
            sealed=chance.random() < 0.4,
            windows=(chance.randint(32, 700), chance.randint(32, 700)),
            frame_bytes=chance.choice((16, 40, 100, 1000)),
            sizes=(chance.randint(0, 2500), chance.randint(0, 2500)),
            cuts=chance.randint(0, 18),
            replay_first_flights=chance.random() < 0.3,
            double_dials=chance.choice((0.0, 0.0, 0.1)),
            moves=[chance.uniform(0, 2) for _ in range(chance.choice((0, 0, 1, 3)))],
            stalls=[
                (chance.choice(("client", "server")), chance.uniform(0, 3), chance.uniform(0.1, 8))
                for _ in range(chance.choice((0, 0, 0, 1, 2)))
            ],
            jumps=[
                (chance.choice(("client", "server")), chance.uniform(0, 3), chance.uniform(1, 60))
                for _ in range(chance.choice((0, 0, 0, 1)))
            ],
        )


class Wire:
    """One end of one transport, as its driver sees it."""

    def __init__(self, end: End, transport: Transport) -> None:
        self.end, self.transport = end, transport
        self.link: Link
        self.other: Wire
        self.left: int | None = None  # how many bytes go out before it breaks
        self.arrives_s = 0.0  # when what was sent last arrives: the order stays
        self.dead = False
        self.timer_s = float("inf")
        self.first_flight = b""
        self.inbox: deque[bytes | None] = deque()
        self.sent = 0

    def send(self, data: bytes) -> None:
        """Hand bytes to the network, which cuts them up as it likes and breaks where the plan says."""
        if self.dead or self.transport.broken:
            return
        world, chance = self.end.world, self.end.world.chance
        if self.end.name == "client" and len(self.first_flight) < 2000:
            self.first_flight += data
        if self.left is not None:
            data, self.left = data[: self.left], self.left - len(data)
        self.sent += len(data)
        lag_s = self.transport.lag_s + chance.uniform(0.0005, 0.01)
        self.arrives_s = max(self.arrives_s, world.now_s + lag_s)
        while data:
            size = len(data) if chance.random() < 0.7 else chance.randint(1, len(data))
            piece, data = data[:size], data[size:]
            world.at(self.arrives_s, self.other.arrive, piece)
            self.arrives_s += chance.uniform(0, 0.002)
        if self.left is not None and self.left <= 0:
            self.transport.snap()

    def arrive(self, data: bytes) -> None:
        self.inbox.append(data)
        self.drain()

    def gone(self) -> None:
        """This end learns that the transport is dead, after what came before."""
        self.inbox.append(None)
        self.drain()

    def drain(self) -> None:
        """Take what has come, unless this end stands still."""
        end = self.end
        if end.stalled_until_s > end.world.now_s:
            end.world.at(end.stalled_until_s, self.drain)
            return
        while self.inbox and not self.dead:
            data = self.inbox.popleft()
            if data is None:
                self.dead = True
                self.link.lost(end.clock())
                end.wires.remove(self)
                end.react()
                return
            try:
                self.link.receive(data, end.clock())
            except Violation as error:
                end.violations.append(error)
            end.serve(self)

    def close(self) -> None:
        """This end gives it up; the other learns it after what is under way."""
        self.dead = True
        self.link.lost(self.end.clock())
        if self in self.end.wires:
            self.end.wires.remove(self)
        if not self.transport.broken:
            self.end.world.at(self.arrives_s + 0.001, self.other.gone)


class Transport:
    """Two wires."""

    def __init__(self, world: World, client: End, server: End) -> None:
        self.world = world
        self.broken = False
        # A slow one still delivers when its successor is long at work.
        self.lag_s = world.chance.uniform(0.2, 3) if world.chance.random() < 0.15 else 0.0
        self.wires = (Wire(client, self), Wire(server, self))
        self.wires[0].other, self.wires[1].other = self.wires[1], self.wires[0]

    def snap(self) -> None:
        """It breaks. Each end learns that at once, late, or only by the silence."""
        if self.broken:
            return
        self.broken = True
        for wire in self.wires:
            fate = self.world.chance.random()
            if fate < 0.85:
                wait_s = self.world.chance.uniform(0, 0.02) if fate < 0.6 else self.world.chance.uniform(0, 2)
                self.world.at(self.world.now_s + wait_s, wire.gone)


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
        due_s = wire.link.next_s(self.clock()) - self.offset_s
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
        near.link.open(client.session)
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
