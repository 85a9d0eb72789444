"""``holdfast inspect``: what the kernel does to existing connections now."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import heapq
import itertools
import json
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from types import FrameType

import click
from rich.live import Live
from rich.text import Text

from holdfast.causes import Severity
from holdfast.cli import checked, connections, render, target
from holdfast.errors import HoldfastError, UsageError
from holdfast.linux.inspection import SCHEMA, Inspection
from holdfast.linux.looks import LIVING, Looks, Scope, owned
from holdfast.linux.namespaces import PROC
from holdfast.linux.quantities import counted, time_s
from holdfast.watch.diagnose.record import wall_time

LINES = 200
"""So many sockets are shown, unless a terminal that refreshes has room for fewer."""

BATCH = 8192
"""So many sockets are in memory at a time while their owners are looked up."""

_RANK = {severity: rank for rank, severity in enumerate(Severity, 1)}

EPILOG = """\b
Exit codes:
  0  done
  1  no such connection
  2  wrong usage
  3  not available on this kernel, or not without more rights

\b
Examples:
  holdfast inspect :443                     port 443 at either end
  holdfast inspect -v '[2001:db8::7]:5432'  in sentences
  holdfast inspect --pid 812 --interval 1   refreshed every second
  holdfast inspect --all --json             every socket, an object each
"""


@click.command(epilog=EPILOG)
@click.argument("where", metavar="[HOST:PORT]", required=False)
@click.option(
    "--pid", type=click.IntRange(1), callback=checked.pid, help="Only sockets that this process holds."
)
@click.option("--all", "everything", is_flag=True, help="Every socket of this network namespace.")
@click.option("-v", "--verbose", is_flag=True, help="Tell everything about each, in sentences.")
@click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object a line (docs/reference/inspect.md)."
)
@click.option(
    "--interval",
    "interval_s",
    type=click.FloatRange(0.05, 86400),
    callback=checked.seconds,
    help="Look again every so many seconds.",
)
@click.option("--count", type=click.IntRange(1), help="With --interval: stop after so many looks.")
@click.option("--limit", type=click.IntRange(1, 100_000), help=f"Show so many, the worst ({LINES}).")
def command(
    where: str | None,
    pid: int | None,
    everything: bool,
    verbose: bool,
    as_json: bool,
    interval_s: float | None,
    count: int | None,
    limit: int | None,
) -> None:
    """Show what the kernel does to connections now: HOST:PORT at either end, a process's, or all.

    HOST may be a name, an IPv4 address or [an IPv6 address]; :PORT is any host, HOST:* any port.
    """
    if everything == (where is not None or pid is not None):
        raise UsageError("say which connections: HOST:PORT, --pid PID (or both), or --all.")
    if count is not None and interval_s is None:
        raise UsageError("--count needs --interval.")
    looks = Looks(_scope(where, pid))
    view: _View = _Records(looks) if as_json else _Table(looks, verbose, limit, interval_s is not None)
    if interval_s is not None:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, _leave)
    with view.shown():
        if not view.look(even_nothing=everything) and not everything:
            raise _nothing(where, pid)
        for _ in itertools.count(2) if count is None else range(2, count + 1):
            if interval_s is None:
                break
            time.sleep(interval_s)
            if pid is not None and not (PROC / str(pid)).exists():
                render.talk().print(f"Process {pid} has ended.", style="dim")
                break
            view.look(even_nothing=True)


def _scope(where: str | None, pid: int | None) -> Scope:
    if where is None:
        return Scope(pid=pid)
    ends = target.parse(where)
    ports = () if ends.port is None else (ends.port,)
    return Scope(ends.matches, ports, pid, LIVING if ends.port is None else ())


def _nothing(where: str | None, pid: int | None) -> HoldfastError:
    holder = f"process {pid} holds" if pid is not None else "this network namespace has"
    return HoldfastError(f"{holder} no TCP socket{f' at {render.printable(where)}' if where else ''}.")


def _leave(number: int, frame: FrameType | None) -> None:
    raise click.exceptions.Exit(0)


class _View:
    """Looks, and prints what it saw."""

    def __init__(self, looks: Looks) -> None:
        self._looks = looks
        self._time = ""

    def shown(self) -> AbstractContextManager[object]:
        """The frame around all looks."""
        return nullcontext()

    def look(self, even_nothing: bool) -> int:
        """Print one look, or not if it saw nothing and that is for others to say; how many sockets it saw."""
        raise NotImplementedError

    def _sockets(self) -> Iterator[Inspection]:
        self._time = wall_time(time.time_ns())
        return self._looks.sockets(time.monotonic(), self._time)


class _Records(_View):
    """JSON: each socket as it comes, then what the namespace refused."""

    def look(self, even_nothing: bool) -> int:
        stream, total = self._sockets(), 0
        while batch := list(itertools.islice(stream, BATCH)):
            for one in owned(batch):
                click.echo(json.dumps(one.as_json()))
            total += len(batch)
        if total or even_nothing:
            click.echo(json.dumps(self._refused()))
        return total

    def _refused(self) -> dict[str, object]:
        return {
            "schema": SCHEMA,
            "kind": "refused",
            "time": self._time,
            "netns": self._looks.netns,
            "interval_s": self._looks.interval_s,
            "counts": self._looks.refused(),
        }


class _Table(_View):
    """For people: the worst sockets, a line or a paragraph each, then what the namespace refused."""

    def __init__(self, looks: Looks, verbose: bool, limit: int | None, again: bool) -> None:
        super().__init__(looks)
        self._verbose, self._again = verbose, again
        self._out, self._talk = render.Page(), render.talk()
        self._live = Live(console=self._out, auto_refresh=False) if again and self._out.is_terminal else None
        wide = self._out.is_terminal and not verbose
        self._width = max(self._out.width, render.WIDTH) if wide else render.WIDTH
        room = LINES
        if self._live:
            # Below the table: a summary, the counters and their head, a line for the cursor.
            lines = self._out.height - connections.REFUSED_LINES - 5
            room = max(1, lines // connections.STORY_LINES if verbose else lines)
        self._limit = min(limit, room) if limit and self._live else limit or room
        self._complained = False

    def shown(self) -> AbstractContextManager[object]:
        return self._live or nullcontext()

    def look(self, even_nothing: bool) -> int:
        listeners = Counter[bool]()
        worst = owned(heapq.nlargest(self._limit, self._counted(listeners), key=_weight))
        if not worst and not even_nothing:
            return 0
        draw = connections.story if self._verbose else connections.line
        rows = [draw(one, self._width) for one in worst]
        if not self._verbose:
            rows.insert(0, connections.header(self._width))
        when = "so far" if self._looks.interval_s is None else f"in {time_s(self._looks.interval_s)}"
        rows.append(Text(_summary(listeners, len(worst)), style="dim"))
        rows.append(connections.refused(self._looks.refused(), when, self._verbose))
        self._show(Text("\n\n" if self._verbose else "\n").join(rows))
        self._complain(worst)
        return listeners.total()

    def _counted(self, listeners: Counter[bool]) -> Iterator[Inspection]:
        for one in self._sockets():
            listeners[one.listens] += 1
            yield one

    def _show(self, page: Text) -> None:
        if self._live:
            self._live.update(page, refresh=True)
            return
        self._out.print(page, end="\n\n" if self._again else "\n")
        self._out.file.flush()

    def _complain(self, worst: list[Inspection]) -> None:
        """Say once that an owner is hidden: a socket that a file holds and nobody seems to."""
        if self._complained or not any(one.sock.inode and not one.owners for one in worst):
            return
        self._complained = True
        words = "Some owners are hidden: processes of other users, which root sees, or of other containers."
        self._talk.print(words, style="yellow")


def _weight(one: Inspection) -> tuple[int, int]:
    """How far up a socket belongs: what is worst about it, then what waits in it."""
    worst = _RANK[one.findings[0].severity] if one.findings else 0
    return worst, 0 if one.listens else one.sock.receive_queue + one.sock.send_queue


def _summary(listeners: Counter[bool], shown: int) -> str:
    words = f"{counted(listeners[False], 'connection')}, {counted(listeners[True], 'listener')}"
    hidden = listeners.total() - shown
    return (
        f"{words}; {hidden:,} not shown, the least remarkable (--limit, --json)." if hidden else f"{words}."
    )
