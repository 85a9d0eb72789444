"""The report as one self-contained page of HTML: it fetches nothing and runs no script."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Sequence
from xml.etree.ElementTree import Element

from holdfast.causes import Severity
from holdfast.watch.diagnose.explained import Explained
from holdfast.watch.diagnose.summary import Summary
from holdfast.watch.diagnose.words import duration
from holdfast.watch.report.chart import OTHERS, SHADES, colours, over_time
from holdfast.watch.report.diagram import sequence
from holdfast.watch.report.markup import Child, add, el, html, visible

STORIES = 500
"""So many connections, the worst first, are told in full with a diagram; a page with more is slow to open."""

ROWS = 5000
"""So many have a row in the table."""

# A browser enforces that nothing is fetched and nothing runs, whatever a capture holds.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def page(found: Sequence[Explained], summary: Summary, style: str) -> str:
    """The page.

    Args:
        found: what is listed, worst first.
        summary: of the whole capture.
        style: the style sheet (``page.css`` beside this module).
    """
    return html(
        el(
            "html",
            el(
                "head",
                el("meta", charset="utf-8"),
                el("meta", http_equiv="Content-Security-Policy", content=_POLICY),
                el("meta", name="viewport", content="width=device-width, initial-scale=1"),
                el("title", f"Resets in {summary.files}"),
                el("style", style),
            ),
            el("body", el("main", *_head(summary), _chart(found), _table(found), *_stories(found), _foot())),
            lang="en",
        )
    )


def _head(summary: Summary) -> list[Child]:
    warnings = [
        el("div", *(el("p", words, class_="under") for words in summary.warnings), class_="card warning")
    ]
    return [
        el("div", "Holdfast · explain", class_="brand"),
        el("h1", summary.headline),
        el("p", summary.span, class_="under"),
        el("ul", *(el("li", el("b", figure), name) for figure, name in summary.figures), class_="figures"),
        *(warnings if summary.warnings else []),
        *(el("p", words, class_="under") for words in _not_listed(summary)),
    ]


def _not_listed(summary: Summary) -> list[str]:
    """What the list below lacks on purpose."""
    words = ", ".join(f"{count:,} × {cause}" for cause, count in summary.folded)
    return [*([f"Left out as usual traffic or without effect: {words}."] if words else []), *summary.silent]


def _chart(found: Sequence[Explained]) -> Element | None:
    if not found:
        return None
    shades = colours(found)
    legend = [
        el("li", el("i", class_=f"shade{shade}"), f"{cause} ({sum(one.cause == cause for one in found):,})")
        for cause, shade in shades.items()
    ]
    rest = sum(one.cause not in shades for one in found)
    if rest:
        legend.append(el("li", el("i", class_=f"shade{SHADES}"), f"{OTHERS} ({rest:,})"))
    return el(
        "section",
        el("h2", "Causes over time"),
        el("div", over_time(found, shades), class_="wide"),
        el("ul", *legend, class_="legend"),
        class_="card",
    )


def _table(found: Sequence[Explained]) -> Element:
    if not found:
        return el(
            "section",
            el("h2", "Nothing to list"),
            el("p", "No connection was reset in a way that deserves a line.", class_="under"),
            class_="card",
        )
    rows = [_row(one, at < STORIES) for at, one in enumerate(found[:ROWS])]
    heads = ("Cause", "Sent by", "Client", "Server", "At (UTC)", "Obeyed", "In flight")
    table = el("table", el("thead", el("tr", *(el("th", head) for head in heads))), el("tbody", *rows))
    return el(
        "section",
        el("h2", "Connections, worst first"),
        el("div", table, class_="wide"),
        _left_out(len(found), ROWS, "rows"),
        class_="card",
    )


def _left_out(count: int, shown: int, what: str) -> Element | None:
    if count <= shown:
        return None
    words = f"{count - shown:,} more have no {what} here: narrow the report with --filter, or use --json."
    return el("p", words, class_="under")


def _row(one: Explained, told: bool) -> Element:
    dot = el("span", class_=f"dot {_dot(one.severity)}", title=str(one.severity))
    name: Child = el("a", one.cause, href=f"#{one.id}") if told else one.cause
    unacked = one.unacked_bytes
    return el(
        "tr",
        el("td", dot, name),
        el("td", one.sender, class_=one.sender),
        el("td", str(one.client), class_="ends"),
        el("td", str(one.server), class_="ends"),
        el("td", one.time[11:23], class_="n"),
        el("td", one.obeyed),
        el("td", f"{unacked:,}" if unacked else "", class_="n"),
    )


def _dot(severity: Severity) -> str:
    return "warning-dot" if severity is Severity.WARNING else str(severity)


def _stories(found: Sequence[Explained]) -> list[Child]:
    return [*(_story(one) for one in found[:STORIES]), _left_out(len(found), STORIES, "story")]


def _story(one: Explained) -> Element:
    tags = el("div", *(el("span", f"{name} ", el("b", value), class_="tag") for name, value in facts(one)))
    evidence = el(
        "div",
        el("h4", f"Evidence (signs for another sender than the {one.claimed}: {one.score})"),
        _evidence(one),
    )
    advice = el("div", el("h4", "Do"), _list(one.remedy))
    if one.settle:
        advice.append(el("h4", "What would settle it"))
        advice.append(_list(one.settle))
    if one.why:
        advice.append(el("h4", "What usually leads to it"))
        advice.append(el("ul", el("li", one.why, class_="do")))
    title = el("h3", el("span", class_=f"dot {_dot(one.severity)}"), one.sentence)
    drawn = el("div", sequence(one), class_="wide") if one.steps else None
    return el(
        "section",
        title,
        tags,
        el("div", evidence, advice, class_="columns"),
        drawn,
        class_="card story",
        id=one.id,
    )


def facts(one: Explained) -> list[tuple[str, str]]:
    """Name and value of what is known of a connection, in few words."""
    known = [
        ("cause", one.cause),
        ("sent by", one.sender),
        ("bears the address of", one.claimed),
        ("obeyed", one.obeyed),
        ("at", one.time.replace("T", " ").rstrip("Z")),
    ]
    if one.lifetime_s is not None:
        known.append(("lived", duration(int(one.lifetime_s * 1e9))))
    if one.idle_s is not None:
        known.append(("silent before", duration(int(one.idle_s * 1e9))))
    if one.rtt_us is not None:
        known.append(("round trip", duration(one.rtt_us * 1000)))
    if one.bytes_sent is not None and one.bytes_received is not None:
        known.append(("carried", f"{one.bytes_sent:,} → ← {one.bytes_received:,} bytes"))
    if one.resets > 1:
        known.append(("RSTs", f"{one.resets:,}"))
    if one.zeek_state:
        known.append(("Zeek", f"{one.zeek_state} {one.zeek_history or ''}".strip()))
    for side, label in (("client", one.signature_client), ("server", one.signature_server)):
        if label:
            known.append((f"stage, {side}", label))
    return known


def _evidence(one: Explained) -> Element:
    listed = el("ul")
    for fact in one.evidence:
        item = add(listed, "li")
        kind = "for" if fact.weight > 0 else "against" if fact.weight < 0 else ""
        weight = add(item, "span", f"{fact.weight:+d}" if fact.weight else "·", class_=f"weight {kind}")
        weight.tail = visible(fact.fact)
    return listed


def _list(lines: Sequence[str]) -> Element:
    return el("ul", *(el("li", line, class_="do") for line in lines))


def _foot() -> Element:
    words = (
        "Written by holdfast explain. “In flight” counts bytes seen "
        "and not acknowledged when the RST came. "
        "Nothing on this page was fetched from a network, and nothing will be."
    )
    return el("footer", words)
