"""Inspected sockets as text for a terminal: one line each at 80 columns, or everything in sentences."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Mapping

from rich.cells import set_cell_size
from rich.text import Text

from holdfast.cli.render import STYLES, WIDTH, cut_middle, fit, printable, short, wrap
from holdfast.linux import figures
from holdfast.linux.counters import REFUSALS
from holdfast.linux.inspection import Inspection
from holdfast.linux.quantities import short_size

_NOW, _WHO, _ENDS, _QUEUE, _RTT = 19, 15, 25, 5, 6
_TITLE = 10
STORY_LINES = 20
"""So many lines a story takes, about."""

REFUSED_LINES = 6
"""So many counters are shown, the largest, unless all are asked for."""


def header(width: int = WIDTH) -> Text:
    """The head of the table that :func:`line` fills."""
    ends = _ENDS + max(0, width - WIDTH)
    words = f"{'NOW':{_NOW}} {'WHO':{_WHO}} {'CONNECTION':{ends}} {'RECVQ':>{_QUEUE}} {'SENDQ':>{_QUEUE}}"
    return Text(f"{words} {'RTT':>{_RTT}}", style="bold", no_wrap=True, overflow="crop")


def line(look: Inspection, width: int = WIDTH) -> Text:
    """One socket in one line: what is worst about it, or its state if there is nothing to say."""
    ends = _ENDS + max(0, width - WIDTH)
    text = Text(no_wrap=True, overflow="crop")
    if look.findings:
        text.append(f"{look.findings[0].code:{_NOW}}", style=STYLES[look.findings[0].severity])
    else:
        text.append(f"{look.sock.state or 'unknown':{_NOW}}", style="dim")
    text.append(f" {set_cell_size(fit(who(look), _WHO), _WHO)} {_ends(look, ends):{ends}}")
    text.append(f" {_queues(look)} {_rtt(look):>{_RTT}}")
    text.rstrip()
    return text


def who(look: Inspection) -> str:
    """The owner as ``name/pid``, with ``+2`` for others that share it; ``-`` if none is known."""
    if not look.owners:
        return "-"
    first = look.owners[0]
    more = f"+{len(look.owners) - 1}" if len(look.owners) > 1 else ""
    return f"{printable(first.comm) or 'pid'}/{first.pid}{more}"


def _ends(look: Inspection, width: int) -> str:
    if look.listens:
        return cut_middle(str(look.local), width)
    head = f":{look.local.port} "
    return head + cut_middle(str(look.peer), width - len(head))


def _queues(look: Inspection) -> str:
    receive, send = look.sock.receive_queue, look.sock.send_queue
    if look.listens:
        return f"{short(receive):>{_QUEUE}} {f'/{short(send)}':>{_QUEUE}}"
    return f"{short_size(receive):>{_QUEUE}} {short_size(send):>{_QUEUE}}"


def _rtt(look: Inspection) -> str:
    rtt_us = look.sock.info.smoothed_rtt_us if look.sock.info else None
    if rtt_us is None:
        return "-"
    if rtt_us < 1000:
        return f"{rtt_us}µs"
    return f"{rtt_us / 1000:.3g}ms" if rtt_us < 999_500 else f"{rtt_us / 1e6:.3g}s"


def story(look: Inspection, width: int = WIDTH) -> Text:
    """Everything known about one socket in sentences, wrapped to ``width``."""
    text = Text()
    worst = STYLES[look.findings[0].severity] if look.findings else "bold"
    ends = f"{look.local} listens" if look.listens else f"{look.local} ↔ {look.peer}  {look.sock.state}"
    text.append(f"{who(look)}  {ends}", style=worst)
    well = "Nothing to remark."
    for title, lines in (
        ("Now", [finding.sentence for finding in look.findings] or [well]),
        ("Receives", figures.receiving(look.sock, look.since)),
        ("Sends", figures.sending(look.sock, look.since)),
        ("Path", figures.path(look.sock)),
        ("Congestion", figures.congestion(look.sock)),
    ):
        for at, words in enumerate(lines):
            text.append(f"\n  {title if at == 0 else '':{_TITLE}} ", style="bold")
            text.append(f"\n{'':{_TITLE + 3}}".join(wrap(printable(words), width - _TITLE - 3)))
    return text


def refused(counts: Mapping[str, int | None], when: str, everything: bool, width: int = WIDTH) -> Text:
    """What the namespace refused, the most first, and that it is not told for which connection."""
    moved = [(count, one) for one in REFUSALS if (count := counts.get(one.name))]
    moved.sort(key=lambda pair: -pair[0])
    head = f"Refused {when}, all connections of this network namespace together:"
    if not moved:
        return Text(f"{head} nothing.", style="dim")
    text = Text()
    text.append(head, style="bold")
    shown = moved if everything else moved[:REFUSED_LINES]
    for count, one in shown:
        words = wrap(f"{one.words} ({one.name})", width - 12)
        text.append(f"\n{count:>10,}  " + f"\n{'':12}".join(words))
    if len(shown) < len(moved):
        text.append(f"\n{'':12}{len(moved) - len(shown)} more kinds (-v shows them)", style="dim")
    return text
