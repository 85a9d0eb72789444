# SPDX-License-Identifier: Apache-2.0
"""Any order of writing, reading, moving bytes, cutting and dialling: each byte comes out once, in order."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from simulation.pair import TERMS, Joined, Pair

from holdfast.hold.session.codes import Code, Violation
from holdfast.hold.session.core import Session
from holdfast.hold.session.states import State


class Machine(RuleBasedStateMachine):
    """Two ends and up to three transports; the model is what was written and what was read."""

    @initialize(seed=st.integers(0, 1000), sealed=st.booleans())
    def begin(self, seed: int, sealed: bool) -> None:
        self.pair = Pair(seed, sealed=sealed)
        self.transports = [self.pair.opened()]
        self.written = {"there": b"", "back": b""}
        self.read = {"there": b"", "back": b""}
        self.epoch = 0

    def ends(self, way: str) -> tuple[Session, Session]:
        near, far = self.pair.client, self.pair.server
        return (near, far) if way == "there" else (far, near)

    @rule(way=st.sampled_from(("there", "back")), data=st.binary(min_size=1, max_size=900))
    def write(self, way: str, data: bytes) -> None:
        sender, _ = self.ends(way)
        if not sender.ended and not sender.out.finished:
            took = sender.write(data)
            self.written[way] += data[:took]

    @rule(way=st.sampled_from(("there", "back")))
    def ask(self, way: str) -> None:
        self.ends(way)[0].ask()

    @rule(way=st.sampled_from(("there", "back")), most=st.integers(1, 1500))
    def take(self, way: str, most: int) -> None:
        _, receiver = self.ends(way)
        self.read[way] += receiver.read(most)
        assert self.written[way].startswith(self.read[way])

    @precondition(lambda self: len(self.transports) < 3)
    @rule()
    def dial(self) -> None:
        self.transports.append(self.pair.join())

    @precondition(lambda self: self.transports)
    @rule(which=st.integers(0, 2), forth=st.booleans(), most=st.one_of(st.none(), st.integers(0, 400)))
    def move(self, which: int, forth: bool, most: int | None) -> None:
        """Some of what one end has to say arrives; what does not is lost, and so the transport is dead."""
        joined = self.transports[which % len(self.transports)]
        try:
            size = joined.forth(most) if forth else joined.back(most)
        except Violation as error:
            assert error.code is Code.SUPERSEDED
            self.cut(which)
            return
        if most is not None and most < size:
            self.cut(which)

    @precondition(lambda self: self.transports)
    @rule(which=st.integers(0, 2))
    def cut(self, which: int) -> None:
        self.transports.pop(which % len(self.transports)).cut()

    @rule(seconds=st.floats(0, 5))
    def wait(self, seconds: float) -> None:
        self.pair.now_s += seconds
        for joined in self.transports:
            joined.near.look(self.pair.now_s)
            joined.far.look(self.pair.now_s)

    @invariant()
    def nothing_exceeds_its_bound(self) -> None:
        for session in (self.pair.client, self.pair.server):
            assert session.into.held_bytes <= TERMS.window_bytes
            assert session.out.held_bytes <= TERMS.window_bytes
            assert session.state in (State.OPEN, State.SUSPENDED)

    @invariant()
    def keys_are_never_further_apart_than_one_generation(self) -> None:
        assert self.pair.client.generation - self.pair.server.generation in (0, 1)

    @invariant()
    def the_newest_transport_wins(self) -> None:
        assert self.pair.server.epoch >= self.epoch
        self.epoch = self.pair.server.epoch

    def teardown(self) -> None:
        """Whatever happened, one more transport brings everything."""
        if not hasattr(self, "pair"):
            return
        for joined in self.transports:
            joined.cut()
        last: Joined = self.pair.opened()
        for _ in range(100):
            for way in ("there", "back"):
                self.take(way, 1 << 20)
            last.settle()
        assert self.read == self.written


Machine.TestCase.settings = settings(max_examples=20, stateful_step_count=30, deadline=None)
TestMachine = Machine.TestCase
