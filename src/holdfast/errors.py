"""The error tree: facts as attributes, the sentence in ``str()``."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import errno as errnos
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

from holdfast.causes import Basis, cause


class HoldfastError(Exception):
    """Anything that Holdfast raises on purpose."""


class UsageError(HoldfastError, ValueError):
    """The caller broke our contract; the sentence says how to mend the call."""


class KernelUnavailable(HoldfastError):
    """A kernel feature is missing, too old, or not allowed to this process.

    Attributes:
        feature: what was wanted, in words.
        needs: what would make it available: a capability, a kernel version, a package.
    """

    def __init__(self, feature: str, needs: str) -> None:
        super().__init__(feature, needs)
        self.feature = feature
        self.needs = needs

    def __str__(self) -> str:
        return f"{self.feature} is not available here: it needs {self.needs}."


class Gathered(HoldfastError):
    """An error with ``partial``: what the failed call had gathered.

    Copied when somebody first looks, since a program that polls may meet such an error each millisecond.
    """

    _partial: bytes | Callable[[], bytes] = b""

    @property
    def partial(self) -> bytes:
        """The bytes, as they were here when this was first asked for."""
        if not isinstance(self._partial, bytes):
            self._partial = self._partial()
        return self._partial

    @partial.setter
    def partial(self, data: bytes) -> None:
        self._partial = data

    def gathered(self, read: Callable[[], bytes]) -> None:
        """Say how to get ``partial``."""
        self._partial = read

    def __reduce__(self) -> str | tuple[Any, ...]:
        self._partial = self.partial  # a function cannot be pickled
        return super().__reduce__()


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a connection ended, as well as it is known.

    Attributes:
        cause: identifier in causes.py.
        basis: ``observed`` if a watch saw it in the kernel, ``inferred`` if a rule concluded it here.
        sentence: one plain sentence.
        remedy: what to do, in imperative sentences.
        reset: the watch's whole record (:class:`holdfast.events.Reset`), None if no watch knew more.
    """

    cause: str
    basis: Basis
    sentence: str
    remedy: tuple[str, ...]
    reset: Any = None  # Any: events.py builds on this module, not the other way round


@dataclass(frozen=True, slots=True)
class Loss:
    """What was known of a connection at the moment it was lost; None is not known.

    Attributes:
        errno: the first error of the kernel, which later calls do not repeat.
        cause: identifier in causes.py, concluded from errno, state and figures.
        local, peer: ``addr:port``, ``[v6]:port`` or the path of a Unix socket.
        unsent_bytes: written and never sent: certainly not delivered.
        unacked_bytes: sent and not acknowledged: may have been delivered or not.
        acked_bytes: acknowledged: they reached the peer's kernel, perhaps not its program.
        idle_s: since the last byte went either way.
        tcp_info: the :class:`holdfast.linux.tcp_info.TcpInfo` read at that moment.
        cookie: the kernel's identity of the socket, never reused.
    """

    errno: int
    cause: str
    local: str | None = None
    peer: str | None = None
    unsent_bytes: int | None = None
    unacked_bytes: int | None = None
    acked_bytes: int | None = None
    idle_s: float | None = None
    tcp_info: Any = None  # Any: linux builds on this module, not the other way round
    cookie: int | None = None

    @property
    def lost(self) -> str | None:
        """What did not certainly arrive, in words."""
        counts = ((self.unsent_bytes, "unsent"), (self.unacked_bytes, "unacknowledged"))
        if all(count is None for count, _ in counts):
            return None
        parts = [f"{count} {kind}" for count, kind in counts if count]
        # Not "nothing": acknowledged bytes may still have died unread in the peer's kernel.
        return f"{' and '.join(parts) or 'no unsent or unacknowledged'} bytes"


class ConnectionLost(Gathered, ConnectionError):
    """The peer, the path or an administrator ended the connection; retrying on a new one may help.

    Attributes:
        loss: every fact; ``local``, ``peer``, ``cause``, ``idle_s``, ``tcp_info``, ``unsent_bytes``,
            ``unacked_bytes`` and ``acked_bytes`` are also attributes of the error itself.
        errno: as the kernel gave it.
        basis: always ``inferred``: one end alone cannot see who sent a RST; see :meth:`explain`.
        remedy: what to do, in imperative sentences.
        sent_bytes: of the data given to the failed call, how much the kernel had taken.
        partial: received bytes that the failed call had gathered, as they were when first looked at; a
            Connection still delivers them.
    """

    def __init__(
        self,
        loss: Loss,
        *,
        sent_bytes: int = 0,
        partial: bytes = b"",
        ask: Callable[[float], Explanation | None] | None = None,
    ) -> None:
        row = cause(loss.cause)
        who = "This program" if row.sentence.startswith("{who}") else "this program"
        super().__init__(loss.errno, row.describe(who, loss.peer, loss.local, loss.lost))
        self.loss = loss
        self.local, self.peer = loss.local, loss.peer
        self.cause, self.basis, self.remedy = row.id, Basis.INFERRED, row.remedy
        self.idle_s, self.tcp_info = loss.idle_s, loss.tcp_info
        self.unsent_bytes, self.unacked_bytes = loss.unsent_bytes, loss.unacked_bytes
        self.acked_bytes = loss.acked_bytes
        self.sent_bytes, self.partial = sent_bytes, partial
        self._ask = ask

    def __str__(self) -> str:
        name = errnos.errorcode.get(self.loss.errno, self.loss.errno)
        return f"{self.strerror} [{name}] {' '.join(self.remedy)}"

    def __reduce__(self) -> tuple[Any, ...]:
        state = {"sent_bytes": self.sent_bytes, "partial": self.partial}
        return type(self), (self.loss,), state

    def again(self, sent_bytes: int = 0) -> Self:
        """The same loss, to be raised by a later call: nobody's earlier error changes under their hands."""
        return type(self)(self.loss, sent_bytes=sent_bytes, ask=self._ask)

    def explain(self, timeout_s: float = 0.05) -> Explanation:
        """What a watch on this host saw in the kernel; our own conclusion if none answers in time.

        Args:
            timeout_s: the longest to wait for the watch, in seconds.
        """
        answer = self._ask(timeout_s) if self._ask is not None else None
        return answer or Explanation(self.cause, self.basis, str(self.strerror), self.remedy)


class ConnectionReset(ConnectionLost, ConnectionResetError):
    """A RST ended the connection: from the peer, or from something that claims to be it."""


class ConnectionRefused(ConnectionLost, ConnectionRefusedError):
    """The attempt to connect was answered with a RST or an ICMP error: nothing listens there."""


class ConnectionTimedOut(ConnectionLost, TimeoutError):
    """The kernel gave up on a silent peer: keep-alive, user timeout or retransmission (errno ETIMEDOUT)."""


class ConnectionUnreachable(ConnectionLost):
    """The network said that the peer cannot be reached, and the kernel stopped trying."""


class ConnectionAborted(ConnectionLost, ConnectionAbortedError):
    """Somebody on this host destroyed the connection (``ss -K``, a network agent)."""


class ConnectionClosed(ConnectionLost, BrokenPipeError):
    """Written to a connection that this end or the peer had closed before."""


class SessionLost(ConnectionLost):
    """A session ended for good: it was given up, or was not, or could not be, resumed.

    Attributes:
        confirmed_bytes: how many of the bytes sent the peer's session has confirmed.
        written_bytes: how many bytes the application had given to it.
        why: what ended it, in words.
        code: the code of the RESET, None if there was none.
    """

    def __init__(
        self,
        loss: Loss,
        *,
        confirmed_bytes: int = 0,
        written_bytes: int = 0,
        why: str = "",
        code: int | None = None,
        sent_bytes: int = 0,
        partial: bytes = b"",
        ask: Callable[[float], Explanation | None] | None = None,
    ) -> None:
        super().__init__(loss, sent_bytes=sent_bytes, partial=partial, ask=ask)
        self.confirmed_bytes, self.written_bytes = confirmed_bytes, written_bytes
        self.why, self.code = why, code
        if why:
            told = f"the peer has confirmed {confirmed_bytes} of {written_bytes} bytes"
            self.strerror = f"The session with {self.peer or 'its peer'} has ended: {why}; {told}."
            self.args = (loss.errno, self.strerror)  # what repr() shows
            self.remedy = (
                "Begin a new session, and ask the peer's application what it has before you repeat the rest.",
            )

    def __str__(self) -> str:
        return f"{self.strerror} {' '.join(self.remedy)}" if self.why else super().__str__()

    def __reduce__(self) -> tuple[Any, ...]:
        kind, arguments, state = super().__reduce__()
        return functools.partial(kind, **self._end()), arguments, state

    def again(self, sent_bytes: int = 0) -> Self:
        """See :meth:`ConnectionLost.again`."""
        return type(self)(self.loss, sent_bytes=sent_bytes, ask=self._ask, **self._end())

    def _end(self) -> dict[str, Any]:
        names = ("confirmed_bytes", "written_bytes", "why", "code")
        return {name: getattr(self, name) for name in names}


class NotTrusted(HoldfastError, ConnectionError):
    """What answered is not the peer that was asked for; the same attempt would end alike for ever.

    Raised where a session is opened. One that is open goes on dialling: what is in the way may go again.
    """


class Truncated(Gathered, EOFError):
    """The stream ended inside what was asked for.

    Attributes:
        partial: what came before the end, as it was when first looked at; a Connection still delivers it.
        wanted: what was asked for, in words.
    """

    def __init__(self, partial: bytes, wanted: str) -> None:
        super().__init__(partial, wanted)
        self.partial, self.wanted = partial, wanted

    def __str__(self) -> str:
        return f"The peer ended the stream after {len(self.partial)} bytes, before {self.wanted}."

    def again(self, sent_bytes: int = 0) -> Self:
        """The same, to be raised by a later call, which sent nothing."""
        return type(self)(b"", self.wanted)


class LimitExceeded(HoldfastError):
    """A frame did not end within the caller's limit; its bytes stay in the Connection.

    Attributes:
        partial: the first ``limit_bytes`` of it.
        limit_bytes: the limit.
    """

    def __init__(self, partial: bytes, limit_bytes: int) -> None:
        super().__init__(partial, limit_bytes)
        self.partial, self.limit_bytes = partial, limit_bytes

    def __str__(self) -> str:
        return f"No delimiter came within {self.limit_bytes} bytes: raise the limit, or close the connection."


class DeadlineExceeded(Gathered, TimeoutError):
    """Time is up; the connection lives and nothing is lost. ``errno`` is None: no kernel error.

    Attributes:
        partial: received bytes gathered so far, as they were when first looked at; a Connection keeps them
            for the next call.
        sent_bytes: of the data given to a send, how much the kernel had taken.
        why: what was still to happen, in words, where that is known.
    """

    def __init__(self, partial: bytes = b"", sent_bytes: int = 0, why: str = "") -> None:
        super().__init__(partial, sent_bytes)
        # OSError takes two arguments for errno and text; neither is meant here.
        self.errno, self.strerror = None, None
        self.partial, self.sent_bytes, self.why = partial, sent_bytes, why

    def __str__(self) -> str:
        if self.why:
            return f"The deadline passed: {self.why}."
        if self.sent_bytes:
            return f"The deadline passed after {self.sent_bytes} bytes were sent."
        if self.partial:
            return f"The deadline passed after {len(self.partial)} bytes had come."
        return "The deadline passed."


class Cancelled(Gathered):
    """Another thread, or a signal handler, called ``cancel()`` or ``close()``; nothing is lost.

    Attributes:
        partial: as for :class:`DeadlineExceeded`.
        sent_bytes: of the data given to a send, how much the kernel had taken.
    """

    def __init__(self, partial: bytes = b"", sent_bytes: int = 0) -> None:
        super().__init__(partial, sent_bytes)
        self.partial, self.sent_bytes = partial, sent_bytes

    def __str__(self) -> str:
        return "This call was ended by cancel() or close()."


class MalformedCapture(HoldfastError, ValueError):
    """These bytes are no capture that we can read.

    Attributes:
        path: the file. offset: where it stopped making sense, in its decompressed bytes.
        what: what was found there, in words.
    """

    def __init__(self, path: str, offset: int, what: str) -> None:
        super().__init__(path, offset, what)
        self.path, self.offset, self.what = path, offset, what

    def __str__(self) -> str:
        return f"{self.path} is not a capture: {self.what} at byte {self.offset}."


class GaveUp(HoldfastError):
    """The retry budget, the attempts or the time are spent.

    Attributes:
        losses: what ended each attempt, in order.
        why: what was spent, in words.
    """

    def __init__(self, losses: Sequence[BaseException], why: str) -> None:
        super().__init__(tuple(losses), why)
        self.losses, self.why = tuple(losses), why

    def __str__(self) -> str:
        if not self.losses:
            return f"Gave up: {self.why}."
        attempts = "1 attempt" if len(self.losses) == 1 else f"{len(self.losses)} attempts"
        return f"Gave up after {attempts}: {self.why}. The last: {_told(self.losses[-1])}"


class ReplayRefused(HoldfastError):
    """Sending again could deliver the request twice, so it was not done.

    Attributes:
        loss: what ended the first attempt.
    """

    def __init__(self, loss: BaseException) -> None:
        super().__init__(loss)
        self.loss = loss

    def __str__(self) -> str:
        why = "the request may have reached the peer and is not marked idempotent"
        return f"Not sent again: {why}. {_told(self.loss)}"


def _told(error: BaseException) -> str:
    """Its sentence; of one that has none, such as asyncio's TimeoutError, what it is."""
    return str(error) or repr(error)
