"""Run scenarios, each in a fresh network, and tell what each made and what the kernel counted."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from holdfast.lab.label import Label
from holdfast.lab.network import Network
from holdfast.lab.scenario import Scenario, find

Counters = dict[str, dict[str, int]]


@dataclass(frozen=True, slots=True)
class Made:
    """One scenario that ran.

    Attributes:
        scenario: what was run.
        family: 4 or 6.
        label: what it made.
        started_mono_ns, ended_mono_ns: CLOCK_MONOTONIC around the making, network set up before and torn
            down after.
        netns: inode number of each host's namespace, by host name.
        before, after: TCP counters by host name, such as ``after["server"]["TcpOutRsts"]``.
    """

    scenario: Scenario
    family: int
    label: Label
    started_mono_ns: int
    ended_mono_ns: int
    netns: dict[str, int]
    before: Counters
    after: Counters

    def delta(self, host: str, counter: str) -> int:
        """By how much a counter of a host rose; 0 for one that this kernel does not have."""
        return self.after[host].get(counter, 0) - self.before[host].get(counter, 0)


OnMade = Callable[[Made], None]


def make(chosen: Scenario, family: int, count: int, on_made: OnMade | None = None) -> Made:
    """Make one scenario once; ``on_made`` is called while the network is still up.

    Raises:
        KernelUnavailable: this machine lacks what it needs.
        ScenarioFailed: it did not happen as it should.
    """
    chosen.check()
    with Network(family) as network:
        before = {host.netns: host.counters() for host in network.hosts}
        started = time.monotonic_ns()
        label = chosen.make(network, count)
        ended = time.monotonic_ns()
        hosts = network.hosts
        made = Made(
            chosen, family, label, started, ended,
            netns={host.name: host.netns for host in hosts},
            # A server that the scenario replaced by a fresh one counted nothing before.
            before={host.name: before.get(host.netns, {}) for host in hosts},
            after={host.name: host.counters() for host in hosts},
        )  # fmt: skip
        if on_made:
            on_made(made)
    return made


def run(
    names: Iterable[str], family: int = 4, count: int = 1, on_made: OnMade | None = None, *, parallel: int = 1
) -> Iterator[Made]:
    """Make the named scenarios, in order, up to ``parallel`` at the same time in networks of their own.

    With ``parallel`` above 1 ``on_made`` is called in the thread that made the scenario.

    Raises:
        UsageError: no scenario has that name (before anything is made).
        KernelUnavailable, ScenarioFailed: as :func:`make`, at the turn of the scenario that failed.
    """
    chosen = [find(name) for name in names]
    if parallel < 2:
        for one in chosen:
            yield make(one, family, count, on_made)
        return
    with ThreadPoolExecutor(parallel, thread_name_prefix="lab") as pool:
        waiting: deque[Future[Made]] = deque()
        try:
            for one in chosen:
                waiting.append(pool.submit(make, one, family, count, on_made))
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
