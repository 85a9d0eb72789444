# SPDX-License-Identifier: Apache-2.0
"""The record's keys are the documented ones, in JSON that any reader understands; facts cannot change."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from holdfast.causes import Basis, Direction, Ending, Severity, Trigger
from holdfast.events import Earlier, Endpoint, Event, Evidence, Harm, Kind, Process, Reset, Segment

BARE = Reset(
    id="1f", host="web-1", time="2026-01-02T03:04:05.000000006Z", ending=Ending.RESET,
    direction=Direction.RECEIVED, cause="peer_aborted", basis=Basis.INFERRED, severity=Severity.WARNING,
    noise=False, local=Endpoint("10.0.0.1", 443), peer=Endpoint("2001:db8::2", 51000),
)  # fmt: skip
FULL = dataclasses.replace(
    BARE, sentence="It ended.", sender="peer", story="2e", trigger=Trigger.ACTIVE, obeyed="yes",
    state="ESTABLISHED", owner=Process(812, "nginx", 33, 4711, "/system.slice/nginx.service", "abc"),
    netns=40, lifetime_s=1.5, bytes_sent=1, bytes_received=2, rtt_us=3, idle_s=0.25,
    harm=Harm(4, 5, 6), call_path=("tcp_close",), evidence=(Evidence("seen", 5),), remedy=("Do this.",),
    kernel_reason="TCP_ABORT_ON_CLOSE",
)  # fmt: skip


@pytest.mark.parametrize(
    ("endpoint", "text"),
    [
        (Endpoint("10.0.0.1", 443), "10.0.0.1:443"),
        (Endpoint("::1", 80), "[::1]:80"),
        (Endpoint("fe80::1", 0), "[fe80::1]:0"),
    ],
)
def test_an_endpoint_is_written_as_in_an_address_bar(endpoint: Endpoint, text: str) -> None:
    assert str(endpoint) == text


def test_a_full_record_as_json() -> None:
    assert json.loads(json.dumps(FULL.as_json())) == {
        "schema": 1, "id": "1f", "host": "web-1", "time": "2026-01-02T03:04:05.000000006Z", "story": "2e",
        "ending": "reset", "direction": "received", "trigger": "active", "sender": "peer",
        "cause": "peer_aborted", "sentence": "It ended.", "basis": "inferred", "severity": "warning",
        "noise": False, "obeyed": "yes", "state": "ESTABLISHED", "lifetime_s": 1.5, "bytes_sent": 1,
        "bytes_received": 2, "rtt_us": 3, "idle_s": 0.25, "local": "10.0.0.1:443",
        "peer": "[2001:db8::2]:51000",
        "owner": {
            "pid": 812, "comm": "nginx", "uid": 33, "cgroup": "/system.slice/nginx.service",
            "container": "abc", "netns": 40,
        },
        "harm": {"unread_bytes": 4, "unsent_bytes": 5, "unacked_bytes": 6},
        "call_path": ["tcp_close"], "evidence": [{"fact": "seen", "weight": 5}], "remedy": ["Do this."],
        "kernel_reason": "TCP_ABORT_ON_CLOSE",
    }  # fmt: skip


def test_a_bare_record_has_the_same_keys_with_null_for_the_unknown() -> None:
    bare, full = BARE.as_json(), FULL.as_json()
    assert list(bare) == list(full)
    assert {key for key, value in bare.items() if value is None} == {
        "story", "trigger", "state", "owner", "lifetime_s", "bytes_sent", "bytes_received", "rtt_us",
        "idle_s", "kernel_reason",
    }  # fmt: skip
    assert bare["harm"] == dict.fromkeys(("unread_bytes", "unsent_bytes", "unacked_bytes"))


@pytest.mark.parametrize(
    ("owner", "netns", "expected"),
    [
        (None, None, None),
        (None, 40, {"pid": None, "comm": None, "netns": 40}),
        (Process(1, "init"), None, {"pid": 1, "comm": "init", "netns": None}),
    ],
)
def test_an_owner_of_which_only_a_part_is_known(
    owner: Process | None, netns: int | None, expected: dict[str, Any] | None
) -> None:
    told = dataclasses.replace(BARE, owner=owner, netns=netns).as_json()["owner"]
    blank = {"uid": None, "cgroup": None, "container": None}
    assert told == (None if expected is None else blank | expected)


def test_zero_is_a_fact_and_no_null() -> None:
    zero = dataclasses.replace(BARE, bytes_sent=0, rtt_us=0, harm=Harm(0, 0, 0)).as_json()
    assert (zero["bytes_sent"], zero["rtt_us"]) == (0, 0)
    assert zero["harm"] == dict.fromkeys(("unread_bytes", "unsent_bytes", "unacked_bytes"), 0)


@pytest.mark.parametrize(
    "fact",
    [
        BARE,
        Event(Kind.ERROR, 0, Endpoint("::", 0), Endpoint("::", 0)),
        Segment(4, 0, 0, 0, 0, None, 0, False, 0),
        Process(1, "init"),
        Harm(),
        Earlier(0),
        Evidence("seen", 1),
    ],
)
def test_facts_are_frozen_and_have_no_room_for_more(fact: Any) -> None:
    # Evidence is a named tuple: an explained capture makes very many.
    name = fact._fields[0] if isinstance(fact, tuple) else dataclasses.fields(fact)[0].name
    with pytest.raises(AttributeError):  # FrozenInstanceError is one
        setattr(fact, name, None)
    assert not hasattr(fact, "__dict__")


def test_an_event_knows_nothing_unless_told() -> None:
    bare = Event(Kind.RESET_SENT, 1, Endpoint("::", 0), Endpoint("::", 0))
    known = {
        field.name: getattr(bare, field.name)
        for field in dataclasses.fields(bare)
        if getattr(bare, field.name) is not None
    }
    assert known == {
        "kind": Kind.RESET_SENT, "mono_ns": 1, "local": Endpoint("::", 0), "peer": Endpoint("::", 0),
        "cookie": 0, "error": 0, "harm": Harm(), "kernel_stack": (), "user_stack": (),
    }  # fmt: skip
