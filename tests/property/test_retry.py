"""Whatever fails and whenever: addresses are dialled once, waits end in time, nothing is done twice."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import errno

from hypothesis import given, settings
from hypothesis import strategies as st
from unit.hold.faketime import FakeTime

from holdfast.errors import ConnectionRefused, ConnectionReset, GaveUp, Loss, ReplayRefused
from holdfast.hold.race import ATTEMPT_DELAY_S, Address, Race, interleave
from holdfast.hold.retry import Retrying
from holdfast.policy import Backoff, RetryPolicy

ADDRESSES = st.lists(
    st.builds(Address, st.sampled_from([2, 10]), st.tuples(st.integers(0, 50))), unique=True, max_size=12
)
ERRORS = {
    "reset": ConnectionReset(Loss(errno.ECONNRESET, "peer_aborted")),
    "refused": ConnectionRefused(Loss(errno.ECONNREFUSED, "connection_refused")),
    "bug": ValueError(),
}


@settings(deadline=None)
@given(ADDRESSES)
def test_taking_turns_loses_no_address_and_keeps_the_order_in_a_family(addresses: list[Address]) -> None:
    turns = interleave(addresses)
    for family in (2, 10):
        assert [one for one in turns if one.family == family] == [
            one for one in addresses if one.family == family
        ]
    assert turns[:1] == addresses[:1]


@settings(deadline=None)
@given(ADDRESSES, st.lists(st.tuples(st.floats(0, 0.5), st.booleans()), max_size=60))
def test_a_head_start_is_kept_unless_an_attempt_fails(
    addresses: list[Address], events: list[tuple[float, bool]]
) -> None:
    race, now_s, running, free, last_s = Race(addresses), 0.0, 0, True, 0.0
    taken: list[Address] = []
    for passed_s, fails in events:
        now_s += passed_s
        if fails and running:
            race.lost(OSError())
            running, free = running - 1, True
        while (address := race.take(now_s)) is not None:
            assert free or now_s >= last_s + ATTEMPT_DELAY_S
            taken.append(address)
            running, free, last_s = running + 1, False, now_s
    assert taken == addresses[: len(taken)]
    assert race.over == (not running and len(taken) == len(addresses))


OUTCOME = st.tuples(st.sampled_from([*ERRORS, "fine"]), st.floats(0, 5), st.sampled_from([None, False, True]))


@settings(deadline=None)
@given(
    outcomes=st.lists(OUTCOME, max_size=8),
    retries=st.integers(0, 5),
    deadline_s=st.floats(0.01, 20),
    idempotent=st.booleans(),
    chance=st.floats(0, 1, exclude_max=True),
)
def test_a_request_ends_in_time_and_is_repeated_only_if_that_is_safe(
    outcomes: list[tuple[str, float, bool | None]],
    retries: int,
    deadline_s: float,
    idempotent: bool,
    chance: float,
) -> None:
    time, begun_s = FakeTime(0), []
    policy = RetryPolicy(retries=retries, deadline_s=deadline_s, backoff=Backoff(first_s=0.1, cap_s=3))
    tries = Retrying(policy, idempotent=idempotent, clock=time.clock, sleep=time.sleep, chance=lambda: chance)
    seen: list[tuple[str, bool | None]] = []
    try:
        for attempt in tries:
            begun_s.append(time.now_s)
            assert time.now_s <= attempt.deadline <= deadline_s
            with attempt:
                what, takes_s, attempt.handed_over = outcomes[len(seen)] if len(seen) < len(outcomes) else (
                    "fine", 0.0, None
                )  # fmt: skip
                seen.append((what, attempt.handed_over))
                time.pass_by(takes_s)
                if what != "fine":
                    raise ERRORS[what]
    except GaveUp as error:
        assert list(error.losses) == [ERRORS[what] for what, _ in seen]
    except ReplayRefused:
        assert not idempotent and seen[-1][0] == "reset" and seen[-1][1] is not False
    except ValueError:
        assert seen[-1][0] == "bug"
    else:
        assert seen[-1][0] == "fine"
    assert len(begun_s) <= retries + 1
    assert all(at_s < deadline_s for at_s in begun_s)
    repeated = seen[:-1]
    assert all(
        what == "refused" or (what == "reset" and (idempotent or over is False)) for what, over in repeated
    )
