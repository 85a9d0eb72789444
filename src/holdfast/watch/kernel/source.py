"""The BPF step: events with every detail, exact totals, and what was lost."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from holdfast.events import Event, Process
from holdfast.linux.cgroups import Cgroups, container_of, find_mount
from holdfast.linux.symbols import KernelSymbols, UserSymbols
from holdfast.watch.kernel import wire
from holdfast.watch.kernel.load import Monitor, tick_ns
from holdfast.watch.kernel.places import Places
from holdfast.watch.kernel.programs import HookReport

KEEP_PER_DRAIN = 64
"""Of events alike in one drain, this many are kept with detail; the others are counted."""

KEEP_IN_FLOOD = 8
"""As many after a drain that folded :data:`FLOOD` or more: detail must not cost us the next events."""

FLOOD = 500

_PREFIX = "SK_RST_REASON_"


class KernelSource:
    """Events from BPF. One thread; :meth:`drain` often enough that the ring never fills."""

    name = "bpf"

    def __init__(self, segments: bool = True, ring_bytes: int | None = None) -> None:
        """See :class:`Monitor` for what is loaded and what is raised."""
        self._monitor = Monitor(segments, ring_bytes)
        self._cgroups = Cgroups(find_mount())
        reasons = self._monitor.btf.enum("sk_rst_reason")
        self._names = wire.Names(
            reasons={number: name.removeprefix(_PREFIX) for name, number in reasons.items()},
            tick_ns=tick_ns(),
            process=self._enrich,
            kernel_symbol=KernelSymbols().name,
            user_symbol=UserSymbols().name,
        )
        self._places = Places(self._enrich)
        self._flooded = False
        self.folded = 0

    @property
    def hooks(self) -> Sequence[HookReport]:
        """Every program, attached or not."""
        return self._monitor.hooks

    def drain(self) -> list[Event]:
        """What happened since the last call; alike events beyond :data:`KEEP_PER_DRAIN` add to ``folded``."""
        keep = KEEP_IN_FLOOD if self._flooded else KEEP_PER_DRAIN
        records, folded = self._monitor.object.drain("ring", wire.EVENT.size, wire.TALLY_KEY.size, keep)
        more = sum(folded.values())
        self._flooded = more >= FLOOD
        self.folded += more
        return self._places.complete(wire.decode(records, self._names))

    def totals(self) -> list[tuple[Event, int]]:
        """Exact counts since the start: an event with the deciding facts, and how often it happened."""
        sums = self._monitor.object.sums("tallies")
        keys = ((wire.TallyKey(*wire.TALLY_KEY.unpack(raw)), count) for raw, count in sums.items())
        return [(wire.event_of_key(key, self._names), count) for key, count in keys]

    def lost(self) -> int:
        """Events without detail because the ring was full; their counts are in :meth:`totals`."""
        return self._loss(wire.Loss.RING)

    def skipped(self) -> int:
        """Runs that the kernel left out because a program had interrupted itself: unseen and uncounted."""
        return int(self._monitor.object.skipped())

    def uncounted(self) -> int:
        """Events that could not even be counted by cause (more kinds than the table holds)."""
        return self._loss(wire.Loss.TALLY)

    def unowned(self) -> int:
        """Connections whose owner could not be remembered for want of memory."""
        return self._loss(wire.Loss.CONNECTION)

    def statistics(self) -> dict[str, tuple[int, int]]:
        """Of each program runs and nanoseconds, as of when ``holdfast._bpf.enable_statistics`` is held."""
        found: dict[str, tuple[int, int]] = self._monitor.object.statistics()
        return found

    def close(self) -> None:
        """Detach and free everything in the kernel."""
        self._monitor.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _loss(self, what: wire.Loss) -> int:
        sums: dict[bytes, int] = self._monitor.object.sums("losses")
        return sums.get(what.to_bytes(4, "little"), 0)

    def _enrich(self, process: Process) -> Process:
        if process.cgroup_id is None:
            return process
        path = self._cgroups.path(process.cgroup_id, time.monotonic())
        if path is None:
            return process
        container = container_of(path)
        return dataclasses.replace(process, cgroup=path, container=container.id if container else None)
