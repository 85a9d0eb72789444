"""Segments made by hand are what a TCP stack would put on the wire."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from holdfast.events import Endpoint
from holdfast.lab.segment import ACK, PSH, RST, Datagram, build, checksum, parse, timestamps

V4 = Endpoint("10.0.0.1", 80), Endpoint("10.0.0.2", 4000)
V6 = Endpoint("fd00::1", 80), Endpoint("fd00::2", 4000)
MADE = {
    "bare RST": Datagram(*V4, RST, seq=1),
    "data with timestamps": Datagram(*V4, PSH | ACK, 7, 9, 500, 63, 1, timestamps(1, 2), b"hello"),
    "IPv6": Datagram(*V6, ACK, 7, 9, 500, 63, None, timestamps(1, 2), b"x"),
}


def test_checksum_of_the_example_in_rfc_1071() -> None:
    """RFC 1071 3: these words sum to ddf2, so the checksum is its complement."""
    assert checksum(bytes.fromhex("0001f203f4f5f6f7")) == 0x220D


@pytest.mark.parametrize("name", MADE)
def test_what_is_built_is_read_back(name: str) -> None:
    assert parse(build(MADE[name])) == MADE[name]


def test_sequence_numbers_wrap() -> None:
    back = parse(build(Datagram(*V4, RST, seq=(1 << 32) + 5, ack=-1)))
    assert back is not None
    assert (back.seq, back.ack) == (5, 0xFFFFFFFF)


@pytest.mark.parametrize("ends", [V4, V6])
def test_the_tcp_checksum_makes_the_whole_sum_to_zero(ends: tuple[Endpoint, Endpoint]) -> None:
    """A receiver adds pseudo header and segment, checksum included, and must get zero."""
    octets = build(Datagram(*ends, PSH | ACK, 1, 2, payload=b"odd"))
    at, addresses = (40, octets[8:40]) if ":" in ends[0].ip else (20, octets[12:20])
    segment = octets[at:]
    pseudo = addresses + len(segment).to_bytes(4, "big") + (6).to_bytes(4, "big")
    assert checksum(pseudo + segment) == 0


@pytest.mark.parametrize("octets", [b"", b"\x45", bytes(40), b"\x45" + bytes(60)])
def test_what_is_no_tcp_segment_is_none(octets: bytes) -> None:
    assert parse(octets) is None
