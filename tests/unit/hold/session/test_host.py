# SPDX-License-Identifier: Apache-2.0
"""A server's sessions: how many there may be, who is forgotten, and what is remembered of him."""

from __future__ import annotations

import pytest
from simulation.pair import TERMS

from holdfast.errors import UsageError
from holdfast.hold.session import host as hosting
from holdfast.hold.session.core import Session
from holdfast.hold.session.host import Host
from holdfast.hold.session.terms import Memory
from holdfast.hold.wire.session_pb2 import Welcome

WINDOW = 4096


def begun(host: Host, *names: bytes) -> list[Session]:
    """Sessions with these ids, as they were offered and confirmed."""
    terms = TERMS.wire(WINDOW, 3.0)
    return [host.begin(Welcome(session_id=name, terms=terms), bytes(32)) for name in names]


def test_no_more_sessions_begin_than_there_may_be() -> None:
    host = Host(TERMS, Memory(1 << 22), bytes(48), most_sessions=2)
    begun(host, b"a")
    assert host.first_window() == WINDOW and host.has_room(WINDOW)
    assert begun(host, b"b")[0].keep_s == 3.0
    assert host.first_window() == 0 and not host.has_room(WINDOW)


def test_a_session_begins_only_with_room_for_both_directions() -> None:
    host = Host(TERMS, Memory(4 * WINDOW), bytes(48))
    assert host.has_room(2 * WINDOW) and not host.has_room(2 * WINDOW + 1)
    begun(host, b"a")
    assert host.has_room(WINDOW) and not host.has_room(WINDOW + 1)


def test_who_is_forgotten_gives_everything_back_once() -> None:
    """What waits for an application that is gone would be held as long as its session is remembered."""
    host = Host(TERMS, Memory(1 << 22), bytes(48))
    first, second = begun(host, b"a", b"b")
    first.arrived(0, bytes(100), 0.0)
    for _ in range(2):
        host.forget(first)
    assert first.into.held_bytes == 0
    assert (host.memory.sessions, host.memory.promised_bytes) == (1, 2 * WINDOW)
    assert (host.sessions, host.find(b"a"), host.find(b"c")) == ([second], first, None)


def test_who_was_never_there_is_not_remembered() -> None:
    host = Host(TERMS, Memory(1 << 22), bytes(48))
    stranger = Session(TERMS, Memory(1 << 22), WINDOW)
    stranger.id = b"a"
    host.forget(stranger)
    assert host.find(b"a") is None


def test_those_that_ended_last_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """So many and no more, however many come and go."""
    monkeypatch.setattr(hosting, "REMEMBERED", 3)
    host = Host(TERMS, Memory(1 << 22), bytes(48))
    sessions = begun(host, b"a", b"b", b"c", b"d", b"e")
    for session in sessions:
        host.forget(session)
    assert [host.find(session.id) for session in sessions] == [None, None, *sessions[2:]]


def test_who_is_away_too_long_is_forgotten_unless_somebody_serves_him() -> None:
    host = Host(TERMS, Memory(1 << 22), bytes(48))
    served, away, there = begun(host, b"a", b"b", b"c")
    for session in (served, away, there):
        session.attach(None, 1, 1, None)  # type: ignore[arg-type]  # carried by whatever
    for session in (served, away):
        session.detach(None, 10.0)  # type: ignore[arg-type]
    assert host.look(12.9, [b"a"]) == []
    assert host.look(13.0, [b"a"]) == [away]
    assert (host.sessions, served.ended, there.ended) == ([served, there], True, False)
    assert host.look(13.0) == [served] and host.memory.sessions == 1


@pytest.mark.parametrize("size", [0, 47, 49])
def test_a_host_needs_all_its_entropy(size: int) -> None:
    with pytest.raises(UsageError, match=f"entropy has {size} bytes: give 48"):
        Host(TERMS, Memory(), bytes(size))
