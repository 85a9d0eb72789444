"""Joins what two captures saw of one connection: a RST that its alleged sender never sent is proof."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2s

from holdfast.events import Endpoint, Evidence
from holdfast.watch.diagnose.across import told
from holdfast.watch.diagnose.explained import Side
from holdfast.watch.diagnose.judge import Judged
from holdfast.watch.diagnose.settle import WHO_SENT

SKEW_NS = 1_000_000_000
"""Clocks of two captures may differ by this much."""

PROOF = 10
"""Weight of what a second vantage proves."""

_INITIAL_TTLS = (64, 128, 255)

Key = tuple[object, object]
"""What is the same at both vantages: both initial sequence numbers, else both addresses."""


@dataclass(frozen=True, slots=True)
class Sighting:
    """A connection as the other vantage saw it: TTLs of both ends, and when."""

    client_ttl: tuple[int, int] | None
    server_ttl: tuple[int, int] | None


@dataclass(frozen=True, slots=True)
class Vantage:
    """The other capture.

    Attributes:
        name: of its files. found: its reset connections. lookup: any connection of it by key.
        first_ns, last_ns: of the whole capture. reliable: it neither dropped nor gave up anything.
    """

    name: str
    found: Sequence[Judged]
    lookup: Callable[[Key], Sighting | None]
    first_ns: int
    last_ns: int
    reliable: bool


def key_of(isns: tuple[int | None, int | None], client: Endpoint, server: Endpoint) -> Key:
    """The key of a connection; sequence numbers survive address translation, so they come first."""
    return (isns[0], isns[1]) if None not in isns else (client, server)


def join(ours: Sequence[Judged], other: Vantage) -> list[Judged]:
    """Our records, told better with what the other vantage saw; what only the other saw comes after them."""
    theirs = _by_key(other.found)
    joined, met = [], set()
    for one in ours:
        key = _key(one)
        twin = theirs.get(key)
        if twin is not None:
            met.add(id(twin))
        joined.append(_joined(one, twin, other, key))
    return [*joined, *(one for one in other.found if id(one) not in met)]


def _key(one: Judged) -> Key:
    return key_of(one.isns, one.explained.client, one.explained.server)


def _by_key(found: Iterable[Judged]) -> Mapping[Key, Judged]:
    return {_key(one): one for one in found}


def _joined(one: Judged, twin: Judged | None, other: Vantage, key: Key) -> Judged:
    seen = Sighting(twin.client_ttl, twin.server_ttl) if twin is not None else other.lookup(key)
    if seen is None or one.number is None or one.explained.resets == 0:
        return one
    claimed = one.explained.claimed
    nearer = _nearer(_ttl(one, claimed), seen.client_ttl if claimed == "client" else seen.server_ttl)
    story = blake2s(repr(key).encode(), digest_size=8).hexdigest()
    one = one._replace(explained=one.explained._replace(story=story))
    if twin is not None and twin.explained.sender == "path" and twin.explained.claimed != claimed:
        # What passed here is an honest end's answer; the RST that ended its connection passed only there.
        return twin._replace(explained=twin.explained._replace(story=story))
    if twin is not None and (claimed == "client", one.number) in twin.numbers:
        return _confirmed(one, twin, other)
    covered = other.first_ns - SKEW_NS <= one.explained.time_ns <= other.last_ns + SKEW_NS
    lossy = twin is not None and twin.lossy
    if not covered:
        fact = f"{other.name} has the connection, and no packet from the time of this RST: it proves nothing"
        return _noted(one, fact, 0)
    if nearer is None or nearer <= 0 or lossy or not other.reliable:
        return one
    fact = f"{other.name} was taken nearer to the {claimed}, and this RST is not in it: it was never sent"
    return _never_sent(one, fact)


def _ttl(one: Judged, side: Side) -> tuple[int, int] | None:
    return one.client_ttl if side == "client" else one.server_ttl


def _nearer(here: tuple[int, int] | None, there: tuple[int, int] | None) -> int | None:
    """By how many hops the other vantage is nearer to an end."""
    return None if here is None or there is None else there[1] - here[1]


def _confirmed(one: Judged, twin: Judged, other: Vantage) -> Judged:
    """Both saw it: if the other vantage is where it started, that end sent it."""
    claimed, ttl = one.explained.claimed, twin.rst_ttl
    if ttl is None or one.rst_ttl is None or ttl <= one.rst_ttl or ttl not in _INITIAL_TTLS:
        return _noted(one, f"{other.name} has this RST too", 0)
    own = _ttl(twin, claimed)
    if own is not None and not own[0] <= ttl <= own[1]:
        return _noted(one, f"{other.name} has this RST too, with another TTL than that end's segments", 0)
    fact = f"{other.name} was taken at the {claimed}, and has this RST: it came from there"
    if one.explained.sender == claimed:
        return _settled(_noted(one, fact, -PROOF))
    cause = one.explained.cause if one.explained.cause not in _ACCUSATIONS else "peer_aborted"
    return _settled(told(one, cause, claimed, fact, -PROOF))


_ACCUSATIONS = ("injected", "unrecognised_sender", "path_firewall_reject")


def _never_sent(one: Judged, fact: str) -> Judged:
    explained = one.explained
    if explained.cause.startswith(("ignored", "injected")):
        cause = explained.cause
    else:
        cause = "path_firewall_reject" if one.answers or one.refused else "injected"
    changed = told(one, cause, "path", fact, PROOF)
    return _settled(changed._replace(explained=changed.explained._replace(score=explained.score + PROOF)))


def _settled(one: Judged) -> Judged:
    """The same; who sent it needs no other capture any more."""
    left = tuple(words for words in one.explained.settle if WHO_SENT not in words)
    return one._replace(explained=one.explained._replace(settle=left))


def _noted(one: Judged, fact: str, weight: int) -> Judged:
    evidence = (Evidence(fact, weight), *one.explained.evidence)
    return one._replace(explained=one.explained._replace(evidence=evidence))
