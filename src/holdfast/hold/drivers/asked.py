"""What ``connect`` and ``serve`` are given: refused where it is given, not in the middle of a session."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import functools
import inspect
import reprlib
from collections.abc import Collection
from typing import Any

from holdfast.errors import UsageError
from holdfast.hold.asked import asked_deadline
from holdfast.hold.drivers.policy import Observer, SessionPolicy
from holdfast.hold.transports.dial import own_users
from holdfast.policy.bounds import instance


def asked_policy(policy: SessionPolicy | None) -> SessionPolicy:
    """A policy; None: the default one.

    Raises:
        UsageError: it is none.
    """
    if policy is None:
        return SessionPolicy()
    instance("policy", policy, SessionPolicy, "such as SessionPolicy(keep_s=30)")
    return policy


def asked_observer(observer: Observer | None) -> Observer | None:
    """What is told of events.

    Raises:
        UsageError: it cannot be called, or nobody would await it.
    """
    if observer is None:
        return None
    if not callable(observer):
        raise UsageError(f"observer is {reprlib.repr(observer)}: give a function that takes a SessionEvent.")
    if _is_async(observer):
        raise UsageError("observer is an async function, which nobody would await: give a plain one.")
    return observer


def asked_opening(deadline: float | None) -> None:
    """Until when to open a session.

    Raises:
        UsageError: it is neither a number nor None.
    """
    try:
        asked_deadline(deadline)
    except TypeError:
        shown = reprlib.repr(deadline)
        raise UsageError(f"deadline is {shown}: give seconds of time.monotonic(), or None.") from None


def asked_peers(peers: Collection[int] | None) -> frozenset[int]:
    """Whose processes may be at the other end of a Unix socket; None: this user's and root's.

    Raises:
        UsageError: they are no numbers of users.
    """
    if peers is None:
        return own_users()
    if not isinstance(peers, Collection) or not all(type(one) is int for one in peers):
        raise UsageError(f"peers is {reprlib.repr(peers)}: give the numbers of users, such as {{1000}}.")
    return frozenset(peers)


def check_handler(handle: Any) -> None:
    """Refuse what cannot serve a session; of an object that can be called, nobody can tell.

    Raises:
        UsageError: it cannot be called, or is a plain function or method.
    """
    function = _function(handle)
    if not callable(handle) or (inspect.isfunction(function) and not inspect.iscoroutinefunction(function)):
        shown = getattr(handle, "__qualname__", None) or reprlib.repr(handle)
        raise UsageError(f"What serves a session is {shown}: give an async function that takes the session.")


def _function(found: Any) -> Any:
    """What is below partials, methods and decorators."""
    while isinstance(found, functools.partial):
        found = found.func
    return inspect.unwrap(getattr(found, "__func__", found))


def _is_async(found: Any) -> bool:
    called = type(found).__call__ if callable(found) else None
    return inspect.iscoroutinefunction(_function(found)) or inspect.iscoroutinefunction(called)
