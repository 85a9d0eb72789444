# SPDX-License-Identifier: Apache-2.0
"""However bytes are cut on their way in, the same frames come out; compiled or not."""

from __future__ import annotations

import gc
import tracemalloc
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast import _native
from holdfast.errors import HoldfastError, LimitExceeded, UsageError
from holdfast.hold import inbox, inbox_portable

Inbox = _native.Inbox | inbox_portable.Inbox
BUILDS = [_native.Inbox, inbox_portable.Inbox]

FRAMES = st.lists(st.binary(max_size=300), max_size=20)
CUTS = st.lists(st.integers(1, 50), min_size=1, max_size=10)

builds = pytest.mark.parametrize("build", BUILDS, ids=["native", "portable"])


def put(inbox: Inbox, data: bytes) -> None:
    """Fill the space as an event loop does, again and again until all is in."""
    while data:
        space = inbox.space()
        count = min(len(space), len(data))
        space[:count] = data[:count]
        inbox.add(count)
        data = data[count:]


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    """``data`` cut into such pieces."""
    cut: list[bytes] = []
    while data:
        size = cuts[len(cut) % len(cuts)]
        cut.append(data[:size])
        data = data[size:]
    return cut


@builds
@given(frames=FRAMES, cuts=CUTS)
@settings(max_examples=100, deadline=None)
def test_cuts_do_not_change_the_lines(build: type[Inbox], frames: list[bytes], cuts: list[int]) -> None:
    lines = [frame.replace(b"\r\n", b"") + b"\r\n" for frame in frames]
    inbox, found = build(), []
    for piece in pieces(b"".join(lines), cuts):
        put(inbox, piece)
        while (line := inbox.take_until(b"\r\n", 1000)) is not None:
            found.append(line)
    assert b"".join(found) == b"".join(lines)
    assert all(line.endswith(b"\r\n") and line.count(b"\r\n") == 1 for line in found)
    assert len(inbox) == 0


@builds
@given(frames=FRAMES, cuts=CUTS)
@settings(max_examples=100, deadline=None)
def test_cuts_do_not_change_what_has_a_length(
    build: type[Inbox], frames: list[bytes], cuts: list[int]
) -> None:
    inbox, found = build(), []
    wanted = [len(frame) for frame in frames]
    for piece in [*pieces(b"".join(frames), cuts), b""]:
        put(inbox, piece)
        while len(found) < len(wanted) and (frame := inbox.take_exactly(wanted[len(found)])) is not None:
            found.append(frame)
    assert found == frames


@builds
@given(data=st.binary(max_size=400), delimiter=st.binary(min_size=1, max_size=3), limit=st.integers(0, 100))
@settings(max_examples=200, deadline=None)
def test_a_limit_is_a_limit_and_takes_nothing(
    build: type[Inbox], data: bytes, delimiter: bytes, limit: int
) -> None:
    inbox = build()
    put(inbox, data)
    whole = data.find(delimiter) + len(delimiter) if delimiter in data else None
    try:
        frame = inbox.take_until(delimiter, limit)
    except LimitExceeded as error:
        assert whole is None or whole > limit
        assert (error.partial, error.limit_bytes) == (data[:limit], limit)
        assert len(data) >= limit
        assert inbox.take(len(data)) == data
    else:
        assert frame == (data[:whole] if whole is not None else None)
        assert whole is None or whole <= limit


# ---- both builds side by side

# Few different bytes, so that delimiters and halves of them occur.
CONTENT = st.text("ab\n", max_size=40).map(str.encode)
BULK = st.integers(0, 300_000).map(lambda size: b"ab\n" * (size // 3))
HOSTILE = st.sampled_from([2**31, 2**63, -(2**63), 2**70, -(2**70)])
SIZES = st.one_of(st.integers(-3, 60), st.integers(60_000, 300_000), HOSTILE)
DELIMITERS = st.sampled_from([b"", b"\n", b"a\n", b"ab", b"bab", b"aaaaaaaa"])
STEPS = st.one_of(
    st.tuples(st.just("put"), st.one_of(CONTENT, BULK)),
    st.tuples(st.just("take_into"), st.integers(0, 50)),
    st.tuples(st.just("take_until"), DELIMITERS, SIZES),
    st.tuples(st.sampled_from(["take", "take_exactly", "peek", "add"]), SIZES),
)


def outcome(inbox: Inbox, step: tuple[Any, ...]) -> object:
    """What a step gives, errors with their sentence and facts included."""
    name, *given = step
    try:
        if name == "put":
            return put(inbox, *given)
        if name == "take_into":
            buffer = bytearray(given[0])
            return inbox.take_into(buffer), bytes(buffer)
        if name == "add" and 0 <= given[0] <= len(inbox.space()):
            return None  # nothing was put there
        return getattr(inbox, name)(*given)
    except HoldfastError as error:
        return type(error), error.args, str(error)


@given(st.lists(STEPS, max_size=40))
@settings(max_examples=300, deadline=None)
def test_both_builds_give_the_same_answers_and_take_the_same_room(steps: list[tuple[Any, ...]]) -> None:
    native, portable = _native.Inbox(), inbox_portable.Inbox()
    for step in steps:
        assert outcome(native, step) == outcome(portable, step), step
        assert native.peek(2**70) == portable.peek(2**70)
        assert (len(native), native.capacity_bytes) == (len(portable), portable.capacity_bytes)
        assert len(native.space()) == len(portable.space()) > 0


@given(st.lists(st.one_of(st.binary(max_size=200_000), st.integers(0, 100_000)), max_size=30))
@settings(max_examples=50, deadline=None)
def test_it_is_a_queue_of_bytes(steps: list[bytes | int]) -> None:
    inboxes, model = [build() for build in BUILDS], b""
    for step in steps:
        if isinstance(step, bytes):
            model += step
            for inbox in inboxes:
                put(inbox, step)
        else:
            assert [inbox.take(step) for inbox in inboxes] == [model[:step]] * 2
            model = model[step:]
        assert [(len(inbox), inbox.peek(9)) for inbox in inboxes] == [(len(model), model[:9])] * 2


def test_the_compiled_one_is_used() -> None:
    assert inbox.Inbox is _native.Inbox  # type: ignore[comparison-overlap]  # the checker knows the portable one


# ---- what a caller can do wrong


@builds
def test_a_view_outlives_the_memory_that_it_shows(build: type[Inbox]) -> None:
    """An event loop may hold the space while the inbox grows, shrinks or dies."""
    inbox = build()
    view = inbox.space()
    put(inbox, b"x" * 200_000)
    inbox.take(200_000)
    del inbox
    gc.collect()
    view[:] = bytes(len(view))
    assert len(view) == 65536


@builds
def test_the_memory_of_a_view_cannot_be_resized(build: type[Inbox]) -> None:
    inbox = build()
    with inbox.space() as view:
        store = view.obj
    with pytest.raises(BufferError):
        store.clear()  # type: ignore[attr-defined]
    put(inbox, b"still here")
    assert inbox.take(99) == b"still here"


@builds
def test_a_buffer_that_cannot_be_written_takes_nothing(build: type[Inbox]) -> None:
    inbox = build()
    put(inbox, b"kept")
    with pytest.raises((TypeError, BufferError)):
        inbox.take_into(b"read only")  # type: ignore[arg-type]
    assert inbox.take(99) == b"kept"


@builds
@pytest.mark.parametrize("count", [-1, 65537, 2**63, 2**70])
def test_more_than_its_space_cannot_be_added(build: type[Inbox], count: int) -> None:
    inbox = build()
    with pytest.raises(UsageError, match=f"^{count} bytes do not fit"):
        inbox.add(count)
    assert len(inbox) == 0


@builds
def test_it_has_memory_only_while_something_is_in_it(build: type[Inbox]) -> None:
    inbox = build()
    assert inbox.capacity_bytes == 0
    for size in (1, 1 << 16, 1 << 20):
        put(inbox, b"x" * size)
        assert size <= inbox.capacity_bytes <= 3 * max(size, 1 << 16)
        inbox.take(size)
        assert inbox.capacity_bytes == 0


@builds
def test_a_view_keeps_its_memory_while_the_inbox_is_emptied(build: type[Inbox]) -> None:
    """A signal handler may receive in the middle of a receive."""
    inbox = build()
    space = inbox.space()
    put(inbox, b"the handler's")
    assert inbox.take(99) == b"the handler's"
    space[:5] = b"outer"
    inbox.add(5)
    assert inbox.take(99) == b"outer"


@builds
def test_only_bytes_are_a_delimiter(build: type[Inbox]) -> None:
    """A bytearray that is changed afterwards would not be found in what was searched before."""
    inbox = build()
    put(inbox, b"aZYb")
    for wrong in (bytearray(b"XY"), memoryview(b"ZY")):
        with pytest.raises(TypeError, match="the delimiter must be bytes, not "):
            inbox.take_until(wrong, 50)  # type: ignore[arg-type]
    assert inbox.take_until(b"ZY", 50) == b"aZY"


@builds
@pytest.mark.parametrize("wrong", [None, "1", 2.0, float("nan")])
def test_what_is_no_number_is_refused(build: type[Inbox], wrong: Any) -> None:
    inbox = build()
    put(inbox, b"some bytes")
    for call in (inbox.peek, inbox.take, inbox.take_exactly, inbox.add):
        with pytest.raises(TypeError):
            call(wrong)
    with pytest.raises(TypeError):
        inbox.take_until(b"\n", wrong)
    with pytest.raises(TypeError):
        inbox.take_until("\n", 9)  # type: ignore[arg-type]
    assert [inbox.take_exactly(4), inbox.take(99)] == [b"some", b" bytes"]


@builds
def test_it_gives_its_memory_back(build: type[Inbox]) -> None:
    def work() -> None:
        inbox = build()
        for size in (10, 100_000, 10):
            put(inbox, b"x" * size)
            for limit in (-1, 5, 200_000):
                outcome(inbox, ("take_until", b"\n", limit))
            inbox.take_into(bytearray(inbox.take_exactly(3) or b""))
            inbox.take(size)

    tracemalloc.start()
    try:
        sizes = []
        for _ in range(4):
            for _ in range(100):
                work()
            gc.collect()
            sizes.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    # What leaks does so in every round; less than ten bytes a time would be none.
    assert min(after - before for before, after in pairwise(sizes)) < 1000
