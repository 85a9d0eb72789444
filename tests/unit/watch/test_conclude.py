# SPDX-License-Identifier: Apache-2.0
"""All that was seen of one pair of addresses becomes one conclusion per end, whatever the order."""

from __future__ import annotations

import dataclasses
import errno
import sys
from collections.abc import Callable
from itertools import permutations
from typing import Any

import pytest
from unit.watch.samples import (
    ACK,
    CLIENT,
    NOW_NS,
    RST,
    SERVER,
    SYN,
    active_rst,
    arrived,
    event,
    mirrored,
    passive_rst,
    received,
    segment,
    sent,
)

from holdfast.causes import Basis, Direction, Ending
from holdfast.events import Endpoint, Event, Harm, Kind, Process
from holdfast.watch.diagnose.conclude import Conclusion, conclude
from holdfast.watch.diagnose.record import record

ABORT = sent("TCP_ABORT_ON_CLOSE", closing=True, snd_nxt=1000, snd_una=1000, closer=SERVER, opener=SERVER)
SUFFERED = received(active_rst(seq=1000), mono_ns=NOW_NS - 9_000, opener=CLIENT, **mirrored(ABORT))


def told(*events: Event) -> list[tuple[Any, ...]]:
    """Each conclusion as (direction, cause, sender, obeyed), and whether its sender's record is joined."""
    return sorted(
        (one.direction, one.verdict.cause, one.sender, one.obeyed, one.sent_by is not None)
        for one in conclude(events)
    )


def test_nothing_from_nothing() -> None:
    assert conclude([]) == []


def test_both_ends_of_an_active_reset_are_joined_although_the_receiver_came_first() -> None:
    """T2: on one host the RST is received before the tracepoint of its sending runs."""
    assert SUFFERED.mono_ns < ABORT.mono_ns
    both = [
        ("received", "closed_with_unread_data", "peer", "yes", True),
        ("sent", "closed_with_unread_data", "local", "yes", False),
    ]
    assert told(SUFFERED, ABORT) == told(ABORT, SUFFERED) == both


def test_the_joined_end_shares_the_senders_verdict_and_says_how_it_knows() -> None:
    [first, second] = conclude([SUFFERED, ABORT])
    assert (first.event, second.event) == (ABORT, SUFFERED)
    assert second.sent_by is not None and second.sent_by.event == ABORT
    assert second.verdict.basis is Basis.OBSERVED
    assert [one.fact for one in second.verdict.evidence][-1] == (
        "the RST was seen leaving its sender on this host"
    )
    assert first.verdict.evidence == second.verdict.evidence[:-1]


def test_one_end_alone() -> None:
    assert told(ABORT) == [("sent", "closed_with_unread_data", "local", "unknown", False)]
    assert told(SUFFERED) == [("received", "peer_aborted", "peer", "yes", False)]


@pytest.mark.parametrize(
    ("snd_una", "snd_nxt", "seq", "joined"),
    [
        (900, 1000, 1000, True),
        (900, 1000, 950, True),  # the peer's window had shrunk
        (900, 1000, 900, True),
        (900, 1000, 899, False),
        (900, 1000, 1001, False),
        (2**32 - 10, 5, 2, True),  # around the end of the numbers
        (2**32 - 10, 5, 2**32 - 1, True),
        (2**32 - 10, 5, 6, False),
        (None, None, 1, True),  # numbers were not seen: the addresses must do
    ],
)
def test_the_sequence_number_must_be_one_that_the_sender_could_use(
    snd_una: int | None, snd_nxt: int | None, seq: int, joined: bool
) -> None:
    cause = sent("TCP_ABORT_ON_CLOSE", snd_nxt=snd_nxt, snd_una=snd_una)
    [_, end] = conclude([cause, received(active_rst(seq=seq), **mirrored(cause))])
    assert (end.sent_by is not None) is joined


@pytest.mark.parametrize(
    ("provoked", "seq", "joined"),
    [
        (segment(ACK, ack=7777), 7777, True),  # RFC 9293 3.5.2: the number that the peer expects
        (segment(ACK, ack=7777), 7778, False),
        (segment(SYN, ack=7777), 0, True),  # a SYN without ACK is answered from zero
        (segment(SYN, ack=7777), 7777, False),
    ],
)
def test_a_passive_reset_takes_its_number_from_what_it_answers(provoked: Any, seq: int, joined: bool) -> None:
    cause = sent("NO_SOCKET", state=None, cookie=0, segment=provoked)
    [_, end] = conclude([cause, received(passive_rst(seq=seq), **mirrored(cause))])
    assert (end.sent_by is not None) is joined


def test_addresses_must_be_mirrored_not_equal() -> None:
    same = received(active_rst(seq=1000), cookie=9)
    assert [one.sent_by for one in conclude([ABORT, same]) if one.direction is Direction.RECEIVED] == [None]


def test_without_segments_the_addresses_join() -> None:
    blind = received(None, **mirrored(ABORT))
    assert ("received", "closed_with_unread_data", "peer", "yes", True) in told(ABORT, blind)


# A RST that TCP did not send.

LEFT = event(Kind.RST_LEFT, cookie=0, segment=passive_rst(seq=1000, ttl=64))
DROPPED = event(Kind.REJECTED, cookie=0, segment=segment(ACK, data=5), opener=SERVER, forwarded=False)
HIT = received(passive_rst(seq=1000, ttl=64), opener=CLIENT, baseline_ttl=64, **mirrored(LEFT))


def test_a_raw_socket_of_this_host_is_not_tcp() -> None:
    assert told(LEFT, HIT) == [
        ("received", "not_sent_by_tcp", "peer", "yes", True),
        ("sent", "not_sent_by_tcp", "local", "yes", False),
    ]
    assert {one.verdict.basis for one in conclude([LEFT])} == {Basis.INFERRED}


def test_a_firewall_of_this_host_is_told_from_its_drop() -> None:
    assert told(LEFT, DROPPED, HIT) == [
        ("received", "local_firewall_reject", "path", "yes", True),
        ("sent", "local_firewall_reject", "local", "yes", False),
    ]
    [ours, _] = conclude([LEFT, DROPPED, HIT])
    assert (ours.event.opener, ours.verdict.basis) == (SERVER, Basis.OBSERVED)


def test_a_firewall_that_only_forwards_is_on_the_path() -> None:
    forwarded = event(Kind.REJECTED, cookie=0, segment=segment(ACK), forwarded=True)
    assert told(LEFT, forwarded, HIT) == [
        ("received", "path_firewall_reject", "path", "yes", True),
        ("sent", "local_firewall_reject", "local", "yes", False),
    ]


def test_a_forged_rst_that_left_from_the_wrong_distance_is_an_injection() -> None:
    far = received(passive_rst(seq=1000, ttl=128), baseline_ttl=63, **mirrored(LEFT))
    assert told(LEFT, far)[0] == ("received", "injected", "path", "yes", True)


def test_a_foreign_rst_of_another_number_is_not_the_one_obeyed() -> None:
    other = received(passive_rst(seq=1001, ttl=63), **mirrored(LEFT))
    assert told(LEFT, other)[0] == ("received", "peer_had_no_connection", "peer", "yes", False)


def test_tcps_own_answer_that_had_to_wait_is_not_told_twice() -> None:
    """It leaves after the neighbour's address is known, and then looks like a stranger's."""
    answer = sent("NO_SOCKET", state=None, cookie=0, segment=segment(SYN))
    assert told(answer, LEFT) == [("sent", "closed_port", "local", "unknown", False)]
    assert len(told(ABORT, LEFT)) == 2, "an active reset is no answer"


def test_the_answer_to_a_peer_that_talks_on_convicts_the_injector() -> None:
    late = sent("NO_SOCKET", state=None, cookie=0, segment=segment(ACK, data=4), mono_ns=NOW_NS + 10)
    forged = received(segment(RST, window=1234, ttl=128))
    assert told(forged)[0][:3] == ("received", "unrecognised_sender", "unknown")
    assert told(late, forged)[0][:3] == ("received", "injected", "path")
    early = sent("NO_SOCKET", state=None, cookie=0, segment=segment(ACK), mono_ns=NOW_NS - 10)
    assert told(early, forged)[0][:3] == ("received", "unrecognised_sender", "unknown")


# What ends nothing, or repeats what is told already.


def test_a_self_reset_is_no_reset_that_was_received() -> None:
    """T1: tcp_reset() runs without any RST when data comes after a shutdown; the sending tells it."""
    mine = event(Kind.SELF_RESET, state="FIN_WAIT_2")
    said = sent("TCP_ABORT_ON_DATA", segment=segment(ACK, data=9))
    assert told(mine) == []
    assert told(mine, said) == [("sent", "data_after_shutdown", "local", "unknown", False)]


def test_an_obeyed_rst_is_not_also_ignored() -> None:
    forged = segment(RST, window=1)
    assert told(received(forged), arrived(forged, in_window=True)) == told(received(forged))
    assert told(arrived(forged, in_window=True, cookie=8), received(forged))[0][1] == "ignored_in_window"


@pytest.mark.parametrize(("ttl", "sender"), [(63, "unknown"), (128, "path")])
def test_who_sent_an_ignored_rst(ttl: int, sender: str) -> None:
    assert told(arrived(passive_rst(ttl=ttl), in_window=True)) == [
        ("received", "ignored_in_window", sender, "no", False)
    ]


def test_an_ignored_rst_whose_sending_was_seen_came_from_the_peer() -> None:
    ignored = arrived(passive_rst(seq=1000), in_window=False, **mirrored(ABORT))
    assert told(ABORT, ignored)[0] == ("received", "ignored_out_of_window", "peer", "no", True)


def error(number: int, **facts: Any) -> Event:
    return event(Kind.ERROR, error=number, **{"state": "CLOSED", "state_before": "ESTABLISHED"} | facts)


@pytest.mark.parametrize("first", [ABORT, received(active_rst()), event(Kind.SELF_RESET)])
@pytest.mark.parametrize("number", [errno.ETIMEDOUT, errno.ECONNABORTED, errno.ECONNRESET])
def test_an_error_after_a_reset_is_not_told_twice(number: int, first: Event) -> None:
    assert told(first, error(number)) == told(first)


def test_an_error_of_another_socket_is_told() -> None:
    assert told(ABORT, error(errno.ETIMEDOUT, cookie=99))[0][1] == "retransmission_timeout"


def test_without_cookies_the_addresses_tell_whose_error_it_is() -> None:
    kernel_6_1 = sent(None, cookie=0, state="ESTABLISHED", kernel_stack=("tcp_keepalive_timer",))
    assert told(kernel_6_1, error(errno.ETIMEDOUT)) == told(kernel_6_1)
    elsewhere = error(errno.ETIMEDOUT, **mirrored(kernel_6_1))
    assert len(told(kernel_6_1, elsewhere)) == 2


@pytest.mark.parametrize("state", [None, "TIME_WAIT", "LISTEN"])
def test_a_reset_by_no_socket_of_its_own_does_not_swallow_an_error(state: str | None) -> None:
    passive = sent("NO_SOCKET", cookie=0, state=state, segment=segment(ACK))
    assert len(told(passive, error(errno.ETIMEDOUT))) == 2


@pytest.mark.parametrize(
    ("number", "ending", "sender"),
    [
        (errno.ETIMEDOUT, Ending.TIMED_OUT, "unknown"),
        (errno.EHOSTUNREACH, Ending.UNREACHABLE, "path"),
        (errno.ECONNREFUSED, Ending.REFUSED_BY_ICMP, "path"),
        (errno.ECONNABORTED, Ending.ABORTED, "unknown"),
    ],
)
def test_an_ending_without_a_rst(number: int, ending: Ending, sender: str) -> None:
    [one] = conclude([error(number)])
    assert (one.ending, one.direction, one.sender, one.obeyed) == (
        ending, Direction.RECEIVED, sender, "unknown",
    )  # fmt: skip


UNSEEN = sent("NO_SOCKET", state=None, cookie=0)


def test_a_refusal_seen_from_both_ends_needs_no_segment() -> None:
    """Without the segment a closed port looks like an unknown connection, until its dialler tells."""
    dialler = received(None, state="SYN_SENT", **mirrored(UNSEEN))
    assert told(UNSEEN)[0][1] == "unknown_connection"
    assert ("sent", "closed_port", "local", "yes", False) in told(UNSEEN, dialler)
    other = received(None, state="ESTABLISHED", **mirrored(UNSEEN))
    assert ("sent", "unknown_connection", "local", "yes", False) in told(UNSEEN, other)


@pytest.mark.parametrize(
    ("harm", "records"),
    [
        (Harm(), 0),
        (Harm(0, 0, 0), 0),
        (Harm(1, 0, 0), 1),
        (Harm(0, 1, 0), 1),
        (Harm(0, 0, 1), 1),
    ],
)
def test_a_destroyed_socket_is_told_if_data_was_at_risk(harm: Harm, records: int) -> None:
    gone = conclude([event(Kind.DESTROYED, harm=harm)])
    assert [(one.verdict.cause, one.verdict.basis, one.ending) for one in gone] == [
        ("unknown", Basis.NONE, Ending.ABORTED)
    ] * records


def test_the_order_of_what_was_seen_never_matters() -> None:
    late = sent("NO_SOCKET", state=None, cookie=0, segment=segment(ACK, data=4), mono_ns=NOW_NS + 10)
    scene = [late, received(segment(RST, window=9, ttl=99)), LEFT, DROPPED, error(errno.ETIMEDOUT)]
    scenes = {tuple(told(*order)) for order in permutations(scene)}
    assert len(scenes) == 1


def test_a_conclusion_is_a_value() -> None:
    [one] = conclude([ABORT])
    assert one == Conclusion(ABORT, one.verdict, Ending.RESET, Direction.SENT, "local")


def inside(netns: int) -> tuple[Event, Event]:
    """A reset over loopback inside one namespace, its segment not looked at."""
    ends = {"local": Endpoint("127.0.0.1", 8080), "peer": Endpoint("127.0.0.1", 40000), "netns": netns}
    abort = sent("TCP_ABORT_ON_CLOSE", closing=True, cookie=netns, closer=Process(netns, "pod"), **ends)
    return abort, received(None, **(mirrored(abort) | {"netns": netns, "cookie": netns + 1}))


def test_loopback_of_one_namespace_is_never_joined_with_that_of_another() -> None:
    pairs = [inside(10), inside(20), inside(30)]
    found = conclude([*(abort for abort, _ in pairs), *(suffered for _, suffered in reversed(pairs))])
    joined = [(one.event.netns, one.sent_by.event.netns) for one in found if one.sent_by is not None]
    assert joined == [(30, 30), (20, 20), (10, 10)]


def test_a_ladder_of_which_only_the_dropped_rsts_were_seen_is_still_a_ladder() -> None:
    """Where fentry tells of RSTs, those that were not obeyed come without a cookie."""
    obeyed = received(passive_rst(seq=1000), baseline_ttl=63, cookie=7, established=True)
    guesses = [
        arrived(segment(RST, seq=1000 + ahead, ttl=60), cookie=0, local=obeyed.local, peer=obeyed.peer)
        for ahead in (2920, 1460)
    ]
    [one] = conclude([*guesses, obeyed])
    assert any("different sequence numbers" in fact.fact for fact in one.verdict.evidence)


def test_the_senders_record_says_what_the_other_end_lost() -> None:
    suffered = dataclasses.replace(SUFFERED, harm=Harm(0, 3_780_000, 0))
    [first, _] = conclude([suffered, ABORT])
    evidence = [one.fact for one in record(first, "host", 0, None).evidence]
    assert "the other end lost 3,780,000 unsent bytes" in evidence


def calls_of(work: Callable[[], object]) -> int:
    """How many calls a piece of work makes, to Python itself too: no other load disturbs that."""
    calls = 0

    def count(frame: object, what: str, argument: object) -> None:
        nonlocal calls
        calls += what in ("call", "c_call")

    sys.setprofile(count)
    try:
        work()
    finally:
        sys.setprofile(None)
    return calls


def refused_again_and_again(times: int) -> list[Event]:
    """One port dials a closed port over and over: everything but time and socket is alike."""
    found = []
    for n in range(times):
        at: dict[str, Any] = {"mono_ns": NOW_NS + n}
        ends = mirrored(sent(cookie=2 * n + 10))
        refusal = segment(RST | ACK, seq=0)
        found += [
            sent("NO_SOCKET", state=None, cookie=0, segment=segment(SYN), **at),
            arrived(refusal, **ends | at),
            received(refusal, state="SYN_SENT", **ends | at),
            event(Kind.ERROR, error=errno.ECONNREFUSED, state="CLOSED", **ends | at),
        ]
    return found


def forged_again_and_again(times: int) -> list[Event]:
    """RSTs whose senders are not here: some obeyed by a socket of their own, some by none."""
    found = []
    for n in range(times):
        own: dict[str, Any] = {"mono_ns": NOW_NS + n, "cookie": n + 10}
        found += [
            arrived(passive_rst(seq=n), **own),
            received(passive_rst(seq=n), **own),
            arrived(passive_rst(seq=n), mono_ns=NOW_NS + n, cookie=10_000 + n, in_window=True, exact=False),
        ]
    return found


@pytest.mark.parametrize("scene", [refused_again_and_again, forged_again_and_again])
def test_twice_as_many_events_are_twice_the_work(scene: Callable[[int], list[Event]]) -> None:
    few, many = scene(100), scene(200)
    assert calls_of(lambda: conclude(many)) < 2.5 * calls_of(lambda: conclude(few))


def test_each_of_many_alike_resets_is_joined_with_one_other() -> None:
    found = conclude(refused_again_and_again(300))
    received_ends = [one for one in found if one.direction is Direction.RECEIVED]
    assert len(received_ends) == len({id(one.sent_by) for one in received_ends}) == 300
    assert {one.verdict.cause for one in found} == {"closed_port"}
