"""Bytes, times and counts as people say them."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations


def size(count_bytes: int) -> str:
    """``128 KiB``, ``3.6 MiB``; exact below one KiB, else three digits."""
    if count_bytes < 1024:
        return counted(count_bytes, "byte")
    value, unit = _scaled(count_bytes)
    return f"{_digits(value)} {unit}iB"


def short_size(count_bytes: int) -> str:
    """The same in five characters: ``128K``, ``3.6M``."""
    if count_bytes < 1000:
        return str(count_bytes)
    value, unit = _scaled(count_bytes)
    return f"{_digits(value)}{unit}"


def _scaled(count_bytes: int) -> tuple[float, str]:
    value = count_bytes / 1024
    for unit in "KMGT":
        if value < 999.5 or unit == "T":
            break
        value /= 1024
    return value, unit


def _digits(value: float) -> str:
    return f"{value:.0f}" if value >= 99.95 else f"{value:.1f}".removesuffix(".0")


def time_s(seconds: float) -> str:
    """``40 µs``, ``1.5 ms``, ``5.2 s``, ``3 min``, ``7 h``, ``2 d``."""
    if seconds < 60:
        for unit, parts in (("µs", 1_000_000), ("ms", 1000)):
            if seconds * parts < 999.5:
                return f"{_digits(seconds * parts)} {unit}"
        return f"{_digits(seconds)} s"
    minutes = seconds / 60
    if minutes < 120:
        return f"{minutes:.0f} min"
    hours = minutes / 60
    return f"{hours:.0f} h" if hours < 48 else f"{hours / 24:.0f} d"


def time_us(microseconds: int) -> str:
    """The same for microseconds."""
    return time_s(microseconds / 1_000_000)


def time_ms(milliseconds: int) -> str:
    """The same for milliseconds."""
    return time_s(milliseconds / 1000)


def counted(count: int, noun: str) -> str:
    """``1 segment``, ``2,000 segments``."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def rate(bytes_per_s: float) -> str:
    """``12.5 MiB/s``."""
    return f"{size(round(bytes_per_s))}/s"
