"""Whatever is sent arrives as it was, cut only where it is noted, by both implementations."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from unit.hold.datagram_pairs import BOTH, ends, use

from holdfast.hold.datagrams import DatagramBuffer, enable_gro, recv_batch, send_batch
from holdfast.hold.datagrams_portable import pieces

PAYLOADS = st.lists(
    st.one_of(st.binary(max_size=40), st.binary(min_size=3, max_size=3), st.integers(0, 3000).map(bytes)),
    max_size=100,
)


@pytest.mark.parametrize("joined", [False, True])
@pytest.mark.parametrize("implementation", BOTH)
@settings(deadline=None, max_examples=40)
@given(payloads=PAYLOADS, most=st.integers(1, 130), room=st.integers(1, 3000))
def test_all_arrive_in_order_and_every_cut_is_noted(
    implementation: str, joined: bool, payloads: list[bytes], most: int, room: int
) -> None:
    with ends() as two, pytest.MonkeyPatch.context() as patch:
        use(implementation, patch)
        enable_gro(two.receiver, joined)
        assert send_batch(two.sender, [(data, two.to) for data in payloads]) == len(payloads)
        got: list[bytes] = []
        cut: list[bool] = []
        while len(got) < len(payloads):
            batch = recv_batch(two.receiver, most, max_bytes=room, deadline=0)
            assert joined or len(batch) <= most
            cut += [place in batch.truncated for place in range(len(batch))]
            got += [data for data, _ in batch]
    assert got == [data[:room] for data in payloads]
    assert cut == [len(data) > room for data in payloads]


@pytest.mark.parametrize("implementation", BOTH)
@settings(deadline=None, max_examples=40)
@given(payloads=PAYLOADS, most=st.integers(1, 130), room=st.integers(1, 3000))
def test_views_show_what_was_sent(implementation: str, payloads: list[bytes], most: int, room: int) -> None:
    buffer = DatagramBuffer(most, room)
    with ends() as two, pytest.MonkeyPatch.context() as patch:
        use(implementation, patch)
        send_batch(two.sender, [(data, two.to) for data in payloads])
        got: list[bytes] = []
        while len(got) < len(payloads):
            got += [bytes(view) for view, _ in buffer.recv(two.receiver, deadline=0)]
    assert got == [data[:room] for data in payloads]


JUNK = st.recursive(
    st.one_of(st.none(), st.integers(), st.text(max_size=5), st.binary(max_size=5), st.floats()),
    lambda inner: st.one_of(st.tuples(inner, inner), st.tuples(inner), st.lists(inner, max_size=3)),
    max_leaves=6,
)


@pytest.mark.parametrize("implementation", BOTH)
@settings(deadline=None, max_examples=200)
@given(messages=st.lists(st.one_of(JUNK, st.tuples(st.binary(max_size=9), JUNK)), max_size=5))
@pytest.mark.parametrize("kind", ["udp4", "unix path"])
def test_junk_is_refused_and_counted(implementation: str, kind: str, messages: list[object]) -> None:
    with ends(kind) as two, pytest.MonkeyPatch.context() as patch:
        use(implementation, patch)
        try:
            sent = send_batch(two.sender, messages, deadline=0)  # type: ignore[arg-type] # what is tested
        except (OSError, ValueError, TypeError) as error:
            assert 0 <= vars(error)["sent_messages"] < len(messages)
        else:
            assert sent == len(messages)


@given(st.integers(0, 3000), st.integers(0, 600), st.integers(1, 3000), st.integers(1, 3000))
def test_division_covers_all_that_was_sent(whole: int, step: int, room: int, most: int) -> None:
    parts = list(pieces(whole, step, room, most))
    assert [start for start, _, _ in parts] == [0, *[end for _, end, _ in parts[:-1]]]
    assert parts[-1][1] == whole
    assert all(end - start == step for start, end, _ in parts[:-1])
    for start, end, kept in parts:
        assert 0 <= kept <= min(end - start, most) and start + kept <= max(room, start)
