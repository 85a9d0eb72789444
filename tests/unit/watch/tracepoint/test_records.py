# SPDX-License-Identifier: Apache-2.0
"""Perf records are parsed whole or skipped; what the kernel lost is told."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.watch.tracepoint.records import Lost, Sample, parse
from holdfast.watch.tracepoint.rings import parse_cpus

KERNEL, USER, GUEST = (1 << 64) - 128, (1 << 64) - 512, (1 << 64) - 2048


def record(kind: int, body: bytes) -> bytes:
    body += bytes(-len(body) % 8)
    return struct.pack("=IHH", kind, 0, 8 + len(body)) + body


def sample(chain: tuple[int, ...], raw: bytes) -> bytes:
    head = struct.pack("=IIQIIQ", 10, 11, 12345, 1, 0, len(chain)) + struct.pack(f"={len(chain)}Q", *chain)
    return record(9, head + struct.pack("=I", len(raw)) + raw)


DATA = (
    sample((KERNEL, 0xFFFFFFFF81000010, 0xFFFFFFFF81000020, USER, 0x401000), b"raw bytes")
    + record(2, struct.pack("=QQ", 77, 5))
    + record(4, b"an exit, which nobody asked for")
    + sample((), b"")
)
EXPECTED = [
    Sample(10, 11, 12345, 1, (0xFFFFFFFF81000010, 0xFFFFFFFF81000020), (0x401000,), b"raw bytes"),
    Lost(5),
    Sample(10, 11, 12345, 1, (), (), b""),
]


def test_samples_and_losses() -> None:
    assert list(parse(DATA)) == EXPECTED


def test_every_cut_gives_what_is_complete() -> None:
    for length in range(len(DATA)):
        found = list(parse(DATA[:length]))
        assert found == EXPECTED[: len(found)]
        assert len(found) < len(EXPECTED)


def test_trailing_junk_changes_nothing() -> None:
    assert list(parse(DATA + b"\xff" * 11)) == EXPECTED


@pytest.mark.parametrize(("frames", "size"), [(0, 100), (9, 0), ((1 << 64) - 1, 0)])
def test_a_sample_that_lies_about_its_length_is_skipped(frames: int, size: int) -> None:
    body = struct.pack("=IIQIIQ", 10, 11, 12345, 1, 0, frames) + struct.pack("=I", size)
    assert list(parse(record(9, body) + sample((), b""))) == EXPECTED[2:]


def test_addresses_of_other_contexts_are_left_out() -> None:
    found = next(iter(parse(sample((1, KERNEL, 2, GUEST, 3, USER, 4), b""))))
    assert isinstance(found, Sample)
    assert (found.kernel, found.user) == ((2,), (4,))


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_survived(data: bytes) -> None:
    list(parse(data))


@settings(deadline=None)
@given(st.binary(max_size=120))
def test_any_sample_is_survived(body: bytes) -> None:
    list(parse(record(9, body)))


@pytest.mark.parametrize(
    ("text", "cpus"),
    [
        ("0-3,8\n", [0, 1, 2, 3, 8]),
        ("0", [0]),
        ("2-1", []),
        ("", []),
        ("a,1-b,-,4-", [4]),
        ("0-99999999999", []),
    ],
)
def test_lists_of_cpus(text: str, cpus: list[int]) -> None:
    assert parse_cpus(text) == cpus
