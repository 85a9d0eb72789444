"""The sequence diagram of a connection's last segments: who sent what, and what the verdict rests on."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import itertools
from collections.abc import Sequence
from xml.etree.ElementTree import Element

from holdfast.watch.diagnose.explained import Explained, Step
from holdfast.watch.diagnose.words import duration, flag_words
from holdfast.watch.report.markup import add, el

WIDTH, TOP, STEP, SLANT, GAP = 780, 58, 37, 9, 24
LEFT, RIGHT = 150, 560
MIDDLE = (LEFT + RIGHT) // 2

SILENCE_NS = 500_000_000
"""A pause as long as this gets a line of its own."""

RST = 0x04


def sequence(one: Explained) -> Element:
    """The last segments of one connection, oldest first, as SVG; the RST in red, deciding segments marked."""
    pauses = _pauses(one.steps)
    height = TOP + len(one.steps) * STEP + len(pauses) * GAP + 16
    svg = el(
        "svg",
        el("title", f"Last segments between {one.client} and {one.server}"),
        viewBox=f"0 0 {WIDTH} {height}",
        class_="sequence",
        role="img",
    )
    from_path = one.sender == "path"
    _lifelines(svg, one, height, from_path)
    y: float = TOP
    for at, step in enumerate(one.steps):
        if at in pauses:
            add(
                svg,
                "text",
                f"⋮ {duration(pauses[at])} of silence",
                class_="pause",
                x=MIDDLE,
                y=y + 6,
                text_anchor="middle",
            )
            y += GAP
        forged = from_path and bool(step.flags & RST) and step.source == one.claimed
        _arrow(svg, step, y, one.steps[0].time_ns, forged)
        y += STEP
    return svg


def _pauses(steps: Sequence[Step]) -> dict[int, int]:
    """Index of the segment that ended a pause, and its length in nanoseconds."""
    return {
        at: later.time_ns - earlier.time_ns
        for at, (earlier, later) in enumerate(itertools.pairwise(steps), 1)
        if later.time_ns - earlier.time_ns >= SILENCE_NS
    }


def _lifelines(svg: Element, one: Explained, height: float, from_path: bool) -> None:
    for x, name, end in ((LEFT, "client", one.client), (RIGHT, "server", one.server)):
        add(svg, "line", class_="life", x1=x, y1=38, x2=x, y2=height - 8)
        add(svg, "text", name, class_="who", x=x, y=14, text_anchor="middle")
        add(svg, "text", str(end), class_="end", x=x, y=30, text_anchor="middle")
    if from_path:
        add(svg, "line", class_="life path", x1=MIDDLE, y1=38, x2=MIDDLE, y2=height - 8)
        add(svg, "text", "path", class_="who path", x=MIDDLE, y=14, text_anchor="middle")
        add(svg, "text", "somebody between", class_="end path", x=MIDDLE, y=30, text_anchor="middle")


def _arrow(svg: Element, step: Step, y: float, start_ns: int, forged: bool) -> None:
    begin, end = (LEFT, RIGHT) if step.source == "client" else (RIGHT, LEFT)
    if forged:
        begin = MIDDLE
    kind = "rst" if step.flags & RST else "fin" if step.flags & 0x01 else "data" if step.payload_bytes else ""
    group = add(svg, "g", class_=f"step {kind}{' deciding' if step.deciding else ''}")
    if step.deciding:
        add(group, "rect", class_="mark", x=4, y=y - 15, width=WIDTH - 8, height=STEP - 3, rx=5)
    add(
        group, "text", _since(step.time_ns - start_ns), class_="time", x=LEFT - 14, y=y + 3, text_anchor="end"
    )
    tip = end - 7 if end > begin else end + 7
    add(group, "line", class_="shaft", x1=begin, y1=y, x2=tip, y2=y + SLANT)
    add(group, "path", class_="tip", d=_tip(end, y + SLANT, 1 if end > begin else -1))
    if step.flags & RST:
        add(group, "text", "✕", class_="cross", x=begin, y=y + 5, text_anchor="middle")
    # Beside the middle line if there is one, so that the two never cross.
    centre = (begin + end) / 2
    add(group, "text", _label(step), class_="label", x=centre, y=y - 3, text_anchor="middle")
    facts = f"ttl {step.ttl}" + (f"  id {step.ip_id}" if step.ip_id is not None else "")
    add(group, "text", facts, class_="facts", x=RIGHT + 16, y=y - 2 if step.note else y + 3)
    if step.note:
        add(group, "text", step.note, class_="note", x=RIGHT + 16, y=y + 12)


def _tip(x: float, y: float, way: int) -> str:
    return f"M{x:g} {y:g} l{-8 * way} -4.5 l0 8.5 z"


def _label(step: Step) -> str:
    span = f"{step.seq}:{step.seq + step.payload_bytes}" if step.payload_bytes else f"{step.seq}"
    ack = f" ack {step.ack}" if step.ack is not None else ""
    window = f" win {step.window}" if step.flags & RST else ""
    return f"{flag_words(step.flags)}  {span}{ack}{window}"


def _since(ns: int) -> str:
    return f"{ns / 1e9:+.6f} s" if ns else "0 s"
