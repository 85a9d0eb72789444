"""How a session is kept: its buffers and times, and how its transports are dialled again."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import partial

from holdfast.hold.heartbeat import Rhythm
from holdfast.hold.session.terms import Terms
from holdfast.policy import DEFAULT_PROFILE, Backoff, Profile, RetryBudget, SocketPolicy
from holdfast.policy.bounds import instance

NOTSENT_BYTES = 1 << 19


@dataclass(frozen=True, slots=True)
class SessionPolicy:
    """How one end keeps its sessions; what both ends have a say in is negotiated.

    Attributes:
        profile: the path between the ends: socket options, and how often the peer should be heard.
        window_bytes: the most that is buffered for a session, in each direction.
        frame_bytes: the largest payload of DATA.
        keep_s: how long a session without transport is kept.
        handshake_s: how long one handshake may take.
        rhythm: the heartbeat; None: as often as the profile says.
        backoff: the waits between attempts to dial.
        budget: how many attempts, shared by all sessions of this process with the same target.
        follow_location: a client resumes where its server says that it is reached, before where it dialled.

    Raises:
        UsageError: a number that makes no sense.
    """

    profile: Profile = DEFAULT_PROFILE
    window_bytes: int = 4 << 20
    frame_bytes: int = 1 << 18
    keep_s: float = 120.0
    handshake_s: float = 10.0
    rhythm: Rhythm | None = None
    backoff: Backoff = field(default_factory=Backoff)
    budget: RetryBudget = field(default_factory=lambda: RetryBudget(min_retries=20))
    follow_location: bool = True

    def __post_init__(self) -> None:
        instance("profile", self.profile, Profile, 'such as PROFILES["lan"]')
        instance("backoff", self.backoff, Backoff, "such as Backoff(first_s=0.1)")
        instance("budget", self.budget, RetryBudget, "such as RetryBudget(min_retries=20)")
        instance("follow_location", self.follow_location, bool, "True or False")
        self.terms()  # checks the rest

    @property
    def socket_policy(self) -> SocketPolicy:
        """The profile's, but with room in the kernel for two of our writes.

        Below one write, each is cut in two: measured here, half of the throughput of a bulk transfer. What
        waits there holds a PING up for 4 ms at 1 Gbit/s.
        """
        return replace(self.profile.policy, notsent_lowat_bytes=NOTSENT_BYTES)

    def terms(self) -> Terms:
        """What goes on the wire of it."""
        beat_s = self.profile.heartbeat_s
        rhythm = Rhythm(can_s=beat_s / 4, want_s=beat_s) if self.rhythm is None else self.rhythm
        return Terms(self.window_bytes, self.frame_bytes, self.keep_s, self.handshake_s, rhythm)


class Happened(StrEnum):
    """What an observer is told of."""

    OPENED = "opened"
    SUSPENDED = "suspended"
    RESUMED = "resumed"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class SessionEvent:
    """One moment in the life of a session, for metrics and logs.

    Attributes:
        what: what happened.
        session_id: in hexadecimal; it is no secret.
        peer: the other end's address, if it is known.
        resumes: how often the session was resumed so far.
        replayed_bytes: what was sent again so far.
        recovery_s: of RESUMED: how long no transport carried it.
        why: of SUSPENDED, what ended the transport; of ENDED, unless all arrived, the reason; in words.
    """

    what: Happened
    session_id: str
    peer: str | None
    resumes: int
    replayed_bytes: int
    recovery_s: float = 0.0
    why: str = ""


Observer = Callable[[SessionEvent], object]


now_s: Callable[[], float] = partial(time.clock_gettime, time.CLOCK_BOOTTIME)
"""The clock of sessions: it never goes back, and goes on while the machine sleeps."""
