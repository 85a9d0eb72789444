# SPDX-License-Identifier: Apache-2.0
"""The page says what was found, escapes what came from outside, and fetches nothing."""

from __future__ import annotations

import importlib.resources
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from captured_flows import START_NS

from holdfast.events import Evidence
from holdfast.watch.diagnose.explained import Explained
from holdfast.watch.diagnose.summary import summarize, worst_first
from holdfast.watch.explain import Explaining
from holdfast.watch.report.chart import slices
from holdfast.watch.report.page import page

LAB = Path(__file__).resolve().parents[2] / "captures/lab"
STYLE = importlib.resources.files("holdfast.watch.report").joinpath("page.css").read_text(encoding="utf-8")
HOSTILE = "<script>alert(1)</script>\"'&\x1b[31m\0\ud800"


def report(*scenarios: str, change: dict[str, object] | None = None) -> str:
    told = Explaining([[str(LAB / f"{name}.client.pcap") for name in scenarios]]).run()
    found = [one._replace(**(change or {})) for one in told.found]  # type: ignore[arg-type]
    listed = worst_first(found)
    return page(listed, summarize(["a capture"], told.reads, found, listed), STYLE)


class Tags(HTMLParser):
    """Every tag and attribute, and whether each that opens is closed."""

    VOID = ("meta", "br", "hr", "img", "input", "link")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_every_connection_has_a_row_a_story_and_a_diagram() -> None:
    text = report("injected", "keepalive_race", "closed_with_unread_data")
    tags = Tags(text).seen
    assert sum(tag == "section" and "story" in (of.get("class") or "") for tag, of in tags) == 3
    assert sum(of.get("class") == "sequence" for _, of in tags) == 3
    links = [of["href"] for tag, of in tags if tag == "a"]
    ids = {of["id"] for _, of in tags if "id" in of}
    assert len(links) == 3 and {str(link).removeprefix("#") for link in links} == ids


def test_what_decided_is_marked() -> None:
    text = report("injected")
    assert text.count('class="mark"') == 2  # the RST, and the server's data after it
    assert "talks on after “its” RST" in text and "other TTL" in text
    assert "somebody between" in text and "somebody between" not in report("keepalive_race")


def test_the_page_fetches_nothing_and_runs_nothing() -> None:
    tags = Tags(report("injected", "keepalive_race")).seen
    assert not {"script", "link", "img", "iframe", "object", "base", "form"} & {tag for tag, _ in tags}
    assert not [key for _, of in tags for key in of if key.startswith("on") or key in ("src", "srcset")]
    assert all(str(of["href"]).startswith("#") for _, of in tags if "href" in of)
    assert not re.search(r"url\(|@import", STYLE)
    assert {of.get("content") for tag, of in tags if tag == "meta"} >= {
        "default-src 'none'; style-src 'unsafe-inline'"
    }


def test_what_came_from_outside_stays_text() -> None:
    change = {"stated": HOSTILE, "evidence": (Evidence(HOSTILE, 1),), "file": HOSTILE, "settle": (HOSTILE,)}
    text = report("injected", change=change)
    assert "<script" not in text and "&lt;script&gt;" in text
    assert not {"\x1b", "\0"} & set(text)
    text.encode("utf-8")
    Tags(text)


def test_a_page_about_nothing_says_so() -> None:
    text = report("orderly_end")
    assert "No connection was reset in a way that deserves a line." in text and "<svg" not in text


def test_a_page_about_very_many_tells_the_worst_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("holdfast.watch.report.page.STORIES", 7)
    told = Explaining([[str(LAB / "injected.client.pcap")]]).run()
    many = [told.found[0]._replace(time_ns=START_NS + at) for at in range(27)]
    text = page(many, summarize(["x"], told.reads, many, many), STYLE)
    assert text.count('class="card story"') == 7
    assert "20 more have no story here" in text


@pytest.mark.parametrize("span_s", [0, 1e-6, 0.3, 7, 100, 86_400, 3e6, 1e9])
def test_the_bars_cover_the_time_in_round_steps(span_s: float) -> None:
    times = [START_NS, START_NS + int(span_s * 1e9)]
    start, width, bars = slices(times)
    assert start <= times[0] and times[1] < start + width * bars + (span_s > 5e6) * width
    assert 1 <= bars <= 61


def explained() -> Explained:
    return Explaining([[str(LAB / "injected.client.pcap")]]).run().found[0]


def test_the_first_of_the_list_is_the_worst() -> None:
    mild, grave = explained()._replace(severity="info"), explained()  # type: ignore[arg-type]
    more = grave._replace(unacked_bytes=9)
    assert worst_first([mild, grave, more]) == [more, grave, mild]
