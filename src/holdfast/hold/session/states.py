"""The life of a session, as a table; the diagram in the documentation is drawn from it."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from enum import StrEnum
from typing import Self

from holdfast.errors import UsageError
from holdfast.hold.session.codes import Code, Violation


class Told(StrEnum):
    """A word with a sentence, which is the documentation's."""

    sentence: str

    def __new__(cls, word: str, sentence: str) -> Self:  # noqa: D102 - how Enum takes more than a value
        member = str.__new__(cls, word)
        member._value_ = word
        member.sentence = sentence
        return member


class State(Told):
    """Where a session stands."""

    OPENING = "opening", "The client has not heard yet that the server has it."
    OPEN = "open", "A transport carries it."
    SUSPENDED = "suspended", "No transport carries it; both ends keep what is not confirmed."
    CLOSING = "closing", "Both directions have ended and arrived; the peer has not confirmed the end."
    RESETTING = "resetting", "This end gave it up; the peer has not confirmed that."
    CLOSED = "closed", "Ended: every byte of both directions arrived."
    RESET = "reset", "Ended: one end gave it up."
    LOST = "lost", "Ended: it could not be resumed."


class Event(Told):
    """What happens to a session."""

    ATTACHED = "attached", "a transport carries it, proven by both ends"
    DETACHED = "detached", "its transport is gone"
    RESET_HERE = "reset_here", "the application gives it up"
    RESET_THERE = "reset_there", "RESET came"
    RESET_CONFIRMED = "reset_confirmed", "RESET_OK came"
    CLOSE_HERE = "close_here", "both FINs are sent and confirmed, and the application has closed"
    CLOSE_THERE = "close_there", "CLOSE came"
    CLOSE_CONFIRMED = "close_confirmed", "CLOSE_OK came"
    REFUSED = "refused", "the server does not have it"
    EXPIRED = "expired", "it was without transport for as long as it is kept"


ENDED = frozenset({State.CLOSED, State.RESET, State.LOST})

SAID = frozenset({State.CLOSING, State.RESETTING})
"""What the peer is told of, on each transport, until it confirms."""

# Rule: every change of a session's state is in this table, and nothing else may happen.
TRANSITIONS: dict[tuple[State, Event], State] = {
    (State.OPENING, Event.ATTACHED): State.OPEN,
    (State.OPENING, Event.RESET_HERE): State.RESET,
    (State.OPENING, Event.REFUSED): State.LOST,
    (State.OPENING, Event.EXPIRED): State.LOST,
    (State.OPEN, Event.ATTACHED): State.OPEN,  # a newer transport takes over
    (State.OPEN, Event.DETACHED): State.SUSPENDED,
    (State.OPEN, Event.RESET_HERE): State.RESETTING,
    (State.OPEN, Event.RESET_THERE): State.RESET,
    (State.OPEN, Event.CLOSE_HERE): State.CLOSING,
    (State.OPEN, Event.CLOSE_THERE): State.CLOSED,
    (State.OPEN, Event.REFUSED): State.LOST,  # on a second transport, while the first still seemed alive
    (State.SUSPENDED, Event.ATTACHED): State.OPEN,
    (State.SUSPENDED, Event.RESET_HERE): State.RESETTING,
    (State.SUSPENDED, Event.REFUSED): State.LOST,
    (State.SUSPENDED, Event.EXPIRED): State.LOST,
    (State.CLOSING, Event.ATTACHED): State.CLOSING,  # CLOSE is sent again
    (State.CLOSING, Event.DETACHED): State.CLOSING,
    (State.CLOSING, Event.RESET_HERE): State.CLOSED,  # all has arrived: there is nothing to give up
    (State.CLOSING, Event.RESET_THERE): State.CLOSED,
    (State.CLOSING, Event.CLOSE_THERE): State.CLOSED,
    (State.CLOSING, Event.CLOSE_CONFIRMED): State.CLOSED,
    (State.CLOSING, Event.REFUSED): State.CLOSED,  # the peer knew the end; its answer was lost
    (State.CLOSING, Event.EXPIRED): State.CLOSED,
    (State.RESETTING, Event.ATTACHED): State.RESETTING,  # RESET is sent again
    (State.RESETTING, Event.DETACHED): State.RESETTING,
    (State.RESETTING, Event.RESET_THERE): State.RESET,
    (State.RESETTING, Event.RESET_CONFIRMED): State.RESET,
    (State.RESETTING, Event.CLOSE_THERE): State.RESET,
    (State.RESETTING, Event.REFUSED): State.RESET,
    (State.RESETTING, Event.EXPIRED): State.RESET,
}

FROM_PEER = frozenset({Event.RESET_THERE, Event.RESET_CONFIRMED, Event.CLOSE_THERE, Event.CLOSE_CONFIRMED})


def following(state: State, event: Event) -> State:
    """The state after an event.

    Raises:
        Violation: the peer did what has no place in this state.
        UsageError: this end did.
    """
    after = TRANSITIONS.get((state, event))
    if after is not None:
        return after
    if event in FROM_PEER:
        raise Violation(Code.OUT_OF_PLACE, f"{event} while {state}")
    raise UsageError(f"A session that is {state} cannot be {event}: {state.sentence}")


def diagram() -> str:
    """The table as a Mermaid state diagram."""
    lines = ["stateDiagram-v2", f"    [*] --> {State.OPENING}"]
    for (before, event), after in TRANSITIONS.items():
        lines.append(f"    {before} --> {after}: {event}")
    lines += [f"    {state} --> [*]" for state in State if state in ENDED]
    return "\n".join(lines)
