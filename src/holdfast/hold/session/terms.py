"""What one end brings to its sessions: sizes, times, and memory that all of them share."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import dataclass, field

from holdfast.hold.heartbeat import Rhythm
from holdfast.hold.session.frames import LARGEST_BYTES
from holdfast.hold.wire.session_pb2 import Terms as WireTerms
from holdfast.policy.bounds import instance, real, whole

VERSIONS = (1,)
LEAST_WINDOW_BYTES = 4096
FIRST_WINDOW_BYTES = 1 << 16
SHARES = 1 << 14
RESERVED = 4
"""One part of so many of the memory is not for growth: what was given to some is never taken back from
them, and would leave nothing for those that come later.
"""

MOST_MEMORY_BYTES = 1 << 50
TRANSPORT_BYTES = 1 << 24
ACK_DELAY_S = 0.05
HANDSHAKE_S = 10.0


@dataclass(frozen=True, slots=True)
class Terms:
    """What one end offers.

    Attributes:
        window_bytes: the most that is buffered for a session, in each direction. A window begins small and
            grows as it is used.
        transport_bytes: the most that waits for applications, of all sessions on a transport; None: 16 MiB,
            or one session's window if that is more.
        frame_bytes: the largest payload of DATA, both what is sent and what is taken.
        keep_s: how long a session without transport is kept. The smaller of both ends' holds.
        handshake_s: how long a handshake may take, from its first byte to its last.
        rhythm: the heartbeat of each transport.

    Raises:
        UsageError: a number that makes no sense.
    """

    window_bytes: int = 4 << 20
    frame_bytes: int = 1 << 18
    keep_s: float = 120.0
    handshake_s: float = HANDSHAKE_S
    rhythm: Rhythm = field(default_factory=Rhythm)
    transport_bytes: int | None = None

    def __post_init__(self) -> None:
        whole("window_bytes", self.window_bytes, 16, 1 << 30, "bytes")
        whole("frame_bytes", self.frame_bytes, 16, LARGEST_BYTES - 64, "the protocol's largest frame")
        if self.transport_bytes is not None:
            whole("transport_bytes", self.transport_bytes, 16, 1 << 40, "bytes")
        real("keep_s", self.keep_s, 0.001, 7 * 86400)
        real("handshake_s", self.handshake_s, 0.001, 300)
        instance("rhythm", self.rhythm, Rhythm, "such as Rhythm(can_s=10, want_s=30)")

    @property
    def credit_bytes(self) -> int:
        """The first credit of a transport as a whole."""
        if self.transport_bytes is None:
            return max(TRANSPORT_BYTES, self.window_bytes)
        return self.transport_bytes

    def wire(self, limit: int, keep_s: float) -> WireTerms:
        """As they travel, with the credit that this end gives at first."""
        return WireTerms(
            limit=limit,
            largest_frame=self.frame_bytes,
            keep_ms=min(round(keep_s * 1000), 2**32 - 1),
            heartbeat=self.rhythm.wire(),
        )


class Memory:
    """A limit on what all sessions of a process may buffer, in both directions together.

    Credit that was given is never taken back, so what counts is what is promised, not what is there.

    Attributes:
        cap_bytes: the limit.
        promised_bytes: what sessions may have buffered at worst; never above the limit.
        sessions: how many share it.

    Args:
        cap_bytes: the limit, at least what one smallest session needs.
    """

    __slots__ = ("cap_bytes", "promised_bytes", "sessions")

    def __init__(self, cap_bytes: int = 1 << 30) -> None:
        whole("cap_bytes", cap_bytes, 2 * LEAST_WINDOW_BYTES, MOST_MEMORY_BYTES, "bytes")
        self.cap_bytes = cap_bytes
        self.promised_bytes = self.sessions = 0

    def first_window(self, wanted_bytes: int, others: int = 0) -> int:
        """The first window of one more session; 0: there is no room for it.

        Args:
            wanted_bytes: the most it could use.
            others: how many more may be promised the same before this one enters.
        """
        most = max(LEAST_WINDOW_BYTES, min(FIRST_WINDOW_BYTES, self.cap_bytes // SHARES))
        free = self.cap_bytes - self.promised_bytes - 2 * most * others
        window = min(wanted_bytes, max(LEAST_WINDOW_BYTES, min(FIRST_WINDOW_BYTES, free // SHARES)))
        return window if 2 * window <= free else 0

    def enter(self, window: int) -> None:
        """A session with this window is there."""
        self.promised_bytes += 2 * window
        self.sessions += 1

    def resize(self, window: int, wanted: int, least: int) -> int:
        """The next window of a session that has one: larger where there is room, never above a fair share.

        What is RESERVED is for others' first windows.

        Args:
            window: what it has.
            wanted: what it could use.
            least: what is promised already and cannot be taken back.
        """
        share = self.cap_bytes // (2 * max(1, self.sessions))
        goal = max(least, min(wanted, max(LEAST_WINDOW_BYTES, share)))
        room = max(0, self.cap_bytes - self.cap_bytes // RESERVED - self.promised_bytes)
        goal = min(goal, max(least, window + room // 2))
        self.promised_bytes += 2 * (goal - window)
        return goal

    def leave(self, window: int) -> None:
        """A session is gone."""
        self.promised_bytes -= 2 * window
        self.sessions -= 1
