# SPDX-License-Identifier: Apache-2.0
"""A hostile network: it cuts bytes up, brings them late, and breaks at any of them."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from holdfast.hold.session.codes import Violation
from holdfast.hold.session.link import Link

if TYPE_CHECKING:
    from simulation.ends import End
    from simulation.world import World


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
