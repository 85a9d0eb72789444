"""Filters as a table, and that a redacted record gives nobody away."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dataclasses
import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.watch.samples import ACK, RST, segment, sent

from holdfast.causes import Basis, Direction, Ending, Severity
from holdfast.cli import render
from holdfast.events import Earlier, Endpoint, Event, Kind, Process, Reset
from holdfast.watch.select import Selection, redacted, without_names, without_payload
from holdfast.watch.session import Session

NGINX = Process(812, "nginx", 33, 7, "/system.slice/nginx.service", None)


def reset(**differs: Any) -> Reset:
    """A record that every filter of the table below either wants or not."""
    fields: dict[str, Any] = {
        "id": "1",
        "host": "web-1",
        "time": "2026-01-02T03:04:05.000000000Z",
        "ending": Ending.RESET,
        "direction": Direction.SENT,
        "cause": "linger_zero",
        "basis": Basis.OBSERVED,
        "severity": Severity.WARNING,
        "noise": False,
        "local": Endpoint("10.0.0.1", 443),
        "peer": Endpoint("10.0.0.2", 5123),
        "owner": NGINX,
        "netns": 40,
    }
    return Reset(**fields | differs)


@pytest.mark.parametrize(
    ("asked", "wanted"),
    [
        ({}, True),
        ({"pids": (812,)}, True),
        ({"pids": (81, 8120)}, False),
        ({"ports": (443,)}, True),
        ({"ports": (5123,)}, True),
        ({"ports": (51,)}, False),
        ({"cgroups": ("/system.slice/nginx.service",)}, True),
        ({"cgroups": ("/system.slice",)}, True),
        ({"cgroups": ("/system.slice/",)}, True),
        ({"cgroups": ("/",)}, True),
        ({"cgroups": ("/system.slice/nginx",)}, False),
        ({"cgroups": ("/user.slice",)}, False),
        ({"netns": (40,)}, True),
        ({"netns": (41,)}, False),
        ({"direction": Direction.SENT}, True),
        ({"direction": Direction.RECEIVED}, False),
        ({"causes": ("linger_zero",)}, True),
        ({"causes": ("linger2_negative", "linger_zero")}, True),
        ({"causes": ("closed_port",)}, False),
        ({"min_severity": Severity.WARNING}, True),
        ({"min_severity": Severity.ERROR}, False),
        ({"pids": (812,), "ports": (443,), "netns": (40,)}, True),
        ({"pids": (812,), "ports": (80,)}, False),
    ],
)
def test_filters(asked: dict[str, Any], wanted: bool) -> None:
    assert Selection(**asked).wants(reset()) is wanted


@pytest.mark.parametrize(
    "asked", [{"pids": (812,)}, {"cgroups": ("/",)}, {"netns": (40,)}], ids=lambda asked: next(iter(asked))
)
def test_what_is_not_known_passes_no_filter(asked: dict[str, Any]) -> None:
    assert not Selection(**asked).wants(reset(owner=None, netns=None))


@pytest.mark.parametrize(
    ("asked", "noise", "folds"),
    [
        ({}, True, True),
        ({}, False, False),
        ({"noise": True}, True, False),
        ({"causes": ("linger_zero",)}, True, False),
        ({"causes": ("closed_port",)}, True, True),
    ],
)
def test_usual_traffic_is_folded_unless_it_was_asked_for(
    asked: dict[str, Any], noise: bool, folds: bool
) -> None:
    assert Selection(**asked).folds(reset(noise=noise)) is folds


@pytest.mark.parametrize(
    ("asked", "wanted"),
    [
        ({}, True),
        ({"ports": (9,)}, True),
        ({"ports": (10,)}, True),  # the other port differs, and may be it
        ({"pids": (7,)}, True),
        ({"pids": (8,)}, False),
        ({"netns": (40,)}, True),
        ({"netns": (41,)}, False),
        ({"direction": Direction.SENT}, True),
        ({"direction": Direction.RECEIVED}, False),
        ({"causes": ("linger_zero",)}, True),
    ],
)
def test_of_what_was_folded_only_that_is_left_out_which_cannot_pass(
    asked: dict[str, Any], wanted: bool
) -> None:
    alike = Event(Kind.RESET_SENT, 0, Endpoint("::", 9), Endpoint("::", 0), netns=40, opener=Process(7, ""))
    assert Selection(**asked).may_want(alike) is wanted


def test_usual_traffic_is_counted_whatever_severity_was_asked_for() -> None:
    usual = reset(noise=True, severity=Severity.INFO)
    assert Selection(min_severity=Severity.ERROR).wants(usual)


def test_without_payload_only_the_bytes_are_gone() -> None:
    rst = segment(RST, data=5)
    event = sent(segment=dataclasses.replace(rst, payload=b"hello"))
    assert without_payload(event) == sent(segment=rst)


@pytest.mark.parametrize("event", [sent(), sent(segment=segment())])
def test_an_event_without_payload_stays_the_same_object(event: Event) -> None:
    assert without_payload(event) is event


@pytest.mark.parametrize(
    ("end", "cut"),
    [
        (Endpoint("192.0.2.77", 80), Endpoint("192.0.2.0", 80)),
        (Endpoint("2001:db8:1:2:3::7", 443), Endpoint("2001:db8:1::", 443)),
        (Endpoint("::1", 1), Endpoint("::", 1)),
        (Endpoint("0.0.0.0", 0), Endpoint("0.0.0.0", 0)),
    ],
)
def test_addresses_are_cut_to_their_network(end: Endpoint, cut: Endpoint) -> None:
    shorter = redacted(reset(local=end, peer=end))
    assert (shorter.local, shorter.peer) == (cut, cut)


def test_an_address_that_begins_like_another_is_cut_as_well() -> None:
    local, peer = Endpoint("10.0.0.1", 80), Endpoint("10.0.0.1", 8080)
    shorter = redacted(reset(local=local, peer=peer, sentence=f"{local} reset {peer}."))
    assert shorter.sentence == "10.0.0.0:80 reset 10.0.0.0:8080."


def test_what_helps_to_count_stays() -> None:
    before = reset(bytes_sent=7, state="ESTABLISHED", kernel_reason="TCP_STATE", call_path=("tcp_close",))
    after = redacted(before)
    same = ("id", "time", "cause", "severity", "netns", "bytes_sent", "state", "kernel_reason", "call_path")
    assert [getattr(after, name) for name in same] == [getattr(before, name) for name in same]
    assert after.owner == Process(812, "process")


# Letters that no sentence of ours has in a row.
_NAMES = st.text(alphabet="QXZ[]/\x1b界\n", min_size=4, max_size=15)
_OCTETS = st.integers(101, 254)


@st.composite
def _events(draw: st.DrawFn) -> tuple[list[Event], set[str]]:
    """Events of one connection and everything in them that must not be told."""
    names = draw(st.lists(_NAMES, min_size=6, max_size=6, unique=True))
    group = f"/{names[4]}.slice"
    people = [Process(8100 + at, names[at], 33, 5, group, f"{at}c0ffee") for at in range(4)]
    kind = draw(st.sampled_from(list(Kind)))
    if draw(st.booleans()):
        local, peer = (Endpoint(f"198.51.100.{draw(_OCTETS)}", draw(st.integers(1, 65535))) for _ in "lp")
    else:
        local, peer = (
            Endpoint(f"2001:db8:1:{draw(_OCTETS):x}::f00", draw(st.integers(1, 9999))) for _ in "lp"
        )
    text = draw(st.text(alphabet="QXZ ", min_size=5, max_size=20)).strip() + "QQ"
    rst = dataclasses.replace(segment(RST | ACK, data=len(text)), payload=text.encode())
    event = Event(
        kind,
        time.monotonic_ns(),
        local,
        peer,
        cookie=7,
        netns=40,
        reason=draw(st.sampled_from([None, "NO_SOCKET", "TCP_STATE", "TCP_ABORT_ON_CLOSE", "NEW_ONE"])),
        state=draw(st.sampled_from([None, "CLOSED", "ESTABLISHED", "TIME_WAIT", "SYN_SENT"])),
        error=draw(st.sampled_from([0, 104, 110, 111])),
        segment=draw(st.sampled_from([None, rst])),
        opener=draw(st.sampled_from([None, people[0]])),
        closer=draw(st.sampled_from([None, people[1]])),
        user_stack=(f"lib{names[5]}.so+0x10",),
        kernel_stack=("tcp_send_active_reset", "tcp_close"),
        earlier=draw(st.sampled_from([None, Earlier(10**9, owner=people[2], opener=people[3])])),
        established=True,
    )
    events = [event]
    if draw(st.booleans()):
        events.append(
            dataclasses.replace(
                event, kind=draw(st.sampled_from(list(Kind))), local=peer, peer=local, cookie=8
            )
        )
    secrets = {*names, *(one.container or "" for one in people), text, local.ip, peer.ip}
    return events, secrets


class _Once:
    """A source that has these events and then no more."""

    name = "test"

    def __init__(self, events: list[Event]) -> None:
        self._events = events

    def drain(self) -> list[Event]:
        """See Source."""
        events, self._events = self._events, []
        return events

    def lost(self) -> int:
        """See Source."""
        return 0

    def close(self) -> None:
        """See Source."""


@given(_events())
def test_nothing_that_names_anyone_is_left(drawn: tuple[list[Event], set[str]]) -> None:
    events, secrets = drawn
    for record in Session(_Once(events), names=False).finish():
        told = redacted(record)
        values = json.dumps(told.as_json(), ensure_ascii=False).replace("\\\\", "\\")
        shown = f"{values}\n{render.line(told)}\n{render.story(told)}\n{render.told(told)}"
        # The text as JSON and a terminal would show it, and as it came.
        forms = {form for one in secrets for form in (one, json.dumps(one)[1:-1], render.printable(one))}
        assert [form for form in forms if form in shown] == []
        assert told.host == ""


@given(_events())
def test_redaction_changes_no_conclusion(drawn: tuple[list[Event], set[str]]) -> None:
    events, _ = drawn

    def concluded(names: bool) -> list[tuple[str, str, str, int | None]]:
        told = Session(_Once(list(events)), names=names, payload=False).finish()
        return [(one.id, one.cause, one.sender, one.owner.pid if one.owner else None) for one in told]

    assert concluded(names=False) == concluded(names=True)


def test_names_are_left_out_of_every_process_of_an_event() -> None:
    was = Earlier(5, owner=NGINX, opener=NGINX)
    event = sent(opener=NGINX, closer=NGINX, earlier=was, user_stack=("libc.so+0x1",))
    nameless = dataclasses.replace(NGINX, comm="process")
    assert without_names(event) == sent(
        opener=nameless, closer=nameless, earlier=Earlier(5, owner=nameless, opener=nameless), user_stack=()
    )
