"""Views of a buffer are valid until the next receive, and afterwards say so."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pickle

import pytest
from unit.hold.datagram_pairs import BOTH, ends, use

from holdfast.errors import UsageError
from holdfast.hold.datagrams import Batch, DatagramBuffer, send_batch


@pytest.fixture(autouse=True, params=BOTH)
def implementation(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    use(request.param, monkeypatch)


def texts(batch: Batch[memoryview]) -> list[bytes]:
    return [bytes(view) for view, _ in batch]


def test_a_buffer_is_used_again() -> None:
    buffer = DatagramBuffer(150, 8)
    with ends() as two:
        for turn in (1, 2):
            sent = [b"%d" % (number * turn) for number in range(150)]
            send_batch(two.sender, [(data, two.to) for data in sent])
            assert texts(buffer.recv(two.receiver)) == sent


def test_what_has_no_room_is_cut_and_noted() -> None:
    with ends() as two:
        send_batch(two.sender, [(data, two.to) for data in (b"1234", b"12345", b"1", b"123456")])
        batch = DatagramBuffer(3, 4).recv(two.receiver)
        assert texts(batch) == [b"1234", b"1234", b"1"]
        assert batch.truncated == (1,)


def test_an_old_view_is_an_error_and_not_what_came_later() -> None:
    buffer = DatagramBuffer(2, 8)
    with ends() as two:
        send_batch(two.sender, [(b"old", two.to), (b"older", two.to), (b"new", two.to)])
        old = buffer.recv(two.receiver)
        buffer.recv(two.receiver)
        for view, _ in old:
            with pytest.raises(ValueError, match="released"):
                bytes(view)


def test_nothing_is_received_over_a_view_in_use() -> None:
    buffer = DatagramBuffer(1, 8)
    with ends() as two:
        send_batch(two.sender, [(b"held", two.to), (b"next", two.to)])
        held = pickle.PickleBuffer(buffer.recv(two.receiver)[0][0])
        with pytest.raises(UsageError, match="still in use"):
            buffer.recv(two.receiver)
        assert bytes(held) == b"held"
        held.release()
        assert texts(buffer.recv(two.receiver)) == [b"next"]


def test_a_view_can_be_changed_in_place() -> None:
    with ends() as two:
        two.sender.sendto(b"abc", two.to)
        ((view, _),) = DatagramBuffer(1, 8).recv(two.receiver)
        view[0] = ord("x")
        assert view == b"xbc"


def test_views_outlive_the_buffer() -> None:
    with ends() as two:
        two.sender.sendto(b"abc", two.to)
        ((view, _),) = DatagramBuffer(1, 8).recv(two.receiver)
        assert view == b"abc"


@pytest.mark.parametrize(("most", "most_bytes"), [(0, 8), (1025, 8), (8, 0), (8, (1 << 20) + 1)])
def test_a_buffer_has_bounds(most: int, most_bytes: int) -> None:
    with pytest.raises(UsageError):
        DatagramBuffer(most, most_bytes)
