# SPDX-License-Identifier: Apache-2.0
"""A capture of every interface of a router (``-i any``) has all segments twice, but its own once."""

from __future__ import annotations

from pathlib import Path

import making_captures as make
import pytest
from making_captures import CLIENT, SERVER, TIMESTAMP, Record, ethernet, segment

from holdfast.watch.capture.flow import ACK, PSH, RST, SYN
from holdfast.watch.explain import Explaining

MS, HOP_NS = 10**6, 5_000
Sent = tuple[
    int, tuple[str, int], int, int, int, bytes, int
]  # ms, from, flags, seq, ack, payload, how often seen

DIALLED: list[Sent] = [
    (0, CLIENT, SYN, 100, 0, b"", 2),
    (10, SERVER, SYN | ACK, 900, 101, b"", 2),
    (20, CLIENT, ACK, 101, 901, b"", 2),
    (30, CLIENT, PSH | ACK, 101, 901, b"hello", 2),
    (40, SERVER, ACK, 901, 106, b"", 2),
]


def told(tmp_path: Path, story: list[Sent]) -> list[tuple[str, str]]:
    records = []
    for number, (ms, source, flags, seq, ack, payload, often) in enumerate(story):
        bare = flags & RST and not flags & PSH
        for copy in range(often):
            ip = segment(
                source,
                SERVER if source == CLIENT else CLIENT,
                flags & ~PSH if flags & RST else flags,
                seq=seq,
                ack=ack,
                payload=payload,
                ttl=64 - copy,
                ip_id=0 if bare else 1000 + number,
                window=0 if bare else 500,
                options=b"" if bare else TIMESTAMP,
            )
            records.append(Record(10**18 + ms * MS + copy * HOP_NS, ethernet(ip)))
    (tmp_path / "any.pcap").write_bytes(make.pcap(records))
    found = Explaining([[str(tmp_path / "any.pcap")]]).run().found
    return [(one.cause, one.sender) for one in found]


def data(often: int) -> Sent:
    return 1000, CLIENT, PSH | ACK, 106, 901, b"more", often


def answer(often: int, ms: int = 1012) -> Sent:
    return ms, SERVER, RST, 901, 0, b"", often


@pytest.mark.parametrize(
    ("end", "expected"),
    [
        ([data(2), answer(2)], ("peer_had_no_connection", "server")),
        ([data(1), answer(1, 1001)], ("path_firewall_reject", "path")),
        # The data went on to the server, whose answer would pass twice: one may have been lost.
        ([data(2), answer(1, 1006)], ("unrecognised_sender", "unknown")),
        # The shape of Linux resetting by its own decision outweighs a copy that is missing.
        ([data(2), (1012, SERVER, RST | ACK | PSH, 901, 110, b"", 1)], ("closed_with_unread_data", "server")),
    ],
    ids=["passed", "made here", "once", "aborted"],
)
def test_what_was_made_at_the_place_of_the_capture_is_seen_once(
    tmp_path: Path, end: list[Sent], expected: tuple[str, str]
) -> None:
    assert told(tmp_path, DIALLED + end) == [expected]


@pytest.mark.parametrize(("often", "sender"), [(2, "server"), (1, "unknown")])
def test_a_refusal_that_passed_both_interfaces_is_the_servers(
    tmp_path: Path, often: int, sender: str
) -> None:
    refused: list[Sent] = [
        (5000, CLIENT, SYN, 9_000_000, 0, b"", often),
        (5001, SERVER, RST | ACK, 0, 9_000_001, b"", often),
    ]
    ended: list[Sent] = [data(2), (1001, SERVER, RST, 901, 0, b"", 2)]
    assert told(tmp_path, DIALLED + ended + refused)[1] == ("connection_refused", sender)
