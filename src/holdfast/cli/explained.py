"""What ``holdfast explain`` found, as text: a summary, then one block for each connection."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator

from rich.text import Text

from holdfast.causes import Basis
from holdfast.cli.render import STYLES, WIDTH, printable, wrap
from holdfast.watch.capture.flow import RST
from holdfast.watch.diagnose.explained import Explained, Step
from holdfast.watch.diagnose.summary import Summary
from holdfast.watch.diagnose.words import duration, flag_words

_TITLE = 10
_STEPS = 8

_BASIS = {Basis.OBSERVED: "seen", Basis.INFERRED: "inferred from the evidence", Basis.NONE: "not known"}

COLUMNS = (
    *("time", "client", "server", "cause", "sender", "claimed", "obeyed", "severity", "score", "basis"),
    *("lifetime_s", "idle_s", "bytes_sent", "bytes_received", "rtt_us", "unacked_bytes", "resets"),
    *(
        "zeek_state",
        "zeek_history",
        "signature_client",
        "signature_server",
        "stated",
        "sentence",
        "id",
        "file",
    ),
)
"""Of the CSV."""


def summary(told: Summary, width: int = WIDTH) -> Text:
    """The head: what was read, how many connections were reset, by cause and by sender."""
    text = Text()
    text.append("\n".join(wrap(printable(told.headline), width)), style="bold")
    text.append("\n" + "\n".join(wrap(printable(told.span), width, "  ")), style="dim")
    figures = ", ".join(f"{name} {figure}" for figure, name in told.figures[:3])
    text.append("\n" + "\n".join(wrap(figures, width, "  ")), style="dim")
    for warning in told.warnings:
        text.append("\n" + "\n".join(wrap(printable(warning), width, "  ")), style="yellow")
    if told.groups:
        wide = max(len(cause) for cause, *_ in told.groups)
        text.append(f"\n\n{'COUNT':>7}  {'CAUSE':{wide}}  {'SENT BY':8} SERVER", style="bold")
        for cause, sender, server, count in told.groups:
            text.append(f"\n{count:>7,}  {cause:{wide}}  {sender:8} {server}")
        text.append("\n")
    if told.folded:
        words = ", ".join(f"{count:,} × {cause}" for cause, count in told.folded)
        text.append("\n" + "\n".join(wrap(f"Left out (--all shows them): {words}", width, "  ")), style="dim")
    for words in told.silent:
        text.append("\n" + "\n".join(wrap(words, width, "  ")), style="dim")
    return text


def block(one: Explained, width: int = WIDTH) -> Text:
    """Everything that is known about one connection."""
    text = Text()
    text.append("\n".join(wrap(printable(one.sentence), width)), style=STYLES[one.severity])
    for title, lines in (
        ("When", [f"{one.time}  id {one.id}"]),
        ("Connection", [_ends(one)]),
        ("Sent by", [_sender(one)]),
        ("Carried", _carried(one)),
        ("Evidence", [_weighed(fact.weight, printable(fact.fact)) for fact in one.evidence]),
        ("Segments", [_step(step, one.steps[0].time_ns) for step in _last(one)]),
        ("Known to", _elsewhere(one)),
        ("Do", [printable(line) for line in one.remedy]),
        ("To settle", list(one.settle)),
    ):
        for at, words in enumerate(lines):
            text.append(f"\n  {title if at == 0 else '':{_TITLE}} ", style="bold")
            text.append(f"\n{'':{_TITLE + 3}}".join(_fitted(words, width - _TITLE - 3)))
    return text


def _fitted(words: str, width: int) -> list[str]:
    return [words] if len(words) <= width else wrap(words, width)


def _ends(one: Explained) -> str:
    guess = "" if one.ends_known else "  (who dialled is a guess)"
    return f"client {one.client}  server {one.server}{guess}"


def _sender(one: Explained) -> str:
    who = "unverifiable from here" if one.sender == "unknown" else f"the {one.sender}"
    bears = "" if one.sender == one.claimed else f", bearing the address of the {one.claimed}"
    return f"{who}{bears}; {_BASIS[one.basis]} (score {one.score}); obeyed: {one.obeyed}"


def _carried(one: Explained) -> list[str]:
    parts = []
    if one.bytes_sent is not None and one.bytes_received is not None:
        parts.append(f"{one.bytes_sent:,} bytes to the server, {one.bytes_received:,} to the client")
    if one.lifetime_s is not None:
        parts.append(f"in {duration(int(one.lifetime_s * 1e9))}")
    if one.idle_s is not None:
        parts.append(f"silent for {duration(int(one.idle_s * 1e9))} before the RST")
    if one.rtt_us:
        parts.append(f"round trip {duration(one.rtt_us * 1000)}")
    return [", ".join(parts)] if parts else []


def _weighed(weight: int, fact: str) -> str:
    return f"{weight:+d} {fact}" if weight else f" · {fact}"


def _last(one: Explained) -> list[Step]:
    """The few segments before the RST, it, and those that decide."""
    at = next((n for n, step in enumerate(one.steps) if step.flags & RST and step.source == one.claimed), 0)
    near = range(max(0, at - _STEPS + 2), at + 3)
    return [step for n, step in enumerate(one.steps) if n in near or step.deciding]


def _step(step: Step, start_ns: int) -> str:
    arrow = "→" if step.source == "client" else "←"
    span = f"{step.seq}:{step.seq + step.payload_bytes}" if step.payload_bytes else f"{step.seq}"
    ack = f" ack {step.ack}" if step.ack is not None else ""
    note = f"  « {step.note}" if step.note else ""
    at = f"{(step.time_ns - start_ns) / 1e9:10.6f}"
    return f"{at} {arrow} {flag_words(step.flags)} {span}{ack} ttl {step.ttl}{note}"


def _elsewhere(one: Explained) -> list[str]:
    known = []
    if one.zeek_state:
        known.append(f"Zeek as {one.zeek_state} {one.zeek_history or ''}".rstrip())
    known += [
        f"SIGCOMM 2023, {side}: {label}"
        for side, label in (("client", one.signature_client), ("server", one.signature_server))
        if label
    ]
    return known


def table(found: Iterable[Explained]) -> Iterator[str]:
    """Lines of CSV, the head first."""
    yield _csv_line(COLUMNS)
    for one in found:
        values = {name: getattr(one, name, None) for name in COLUMNS}
        yield _csv_line(_cell(values[name]) for name in COLUMNS)


def _cell(value: object) -> str:
    words = "" if value is None else printable(str(value))
    # A spreadsheet would run a cell that starts like a formula, and a RST may carry any text.
    return f"'{words}" if words.startswith(("=", "+", "@", "-")) and not _is_number(words) else words


def _is_number(words: str) -> bool:
    try:
        float(words)
    except ValueError:
        return False
    return True


def _csv_line(cells: Iterable[str]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(cells)
    return line.getvalue()
