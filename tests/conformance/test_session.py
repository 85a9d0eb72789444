# SPDX-License-Identifier: Apache-2.0
"""One session, whatever drives and carries it: the same bytes, the same ends, also through resets."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conformance.drivers import LIMIT_S, Certificate
from conformance.sessions import NAMES, Both, End, session_pair

from holdfast import DeadlineExceeded, SessionLost, UsageError
from holdfast.hold.session.states import State

SHORT_S = 0.05


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return Certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture(params=NAMES)
def both(request: pytest.FixtureRequest, tmp_path: Path, certificate: Certificate) -> Iterator[Both]:
    with session_pair(request.param, tmp_path, certificate) as made:
        yield made


def soon() -> float:
    return time.monotonic() + LIMIT_S


def exactly(end: End, n: int) -> bytes:
    parts = b""
    while len(parts) < n:
        piece = end.recv(n - len(parts), deadline=soon())
        assert piece, f"the stream ended after {len(parts)} bytes"
        parts += piece
    return parts


def test_bytes_go_both_ways(both: Both) -> None:
    both.near.send(b"there")
    assert exactly(both.far, 5) == b"there"
    both.far.send(b"and back")
    assert exactly(both.near, 8) == b"and back"


def test_the_conversation_goes_on_after_a_reset(both: Both) -> None:
    for number in range(5):
        both.near.send(b"question %d" % number)
        assert exactly(both.far, 10) == b"question %d" % number
        both.cut()
        both.far.send(b"answer %d" % number)
        assert exactly(both.near, 8) == b"answer %d" % number


def test_what_was_under_way_at_a_reset_arrives_once(both: Both) -> None:
    sent = b"".join(b"%06d" % number for number in range(2000))
    got: list[bytes] = []
    if isinstance(both.near, type(both.far)) and "Memory" in type(both.near).__name__:
        for at in range(0, len(sent), 600):
            both.near.send(sent[at : at + 600])
            both.cut()
            got.append(exactly(both.far, 600))
    else:
        reader = threading.Thread(target=lambda: got.append(exactly(both.far, len(sent))))
        reader.start()
        for at in range(0, len(sent), 600):
            both.near.send(sent[at : at + 600], deadline=soon())
            if at % 3000 == 0:
                both.cut()
        reader.join(LIMIT_S)
    assert b"".join(got) == sent


def test_the_end_of_one_direction(both: Both) -> None:
    both.near.send(b"all")
    both.near.send_eof()
    assert exactly(both.far, 3) == b"all"
    assert both.far.recv(10, deadline=soon()) == b""
    assert both.far.recv(10, deadline=soon()) == b""
    both.far.send(b"still open")
    assert exactly(both.near, 10) == b"still open"
    with pytest.raises(UsageError):
        both.near.send(b"more")


def test_a_deadline_loses_nothing(both: Both) -> None:
    with pytest.raises(DeadlineExceeded):
        both.near.recv(10, deadline=time.monotonic() + SHORT_S)
    both.far.send(b"late")
    assert exactly(both.near, 4) == b"late"


def test_a_reader_who_does_not_read_holds_the_writer(both: Both) -> None:
    """Both windows fill, the writer waits, and every byte that was taken arrives."""
    block = bytes(range(256)) * 1024
    taken = 0
    with pytest.raises(DeadlineExceeded) as caught:
        while taken < 64 * len(block):
            both.near.send(block, deadline=time.monotonic() + 0.3)
            taken += len(block)
    taken += caught.value.sent_bytes
    # Two windows at most: what the near end keeps, and what waits at the far end.
    assert 0 < taken <= 2 * (1 << 18)
    got = exactly(both.far, taken)
    assert got == (block * 64)[:taken]


def test_everything_sent_is_confirmed_in_the_end(both: Both) -> None:
    both.near.send(b"x" * 1000)
    both.cut()
    both.near.flush(deadline=soon())
    assert both.near.confirmed_bytes == 1000


def test_flushing_waits_for_no_delayed_acknowledgement(both: Both, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the delay this long only a PING would tell, half a second later."""
    monkeypatch.setattr("holdfast.hold.session.core.ACK_DELAY_S", 60.0)
    monkeypatch.setattr("holdfast.hold.drivers.wire.ACK_DELAY_S", 60.0)
    deadline = time.monotonic() + 3
    for _ in range(20):
        both.near.send(b"record")
        both.near.flush(deadline=deadline)


def test_closing_both_ends(both: Both) -> None:
    with pytest.raises(DeadlineExceeded):
        both.near.close(deadline=time.monotonic() + SHORT_S)  # the far end has not ended its direction
    both.far.close(deadline=soon())
    both.near.close(deadline=soon())
    assert {both.near.state, both.far.state} <= {State.CLOSED, State.CLOSING}


def test_giving_up_is_told_with_its_code(both: Both) -> None:
    both.far.send(b"before")
    assert exactly(both.near, 6) == b"before"
    both.far.abort(42)
    with pytest.raises(SessionLost) as caught:
        both.near.recv(10, deadline=soon())
    assert caught.value.code == 42
    with pytest.raises((SessionLost, UsageError)):
        both.near.send(b"x")


def test_closing_with_unread_bytes_resets(both: Both) -> None:
    both.near.send(b"nobody reads this")
    both.near.flush(deadline=soon())
    with pytest.raises(SessionLost):
        both.far.close(deadline=soon())
    with pytest.raises(SessionLost):
        both.near.recv(1, deadline=soon())
