# SPDX-License-Identifier: Apache-2.0
"""Our counts beside tshark's: equal, and where they differ as docs/reference/captures.md says."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import making_captures as make
import pytest
from making_captures import CLIENT, SERVER, Record, ethernet, segment

from holdfast.watch.capture import read_captures
from holdfast.watch.capture.flow import ACK, FIN, PSH, RST, SYN

LAB = Path(__file__).resolve().parents[2] / "captures/lab"
FLAG = "tcp.flags.reset"
SECOND_NS, STEP_NS = 10**9, 10**6

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("tshark") is None, reason="no tshark here"),
]


def refused(isn: int) -> list[bytes]:
    return [segment(CLIENT, SERVER, SYN, seq=isn), segment(SERVER, CLIENT, RST | ACK, ack=isn + 1)]


def talk(isn: int, last: int) -> list[bytes]:
    """A handshake, a request, and the last segment of the server; after FIN the client's as well."""
    said = [
        segment(CLIENT, SERVER, SYN, seq=isn),
        segment(SERVER, CLIENT, SYN | ACK, seq=900, ack=isn + 1),
        segment(CLIENT, SERVER, ACK, seq=isn + 1, ack=901),
        segment(CLIENT, SERVER, PSH | ACK, seq=isn + 1, ack=901, payload=b"GET"),
        segment(SERVER, CLIENT, last | ACK, seq=901, ack=isn + 4),
    ]
    bye = [
        segment(CLIENT, SERVER, FIN | ACK, seq=isn + 4, ack=902),
        segment(SERVER, CLIENT, ACK, seq=902, ack=isn + 5),
    ]
    return said + (bye if last == FIN else [])


LONE = [segment(SERVER, CLIENT, RST, seq=901)]


def ours(capture: Path) -> tuple[int, int]:
    reading = read_captures([capture])
    for _ in reading:
        pass
    return reading.summary.connections, reading.summary.reset_connections


def tsharks(capture: Path) -> tuple[int, int]:
    """Streams, and those with a RST."""
    done = subprocess.run(
        ("tshark", "-r", str(capture), "-Y", "tcp", "-T", "fields", "-e", "tcp.stream", "-e", FLAG),
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    # A segment that an ICMP error quotes is named after a comma.
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    streams = {row[0].split(",")[0] for row in rows}
    reset = {row[0].split(",")[0] for row in rows if row[1].split(",")[0] in ("1", "True")}
    return len(streams), len(reset)


def test_the_captures_of_the_lab_count_alike() -> None:
    captures = [one for one in LAB.glob("*.client.pcap") if not one.name.startswith("icmp_")]
    different = {one.name: (ours(one), tsharks(one)) for one in captures if ours(one) != tsharks(one)}
    assert different == {}


@pytest.mark.parametrize(
    ("stories", "ours_are", "tsharks_are"),
    [
        ([refused(isn) for isn in (100, 2_000_000, 4_000_000)], (3, 3), (3, 3)),
        ([refused(100)] * 3, (1, 1), (1, 1)),
        ([talk(100, FIN), talk(2_000_000, RST)], (2, 1), (2, 1)),
        ([talk(100, RST), LONE], (1, 1), (1, 1)),
        ([talk(100, RST), [], [], LONE], (2, 2), (1, 1)),
        ([LONE, [], [], LONE], (2, 2), (1, 1)),
    ],
    ids=["another number", "the same number", "after FINs", "late RST", "very late RST", "lone RSTs"],
)
def test_ports_used_again_and_lone_resets(
    tmp_path: Path, stories: list[list[bytes]], ours_are: tuple[int, int], tsharks_are: tuple[int, int]
) -> None:
    """Each story begins six seconds after the one before."""
    records = [
        Record(10**18 + at * 6 * SECOND_NS + step * STEP_NS, ethernet(ip))
        for at, story in enumerate(stories)
        for step, ip in enumerate(story)
    ]
    (tmp_path / "capture.pcap").write_bytes(make.pcap(records))
    assert (ours(tmp_path / "capture.pcap"), tsharks(tmp_path / "capture.pcap")) == (ours_are, tsharks_are)
