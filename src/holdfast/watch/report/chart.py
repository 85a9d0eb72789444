"""The bar chart of causes over time."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from xml.etree.ElementTree import Element

from holdfast.watch.diagnose.explained import Explained
from holdfast.watch.report.markup import add, el

BARS = 60
WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 1040, 190, 44, 26, 10
SHADES = 7
"""So many causes have a colour of their own, the others share one."""

OTHERS = "other causes"
_NICE_S = (
    1e-6,
    1e-5,
    1e-4,
    1e-3,
    2e-3,
    5e-3,
    0.01,
    0.02,
    0.05,
    0.1,
    0.2,
    0.5,
    1,
    2,
    5,
    10,
    15,
    30,
    60,
    120,
    300,
    600,
    900,
    1800,
    3600,
    7200,
    14400,
    21600,
    43200,
    86400,
)


def colours(found: Iterable[Explained]) -> dict[str, int]:
    """The shade of each cause, most frequent first; those beyond the palette are not in it."""
    counts = Counter(one.cause for one in found)
    return {cause: at for at, (cause, _) in enumerate(counts.most_common(SHADES))}


def over_time(found: Sequence[Explained], shades: dict[str, int]) -> Element:
    """Stacked bars, one for each slice of the time in which there were resets."""
    svg = el(
        "svg",
        el("title", "Resets over time, by cause"),
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        class_="chart",
        role="img",
    )
    start_ns, width_ns, bars = slices([one.time_ns for one in found])
    counted: list[Counter[str]] = [Counter() for _ in range(bars)]
    for one in found:
        at = min(bars - 1, (one.time_ns - start_ns) // width_ns)
        counted[at][one.cause if one.cause in shades else OTHERS] += 1
    most = max((bar.total() for bar in counted), default=0) or 1
    _scale(svg, most)
    _times(svg, start_ns, width_ns, bars)
    pitch = (WIDTH - LEFT - 8) / bars
    order = [*shades, OTHERS]
    for at, bar in enumerate(counted):
        y = float(HEIGHT - BOTTOM)
        for cause in order:
            count = bar[cause]
            if not count:
                continue
            tall = count / most * (HEIGHT - BOTTOM - TOP)
            y -= tall
            block = add(
                svg,
                "rect",
                class_=f"bar shade{shades.get(cause, SHADES)}",
                x=LEFT + at * pitch + 1,
                y=y,
                width=max(1.0, min(pitch - 2, 46)),
                height=max(1.0, tall - 1),
                rx=1.5,
            )
            add(block, "title", f"{clock(start_ns + at * width_ns)}: {count} × {cause}")
    return svg


def slices(times_ns: Sequence[int]) -> tuple[int, int, int]:
    """Where the bars begin, how long each is in nanoseconds (a round time), and how many there are."""
    if not times_ns:
        return 0, 1_000_000_000, 1
    first, last = min(times_ns), max(times_ns)
    least_s = (last - first) / 1e9 / BARS
    width_s = next((nice for nice in _NICE_S if nice >= least_s), least_s)
    width_ns = max(1, int(width_s * 1e9))
    start = first // width_ns * width_ns
    return start, width_ns, min(BARS + 1, (last - start) // width_ns + 1)


def _scale(svg: Element, most: int) -> None:
    step = next(
        nice for power in range(19) for nice in (10**power, 2 * 10**power, 5 * 10**power) if most / nice <= 4
    )
    for value in range(0, most + 1, step):
        y = HEIGHT - BOTTOM - value / most * (HEIGHT - BOTTOM - TOP)
        add(svg, "line", class_="grid", x1=LEFT, x2=WIDTH - 8, y1=y, y2=y)
        add(svg, "text", f"{value:,}", class_="tick", x=LEFT - 8, y=y + 4, text_anchor="end")


def _times(svg: Element, start_ns: int, width_ns: int, bars: int) -> None:
    pitch = (WIDTH - LEFT - 8) / bars
    every = max(1, bars // 6)
    fine = width_ns * every < 1_000_000_000
    for at in range(0, bars, every):
        if LEFT + at * pitch > WIDTH - 70:
            break  # it would be cut
        add(
            svg,
            "text",
            clock(start_ns + at * width_ns, fine),
            class_="tick",
            x=LEFT + at * pitch,
            y=HEIGHT - 8,
        )


def clock(ns: int, fine: bool = False) -> str:
    """Time of day in UTC."""
    seconds, rest = divmod(ns, 1_000_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%H:%M:%S}" + (f".{rest // 1_000_000:03d}" if fine else "")
