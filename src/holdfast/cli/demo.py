"""``holdfast demo``: what ``make run`` shows: every kind of reset, made and explained on this machine."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
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
from holdfast.lab.matrix import Pairing, Records
from holdfast.lab.network import needs_user_namespace
from holdfast.watch import doctor
from holdfast.watch.kernel.source import KernelSource
from holdfast.watch.session import Background, Session

AT_ONCE = 4
"""Scenarios made at the same time: most of their time is waiting for the kernel's timers."""

EPILOG = """\b
Exit codes:
  0  done (ended by Ctrl-C, or without a terminal)
  1  something was made that was not explained as it was made

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
    if report.step == 1:
        good = _explain(console, chosen)
        if good and sys.stdout is not None and sys.stdout.isatty():
            console.print(Text("\nNow watching this host. Make a reset, or press Ctrl-C.", style="bold"))
            ctx.invoke(watch_command)
        ctx.exit(0 if good else 1)
    _count(console, chosen)
    words, order = _more(report)
    console.print(Text(f"\n{words}", style="bold"))
    if order:
        console.print(Text(f"  {order}"))


def _step_words(report: doctor.Report) -> str:
    step = next((step for step in report.steps if step.number == report.step), None)
    return "nothing can be seen here." if step is None else step.tells[:1].lower() + step.tells[1:]


def _more(report: doctor.Report) -> tuple[str, str]:
    """What step 1 would add and what is missing for it, and a command that may bring it."""
    best, told = report.steps[0], "who, why, what was lost and what to do"
    if best.fix == doctor.as_root():
        return f"As root, Holdfast would also say of each {told}:", 'sudo "$(command -v make)" run'
    why = best.why_not.rstrip(".")
    if best.fix:
        return f"{why}.\nThat mended, Holdfast would also say of each {told}:", best.fix
    return f"{why}.\nSo Holdfast cannot say of each {told}.", ""


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


def _explain(console: Console, chosen: Sequence[Scenario]) -> bool:
    """Watch, make each scenario, print each as its line; whether all were explained as made."""
    records = Records()
    pairings: list[Pairing] = []
    skipped: list[tuple[str, str]] = []
    console.print(Text(f"Making {len(chosen)} kinds of reset in private networks.\n"))
    console.print(render.header())
    with KernelSource() as source:
        with Background(Session(source, tap=records.tap), records.add), _bar(console) as bar:
            task = bar.add_task("", total=len(chosen))

            def attempt(one: Scenario) -> None:
                bar.update(task, description=one.name)
                try:
                    make(
                        one,
                        one.families[0],
                        1,
                        lambda made: pairings.extend(_told(bar.console, records, made)),
                    )
                except (ScenarioFailed, KernelUnavailable) as error:
                    skipped.append((one.name, str(error)))
                bar.advance(task)

            with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="demo") as pool:
                list(pool.map(attempt, chosen))
        lost = source.lost()
    _matrix(console, pairings, skipped, lost)
    return bool(pairings) and all(pairing.explained or pairing.untold for pairing in pairings)


def _told(console: Console, records: Records, made: Made) -> list[Pairing]:
    found = records.pair(made)
    for pairing in found:
        if pairing.reset is None:
            words = "nothing went wrong, and nothing is told" if pairing.explained else "not explained"
            console.print(
                Text(f"{made.scenario.name:25} {words}", style="dim" if pairing.explained else "red")
            )
        else:
            console.print(render.told(pairing.reset))
    return found


def _matrix(
    console: Console, pairings: Sequence[Pairing], skipped: Sequence[tuple[str, str]], lost: int
) -> None:
    made = Counter(pairing.made.label.cause for pairing in pairings)
    explained = Counter(pairing.made.label.cause for pairing in pairings if pairing.explained)
    table = Table(
        "cause", "made", "explained", "unexplained", box=None, header_style="bold", padding=(0, 2, 0, 0)
    )
    for cause, count in sorted(made.items()):
        missing = count - explained[cause]
        table.add_row(
            cause, str(count), str(explained[cause]), Text(str(missing), style="red" if missing else "dim")
        )
    console.print()
    console.print(table)
    untold = [pairing for pairing in pairings if pairing.untold]
    for pairing in untold:
        words = (
            f"{pairing.made.scenario.name}: this kernel gives no reasons, and nothing else tells this cause."
        )
        console.print(Text(words, style="yellow"))
    for pairing in pairings:
        for key, (was, said) in pairing.differences().items() if pairing not in untold else ():
            words = f"{pairing.made.scenario.name}: {key} was {was}, explained as {said}."
            console.print(Text(words, style="red"))
    for name, reason in skipped:
        console.print(Text(f"Not made: {name}: {reason}", style="yellow"))
    console.print(
        Text(
            f"\nMade {made.total()}, explained {explained.total()}, "
            f"unexplained {made.total() - explained.total()}. Events lost: {lost}.",
            style="bold",
        )
    )


def _count(console: Console, chosen: Sequence[Scenario]) -> None:
    """Without BPF: make what can be made, and show what the kernel counted."""
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
