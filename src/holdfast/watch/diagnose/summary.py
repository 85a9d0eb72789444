"""What a whole capture held, in the words and figures that stand above the single connections."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from holdfast.causes import Severity
from holdfast.events import Endpoint
from holdfast.linux.quantities import counted
from holdfast.watch.capture.summary import Summary as Read
from holdfast.watch.diagnose.explained import Explained
from holdfast.watch.diagnose.record import wall_time
from holdfast.watch.diagnose.words import duration, files_words

SENDERS = ("client", "server", "path", "unknown")

_RANK = {severity: rank for rank, severity in enumerate(Severity)}


@dataclass(frozen=True, slots=True)
class Summary:
    """The top of every face.

    Attributes:
        files: names, in words. headline: the answer in one sentence. span: when, and how much traffic.
        figures: (figure, what it counts). warnings: what the capture or its reading lacks, in sentences.
        groups: cause, sender, and the server (or how many there are) of connections that are alike in the
            first two, and their number; most frequent first.
        folded: how many were left out as usual traffic or without effect, by cause.
        silent: how many connections ended without a RST, since nothing came back, in sentences.
    """

    files: str
    headline: str
    span: str
    figures: tuple[tuple[str, str], ...]
    warnings: tuple[str, ...]
    groups: tuple[tuple[str, str, str, int], ...]
    folded: tuple[tuple[str, int], ...]
    silent: tuple[str, ...]


def is_quiet(one: Explained) -> bool:
    """Whether it is left out by default: usual traffic, or a RST without effect."""
    return one.noise or one.obeyed == "no"


def worst_first(found: Iterable[Explained]) -> list[Explained]:
    """In the order in which they are told: by severity, then bytes in flight, then time."""
    return sorted(
        found, key=lambda one: (-_RANK[one.severity], -(one.unacked_bytes or 0), one.time_ns, one.id)
    )


def summarize(
    names: Sequence[str],
    reads: Sequence[Read],
    found: Sequence[Explained],
    listed: Sequence[Explained],
    silent: tuple[str, ...] = (),
) -> Summary:
    """Sum up.

    Args:
        names: of the captures. reads: what reading each vantage told; the first is the one counted.
        found: every reset connection. listed: those that are told in full.
        silent: as in :class:`Summary`.
    """
    read = reads[0]
    senders = Counter(one.sender for one in listed)
    told = {one.id for one in listed}
    folded = Counter(one.cause for one in found if one.id not in told)
    return Summary(
        files=files_words(names),
        headline=_headline(listed, senders, folded.total()),
        span=_span(names, read),
        figures=(
            (f"{read.packets:,}", "packets"),
            (f"{read.connections:,}", "connections"),
            (f"{read.reset_connections:,}", "met a RST"),
            (f"{len(listed):,}", "listed here"),
            (f"{senders['path']:,}", "reset from the path"),
            (f"{senders['unknown']:,}", "sender unverifiable from here"),
        ),
        warnings=tuple(_warnings(reads)),
        groups=_groups(listed),
        folded=tuple(folded.most_common()),
        silent=silent,
    )


def _groups(listed: Sequence[Explained]) -> tuple[tuple[str, str, str, int], ...]:
    servers: dict[tuple[str, str], Counter[Endpoint]] = {}
    for one in listed:
        servers.setdefault((one.cause, one.sender), Counter())[one.server] += 1
    found = [
        (*alike, str(next(iter(ends))) if len(ends) == 1 else f"{len(ends):,} servers", ends.total())
        for alike, ends in servers.items()
    ]
    return tuple(sorted(found, key=lambda group: -group[3]))


def _headline(listed: Sequence[Explained], senders: Counter[str], folded: int) -> str:
    if not listed:
        more = f" {folded:,} more are usual traffic or had no effect." if folded else ""
        return f"No connection was reset in a way that deserves a line.{more}"
    by = [f"{senders[name]:,} by the {name}" for name in SENDERS[:3] if senders[name]]
    if senders["unknown"]:
        by.append(f"{senders['unknown']:,} by a sender that cannot be told from here")
    count = len(listed)
    return f"{count:,} connection{'s were' if count > 1 else ' was'} reset: {', '.join(by)}."


def _span(names: Sequence[str], read: Read) -> str:
    if read.first_ns is None or read.last_ns is None:
        return f"{files_words(names)}: no packets"
    begin = wall_time(read.first_ns)[:23].replace("T", " ")
    lasted = duration(read.last_ns - read.first_ns)
    return f"{files_words(names)}: {begin} UTC, {lasted}, {read.bytes:,} bytes"


def _warnings(reads: Sequence[Read]) -> Iterable[str]:
    for read in reads:
        for damage in read.damage:
            yield (
                f"{damage.path} is damaged at byte {damage.offset:,}: "
                f"{damage.what}. What came before it is told."
            )
        if read.repeated:
            yield f"Named twice, and read once: {files_words(read.repeated)}."
        if read.overlapping:
            yield (
                f"Overlaps the file before it in time: {files_words(read.overlapping)}. Packets in both "
                "count twice, and segments stand in the wrong order: give a copy once, merge what was "
                "captured at one place (mergecap), and give another place as --vantage."
            )
        if read.stopped:
            yield "Reading was stopped before the end: connections that came later are missing."
        if read.dropped:
            yield (
                f"Dropped before the capture saw them: {counted(read.dropped, 'packet')}. What is missing "
                "proves nothing."
            )
        if read.evicted:
            yield (
                f"Given up early for want of room: {counted(read.evicted, 'open connection')}. Results may "
                "miss some."
            )
        if read.hurried:
            yield (
                f"Told sooner than 10 s after the last packet, for want of room: "
                f"{counted(read.hurried, 'connection')}. What came later than that counts as a connection of "
                "its own."
            )
        if read.without_packets:
            yield f"Kept few packets for want of room: {counted(read.without_packets, 'connection')}."
        if read.unplaced:
            yield (
                f"Came after 65,535 files or interfaces, so that of which is not told: "
                f"{counted(read.unplaced, 'packet')}."
            )
        if read.fragments:
            yield f"Only counted, for want of a TCP header: {counted(read.fragments, 'IP fragment')}."
        if read.cut:
            yield (
                f"Captured too short to show a TCP header: {counted(read.cut, 'packet')}. Capture with "
                "-s 128 or more."
            )
        if read.malformed:
            yield f"Lengths that contradict each other: {counted(read.malformed, 'packet')}."
        if read.unknown_link:
            yield f"Of a link type that cannot be read: {counted(read.unknown_link, 'packet')}."
