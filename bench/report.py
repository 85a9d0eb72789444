"""Tables of results, the same on a terminal and in a file."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich import box
from rich.console import Console
from rich.table import Table

_console = Console(width=118, highlight=False)


def heading(text: str) -> None:
    """A line that opens a section."""
    _console.print(f"\n[bold]{text}[/bold]")


def note(text: str) -> None:
    """A sentence below a table."""
    _console.print(text, style="dim", markup=False)


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Rows of text; all columns but the first are numbers."""
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for place, column in enumerate(columns):
        made.add_column(column, justify="right" if place else "left")
    for row in rows:
        made.add_row(*row)
    _console.print(made)


class Verdicts:
    """What was promised, what was measured, and whether it holds."""

    def __init__(self) -> None:
        self._rows: list[tuple[str, str, str, str]] = []

    def add(self, promise: str, bar: str, measured: str, holds: bool) -> None:
        """One promise."""
        self._rows.append((promise, bar, measured, "yes" if holds else "NO"))

    def show(self) -> None:
        """The table of all promises."""
        heading("What is promised")
        table(["promise", "bar", "measured", "holds"], self._rows)
