"""Which address to dial when (RFC 8305): decides, and touches no socket and no clock."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from itertools import chain, zip_longest
from typing import Any, NamedTuple

from holdfast.errors import UsageError

ATTEMPT_DELAY_S = 0.25
"""How long an attempt has the field to itself: RFC 8305 section 5, Connection Attempt Delay."""

LEAST_DELAY_S, MOST_DELAY_S = 0.01, 2.0
"""The bounds of RFC 8305 section 8: below, a network would be flooded; above, nobody would wait."""


class Address(NamedTuple):
    """Where one attempt to connect goes: the address family and what ``connect()`` takes."""

    family: int
    sockaddr: tuple[Any, ...]


def interleave(addresses: Iterable[Address]) -> list[Address]:
    """The addresses with their families taking turns, so that a dead family costs one delay.

    The family of the first address goes first, once (First Address Family Count 1, RFC 8305 section 4);
    within a family the order stays.
    """
    families: dict[int, list[Address]] = {}
    for address in addresses:
        families.setdefault(address.family, []).append(address)
    turns = chain.from_iterable(zip_longest(*families.values()))
    return [address for address in turns if address is not None]


class Race:
    """One round: every address once, each with a head start over the next.

    Attributes:
        losses: how the attempts failed so far, in that order.

    Args:
        addresses: in the order to prefer; see :func:`interleave`.
        delay_s: the head start, from 0.01 to 2 seconds.
    """

    def __init__(self, addresses: Iterable[Address], delay_s: float = ATTEMPT_DELAY_S) -> None:
        if not LEAST_DELAY_S <= delay_s <= MOST_DELAY_S:
            raise UsageError(
                f"attempt_delay_s must be from {LEAST_DELAY_S:g} to {MOST_DELAY_S:g}, not {delay_s:g}"
            )
        self.losses: list[OSError] = []
        self._waiting = deque(addresses)
        self._delay_s = delay_s
        self._due_s = float("-inf")
        self._running = 0

    @property
    def over(self) -> bool:
        """Every address was tried and every attempt failed."""
        return not self._waiting and not self._running

    def add(self, addresses: Iterable[Address]) -> None:
        """More addresses, behind those that wait."""
        self._waiting.extend(addresses)

    def take(self, now_s: float) -> Address | None:
        """The address to dial now; None if none is due. The caller reports its end with :meth:`lost`."""
        if not self._waiting or now_s < self._due_s:
            return None
        self._due_s = now_s + self._delay_s
        self._running += 1
        return self._waiting.popleft()

    def lost(self, error: OSError) -> None:
        """An attempt failed, so that the next address is due at once."""
        self.losses.append(error)
        self._running -= 1
        self._due_s = float("-inf")

    def wait_s(self, now_s: float) -> float | None:
        """How long until the next address is due; None if none is left."""
        return max(0.0, self._due_s - now_s) if self._waiting else None
