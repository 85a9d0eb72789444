# SPDX-License-Identifier: Apache-2.0
"""The table of kernel abilities is ordered, complete and well worded."""

from __future__ import annotations

import re

import pytest

from holdfast.watch.kernel.abilities import (
    ABILITIES,
    BY_NAME,
    KernelAbility,
    expected,
    missing,
    parse_release,
)

# What the code and the documentation refer to.
SINCE = {
    "reset_tracepoints": (4, 15),
    "state_tracepoint": (4, 16),
    "ring_buffer": (5, 8),
    "existing_sockets": (5, 11),
    "received_segment": (5, 11),
    "error_tracepoint": (5, 14),
    "drop_reason": (5, 17),
    "resets_without_socket": (6, 10),
    "passive_reason": (6, 10),
    "active_reason": (6, 12),
    "nullable_arguments": (6, 14),
}


def test_the_versions_are_these() -> None:
    assert {ability.name: ability.since for ability in ABILITIES} == SINCE
    assert len(BY_NAME) == len(ABILITIES)


def test_oldest_first() -> None:
    assert [ability.since for ability in ABILITIES] == sorted(ability.since for ability in ABILITIES)


@pytest.mark.parametrize("ability", ABILITIES, ids=lambda ability: ability.name)
def test_wording(ability: KernelAbility) -> None:
    assert re.fullmatch(r"[a-z]+(_[a-z]+)*", ability.name)
    for sentence in (ability.tells, ability.without):
        assert sentence[0].isupper() and sentence.endswith(".")
    assert not ability.found_by.endswith(".")


@pytest.mark.parametrize(
    ("release", "version"),
    [("6.1.0-13-amd64", (6, 1)), ("6.18.44", (6, 18)), ("5.10.0+", (5, 10)), ("7.0-rc1", (7, 0))],
)
def test_release_strings(release: str, version: tuple[int, int]) -> None:
    assert parse_release(release) == version


def test_a_release_without_a_version_is_refused() -> None:
    with pytest.raises(ValueError, match="generic"):
        parse_release("generic")


def test_debian_12_knows_no_reasons() -> None:
    lost = {ability.name for ability in missing((6, 1))}
    assert lost == {
        "resets_without_socket",
        "passive_reason",
        "active_reason",
        "nullable_arguments",
    }


def test_expected_and_missing_divide_the_table() -> None:
    for version in [(3, 10), (5, 4), (6, 1), (6, 10), (6, 12), (6, 18)]:
        assert {*expected(version), *missing(version)} == set(ABILITIES)
        assert not {*expected(version)} & {*missing(version)}
    assert missing((6, 18)) == ()
    assert expected((3, 10)) == ()
