# SPDX-License-Identifier: Apache-2.0
"""What a session holds for an application that does not read: the bytes, and little besides."""

from __future__ import annotations

import random
import tracemalloc

import pytest

from holdfast.hold.session.codes import Code, Violation
from holdfast.hold.session.stream import SMALL_BYTES, TAIL_BYTES, Incoming

HELD_BYTES = 100_000
SIZES = (1, 50, SMALL_BYTES - 1, SMALL_BYTES, 9000)


@pytest.mark.parametrize("piece_bytes", [1, 16, 1000])
def test_small_pieces_that_wait_take_little_more_than_their_bytes(piece_bytes: int) -> None:
    incoming = Incoming()
    incoming.limit = HELD_BYTES
    sent = bytes(at % 251 for at in range(HELD_BYTES))
    tracemalloc.start()
    try:
        for at in range(0, HELD_BYTES, piece_bytes):
            incoming.accept(at, sent[at : at + piece_bytes])
        taken_bytes = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert taken_bytes < 2 * HELD_BYTES
    first = incoming.read(70)
    incoming.put_back(first)
    got = b""
    while part := incoming.read(777):
        got += part
    assert (got, incoming.held_bytes) == (sent, 0)


@pytest.mark.parametrize("seed", range(8))
def test_whatever_comes_again_and_is_read_each_byte_is_read_once(seed: int) -> None:
    chance, incoming, read = random.Random(seed), Incoming(), b""
    sent = chance.randbytes(HELD_BYTES)
    incoming.limit = len(sent)
    while len(read) < len(sent):
        before = incoming.next
        offset = chance.choice((before, chance.randint(max(0, before - 9000), before)))
        data = bytearray(sent[offset : offset + chance.choice(SIZES)])
        new = incoming.accept(offset, data)
        assert new == max(0, offset + len(data) - before) and incoming.next == before + new
        data[:] = bytes(len(data))  # the transport's buffer is used for other bytes then
        for _ in range(chance.choice((0, 0, 1, 6))):
            most = chance.choice((0, 1, 100, SMALL_BYTES, 10_000))
            part = incoming.read(most)
            assert type(part) is bytes and len(part) <= most
            assert bool(part) or most == 0 or not incoming.held_bytes
            if chance.random() < 0.2:
                incoming.put_back(part)
            else:
                read += part
            assert (incoming.taken, incoming.held_bytes) == (len(read), incoming.next - len(read))
    assert read == sent


def test_a_read_gives_as_many_whole_pieces_as_there_is_room_for() -> None:
    incoming = Incoming()
    incoming.limit = 1 << 20
    incoming.accept(0, bytes(10))
    incoming.accept(10, bytes(SMALL_BYTES))
    incoming.accept(10 + SMALL_BYTES, bytes(SMALL_BYTES))
    assert len(incoming.read(10 + SMALL_BYTES)) == 10 + SMALL_BYTES
    assert len(incoming.read(SMALL_BYTES + 1)) == SMALL_BYTES


def test_only_small_pieces_are_gathered_and_only_up_to_a_bound() -> None:
    """One object that grows without end would be copied again and again."""
    incoming = Incoming()
    incoming.limit = 1 << 20

    def come(*sizes: int) -> None:
        for size in sizes:
            incoming.accept(incoming.next, bytes(size))

    come(SMALL_BYTES, *[SMALL_BYTES // 2] * 100)
    assert len(incoming.read(1 << 20)) == SMALL_BYTES
    assert len(incoming.read(1 << 20)) == TAIL_BYTES
    incoming.drop()
    come(SMALL_BYTES, 10, SMALL_BYTES)
    assert len(incoming.read(SMALL_BYTES)) == SMALL_BYTES
    assert len(incoming.read(SMALL_BYTES)) == 10


def refused(incoming: Incoming, offset: int, data: bytes | None) -> Code:
    """Why these bytes, or (None) a FIN, are refused there; nothing has changed by it."""
    before = (incoming.next, incoming.ended, incoming.held_bytes)
    with pytest.raises(Violation) as caught:
        incoming.finish(offset) if data is None else incoming.accept(offset, data)
    assert (incoming.next, incoming.ended, incoming.held_bytes) == before
    return caught.value.code


def test_bytes_come_in_order_and_within_the_credit() -> None:
    incoming = Incoming()
    incoming.limit = 10
    assert incoming.accept(0, b"12345") == 5
    assert refused(incoming, 6, b"7") is Code.GAP
    assert refused(incoming, 5, b"678901") is Code.OVER_CREDIT
    assert incoming.accept(5, b"67890") == 5
    assert incoming.accept(5, b"67890") == 0
    assert incoming.read(20) == b"1234567890"


def test_nothing_comes_after_the_end_which_stays_where_it_is() -> None:
    incoming = Incoming()
    incoming.limit = 10
    incoming.accept(0, b"12345")
    assert [refused(incoming, offset, None) for offset in (4, 6)] == [Code.GAP] * 2
    incoming.finish(5)
    assert (incoming.next, incoming.ended, incoming.taken) == (6, True, 0)
    incoming.finish(5)  # sent again on a newer transport
    assert incoming.accept(3, b"45") == 0
    assert [refused(incoming, offset, None) for offset in (4, 6)] == [Code.OUT_OF_PLACE] * 2
    assert refused(incoming, 3, b"456") is Code.OUT_OF_PLACE
    assert incoming.read(3) == b"123" and incoming.taken == 3
    assert incoming.drop() == 2
    assert (incoming.held_bytes, incoming.read(9), incoming.drop()) == (0, b"", 0)
