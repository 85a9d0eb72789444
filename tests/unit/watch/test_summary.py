"""The summary of a capture says what its reading lost, and calls nothing lost that was not."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import making_captures as make

from holdfast.watch.capture import read_captures
from holdfast.watch.diagnose.summary import summarize


def test_hurried_connections_are_told_apart_from_those_that_were_given_up(tmp_path: Path) -> None:
    path = tmp_path / "a"
    lone = [
        make.Record(10**18, make.ethernet(make.segment((f"10.0.0.{at}", 9), make.SERVER, 4)))
        for at in range(4)
    ]
    path.write_bytes(make.pcap(lone))
    reading = read_captures([path], evidence_bytes=0)
    assert len(list(reading)) == 4
    assert summarize(["a"], [reading.summary], [], []).warnings == (
        "Told sooner than 10 s after the last packet, for want of room: 3 connections. "
        "What came later than that counts as a connection of its own.",
    )
