"""What tests of retries share: a peer that fails as told, and every way of asking it again."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from unit.hold.faketime import FakeTime

from holdfast.errors import ConnectionClosed, ConnectionRefused, ConnectionReset, Loss
from holdfast.hold.outcome import http_status
from holdfast.hold.retry import Retrying
from holdfast.policy import Backoff, RetryPolicy

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


every_way = pytest.mark.parametrize(
    "call", [by_loop, by_decorator, by_async_loop, by_async_decorator], ids=lambda way: way.__name__
)
"""A test for whatever way of asking: it gets a :data:`Call`."""
