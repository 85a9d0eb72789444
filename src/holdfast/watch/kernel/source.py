"""The BPF step: events with every detail, exact totals, and what was lost."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dataclasses
import time
from collections import Counter
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from holdfast.events import Event, Kind, Process
from holdfast.linux.cgroups import Cgroups, container_of, find_mount
from holdfast.linux.symbols import KernelSymbols, UserSymbols
from holdfast.watch.kernel import wire
from holdfast.watch.kernel.load import Monitor, tick_ns
from holdfast.watch.kernel.places import Places
from holdfast.watch.kernel.programs import HookReport

KEEP = 3_000
"""So many events are kept with detail at once, whatever they are. A connection that is reset with both ends
here makes four. A record costs 60 us of processor time, or twice that on a busy machine, while the ring takes
a quarter of a second of a heavy flood: what is kept at once must not cost us the next events."""

KEEP_PER_S = 2_000
"""As many more are every second, up to :data:`KEEP` again; none while a flood lasts."""

EVERYTHING = 1 << 40
"""For ``keep``: nothing is folded, however long it takes."""

ALIKE = 64
"""Beyond that, of events alike in one drain this many are kept; the others are counted."""

ALIKE_IN_FLOOD = 8
"""As many, and no more, after a drain that folded :data:`FLOOD` or more."""

FLOOD = 250

FOLDS = 1_024
"""Groups of folded events kept for :meth:`KernelSource.folds`; beyond, ports and processes are left out."""

_PREFIX = "SK_RST_REASON_"
_RESETS = (wire.KIND_NUMBERS[Kind.RESET_SENT], wire.KIND_NUMBERS[Kind.RESET_RECEIVED])
_Fold = tuple[bytes, int, int, int]


class KernelSource:
    """Events from BPF. One thread; :meth:`drain` often enough that the ring never fills."""

    name = "bpf"

    def __init__(self, segments: bool = True, ring_bytes: int | None = None, keep: int = KEEP) -> None:
        """See :class:`Monitor` for what is loaded and what is raised.

        Args:
            keep: events kept with detail at once, see :data:`KEEP`.
        """
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
        self._keep = keep
        self._left, self._counted_s = float(keep), time.monotonic()
        self._flooded = False
        self._folds: Counter[_Fold] = Counter()
        self.folded = 0
        """Resets sent or received that were counted and not told one by one."""

    @property
    def hooks(self) -> Sequence[HookReport]:
        """Every program, attached or not."""
        return self._monitor.hooks

    def drain(self) -> list[Event]:
        """What happened since the last call; in a flood only some of those alike, see :meth:`folds`."""
        now_s = time.monotonic()
        if not self._flooded:
            self._left = min(self._keep, self._left + (now_s - self._counted_s) * KEEP_PER_S)
        self._counted_s = now_s
        plenty, alike = (0, ALIKE_IN_FLOOD) if self._flooded else (int(self._left), ALIKE)
        records, folded = self._monitor.object.drain("ring", plenty, alike)
        self._left = max(0.0, self._left - len(records) // wire.EVENT.size)
        self._flooded = sum(folded.values()) >= FLOOD
        for fold, count in folded.items():
            self._fold(fold, count)
        return self._places.complete(wire.decode(records, self._names))

    def _fold(self, fold: _Fold, count: int) -> None:
        if fold not in self._folds and len(self._folds) >= FOLDS:
            fold = (fold[0], 0, 0, 0)
        self._folds[fold] += count
        if wire.TallyKey(*wire.TALLY_KEY.unpack(fold[0])).kind in _RESETS:
            self.folded += count

    def folds(self) -> list[tuple[Event, int]]:
        """What was folded since the last call, by what the events have in common, and how many they were.

        Of its ends only one port is known, the other is 0; ``opener`` is the process, without its name.
        """
        found = []
        for (raw, local_port, peer_port, pid), count in self._folds.items():
            event = wire.event_of_key(wire.TallyKey(*wire.TALLY_KEY.unpack(raw)), self._names)
            event = dataclasses.replace(
                event,
                local=event.local._replace(port=local_port),
                peer=event.peer._replace(port=peer_port),
                opener=Process(pid, "") if pid else None,
            )
            found.append((event, count))
        self._folds.clear()
        return found

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
