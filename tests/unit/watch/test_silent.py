# SPDX-License-Identifier: Apache-2.0
"""Connections that ended in silence are counted, and no others."""

from __future__ import annotations

from pathlib import Path

import making_captures as make
import pytest
from making_captures import CLIENT, SERVER, Record, ethernet, segment

from holdfast.watch.capture import columns, read_captures
from holdfast.watch.capture.flow import ACK, FIN, PSH, RST, SYN
from holdfast.watch.diagnose.silent import Silences

MS = 10**6
Segment = tuple[int, bytes]  # milliseconds, IP packet


def up(ms: int, flags: int, seq: int, ack: int = 0, payload: bytes = b"") -> Segment:
    return ms, segment(CLIENT, SERVER, flags, seq=seq, ack=ack, payload=payload)


def down(ms: int, flags: int, seq: int, ack: int = 0, payload: bytes = b"") -> Segment:
    return ms, segment(SERVER, CLIENT, flags, seq=seq, ack=ack, payload=payload)


DIALLED = [up(0, SYN, 100), down(10, SYN | ACK, 900, 101), up(20, ACK, 101, 901)]
REQUEST = [up(ms, PSH | ACK, 101, 901, b"GET") for ms in (30, 240, 650)]
RESPONSE = [down(ms, PSH | ACK, 901, 101, b"220 ready") for ms in (30, 240, 650)]
WENT_SILENT = "went silent: data was sent again, and nothing came back any more."


def counted(tmp_path: Path, *stories: list[Segment]) -> tuple[str, ...]:
    """What is said of these conversations, each a minute after the one before."""
    records = [
        Record(10**18 + (minute * 60_000 + ms) * MS, ethernet(ip))
        for minute, story in enumerate(stories)
        for ms, ip in story
    ]
    (tmp_path / "capture").write_bytes(make.pcap(records))
    silences = Silences()
    for _ in read_captures([tmp_path / "capture"], on_connections=silences.take):
        pass
    return silences.sentences()


@pytest.mark.parametrize("said", [REQUEST, RESPONSE], ids=["client", "server"])
def test_who_repeats_data_and_hears_nothing_is_counted(tmp_path: Path, said: list[Segment]) -> None:
    assert counted(tmp_path, DIALLED + said) == (f"1 connection (with 198.51.100.7:443) {WENT_SILENT}",)


@pytest.mark.parametrize(
    "end",
    [
        [down(700, ACK, 901, 104)],
        [down(700, RST, 901)],
        [up(700, RST | ACK, 104, 901)],
        [down(500, ACK, 901, 101)],  # it still speaks, and may have lost one segment
    ],
    ids=["acknowledged", "reset", "aborted", "answers"],
)
def test_who_was_answered_or_reset_is_not(tmp_path: Path, end: list[Segment]) -> None:
    assert counted(tmp_path, sorted(DIALLED + REQUEST + end)) == ()


@pytest.mark.parametrize(
    "story",
    [DIALLED + REQUEST[:2], DIALLED, [*DIALLED, up(30, FIN | ACK, 101, 901), down(40, ACK, 901, 102)]],
    ids=["sent again once", "idle", "closed"],
)
def test_what_may_go_on_is_not(tmp_path: Path, story: list[Segment]) -> None:
    assert counted(tmp_path, story) == ()


def test_attempts_that_nothing_answered_are_counted(tmp_path: Path) -> None:
    repeated = [up(ms, SYN, 100) for ms in (0, 1000, 3000)]
    said = "1 attempt to connect (to 198.51.100.7:443) got no answer, although repeated."
    assert counted(tmp_path, repeated) == (said,)
    assert counted(tmp_path, repeated[:1]) == ()
    assert counted(tmp_path, [*repeated, down(3010, SYN | ACK, 900, 101)]) == ()
    assert counted(tmp_path, [*repeated, down(3010, RST | ACK, 0, 101)]) == ()


def test_the_server_with_the_most_is_named(tmp_path: Path) -> None:
    other = ("192.0.2.9", 25)
    elsewhere = [(ms, segment(CLIENT, other, SYN, seq=7)) for ms in (0, 1000)]
    again = [up(ms, SYN, 5_000_000) for ms in (0, 1000)]
    said = "3 attempts to connect (2 of them to 198.51.100.7:443) got no answer, although repeated."
    assert counted(tmp_path, [up(ms, SYN, 100) for ms in (0, 1000)], elsewhere, again) == (said,)


def test_very_many_servers_take_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("holdfast.watch.diagnose.silent._SERVERS", 4)
    rows = columns.as_array(bytes(columns.ROW_LAYOUT.size * 50)).copy()
    rows["client_by"], rows["client_syns"], rows["client_packets"], rows["last_ns"] = 1, 2, 2, 10**9
    rows["server_port"] = [*range(1, 41), *[7] * 10]
    silences = Silences()
    for _ in range(3):
        silences.take(rows)
    assert len(silences._attempts._servers) <= 4
    assert silences.sentences()[0].startswith("150 attempts to connect (")
