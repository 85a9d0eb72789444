"""``holdfast explain``: why each connection in a capture was reset."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import importlib.resources
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from holdfast.cli import checked, explained, render
from holdfast.errors import UsageError
from holdfast.watch.capture.extract import extract
from holdfast.watch.capture.summary import Progress as Read
from holdfast.watch.diagnose.choose import chooser
from holdfast.watch.diagnose.explained import Explained
from holdfast.watch.diagnose.summary import Summary, is_quiet, summarize, worst_first
from holdfast.watch.explain import Explaining, Told
from holdfast.watch.report.page import page

DAMAGED = 4
"""Exit code when a file was cut or damaged: what came before it was told."""

SHOW_AFTER_S = 1.0
"""Reading that takes no longer than this shows no progress."""

EPILOG = """\b
Exit codes:
  0    done, whether or not anything was reset
  1    a file is no capture
  2    wrong usage
  3    --live is not available here, or not without more rights
  4    a file was cut or damaged: what came before was told, and where it broke
  130  interrupted: what was found by then was told

\b
Examples:
  holdfast explain capture.pcapng.zst
  holdfast explain client.pcap --vantage server.pcap   two places: proof of who sent it
  holdfast explain big.pcap --filter port=443 --filter cause=injected
  holdfast explain --live eth0                         as it happens, as root
  holdfast explain big.pcap --html report.html --extract resets.pcap
  tcpdump -w - tcp | holdfast explain - --json
"""


@click.command(epilog=EPILOG)
@click.argument("files", nargs=-1, metavar="FILE...")
@click.option("--live", "interface", metavar="INTERFACE", help="Listen to an interface; Ctrl-C ends.")
@click.option(
    "--vantage",
    "vantages",
    multiple=True,
    metavar="FILE",
    help="The same traffic, captured at another place.",
)
@click.option("--all", "everything", is_flag=True, help="List usual traffic and RSTs without effect too.")
@click.option(
    "--limit",
    type=checked.Whole(0),
    default=50,
    show_default=True,
    help="Tell so many in the text, the worst.",
)
@click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object a line (docs/reference/explain.md)."
)
@click.option("--csv", "as_csv", is_flag=True, help="Print a table for a spreadsheet.")
@click.option(
    "--filter", "terms", multiple=True, metavar="KEY=VALUE", help="address, port, cause, sender, from or to."
)
@click.option("--html", metavar="REPORT", help="Write a page with charts and diagrams.")
@click.option("--extract", "extracted", metavar="OUT", help="Write the packets of the listed connections.")
def command(
    files: tuple[str, ...],
    interface: str | None,
    vantages: tuple[str, ...],
    everything: bool,
    limit: int,
    as_json: bool,
    as_csv: bool,
    terms: tuple[str, ...],
    html: str | None,
    extracted: str | None,
) -> None:
    """Explain why each connection in a capture was reset: who did it, why, what was lost, what to do.

    Files are pcap or pcapng, compressed or not; several are read as one rotated capture; - is standard input.
    """
    if (interface is None) == (not files):
        raise UsageError("name captures, or an interface with --live.")
    if interface is not None and (vantages or extracted is not None or as_csv):
        raise UsageError("--live goes with none of --vantage, --extract and --csv.")
    if as_json and as_csv:
        raise UsageError("--json and --csv exclude each other.")
    if html == "-" and (as_json or as_csv or interface is not None):
        raise UsageError("--html - puts the page on standard output, where --json, --csv and --live write.")
    if [*files, *vantages].count("-") > 1:
        raise UsageError("standard input can be read once only.")
    for name in vantages:
        if _is_one_of(name, files):
            raise UsageError(f"{name} is explained and a vantage too: it cannot testify for itself.")
    wants = chooser(terms)
    if extracted is not None and "-" in files:
        raise UsageError("--extract reads the capture a second time, which standard input cannot be.")
    for option, target in (("--html", html), ("--extract", extracted)):
        if target is not None and (option, target) != ("--html", "-"):
            _check_target(option, target, [*files, *vantages])

    def lists(one: Explained) -> bool:
        return wants(one) and (everything or not is_quiet(one))

    if interface is not None:
        told, interrupted = _listen(interface, lambda one: _print_one(one, as_json) if lists(one) else None)
    else:
        told, interrupted = _explain(Explaining([list(files), *([one] for one in vantages)]))
    listed = worst_first(filter(lists, told.found))
    asked_for = [*filter(wants, told.found)]
    summed = summarize(files or [str(interface)], told.reads, asked_for, listed, told.silent)
    try:
        if interface is not None:
            _correct(worst_first(filter(lists, told.corrected)), limit, as_json)
            render.talk().print(explained.summary(summed))
        elif as_json or as_csv:
            _print_records(listed, as_json)
        elif html != "-":
            _print_text(listed[:limit], len(listed), summed)
        _warn(summed, told, as_text=not (as_json or as_csv or html == "-"))
    finally:  # also when the text was not wanted to its end: piped into head, or a pager that was left
        if html is not None:
            _write(html, page(listed, summed, _style()))
        if extracted is not None:
            count = extract(files, extracted, {(one.client, one.server) for one in listed})
            render.talk().print(f"Wrote {count:,} packets to {render.printable(extracted)}.", style="dim")
    if interrupted and interface is None:
        raise click.exceptions.Exit(130)
    if any(read.damage for read in told.reads):
        raise click.exceptions.Exit(DAMAGED)


def _check_target(option: str, name: str, read: Sequence[str]) -> None:
    """Before hours of reading: what is written is not what is read, and can be written."""
    target = Path(name)
    if _is_one_of(name, read):
        raise UsageError(f"{option} would overwrite {name}, which is being read.")
    if target.is_dir() or not os.access(target if target.exists() else target.parent, os.W_OK):
        raise UsageError(f"{name} cannot be written: choose another place for {option}.")


def _is_one_of(name: str, others: Sequence[str]) -> bool:
    """Whether one of them is the same file, under whatever name."""
    return Path(name).exists() and any(Path(one).exists() and Path(name).samefile(one) for one in others)


def _listen(interface: str, show: Callable[[Explained], None]) -> tuple[Told, bool]:
    """Judge what passes an interface, until Ctrl-C."""
    explaining = Explaining([], interface=interface, on_found=show)
    render.talk().print(f"Listening to {render.printable(interface)}. Ctrl-C ends.", style="dim")
    return _explain(explaining)


def _print_one(one: Explained, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(one.as_json()))
        return
    out = render.Page()
    out.print(explained.block(one, min(out.width, 120) if out.is_terminal else render.WIDTH), end="\n\n")
    out.file.flush()


def _correct(told_before: Sequence[Explained], limit: int, as_json: bool) -> None:
    """Tell again what other connections have shed light on since; the summary counts it like this."""
    if not told_before:
        return
    words = "Connections that came later shed light on some that were told above. Those, told again:"
    render.talk().print(words, style="dim")
    for one in told_before if as_json else told_before[:limit]:
        _print_one(one, as_json)


def _explain(explaining: Explaining) -> tuple[Told, bool]:
    """Read and judge; Ctrl-C ends the reading, and what was found by then is told."""
    bar = _Bar()
    explaining.on_progress = bar.show
    interrupted = False

    def leave(number: int, frame: FrameType | None) -> None:
        nonlocal interrupted
        if interrupted:
            raise KeyboardInterrupt  # a second time: at once
        interrupted = True
        explaining.stop()

    before = {number: signal.signal(number, leave) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        bar.found = lambda: explaining.resets
        return explaining.run(), interrupted
    finally:
        bar.close()
        for number, handler in before.items():
            signal.signal(number, handler)


class _Bar:
    """Progress on standard error, if that is a terminal and reading takes a while."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._started_s = time.monotonic()
        self._progress: Progress | None = None
        self._task: Any = None
        self.found: Callable[[], int] = lambda: 0

    def show(self, read: Read) -> None:
        """How far reading is."""
        elapsed_s = time.monotonic() - self._started_s
        if not self._console.is_terminal or elapsed_s < SHOW_AFTER_S:
            return
        if self._progress is None:
            self._progress = Progress(
                TextColumn("{task.fields[file]}"), BarColumn(24), TextColumn("{task.fields[rate]}"),
                TimeRemainingColumn(), console=self._console, transient=True,
            )  # fmt: skip
            self._task = self._progress.add_task("", total=read.total_bytes, file="", rate="")
        rate = f"{read.packets:,} packets, {read.packets / elapsed_s / 1e6:.1f} M/s, {self.found():,} reset"
        name = render.printable(Path(read.path).name)
        self._progress.update(self._task, completed=read.read_bytes, file=name[-24:], rate=rate)
        self._progress.start()

    def close(self) -> None:
        """Take it away."""
        if self._progress is not None:
            self._progress.stop()


def _print_records(listed: Sequence[Explained], as_json: bool) -> None:
    lines = (json.dumps(one.as_json()) for one in listed) if as_json else explained.table(listed)
    for line in lines:
        click.echo(line)


def _print_text(told: Sequence[Explained], count: int, summed: Summary) -> None:
    out = render.Page()
    width = min(out.width, 120) if out.is_terminal else render.WIDTH
    out.print(explained.summary(summed, width))
    for one in told:
        out.print()
        out.print(explained.block(one, width))
    if len(told) < count:
        words = f"{count - len(told):,} more: raise --limit, narrow with --filter, or use --html or --json."
        out.print(f"\n{words}", style="dim")


def _warn(summed: Summary, told: Told, as_text: bool) -> None:
    """What a program that reads the records must not miss; in the text it stands at the top."""
    talk = render.talk()
    if not as_text:
        for warning in summed.warnings:
            talk.print(render.printable(warning), style="yellow")
    if not told.compared:
        words = "Connections were not compared with each other: install numpy (holdfast[capture] has it)."
        talk.print(words, style="yellow")
    if told.untold:
        talk.print(f"{told.untold:,} reset connections more were only counted.", style="yellow")


def _style() -> str:
    return importlib.resources.files("holdfast.watch.report").joinpath("page.css").read_text(encoding="utf-8")


def _write(path: str, text: str) -> None:
    try:
        if path == "-":
            sys.stdout.write(text)
        else:
            Path(path).write_text(text, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise UsageError(f"{path} cannot be written ({error.strerror}).") from error
