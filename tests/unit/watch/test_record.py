# SPDX-License-Identifier: Apache-2.0
"""What is written down: whole records, hostile names as they came, exact times, stable keys."""

from __future__ import annotations

import dataclasses
import errno
import json
from datetime import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.watch.samples import (
    ACK,
    CLIENT,
    EARLIER,
    NOW_NS,
    SERVER,
    active_rst,
    event,
    mirrored,
    received,
    segment,
    sent,
)

from holdfast.causes import CAUSES, Severity
from holdfast.events import Event, Harm, Kind, Process, Reset
from holdfast.watch.diagnose.conclude import conclude
from holdfast.watch.diagnose.record import call_path, harm_words, identity, record, wall_time

OFFSET_NS = 1_700_000_000_000_000_000
ABORT = sent(
    "TCP_ABORT_ON_CLOSE",
    state_before="ESTABLISHED",
    closing=True,
    orphaned=False,
    in_process=True,
    closer=SERVER,
    opener=dataclasses.replace(SERVER, pid=811),
    lifetime_ns=2_500_000_001,
    send_ago_ns=8_000_000,
    receive_ago_ns=4_000_000,
    bytes_sent=10,
    bytes_received=29,
    rtt_us=321,
    harm=Harm(unread_bytes=29, unsent_bytes=0, unacked_bytes=1),
    snd_nxt=1000,
    snd_una=999,
    kernel_stack=(
        "bpf_prog_1_reset_sent", "bpf_trace_run3", "__traceiter_tcp_send_reset", "tcp_send_active_reset",
        "__tcp_close", "tcp_close", "__sys_close", "do_syscall_64", "entry_SYSCALL_64_after_hwframe",
    ),
    user_stack=("libc.so.6+0x1234",),
)  # fmt: skip


def records(*events: Event, noise: str | None = None) -> list[Reset]:
    return [record(one, "web-1", OFFSET_NS, noise) for one in conclude(events)]


def test_a_whole_record_as_json() -> None:
    [only] = records(ABORT)
    cause = CAUSES["closed_with_unread_data"]
    assert only.as_json() == {
        "schema": 1,
        "id": identity(ABORT),
        "host": "web-1",
        "time": "2023-11-14T22:13:25.000000000Z",
        "story": None,
        "ending": "reset",
        "direction": "sent",
        "trigger": "active",
        "sender": "local",
        "cause": "closed_with_unread_data",
        "sentence": "nginx (pid 812) closed its connection to 10.2.0.2:51000 without reading everything "
        "and threw away 29 unread and 1 unacknowledged bytes.",
        "basis": "observed",
        "severity": "error",
        "noise": False,
        "obeyed": "unknown",
        "state": "ESTABLISHED",
        "lifetime_s": 2.5,
        "bytes_sent": 10,
        "bytes_received": 29,
        "rtt_us": 321,
        "idle_s": 0.004,
        "local": "10.1.0.1:443",
        "peer": "10.2.0.2:51000",
        "owner": {"pid": 812, "comm": "nginx", "uid": 33, "cgroup": None, "container": None, "netns": 40},
        "harm": {"unread_bytes": 29, "unsent_bytes": 0, "unacked_bytes": 1},
        "call_path": ["tcp_send_active_reset", "__tcp_close", "tcp_close", "__sys_close", "libc.so.6+0x1234"],
        "evidence": [
            {"fact": "close() was called", "weight": 5},
            {"fact": "received bytes had not been read", "weight": 5},
            {"fact": "opened by nginx (pid 811), closed by nginx (pid 812)", "weight": 0},
        ],
        "remedy": list(cause.remedy),
        "kernel_reason": "TCP_ABORT_ON_CLOSE",
    }


def test_a_record_of_nothing_known_has_only_nulls() -> None:
    [only] = records(event(Kind.RST_LEFT, cookie=0, netns=None, segment=segment()))
    unknown = {key for key, value in only.as_json().items() if value is None}
    assert unknown == {
        "story", "trigger", "state", "lifetime_s", "bytes_sent", "bytes_received", "rtt_us", "idle_s",
        "owner", "kernel_reason",
    }  # fmt: skip
    assert only.as_json()["harm"] == dict.fromkeys(("unread_bytes", "unsent_bytes", "unacked_bytes"))


def test_two_ends_share_a_story_and_its_sentence() -> None:
    other = received(active_rst(seq=1000), opener=CLIENT, **mirrored(ABORT))
    sender, victim = records(ABORT, other)
    assert sender.story == victim.story == identity(ABORT)
    assert sender.id != victim.id
    assert sender.sentence == victim.sentence
    assert (victim.owner, sender.owner) == (CLIENT, SERVER)
    assert (victim.local, victim.peer) == (sender.peer, sender.local)


@pytest.mark.parametrize(
    ("facts", "pid"),
    [
        ({"closer": SERVER, "opener": CLIENT}, SERVER.pid),  # who closed it had it
        ({"opener": CLIENT}, CLIENT.pid),
        ({"earlier": EARLIER, "state": None, "segment": segment(ACK)}, SERVER.pid),
        ({}, None),
    ],
)
def test_owner(facts: dict[str, Any], pid: int | None) -> None:
    [only] = records(sent("NO_SOCKET" if "earlier" in facts else "TCP_ABORT_ON_CLOSE", **facts))
    assert (only.owner.pid if only.owner else None) == pid


def test_who_destroys_a_socket_does_not_own_it() -> None:
    ss = Process(4242, "ss")
    [only] = records(sent("TCP_STATE", state="ESTABLISHED", closer=ss, opener=SERVER))
    assert only.owner == SERVER
    said = "destroyed from outside by ss (pid 4242), the socket of nginx (pid 812)"
    assert only.evidence[-1].fact == said


def test_who_destroys_a_listener_did_not_close_what_waited_in_its_queue() -> None:
    ss, stack = Process(4242, "ss"), ("tcp_disconnect", "inet_csk_listen_stop", "tcp_abort")
    facts: dict[str, Any] = {"unaccepted": True, "in_process": True, "closer": ss, "kernel_stack": stack}
    [only] = records(sent("TCP_STATE", opener=SERVER, **facts))
    assert (only.cause, only.owner) == ("listener_closed", SERVER)
    assert only.evidence[-1].fact.startswith("destroyed from outside by ss (pid 4242)")
    [unknown] = records(sent("TCP_STATE", **facts))
    assert (unknown.owner, unknown.evidence[-1].fact) == (None, "destroyed from outside by ss (pid 4242)")


def test_who_had_closed_a_socket_did_not_destroy_it() -> None:
    """An error has no call path: its closer is who had closed the socket before."""
    [only] = records(event(Kind.ERROR, state="CLOSED", error=103, opener=CLIENT, closer=SERVER))
    assert (only.cause, only.owner) == ("socket_destroyed", SERVER)
    assert only.evidence[-1].fact == "opened by curl (pid 977), closed by nginx (pid 812)"


@pytest.mark.parametrize(
    ("reason", "facts"),
    [
        ("TCP_TIMEWAIT_SOCKET", {"state": "TIME_WAIT"}),
        ("NO_SOCKET", {"state": None}),
        ("TCP_FLAGS", {"state": "LISTEN", "opener": CLIENT}),  # the listener's
    ],
)
def test_who_closed_the_connection_that_is_gone_owns_its_reset(reason: str, facts: dict[str, Any]) -> None:
    was = dataclasses.replace(
        EARLIER, opener=CLIENT, idle_ns=500_000_000, served=True, was_idle=True, exiting=True
    )
    [gone] = records(sent(reason, segment=segment(ACK), earlier=was, **facts))
    assert (gone.owner, gone.idle_s) == (SERVER, 0.5)
    assert [evidence.fact for evidence in gone.evidence][-4:] == [
        "opened by curl (pid 977), closed by nginx (pid 812)",
        "closed here by nginx (pid 812) 1.500 s before",
        "silent for 0.500 s when it was closed",
        "it was closed because its process ended: no idle time-out did it",
    ]


@pytest.mark.parametrize("reason", ["TCP_ABORT_ON_DATA", "TCP_ABORT_ON_CLOSE"])
def test_an_owner_that_nobody_saw_is_unknown_and_not_absent(reason: str) -> None:
    [only] = records(sent(reason, segment=segment(ACK) if reason == "TCP_ABORT_ON_DATA" else None))
    assert only.sentence.startswith("An unknown process ")


def test_a_process_without_a_name_is_still_a_process() -> None:
    [nameless] = records(dataclasses.replace(ABORT, closer=Process(812, "")))
    assert nameless.sentence.startswith("a process (pid 812) ")


def test_the_bytes_of_a_connection_that_is_gone_are_those_it_had() -> None:
    was = dataclasses.replace(EARLIER, bytes_sent=11, bytes_received=12)
    [gone] = records(sent("NO_SOCKET", state=None, segment=segment(ACK), earlier=was))
    assert (gone.bytes_sent, gone.bytes_received) == (11, 12)
    facts = [evidence.fact for evidence in gone.evidence]
    assert "closed here by nginx (pid 812) 1.500 s before" in facts


HIS = "the connection of nginx (pid 812)"


@pytest.mark.parametrize(
    ("error", "fact", "why"),
    [
        (0, "closed here by nginx (pid 812) 1.500 s before", "this host closed a connection on"),
        (errno.ECONNRESET, f"{HIS} was reset here 1.500 s before", "was reset before"),
        (errno.EPIPE, f"{HIS} was reset here 1.500 s before", "was reset before"),
        (errno.ETIMEDOUT, f"{HIS} timed out here 1.500 s before", "timed out before"),
    ],
)
def test_a_late_segment_says_how_its_connection_had_ended(error: int, fact: str, why: str) -> None:
    was = dataclasses.replace(EARLIER, error=error)
    [late] = records(sent("NO_SOCKET", state=None, segment=segment(ACK), earlier=was))
    facts = [evidence.fact for evidence in late.evidence]
    assert fact in facts
    assert why in facts[0]
    assert "closed" not in late.sentence
    assert "of nginx (pid 812) that had already ended" in late.sentence


def test_noise_is_information_and_says_of_which_class() -> None:
    [plain], [noisy] = records(ABORT), records(ABORT, noise="health_check")
    assert (plain.severity, plain.noise) == (Severity.ERROR, False)
    assert (noisy.severity, noisy.noise) == (Severity.INFO, True)
    assert noisy.evidence[-1].fact == "usual traffic of the class health_check"


def test_without_rights_no_reset_is_claimed_and_no_update_advised() -> None:
    [ended] = records(event(Kind.DESTROYED, state="CLOSED", harm=Harm(6, 0, 0)))
    assert ended.sentence == (
        f"The connection between {ended.local} and {ended.peer} ended with 6 unread bytes; "
        "what ended it cannot be seen without rights."
    )
    assert "as root" in ended.remedy[0]
    assert "Update" not in "".join(ended.remedy)


def test_one_is_not_many() -> None:
    [only] = records(sent("TCP_KEEPALIVE_TIMEOUT", state="ESTABLISHED", probes=1, retransmits=1))
    facts = [evidence.fact for evidence in only.evidence]
    assert facts[1:] == ["1 probe had gone unanswered", "1 retransmission had gone unanswered"]


def test_what_had_gone_unanswered_is_evidence() -> None:
    [only] = records(
        sent("TCP_KEEPALIVE_TIMEOUT", state="ESTABLISHED", probes=9, retransmits=2, user_timeout_ms=300)
    )
    assert [evidence.fact for evidence in only.evidence] == [
        "the kernel gives the reason TCP_KEEPALIVE_TIMEOUT",
        "9 probes had gone unanswered",
        "2 retransmissions had gone unanswered",
        "TCP_USER_TIMEOUT is 300 ms",
    ]


HOSTILE = [
    "\x1b[2J\x1b[31mroot",
    "a\nb",
    "{0.__class__}",
    "{peer}",
    "%s%n",
    '"},{"',
    "\u202egnp.exe",
    "\\xff\\xfe",
]


@pytest.mark.parametrize("comm", HOSTILE)
def test_a_hostile_name_comes_through_as_it_is_and_changes_nothing_else(comm: str) -> None:
    """Escaping is the work of whoever shows it; the record must neither interpret nor lose it."""
    [hostile] = records(dataclasses.replace(ABORT, closer=Process(812, comm)))
    [tame] = records(dataclasses.replace(ABORT, closer=Process(812, "NAME")))
    assert hostile.owner is not None and hostile.owner.comm == comm
    assert hostile.sentence == tame.sentence.replace("NAME", comm)
    again = json.loads(json.dumps(hostile.as_json()))
    assert again["owner"]["comm"] == comm
    assert set(again) == set(tame.as_json())


@pytest.mark.parametrize(
    ("wall_ns", "text"),
    [
        (0, "1970-01-01T00:00:00.000000000Z"),
        (1, "1970-01-01T00:00:00.000000001Z"),
        (1_700_000_000_999_999_999, "2023-11-14T22:13:20.999999999Z"),
        (951_782_400_000_000_000, "2000-02-29T00:00:00.000000000Z"),
    ],
)
def test_time(wall_ns: int, text: str) -> None:
    assert wall_time(wall_ns) == text


@given(st.integers(0, 4_102_444_800_000_000_000))
def test_no_nanosecond_is_lost(wall_ns: int) -> None:
    """Whatever the moment: a reader gets back what was written (floats would be off by hundreds)."""
    text = wall_time(wall_ns)
    whole, rest = text[:-1].split(".")
    assert len(rest) == 9
    assert int(datetime.fromisoformat(whole + "+00:00").timestamp()) * 10**9 + int(rest) == wall_ns


@given(st.integers(0, 10**18), st.integers(0, 10**18))
def test_records_sort_by_time_as_text(one: int, other: int) -> None:
    assert (wall_time(one) < wall_time(other)) == (one < other)


def test_identity_is_stable_and_tells_events_apart() -> None:
    assert identity(ABORT) == identity(dataclasses.replace(ABORT, bytes_sent=99)) == records(ABORT)[0].id
    others = [
        dataclasses.replace(ABORT, **change)
        for change in (
            {"mono_ns": NOW_NS + 1},
            {"netns": 41},
            {"cookie": 8},
            {"local": ABORT.peer},
            {"kind": Kind.ERROR},
        )
    ]
    assert len({identity(one) for one in [ABORT, *others]}) == 6
    assert len(identity(ABORT)) == 16


@pytest.mark.parametrize(
    ("stack", "path"),
    [
        ((), ()),
        (("bpf_x", "tcp_abort", "do_syscall_64", "below"), ("tcp_abort",)),
        (("trace_x", "perf_y", "tcp_write_timer", "call_timer_fn"), ("tcp_write_timer", "call_timer_fn")),
        (("tcp_close", "invoke_syscall.constprop.0", "el0_svc"), ("tcp_close",)),
    ],
)
def test_the_call_path_has_no_frames_of_the_tracing_or_the_entry(
    stack: tuple[str, ...], path: tuple[str, ...]
) -> None:
    assert call_path(dataclasses.replace(ABORT, kernel_stack=stack, user_stack=())) == path


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (Harm(), None),
        (Harm(0, 0, 0), "nothing"),
        (Harm(1, 0, 0), "1 unread byte"),
        (Harm(None, None, 1), "1 unacknowledged byte"),
        (Harm(1, 1, 0), "1 unread and 1 unsent bytes"),
        (Harm(1_234_567, 0, 0), "1,234,567 unread bytes"),
        (Harm(2, 3, 4), "2 unread and 3 unsent and 4 unacknowledged bytes"),
    ],
)
def test_harm_in_words(harm: Harm, words: str | None) -> None:
    assert harm_words(harm) == words
