# SPDX-License-Identifier: Apache-2.0
"""Frames come out as they went in, however the transport cuts them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.hold.session.codes import Code, Violation
from holdfast.hold.session.frames import (
    CONTROL_BYTES,
    DATA_HEADER,
    LARGEST_BYTES,
    Frame,
    Kind,
    Parser,
    header,
)


def data(handle: int, offset: int, payload: bytes) -> bytes:
    return DATA_HEADER.pack(Kind.DATA, 0, 0, handle, len(payload) + 8, offset) + payload


WIRE = (
    header(Kind.HELLO, 1, 5) + b"hello" + data(7, 1000, b"abcdefghij") + header(Kind.CLOSE, 7, 0)
    + header(200, 3, 2) + b"??" + data(7, 1010, b"k")
)  # fmt: skip


def parse(pieces: list[bytes], cut_through: bool) -> list[tuple[int, int, bytes, int]]:
    """Every frame; of DATA in pieces, each joined with the one before that it continues."""
    parser, found = Parser(), []
    parser.cut_through = cut_through
    for piece in pieces:
        room = bytearray(piece)  # what a driver reuses
        parser.feed(memoryview(room))
        while (frame := parser.next()) is not None:
            found.append((frame.kind, frame.handle, bytes(frame.payload), frame.offset))
        room[:] = b"\xee" * len(room)
    merged: list[tuple[int, int, bytes, int]] = []
    for kind, handle, payload, offset in found:
        if cut_through and kind == Kind.DATA and merged and merged[-1][0] == kind:
            before = merged[-1]
            if before[3] + len(before[2]) == offset:
                merged[-1] = (kind, handle, before[2] + payload, before[3])
                continue
        merged.append((kind, handle, payload, offset))
    return merged


@pytest.mark.parametrize("cut_through", [False, True])
def test_cuts_change_nothing(cut_through: bool) -> None:
    whole = parse([WIRE], cut_through)
    assert [kind for kind, *_ in whole] == [Kind.HELLO, Kind.DATA, Kind.CLOSE, 200, Kind.DATA]
    assert parse([WIRE[i : i + 1] for i in range(len(WIRE))], cut_through) == whole
    for at in range(len(WIRE)):
        assert parse([WIRE[:at], WIRE[at:]], cut_through) == whole


def test_data_comes_through_before_its_frame_is_whole() -> None:
    parser = Parser()
    parser.cut_through = True
    parser.feed(data(1, 50, b"abcdef")[:-3])
    frame = parser.next()
    assert frame == Frame(Kind.DATA, 1, b"abc", 50)


def test_what_must_be_known_and_is_not_is_refused() -> None:
    parser = Parser()
    parser.feed(header(99, 1, 0))
    with pytest.raises(Violation) as caught:
        parser.next()
    assert caught.value.code is Code.UNKNOWN_KIND


@given(st.lists(st.binary(max_size=60), max_size=8), st.booleans(), st.integers(0, LARGEST_BYTES))
def test_any_bytes_give_frames_or_a_violation(pieces: list[bytes], cut_through: bool, largest: int) -> None:
    parser = Parser()
    parser.cut_through, parser.largest_bytes = cut_through, largest
    fed = 0
    try:
        for piece in pieces:
            parser.feed(piece)
            fed += len(piece)
            while parser.next() is not None:
                pass
            assert parser.held_bytes <= min(fed, max(largest, CONTROL_BYTES) + 12)
    except Violation:
        return


def test_a_trickle_of_a_large_frame_is_not_copied_again_and_again() -> None:
    """Each byte is joined once: the parts are kept apart until the frame is whole."""
    parser = Parser()
    parser.largest_bytes = 1 << 16
    wire = data(1, 0, bytes((1 << 16) - 8))
    for at in range(0, len(wire), 512):
        parser.feed(wire[at : at + 512])
        frame = parser.next()
        assert len(parser._parts) <= 1 + at // 512
    assert frame is not None and len(frame.payload) == (1 << 16) - 8
