"""What a scenario made, told from how it was made and never from what anything saw."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import dataclass

from holdfast.causes import Direction
from holdfast.errors import HoldfastError
from holdfast.events import Endpoint, Harm

Pair = tuple[Endpoint, Endpoint]

ANY = Harm()
"""Of a label that leaves open which bytes are at risk."""


class ScenarioFailed(HoldfastError):
    """The lab could not make what it promised; the sentence says which step did not happen."""


@dataclass(frozen=True, slots=True)
class Label:
    """The record that a perfect observer writes, once per connection.

    Where the sender is on this machine it is the sender's own record (``sent``, ``local``); otherwise,
    and for endings without a RST, it is the victim's (``received``).

    Attributes:
        cause: identifier in causes.py.
        sender: ``local``, ``peer``, ``path`` or ``unknown``, seen from the local end of the record.
        direction: which way the RST went at that end; ``received`` for endings without a RST.
        owner_pid: who owns the local socket, or owned it until it was closed; None if nobody ever did.
        netns: inode number of the local end's network namespace.
        pairs: local and peer address of each connection made.
        alone: the record as this end alone can tell it, were the other end on another machine.
        harm: bytes at risk at the local end of each connection; None where the making leaves it open.
    """

    cause: str
    sender: str
    direction: Direction
    owner_pid: int | None
    netns: int
    pairs: tuple[Pair, ...]
    alone: bool = False
    harm: Harm = ANY


def swapped(pairs: tuple[Pair, ...]) -> tuple[Pair, ...]:
    """The same connections seen from the other end."""
    return tuple((peer, local) for local, peer in pairs)
