# SPDX-License-Identifier: Apache-2.0
"""How often made-up resets are told right, however harshly a capture treats them: for the documentation.

.venv/bin/python -m bench.explain_recall
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from random import Random
from typing import NamedTuple

from holdfast.lab.capture_file import pcap
from holdfast.lab.segment import build
from holdfast.lab.traffic import KINDS, Connection, Harshness, connections, disturbed
from holdfast.watch.explain import Explaining

BY_OTHERS = ("firewall", "ladder", "spoofed", "two_answers", "both_ways", "blind")
"""Kinds in which somebody else than the two ends sent the RST."""

EACH, SEED = 400, 2026

COLUMNS = {
    "none": Harshness(),
    "1 % lost": Harshness(lost=0.01),
    "5 % lost": Harshness(lost=0.05),
    "1 % swapped": Harshness(swapped=0.01),
    "5 % swapped": Harshness(swapped=0.05),
    "1 % copied": Harshness(copied=0.01),
    "5 % copied": Harshness(copied=0.05),
    "5 % detoured": Harshness(detoured=0.05),
}
"""What the capture does to the segments, by the heading of its column."""


class Measured(NamedTuple):
    """Shares of one capture, by kind of connection, between 0 and 1, and how many were accused wrongly."""

    senders: dict[str, float]
    causes: dict[str, float]
    unverifiable: dict[str, float]
    wrong: dict[str, float]
    falsely_injected: int


def measured(made: Iterable[Connection], harsh: Harshness, seed: int) -> Measured:
    """Write a capture of these connections, explain it, and hold it against the truth."""
    chance, truth = Random(seed), {}
    rows: list[tuple[int, bytes]] = []
    for one in made:
        truth[one.client, one.server] = one
        rows += [(sent.time_ns, build(sent.segment)) for sent in disturbed(one.segments, harsh, chance)]
    rows.sort(key=lambda row: row[0])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "made.pcap"
        path.write_bytes(pcap(rows))
        told = Explaining([[str(path)]]).run().found
    found = {(one.client, one.server): one for one in told}
    found |= {(one.server, one.client): one for one in told}
    total: Counter[str] = Counter()
    counts: dict[str, Counter[str]] = {name: Counter() for name in ("sender", "cause", "unknown", "wrong")}
    falsely = 0
    for ends, one in truth.items():
        total[one.kind] += 1
        said = found.get(ends)
        sender = said.sender if said is not None else None
        falsely += one.sender != "path" and said is not None and said.cause == "injected"
        counts["sender"][one.kind] += sender == one.sender
        counts["cause"][one.kind] += said.cause in one.causes if said is not None else not one.causes
        counts["unknown"][one.kind] += sender in ("unknown", None) and sender != one.sender
        counts["wrong"][one.kind] += sender not in ("unknown", None, one.sender)
    shares = [{kind: counts[name][kind] / total[kind] for kind in KINDS} for name in counts]
    return Measured(*shares, falsely)


def main() -> None:
    """Print the tables in Markdown."""
    results = {name: measured(connections(SEED, EACH), harsh, SEED) for name, harsh in COLUMNS.items()}
    for title, pick in (("Sender named rightly", 0), ("Cause named rightly", 1), ("Sender named wrongly", 3)):
        print(f"\n{title}, % of {EACH} connections of each kind\n")
        print(f"| kind | {' | '.join(COLUMNS)} |\n|---|{'---:|' * len(COLUMNS)}")
        for kind in KINDS:
            cells = [f"{100 * results[name][pick][kind]:.1f}".removesuffix(".0") for name in COLUMNS]  # type: ignore[index, call-overload]
            print(f"| `{kind}` | {' | '.join(cells)} |")
    honest = EACH * sum(kind not in BY_OTHERS for kind in KINDS)
    print(f"\nCalled `injected` although an end sent it, of {honest:,}: ", end="")
    print(", ".join(f"{name}: {result.falsely_injected}" for name, result in results.items()))


if __name__ == "__main__":
    main()
