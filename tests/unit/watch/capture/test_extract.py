"""What is extracted is all that was read of a connection, whatever lies between its packets."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import making_captures as make
import pytest
from making_captures import CLIENT, SERVER

from holdfast.events import Endpoint
from holdfast.watch.capture.extract import extract

WANTED = {(Endpoint(*CLIENT), Endpoint(*SERVER))}
TALK = make.conversation()
BEFORE, AFTER = TALK[:3], TALK[3:]
EMPTY = make.Record(10**18, b"", 60)


def extracted(tmp_path: Path, data: bytes) -> tuple[int, bytes]:
    source, target = tmp_path / "a", tmp_path / "out"
    source.write_bytes(data)
    return extract([str(source)], str(target), WANTED), target.read_bytes()


def test_a_packet_without_bytes_is_passed_over(tmp_path: Path) -> None:
    assert extracted(tmp_path, make.pcap([*BEFORE, EMPTY, *AFTER])) == (len(TALK), make.pcap(TALK))


@pytest.mark.parametrize("order", "<>")
def test_a_long_block_that_is_no_packet_is_left_out(tmp_path: Path, order: str) -> None:
    long = make.block(10, b"s" * (3 << 20), order)  # secrets of TLS, as a browser writes them
    rest = b"".join(make.enhanced(one, order=order) for one in AFTER)
    found = extracted(tmp_path, make.pcapng(BEFORE, order=order) + long + rest)
    assert found == (len(TALK), make.pcapng(TALK, order=order))


def test_a_hole_of_zeros_ends_it(tmp_path: Path) -> None:
    data = make.pcap(BEFORE) + b"\0" * 4096 + make.pcap(AFTER)[24:]
    assert extracted(tmp_path, data) == (len(BEFORE), make.pcap(BEFORE))
