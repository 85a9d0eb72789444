"""``holdfast watch``: the resets of this host as they happen."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import io
import json
import select
import signal
import sys
import time
from collections import Counter, OrderedDict
from contextlib import nullcontext, suppress
from types import FrameType
from typing import Any

import click
from rich.live import Live
from rich.text import Text

from holdfast.causes import Direction, Severity
from holdfast.cli import checked, render
from holdfast.events import Reset
from holdfast.watch.diagnose.totals import by_cause, folded_json
from holdfast.watch.kernel.source import KernelSource
from holdfast.watch.select import Selection, redacted
from holdfast.watch.selfcheck import SelfCheck
from holdfast.watch.session import Session
from holdfast.watch.sockdiag import COUNTERS, SockDiagSource
from holdfast.watch.steps import STEPS, Opened, open_source

CHECK_S = 5.0
"""How often our counts are held against the kernel's."""

RATE_S = 1.0
"""How often the kernel's counters are shown where nothing better is, and what was folded."""

STORIES = 1024
"""How many stories are remembered, so that a reset between two local sockets gets one line and not two."""

_FILTERS = {"--pid": "pids", "--cgroup": "cgroups", "--netns": "netns", "--cause": "causes"}

EPILOG = """\b
Exit codes:
  0  ended by Ctrl-C, SIGTERM, --duration, --count, or a reader that left
  2  wrong usage
  3  not available on this kernel, or not without more rights

\b
Examples:
  holdfast watch                         one line for each reset
  holdfast watch -v --port 443           the whole story of resets on port 443
  holdfast watch --cause accept_queue_overflow --json
  holdfast watch --cgroup /system.slice/nginx.service --min-severity error
"""


@click.command(epilog=EPILOG)
@click.option("-v", "--verbose", is_flag=True, help="Tell the whole story of each reset.")
@click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object a line (docs/reference/json.md)."
)
@click.option(
    "--pid",
    "pids",
    type=checked.Whole(1),
    metavar="PID",
    multiple=True,
    callback=checked.pids,
    help="Only this owner.",
)
@click.option(
    "--port",
    "ports",
    type=checked.Whole(1, 65535),
    metavar="PORT",
    multiple=True,
    help="Only this port, either end.",
)
@click.option(
    "--cgroup",
    "cgroups",
    multiple=True,
    callback=checked.cgroups,
    help="Only this control group and those below it.",
)
@click.option(
    "--netns", multiple=True, callback=checked.namespaces, help="Only this namespace: inode, path or name."
)
@click.option(
    "--direction", type=click.Choice([d.value for d in Direction]), help="Only resets going this way."
)
@click.option("--cause", "causes", multiple=True, callback=checked.causes, help="Only this cause.")
@click.option(
    "--min-severity",
    type=click.Choice([s.value for s in Severity]),
    default="info",
    show_default=True,
    help="Only from this severity on.",
)
@click.option("--all", "noise", is_flag=True, help="Show usual traffic too (port scans, health checks, ...).")
@click.option("--no-payload", is_flag=True, help="Throw away, unread, the text that a RST may carry.")
@click.option("--no-segments", is_flag=True, help="Do not look at packets at all: less cost, less evidence.")
@click.option("--redact", is_flag=True, help="Leave out names, and cut addresses to their network.")
@click.option(
    "--step", type=click.Choice([step.name for step in STEPS]), help="Use this step, not the best one."
)
@click.option(
    "--duration",
    type=checked.Number(0, min_open=True),
    metavar="SECONDS",
    callback=checked.seconds,
    help="Stop after so many seconds.",
)
@click.option("--count", type=checked.Whole(1), metavar="NUMBER", help="Stop after so many resets.")
def command(**asked: Any) -> None:
    """Show every reset of this host: who sent it, why, what was lost and what to do."""
    selection = Selection(
        pids=asked["pids"],
        ports=asked["ports"],
        cgroups=asked["cgroups"],
        netns=asked["netns"],
        direction=Direction(asked["direction"]) if asked["direction"] else None,
        causes=asked["causes"],
        min_severity=Severity(asked["min_severity"]),
        noise=asked["noise"],
    )
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _leave)  # until there is something to finish, see _View.run
    opened = open_source(not asked["no_segments"], asked["step"])
    try:
        for option in opened.step.blind:
            if asked[_FILTERS[option]]:
                words = f"Nothing passes {option} in step {opened.step.name}: its records do not tell."
                render.talk().print(words, style="yellow")
        view = _View(opened, selection, asked["as_json"], asked["verbose"], asked["redact"])
        session = Session(opened.source, payload=not asked["no_payload"], names=not asked["redact"])
        view.run(session, asked["duration"], asked["count"])
    finally:
        opened.source.close()


def _leave(number: int, frame: FrameType | None) -> None:
    raise click.exceptions.Exit(0)


class _View:
    """Prints records on standard output and everything else on standard error."""

    def __init__(
        self, opened: Opened, selection: Selection, as_json: bool, verbose: bool, redact: bool
    ) -> None:
        self._opened = opened
        self._selection = selection
        self._as_json, self._verbose, self._redact = as_json, verbose, redact
        self._out, self._talk = render.Page(), render.talk()
        self._width = max(self._out.width, render.WIDTH) if self._out.is_terminal else render.WIDTH
        self._shown: Counter[str] = Counter()
        self._folded: Counter[str] = Counter()
        self._stories: OrderedDict[str, None] = OrderedDict()
        self._check = SelfCheck()
        self._missed = 0
        self._stop = False

    def run(self, session: Session, duration_s: float | None, count: int | None) -> None:
        """Watch until told to stop."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._ask_to_stop)
        deadline_s = time.monotonic() + duration_s if duration_s is not None else None
        checked_s, rated_s = 0.0, time.monotonic()
        reader = _reader()
        self._open()
        live = self._out.is_terminal and not self._as_json
        with Live(console=self._out, transient=True, auto_refresh=False) if live else nullcontext() as status:
            while not self._stop and not self._full(count):
                self._show(session.poll(), count)
                now_s = time.monotonic()
                if now_s - checked_s >= CHECK_S:
                    checked_s = now_s
                    self._compare()
                if now_s - rated_s >= RATE_S:
                    rated_s = now_s
                    self._show_rates()
                    self._show_folds()
                if status is not None:
                    status.update(Text(self._status(), style="dim"), refresh=True)
                if deadline_s is not None and now_s >= deadline_s:
                    break
                if reader.poll(session.pause_s() * 1000):
                    raise BrokenPipeError
            self._show(session.finish(), count)
            self._show_rates()
            self._show_folds()
        self._compare()
        self._close(session.hurried)

    def _ask_to_stop(self, number: int, frame: FrameType | None) -> None:
        self._stop = True

    def _full(self, count: int | None) -> bool:
        return count is not None and self._shown.total() >= count

    def _open(self) -> None:
        step = self._opened.step
        self._talk.print(f"Watching by {step.name}: {step.sees}. Ctrl-C ends.", style="dim")
        for refused in self._opened.refused:
            self._talk.print(f"Not better because: {refused}", style="yellow")
        for hook in self._opened.source.hooks if isinstance(self._opened.source, KernelSource) else ():
            if not hook.attached:
                self._talk.print(f"Not seen: {hook.tells} ({hook.reason}).", style="yellow")
        if not self._as_json and not self._verbose:
            self._out.print(render.header(self._width))
            self._out.file.flush()

    def _show(self, resets: list[Reset], count: int | None) -> None:
        for reset in resets:
            if not self._selection.wants(reset):
                continue
            if not self._as_json and self._told(reset):
                continue  # the other end of a reset that has its line already, or is folded
            if self._selection.folds(reset):
                self._folded[reset.cause] += 1
            elif not self._full(count):
                self._shown[reset.cause] += 1
                self._print(redacted(reset) if self._redact else reset)

    def _told(self, reset: Reset) -> bool:
        if reset.story is None:
            return False
        told = reset.story in self._stories
        self._stories[reset.story] = None
        if len(self._stories) > STORIES:
            self._stories.popitem(last=False)
        return told

    def _print(self, reset: Reset) -> None:
        if self._as_json:
            click.echo(json.dumps(reset.as_json()))
            return
        if self._verbose:
            width = self._out.width if self._out.is_terminal else render.WIDTH
            self._out.print(render.story(reset, width), end="\n\n")
        else:
            self._out.print(render.line(reset, self._width))

    def _show_rates(self) -> None:
        """Where no cause can be told, the kernel's counters that moved."""
        if not isinstance(self._opened.source, SockDiagSource):
            return
        rates = self._opened.source.rates()
        if self._as_json and rates.counts:
            click.echo(
                json.dumps({"schema": 1, "interval_s": rates.interval_s, "counts": dict(rates.counts)})
            )
        elif not self._as_json:
            for name, count in rates.counts.items():
                self._out.print(Text(f"{f'+{count:,}':>8}  {COUNTERS[name]} ({name})"))

    def _show_folds(self) -> None:
        """In JSON, what has no record of its own; for people the number in the last line must do."""
        source = self._opened.source
        if not isinstance(source, KernelSource):
            return
        folds = [folded_json(*fold) for fold in source.folds() if self._selection.may_want(fold[0])]
        if self._as_json and folds:
            click.echo(json.dumps({"schema": 1, "folded": folds}))

    def _compare(self) -> None:
        source = self._opened.source
        if isinstance(source, KernelSource):
            self._missed = sum(max(0, check.missed) for check in self._check.compare(source.totals))

    def _status(self) -> str:
        folded = f", {self._folded.total()} folded" if self._folded else ""
        more = f", {self._more():,} more like them" if self._more() else ""
        shown = self._shown.total()
        return f"{shown:,} reset{'' if shown == 1 else 's'}{folded}{more}; events lost {self._lost():,}"

    def _more(self) -> int:
        source = self._opened.source
        return source.folded if isinstance(source, KernelSource) else 0

    def _lost(self) -> int:
        source = self._opened.source
        uncounted = source.uncounted() + source.skipped() if isinstance(source, KernelSource) else 0
        return source.lost() + uncounted + self._missed

    def _totals(self) -> None:
        """What was folded or lost in a flood is in the exact counts; show them where detail is missing."""
        source = self._opened.source
        if not isinstance(source, KernelSource) or not (source.folded or source.lost()):
            return
        for (direction, cause), count in by_cause(source.totals()).most_common():
            self._talk.print(
                f"Exact total: {count:,} {direction}{f', {cause}' if cause else ''}.", style="dim"
            )

    def _close(self, hurried: int) -> None:
        self._talk.print(f"{self._status()}.", style="dim")
        for cause, count in self._folded.most_common():
            self._talk.print(f"Folded as usual traffic: {count:,} x {cause} (--all shows them).", style="dim")
        self._totals()
        if self._missed:
            sentence = f"The kernel counts {self._missed:,} sent RSTs that we did not see (OutRsts)."
            self._talk.print(sentence, style="yellow")
        if hurried:
            sentence = (
                f"Judged early, in a flood: {hurried:,} times; the two ends of a reset may not be joined."
            )
            self._talk.print(sentence, style="yellow")
        unowned = self._opened.source.unowned() if isinstance(self._opened.source, KernelSource) else 0
        if unowned:
            sentence = f"The kernel had no memory to remember who owned {unowned:,} connections."
            self._talk.print(sentence, style="yellow")


def _reader() -> select.poll:
    """Wakes up when the reader of standard output has left: while nothing is written nothing else tells."""
    poll = select.poll()
    with suppress(io.UnsupportedOperation):
        if sys.stdout is not None:
            # No flags: that the other end is gone is always reported.
            poll.register(sys.stdout.fileno(), 0)
    return poll
