"""How flags, times and numbers of a capture read in a sentence."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Sequence

_FLAGS = (
    (0x02, "SYN"),
    (0x01, "FIN"),
    (0x04, "RST"),
    (0x08, "PSH"),
    (0x10, "ACK"),
    (0x20, "URG"),
    (0x40, "ECE"),
    (0x80, "CWR"),
)


def flag_words(flags: int) -> str:
    """The flags of a segment, ``RST,ACK``; ``none`` if it has none."""
    return ",".join(word for bit, word in _FLAGS if flags & bit) or "none"


def duration(ns: int) -> str:
    """A length of time with three digits that matter: ``312 µs``, ``4.20 ms``, ``61.0 s``, ``2.5 h``."""
    if ns < 0:
        return f"-{duration(-ns)}"
    for size_ns, unit in ((3_600_000_000_000, "h"), (1_000_000_000, "s"), (1_000_000, "ms"), (1_000, "µs")):
        if ns >= size_ns:
            value = ns / size_ns
            return f"{value:.{2 if value < 10 else 1 if value < 100 else 0}f} {unit}"
    return f"{ns} ns"


def files_words(names: Sequence[str]) -> str:
    """The names of captures; of more than three only how many, the first and the last."""
    names = ["standard input" if name == "-" else name for name in names]
    if len(names) <= 3:
        return ", ".join(names)
    return f"{len(names):,} files, {names[0]} … {names[-1]}"


def bytes_words(count: int) -> str:
    """``1 byte``, ``2,048 bytes``."""
    return f"{count:,} byte{'' if count == 1 else 's'}"
