"""``holdfast watch`` over real resets: one reset of a program with a hostile name, seen by many watches."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, NamedTuple

import pytest
from cli.command import Done, Running, server
from rich.cells import cell_len

from holdfast.events import Endpoint, Harm, Reset
from holdfast.linux.namespaces import netns_of

pytestmark = [pytest.mark.needs_bpf, pytest.mark.timeout(120)]

NAME = "[b]\x1b[1m\n世界"
ESCAPED = "[b]\\x1b[1m\\n世界"
CAUSE = "closed_with_unread_data"

WATCHES: dict[str, tuple[str, ...]] = {
    "line": (),
    "story": ("-v",),
    "json": ("--json",),
    "redacted": ("--redact", "--json"),
    "redacted story": ("--redact", "-v"),
}
MORE: dict[str, tuple[str, ...]] = {
    "counted": ("--count", "1", "--json"),
    "no segments": ("--no-segments", "--no-payload", "--json"),
    "sent": ("--direction", "sent", "--cause", CAUSE, "--min-severity", "error", "--all", "--json"),
    "elsewhere": ("--netns", "1", "--json"),
}
"""Filters one by one are in the unit tests of select."""


class Seen(NamedTuple):
    """What each watch of one reset printed, and who was reset."""

    told: dict[str, Done]
    pid: int
    port: int

    def records(self, name: str) -> list[dict[str, Any]]:
        """The JSON of a watch, the sender's end first."""
        found = [json.loads(line) for line in self.told[name].out.splitlines()]
        return sorted(found, key=lambda one: str(one["direction"]), reverse=True)


@pytest.fixture(scope="module", params=["127.0.0.1", "::1"])
def seen(request: pytest.FixtureRequest) -> Iterator[Seen]:
    """One reset under every watch, ended by SIGINT."""
    host: str = request.param
    with ExitStack() as stack:
        program = stack.enter_context(server(host, comm=NAME.encode()))
        only = ("--port", str(program.port))
        mine = WATCHES
        if host == "127.0.0.1":
            owner = ("--pid", str(program.pid), "--netns", f"/proc/{program.pid}/ns/net", "--json")
            mine = WATCHES | MORE | {"owner": owner}
        watches = {name: stack.enter_context(Running("watch", *args, *only)) for name, args in mine.items()}
        for watch in watches.values():
            watch.await_ready()
        program.reset()
        # Each of these tells of it; once they have, the others only finish.
        for name in watches.keys() - {"elsewhere", "counted"}:
            watches[name].line()
        told = {name: watch.end() for name, watch in watches.items() if name != "counted"}
        if "counted" in watches:
            told["counted"] = watches["counted"].await_exit()
        yield Seen(told, program.pid, program.port)


def test_every_watch_ends_well(seen: Seen) -> None:
    assert {name: done.code for name, done in seen.told.items() if done.code} == {}
    assert [done.err for done in seen.told.values() if "Traceback" in done.err] == []


def test_one_reset_has_one_line_with_the_cause_first(seen: Seen) -> None:
    header, *lines = seen.told["line"].out.splitlines()
    assert header.split() == ["CAUSE", "WHO", "CONNECTION", "LOST"]
    (line,) = lines
    assert line.startswith(f"{CAUSE} ")
    assert line.endswith(" 6 unread")
    assert f"/{seen.pid}" in line
    assert f":{seen.port}→" in line
    assert cell_len(line) <= 80


def test_a_hostile_name_is_shown_and_not_obeyed(seen: Seen) -> None:
    story = " ".join(seen.told["story"].out.split())
    assert f"{ESCAPED} (pid {seen.pid}) closed its connection" in story
    assert [text for text in (done.out for done in seen.told.values()) if "\x1b" in text] == []


def test_the_story_has_all_parts_in_80_columns(seen: Seen) -> None:
    story = seen.told["story"].out
    titles = ("When", "Connection", "Timeline", "Known", "Evidence", "Called by", "Do")
    assert [title for title in titles if f"\n  {title}" not in story] == []
    assert [line for line in story.splitlines() if cell_len(line) > 80] == []


def test_json_has_every_documented_key_for_both_ends(seen: Seen) -> None:
    sent, received = seen.records("json")
    assert [one["direction"] for one in (sent, received)] == ["sent", "received"]
    assert sent["story"] == received["story"]
    assert sent.keys() == received.keys() == keys()
    assert sent["owner"]["comm"] == NAME
    assert (sent["cause"], sent["owner"]["pid"], sent["harm"]["unread_bytes"]) == (CAUSE, seen.pid, 6)


def keys() -> set[str]:
    """The keys of schema 1, of any record."""
    return set(Reset.__slots__) - {"netns"} | {"schema"}


def test_count_ends_it_by_itself_after_so_many(seen: Seen) -> None:
    if "counted" in seen.told:
        assert len(seen.records("counted")) == 1


@pytest.mark.parametrize(
    ("watch", "ends"),
    [
        ("sent", ["sent"]),
        ("elsewhere", []),
        ("owner", ["sent", "received"]),
        ("no segments", ["sent", "received"]),
    ],
)
def test_filters(seen: Seen, watch: str, ends: list[str]) -> None:
    if watch in seen.told:
        assert [one["direction"] for one in seen.records(watch)] == ends


def test_without_segments_the_cause_is_still_told(seen: Seen) -> None:
    if "no segments" in seen.told:
        assert seen.records("no segments")[0]["cause"] == CAUSE


@pytest.mark.parametrize("watch", ["redacted", "redacted story"])
def test_redaction_leaves_nobody_in(seen: Seen, watch: str) -> None:
    plain = seen.records("json")
    groups = {one["owner"][key] for one in plain for key in ("cgroup", "container")} - {None, "/"}
    addresses = {one[end].rpartition(":")[0] for one in plain for end in ("local", "peer")}
    frames = {frame for one in plain for frame in one["call_path"] if "+0x" in frame}
    secrets = {NAME, ESCAPED, "世界", plain[0]["host"], *groups, *addresses, *frames}
    out = seen.told[watch].out
    assert [one for one in secrets if (one and f'"{one}"' in out) or (len(one) > 4 and one in out)] == []
    assert str(seen.port) in out


def test_redaction_keeps_what_happened(seen: Seen) -> None:
    plain, shorter = seen.records("json")[0], seen.records("redacted")[0]
    same = ("cause", "severity", "harm", "state", "bytes_received", "remedy", "kernel_reason", "basis")
    assert {key: shorter[key] for key in same} == {key: plain[key] for key in same}
    assert shorter["owner"]["pid"] == seen.pid


def test_the_namespace_of_a_record_is_that_of_the_program(seen: Seen) -> None:
    assert {one["owner"]["netns"] for one in seen.records("json")} == {netns_of()}


def test_harm_and_ends_are_as_documented(seen: Seen) -> None:
    sent = seen.records("json")[0]
    assert sorted(sent["harm"]) == sorted(Harm.__slots__)
    host = sent["local"].rpartition(":")[0].strip("[]")
    assert sent["local"] == str(Endpoint(host, seen.port))
