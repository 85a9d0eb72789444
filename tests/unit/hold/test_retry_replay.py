"""Nothing is done twice by mistake."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Callable

import pytest
from unit.hold.retried import NOT_TAKEN, REFUSED, Call, Peer, every_way, reset, terms

from holdfast.errors import ReplayRefused
from holdfast.hold.outcome import StreamRefused
from holdfast.hold.retry import Attempt, Retrying


@every_way
def test_a_request_that_may_have_arrived_is_not_repeated(call: Call) -> None:
    loss = reset()
    peer = Peer(loss)
    with pytest.raises(ReplayRefused) as caught:
        call(terms(idempotent=False), peer)
    assert (caught.value.loss, caught.value.__cause__, peer.calls) == (loss, loss, 1)


@pytest.mark.parametrize("loss", [REFUSED, StreamRefused()], ids=repr)
@every_way
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
