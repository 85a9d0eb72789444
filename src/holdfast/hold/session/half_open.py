"""Who has come to a server and proven nothing yet: so many at most, shared between where they come from."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Callable, Hashable


class Place:
    """One of the places.

    Attributes:
        origin: where its holder comes from.
        evict: takes it from its holder.
    """

    __slots__ = ("evict", "origin")

    def __init__(self, origin: Hashable, evict: Callable[[], object]) -> None:
        self.origin, self.evict = origin, evict


class HalfOpen:
    """Places for handshakes.

    While there are free ones anybody gets one. When there is none, a newcomer gets the oldest of the origin
    that holds most, unless his own then held as many: so whoever holds them all from one address keeps nobody
    out who comes from another, and clients behind one address may use them all meanwhile.

    Attributes:
        most: how many there are.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._held: dict[Hashable, dict[Place, None]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def enter(self, origin: Hashable, evict: Callable[[], object]) -> Place | None:
        """A place, to be given back by :meth:`leave`; None: there is none for this origin.

        Args:
            origin: where the newcomer comes from.
            evict: called when the place is given to somebody else; it is given back already.
        """
        if self._count >= self.most and not self._evicted_for(origin):
            return None
        place = Place(origin, evict)
        self._held.setdefault(origin, {})[place] = None
        self._count += 1
        return place

    def leave(self, place: Place) -> None:
        """Give a place back: its holder has proven himself, or is gone; a second time does nothing."""
        held = self._held.get(place.origin, {})
        if place in held:
            del held[place]
            self._count -= 1
            if not held:
                del self._held[place.origin]

    def _evicted_for(self, origin: Hashable) -> bool:
        largest = max(self._held.values(), key=len)
        if len(largest) <= len(self._held.get(origin, ())) + 1:
            return False
        oldest = next(iter(largest))
        self.leave(oldest)
        oldest.evict()
        return True
