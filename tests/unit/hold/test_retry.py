"""What failed is tried again as the policy says, whichever way it is asked."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from unit.hold.faketime import FakeTime
from unit.hold.retried import POLICY, REFUSED, Call, Peer, answer, by_loop, every_way, reset, terms

from holdfast.errors import Cancelled, ConnectionReset, GaveUp, UsageError
from holdfast.hold.outcome import BadAnswer
from holdfast.hold.retry import Attempt, Retried, Retrying, current_attempt, retry, retrying
from holdfast.policy import Failure, RetryPolicy

# --- the four ways to call ---


@every_way
def test_three_retries_are_four_attempts(call: Call) -> None:
    losses = [reset() for _ in range(5)]
    peer = Peer(*losses)
    with pytest.raises(GaveUp) as caught:
        call(terms(), peer)
    assert (peer.calls, caught.value.losses) == (4, tuple(losses[:4]))
    assert caught.value.why == "all retries that the policy allows were made"
    assert caught.value.__cause__ is losses[3]


@every_way
def test_the_first_success_ends_it(call: Call) -> None:
    peer = Peer(reset(), reset(), "here", "never")
    assert (call(terms(), peer), peer.calls) == ("here", 3)


@every_way
def test_the_waits_are_those_of_the_policy(call: Call) -> None:
    time = FakeTime()
    call(terms(time), Peer(reset(), reset(), reset(), "here"))
    assert time.slept_s == [0.5, 1.0, 2.0]


@every_way
def test_the_hook_is_told_before_each_wait(call: Call) -> None:
    time, told = FakeTime(), []
    first, second = reset(), REFUSED
    tries = terms(time, on_retry=lambda event: told.append((len(time.slept_s), event)))
    call(tries, Peer(first, second, answer(503), "here"))
    bad = told[2][1].loss
    assert isinstance(bad, BadAnswer)
    assert told == [
        (0, Retried(1, 0.5, first, Failure.RESET)),
        (1, Retried(2, 1.0, second, Failure.CONNECT_FAILURE)),
        (2, Retried(3, 2.0, bad, 503)),
    ]


@pytest.mark.parametrize(
    "error",
    [ValueError(), UsageError("mend it"), Cancelled(), KeyboardInterrupt(), asyncio.CancelledError()],
    ids=repr,
)
@every_way
def test_what_no_retry_can_mend_goes_up_unchanged(call: Call, error: BaseException) -> None:
    peer = Peer(error)
    with pytest.raises(type(error)) as caught:
        call(terms(), peer)
    if not isinstance(error, (KeyboardInterrupt, asyncio.CancelledError)):  # asyncio.run() makes its own
        assert caught.value is error
    assert peer.calls == 1


@pytest.mark.parametrize("error", [KeyboardInterrupt(), asyncio.CancelledError(), SystemExit()], ids=repr)
def test_what_ends_the_program_or_the_task_is_never_asked_about(error: BaseException) -> None:
    peer = Peer(error)
    with pytest.raises(type(error)):
        by_loop(terms(failure_of=lambda error: Failure.RESET), peer)
    assert peer.calls == 1


@every_way
def test_what_counts_as_a_failure_can_be_told(call: Call) -> None:
    tries = terms(failure_of=lambda error: Failure.RESET if isinstance(error, KeyError) else None)
    assert call(tries, Peer(KeyError(), "here")) == "here"
    with pytest.raises(ConnectionReset):
        call(tries, Peer(reset()))


@every_way
def test_a_failure_that_no_word_covers_goes_up_unchanged(call: Call) -> None:
    peer, loss = Peer(reset()), RetryPolicy(retry_on=frozenset({"connect-failure"}))
    with pytest.raises(ConnectionReset):
        call(terms(policy=loss), peer)
    assert peer.calls == 1


# --- answers ---


@every_way
def test_an_answer_that_asks_for_a_retry_gets_one(call: Call) -> None:
    last = answer(200)
    assert call(terms(), Peer(answer(502), answer(503), last)) is last


@every_way
def test_the_last_answer_is_the_result_when_the_retries_are_spent(call: Call) -> None:
    answers = [answer(503) for _ in range(4)]
    assert call(terms(), Peer(*answers)) is answers[3]


def test_answers_count_among_the_losses() -> None:
    loss = reset()
    peer = Peer(answer(503), loss, answer(504), reset())
    with pytest.raises(GaveUp) as caught:
        by_loop(terms(), peer)
    assert [str(lost) for lost in caught.value.losses[::2]] == [
        "The peer answered with status 503.",
        "The peer answered with status 504.",
    ]


@every_way
def test_an_answer_to_what_must_not_be_repeated_is_the_result(call: Call) -> None:
    first = answer(503)
    peer = Peer(first)
    assert call(terms(idempotent=False), peer) is first


@every_way
def test_an_answer_as_an_exception_is_retried_by_its_status(call: Call) -> None:
    class HttpError(Exception):
        response = answer(503)

    assert call(terms(), Peer(HttpError(), "here")) == "here"
    with pytest.raises(HttpError):
        call(terms(idempotent=False), Peer(HttpError()))


def test_answers_without_a_known_status_are_results() -> None:
    strange = answer(503)
    assert by_loop(Retrying(POLICY, idempotent=True), Peer(strange)) is strange


# --- how it is used ---


def test_a_decorated_function_keeps_its_name_and_arguments() -> None:
    @retry(POLICY)
    def fetch(url: str, *, size: int = 1) -> str:
        """What it does."""
        return url * size

    assert (fetch.__name__, fetch.__doc__, fetch("ab", size=2)) == ("fetch", "What it does.", "abab")


def test_a_loop_without_a_block_is_a_mistake_that_is_told() -> None:
    with pytest.raises(UsageError, match="with attempt"):
        for attempt in retrying(POLICY):
            assert attempt.number == 1


def test_a_generator_cannot_be_decorated() -> None:
    def lines() -> Iterator[int]:
        yield 1

    with pytest.raises(UsageError, match="generator"):
        retry(POLICY)(lines)


def test_leaving_the_loop_from_the_block_ends_it() -> None:
    def found() -> int:
        for attempt in terms():
            with attempt:
                return attempt.number
        return 0

    assert (found(), current_attempt()) == (1, None)


def test_leaving_an_asynchronous_loop_costs_no_task() -> None:
    async def run() -> list[object]:
        loop, made = asyncio.get_running_loop(), []

        def factory(loop: asyncio.AbstractEventLoop, work: Any, **options: Any) -> asyncio.Task[Any]:
            made.append(work)
            return asyncio.Task(work, loop=loop, **options)

        loop.set_task_factory(factory)
        async for attempt in terms():
            with attempt:
                break
        for _ in range(3):
            await asyncio.sleep(0)
        return list(made)  # asyncio.run() adds tasks of its own

    assert asyncio.run(run()) == []


def test_one_object_serves_many_requests() -> None:
    tries = terms()
    assert [by_loop(tries, Peer(reset(), "here")) for _ in range(3)] == ["here"] * 3


def test_the_current_attempt_is_that_of_the_innermost_block() -> None:
    seen: list[Attempt | None] = []
    for outer in terms():
        with outer:
            for inner in terms():
                with inner:
                    seen.append(current_attempt())
            seen.append(current_attempt())
    assert seen == [inner, outer]
    assert current_attempt() is None


def test_retries_are_logged_for_who_wants_to_know(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="holdfast.hold.retry"):
        by_loop(terms(), Peer(reset(), "here"))
    assert caplog.records == []
    with caplog.at_level(logging.DEBUG, logger="holdfast.hold.retry"):
        by_loop(terms(), Peer(answer(503), "here"))
    (record,) = caplog.records
    message = "attempt 1 failed (503), the next in 0.500 s: The peer answered with status 503."
    assert record.getMessage() == message
    assert (vars(record)["holdfast_attempt"], vars(record)["holdfast_delay_s"]) == (1, 0.5)


def test_a_decorator_without_parentheses_is_refused_where_it_stands() -> None:
    with pytest.raises(UsageError, match="@retry"):

        @retry  # type: ignore[arg-type]
        def fetch() -> None: ...
