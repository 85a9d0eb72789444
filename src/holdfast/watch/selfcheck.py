"""Holds what we saw against the kernel's own counters: ``OutRsts`` of each network namespace."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from holdfast.errors import KernelUnavailable
from holdfast.events import Event, Kind
from holdfast.linux.counters import read
from holdfast.linux.namespaces import PROC, network_namespaces

OUT_RSTS = "OutRsts"


@dataclass(frozen=True, slots=True)
class Check:
    """One namespace: RSTs its TCP sent since the start by the kernel's count, and by ours."""

    netns: int
    counted: int
    seen: int

    @property
    def missed(self) -> int:
        """Events we did not see; below zero where the counter was read before the latest of them."""
        return self.counted - self.seen


class SelfCheck:
    """Compares counts since it was made. A namespace without a process cannot be read and is left out."""

    def __init__(self, proc: Path = PROC) -> None:
        """``proc``: another place to look, for tests."""
        self._proc = proc
        self._last = self._read()
        self._counted: Counter[int] = Counter()

    def compare(self, totals: Callable[[], Iterable[tuple[Event, int]]]) -> list[Check]:
        """Every namespace in which RSTs were sent since the start, by its last reading.

        A namespace that is met later is checked from then on: it may be older than we are, and without a
        process till now. One that is gone keeps its last reading, so ask often.

        Args:
            totals: gives our counts; asked after the kernel's, or what is sent between would look missed.
        """
        readings = self._read()
        seen: Counter[int] = Counter()
        for event, count in totals():
            if event.kind is Kind.RESET_SENT and event.netns is not None:
                seen[event.netns] += count
        for netns, now in readings.items():
            if netns not in self._last:
                self._counted[netns] = seen[netns]
            last = self._last.get(netns, now)
            # A counter that went back belongs to a new namespace: the kernel gives its number again.
            self._counted[netns] += now - last if now >= last else now
            self._last[netns] = now
        return [
            Check(netns, counted, seen[netns])
            for netns, counted in sorted(self._counted.items())
            if counted or seen[netns]
        ]

    def _read(self) -> dict[int, int]:
        found = {}
        for netns, pid in network_namespaces(self._proc).items():
            try:
                counted = read(pid, self._proc).get(OUT_RSTS)
            except KernelUnavailable:
                continue  # ended since it was found
            if counted is not None:
                found[netns] = counted
        return found
