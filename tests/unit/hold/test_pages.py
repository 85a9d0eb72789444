"""The pages about connecting and retrying agree with the code, and their examples are valid."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dataclasses
import inspect
import re
from pathlib import Path

import pytest

from holdfast.hold.dial import connect, connect_async
from holdfast.hold.race import ATTEMPT_DELAY_S, LEAST_DELAY_S, MOST_DELAY_S
from holdfast.hold.retry import LONGEST_ASKED_S, Retried, Retrying
from holdfast.policy import RetryOn, RetryPolicy

PAGES = Path(__file__).resolve().parents[3] / "docs/reference/hold"
RETRY = (PAGES / "retry.md").read_text(encoding="utf-8")
CONNECT = (PAGES / "connect.md").read_text(encoding="utf-8")


def examples(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", page, re.DOTALL)


@pytest.mark.parametrize("code", examples(RETRY) + examples(CONNECT))
def test_the_examples_are_valid(code: str) -> None:
    exec(compile(code, "example", "exec"), {"__name__": "example"})


def test_every_word_has_a_row() -> None:
    rows = re.findall(r"^\| `([\w-]+)` \|", RETRY.split("## Not twice")[0], re.MULTILINE)
    assert rows == [str(word) for word in RetryOn]


def test_the_words_of_the_default_are_all_but_two() -> None:
    assert set(RetryOn) - RetryPolicy().retry_on == {"5xx", "retriable-status-codes"}


def test_every_argument_is_on_its_page() -> None:
    fields = {field.name for field in dataclasses.fields(Retrying)}
    fields |= {field.name for field in dataclasses.fields(Retried)}
    assert {name for name in fields if not re.search(rf"`?\b{name}\b", RETRY)} == set()
    arguments = set(inspect.signature(connect).parameters) - {"address"}
    assert {name for name in arguments if f"`{name}`" not in CONNECT} == set()


def test_both_ways_to_connect_take_the_same() -> None:
    assert list(inspect.signature(connect).parameters) == list(inspect.signature(connect_async).parameters)


def test_the_numbers_are_those_of_the_code() -> None:
    assert f"The default is {ATTEMPT_DELAY_S:g} s" in CONNECT
    assert f"allows {LEAST_DELAY_S:g} s to {MOST_DELAY_S:g} s" in CONNECT
    policy = RetryPolicy()
    assert f"`deadline_s` ({policy.deadline_s:g} s)" in CONNECT
    assert f"so {policy.retries + 1} rounds" in CONNECT
    assert f"`longest_asked_s`, {LONGEST_ASKED_S:g} s," in RETRY
    first_ms, cap_ms = policy.backoff.first_s * 1000, policy.backoff.cap_s * 1000
    assert f"{first_ms:g} ms at most after the first failure, then doubled up to {cap_ms:g} ms" in RETRY
    assert f"at most {policy.budget.budget_percent:g} % of the requests" in RETRY
    assert f"at least {policy.budget.min_retries}," in RETRY
