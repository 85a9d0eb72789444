"""The source without BPF: tracepoints through perf, for root on kernels that refuse BPF."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import Self

from holdfast.errors import KernelUnavailable
from holdfast.events import Event, Process
from holdfast.linux.btf import Btf
from holdfast.linux.cgroups import find_mount
from holdfast.linux.processes import describe
from holdfast.linux.symbols import KernelSymbols, UserSymbols
from holdfast.watch.tracepoint.rings import Rings, Wanted
from holdfast.watch.tracepoint.tracefs import read_formats
from holdfast.watch.tracepoint.translate import FILTERS, RECEIVED, SENT, WITH_CALLCHAIN, Names, Translator

_PREFIX = "SK_RST_REASON_"


class TracepointSource:
    """Events of every network namespace, without segments, bytes or owners of accepted sockets.

    One thread; :meth:`drain` it often enough that the rings never fill.

    Args:
        ring_bytes: for each CPU.
    """

    name = "tracepoints"

    def __init__(self, ring_bytes: int = 1 << 20) -> None:
        self._ring_bytes = ring_bytes
        self._rings: Rings | None = None
        self._translator: Translator | None = None
        self._cgroup_root = find_mount()
        # One look at /proc for each process and drain: who dials a lot is asked for a lot.
        self._processes: dict[int, Process | None] = {}

    def start(self) -> None:
        """Open the tracepoints.

        Raises:
            KernelUnavailable: missing rights, or a kernel without these tracepoints.
        """
        formats = read_formats(FILTERS)
        if not {SENT, RECEIVED} <= formats.keys():
            raise KernelUnavailable("Watching through tracepoints", "Linux 4.15 or later with tracing")
        kernel, user = KernelSymbols(), UserSymbols()
        reasons = {} if formats[SENT].symbols.get("reason") else _reasons()
        names = Names(reasons, kernel.name, user.name, self._describe, kernel.has("tcp_validate_incoming"))
        wanted = [Wanted(one.id, FILTERS[name], name in WITH_CALLCHAIN) for name, one in formats.items()]
        self._translator = Translator(formats.values(), names)
        self._rings = Rings(wanted, self._ring_bytes)

    def drain(self) -> list[Event]:
        """What happened since the last call, in the order of time; never waits."""
        if self._rings is None or self._translator is None:
            return []
        self._processes.clear()
        return self._translator.events(self._rings.drain())

    def lost(self) -> int:
        """Samples for which the rings had no room, as far as the kernel has told."""
        return 0 if self._rings is None else self._rings.lost

    def filenos(self) -> list[int]:
        """For ``poll``: one becomes readable when a quarter of its ring is full."""
        return [] if self._rings is None else self._rings.filenos()

    def close(self) -> None:
        """Stop and free the rings."""
        if self._rings is not None:
            self._rings.close()
            self._rings = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _describe(self, pid: int) -> Process | None:
        if pid not in self._processes:
            self._processes[pid] = describe(pid, self._cgroup_root)
        return self._processes[pid]


def _reasons() -> dict[int, str]:
    try:
        values = Btf.of_kernel().enum("sk_rst_reason")
    except KernelUnavailable:
        return {}
    return {number: name.removeprefix(_PREFIX) for name, number in values.items()}
