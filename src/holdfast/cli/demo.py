"""``holdfast demo``: what ``make run`` shows: every kind of reset, made and explained on this machine."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from holdfast.cli import render
from holdfast.cli.watch import command as watch_command
from holdfast.errors import KernelUnavailable
from holdfast.lab import SCENARIOS, Made, NoNetwork, Scenario, ScenarioFailed, make
from holdfast.lab.matrix import UNSEEN, Pairing, Records, observe
from holdfast.lab.network import needs_user_namespace
from holdfast.watch import doctor
from holdfast.watch.kernel.source import KernelSource
from holdfast.watch.session import Background, Session
from holdfast.watch.tracepoint.source import TracepointSource

AT_ONCE = 4
"""Scenarios made at the same time: most of their time is waiting for the kernel's timers."""

WAIT_S = {1: 5.0, 2: 3.0}
"""How long to wait for a record, by step: of step 2 many never come."""

EPILOG = """\b
Exit codes:
  0  done (ended by Ctrl-C, or without a terminal)
  1  something was made and not explained as it was made, although BPF works

\b
Examples:
  holdfast demo               in a terminal it goes on to watch until Ctrl-C
  holdfast demo </dev/null | tail -1
"""


@click.command(epilog=EPILOG)
@click.pass_context
def command(ctx: click.Context) -> None:
    """Make every kind of reset in private networks, explain each, then watch this host."""
    console = render.Page()
    report = doctor.assess(doctor.collect())
    console.print(Text(f"Linux {report.kernel}. Step {report.step}: {_step_words(report)}", style="bold"))
    chosen = [one for one in SCENARIOS.values() if not one.vm_only]
    good = _explain(console, chosen, report.step) if report.step in (1, 2) else _count(console, chosen)
    if report.step != 1:
        words, order = _more(report)
        console.print()
        for line in words.splitlines():
            _note(console, line, "bold")
        if order:
            console.print(Text(f"  {order}"))
    if good and report.step and _in_terminal():
        console.print(Text("\nNow watching this host. Make a reset, or press Ctrl-C.", style="bold"))
        ctx.invoke(watch_command)
    ctx.exit(0 if good else 1)


def _in_terminal() -> bool:
    return sys.stdout is not None and sys.stdout.isatty()


def _step_words(report: doctor.Report) -> str:
    step = next((step for step in report.steps if step.number == report.step), None)
    return "nothing can be seen here." if step is None else step.tells[:1].lower() + step.tells[1:]


def _more(report: doctor.Report) -> tuple[str, str]:
    """What step 1 would add and what is missing for it, and a command that may bring it."""
    best = report.steps[0]
    told = "who, why, what was lost and what to do"
    if report.step == 2:
        told = "what was lost, every owner, and who forged what"
    if best.fix == doctor.as_root():
        return f"As root, Holdfast would also tell {told}:", 'sudo "$(command -v make)" run'
    why = best.why_not.rstrip(".")
    if best.fix:
        return f"{why}.\nThat mended, Holdfast would also tell {told}:", best.fix
    return f"{why}.\nSo Holdfast cannot tell {told}.", ""


def _bar(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description:26}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


def _explain(console: Console, chosen: Sequence[Scenario], step: int) -> bool:
    """Watch, make each scenario, print each as its line; whether all is explained that this step can."""
    records = Records(namespaces=step == 1)
    pairings: list[Pairing] = []
    skipped: list[tuple[str, str]] = []
    console.print(Text(f"Making {len(chosen)} kinds of reset in private networks.\n"))
    console.print(render.header())
    with KernelSource() if step == 1 else TracepointSource() as source:
        with Background(Session(source, tap=records.tap), records.add), _bar(console) as bar:
            task = bar.add_task("", total=len(chosen))

            def again(made: Made) -> None:
                _note(bar.console, f"{made.scenario.name}: {UNSEEN}", "yellow")

            def attempt(one: Scenario) -> None:
                bar.update(task, description=one.name)
                try:
                    found = observe(one, one.families[0], 1, records, again, WAIT_S[step])
                    pairings.extend(_told(bar.console, found))
                except (ScenarioFailed, KernelUnavailable) as error:
                    skipped.append((one.name, str(error)))
                bar.advance(task)

            with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="demo") as pool:
                list(pool.map(attempt, chosen))
        lost = source.lost()
    if step == 1:
        _matrix(console, pairings, skipped, lost)
        return bool(pairings) and all(pairing.explained or pairing.untold for pairing in pairings)
    _matrix_in_part(console, pairings, skipped, lost)
    return any(pairing.explained for pairing in pairings)


def _told(console: Console, found: list[Pairing]) -> list[Pairing]:
    for pairing in found:
        if pairing.reset is None:
            words = "nothing went wrong, and nothing is told" if pairing.explained else "not explained"
            console.print(
                Text(f"{pairing.made.scenario.name:25} {words}", style="dim" if pairing.explained else "red")
            )
        else:
            console.print(render.told(pairing.reset))
    return found


def _matrix(
    console: Console, pairings: Sequence[Pairing], skipped: Sequence[tuple[str, str]], lost: int
) -> None:
    made = Counter(pairing.made.label.cause for pairing in pairings)
    explained = Counter(pairing.made.label.cause for pairing in pairings if pairing.explained)
    _table(console, made, {"explained": explained, "unexplained": made - explained})
    untold = [pairing for pairing in pairings if pairing.untold]
    for pairing in untold:
        words = "this kernel gives no reasons, and nothing else tells this cause."
        _note(console, f"{pairing.made.scenario.name}: {words}", "yellow")
    _differences(console, [pairing for pairing in pairings if pairing not in untold])
    _not_made(console, skipped)
    total = f"unexplained {made.total() - explained.total()}. Events lost: {lost}."
    console.print(Text(f"\nMade {made.total()}, explained {explained.total()}, {total}", style="bold"))


def _matrix_in_part(
    console: Console, pairings: Sequence[Pairing], skipped: Sequence[tuple[str, str]], lost: int
) -> None:
    """The matrix of a step that cannot explain everything: what it told, in part, or not as it was made."""
    made = Counter(pairing.made.label.cause for pairing in pairings)
    explained = Counter(pairing.made.label.cause for pairing in pairings if pairing.explained)
    in_part = Counter(pairing.made.label.cause for pairing in pairings if pairing.incomplete)
    rest = made - explained - in_part
    _table(console, made, {"explained": explained, "in part": in_part, "not told": rest})
    _note(console, "In part: the cause is right; the owner, the sender or the bytes are not told.", "dim")
    for pairing in pairings:
        if pairing.made.label.cause in rest and not (pairing.explained or pairing.incomplete):
            said = f"told as {pairing.reset.cause}" if pairing.reset is not None else "not told at all"
            _note(console, f"{pairing.made.scenario.name}: {said}.", "yellow")
    _not_made(console, skipped)
    counts = f"explained {explained.total()}, in part {in_part.total()}, not told {rest.total()}"
    console.print(Text(f"\nMade {made.total()}, {counts}. Events lost: {lost}.", style="bold"))


def _table(console: Console, made: Counter[str], columns: Mapping[str, Counter[str]]) -> None:
    """Counts by cause; what is in the last column is missing."""
    table = Table("cause", "made", *columns, box=None, header_style="bold", padding=(0, 2, 0, 0))
    *_, last = columns.values()
    for cause, count in sorted(made.items()):
        counts = [Text(str(column[cause])) for column in columns.values()]
        counts[-1].stylize("red" if last[cause] else "dim")
        table.add_row(cause, str(count), *counts)
    console.print()
    console.print(table)


def _differences(console: Console, pairings: Sequence[Pairing]) -> None:
    for pairing in pairings:
        for key, (was, said) in pairing.differences().items():
            _note(console, f"{pairing.made.scenario.name}: {key} was {was}, explained as {said}.", "red")


def _not_made(console: Console, skipped: Sequence[tuple[str, str]]) -> None:
    for name, reason in skipped:
        _note(console, f"Not made: {name}: {reason}", "yellow")


def _note(console: Console, words: str, style: str) -> None:
    console.print(Text("\n".join(render.wrap(words, render.WIDTH)), style=style))


def _count(console: Console, chosen: Sequence[Scenario]) -> bool:
    """Without rights: make what can be made, and show what the kernel counted; nothing can be unexplained."""
    where = "a user namespace" if needs_user_namespace() else "private networks"
    console.print(Text(f"Making {len(chosen)} kinds of reset in {where}; the kernel's counters tell:\n"))
    with _bar(console) as bar:
        task = bar.add_task("", total=len(chosen))
        for one in chosen:
            bar.update(task, description=one.name)
            try:
                bar.console.print(Text(_counted(make(one, one.families[0], 1))))
            except ScenarioFailed as error:
                bar.console.print(Text(f"{one.name:35} could not be made: {error}", style="yellow"))
            except NoNetwork as error:
                bar.console.print(Text(f"Nothing can be made: {error}", style="yellow"))
                break
            except KernelUnavailable as error:
                bar.console.print(Text(f"{one.name:35} not made: {error}", style="yellow"))
            bar.advance(task)
    return True


def _counted(made: Made) -> str:
    moved: Counter[str] = Counter()
    for host in made.after:
        for name in made.after[host]:
            if name in _TELLING and made.delta(host, name):
                moved[name.removeprefix("Tcp").removeprefix("Ext")] += made.delta(host, name)
    words = ", ".join(f"{name} +{count}" for name, count in moved.items()) or "no counter moved"
    return f"{made.scenario.name:35} {words}"


_TELLING = frozenset(
    {
        "TcpOutRsts",
        "TcpEstabResets",
        "TcpAttemptFails",
        "TcpExtTCPAbortOnClose",
        "TcpExtTCPAbortOnData",
        "TcpExtTCPAbortOnLinger",
        "TcpExtTCPAbortOnMemory",
        "TcpExtTCPAbortOnTimeout",
        "TcpExtListenOverflows",
        "TcpExtEmbryonicRsts",
        "TcpExtTCPChallengeACK",
    }
)
