"""Arithmetic of sequence numbers, which wrap at 2**32 (RFC 9293 3.4)."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

MODULUS = 1 << 32
_HALF = MODULUS >> 1


def ahead(one: int, other: int) -> int:
    """How far ``one`` lies ahead of ``other``: negative if behind; between -2**31 and 2**31 - 1."""
    return (one - other + _HALF) % MODULUS - _HALF


def highest(one: int | None, other: int | None) -> int | None:
    """The one that is further ahead; None only if neither is known."""
    if one is None or other is None:
        return other if one is None else one
    return one if ahead(one, other) > 0 else other
