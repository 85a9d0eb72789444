"""Tuning and retrying are decided by pure values; each claim about them is here as data."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.errors import UsageError
from holdfast.policy import (
    DEFAULT_PROFILE,
    PROFILES,
    Backoff,
    Detection,
    Failure,
    KeepAlive,
    Ledger,
    Profile,
    Retry,
    RetryBudget,
    RetryOn,
    RetryPolicy,
    SocketPolicy,
    Stop,
    StopReason,
)
from holdfast.policy.socket_policy import retries_s

# Keep-alive and the user timeout.


@pytest.mark.parametrize(
    ("keepalive", "user_timeout_ms", "probes", "noticed_s"),
    [
        # Measured on Linux 6.18 against a black hole: 4.98 s, 12.14 s, 2.94 s and 6.96 s.
        (KeepAlive(2, 1, 3), 0, 3, 5),
        (KeepAlive(2, 1, 3), 12_000, 10, 12),
        (KeepAlive(2, 1, 3), 1_000, 1, 3),
        (KeepAlive(2, 5, 9), 4_000, 1, 7),
        # The look at 105 s finds 97.5 s over, and the user timeout at exactly a look is enough.
        (KeepAlive(60, 15, 3), 97_500, 3, 105),
        (KeepAlive(60, 15, 3), 90_000, 2, 90),
        (KeepAlive(60, 15, 3), 90_001, 3, 105),
    ],
)
def test_the_user_timeout_replaces_the_count(
    keepalive: KeepAlive, user_timeout_ms: int, probes: int, noticed_s: int
) -> None:
    assert keepalive.probes(user_timeout_ms) == probes
    assert keepalive.noticed_s(user_timeout_ms) == noticed_s


WAITS_S = st.integers(1, 32767)


@given(WAITS_S, WAITS_S, st.integers(1, 12))
def test_the_matching_user_timeout_keeps_the_meaning_of_the_count(
    idle: int, interval: int, count: int
) -> None:
    keepalive = KeepAlive(idle, interval, count)
    assert keepalive.probes(keepalive.matching_user_timeout_ms) == count


def test_a_span_beyond_the_kernels_int_ends_at_its_largest_value() -> None:
    assert KeepAlive(32767, 32767, 127).matching_user_timeout_ms == 2**31 - 1


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (
            lambda: KeepAlive(0, 1, 1),
            "idle_s is 0: give a whole number from 1 to 32767 (TCP_KEEPIDLE, s",
        ),
        (lambda: KeepAlive(32768, 1, 1), "idle_s is 32768: "),
        (lambda: KeepAlive(1.5, 1, 1), "idle_s is 1.5: give a whole number"),
        (lambda: KeepAlive(True, 1, 1), "idle_s is True: give a whole number"),
        (lambda: KeepAlive(1, 32768, 1), "interval_s is 32768: "),
        (
            lambda: KeepAlive(1, 1, 128),
            "count is 128: give a whole number from 1 to 127 (TCP_KEEPCNT, p",
        ),
        (
            lambda: SocketPolicy(keepalive=(60, 15, 3)),  # type: ignore[arg-type]
            "keepalive is (60, 15, 3): give a KeepAlive",
        ),
        (lambda: SocketPolicy(user_timeout_ms=-1), "user_timeout_ms is -1: "),
        (lambda: SocketPolicy(user_timeout_ms=2**31), "user_timeout_ms is 2147483648: "),
        (lambda: SocketPolicy(notsent_lowat_bytes=-1), "notsent_lowat_bytes is -1: "),
        (lambda: Backoff(first_s=0), "first_s is 0: give at least 0.001."),
        (lambda: Backoff(factor=0.5), "factor is 0.5: give at least 1."),
        (lambda: Backoff(first_s=2, cap_s=1), "cap_s is 1: give at least 2."),
        (lambda: Backoff(cap_s=float("inf")), "cap_s is inf: give a finite number, at least 0.1."),
        (lambda: Backoff(stable_s=-1), "stable_s is -1: give at least 0."),
        (lambda: Backoff().delay_s(0, 0.5), "attempt is 0: give a whole number from 1"),
        (lambda: Backoff().delay_s(1, 1.0), "chance is 1.0: give a random number in [0, 1)."),
        (lambda: RetryBudget(budget_percent=101), "budget_percent is 101: give at least 0 and at most 100."),
        (lambda: RetryBudget(min_retries=-1), "min_retries is -1: "),
        (lambda: RetryBudget(window_s=0), "window_s is 0: give at least 0.1."),
        (lambda: RetryPolicy(retries=-1), "retries is -1: "),
        (lambda: RetryPolicy(deadline_s=0), "deadline_s is 0: give at least 0.001."),
        (
            lambda: RetryPolicy(per_try_timeout_s="1"),
            "per_try_timeout_s is '1': give a finite number, at least 0.001.",
        ),
        (
            lambda: RetryPolicy(retry_on=frozenset({"resets"})),
            "retry_on: 'resets' is not a valid RetryOn; the words are reset, connect-failure, "
            "refused-stream, gateway-error, 5xx, retriable-status-codes.",
        ),
        (
            lambda: RetryPolicy(retry_on="reset"),
            "retry_on is the text 'reset': give a set of words, such as {'reset'}.",
        ),
        (
            lambda: RetryPolicy(retriable_status_codes=503),
            "retriable_status_codes is 503: give a set of codes, such as {503}.",
        ),
        (
            lambda: RetryPolicy(deadline_s=math.nan),
            "deadline_s is nan: give a finite number, at least 0.001.",
        ),
        (
            lambda: RetryPolicy(retriable_status_codes=frozenset({429})),
            "retriable_status_codes needs 'retriable-status-codes' in retry_on: add it.",
        ),
        (
            lambda: RetryPolicy(
                retry_on=frozenset({"retriable-status-codes"}), retriable_status_codes=frozenset({42})
            ),
            "retriable_status_codes is 42: give a whole number from 100 to 599 (HTTP status codes).",
        ),
    ],
)
def test_a_wrong_number_is_told_in_a_sentence(make: Callable[[], object], sentence: str) -> None:
    with pytest.raises(UsageError, match=re.escape(sentence)):
        make()


# Detection and its explanation.


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (SocketPolicy(), Detection(None, 925.0, None, 924.8)),
        (SocketPolicy(KeepAlive(60, 15, 3)), Detection(105, 925.0, None, 924.8)),
        (SocketPolicy(KeepAlive(60, 15, 3), 97_500), Detection(105, 97.9, 97.9, 51.2)),
        # Measured: with 20 s an outage of 10 s was survived and one of 15 s was not.
        (SocketPolicy(None, 20_000), Detection(None, 20.4, 20.4, 12.8)),
        (SocketPolicy(None, 1_000), Detection(None, 1.4, 1.4, 0.8)),
    ],
)
def test_a_policy_says_when_it_notices(policy: SocketPolicy, expected: Detection) -> None:
    found = policy.detection()
    assert (found.idle_s, found.stalled_s) == (expected.idle_s, expected.stalled_s)
    assert (found.busy_s, found.survived_s) == pytest.approx((expected.busy_s, expected.survived_s))


def test_retries_without_a_user_timeout_last_as_the_kernel_documents() -> None:
    assert retries_s(15) == pytest.approx(924.6)
    # RFC 1122 §4.2.3.5 asks for at least 100 s, which the documentation says 8 retries give.
    assert retries_s(8) == pytest.approx(102.2)
    assert SocketPolicy().detection(retries2=8).busy_s == pytest.approx(102.6)


SOUND = SocketPolicy(KeepAlive(60, 15, 3), 97_500, 131_072, True)
READS = "also ends the connection of a living peer that does not read"


@pytest.mark.parametrize(
    ("policy", "begins"),
    [
        (SOUND, [READS]),
        (SocketPolicy(), ["No keep-alive", "No user timeout"]),
        (replace(SOUND, keepalive=None), ["No keep-alive", READS]),
        (replace(SOUND, user_timeout_ms=0), ["No user timeout"]),
        # The settings of a well-known messaging library.
        (
            SocketPolicy(KeepAlive(60, 10, 9), 1_000),
            ["A single lost probe ends an idle connection. Set user_timeout_ms to 145000.", READS],
        ),
        (replace(SOUND, user_timeout_ms=75_001), ["replaces count: 2 probes are awaited, not 3.", READS]),
        (replace(SOUND, user_timeout_ms=300_000), ["replaces count: 16 probes are awaited, not 3.", READS]),
        (
            SocketPolicy(KeepAlive(60, 15, 1), 67_500),
            ["A single lost probe ends an idle connection. Raise", READS],
        ),
        (replace(SOUND, fastopen_connect=True), [READS, "Fast Open may deliver the first message twice"]),
    ],
)
def test_contradictions_are_warned_of(policy: SocketPolicy, begins: list[str]) -> None:
    warnings = policy.warnings()
    assert len(warnings) == len(begins)
    for warning, words in zip(warnings, begins, strict=True):
        assert words in warning


def test_an_explanation_says_idle_busy_stalled_and_the_warnings() -> None:
    assert SOUND.explain().splitlines() == [
        "Idle: a dead peer is noticed 105 s after it was last heard: 3 probes unanswered, the first after "
        "60 s, each awaited for 15 s.",
        "Busy: a dead peer is noticed about 98 s after data was sent to it; an outage of 51 s is survived.",
        "Stalled: a peer that answers but does not read is given up after 98 s.",
        "Warning: The user timeout also ends the connection of a living peer that does not read for 98 s: "
        "let it read always, and limit by the protocol what may be in flight.",
    ]
    left_alone = SocketPolicy().explain(retries2=8).splitlines()
    assert left_alone[:3] == [
        "Idle: a dead peer is never noticed.",
        "Busy: a dead peer is noticed at the earliest 103 s after data was sent to it; "
        "an outage of 102 s is survived.",
        "Stalled: a peer that answers but does not read is never given up.",
    ]
    assert "after 102.2 s or later (net.ipv4.tcp_retries2)" in left_alone[4]


# Profiles.


def test_the_profiles_are_these() -> None:
    assert list(PROFILES) == ["cloud", "lan", "mobile", "aws-nlb", "azure-lb", "gcp", "ipvs", "nat"]
    assert DEFAULT_PROFILE.name == "cloud"


@pytest.mark.parametrize("profile", PROFILES.values(), ids=list(PROFILES))
def test_every_number_of_a_profile_has_a_source(profile: Profile) -> None:
    numbers = ["idle_s", "interval_s", "count", "user_timeout_ms", "notsent_lowat_bytes", "heartbeat_s"]
    numbers += ["path_idle_s"] if profile.path_idle_s else []
    assert [source.number for source in profile.sources] == numbers
    assert all(source.says and source.where for source in profile.sources)


@pytest.mark.parametrize("profile", PROFILES.values(), ids=list(PROFILES))
def test_a_profile_contradicts_neither_itself_nor_its_path(profile: Profile) -> None:
    keepalive = profile.policy.keepalive
    assert keepalive is not None
    assert [READS in warning for warning in profile.policy.warnings()] == [True]
    assert profile.heartbeat_s < keepalive.idle_s
    # Two probes may be lost and the path still remembers the connection.
    if profile.path_idle_s:
        assert keepalive.idle_s + 2 * keepalive.interval_s < profile.path_idle_s


def test_a_profile_explains_its_path_first() -> None:
    assert PROFILES["azure-lb"].explain().splitlines()[0] == (
        "Path: Azure Load Balancer; after 240 s without a segment it drops the connection silently, unless "
        "TCP reset is enabled for the rule."
    )
    assert (
        PROFILES["lan"]
        .explain()
        .startswith("Path: switches and routers without memory, in one place; it forgets nothing.\nIdle: ")
    )


# Backoff.


@pytest.mark.parametrize(
    ("attempt", "limit_s"),
    [(1, 0.1), (2, 0.2), (3, 0.4), (7, 6.4), (8, 10.0), (9, 10.0), (5_000, 10.0), (10**18, 10.0)],
)
def test_the_limit_doubles_up_to_the_cap(attempt: int, limit_s: float) -> None:
    assert Backoff().limit_s(attempt) == pytest.approx(limit_s)


def test_a_factor_of_one_never_grows() -> None:
    assert Backoff(factor=1).limit_s(10**18) == 0.1


@given(st.integers(1, 10**6), st.floats(0, 1, exclude_max=True))
def test_jitter_is_full_a_wait_is_drawn_evenly_below_the_limit(attempt: int, chance: float) -> None:
    backoff = Backoff()
    assert backoff.delay_s(attempt, chance) == chance * backoff.limit_s(attempt)
    assert 0 <= backoff.delay_s(attempt, chance) < 10 or chance == 0


def test_only_a_stable_connection_begins_the_count_again() -> None:
    backoff = Backoff()
    assert [backoff.attempt_after(4, lasted_s) for lasted_s in (0.0, 9.99, 10.0, 3600.0)] == [5, 5, 1, 1]


# The budget.


def spend(budget: RetryBudget, ledger: Ledger, now_s: float) -> tuple[Ledger, int]:
    """Retry until the budget says no; the ledger then and how often it said yes."""
    made = 0
    while (after := budget.retry(ledger, now_s)) is not None:
        ledger, made = after, made + 1
    return ledger, made


def requests(budget: RetryBudget, count: int, now_s: float) -> Ledger:
    ledger = Ledger()
    for _ in range(count):
        ledger = budget.request(ledger, now_s)
    return ledger


@pytest.mark.parametrize(("count", "retries"), [(0, 3), (4, 3), (5, 4), (100, 23), (1000, 203)])
def test_retries_are_a_fifth_of_the_requests_and_three(count: int, retries: int) -> None:
    budget = RetryBudget()
    assert spend(budget, requests(budget, count, 50.0), 50.0)[1] == retries


def test_a_request_pays_for_ten_seconds_and_so_does_a_retry() -> None:
    budget = RetryBudget()
    spent, _ = spend(budget, requests(budget, 100, 50.0), 50.0)
    assert [budget.left(spent, now_s) for now_s in (50.0, 59.9, 60.0)] == [0, 0, 3]
    assert budget.left(requests(budget, 100, 50.0), 60.0) == 3


def test_without_a_floor_and_requests_nothing_is_retried() -> None:
    assert RetryBudget(min_retries=0).retry(Ledger(), 1.0) is None


def test_a_clock_that_goes_back_forgives_nothing() -> None:
    budget = RetryBudget()
    spent, _ = spend(budget, Ledger(), 100.0)
    assert budget.retry(spent, 3.0) is None
    assert budget.request(spent, 3.0).slots == ((100, 1, 3),)


def test_a_ledger_holds_no_more_than_ten_slots() -> None:
    budget, ledger = RetryBudget(), Ledger()
    for tick in range(500):
        ledger = budget.request(ledger, tick * 0.3)
    assert len(ledger.slots) <= 10


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 2)), max_size=120))
def test_no_window_has_more_retries_than_it_may(steps: list[tuple[bool, float]]) -> None:
    """Whatever comes in whatever order: in any ten slots, retries <= 20 % of requests + 3."""
    budget, ledger, now_s = RetryBudget(), Ledger(), 0.0
    log: list[tuple[int, bool]] = []
    for is_request, wait_s in steps:
        now_s += wait_s
        after = budget.request(ledger, now_s) if is_request else budget.retry(ledger, now_s)
        if after is None:
            continue
        ledger = after
        log.append((int(now_s), is_request))
        recent = [asked for slot, asked in log if slot > int(now_s) - 10]
        if not is_request:
            assert recent.count(False) <= recent.count(True) * 0.2 + 3 + 1e-7


# The retry policy.

RESETS = RetryPolicy(retry_on=frozenset({RetryOn.RESET}))


def test_three_retries_mean_up_to_four_attempts() -> None:
    """As Envoy's num_retries: 3 and Istio's attempts: 3 do; the first attempt is not a retry."""
    policy, attempts = RetryPolicy(retries=3), 1
    while isinstance(
        policy.decide(attempts, 0.0, Failure.RESET, idempotent=True, handed_bytes=9, chance=0.5), Retry
    ):
        attempts += 1
    assert attempts == 4


ALL_5XX = [500, 501, 502, 503, 504, 511, 599]


@pytest.mark.parametrize(
    ("word", "covered"),
    [
        ("reset", [*Failure]),
        ("connect-failure", [Failure.CONNECT_FAILURE]),
        ("refused-stream", [Failure.REFUSED_STREAM]),
        ("gateway-error", [*Failure, 502, 503, 504]),
        ("5xx", [*Failure, *ALL_5XX]),
        ("retriable-status-codes", [409, 503]),
    ],
)
def test_envoys_words_cover_what_they_cover_in_envoy(word: str, covered: list[Failure | int]) -> None:
    codes = frozenset({409, 503}) if word == "retriable-status-codes" else frozenset()
    policy = RetryPolicy(retry_on=frozenset({word}), retriable_status_codes=codes)
    asked: list[Failure | int] = [*Failure, 200, 409, 429, *ALL_5XX, 600]
    assert [failure for failure in asked if policy.covers(failure)] == sorted(covered, key=asked.index)
    assert {str(member) for member in RetryOn} >= {word}


@pytest.mark.parametrize(
    ("attempt", "elapsed_s", "failure", "idempotent", "handed_bytes", "expected"),
    [
        (1, 0.0, Failure.RESET, True, 900, Retry(0.0125)),
        (2, 0.1, Failure.TIMEOUT, True, 900, Retry(0.025)),
        (3, 0.1, 503, True, 900, Retry(0.05)),
        (4, 0.1, Failure.RESET, True, 900, Stop(StopReason.RETRIES_SPENT)),
        (1, 0.1, 500, True, 900, Stop(StopReason.NOT_RETRIABLE)),
        # One byte that a socket took may have arrived; none cannot have.
        (1, 0.0, Failure.RESET, False, 1, Stop(StopReason.NOT_SAFE)),
        (1, 0.0, Failure.RESET, False, 0, Retry(0.0125)),
        (1, 0.0, 503, False, 900, Stop(StopReason.NOT_SAFE)),
        (1, 0.0, Failure.REFUSED_STREAM, False, 900, Retry(0.0125)),
        (1, 0.0, Failure.CONNECT_FAILURE, False, 900, Retry(0.0125)),
        (1, 14.99, Failure.RESET, True, 900, Stop(StopReason.DEADLINE)),
        (1, 14.98, Failure.RESET, True, 900, Retry(0.0125)),
        # What could do harm is said before what is merely used up.
        (9, 99.0, Failure.RESET, False, 1, Stop(StopReason.NOT_SAFE)),
    ],
)
def test_a_failed_attempt_is_tried_again_or_not(
    attempt: int,
    elapsed_s: float,
    failure: Failure | int,
    idempotent: bool,
    handed_bytes: int,
    expected: Retry | Stop,
) -> None:
    decision = RetryPolicy().decide(
        attempt, elapsed_s, failure, idempotent=idempotent, handed_bytes=handed_bytes, chance=0.5
    )
    assert decision == expected


def test_an_attempt_may_take_what_is_left_but_no_more_than_its_share() -> None:
    assert [RetryPolicy().try_timeout_s(elapsed_s) for elapsed_s in (0.0, 14.0, 16.0)] == [15.0, 1.0, 0.0]
    policy = RetryPolicy(per_try_timeout_s=2.0)
    assert [policy.try_timeout_s(elapsed_s) for elapsed_s in (0.0, 14.0, 16.0)] == [2.0, 1.0, 0.0]


def test_the_values_are_frozen_and_compare_by_what_they_say() -> None:
    assert RetryPolicy(retry_on=frozenset({"reset"})) == RESETS
    assert len({KeepAlive(1, 2, 3), KeepAlive(1, 2, 3), SOUND, replace(SOUND)}) == 2
    with pytest.raises(AttributeError):
        RESETS.retries = 5  # type: ignore[misc]
