"""Why a session or a transport was given up: the numbers on the wire, each with its sentence."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from enum import IntEnum
from typing import Self

from holdfast.errors import HoldfastError


class Code(IntEnum):
    """The code of a RESET; also what a :class:`Violation` is about."""

    sentence: str

    def __new__(cls, number: int, sentence: str) -> Self:  # noqa: D102 - how Enum takes more than a value
        member = int.__new__(cls, number)
        member._value_ = number
        member.sentence = sentence
        return member

    ABORTED = 1, "its application gave up the session"
    CLOSED_UNREAD = 2, "its application closed the session without reading all that came"
    SUPERSEDED = 3, "a newer transport carries the session"
    TOO_LARGE = 16, "a frame is larger than was agreed"
    UNKNOWN_KIND = 17, "a frame is of a kind that must be known"
    MALFORMED = 18, "a frame does not say what its kind says"
    OUT_OF_PLACE = 19, "a frame has no place at this point"
    GAP = 20, "bytes are missing before an offset"
    OVER_CREDIT = 21, "more was sent than was allowed"
    BAD_ACK = 22, "bytes are acknowledged that were never sent"
    BAD_PROOF = 23, "a proof is wrong"
    BAD_SEAL = 24, "a sealed frame does not open"
    # 25 was for handshakes that take too long: not a fault of the peer as a rule, and told to nobody.
    TOO_MANY = 26, "there are too many handshakes under way"
    UNHEARD = 27, "more answers were asked for than are read"


def given_up(code: int) -> str:
    """How an end gave a session up, to be said after its name; also with a code that we do not know."""
    known = Code._value2member_map_.get(code)
    return f"gave it up: {known.sentence}" if isinstance(known, Code) else f"gave it up with code {code}"


class Violation(HoldfastError):
    """The other end broke the protocol: its transport is given up, and what it carried is resumed elsewhere.

    Attributes:
        code: which rule.
        detail: what was seen.
    """

    def __init__(self, code: Code, detail: str = "") -> None:
        super().__init__(code, detail)
        self.code, self.detail = code, detail

    def __str__(self) -> str:
        return f"The peer broke the protocol: {self.code.sentence}{self.detail and f' ({self.detail})'}."
