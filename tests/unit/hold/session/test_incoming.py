"""What a session holds for an application that does not read: the bytes, and little besides."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import tracemalloc

import pytest

from holdfast.hold.session.stream import Incoming

HELD_BYTES = 100_000


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
