"""The runner makes scenarios one by one or side by side and tells of each."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import resource

import pytest

from holdfast.errors import UsageError
from holdfast.lab import SCENARIOS, Made, run

NAMES = ["linger_zero", "closed_port", "socket_destroyed", "accept_queue_overflow"]


@pytest.mark.needs_netns
@pytest.mark.parametrize("parallel", [1, 2])
def test_scenarios_come_back_in_order_each_from_a_network_of_its_own(parallel: int) -> None:
    told: list[Made] = []
    made = list(run(NAMES, 4, 3, told.append, parallel=parallel))
    assert [one.scenario.name for one in made] == NAMES
    assert sorted(one.scenario.name for one in told) == sorted(NAMES)
    assert len({pair for one in made for pair in one.label.pairs}) == 3 * len(NAMES)


@pytest.mark.needs_netns
def test_what_was_made_is_told_with_times_and_counters() -> None:
    [made] = run(["closed_with_unread_data"], 6, 5)
    assert made.family == 6
    assert made.started_mono_ns < made.ended_mono_ns
    assert made.delta("server", "TcpOutRsts") == made.delta("server", "TcpExtTCPAbortOnClose") == 5
    assert made.delta("client", "TcpOutRsts") == 0
    assert made.delta("client", "NoSuchCounter") == 0
    assert made.label.netns == made.netns["server"]


@pytest.mark.needs_netns
def test_counters_of_a_replaced_server_are_those_of_the_new_one() -> None:
    [made] = run(["rebooted_peer"], 4, 2)
    assert made.label.netns == made.netns["server"]
    assert made.delta("server", "TcpOutRsts") == 2


@pytest.mark.needs_netns
@pytest.mark.parametrize("name", ["linger_zero", "duplicate_syn", "fastopen_timeout"])
def test_more_than_a_short_queue_holds_are_made(name: str) -> None:
    [made] = run([name], 4, 300)
    assert len(set(made.label.pairs)) == 300


@pytest.mark.slow
@pytest.mark.needs_netns
@pytest.mark.timeout(300)
def test_a_thousand_of_everything_are_made_with_few_open_files() -> None:
    names = [one.name for one in SCENARIOS.values() if not one.vm_only and 4 in one.families]
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, limit[1]))  # as a login shell has it
    try:
        made = list(run(names, 4, 1000))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limit)
    assert {one.scenario.name: len(one.label.pairs) for one in made} == dict.fromkeys(names, 1000)


def test_an_unknown_name_is_refused_before_anything_is_made() -> None:
    told: list[Made] = []
    with pytest.raises(UsageError, match="no scenario 'nonsense'"):
        list(run(["closed_port", "nonsense"], 4, 1, told.append))
    assert told == []
