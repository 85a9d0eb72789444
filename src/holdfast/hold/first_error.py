"""The first error of a connection, the same one for every thread that asks."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import socket
import threading

from holdfast.errors import ConnectionClosed, ConnectionLost, Truncated
from holdfast.hold.cause_source import CauseSource
from holdfast.hold.classify import Phase
from holdfast.hold.forks import freed
from holdfast.hold.log import log_loss
from holdfast.hold.loss import conclude
from holdfast.hold.tls import TlsError

Ended = ConnectionLost | Truncated | TlsError
"""What can end a connection."""


class FirstError:
    """Latches what ended a connection: Linux tells an error to one call, and then shows an end of stream.

    Attributes:
        error: the latched one, which nobody raises: a traceback would keep the locals of its first caller.

    Args:
        sock: whose figures are read at that moment.
        local, peer: its addresses, which the kernel forgets.
        source: whom ``explain()`` will ask.
    """

    def __init__(
        self, sock: socket.socket, local: str | None, peer: str | None, source: CauseSource | None
    ) -> None:
        self.error: Ended | None = None
        self._sock, self._local, self._peer, self._source = sock, local, peer, source
        self._lock = threading.RLock()

    def latch(self, error: OSError | Truncated, phase: Phase, sent_bytes: int = 0) -> bool:
        """Remember this one, unless there is one; False if it ends no connection.

        Raises:
            ConnectionClosed: written after this end was closed, a mistake: the peer's half lives on.
        """
        found: ConnectionLost | None = None
        with self._lock:
            if self.error is not None:
                return True
            if isinstance(error, (Truncated, TlsError)):
                self.error = error.again()
                return True
            found = conclude(
                self._sock,
                error,
                phase,
                local=self._local,
                peer=self._peer,
                source=self._source,
                sent_bytes=sent_bytes,
            )
            if found is None:
                return False
            if phase is Phase.CLOSED_HERE and isinstance(found, ConnectionClosed):
                raise found from error
            self.error = found
        log_loss(found)  # not under the lock: what a logging handler waits for is not ours to know
        return True

    def after_fork(self) -> None:
        """See :mod:`holdfast.hold.forks`."""
        self._lock = freed(self._lock)
