# SPDX-License-Identifier: Apache-2.0
"""Bytes and times are said in few digits."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.linux.quantities import counted, rate, short_size, size, time_ms, time_s, time_us


@pytest.mark.parametrize(
    ("count_bytes", "words", "short"),
    [
        (0, "0 bytes", "0"),
        (1, "1 byte", "1"),
        (999, "999 bytes", "999"),
        (1023, "1,023 bytes", "1K"),
        (1024, "1 KiB", "1K"),
        (1536, "1.5 KiB", "1.5K"),
        (65_535, "64 KiB", "64K"),
        (128 << 10, "128 KiB", "128K"),
        (1_023_999, "1 MiB", "1M"),
        ((1 << 20) - 1, "1 MiB", "1M"),
        (3_787_776, "3.6 MiB", "3.6M"),
        (5 << 40, "5 TiB", "5T"),
    ],
)
def test_sizes(count_bytes: int, words: str, short: str) -> None:
    assert (size(count_bytes), short_size(count_bytes)) == (words, short)


@given(st.integers(0, 1 << 49))
def test_a_short_size_has_five_characters_at_most(count_bytes: int) -> None:
    assert len(short_size(count_bytes)) <= 5


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 µs"),
        (0.000_040, "40 µs"),
        (0.000_999_9, "1 ms"),
        (0.001_5, "1.5 ms"),
        (0.999_9, "1 s"),
        (5.24, "5.2 s"),
        (60, "1 min"),
        (600, "10 min"),
        (7200, "2 h"),
        (200_000, "2 d"),
    ],
)
def test_times(seconds: float, words: str) -> None:
    assert time_s(seconds) == words


def test_times_in_other_units_counts_and_rates() -> None:
    assert (time_us(1500), time_ms(1500), rate(1536.2)) == ("1.5 ms", "1.5 s", "1.5 KiB/s")
    assert (counted(1, "probe"), counted(0, "probe"), counted(2000, "probe")) == (
        "1 probe",
        "0 probes",
        "2,000 probes",
    )
