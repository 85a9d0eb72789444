"""Retries cannot multiply an overload."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import sys
import threading

import pytest
from unit.hold.retried import Call, Peer, by_loop, every_way, reset, terms

from holdfast.errors import GaveUp, ReplayRefused
from holdfast.hold.retry import Budget
from holdfast.policy import Backoff, RetryBudget, RetryPolicy


def spent_budget() -> Budget:
    return Budget(RetryBudget(min_retries=0, budget_percent=0))


@every_way
def test_a_spent_budget_ends_it(call: Call) -> None:
    peer = Peer(reset())
    with pytest.raises(GaveUp, match="the retry budget is spent"):
        call(terms(budget=spent_budget()), peer)
    assert peer.calls == 1


def test_a_budget_counts_for_all_who_share_it() -> None:
    budget = Budget(RetryBudget(min_retries=2, budget_percent=0))
    assert by_loop(terms(budget=budget), Peer(reset(), reset(), "here")) == "here"
    with pytest.raises(GaveUp, match="the retry budget is spent"):
        by_loop(terms(budget=budget), Peer(reset()))


def test_a_budget_is_not_asked_for_what_is_not_retried_anyway() -> None:
    budget = Budget(RetryBudget(min_retries=1, budget_percent=0))
    with pytest.raises(ReplayRefused):
        by_loop(terms(budget=budget, idempotent=False), Peer(reset()))
    assert by_loop(terms(budget=budget), Peer(reset(), "here")) == "here"


def test_a_lone_request_may_make_all_its_retries() -> None:
    policy = RetryPolicy(retries=20, backoff=Backoff(first_s=0.001, cap_s=0.001))
    peer = Peer(*[reset() for _ in range(20)], "here")
    assert by_loop(terms(policy=policy), peer) == "here"


def test_the_calls_of_one_decorated_function_share_a_budget() -> None:
    peer = Peer(*[reset() for _ in range(20)])
    fetch = terms()(peer.__call__)
    whys = []
    for _ in range(3):
        with pytest.raises(GaveUp) as caught:
            fetch()
        whys.append((len(caught.value.losses), caught.value.why))
    spent = "the retry budget is spent"
    # 3 retries are the floor, and 20 % of three requests are none.
    assert whys == [(4, "all retries that the policy allows were made"), (1, spent), (1, spent)]


def test_threads_share_a_budget_exactly() -> None:
    budget = Budget(RetryBudget(min_retries=500, budget_percent=0))
    start, granted = threading.Barrier(4), []

    def spend() -> None:
        start.wait()
        granted.append(sum(budget.retry(1000.0) for _ in range(400)))

    threads = [threading.Thread(target=spend) for _ in range(4)]
    usual_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # so that an update without a lock would be interrupted
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(usual_s)
    assert sum(granted) == 500
