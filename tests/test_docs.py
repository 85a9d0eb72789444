# SPDX-License-Identifier: Apache-2.0
"""The documentation agrees with the code and with itself."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType

import pytest

from holdfast.causes import CAUSES, NOISE, Basis, Direction, Ending, Severity, Trigger
from holdfast.events import Endpoint, Event, Harm, Kind, Reset
from holdfast.hold.fastopen import Outcome
from holdfast.lab import SCENARIOS, Label, Made
from holdfast.lab.matrix import Pairing
from holdfast.linux.counters import REFUSALS
from holdfast.linux.findings import CODES, Moved
from holdfast.linux.inspection import inspection
from holdfast.linux.sock_diag import TIMERS, Socket
from holdfast.linux.socket_queues import SocketMemory
from holdfast.linux.tcp_info import Options, TcpInfo
from holdfast.policy import PROFILES, SocketPolicy
from holdfast.watch.diagnose.totals import folded_json
from holdfast.watch.kernel.abilities import ABILITIES

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
CAUSES_PAGE = DOCS / "reference/causes.md"
JSON_PAGE = DOCS / "reference/json.md"
TUNING_PAGE = DOCS / "reference/hold/tuning.md"
INSPECT_PAGE = DOCS / "reference/inspect.md"


def text(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def headings(page: Path) -> list[str]:
    return re.findall(r"^#+ (.+)$", text(page), re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives to the headings of a page."""
    plain = [re.sub(r"[^\w\- ]", "", heading).strip().lower() for heading in headings(page)]
    return {heading.replace(" ", "-") for heading in plain}


def first_cells(section: str, page: Path) -> list[str]:
    """The words in code in the first cells of the tables of one section."""
    body = text(page).split(f"\n{section}\n", 1)[1]
    body = re.split(r"^#", body, maxsplit=1, flags=re.MULTILINE)[0]
    cells = re.findall(r"^\| (`[^|]+`) \|", body, re.MULTILINE)
    return [word for cell in cells for word in re.findall(r"`(\w+)`", cell)]


def json_tables(section: str, page: Path = JSON_PAGE) -> set[str]:
    """The keys in the tables of one section of json.md, or of another page."""
    return set(first_cells(section, page))


def example() -> dict[str, object]:
    found = re.search(r"```json\n(.*?)```", text(JSON_PAGE), re.DOTALL)
    assert found is not None
    record = json.loads(found[1])
    assert isinstance(record, dict)
    return record


def load_generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("holdfast_docs", ROOT / "tools/docs.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_generated_pages_are_up_to_date() -> None:
    assert load_generator().stale() == [], "run: make docs"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", text(page)):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        goal = (page.parent / path).resolve() if path else page
        assert goal.is_file(), f"{page.name} links to {target}, which does not exist"
        assert not anchor or anchor in anchors(goal), f"{page.name} links to {target}: no such heading"


def test_every_page_is_reachable_from_the_index() -> None:
    seen: set[Path] = set()
    todo = [DOCS / "index.md"]
    while todo:
        page = todo.pop()
        if page in seen:
            continue
        seen.add(page)
        links = re.findall(r"\]\(([^)#]+\.md)", text(page))
        todo += [(page.parent / link).resolve() for link in links if not link.startswith("https://")]
    assert set(PAGES) <= seen


@pytest.mark.parametrize("name", [*CAUSES, *NOISE])
def test_each_cause_and_noise_class_has_one_heading(name: str) -> None:
    assert headings(CAUSES_PAGE).count(name) == 1


@pytest.mark.parametrize("name", [ability.name for ability in ABILITIES])
def test_each_ability_has_one_heading(name: str) -> None:
    assert headings(DOCS / "reference/compatibility.md").count(name) == 1


@pytest.mark.parametrize("name", PROFILES)
def test_each_profile_has_one_heading(name: str) -> None:
    assert headings(TUNING_PAGE).count(name) == 1


@pytest.mark.parametrize("setting", [field.name for field in dataclasses.fields(SocketPolicy)])
def test_each_setting_of_a_socket_is_documented(setting: str) -> None:
    section = text(TUNING_PAGE).split("\n## SocketPolicy\n")[1].split("\n## ")[0]
    assert section.count(f"\n| `{setting}` | ") == 1


@pytest.mark.parametrize("outcome", Outcome)
def test_each_outcome_of_fast_open_is_documented(outcome: Outcome) -> None:
    assert text(DOCS / "reference/hold/fast_open.md").count(f"\n| `{outcome}` | ") == 1


def test_the_guide_shows_what_an_explanation_says() -> None:
    assert PROFILES["azure-lb"].explain() in text(DOCS / "howto/choose-keepalive.md")


def test_every_field_of_a_record_is_documented() -> None:
    documented = (
        json_tables("## What happened") | json_tables("## Who and why") | json_tables("## The connection")
    )
    fields = {field.name for field in dataclasses.fields(Reset)} - {"netns"}  # shown inside owner
    assert documented == fields | {"schema"}
    assert set(example()) == documented


def test_the_parts_of_a_record_are_documented() -> None:
    owner, harm = example()["owner"], example()["harm"]
    assert isinstance(owner, dict) and isinstance(harm, dict)
    assert json_tables("### `owner`") == set(owner)
    assert json_tables("### `harm`") == set(harm) == {field.name for field in dataclasses.fields(Harm)}


def test_what_was_folded_is_documented() -> None:
    nowhere = Endpoint("::", 0)
    group = folded_json(Event(Kind.RESET_RECEIVED, 0, nowhere, nowhere), 1)
    assert json_tables("## What was folded") == {"schema", "folded"} | set(group)


def test_every_key_of_an_inspected_socket_is_documented() -> None:
    record = inspection("", Socket("::", 1, "::", 2, None, 0, 0, 0)).as_json()
    assert json_tables("### Sockets", INSPECT_PAGE) == set(record)
    assert json_tables("### `memory`", INSPECT_PAGE) == {one.name for one in dataclasses.fields(SocketMemory)}
    assert json_tables("### `tcp_info`", INSPECT_PAGE) == set(TcpInfo().known())


def test_every_finding_and_counter_of_inspect_is_documented_once() -> None:
    assert first_cells("## Findings", INSPECT_PAGE) == list(CODES)
    assert first_cells("## What was refused", INSPECT_PAGE) == [one.name for one in REFUSALS]


@pytest.mark.parametrize("word", [*Options.__members__, *TIMERS.values(), *Moved._fields])
def test_every_word_of_an_inspected_socket_is_documented(word: str) -> None:
    assert f"`{word.lower()}`" in text(INSPECT_PAGE)


def test_the_objects_of_the_lab_are_documented() -> None:
    label = Label("closed_port", "local", Direction.SENT, None, 1, ())
    made = Made(SCENARIOS["closed_port"], 4, label, 0, 0, {}, {}, {})
    assert json_tables("## Records of the lab") == set(Pairing(made, None).as_json())


@pytest.mark.parametrize(
    "words", [Ending, Direction, Trigger, Basis, Severity], ids=lambda words: words.__name__
)
def test_every_word_of_a_record_is_documented(words: type[Ending]) -> None:
    for word in words:
        assert f"`{word}`" in text(JSON_PAGE)


def test_the_example_uses_the_vocabulary() -> None:
    record = example()
    row = CAUSES[str(record["cause"])]
    assert record["kernel_reason"] in row.kernel_reasons
    assert record["severity"] == row.severity
    assert record["noise"] is row.noise
    assert (
        Ending(str(record["ending"])) and Direction(str(record["direction"])) and Basis(str(record["basis"]))
    )


def test_the_readme_counts_the_causes() -> None:
    assert f"one table of {len(CAUSES)} rows" in " ".join(text(ROOT / "README.md").split())


def test_thirteen_traps_are_explained() -> None:
    page = DOCS / "explanation/why-the-kernels-word-is-not-enough.md"
    numbers = [int(number) for number in re.findall(r"^## T(\d+)\. ", text(page), re.MULTILINE)]
    assert numbers == list(range(1, 14))
    assert text(page).count("**Holdfast**") == 13
