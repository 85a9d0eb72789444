"""The examples of the pages about receiving run as they are printed, and the pages name all there is."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dataclasses
import gc
import inspect
import re
import warnings
from collections.abc import Callable, Iterator
from errno import ECONNRESET
from pathlib import Path
from typing import Any

import pytest

import holdfast
from holdfast import Connection, ConnectionReset, Explanation, HoldfastError, Stream
from holdfast.errors import Loss
from holdfast.hold import datagrams, stream
from holdfast.hold.log import BURST, LOGGER, PER_SECOND, log_loss

ROOT = Path(__file__).resolve().parents[3]
HOLD = ROOT / "docs/reference/hold"
PAGES = [
    *(
        HOLD / f"{page}.md"
        for page in (
            "recv",
            "recv_into",
            "sendall",
            "connection",
            "stream",
            "session",
            "errors",
            "flags",
            "tuning",
            "apply",
            "effective",
            "fast_open",
            "connect_async",
            "wrap",
            "serve",
            "recv_batch",
            "send_batch",
            "enable_gro",
        )
    ),
    ROOT / "docs/howto/choose-keepalive.md",
    ROOT / "docs/howto/connection-reset-in-python.md",
    ROOT / "docs/howto/survive-resets-with-sessions.md",
    ROOT / "docs/explanation/recv-and-resets.md",
    ROOT / "README.md",
]
ERRORS = [
    each
    for name in holdfast.__all__
    if inspect.isclass(each := getattr(holdfast, name)) and issubclass(each, HoldfastError)
]


def text(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def programs(page: Path) -> Iterator[str]:
    """The examples of a page, each at its own line numbers."""
    for found in re.finditer(r"```python\n(.*?)```", text(page), re.DOTALL):
        yield "\n" * text(page).count("\n", 0, found.start(1)) + found[1]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_examples_run_and_leave_nothing_open(page: Path) -> None:
    """In their order, as one program: what they promise, they assert."""
    names: dict[str, Any] = {"__name__": "example"}
    gc.collect()  # what earlier tests have left
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", ResourceWarning)
        for code in programs(page):
            exec(compile(code, str(page), "exec"), names)
        names.clear()
        gc.collect()
    assert [str(one.message) for one in told if one.category is ResourceWarning] == []


def test_the_example_of_the_readme_asks_and_gets_an_answer(capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {"__name__": "example"}
    for code in programs(ROOT / "README.md"):
        exec(compile(code, "README.md", "exec"), names)
    practice: dict[str, Any] = {"__name__": "example"}
    exec(next(programs(ROOT / "docs/howto/connection-reset-in-python.md")), practice)
    assert names["ask"](practice["start"](resets=0), b"hello\n") == b"HELLO\n"
    with pytest.raises(ConnectionReset):
        names["ask"](practice["start"](resets=1), b"hello\n")
    assert "unrecognised_sender 127.0.0.1:" in capsys.readouterr().out


def public(kind: type) -> set[str]:
    return {name for name in vars(kind) if not name.startswith("_")}


def described(page: Path) -> set[str]:
    """What a page gives a heading, or a row of its attributes."""
    rows = text(page).split("\n## Attributes\n")[1].split("\n## ")[0]
    cells = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \|", rows, re.MULTILINE)
    return set(re.findall(r"^### (\w+)$", text(page), re.MULTILINE)) | set(
        re.findall(r"\w+", " ".join(cells))
    )


def test_every_part_of_a_connection_is_described() -> None:
    assert described(HOLD / "connection.md") == public(Connection) | {"local", "peer", "error"}


def test_every_part_of_a_stream_is_described() -> None:
    assert described(HOLD / "stream.md") == public(Stream) | {"protocol"}


def printed(call: Callable[..., Any]) -> str:
    """A signature as the pages print it: names and defaults."""
    parameters = inspect.signature(call).parameters.values()
    plain = [one.replace(annotation=one.empty) for one in parameters if one.name != "self"]
    return f"{call.__name__}{inspect.Signature(plain)}"


@pytest.mark.parametrize("name", ["recv", "recv_into", "sendall"])
def test_the_signature_of_a_function_is_on_its_page(name: str) -> None:
    assert f"`holdfast.{printed(getattr(holdfast, name))}`" in text(HOLD / f"{name}.md")


@pytest.mark.parametrize("kind", [Connection, Stream])
def test_the_signature_of_each_method_is_on_the_page(kind: type) -> None:
    calls = [call for name, call in vars(kind).items() if name in public(kind) and inspect.isfunction(call)]
    page = text(HOLD / f"{kind.__name__.lower()}.md")
    assert [printed(call) for call in calls if f"{printed(call)}`" not in page] == []


@pytest.mark.parametrize("name", ["wrap", "serve"])
def test_the_signatures_of_the_makers_of_a_stream_are_on_their_pages(name: str) -> None:
    assert f"`await holdfast.{printed(getattr(stream, name))}`" in text(HOLD / f"{name}.md")


@pytest.mark.parametrize("name", ["recv_batch", "send_batch", "enable_gro"])
def test_the_signatures_of_the_calls_for_datagrams_are_on_their_pages(name: str) -> None:
    call = f"`holdfast.hold.datagrams.{printed(getattr(datagrams, name))}`"
    assert call in text(HOLD / f"{name}.md")


@pytest.mark.parametrize("name", [*holdfast.__all__, *datagrams.__all__])
def test_every_public_function_has_a_page_of_its_own(name: str) -> None:
    call = getattr(holdfast, name, None) or getattr(datagrams, name)
    if inspect.isroutine(getattr(call, "__wrapped__", call)):
        assert text(HOLD / f"{name}.md").lower().startswith(f"# {name}\n")


@pytest.mark.parametrize("kind", ERRORS, ids=lambda kind: kind.__name__)
def test_every_error_has_a_heading_and_says_which_builtin_it_is(kind: type[HoldfastError]) -> None:
    if kind is HoldfastError:
        return
    sections = text(HOLD / "errors.md").split(f"\n### {kind.__name__}\n")
    assert len(sections) == 2
    section = re.split(r"\n##", sections[1])[0]
    nearest = next((one for one in kind.__bases__ if one.__module__ == "builtins"), None)
    said = re.search(r"Also an? `(\w+)`", section)
    assert (said and said[1]) == (nearest and nearest.__name__)


def test_every_field_of_an_error_is_described() -> None:
    page = text(HOLD / "errors.md")
    losses = {field.name for field in dataclasses.fields(Loss)}
    explained = {field.name for field in dataclasses.fields(Explanation)}
    fields = {"basis", "remedy", "sent_bytes", "partial", "loss", "confirmed_bytes", "wanted", "limit_bytes"}
    fields |= {"losses", "why", "feature", "needs"} | losses | explained
    assert {field for field in fields if f"`{field}`" not in page} == set()


def test_the_limits_of_logging_are_those_of_the_code() -> None:
    assert PER_SECOND == 1
    assert f"At most {BURST} at once and then one in a second" in text(HOLD / "errors.md")


def test_every_field_of_a_log_record_is_described(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("WARNING", LOGGER.name)
    log_loss(ConnectionReset(Loss(ECONNRESET, "unrecognised_sender")))
    fields = {name for name in vars(caplog.records[0]) if name.startswith("holdfast_")}
    assert {name for name in fields if f"`{name}`" not in text(HOLD / "errors.md")} == set()
