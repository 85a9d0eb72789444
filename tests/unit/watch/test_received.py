# SPDX-License-Identifier: Apache-2.0
"""Who sent a RST that one end alone can judge: one weak sign never makes an accusation."""

from __future__ import annotations

import dataclasses
from itertools import combinations
from typing import Any

import pytest
from unit.watch.samples import (
    ACK,
    NOW_NS,
    RST,
    SYN,
    active_rst,
    arrived,
    passive_rst,
    received,
    segment,
    sent,
)

from holdfast.causes import CAUSES, Basis, Family
from holdfast.events import Event, Segment
from holdfast.watch.diagnose.received import (
    INJECTED_SCORE,
    injection_signs,
    received_cause,
    ttl_difference,
)
from holdfast.watch.diagnose.shape import is_active_shape, is_passive_shape

ODD = segment(RST, window=1234, ip_id=777)  # fits no Linux sender
TALKS_ON = sent("NO_SOCKET", state=None, segment=segment(ACK, data=9), mono_ns=NOW_NS + 1_000_000)
LATE_NS = {"send_ago_ns": 4_000_000, "min_rtt_us": 80_000}  # answered 4 ms after a send, over 80 ms of path


@pytest.mark.parametrize(
    ("rst", "active", "passive"),
    [
        (active_rst(), True, False),
        (active_rst(ip_id=None), True, False),
        (active_rst(window=0), False, False),
        (active_rst(options_bytes=0), False, False),  # timestamps not negotiated, but Linux always has some
        (segment(RST, window=64, options_bytes=12), False, False),
        (passive_rst(), False, True),
        (passive_rst(ip_id=None), False, True),
        (segment(RST | ACK, window=0), False, True),  # answers a SYN
        (passive_rst(window=1), False, False),
        (passive_rst(ip_id=1), False, False),
        (passive_rst(options_bytes=12), False, False),
        (segment(RST | SYN, window=0), False, False),
        (segment(RST | 0x08, window=0), False, False),
    ],
)
def test_shape(rst: Segment, active: bool, passive: bool) -> None:
    assert (is_active_shape(rst), is_passive_shape(rst)) == (active, passive)


@pytest.mark.parametrize(
    ("facts", "rst", "cause", "sender"),
    [
        ({}, active_rst(), "peer_aborted", "peer"),
        ({"baseline_ttl": None}, active_rst(), "peer_aborted", "peer"),
        ({}, passive_rst(), "peer_had_no_connection", "peer"),
        ({"state": "CLOSE_WAIT"}, passive_rst(), "peer_closed_then_reset", "peer"),
        ({"state": "CLOSE_WAIT"}, active_rst(), "peer_closed_then_reset", "peer"),
        ({"state": "SYN_SENT"}, segment(RST | ACK, window=0), "connection_refused", "unknown"),
        ({"state": "SYN_SENT"}, None, "connection_refused", "unknown"),
        ({}, ODD, "unrecognised_sender", "unknown"),
        # A firewall answers for the peer: a bare RST from another distance, exactly in sequence.
        ({}, passive_rst(ttl=64), "path_firewall_reject", "path"),
        ({"state": "CLOSE_WAIT"}, passive_rst(ttl=64), "path_firewall_reject", "path"),
        ({}, passive_rst(ttl=61), "path_firewall_reject", "path"),
        # An active shape from elsewhere is nobody's habit.
        ({}, active_rst(ttl=64), "peer_aborted", "peer"),  # one hop: a path that changed
        ({}, active_rst(ttl=128), "unrecognised_sender", "unknown"),
        # Signs that together leave no doubt.
        ({}, segment(RST, window=1234, ip_id=777, ttl=128), "unrecognised_sender", "unknown"),
        (LATE_NS, segment(RST, window=1234, ip_id=777, ttl=128), "injected", "path"),
    ],
)
def test_alone(facts: dict[str, Any], rst: Segment | None, cause: str, sender: str) -> None:
    verdict, who = received_cause(received(rst, **facts), [], [])
    assert (verdict.cause, who) == (cause, sender)
    assert verdict.basis is Basis.INFERRED and verdict.evidence


def test_a_rst_that_was_not_seen_says_nothing() -> None:
    verdict, who = received_cause(received(None), [], [])
    assert (verdict.cause, verdict.basis, who) == ("peer_aborted", Basis.NONE, "unknown")
    assert sum(evidence.weight for evidence in verdict.evidence) == 0


def test_a_peer_that_talks_on_did_not_send_it() -> None:
    """The strongest proof: whoever reset it knew nothing of what it goes on to say."""
    verdict, who = received_cause(received(passive_rst(ttl=128)), [], [TALKS_ON])
    assert (verdict.cause, who) == ("path_firewall_reject", "path")
    odd = segment(RST, window=1234, ttl=128)
    verdict, who = received_cause(received(odd), [], [TALKS_ON])
    assert (verdict.cause, who) == ("injected", "path")
    assert "the peer went on talking after the RST: it did not know of it" in [
        evidence.fact for evidence in verdict.evidence
    ]


def test_several_numbers_are_a_sender_guessing_ahead() -> None:
    rst = passive_rst(ttl=128)
    tries = [arrived(dataclasses.replace(rst, seq=rst.seq + ahead)) for ahead in (0, 1460, 2920)]
    verdict, who = received_cause(received(rst), tries, [])
    assert (verdict.cause, who) == ("injected", "path")
    verdict, who = received_cause(received(rst), tries[:1] * 3, [])
    assert (verdict.cause, who) == ("path_firewall_reject", "path"), "one RST, seen thrice, is no ladder"


def test_a_round_trip_too_short_to_measure_is_no_sign() -> None:
    fast = received(active_rst(), send_ago_ns=0, min_rtt_us=19_999)
    slow = received(active_rst(), send_ago_ns=0, min_rtt_us=80_000)
    assert [sign.weight for sign in injection_signs(fast, active_rst(), [], [])] == [-1]
    assert [sign.weight for sign in injection_signs(slow, active_rst(), [], [])] == [-1, 3]


@pytest.mark.parametrize(
    ("ttl", "baseline", "difference"), [(64, 63, 1), (63, 63, 0), (9, None, 0), (60, 64, -4)]
)
def test_ttl(ttl: int, baseline: int | None, difference: int) -> None:
    rst = passive_rst(ttl=ttl)
    assert ttl_difference(received(rst, baseline_ttl=baseline), rst) == difference


# One fact each that a forged RST may show, as (what it changes in the RST, in the event, the other events).
SIGNS: dict[str, tuple[dict[str, Any], dict[str, Any], list[int], list[Event]]] = {
    "a strange window": ({"window": 4321}, {}, [], []),
    "one hop nearer": ({"ttl": 64}, {}, [], []),
    "another distance": ({"ttl": 128}, {}, [], []),
    "an IP ID on a bare RST": ({"ip_id": 99}, {}, [], []),
    "sooner than the path allows": ({}, LATE_NS, [], []),
    "several numbers": ({}, {}, [1460, 2920], []),
    "the peer talks on": ({}, {}, [], [TALKS_ON]),
}


def judged(names: tuple[str, ...]) -> tuple[str, int, int]:
    """The cause with these signs on a bare RST, the sum of all signs and how many speak for an injection."""
    shape: dict[str, Any] = {}
    facts: dict[str, Any] = {}
    ahead: list[int] = []
    answered: list[Event] = []
    for name in names:
        shape |= SIGNS[name][0]
        facts |= SIGNS[name][1]
        ahead += SIGNS[name][2]
        answered += SIGNS[name][3]
    rst = passive_rst(**shape)
    tries = [arrived(dataclasses.replace(rst, seq=rst.seq + by)) for by in (0, *ahead)]
    event = received(rst, **facts)
    signs = injection_signs(event, rst, tries, answered)
    return (
        received_cause(event, tries, answered)[0].cause,
        sum(sign.weight for sign in signs),
        sum(sign.weight > 0 for sign in signs),
    )


@pytest.mark.parametrize("size", range(len(SIGNS) + 1))
def test_nothing_is_called_injected_on_one_sign_or_a_low_score(size: int) -> None:
    """Over every subset of signs: an accusation needs two of them and the score, and never contradicts it."""
    for names in combinations(SIGNS, size):
        cause, score, signs = judged(names)
        if cause == "injected":
            assert signs > 1 and score >= INJECTED_SCORE, names
        if size < 2:
            assert cause != "injected", names
        assert CAUSES[cause].family is Family.RECEIVED


def test_all_signs_together_are_an_injection() -> None:
    assert judged(tuple(SIGNS)) == ("injected", 15, 5)
