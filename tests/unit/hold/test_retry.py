"""What failed is tried again as the policy says, and nothing is done twice by mistake."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import asyncio
import errno
import logging
import math
import sys
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from unit.hold.faketime import FakeTime

from holdfast.errors import (
    Cancelled,
    ConnectionClosed,
    ConnectionRefused,
    ConnectionReset,
    GaveUp,
    Loss,
    ReplayRefused,
    UsageError,
)
from holdfast.hold.outcome import BadAnswer, StreamRefused, http_status
from holdfast.hold.retry import Attempt, Budget, Retried, Retrying, current_attempt, retry, retrying
from holdfast.policy import Backoff, Failure, RetryBudget, RetryPolicy

BACKOFF = Backoff(first_s=1.0, cap_s=8.0)
POLICY = RetryPolicy(backoff=BACKOFF, deadline_s=100.0)
NOT_TAKEN = ConnectionClosed(Loss(errno.EPIPE, "peer_closed_then_reset"), sent_bytes=0)
REFUSED = ConnectionRefused(Loss(errno.ECONNREFUSED, "connection_refused"))


def reset(sent_bytes: int = 0) -> ConnectionReset:
    return ConnectionReset(Loss(errno.ECONNRESET, "peer_aborted"), sent_bytes=sent_bytes)


def answer(status: int, asked_s: float | None = None) -> Any:
    return SimpleNamespace(status=status, asked_s=asked_s)


class Peer:
    """Gives one outcome after the other: raises the exceptions, returns the rest."""

    def __init__(self, *outcomes: object) -> None:
        self.outcomes = list(outcomes)
        self.calls = 0

    def __call__(self) -> Any:
        self.calls += 1
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome


def terms(time: FakeTime | None = None, policy: RetryPolicy = POLICY, **options: Any) -> Retrying:
    """Idempotent unless told otherwise; chance draws half of each wait."""
    time = time or FakeTime()
    given = {"idempotent": True, "chance": lambda: 0.5, **options}
    return Retrying(
        policy,
        clock=time.clock,
        sleep=time.sleep,
        sleep_async=time.sleep_async,
        status_of=http_status,
        **given,
    )


Call = Callable[[Retrying, Peer], Any]


def by_loop(tries: Retrying, peer: Peer) -> Any:
    for attempt in tries:
        with attempt:
            found = attempt.answered(peer())
    return found


def by_decorator(tries: Retrying, peer: Peer) -> Any:
    return tries(peer.__call__)()


def by_async_loop(tries: Retrying, peer: Peer) -> Any:
    async def run() -> Any:
        async for attempt in tries:
            with attempt:
                found = attempt.answered(peer())
        return found

    return asyncio.run(run())


def by_async_decorator(tries: Retrying, peer: Peer) -> Any:
    @tries
    async def once() -> Any:
        return peer()

    return asyncio.run(once())


@pytest.fixture(
    params=[by_loop, by_decorator, by_async_loop, by_async_decorator], ids=lambda way: way.__name__
)
def call(request: pytest.FixtureRequest) -> Call:
    way: Call = request.param
    return way


# --- the four ways to call ---


def test_three_retries_are_four_attempts(call: Call) -> None:
    losses = [reset() for _ in range(5)]
    peer = Peer(*losses)
    with pytest.raises(GaveUp) as caught:
        call(terms(), peer)
    assert (peer.calls, caught.value.losses) == (4, tuple(losses[:4]))
    assert caught.value.why == "all retries that the policy allows were made"
    assert caught.value.__cause__ is losses[3]


def test_the_first_success_ends_it(call: Call) -> None:
    peer = Peer(reset(), reset(), "here", "never")
    assert (call(terms(), peer), peer.calls) == ("here", 3)


def test_the_waits_are_those_of_the_policy(call: Call) -> None:
    time = FakeTime()
    call(terms(time), Peer(reset(), reset(), reset(), "here"))
    assert time.slept_s == [0.5, 1.0, 2.0]


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


def test_what_counts_as_a_failure_can_be_told(call: Call) -> None:
    tries = terms(failure_of=lambda error: Failure.RESET if isinstance(error, KeyError) else None)
    assert call(tries, Peer(KeyError(), "here")) == "here"
    with pytest.raises(ConnectionReset):
        call(tries, Peer(reset()))


def test_a_failure_that_no_word_covers_goes_up_unchanged(call: Call) -> None:
    peer, loss = Peer(reset()), RetryPolicy(retry_on=frozenset({"connect-failure"}))
    with pytest.raises(ConnectionReset):
        call(terms(policy=loss), peer)
    assert peer.calls == 1


# --- answers ---


def test_an_answer_that_asks_for_a_retry_gets_one(call: Call) -> None:
    last = answer(200)
    assert call(terms(), Peer(answer(502), answer(503), last)) is last


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


def test_an_answer_to_what_must_not_be_repeated_is_the_result(call: Call) -> None:
    first = answer(503)
    peer = Peer(first)
    assert call(terms(idempotent=False), peer) is first


def test_an_answer_as_an_exception_is_retried_by_its_status(call: Call) -> None:
    class HttpError(Exception):
        response = answer(503)

    assert call(terms(), Peer(HttpError(), "here")) == "here"
    with pytest.raises(HttpError):
        call(terms(idempotent=False), Peer(HttpError()))


def test_answers_without_a_known_status_are_results() -> None:
    strange = answer(503)
    assert by_loop(Retrying(POLICY, idempotent=True), Peer(strange)) is strange


# --- what must not be done twice ---


def test_a_request_that_may_have_arrived_is_not_repeated(call: Call) -> None:
    loss = reset()
    peer = Peer(loss)
    with pytest.raises(ReplayRefused) as caught:
        call(terms(idempotent=False), peer)
    assert (caught.value.loss, caught.value.__cause__, peer.calls) == (loss, loss, 1)


@pytest.mark.parametrize("loss", [REFUSED, StreamRefused()], ids=repr)
def test_a_request_that_the_peer_has_not_begun_is_repeated(call: Call, loss: Exception) -> None:
    assert call(terms(idempotent=False), Peer(loss, "here")) == "here"


def attempts_of(tries: Retrying, body: Callable[[Attempt], object]) -> int:
    """How many attempts ``body`` got; it succeeds at the third."""
    number = 0
    for attempt in tries:
        number = attempt.number
        with attempt:
            if attempt.number < 3:
                body(attempt)
    return number


def test_the_callers_word_that_nothing_was_handed_over_allows_a_retry() -> None:
    def body(attempt: Attempt) -> None:
        attempt.handed_over = False
        raise reset()

    assert attempts_of(terms(idempotent=False), body) == 3


def test_each_attempt_needs_its_own_proof() -> None:
    def body(attempt: Attempt) -> None:
        if attempt.number == 1:
            attempt.handed_over = False
        raise reset()

    with pytest.raises(ReplayRefused):
        attempts_of(terms(idempotent=False), body)


def raising(error: Exception) -> Callable[[bytes], None]:
    def send(data: bytes) -> None:
        raise error

    return send


def test_a_send_that_took_no_byte_is_a_proof() -> None:
    def body(attempt: Attempt) -> None:
        attempt.hand_over(raising(NOT_TAKEN), b"request")

    assert attempts_of(terms(idempotent=False), body) == 3


@pytest.mark.parametrize("error", [reset(sent_bytes=1), BrokenPipeError(), ConnectionResetError()], ids=repr)
def test_a_send_that_may_have_taken_bytes_is_none(error: Exception) -> None:
    def body(attempt: Attempt) -> None:
        attempt.hand_over(raising(error), b"request")

    with pytest.raises(ReplayRefused):
        attempts_of(terms(idempotent=False), body)


def test_a_second_send_that_took_no_byte_is_none() -> None:
    def body(attempt: Attempt) -> None:
        assert attempt.hand_over(len, b"first") == 5
        attempt.hand_over(raising(NOT_TAKEN), b"second")

    with pytest.raises(ReplayRefused):
        attempts_of(terms(idempotent=False), body)


def test_a_lost_answer_after_a_send_is_none() -> None:
    def body(attempt: Attempt) -> None:
        attempt.hand_over(len, b"request")
        raise NOT_TAKEN  # a receive fails with sent_bytes 0 as well

    with pytest.raises(ReplayRefused):
        attempts_of(terms(idempotent=False), body)


# --- time ---


def test_no_wait_reaches_the_deadline(call: Call) -> None:
    time = FakeTime()
    policy = RetryPolicy(retries=100, backoff=BACKOFF, deadline_s=3.0)
    with pytest.raises(GaveUp, match="after the deadline"):
        call(terms(time, policy), Peer(*[reset() for _ in range(9)]))
    assert time.slept_s == [0.5, 1.0]  # the third wait, 2 s, would end at 3.5 s


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


# --- what the peer asks for ---


def asked(thing: Any) -> float | None:
    found = getattr(thing, "asked_s", None)
    return found if isinstance(found, float) else None


def test_the_wait_that_the_peer_asks_for_comes_before_ours(call: Call) -> None:
    time = FakeTime()
    call(terms(time, wait_asked_s=asked), Peer(answer(503, 7.0), answer(503), "here"))
    assert time.slept_s == [7.5, 1.0]


def test_a_peer_that_asks_for_too_long_a_wait_is_left_alone(call: Call) -> None:
    first = answer(503, 31.0)
    peer = Peer(first)
    assert (call(terms(wait_asked_s=asked), peer), peer.calls) == (first, 1)


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


# --- budgets ---


def spent_budget() -> Budget:
    return Budget(RetryBudget(min_retries=0, budget_percent=0))


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


@pytest.mark.parametrize("asked_s", [-100.0, math.nan])
def test_a_wait_that_makes_no_sense_is_not_waited_for(call: Call, asked_s: float) -> None:
    time = FakeTime()
    assert call(terms(time, wait_asked_s=lambda _: asked_s), Peer(reset(), "here")) == "here"
    assert time.slept_s == [0.5]


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
