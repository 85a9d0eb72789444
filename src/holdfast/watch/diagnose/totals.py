"""Exact totals by cause, from the counts that the kernel side keeps whether or not detail is lost."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from holdfast.causes import Direction
from holdfast.events import Event, Kind
from holdfast.watch.diagnose.sent import sent_cause

Total = tuple[Direction, str | None]
"""Which way the RST went, and the cause; None where a count alone cannot tell it (received resets)."""


def by_cause(counted: Iterable[tuple[Event, int]]) -> Counter[Total]:
    """How many resets were sent for each cause, and how many received.

    Args:
        counted: events with the deciding facts only, and how often each happened.
    """
    totals: Counter[Total] = Counter()
    for event, count in counted:
        if event.kind is Kind.RESET_SENT:
            totals[Direction.SENT, sent_cause(event).cause] += count
        elif event.kind is Kind.RESET_RECEIVED:
            totals[Direction.RECEIVED, None] += count
    return totals


def folded_json(event: Event, count: int) -> dict[str, object]:
    """A group of alike events that have no record of their own, with the keys of docs/reference/json.md."""
    return {
        "kind": event.kind.value,
        "count": count,
        # As in the totals: of what was received a count alone does not tell it.
        "cause": sent_cause(event).cause if event.kind is Kind.RESET_SENT else None,
        "local_port": event.local.port or None,
        "peer_port": event.peer.port or None,
        "pid": event.opener.pid if event.opener else None,
        "netns": event.netns,
    }
