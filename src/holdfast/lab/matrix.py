"""Holds what was made against what was explained: the golden matrix."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import platform
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass

from holdfast.events import Endpoint, Event, Reset
from holdfast.lab.label import Label
from holdfast.lab.runner import Made, make
from holdfast.lab.scenario import Scenario
from holdfast.watch.diagnose.stories import Stories
from holdfast.watch.kernel.abilities import UNTOLD_WITHOUT_REASON

SILENT = "orderly_end"
"""The cause that must leave no record: nothing went wrong."""

SILENT_WAIT_S = 0.6
"""How long to wait for a record that must not come."""

EVENTS_KEPT = 65_536

TRIES = 3
"""How often to make a scenario of which nothing is seen: what a process does may recur with the timers."""

UNSEEN = "the kernel showed nothing of it, so it is made again."
"""What to say of a scenario that :func:`observe` makes again."""

_Ends = tuple[int | None, Endpoint, Endpoint]


@dataclass(frozen=True, slots=True)
class Pairing:
    """One connection that the lab made, and the record that tells of it; None if none does."""

    made: Made
    reset: Reset | None

    @property
    def explained(self) -> bool:
        """Whether the record names the label's cause, sender and owner, and any bytes it knows."""
        return not self.differences()

    @property
    def untold(self) -> bool:
        """Whether only a kernel that gives reasons could tell, this one gave none, and we said just that."""
        if self.reset is None or self.reset.kernel_reason is not None:
            return False
        return UNTOLD_WITHOUT_REASON.get(self.made.label.cause) == self.reset.cause

    @property
    def incomplete(self) -> bool:
        """Whether the record leaves something open, and nothing that it tells is wrong."""
        said = [said for _, said in self.differences().values()]
        return self.reset is not None and bool(said) and all(one in (None, "unknown") for one in said)

    def differences(self) -> dict[str, tuple[object, object]]:
        """What differs, as {key: (made, explained)}."""
        label, reset = self.made.label, self.reset
        if label.cause == SILENT:
            return {} if reset is None else {"record": (None, reset.cause)}
        if reset is None:
            return {"record": (label.cause, None)}
        owner = reset.owner.pid if reset.owner is not None else None
        pairs: dict[str, tuple[object, object]] = {
            "cause": (label.cause, reset.cause),
            "sender": (label.sender, reset.sender),
            "owner_pid": (label.owner_pid, owner),
        }
        harms = {key: (made, getattr(reset.harm, key)) for key, made in asdict(label.harm).items()}
        pairs |= {key: pair for key, pair in harms.items() if pair[0] is not None}
        return {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}

    def as_json(self) -> dict[str, object]:
        """The object that ``holdfast lab run --json`` prints."""
        label = self.made.label
        return {
            "scenario": self.made.scenario.name,
            "family": self.made.family,
            "label": {"cause": label.cause, "sender": label.sender, "owner_pid": label.owner_pid},
            "explained": self.explained,
            "reset": None if self.reset is None else self.reset.as_json(),
        }


class Records:
    """Every record a watch has told of, to be asked by connection; threads may add and ask.

    Also keeps the latest events, so that a scenario can be judged as one end alone would see it.

    Args:
        namespaces: whether the source tells the namespace of a connection. Where it does not, addresses tell
            connections apart: no two networks that one process makes share them.
    """

    def __init__(self, namespaces: bool = True) -> None:
        self._namespaces = namespaces
        self._by_ends: dict[_Ends, list[Reset]] = {}
        self._events: deque[Event] = deque(maxlen=EVENTS_KEPT)
        self._changed = threading.Condition()

    def add(self, reset: Reset) -> None:
        """Take one record in."""
        with self._changed:
            self._by_ends.setdefault((reset.netns, reset.local, reset.peer), []).append(reset)
            self._changed.notify_all()

    def tap(self, events: Sequence[Event]) -> None:
        """Take the events in from which records will come."""
        with self._changed:
            self._events.extend(events)

    def pair(self, made: Made, timeout_s: float = 5.0) -> list[Pairing]:
        """One pairing per connection made, waiting until each has a record or the time is up."""
        silent = made.label.cause == SILENT
        deadline_s = time.monotonic() + (SILENT_WAIT_S if silent else timeout_s)
        with self._changed:
            while True:
                told = self._alone(made.label) if made.label.alone else self._by_ends
                found = [Pairing(made, reset) for reset in self._find(made.label, told)]
                left_s = deadline_s - time.monotonic()
                if left_s <= 0 or (not silent and all(self._settled(pairing) for pairing in found)):
                    return found
                self._changed.wait(left_s)

    def hidden(self, pairings: Sequence[Pairing]) -> bool:
        """Whether records lack, and no event came that they could have come from.

        The end that should tell is asked, not the other: on its way a RST can leave what is hidden, so that
        the peer's end shows its arrival and the sender's nothing. Never true of a source that tells no
        namespaces: it shows too little to say.
        """
        lacking = {
            (one.made.label.netns, frozenset(ends))
            for one, ends in zip(pairings, pairings[0].made.label.pairs, strict=True)
            if one.reset is None and not one.explained
        }
        with self._changed:
            return (
                self._namespaces
                and bool(lacking)
                and not any(
                    (event.netns, frozenset((event.local, event.peer))) in lacking for event in self._events
                )
            )

    def _alone(self, label: Label) -> dict[_Ends, list[Reset]]:
        """Records from the events of the label's namespace only, as if the peer were on another machine."""
        stories = Stories(platform.node(), time.time_ns() - time.monotonic_ns())
        stories.feed([event for event in self._events if self._is_there(event, label)], 0)
        told: dict[_Ends, list[Reset]] = {}
        for reset in stories.flush():
            told.setdefault((reset.netns, reset.local, reset.peer), []).append(reset)
        return told

    def _settled(self, pairing: Pairing) -> bool:
        # A source that tells no namespace tells few owners and no bytes either, however long we wait.
        return pairing.explained or pairing.untold or (pairing.incomplete and not self._namespaces)

    def _is_there(self, event: Event, label: Label) -> bool:
        if self._namespaces:
            return event.netns == label.netns
        return event.local.ip in {local.ip for local, _ in label.pairs}

    def _find(self, label: Label, records: dict[_Ends, list[Reset]]) -> Iterator[Reset | None]:
        for local, peer in label.pairs:
            told = records.get((label.netns if self._namespaces else None, local, peer), [])
            if not told and not self._namespaces:
                # Such a source knows a listener's reset by the listener only.
                told = records.get((None, local, Endpoint("::" if ":" in local.ip else "0.0.0.0", 0)), [])
            same_way = [reset for reset in told if reset.direction == label.direction]
            right = [reset for reset in same_way if reset.cause == label.cause]
            yield next(iter(right or same_way or told), None)


def observe(
    chosen: Scenario, family: int, count: int, records: Records, on_unseen: Callable[[Made], None],
    timeout_s: float = 5.0,
) -> list[Pairing]:  # fmt: skip
    """Make one scenario and pair what it made with its records; again if the kernel showed nothing of it.

    Some virtual machines shield a process from BPF and perf (docs/reference/limits.md). A timer that happens
    to interrupt that process ends connections unseen; another try tells this from a reset that we missed.

    Args:
        on_unseen: told what is made again, :data:`TRIES` times in all at most.

    Raises:
        KernelUnavailable, ScenarioFailed: as :func:`~holdfast.lab.runner.make`.
    """
    pairings: list[Pairing] = []

    def judge(made: Made) -> None:
        pairings[:] = records.pair(made, timeout_s)

    for left in reversed(range(TRIES)):
        made = make(chosen, family, count, judge)
        if not records.hidden(pairings):
            break
        if left:
            on_unseen(made)
    return pairings
