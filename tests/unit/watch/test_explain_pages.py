# SPDX-License-Identifier: Apache-2.0
"""The pages about explain agree with the code, with the lab and with themselves."""

from __future__ import annotations

import json
import re
from pathlib import Path

import click
import pytest
from lab_known import KNOWN, Verdict

from holdfast.cli.explain import command
from holdfast.lab.traffic import KINDS
from holdfast.watch.diagnose import across, signs
from holdfast.watch.diagnose.choose import _KEYS
from holdfast.watch.diagnose.received import INJECTED_SCORE, SUSPECT_SCORE
from holdfast.watch.explain import RECORDS, WINDOWS, Explaining
from holdfast.watch.remembered import CONNECTIONS
from holdfast.watch.report.page import ROWS, STORIES

DOCS = Path(__file__).resolve().parents[3] / "docs"
LAB = Path(__file__).resolve().parents[2] / "captures/lab"
REFERENCE = (DOCS / "reference/explain.md").read_text()
KNOWABLE = (DOCS / "explanation/what-a-capture-can-know.md").read_text()


def section(page: str, heading: str) -> str:
    """The text from a heading to the next of its rank or higher."""
    rank = heading.index(" ")
    body = page.split(f"\n{heading}\n", 1)[1]
    return re.split(rf"^#{{1,{rank}}} ", body, maxsplit=1, flags=re.MULTILINE)[0]


def first_cells(text: str) -> list[str]:
    cells = re.findall(r"^\| (`[^|]+`|–)(?: \|)", text, re.MULTILINE)
    return [word for cell in cells for word in re.findall(r"`([^`]+)`", cell)]


def test_every_key_of_a_record_is_documented_once() -> None:
    (record,) = Explaining([[str(LAB / "injected.client.pcap")]]).run().found
    assert sorted(first_cells(section(REFERENCE, "## JSON"))) == sorted(record.as_json())
    json.dumps(record.as_json())


def test_every_option_is_documented() -> None:
    options = [one.opts[-1] for one in command.params if isinstance(one, click.Option)]
    documented = [cell.split()[0] for cell in first_cells(REFERENCE.split("## Exit codes")[0])]
    assert sorted(documented) == sorted(["FILE...", *options])


def test_every_filter_is_documented() -> None:
    assert sorted(first_cells(section(REFERENCE, "## Filters"))) == sorted(_KEYS)


@pytest.mark.parametrize("bound", [RECORDS, WINDOWS, CONNECTIONS, STORIES, ROWS])
def test_every_bound_is_documented(bound: int) -> None:
    assert f"{bound:,}" in section(REFERENCE, "## Bounds")


def test_the_thresholds_are_documented() -> None:
    words = section(REFERENCE, "## Signs")
    assert f"From {INJECTED_SCORE} on" in words and f"from {SUSPECT_SCORE} on" in words
    assert signs.BOTH_SIDES_NS == 5_000_000 and across.BURST_NS == 10_000_000


def cell(verdict: Verdict) -> str:
    if verdict is None:
        return "nothing"
    cause, sender = verdict
    return f"`{cause}`, {'unverifiable' if sender == 'unknown' else sender}"


def test_the_table_of_places_is_the_one_that_the_captures_are_held_against() -> None:
    labels = json.loads((LAB / "labels.json").read_text())
    rows = re.findall(r"^\| `(\w+)` \| (`\w+`, \w+) \| (.+) \| (.+) \|$", KNOWABLE, re.MULTILINE)
    expected = [
        (
            name,
            f"`{labels[name]['cause']}`, {labels[name]['sender']}",
            cell(known.client),
            "the same" if known.server == "the same" else cell(known.at("server")),
        )
        for name, known in KNOWN.items()
    ]
    assert rows == expected


def test_the_tables_of_recall_have_every_kind() -> None:
    for heading in re.findall(r"^### (?:Sender|Cause) named.+$", KNOWABLE, re.MULTILINE):
        assert re.findall(r"^\| `(\w+)` \|", section(KNOWABLE, heading), re.MULTILINE) == list(KINDS)
