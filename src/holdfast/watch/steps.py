"""The steps from full sight to counters only: opens the best one this process may have, and says why."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from holdfast.errors import KernelUnavailable
from holdfast.watch.kernel.source import KernelSource
from holdfast.watch.session import Source
from holdfast.watch.sockdiag import SockDiagSource
from holdfast.watch.tracepoint.source import TracepointSource


@dataclass(frozen=True, slots=True)
class Step:
    """One way to watch, from the best to the least.

    Attributes:
        name: what ``--step`` calls it.
        sees: what it tells, in words for the header.
        open: makes the source; raises KernelUnavailable.
        blind: options whose facts its records never have: with them nothing can be shown.
    """

    name: str
    sees: str
    open: Callable[[bool], Source]
    blind: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Opened:
    """The source in use, its step, and why the better ones are not available."""

    source: Source
    step: Step
    refused: tuple[KernelUnavailable, ...]


def _tracepoints(segments: bool) -> Source:
    source = TracepointSource()
    source.start()
    return source


def _sock_diag(segments: bool) -> Source:
    source = SockDiagSource()
    source.start()
    return source


STEPS = (
    Step("bpf", "every reset, its cause, owner, call path and harm", KernelSource),
    Step(
        "tracepoints",
        "resets that TCP sends or obeys, and causes; no segments, few owners",
        _tracepoints,
        blind=("--netns",),
    ),
    Step(
        "sock_diag",
        "connections as they end; no causes and no owners",
        _sock_diag,
        blind=("--pid", "--cgroup", "--cause"),
    ),
)


def open_source(segments: bool = True, only: str | None = None, steps: Sequence[Step] = STEPS) -> Opened:
    """Open the best of the steps, or ``only`` the one of that name.

    Raises:
        KernelUnavailable: the step asked for, or every step, is out of reach.
    """
    refused: list[KernelUnavailable] = []
    for step in steps:
        if only is not None and step.name != only:
            continue
        try:
            return Opened(step.open(segments), step, tuple(refused))
        except KernelUnavailable as error:
            refused.append(error)
    raise refused[0]
