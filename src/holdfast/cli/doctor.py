"""``holdfast doctor``: what this machine can tell of its resets, and what is missing."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import io
import json
import sys

import click
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from holdfast.watch import doctor
from holdfast.watch.doctor import Report

WIDTH = 80
_STYLES = {"ok": "green", "no": "red", "note": "yellow", "RISK": "bold red"}
_SENTENCES = {
    0: "Nothing works here: this machine cannot be watched.",
    1: "Holdfast sees everything it can see on this kernel.",
    2: "Holdfast sees the resets, but not everything about them.",
    3: "Holdfast sees that connections end, and how often, but not why.",
}


@click.command(
    epilog="""\b
Exit codes:
  0  step 1 works: BPF
  1  only a lesser step works
  2  wrong usage
  3  nothing works here

\b
Examples:
  holdfast doctor
  holdfast doctor --json      the same as one object, for another program
"""
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object; its keys are stable.")
@click.pass_context
def command(ctx: click.Context, as_json: bool) -> None:
    """Say what Holdfast can see on this machine, why not more, and which settings are risky."""
    report = doctor.assess(doctor.collect())
    if as_json:
        click.echo(json.dumps(report.as_json(), indent=2))
    else:
        click.echo(render(report, in_colour=sys.stdout is not None and sys.stdout.isatty()))
    ctx.exit(report.exit_code)


def render(report: Report, in_colour: bool) -> str:
    """The report for a person, 80 columns wide."""
    page = io.StringIO()
    _print(report, Console(file=page, width=WIDTH, force_terminal=in_colour))
    # Tables pad their cells; nobody wants to copy the blanks.
    return "\n".join(line.rstrip() for line in page.getvalue().splitlines())


def _print(report: Report, console: Console) -> None:
    console.print(f"Linux {report.kernel} on {report.machine}", style="bold", highlight=False)
    console.print(_sentence(report), highlight=False)
    _title(console, "Steps")
    for step in report.steps:
        fix = f"Try: {step.fix}" if step.fix else ""
        _block(
            console, _mark(step.works), f"{step.number} {step.name}", _tells(step.tells, step.why_not), fix
        )
    _section(console, "Kernel", [(_mark(c.ok), c.name, Text(c.found)) for c in report.checks])
    _section(console, "Rights", [(_mark(r.held), r.name, Text(r.why)) for r in report.rights])
    _section(console, "Hooks", [(_mark(h.attached), h.name, _tells(h.tells, h.reason)) for h in report.hooks])
    if report.notes:
        _section(console, "In another way than it could", [("note", "", Text(t)) for t in report.notes])
    if report.cannot_tell:
        _section(console, "What this kernel cannot tell", [("note", "", Text(t)) for t in report.cannot_tell])
    _settings(console, report)


def _sentence(report: Report) -> str:
    missed = sum(not hook.attached for hook in report.hooks)
    if report.step != 1 or not missed:
        return _SENTENCES[report.step]
    hooks = "one hook is" if missed == 1 else f"{missed} hooks are"
    return f"Holdfast sees the resets, but not everything about them: {hooks} missing."


def _mark(good: bool) -> str:
    return "ok" if good else "no"


def _tells(tells: str, reason: str) -> Text:
    words = Text(tells[:1].upper() + tells[1:] + ".")
    if reason:
        words.append(f"\n{reason[:1].upper()}{reason[1:].rstrip('.')}.", style="yellow")
    return words


def _section(console: Console, title: str, rows: list[tuple[str, str, Text]]) -> None:
    if not rows:
        return
    _title(console, title)
    grid = Table.grid(padding=(0, 2))
    grid.add_column(width=4)
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for mark, name, words in rows:
        grid.add_row(Text(mark, style=_STYLES[mark]), Text(name), words)
    console.print(Padding(grid, (0, 0, 0, 2)))


def _settings(console: Console, report: Report) -> None:
    _title(console, "Settings that decide how this host resets")
    counts = [sum(s.verdict == verdict for s in report.settings) for verdict in ("fine", "absent")]
    absent = f", {counts[1]} are not there" if counts[1] else ""
    console.print(f"  {counts[0]} of {len(report.settings)} are fine{absent}.", highlight=False)
    for setting in doctor.attention(report):
        mark = "RISK" if setting.verdict == "risky" else "note"
        _block(console, mark, f"{setting.name} = {setting.value}", Text(setting.decides), setting.advice)


def _title(console: Console, title: str) -> None:
    console.print()
    console.print(title, style="bold", highlight=False)


def _block(console: Console, mark: str, title: str, words: Text, advice: str) -> None:
    """A mark, a title and below it sentences as wide as the line allows."""
    lines = [Text(title, style="bold"), words]
    if advice:
        lines.append(Text(advice, style="cyan"))
    grid = Table.grid(padding=(0, 2))
    grid.add_column(width=4)
    grid.add_column(overflow="fold")
    grid.add_row(Text(mark, style=_STYLES[mark]), Text("\n").join(lines))
    console.print(Padding(grid, (0, 0, 0, 2)))
