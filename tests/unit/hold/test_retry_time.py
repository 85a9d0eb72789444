"""No attempt and no wait goes beyond the time that there is, whoever sets it."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator
from typing import Any

import pytest
from unit.hold.faketime import FakeTime
from unit.hold.retried import BACKOFF, POLICY, Call, Peer, answer, by_loop, every_way, reset, terms

from holdfast.errors import GaveUp, ReplayRefused, UsageError
from holdfast.hold.retry import Retrying, current_attempt
from holdfast.policy import Backoff, RetryPolicy

# --- deadlines ---


@every_way
def test_no_wait_reaches_the_deadline(call: Call) -> None:
    time = FakeTime()
    policy = RetryPolicy(retries=100, backoff=BACKOFF, deadline_s=3.0)
    with pytest.raises(GaveUp, match="after the deadline"):
        call(terms(time, policy), Peer(*[reset() for _ in range(9)]))
    assert time.slept_s == [0.5, 1.0]  # the third wait, 2 s, would end at 3.5 s


@every_way
def test_a_deadline_of_the_call_replaces_that_of_the_policy(call: Call) -> None:
    time = FakeTime(1000)
    policy = RetryPolicy(retries=4, backoff=BACKOFF, deadline_s=3.0)
    with pytest.raises(GaveUp, match="after the deadline"):
        call(terms(time, policy, deadline=1004.0), Peer(*[reset() for _ in range(9)]))
    assert time.slept_s == [0.5, 1.0, 2.0]


def test_what_an_attempt_takes_counts() -> None:
    time, calls = FakeTime(), 0
    with pytest.raises(GaveUp):
        for attempt in terms(time, RetryPolicy(backoff=BACKOFF, deadline_s=3.0)):
            calls += 1
            with attempt:
                time.pass_by(2.0)
                raise reset()
    assert calls == 2


@every_way
def test_no_attempt_begins_after_the_deadline(call: Call) -> None:
    peer = Peer()
    with pytest.raises(GaveUp, match="the deadline has passed") as caught:
        call(terms(FakeTime(1000), deadline=1000.0), peer)
    assert (peer.calls, caught.value.losses) == (0, ())


def test_no_attempt_begins_after_a_sleep_that_was_too_long() -> None:
    time, loss = FakeTime(), reset()
    tries = Retrying(
        POLICY, idempotent=True, clock=time.clock, sleep=lambda delay_s: time.pass_by(delay_s + 200)
    )
    with pytest.raises(GaveUp) as caught:
        by_loop(tries, Peer(loss))
    assert (caught.value.losses, caught.value.__cause__) == ((loss,), loss)


def deadlines(time: FakeTime, policy: RetryPolicy, **options: Any) -> Iterator[float]:
    for attempt in terms(time, policy, **options):
        yield attempt.deadline
        with attempt:
            time.pass_by(2.0)
            if attempt.number < 3:
                raise reset()


def test_each_attempt_is_given_its_deadline() -> None:
    policy = RetryPolicy(backoff=BACKOFF, per_try_timeout_s=4.0, deadline_s=10.0)
    # Attempts begin at 0, 2.5 and 5.5 s; the last would have till 9.5 s, but for the deadline of the call.
    assert list(deadlines(FakeTime(0), policy)) == [4.0, 6.5, 9.5]
    assert list(deadlines(FakeTime(0), policy, deadline=9.0)) == [4.0, 6.5, 9.0]


def test_a_coroutine_is_cancelled_at_the_end_of_its_time_and_tried_again() -> None:
    tries = Retrying(
        RetryPolicy(per_try_timeout_s=0.001, backoff=Backoff(first_s=0.001, cap_s=0.001)), idempotent=True
    )
    cancelled = 0

    @tries
    async def once() -> int:
        nonlocal cancelled
        attempt = current_attempt()
        assert attempt is not None
        if attempt.number < 3:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled += 1
                raise
        return attempt.number

    assert (asyncio.run(once()), cancelled) == (3, 2)


def test_a_coroutine_out_of_time_that_must_not_be_repeated_says_so() -> None:
    tries = Retrying(RetryPolicy(per_try_timeout_s=0.001))

    async def never() -> None:
        await asyncio.Event().wait()

    with pytest.raises(ReplayRefused) as caught:
        asyncio.run(tries(never)())
    assert isinstance(caught.value.loss, TimeoutError)


def test_a_coroutine_out_of_time_that_no_word_covers_is_a_timeout_not_a_cancellation() -> None:
    tries = Retrying(RetryPolicy(per_try_timeout_s=0.001, retry_on=frozenset({"refused-stream"})))

    async def never() -> None:
        await asyncio.Event().wait()

    with pytest.raises(TimeoutError):
        asyncio.run(tries(never)())


def test_a_task_that_is_cancelled_while_it_waits_does_not_go_on() -> None:
    peer = Peer(reset())
    slow = RetryPolicy(backoff=Backoff(first_s=60, cap_s=60), deadline_s=1000)

    async def run() -> None:
        told = asyncio.Event()
        tries = Retrying(slow, idempotent=True, on_retry=lambda event: told.set(), chance=lambda: 0.9)

        @tries
        async def once() -> None:
            peer()

        task = asyncio.create_task(once())
        await told.wait()
        task.cancel()
        await task

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(run())
    assert peer.calls == 1


@every_way
def test_without_a_limit_there_is_none(call: Call) -> None:
    time = FakeTime()
    assert call(terms(time, deadline=math.inf), Peer(reset(), "here")) == "here"
    forever = RetryPolicy(backoff=BACKOFF, deadline_s=math.inf)
    assert call(terms(time, forever), Peer(reset(), "here")) == "here"


def test_a_coroutine_without_a_limit_is_awaited() -> None:
    async def attempt_forever() -> float:
        async for attempt in terms(deadline=math.inf):
            async with attempt:
                return attempt.deadline
        raise AssertionError

    assert asyncio.run(attempt_forever()) == math.inf


def test_a_deadline_that_is_no_number_is_refused() -> None:
    with pytest.raises(UsageError, match="the deadline is nan"):
        terms(deadline=math.nan)


# --- what the peer asks for ---


def asked(thing: Any) -> float | None:
    found = getattr(thing, "asked_s", None)
    return found if isinstance(found, float) else None


@every_way
def test_the_wait_that_the_peer_asks_for_comes_before_ours(call: Call) -> None:
    time = FakeTime()
    call(terms(time, wait_asked_s=asked), Peer(answer(503, 7.0), answer(503), "here"))
    assert time.slept_s == [7.5, 1.0]


@every_way
def test_a_peer_that_asks_for_too_long_a_wait_is_left_alone(call: Call) -> None:
    first = answer(503, 31.0)
    peer = Peer(first)
    assert (call(terms(wait_asked_s=asked), peer), peer.calls) == (first, 1)


@every_way
def test_a_wait_that_the_peer_asks_for_does_not_reach_the_deadline_either(call: Call) -> None:
    time, first = FakeTime(), answer(503, 7.0)
    policy = RetryPolicy(backoff=BACKOFF, deadline_s=7.5)
    assert call(terms(time, policy, wait_asked_s=asked), Peer(first)) is first
    assert time.slept_s == []


def test_too_long_a_wait_asked_by_an_exception_is_told() -> None:
    loss = reset()
    loss.asked_s = 31.0  # type: ignore[attr-defined]
    with pytest.raises(GaveUp, match="the peer asks to wait 31 s, and at most 30 s are allowed"):
        by_loop(terms(wait_asked_s=asked), Peer(loss))


@pytest.mark.parametrize("asked_s", [-100.0, math.nan])
@every_way
def test_a_wait_that_makes_no_sense_is_not_waited_for(call: Call, asked_s: float) -> None:
    time = FakeTime()
    assert call(terms(time, wait_asked_s=lambda _: asked_s), Peer(reset(), "here")) == "here"
    assert time.slept_s == [0.5]
