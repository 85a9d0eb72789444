# SPDX-License-Identifier: Apache-2.0
"""However bytes are cut on their way in, the same frames come out."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.errors import LimitExceeded
from holdfast.hold.inbox import Inbox

FRAMES = st.lists(st.binary(max_size=300), max_size=20)
CUTS = st.lists(st.integers(1, 50), min_size=1, max_size=10)


def feed(inbox: Inbox, data: bytes, cuts: list[int]) -> list[bytes]:
    """Put ``data`` in, piece by piece; the pieces."""
    pieces = []
    while data:
        size = cuts[len(pieces) % len(cuts)]
        pieces.append(data[:size])
        data = data[size:]
    return pieces


@given(FRAMES, CUTS)
@settings(max_examples=200, deadline=None)
def test_cuts_do_not_change_the_lines(frames: list[bytes], cuts: list[int]) -> None:
    lines = [frame.replace(b"\r\n", b"") + b"\r\n" for frame in frames]
    inbox, found = Inbox(), []
    for piece in feed(inbox, b"".join(lines), cuts):
        inbox.space()[: len(piece)] = piece
        inbox.add(len(piece))
        while (line := inbox.take_until(b"\r\n", 1000)) is not None:
            found.append(line)
    assert b"".join(found) == b"".join(lines)
    assert all(line.endswith(b"\r\n") and line.count(b"\r\n") == 1 for line in found)
    assert len(inbox) == 0


@given(FRAMES, CUTS)
@settings(max_examples=200, deadline=None)
def test_cuts_do_not_change_what_has_a_length(frames: list[bytes], cuts: list[int]) -> None:
    inbox, found = Inbox(), []
    wanted = [len(frame) for frame in frames]
    for piece in [*feed(inbox, b"".join(frames), cuts), b""]:
        inbox.put(piece)
        while len(found) < len(wanted) and (frame := inbox.take_exactly(wanted[len(found)])) is not None:
            found.append(frame)
    assert found == frames


@given(st.binary(max_size=400), st.binary(min_size=1, max_size=3), st.integers(0, 100))
@settings(max_examples=300, deadline=None)
def test_a_limit_is_a_limit_and_takes_nothing(data: bytes, delimiter: bytes, limit: int) -> None:
    inbox = Inbox()
    inbox.put(data)
    whole = data.find(delimiter) + len(delimiter) if delimiter in data else None
    try:
        frame = inbox.take_until(delimiter, limit)
    except LimitExceeded as error:
        assert whole is None or whole > limit
        assert error.partial == data[:limit] and len(data) >= limit
        assert inbox.take(len(data)) == data
    else:
        assert frame == (data[:whole] if whole is not None else None)
        assert whole is None or whole <= limit


@given(st.lists(st.one_of(st.binary(max_size=200_000), st.integers(0, 100_000)), max_size=30))
@settings(max_examples=100, deadline=None)
def test_it_is_a_queue_of_bytes(steps: list[bytes | int]) -> None:
    inbox, model = Inbox(), b""
    for step in steps:
        if isinstance(step, bytes):
            inbox.put(step)
            model += step
        else:
            assert inbox.take(step) == model[:step]
            model = model[step:]
        assert (len(inbox), inbox.peek(9)) == (len(model), model[:9])
        assert len(inbox.space()) > 0
