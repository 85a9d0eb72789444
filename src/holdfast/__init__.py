"""Holdfast: keeps TCP conversations alive through resets, and explains every reset."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from holdfast.errors import (
    Cancelled,
    ConnectionAborted,
    ConnectionClosed,
    ConnectionLost,
    ConnectionRefused,
    ConnectionReset,
    ConnectionTimedOut,
    ConnectionUnreachable,
    DeadlineExceeded,
    Explanation,
    GaveUp,
    HoldfastError,
    KernelUnavailable,
    LimitExceeded,
    NotTrusted,
    ReplayRefused,
    SessionLost,
    Truncated,
    UsageError,
)

if TYPE_CHECKING:
    from holdfast.hold.addressed import connect, serve
    from holdfast.hold.cause_source import CauseSource
    from holdfast.hold.connection import Connection
    from holdfast.hold.dial import connect_async
    from holdfast.hold.drivers.blocking import BlockingSession
    from holdfast.hold.drivers.policy import SessionEvent, SessionPolicy
    from holdfast.hold.drivers.server import SessionServer
    from holdfast.hold.drivers.session import Session
    from holdfast.hold.fastopen import FastOpen
    from holdfast.hold.options import apply, effective
    from holdfast.hold.receive import recv, recv_into, sendall
    from holdfast.hold.retry import Retrying, retry, retrying
    from holdfast.hold.stream import Stream, wrap
    from holdfast.hold.tls import TlsError
    from holdfast.policy import (
        PROFILES,
        Backoff,
        KeepAlive,
        RetryBudget,
        RetryPolicy,
        SocketPolicy,
    )

# Where each name that needs Linux, or more than a moment to load, is found when it is first asked for.
_LATER = {
    "holdfast.hold.addressed": ("connect", "serve"),
    "holdfast.hold.cause_source": ("CauseSource",),
    "holdfast.hold.connection": ("Connection",),
    "holdfast.hold.dial": ("connect_async",),
    "holdfast.hold.drivers.blocking": ("BlockingSession",),
    "holdfast.hold.drivers.policy": ("SessionEvent", "SessionPolicy"),
    "holdfast.hold.drivers.server": ("SessionServer",),
    "holdfast.hold.drivers.session": ("Session",),
    "holdfast.hold.fastopen": ("FastOpen",),
    "holdfast.hold.options": ("apply", "effective"),
    "holdfast.hold.receive": ("recv", "recv_into", "sendall"),
    "holdfast.hold.retry": ("Retrying", "retry", "retrying"),
    "holdfast.hold.stream": ("Stream", "wrap"),
    "holdfast.hold.tls": ("TlsError",),
    "holdfast.policy": ("PROFILES", "Backoff", "KeepAlive", "RetryBudget", "RetryPolicy", "SocketPolicy"),
}
_HOME = {name: module for module, names in _LATER.items() for name in names}

_SESSIONS = "holdfast.hold.drivers"
# What `connect` and `serve` of a URL load. Whoever names a part of sessions, mostly at the top of a program,
# has it loaded there: within the event loop everybody would wait for it.
_OPENING = ("holdfast.hold.addressed", f"{_SESSIONS}.client", f"{_SESSIONS}.server")

__all__ = [
    "PROFILES",
    "Backoff",
    "BlockingSession",
    "Cancelled",
    "CauseSource",
    "Connection",
    "ConnectionAborted",
    "ConnectionClosed",
    "ConnectionLost",
    "ConnectionRefused",
    "ConnectionReset",
    "ConnectionTimedOut",
    "ConnectionUnreachable",
    "DeadlineExceeded",
    "Explanation",
    "FastOpen",
    "GaveUp",
    "HoldfastError",
    "KeepAlive",
    "KernelUnavailable",
    "LimitExceeded",
    "NotTrusted",
    "ReplayRefused",
    "RetryBudget",
    "RetryPolicy",
    "Retrying",
    "Session",
    "SessionEvent",
    "SessionLost",
    "SessionPolicy",
    "SessionServer",
    "SocketPolicy",
    "Stream",
    "TlsError",
    "Truncated",
    "UsageError",
    "apply",
    "connect",
    "connect_async",
    "effective",
    "recv",
    "recv_into",
    "retry",
    "retrying",
    "sendall",
    "serve",
    "wrap",
]


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'holdfast' has no attribute {name!r}")
    try:
        value = getattr(import_module(home), name)
        if home.startswith(_SESSIONS):
            for module in _OPENING:
                import_module(module)
    except ModuleNotFoundError as error:
        if not home.startswith(_SESSIONS):
            raise
        needs = f"holdfast.{name} needs the package {error.name}: pip install 'holdfast[session]'"
        raise ModuleNotFoundError(needs, name=error.name) from error
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
