"""Whether a failed request is tried again: what may be repeated, how often and until when."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from holdfast.errors import UsageError
from holdfast.policy.backoff import Backoff
from holdfast.policy.bounds import real, whole
from holdfast.policy.budget import RetryBudget


class RetryOn(StrEnum):
    """What may be retried, in Envoy's words (``retry_on``)."""

    RESET = "reset"
    """No answer at all: reset, disconnected, or the time for one attempt was over."""

    CONNECT_FAILURE = "connect-failure"
    """No connection came about."""

    REFUSED_STREAM = "refused-stream"
    """The peer says that it did not begin (HTTP/2 REFUSED_STREAM)."""

    GATEWAY_ERROR = "gateway-error"
    """The answer is 502, 503 or 504, or there is none."""

    ANY_5XX = "5xx"
    """The answer is 500 to 599, or there is none."""

    RETRIABLE_STATUS_CODES = "retriable-status-codes"
    """The answer is one of ``retriable_status_codes``."""


class Failure(StrEnum):
    """How an attempt failed without an answer; one with an answer failed by its status code."""

    CONNECT_FAILURE = "connect-failure"
    """No connection came about, so the peer has seen nothing."""

    REFUSED_STREAM = "refused-stream"
    """The peer says that it did not begin."""

    RESET = "reset"
    """The connection ended, in whatever way, before the answer."""

    TIMEOUT = "timeout"
    """The time for this attempt was over."""


# Rule: the words that cover a failure. Envoy counts every end without an answer, a timed out attempt
# included, as a 5xx and as a gateway error (its router's wouldRetryFromReset).
_NO_ANSWER = frozenset({RetryOn.RESET, RetryOn.GATEWAY_ERROR, RetryOn.ANY_5XX})
COVERED_BY: dict[Failure, frozenset[RetryOn]] = {
    Failure.CONNECT_FAILURE: _NO_ANSWER | {RetryOn.CONNECT_FAILURE},
    Failure.REFUSED_STREAM: _NO_ANSWER | {RetryOn.REFUSED_STREAM},
    Failure.RESET: _NO_ANSWER,
    Failure.TIMEOUT: _NO_ANSWER,
}
GATEWAY_ERRORS = frozenset({502, 503, 504})
NOT_BEGUN = frozenset({Failure.CONNECT_FAILURE, Failure.REFUSED_STREAM})
"""Failures after which repeating is safe whatever the request does."""


class StopReason(StrEnum):
    """Why a failed request is not tried again."""

    NOT_RETRIABLE = "not-retriable"
    """No word of ``retry_on`` covers this failure."""

    NOT_SAFE = "not-safe"
    """Its bytes may have reached the peer, and it is not idempotent: repeating could do it twice."""

    RETRIES_SPENT = "retries-spent"
    """As many retries as allowed were made."""

    DEADLINE = "deadline"
    """The next attempt would begin after the deadline."""

    BUDGET_SPENT = "budget-spent"
    """The destination's retry budget is spent; the driver says this, after asking the budget."""


@dataclass(frozen=True, slots=True)
class Retry:
    """Try again after a wait."""

    delay_s: float


@dataclass(frozen=True, slots=True)
class Stop:
    """Do not try again; the last failure is the answer."""

    reason: StopReason


ENVOY_BACKOFF = Backoff(first_s=0.025, cap_s=0.25)
TWENTY_PERCENT = RetryBudget()


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """When a request is tried again; ``retries=3`` means up to four attempts.

    That is how Envoy counts ``num_retries: 3`` and Istio ``attempts: 3``: the first attempt is not a retry.

    Attributes:
        retries: attempts after the first.
        retry_on: what may be retried: members of :class:`RetryOn`, or Envoy's words as they are.
        retriable_status_codes: for the word of the same name.
        per_try_timeout_s: time for one attempt; None: whatever is left.
        deadline_s: time for everything, waits and retries included; infinity: without limit.
        backoff: how long to wait between attempts; the default is Envoy's, 25 ms that doubles to 250 ms.
        budget: the share of requests to one destination that may be retries.

    Raises:
        UsageError: a number or word that makes no sense.

    Source: Envoy, router filter: x-envoy-retry-on, x-envoy-max-retries; config.route.v3.RetryPolicy. The
    deadline is its route timeout, 15 s, which includes retries.
    """

    retries: int = 3
    retry_on: frozenset[str] = frozenset(
        {RetryOn.RESET, RetryOn.CONNECT_FAILURE, RetryOn.REFUSED_STREAM, RetryOn.GATEWAY_ERROR}
    )
    retriable_status_codes: frozenset[int] = frozenset()
    per_try_timeout_s: float | None = None
    deadline_s: float = 15.0
    backoff: Backoff = ENVOY_BACKOFF
    budget: RetryBudget = TWENTY_PERCENT

    def __post_init__(self) -> None:
        whole("retries", self.retries, 0, 1000, "attempts after the first")
        if self.deadline_s != math.inf:
            real("deadline_s", self.deadline_s, 0.001)
        if self.per_try_timeout_s is not None:
            real("per_try_timeout_s", self.per_try_timeout_s, 0.001)
        object.__setattr__(self, "retry_on", _words(self.retry_on))
        object.__setattr__(self, "retriable_status_codes", _codes(self.retriable_status_codes))
        for code in self.retriable_status_codes:
            whole("retriable_status_codes", code, 100, 599, "HTTP status codes")
        if self.retriable_status_codes and RetryOn.RETRIABLE_STATUS_CODES not in self.retry_on:
            raise UsageError("retriable_status_codes needs 'retriable-status-codes' in retry_on: add it.")

    def decide(
        self,
        attempt: int,
        elapsed_s: float,
        failure: Failure | int,
        *,
        idempotent: bool,
        handed_bytes: int,
        chance: float,
    ) -> Retry | Stop:
        """Whether to try again after a failed attempt. Ask the budget afterwards, if it says yes.

        Args:
            attempt: the number of the attempt that failed, 1 for the first.
            elapsed_s: since the first attempt began.
            failure: how it failed, or the status code of the answer.
            idempotent: doing the request twice is as good as once.
            handed_bytes: bytes of this attempt that a socket took, whether they were sent or not.
            chance: a random number from 0 up to, but not including, 1.
        """
        if not self.covers(failure):
            return Stop(StopReason.NOT_RETRIABLE)
        # Bytes that the kernel took may have arrived; nothing on this side can prove that they did not.
        if handed_bytes and not idempotent and failure not in NOT_BEGUN:
            return Stop(StopReason.NOT_SAFE)
        if attempt > self.retries:
            return Stop(StopReason.RETRIES_SPENT)
        delay_s = self.backoff.delay_s(attempt, chance)
        if elapsed_s + delay_s >= self.deadline_s:
            return Stop(StopReason.DEADLINE)
        return Retry(delay_s)

    def covers(self, failure: Failure | int) -> bool:
        """Whether ``retry_on`` names this failure, or this status code of an answer."""
        if isinstance(failure, Failure):
            return bool(COVERED_BY[failure] & self.retry_on)
        words = set()
        if 500 <= failure <= 599:
            words.add(RetryOn.ANY_5XX)
        if failure in GATEWAY_ERRORS:
            words.add(RetryOn.GATEWAY_ERROR)
        if failure in self.retriable_status_codes:
            words.add(RetryOn.RETRIABLE_STATUS_CODES)
        return bool(words & self.retry_on)

    def try_timeout_s(self, elapsed_s: float) -> float:
        """How long an attempt that begins now may take; 0 when the deadline has passed."""
        left_s = max(0.0, self.deadline_s - elapsed_s)
        return left_s if self.per_try_timeout_s is None else min(self.per_try_timeout_s, left_s)


def _words(given: Iterable[str]) -> frozenset[RetryOn]:
    if isinstance(given, str):  # its letters would be taken for words
        raise UsageError(f"retry_on is the text {given!r}: give a set of words, such as {{{given!r}}}.")
    try:
        return frozenset(RetryOn(word) for word in given)
    except (TypeError, ValueError) as problem:
        known = ", ".join(RetryOn)
        raise UsageError(f"retry_on: {problem}; the words are {known}.") from problem


def _codes(given: Iterable[int]) -> frozenset[int]:
    try:
        return frozenset(given)
    except TypeError as problem:
        raise UsageError(
            f"retriable_status_codes is {given!r}: give a set of codes, such as {{503}}."
        ) from problem
