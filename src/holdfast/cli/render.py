"""Records as text for a terminal: one line each at 80 columns, or the whole story."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import textwrap
from typing import NoReturn

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.text import Text

from holdfast.causes import Basis, Direction, Severity
from holdfast.events import Endpoint, Reset

WIDTH = 80
_TITLE = 10
_CAUSE, _WHO, _ENDS, _LOST = 25, 17, 24, 11
_UNITS = "kMGTPE"

STYLES = {
    Severity.INFO: "dim",
    Severity.WARNING: "yellow",
    Severity.ERROR: "red",
    Severity.CRITICAL: "bold white on red",
}


class Page(Console):
    """Standard output: lines as long as they are, nothing coloured by guessing, no markup."""

    def __init__(self) -> None:
        super().__init__(highlight=False, soft_wrap=True, markup=False, emoji=False)

    def on_broken_pipe(self) -> NoReturn:
        """Leave it to the frame of the command line, which ends quietly."""
        raise BrokenPipeError


def talk() -> Console:
    """Standard error, for people: folded at the terminal's width, as it is in a file."""
    console = Console(stderr=True, highlight=False, markup=False, emoji=False)
    console.soft_wrap = not console.is_terminal
    return console


def printable(text: str) -> str:
    """The text with control characters, and others that a terminal might obey, escaped as Python would."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def header(width: int = WIDTH) -> Text:
    """The head of the table that :func:`line` fills."""
    ends = _ENDS + max(0, width - WIDTH)
    words = f"{'CAUSE':{_CAUSE}} {'WHO':{_WHO}} {'CONNECTION':{ends}} LOST"
    return Text(words, style="bold", no_wrap=True, overflow="crop")


def line(reset: Reset, width: int = WIDTH) -> Text:
    """One reset in one line, cause first; the connection gets what is left of the width.

    The cause is never cut: what is longer than its column moves the others, and the connection gives way.
    """
    harm = lost(reset)
    head = f"{reset.cause:{_CAUSE}}"
    over = max(0, len(head) - _CAUSE - (_LOST - len(harm)))
    ends = _ENDS + max(0, width - WIDTH) - over
    text = Text(no_wrap=True, overflow="crop")
    text.append(head, style=STYLES[reset.severity])
    text.append(f" {set_cell_size(fit(who(reset), _WHO), _WHO)}")
    text.append(f" {connection(reset, ends):{ends}}")
    text.append(f" {harm}", style="bold")
    text.rstrip()
    return text


def who(reset: Reset) -> str:
    """The owner as ``name/pid``, ``-`` if there is none."""
    if reset.owner is None:
        return "-"
    return f"{printable(reset.owner.comm) or 'pid'}/{reset.owner.pid}"


def connection(reset: Reset, width: int) -> str:
    """``:80>10.0.0.2:5123``: our port, which way the RST went, and the peer, cut in its middle if needed."""
    arrow = "→" if reset.direction is Direction.SENT else "←"
    head = f":{reset.local.port}{arrow}"
    return head + cut_middle(str(reset.peer), width - len(head))


def lost(reset: Reset) -> str:
    """The bytes at risk in short: of one kind by its name, of several their sum as ``lost``."""
    harm = reset.harm
    counts = ((harm.unread_bytes, "unread"), (harm.unacked_bytes, "unackd"), (harm.unsent_bytes, "unsent"))
    found = [(count, word) for count, word in counts if count]
    if len(found) > 1:
        return f"{short(sum(count for count, _ in found))} lost"
    return "".join(f"{short(count)} {word}" for count, word in found)


def short(count: int) -> str:
    """At most four characters, rounded: ``999``, ``2.9k``, ``38k``, ``3.8M``."""
    if count < 1000:
        return str(count)
    rounded, thousands = count / 1000, 0
    while rounded >= 999.5:
        rounded, thousands = rounded / 1000, thousands + 1
    return f"{rounded:.{1 if rounded < 9.95 else 0}f}{_UNITS[thousands]}"


def fit(text: str, width: int) -> str:
    """The text in so many columns (a wide character takes two); of ``name/pid`` the name is cut."""
    if cell_len(text) <= width:
        return text
    name, slash, number = text.rpartition("/")
    keep = width - len(slash + number) - 1
    if slash and keep > 0:
        return f"{set_cell_size(name, keep).rstrip()}…{slash}{number}"
    return f"{set_cell_size(text, width - 1).rstrip()}…"


def wrap(text: str, width: int, indent: str = "") -> list[str]:
    """Lines of at most so many columns."""
    # The standard library counts characters: a NUL beside each wide one makes up for its second column.
    counted = "".join(c + "\0" if cell_len(c) > 1 else c for c in text)
    lines = textwrap.wrap(
        counted, width, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False
    )
    return [line.replace("\0", "") for line in lines]


def cut_middle(text: str, width: int) -> str:
    """The text in so many columns: its end says more than its middle."""
    if len(text) <= width:
        return text
    tail = text[-(width * 2 // 3) :]
    return f"{text[: width - len(tail) - 1]}…{tail}"


def told(reset: Reset) -> Text:
    """The line, and below it the sentence."""
    words = wrap(printable(reset.sentence), WIDTH, "  ")
    return line(reset).append("".join(f"\n{part}" for part in words), style="dim")


def story(reset: Reset, width: int = WIDTH) -> Text:
    """Everything known about one reset, in sentences, wrapped to ``width``."""
    text = Text()
    text.append("\n".join(wrap(printable(reset.sentence), width)), style=STYLES[reset.severity])
    for title, lines in (
        ("When", [_when(reset)]),
        ("Connection", [_ends(reset)]),
        ("Timeline", _timeline(reset)),
        ("Known", [_basis(reset)]),
        ("Evidence", [printable(one.fact) for one in reset.evidence]),
        ("Called by", [printable(" < ".join(reset.call_path))] if reset.call_path else []),
        ("Do", list(reset.remedy)),
    ):
        for at, words in enumerate(lines):
            text.append(f"\n  {title if at == 0 else '':{_TITLE}} ", style="bold")
            text.append(f"\n{'':{_TITLE + 3}}".join(_wrapped(words, width - _TITLE - 3)))
    return text


def _wrapped(words: str, width: int) -> list[str]:
    # The timeline is set in columns: what fits is left as it is.
    return [words] if cell_len(words) <= width else wrap(words, width)


def _when(reset: Reset) -> str:
    return f"{reset.time}  id {reset.id}" + (
        f"  story {reset.story}" if reset.story not in (None, reset.id) else ""
    )


def _ends(reset: Reset) -> str:
    way = "sent to" if reset.direction is Direction.SENT else "received from"
    where = f"  netns {reset.netns}" if reset.netns else ""
    kind = "RST" if reset.ending == "reset" else str(reset.ending)
    return f"{_end(reset.local)}  {kind} {way}  {_end(reset.peer)}{where}"


def _end(end: Endpoint) -> str:
    return str(end)


def _timeline(reset: Reset) -> list[str]:
    steps = []
    if reset.lifetime_s is not None:
        steps.append(f"-{reset.lifetime_s:.3f} s opened")
    if reset.bytes_sent is not None and reset.bytes_received is not None:
        rtt = f", round trip {reset.rtt_us} µs" if reset.rtt_us else ""
        steps.append(f"         {reset.bytes_sent:,} bytes sent, {reset.bytes_received:,} received{rtt}")
    if reset.idle_s is not None:
        steps.append(f"-{reset.idle_s:.3f} s data last moved")
    if steps:
        steps.append(f" 0.000 s {reset.ending}" + (f" in {reset.state}" if reset.state else ""))
    return steps


def _basis(reset: Reset) -> str:
    reason = f" (kernel reason {reset.kernel_reason})" if reset.kernel_reason else ""
    words = {Basis.OBSERVED: "seen", Basis.INFERRED: "inferred from the evidence", Basis.NONE: "not known"}
    return f"{words[reset.basis]}{reason}; sender: {reset.sender}; obeyed: {reset.obeyed}"
