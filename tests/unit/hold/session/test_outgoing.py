# SPDX-License-Identifier: Apache-2.0
"""What a session keeps until the peer has it: every byte at its offset, none longer than it must."""

from __future__ import annotations

import random
import tracemalloc

import pytest

from holdfast.hold.session.codes import Code, Violation
from holdfast.hold.session.stream import SMALL_BYTES, TAIL_BYTES, Outgoing

SIZES = (1, 7, 100, SMALL_BYTES - 1, SMALL_BYTES, SMALL_BYTES + 1, 20_000)


class Model:
    """An end of a session that does whatever it may, beside all bytes that it ever wrote."""

    def __init__(self, seed: int) -> None:
        self.chance, self.out, self.written, self.sent = random.Random(seed), Outgoing(), b"", 0

    def write(self) -> None:
        for _ in range(self.chance.choice((1, 1, 3, 40))):
            data = self.chance.randbytes(self.chance.choice(SIZES))
            self.written += data
            self.out.write(data)

    def take(self) -> None:
        most, at, sendable = self.chance.choice((0, *SIZES, 1 << 20)), self.out.cursor, self.out.sendable()
        assert sendable == max(0, min(self.out.limit, len(self.written)) - at)
        taken = b"".join(self.out.take(most))
        assert taken == self.written[at : at + min(most, sendable)]
        assert self.out.cursor == at + len(taken)
        self.sent = max(self.sent, self.out.cursor)

    def allow(self) -> None:
        self.out.limit += self.chance.choice(SIZES)

    def confirm(self) -> None:
        """Of this transport or, beyond where this one is, of the one before."""
        first, cursor = self.out.first, self.out.cursor
        upto = self.chance.choice((first, cursor, self.chance.randint(0, self.sent)))
        self.out.confirm(upto)
        assert (self.out.first, self.out.cursor) == (max(first, upto), max(cursor, upto))

    def resume(self) -> None:
        upto = self.chance.randint(self.out.first, self.sent)
        assert self.out.could_resume(upto)
        self.out.rewind(upto)
        assert self.out.first == self.out.cursor == upto

    def run(self, turns: int) -> None:
        for _ in range(turns):
            self.chance.choice((self.write, self.take, self.take, self.allow, self.confirm, self.resume))()
            assert self.out.end == len(self.written)
            assert self.out.held_bytes == len(self.written) - self.out.first
            assert self.out.in_flight is (self.out.first < self.out.cursor)
            for beyond in (self.out.first - 1, self.sent + 1):
                assert not self.out.could_resume(beyond)
            with pytest.raises(Violation) as caught:
                self.out.confirm(self.sent + 1)
            assert caught.value.code is Code.BAD_ACK


@pytest.mark.parametrize("seed", range(8))
def test_whatever_is_confirmed_and_sent_again_every_byte_has_its_offset(seed: int) -> None:
    Model(seed).run(300)


@pytest.mark.parametrize("piece_bytes", [16, 1000, 10_000])
def test_what_is_confirmed_takes_no_memory(piece_bytes: int) -> None:
    out = Outgoing()
    out.limit = 1 << 30
    tracemalloc.start()
    try:
        for _ in range(5):
            while out.end - out.cursor < 100_000:
                out.write(bytes(piece_bytes))
            while out.take(5000):
                pass
            out.confirm(out.cursor)
        assert tracemalloc.get_traced_memory()[0] < 20_000
        while out.held_bytes < 300_000:
            out.write(bytes(piece_bytes))
        assert tracemalloc.get_traced_memory()[0] < 2 * 300_000, "small pieces share an object"
        end = out.end
        out.drop()
        assert tracemalloc.get_traced_memory()[0] < 20_000 and out.end == end
    finally:
        tracemalloc.stop()


def test_what_is_large_is_not_copied() -> None:
    out, large = Outgoing(), bytes(SMALL_BYTES)
    out.limit = 1 << 20
    out.write(b"small")
    out.write(large)
    small, kept = out.take(1 << 20)
    assert small == b"small" and kept is large


def test_what_is_small_is_gathered_up_to_a_bound() -> None:
    """One object that grows without end would be copied when it goes out, all at once."""
    out, piece = Outgoing(), bytes(SMALL_BYTES // 2)
    out.limit = 1 << 20
    for _ in range(100):
        out.write(piece)
    assert max(map(len, out.take(1 << 20))) == TAIL_BYTES


def test_the_end_takes_an_offset_and_no_credit() -> None:
    out = Outgoing()
    assert not out.fin_due
    out.write(b"four")
    assert (out.last, out.all_confirmed, out.fin_due) == (4, False, False)
    out.finished = True
    assert (out.last, out.fin_due) == (5, False), "bytes go first"
    out.limit = 4
    out.take(4)
    assert out.fin_due
    with pytest.raises(Violation):
        out.confirm(5)
    assert (out.take_fin(), out.could_resume(5)) == (4, True), "it counts as sent at once"
    assert (out.sendable(), out.take(9)) == (0, [])
    assert (out.cursor, out.fin_due, out.could_resume(5), out.could_resume(6)) == (5, False, True, False)
    out.confirm(4)
    assert (out.held_bytes, out.all_confirmed, out.in_flight) == (0, False, True)
    out.rewind(4)
    assert out.fin_due and out.take_fin() == 4
    out.confirm(5)
    assert out.all_confirmed and not out.in_flight
