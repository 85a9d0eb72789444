"""Puts a compiled front before a function, where the build could make one."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar, cast

try:
    from holdfast._native import Front
except ImportError:  # no C compiler when this was built
    Front = None  # type: ignore[assignment,misc]

_F = TypeVar("_F", bound=Callable[..., Any])


def front(usual_case: str, ended: Callable[..., NoReturn] | None = None) -> Callable[[_F], _F]:
    """A decorator: the usual case of the function is compiled; for all else the function is called.

    It answers as the function does, which it has as ``__wrapped__``, with its name, signature and
    documentation. Without the extension it is the function.

    Args:
        usual_case: ``receive`` or ``receive_into`` for ``(sock, what, *, deadline=None)``: the socket is a
            ``socket.socket`` itself, not of a subclass. ``take`` or ``take_exactly`` for an ``async def``
            method ``(self, n, *, deadline=None)`` of a class with an ``inbox``: enough is there.
        ended: for the first two, called with the socket and the OSError, or None if time was up; raises.
    """

    def stand_before(function: _F) -> _F:
        if Front is None:
            return function
        made: Any = functools.update_wrapper(Front(usual_case, function, ended), function)
        if inspect.iscoroutinefunction(function):
            made = _mark(made)
        return cast(_F, made)

    return stand_before


def _mark(made: Any) -> Any:
    """Tell the standard library that calling it gives an awaitable."""
    if sys.version_info >= (3, 12):
        return inspect.markcoroutinefunction(made)
    # Here, because who only blocks need not load asyncio.
    from asyncio import coroutines

    # What Cython sets, too: before 3.12 there is no public way.
    made._is_coroutine = coroutines._is_coroutine  # type: ignore[attr-defined]
    return made
