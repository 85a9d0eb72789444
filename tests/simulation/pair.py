# SPDX-License-Identifier: Apache-2.0
"""Two ends of a session in memory: bytes move when a test says so, and as many as it says."""

from __future__ import annotations

import random

from simulation.world import PSK, QuickAgreement

from holdfast.hold.heartbeat import Rhythm
from holdfast.hold.session.core import Session
from holdfast.hold.session.handshake import Channel
from holdfast.hold.session.host import Host
from holdfast.hold.session.keys import NO_KEY
from holdfast.hold.session.link import Link
from holdfast.hold.session.terms import Memory, Terms

TERMS = Terms(
    window_bytes=4096, frame_bytes=512, keep_s=120, handshake_s=10, rhythm=Rhythm(can_s=1, want_s=10)
)


class Joined:
    """One transport between them.

    Attributes:
        near, far: the client's link and the server's.
        said: all bytes that the client's link gave, and all that the server's did.
    """

    def __init__(self, pair: Pair, session: Session | None) -> None:
        self.pair = pair
        self.near = Link(pair.channel, pair.now_s, rhythm=TERMS.rhythm)
        self.far = Link(pair.channel, pair.now_s, host=pair.host, on_session=pair.met.append)
        self.said = [b"", b""]
        if session is not None:
            self.near.open(session, pair.now_s)

    def forth(self, most: int | None = None) -> int:
        """Move what the client has to say, at most so many bytes; how many there were."""
        return self._move(0, self.near, self.far, most)

    def back(self, most: int | None = None) -> int:
        """Move what the server has to say."""
        return self._move(1, self.far, self.near, most)

    def _move(self, side: int, sender: Link, receiver: Link, most: int | None) -> int:
        data = b"".join(sender.pull(1 << 16, self.pair.now_s))
        self.said[side] += data
        if data:
            receiver.receive(data[:most], self.pair.now_s)
        return len(data)

    def settle(self) -> None:
        """Move everything, until nobody has anything to say."""
        while self.forth() + self.back():
            pass

    def cut(self) -> None:
        """Both ends learn that it is gone."""
        self.near.lost(self.pair.now_s)
        self.far.lost(self.pair.now_s)


class Pair:
    """A client's session, a server, and the transports between them."""

    def __init__(self, seed: int = 1, *, sealed: bool = True, terms: Terms = TERMS) -> None:
        self.chance = random.Random(seed)
        self.now_s = 1000.0
        mode, psk = ("psk", PSK) if sealed else ("plain", NO_KEY)
        self.channel = Channel(mode, b"", psk, QuickAgreement, self.chance.randbytes)
        self.host = Host(terms, Memory(1 << 22), self.chance.randbytes(48))
        self.memory = Memory(1 << 22)
        self.met: list[Session] = []
        self.client = self.session(terms)

    def session(self, terms: Terms = TERMS) -> Session:
        window = self.memory.first_window(terms.window_bytes)
        self.memory.enter(window)
        return Session(terms, self.memory, window)

    @property
    def server(self) -> Session:
        return self.met[-1]

    def join(self) -> Joined:
        """A new transport, on which the client has just begun."""
        return Joined(self, self.client)

    def opened(self) -> Joined:
        """A new transport that carries the session."""
        joined = self.join()
        joined.settle()
        return joined
