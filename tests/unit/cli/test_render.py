"""Lines of 80 columns, whatever the names, addresses and counts."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from holdfast.causes import CAUSES, Basis, Direction, Ending, Severity
from holdfast.cli import render
from holdfast.events import Endpoint, Evidence, Harm, Process, Reset

LONGEST = Endpoint("fd83:1234:5678:9abc:def0:1234:5678:9abc", 65535)
WIDE = "界" * 5


def reset(**differs: Any) -> Reset:
    """A record with everything known."""
    fields: dict[str, Any] = {
        "id": "0123456789abcdef",
        "host": "web-1",
        "time": "2026-01-02T03:04:05.123456789Z",
        "ending": Ending.RESET,
        "direction": Direction.SENT,
        "cause": "linger_zero",
        "basis": Basis.OBSERVED,
        "severity": Severity.WARNING,
        "noise": False,
        "local": Endpoint("10.0.0.1", 443),
        "peer": Endpoint("10.0.0.2", 5123),
        "owner": Process(812, "nginx"),
    }
    return Reset(**fields | differs)


@pytest.mark.parametrize(
    ("record", "line"),
    [
        (
            reset(harm=Harm(29, 0, 0)),
            "linger_zero               nginx/812         :443→10.0.0.2:5123       29 unread",
        ),
        (reset(), "linger_zero               nginx/812         :443→10.0.0.2:5123"),
        (
            reset(owner=None, direction=Direction.RECEIVED),
            "linger_zero               -                 :443←10.0.0.2:5123",
        ),
        (
            reset(cause="handshake_timestamp_mismatch", owner=Process(4194304, WIDE), harm=Harm(0, 0, 1499)),
            "handshake_timestamp_mismatch 界界界界…/4194304 :443→10.0.0.2:5123  1.5k unackd",
        ),
        (
            reset(local=LONGEST, peer=LONGEST, owner=Process(4194304, "a-very-long-one"), harm=Harm(999_999)),
            "linger_zero               a-very-l…/4194304 :65535→[fd83…9abc]:65535 1.0M unread",
        ),
        (
            reset(owner=Process(1, "\x1b[31m\n")),
            "linger_zero               \\x1b[31m\\n/1      :443→10.0.0.2:5123",
        ),
    ],
)  # fmt: skip
def test_a_record_is_this_line(record: Reset, line: str) -> None:
    assert str(render.line(record)).split() == line.split()
    assert cell_len(str(render.line(record))) <= 80


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (Harm(), ""),
        (Harm(0, 0, 0), ""),
        (Harm(999, 0, 0), "999 unread"),
        (Harm(0, 2_895, 0), "2.9k unsent"),
        (Harm(0, 0, 9_949), "9.9k unackd"),
        (Harm(0, 0, 9_951), "10k unackd"),
        (Harm(38_400), "38k unread"),
        (Harm(999_499), "999k unread"),
        (Harm(999_500), "1.0M unread"),
        (Harm(1, 3_797_504, 0), "3.8M lost"),
        (Harm(10, 0, 20), "30 lost"),
    ],
)
def test_what_was_lost_is_rounded_and_nothing_of_it_left_out(harm: Harm, words: str) -> None:
    assert render.lost(reset(harm=harm)) == words


_NAMES = st.text(st.characters(codec="utf-8"), max_size=16)
_PORTS = st.integers(0, 65535)
_ENDS = st.one_of(
    st.builds(Endpoint, st.ip_addresses(v=4).map(str), _PORTS),
    st.builds(Endpoint, st.ip_addresses(v=6).map(str), _PORTS),
)
_COUNTS = st.one_of(st.none(), st.integers(0, 1 << 63))
_RESETS = st.builds(
    reset,
    cause=st.sampled_from(sorted(CAUSES)),
    direction=st.sampled_from(Direction),
    local=_ENDS,
    peer=_ENDS,
    owner=st.one_of(st.none(), st.builds(Process, st.integers(1, 1 << 22), _NAMES)),
    harm=st.builds(Harm, _COUNTS, _COUNTS, _COUNTS),
    sentence=st.lists(_NAMES, max_size=12).map(" ".join),
    evidence=st.lists(st.builds(Evidence, _NAMES, st.just(1)), max_size=2).map(tuple),
    call_path=st.lists(_NAMES, max_size=9).map(tuple),
    netns=st.one_of(st.none(), st.integers(1, 1 << 32)),
    lifetime_s=st.one_of(st.none(), st.floats(0, 1e9)),
    bytes_sent=_COUNTS,
    bytes_received=_COUNTS,
)


@given(_RESETS)
def test_no_record_has_a_line_beyond_column_80(record: Reset) -> None:
    line = str(render.line(record))
    assert cell_len(line) <= 80
    assert (line.startswith(record.cause), "\n" in line, line == line.rstrip()) == (True, False, True)
    told = str(render.told(record)).splitlines()
    assert [part for part in told if cell_len(part) > 80] == []


@given(_RESETS)
def test_nothing_that_a_terminal_obeys_is_printed(record: Reset) -> None:
    shown = f"{render.line(record)}{render.told(record)}{render.story(record)}"
    assert [c for c in shown if not c.isprintable() and c != "\n"] == []


def test_a_wider_terminal_gives_the_address_its_room() -> None:
    record = reset(local=LONGEST, peer=LONGEST)
    assert str(LONGEST) in str(render.line(record, 120))
    assert str(render.header(120)).index("LOST") == len("CAUSE") + 20 + 1 + 17 + 1 + 24 + 40 + 1


def test_a_story_is_folded_at_its_width() -> None:
    record = reset(sentence="界" * 50 + " closed", call_path=tuple(f"frame_{n}" for n in range(30)))
    story = str(render.story(record, 60))
    assert [line for line in story.splitlines() if cell_len(line) > 60 and "id 0123" not in line] == []
    assert story.replace("\n", "").startswith("界" * 50)
