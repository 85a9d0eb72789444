"""Tries again what failed, under a policy: as a decorator and as a loop, blocking and asyncio."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import asyncio
import functools
import inspect
import logging
import math
import random
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextvars import ContextVar
from dataclasses import KW_ONLY, dataclass, field, replace
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar, cast

from holdfast.errors import GaveUp, HoldfastError, ReplayRefused, UsageError
from holdfast.hold.asked import asked_deadline
from holdfast.hold.forks import freed, mended_in_child
from holdfast.hold.outcome import BadAnswer, failure_of
from holdfast.policy import Failure, Ledger, Retry, RetryBudget, RetryPolicy, StopReason

LOGGER = logging.getLogger("holdfast.hold.retry")
"""Where retries are told: level DEBUG, the facts as fields ``holdfast_*`` of the record."""

LONGEST_ASKED_S = 30.0
"""The longest wait that a peer may ask for."""

_P = ParamSpec("_P")
_T = TypeVar("_T")


class Budget:
    """A retry budget with its ledger, for everybody who calls one destination, from any thread.

    Args:
        rule: how much it allows; None: the default of :class:`holdfast.policy.RetryBudget`.
    """

    def __init__(self, rule: RetryBudget | None = None) -> None:
        self._rule = rule or RetryBudget()
        self._ledger = Ledger()
        self._lock = threading.RLock()
        mended_in_child(self, Budget._become_the_childs)

    def request(self, now_s: float) -> None:
        """Count a first attempt, which earns its share of a retry."""
        with self._lock:
            self._ledger = self._rule.request(self._ledger, now_s)

    def retry(self, now_s: float) -> bool:
        """Spend one retry; False: there is none left, so do not."""
        with self._lock:
            ledger = self._rule.retry(self._ledger, now_s)
            self._ledger = ledger or self._ledger
            return ledger is not None

    def _become_the_childs(self) -> None:
        self._lock = freed(self._lock)


@dataclass(frozen=True, slots=True)
class Retried:
    """What the hook is told when an attempt failed and another will follow.

    Attributes:
        attempt: the number of the attempt that failed, 1 for the first.
        delay_s: the wait before the next.
        loss: what it failed with; :class:`~holdfast.hold.outcome.BadAnswer` for an answer.
        failure: the word for it, or the status of the answer.
    """

    attempt: int
    delay_s: float
    loss: Exception
    failure: Failure | int


@dataclass(frozen=True)
class Retrying:
    """Tries again under a policy: decorate a function or coroutine with it, or loop over it.

    As a loop it gives one :class:`Attempt` after the other, until the block of one ends without an error
    that is to be retried. An error that no retry can mend goes up unchanged; so does everything that is
    not an ``Exception``, such as KeyboardInterrupt and asyncio's CancelledError.

    Attributes:
        policy: how often, on what, with which waits and until when.
        idempotent: doing it twice is as good as once. Otherwise it is only repeated if nothing of it can
            have reached the peer; see :attr:`Attempt.handed_over`.
        deadline: on ``clock``; replaces the policy's ``deadline_s``. Infinity: none.
        budget: shared by all calls to one destination. None: one of its own for this object, whose floor
            lets a lone request make all retries of its policy.
        on_retry: called before each wait, in the thread or task that will wait.
        status_of: the status of an answer or of an exception, None for anything else;
            :func:`~holdfast.hold.outcome.http_status` knows the usual libraries. None: answers have none.
        wait_asked_s: how long the peer asks to wait (``Retry-After``), given the answer or exception. That
            wait comes before the policy's, so that those who were told the same do not return together.
        longest_asked_s: a peer that asks for more than that is not tried again.
        failure_of: how an exception fails an attempt, None: it goes up.
        clock, sleep, sleep_async, chance: time, and a random number from 0 up to 1.

    Raises:
        GaveUp: the retries, the time or the budget are spent; after an answer, that answer is the result.
        ReplayRefused: the connection was lost and the request may have reached the peer.
    """

    policy: RetryPolicy = field(default_factory=RetryPolicy)
    _: KW_ONLY
    idempotent: bool = False
    deadline: float | None = None
    budget: Budget | None = None
    on_retry: Callable[[Retried], object] | None = None
    status_of: Callable[[Any], int | None] | None = None
    wait_asked_s: Callable[[Any], float | None] | None = None
    longest_asked_s: float = LONGEST_ASKED_S
    failure_of: Callable[[Exception], Failure | None] = failure_of
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], object] = time.sleep
    sleep_async: Callable[[float], Awaitable[object]] = asyncio.sleep
    chance: Callable[[], float] = random.random

    def __post_init__(self) -> None:
        if not isinstance(self.policy, RetryPolicy):
            raise UsageError(
                f"The policy is {self.policy!r}: give a RetryPolicy. As a decorator, write @retry() with "
                "its parentheses."
            )
        asked_deadline(self.deadline)
        if self.budget is None:
            rule = self.policy.budget
            alone = replace(rule, min_retries=max(rule.min_retries, self.policy.retries))
            object.__setattr__(self, "budget", Budget(alone))

    def __iter__(self) -> Iterator[Attempt]:
        return _Course(self)

    def __aiter__(self) -> AsyncIterator[Attempt]:
        return _Course(self)

    def __call__(self, function: Callable[_P, _T]) -> Callable[_P, _T]:
        """The function or coroutine function, tried again at each call; see :func:`current_attempt`.

        A coroutine is cancelled at the end of ``per_try_timeout_s``; nothing can interrupt a function.
        """
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise UsageError("A generator cannot be retried: what it gave cannot be taken back.")
        if inspect.iscoroutinefunction(function):
            return cast(Callable[_P, _T], self._coroutine(function))

        @functools.wraps(function)
        def tried(*args: _P.args, **kwargs: _P.kwargs) -> _T:
            for attempt in self:
                with attempt:
                    answer = attempt.answered(function(*args, **kwargs))
            return answer

        return tried

    def _coroutine(self, function: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        @functools.wraps(function)
        async def tried(*args: Any, **kwargs: Any) -> Any:
            async for attempt in self:
                async with attempt:
                    answer = attempt.answered(await function(*args, **kwargs))
            return answer

        return tried


retry = retrying = Retrying
# One class is both: `@retry(policy)` and `for attempt in retrying(policy)` each read as what they do.


class Attempt:
    """One attempt: a context manager around what may fail; ``async with`` also cancels it at its deadline.

    Attributes:
        number: 1 for the first.
        deadline: when this attempt must be over, on the clock of the loop; give it to what you call.
        handed_over: False is your proof that no byte of the request was handed to a socket: set it before
            anything can fail, and True before the first send (or send by :meth:`hand_over`). None, as it
            begins, proves nothing. It matters only if the request is not idempotent.
    """

    def __init__(self, course: _Course, number: int, deadline: float) -> None:
        self.number, self.deadline = number, deadline
        self.handed_over: bool | None = None
        self._course = course
        self._answer: object = None
        self._delay_s: float | None = None
        self._ended = False
        self._outer: Attempt | None = None
        self._timer: asyncio.Timeout | None = None

    def answered(self, answer: _T) -> _T:
        """The answer as given. Its status may ask for a retry when the block ends."""
        self._answer = answer
        return answer

    def hand_over(self, send: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Make one call that sends, and know even if it fails whether it handed anything over.

        Args:
            send: ``sendall`` of a Holdfast connection, whose errors say how many bytes the kernel took
                (``sent_bytes``). After any other error the bytes count as handed over.
        """
        before, self.handed_over = self.handed_over, True
        try:
            return send(*args, **kwargs)
        except HoldfastError as error:
            if getattr(error, "sent_bytes", None) == 0 and before is not True:
                self.handed_over = False
            raise

    def delay_s(self) -> float | None:
        """The wait before the next attempt; None: there will be none."""
        if not self._ended:
            raise UsageError("Put what may fail into a block: `with attempt:`.")
        return self._delay_s

    def __enter__(self) -> Self:
        self._outer = _CURRENT.get()
        _CURRENT.set(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        _CURRENT.set(self._outer)
        self._ended = True
        if error is None:
            self._delay_s = self._course.after_answer(self, self._answer)
            return False
        if not isinstance(error, Exception):
            return False
        self._delay_s = self._course.after_error(self, error)
        return self._delay_s is not None

    async def __aenter__(self) -> Self:
        left_s = max(0.0, self.deadline - self._course.terms.clock())
        self._timer = asyncio.timeout(left_s if left_s < math.inf else None)
        await self._timer.__aenter__()
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        assert self._timer is not None  # __aenter__ made it
        try:
            await self._timer.__aexit__(kind, error, trace)
        except TimeoutError as late:
            if self.__exit__(type(late), late, late.__traceback__):
                return True
            raise
        return self.__exit__(kind, error, trace)


_CURRENT: ContextVar[Attempt | None] = ContextVar("holdfast_attempt", default=None)


def current_attempt() -> Attempt | None:
    """The attempt whose block, or whose decorated function, this runs in; None outside of any."""
    return _CURRENT.get()


class _Course:
    """One request, from its first attempt to its end.

    An iterator of its own, not a generator: leaving an asynchronous one early costs its loop a task.
    """

    def __init__(self, terms: Retrying) -> None:
        assert terms.budget is not None  # __post_init__ made one
        self.terms, self._budget = terms, terms.budget
        self._began_s = terms.clock()
        self._policy = terms.policy
        if terms.deadline is not None:
            # Not below what the policy takes: begin() looks at the deadline itself.
            self._policy = replace(self._policy, deadline_s=max(0.001, terms.deadline - self._began_s))
        self._deadline = (
            terms.deadline if terms.deadline is not None else self._began_s + self._policy.deadline_s
        )
        self._losses: list[Exception] = []
        self._last: Attempt | None = None
        self._budget.request(self._began_s)

    def __iter__(self) -> Self:
        return self

    def __aiter__(self) -> Self:
        return self

    def __next__(self) -> Attempt:
        delay_s = self._wait_s()
        if delay_s is None:
            raise StopIteration
        if delay_s:
            self.terms.sleep(delay_s)
        return self._begin()

    async def __anext__(self) -> Attempt:
        delay_s = self._wait_s()
        if delay_s is None:
            raise StopAsyncIteration
        if delay_s:
            await self.terms.sleep_async(delay_s)
        return self._begin()

    def _wait_s(self) -> float | None:
        return 0.0 if self._last is None else self._last.delay_s()

    def _begin(self) -> Attempt:
        now_s = self.terms.clock()
        if now_s >= self._deadline:
            raise self._gave_up("the deadline has passed")
        timeout_s = self._policy.try_timeout_s(now_s - self._began_s)
        # min(), since a sum of floats may come out above the deadline that it was made from.
        self._last = Attempt(self, len(self._losses) + 1, min(self._deadline, now_s + timeout_s))
        return self._last

    def after_answer(self, attempt: Attempt, answer: object) -> float | None:
        """The wait before another attempt, None if this answer is the result."""
        status = self.terms.status_of(answer) if self.terms.status_of and answer is not None else None
        if status is None or not self._policy.covers(status):
            return None
        self._losses.append(BadAnswer(status, answer))
        verdict = self._judge(attempt, status, answer)
        return self._again(attempt, status, verdict) if isinstance(verdict, float) else None

    def after_error(self, attempt: Attempt, error: Exception) -> float | None:
        """The wait before another attempt, None if this error is the result."""
        failure: Failure | int | None = self.terms.failure_of(error)
        if failure is None and self.terms.status_of:
            failure = self.terms.status_of(error)
        if failure is None or not self._policy.covers(failure):
            return None
        self._losses.append(error)
        verdict = self._judge(attempt, failure, error)
        if isinstance(verdict, float):
            return self._again(attempt, failure, verdict)
        if verdict is not StopReason.NOT_SAFE:
            raise self._gave_up(verdict)
        if isinstance(failure, Failure):
            raise ReplayRefused(error) from error
        return None  # the peer has answered: that is more worth than our reason not to ask again

    def _judge(self, attempt: Attempt, failure: Failure | int, subject: object) -> float | str:
        """The wait before another attempt, or why there is none."""
        terms, now_s = self.terms, self.terms.clock()
        decision = self._policy.decide(
            attempt.number,
            now_s - self._began_s,
            failure,
            idempotent=terms.idempotent,
            handed_bytes=0 if attempt.handed_over is False else 1,
            chance=terms.chance(),
        )
        if not isinstance(decision, Retry):
            return decision.reason
        # max() also turns nan into 0.
        asked_s = max(0.0, terms.wait_asked_s(subject) or 0.0) if terms.wait_asked_s else 0.0
        if asked_s > terms.longest_asked_s:
            return f"the peer asks to wait {asked_s:g} s, and at most {terms.longest_asked_s:g} s are allowed"
        delay_s = asked_s + decision.delay_s
        if now_s + delay_s >= self._deadline:
            return StopReason.DEADLINE
        return delay_s if self._budget.retry(now_s) else StopReason.BUDGET_SPENT

    def _again(self, attempt: Attempt, failure: Failure | int, delay_s: float) -> float:
        event = Retried(attempt.number, delay_s, self._losses[-1], failure)
        if LOGGER.isEnabledFor(logging.DEBUG):
            fields = {"attempt": event.attempt, "delay_s": delay_s, "failure": failure, "loss": event.loss}
            LOGGER.debug(
                "attempt %d failed (%s), the next in %.3f s: %s",
                event.attempt,
                failure,
                delay_s,
                event.loss,
                extra={f"holdfast_{name}": value for name, value in fields.items()},
            )
        if self.terms.on_retry is not None:
            self.terms.on_retry(event)
        return delay_s

    def _gave_up(self, why: str) -> GaveUp:
        error = GaveUp(self._losses, _WHY.get(why, why))
        error.__cause__ = self._losses[-1] if self._losses else None
        return error


_WHY: dict[str, str] = {
    StopReason.RETRIES_SPENT: "all retries that the policy allows were made",
    StopReason.DEADLINE: "another attempt would begin after the deadline",
    StopReason.BUDGET_SPENT: "the retry budget is spent",
}
