# SPDX-License-Identifier: Apache-2.0
"""What several connections together tell of one."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from captured_flows import CLIENT, SERVER, START_NS, Seg, flow_of

from holdfast.events import Endpoint
from holdfast.watch.capture.flow import ACK, CWR, ECE, PSH, RST, SYN, Option
from holdfast.watch.diagnose.across import Opened, refine
from holdfast.watch.diagnose.judge import Judged, judge
from holdfast.watch.diagnose.reused import Displaced
from holdfast.watch.diagnose.vantages import Sighting, Vantage, join

C, S = 100, 500


def judged(segments: list[Seg], client: Endpoint = CLIENT, server: Endpoint = SERVER) -> Judged:
    found = judge(flow_of(segments, client, server), ["capture"])
    assert found is not None
    return found


def refused(ttl: int = 63, flags: int = SYN, options: int = 0) -> Judged:
    answer = Seg(1, False, RST | ACK, 0, C + 1, window=0, ttl=ttl, ip_id=0, options_bytes=0)
    return judged([Seg(0, True, flags, C, options=options), answer])


def told(one: Judged) -> tuple[str, str]:
    return one.explained.cause, one.explained.sender


def test_alone_a_refusal_cannot_be_told_from_a_rejection() -> None:
    (only,) = refine([refused()], {}, ())
    assert told(only) == ("connection_refused", "unknown")


@pytest.mark.parametrize(
    ("ttls", "expected"),
    [
        ((63, 63), ("connection_refused", "server")),
        ((61, 64), ("connection_refused", "unknown")),  # one of several ways: of others as well
        ((62, 62), ("path_firewall_reject", "path")),
        ((60, 62), ("connection_refused", "unknown")),
        ((64, 64), ("connection_refused", "unknown")),  # farther than the server: on no way to it
    ],
)
def test_other_connections_of_the_server_tell_who_refuses(
    ttls: tuple[int, int], expected: tuple[str, str]
) -> None:
    (only,) = refine([refused()], {SERVER.ip: ttls}, ())
    assert told(only) == expected


@pytest.mark.parametrize(
    ("flags", "options", "later_flags", "later_options", "words"),
    [
        (SYN | ECE | CWR, 0, SYN, 0, "without ECN"),
        (SYN, Option.FAST_OPEN | Option.MSS, SYN, Option.MSS, "without TCP Fast Open"),
        (SYN, Option.MPTCP, SYN, 0, "without Multipath TCP"),
    ],
)
def test_an_option_that_is_refused(
    flags: int, options: int, later_flags: int, later_options: int, words: str
) -> None:
    again = Opened(CLIENT.ip, SERVER, START_NS + 5_000_000_000, later_flags, later_options)
    (only,) = refine([refused(flags=flags, options=options)], {}, [again])
    assert told(only) == ("handshake_option_refused", "path")
    assert words in only.explained.evidence[0].fact


BEFORE = Displaced(CLIENT, SERVER, START_NS - 1_000_000, C - 9, 500, half_open=False, left_by_server=True)


@pytest.mark.parametrize(
    ("changed", "ttl", "expected"),
    [
        ({}, 63, ("syn_after_close", "server")),
        ({"half_open": True, "left_by_server": False}, 63, ("duplicate_syn", "server")),
        ({"left_by_server": False}, 63, ("connection_refused", "server")),
        ({"next_seq": C}, 63, ("syn_after_close", "server")),
        # Outside the window a SYN is acknowledged, not reset: somebody else has refused it.
        ({"next_seq": C + 1}, 63, ("connection_refused", "server")),
        ({"window_bytes": 9}, 63, ("connection_refused", "server")),
        ({"last_ns": START_NS - 61_000_000_000}, 63, ("connection_refused", "server")),
        ({"last_ns": START_NS + 1}, 63, ("connection_refused", "server")),
        ({"server": CLIENT}, 63, ("connection_refused", "server")),
        ({}, 62, ("path_firewall_reject", "path")),
    ],
)
def test_a_port_used_again_while_the_server_has_the_old_connection(
    changed: dict[str, Any], ttl: int, expected: tuple[str, str]
) -> None:
    before = dataclasses.replace(BEFORE, **changed)
    (only,) = refine([refused()], {SERVER.ip: (ttl, ttl)}, (), [before])
    assert told(only) == expected


def test_only_the_connection_just_before_is_the_old_one() -> None:
    older = dataclasses.replace(BEFORE, last_ns=START_NS - 5_000_000, half_open=True)
    (only,) = refine([refused()], {SERVER.ip: (63, 63)}, (), [BEFORE, older])
    assert told(only) == ("syn_after_close", "server")


@pytest.mark.parametrize("later_ns", [-1_000_000_000, 90_000_000_000])
def test_an_attempt_at_another_time_tells_nothing(later_ns: int) -> None:
    again = Opened(CLIENT.ip, SERVER, START_NS + later_ns, SYN, 0)
    (only,) = refine([refused(flags=SYN | ECE | CWR)], {}, [again])
    assert told(only) == ("connection_refused", "unknown")


def probe(port: int, ms: float) -> Judged:
    answer = Seg(ms + 1, False, RST | ACK, 0, C + 1, window=0, ttl=63, ip_id=0, options_bytes=0)
    return judged([Seg(ms, True, SYN, C), answer], server=Endpoint(SERVER.ip, port))


@pytest.mark.parametrize(("ports", "gap_ms", "scan"), [(10, 100, True), (9, 100, False), (10, 2000, False)])
def test_many_closed_ports_in_a_row_are_a_scan(ports: int, gap_ms: float, scan: bool) -> None:
    found = refine([probe(1000 + at, at * gap_ms) for at in range(ports)], {}, ())
    assert {one.explained.noise for one in found} == {scan}


def test_one_port_tried_again_and_again_is_no_scan() -> None:
    found = refine([probe(1000, at * 100) for at in range(20)], {}, ())
    assert {one.explained.noise for one in found} == {False}


def aborted(port: int, ms: float, request: bool) -> Judged:
    talk = [
        Seg(ms, True, SYN, C),
        Seg(ms + 1, False, SYN | ACK, S, C + 1),
        Seg(ms + 2, True, ACK, C + 1, S + 1),
        Seg(ms + 3, True, PSH | ACK, C + 1, S + 1, 50),
        Seg(ms + 4, False, PSH | ACK, S + 1, C + 51, 60 if request else 0),
    ]
    kept = talk if request else talk[:3]
    rst = Seg(ms + 9, False, RST | ACK, S + 61 if request else S + 1, C + 51 if request else C + 1)
    return judged([*kept, rst], Endpoint(CLIENT.ip, port))


def test_a_listener_that_closes_takes_all_that_waited_along() -> None:
    burst = [aborted(port, port / 1000, False) for port in range(1000, 1004)]
    assert {told(one) for one in refine(burst, {}, ())} == {("listener_closed", "server")}


def test_a_process_that_ends_is_not_a_listener() -> None:
    burst = [aborted(port, port / 1000, True) for port in range(1000, 1004)]
    found = refine(burst, {}, ())
    assert {told(one) for one in found} == {("peer_aborted", "server")}
    assert "as when a process ends" in found[0].explained.evidence[0].fact


def test_two_are_no_burst() -> None:
    pair = [aborted(port, port / 1000, False) for port in (1000, 1001)]
    assert {told(one) for one in refine(pair, {}, ())} == {("peer_aborted", "server")}


def forgotten(port: int, ms: float) -> Judged:
    talk = [
        Seg(ms, True, SYN, C),
        Seg(ms + 1, False, SYN | ACK, S, C + 1),
        Seg(ms + 2, True, ACK, C + 1, S + 1),
        Seg(ms + 3, False, PSH | ACK, S + 1, C + 1, 60),
        Seg(ms + 4, True, ACK, C + 1, S + 61),
        Seg(ms + 900, True, PSH | ACK, C + 1, S + 61, 50),
        Seg(ms + 901, False, RST, S + 61, window=0, ip_id=0, options_bytes=0),
    ]
    return judged(talk, Endpoint(CLIENT.ip, port))


@pytest.mark.parametrize(("gap_ms", "restarted"), [(1000, True), (60_000, False)])
def test_a_host_that_forgets_many_at_once_has_restarted(gap_ms: float, restarted: bool) -> None:
    found = refine([forgotten(1000 + at, at * gap_ms) for at in range(4)], {}, ())
    assert {told(one) for one in found} == {("peer_had_no_connection", "server")}
    assert ["it restarted" in one.explained.evidence[0].fact for one in found] == [restarted] * 4


HERE = [
    Seg(0, True, SYN, C),
    Seg(1, False, SYN | ACK, S, C + 1, ttl=60),
    Seg(2, True, ACK, C + 1, S + 1),
]
RST_HERE = Seg(9, False, RST | ACK, S + 1, C + 1, ttl=60)


def there(found: list[Judged], sighting: Sighting | None = None, reliable: bool = True) -> Vantage:
    span = (START_NS - 1, START_NS + 20_000_000)
    return Vantage("server.pcap", found, lambda key: sighting if key == (C, S) else None, *span, reliable)


NEAR = Sighting((60, 60), (64, 64))


def test_a_capture_that_ends_before_the_reset_proves_nothing_and_it_is_said() -> None:
    ended = dataclasses.replace(there([], NEAR), last_ns=START_NS - 10_000_000_000, first_ns=0)
    (only,) = join([judged([*HERE, RST_HERE])], ended)
    assert "no packet from the time of this RST" in only.explained.evidence[0].fact
    assert only.explained.evidence[0].weight == 0 and told(only) == told(judged([*HERE, RST_HERE]))


@pytest.mark.parametrize(("window", "cause"), [(100, "closed_with_unread_data"), (400, "peer_aborted")])
def test_a_window_that_shrank_shows_what_was_not_read(window: int, cause: str) -> None:
    upload = [
        Seg(0, True, SYN, C),
        Seg(1, False, SYN | ACK, S, C + 1, window=65_000),
        Seg(2, True, ACK, C + 1, S + 1),
        Seg(3, True, ACK, C + 1, S + 1, data=600),
        Seg(4, False, ACK, S + 1, C + 601, window=500),
        Seg(5, False, ACK, S + 1, C + 601, data=24, window=window),
        Seg(6, True, ACK, C + 601, S + 25),
        Seg(7, False, RST | ACK, S + 25, C + 601),
    ]
    assert told(judged(upload)) == (cause, "server")


def test_a_reset_that_never_left_its_sender_is_proof() -> None:
    (only,) = join([judged([*HERE, RST_HERE])], there([], NEAR))
    assert told(only) == ("injected", "path")
    assert only.explained.score >= 6 and only.explained.evidence[0].weight == 10


@pytest.mark.parametrize(
    "other",
    [
        there([], Sighting((64, 64), (60, 60))),  # no nearer
        there([], NEAR, reliable=False),  # it lost something
        there([], None),  # it did not see the connection
        dataclasses.replace(there([], NEAR), last_ns=START_NS - 5_000_000_000),  # another time
    ],
)
def test_without_these_nothing_is_proved(other: Vantage) -> None:
    (only,) = join([judged([*HERE, RST_HERE])], other)
    assert told(only) == ("peer_aborted", "server")


def test_a_reset_that_was_captured_where_it_began_is_proof_too() -> None:
    forged_looking = dataclasses.replace(RST_HERE, ttl=50)
    ours = judged([*HERE, forged_looking])
    assert ours.explained.sender == "server"  # one sign, too weak
    theirs = judged([dataclasses.replace(one, ttl=64) for one in (*HERE, RST_HERE)])
    (only,) = join([ours], there([theirs]))
    assert told(only) == ("peer_aborted", "server")
    assert only.explained.evidence[0].weight == -10
    assert only.explained.story is not None


def test_what_only_the_other_vantage_saw_comes_last() -> None:
    ours = judged([*HERE, RST_HERE])
    other = judged(
        [dataclasses.replace(one, seq=one.seq + 7, ack=one.ack and one.ack + 7) for one in (*HERE, RST_HERE)]
    )
    assert [one.isns for one in join([ours], there([other]))] == [(C, S), (C + 7, S + 7)]


def test_a_time_that_runs_backwards_gives_no_length_below_zero() -> None:
    answer = Seg(1, False, RST | ACK, 0, C + 1, window=0, ip_id=0, options_bytes=0)
    flow = flow_of([Seg(0, True, SYN, C), answer], CLIENT, SERVER)
    found = judge(flow._replace(first_ns=START_NS + 5_000_000_000), ["capture"])
    assert found is not None and found.explained.lifetime_s is None
