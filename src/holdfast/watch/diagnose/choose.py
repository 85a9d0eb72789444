"""Which of a capture's connections a user asked for."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import difflib
import ipaddress
from collections.abc import Callable, Iterable
from datetime import UTC, datetime

from holdfast.causes import CAUSES
from holdfast.errors import UsageError
from holdfast.watch.diagnose.explained import Explained
from holdfast.watch.diagnose.summary import SENDERS

Wants = Callable[[Explained], bool]
_KEYS = ("address", "port", "cause", "sender", "from", "to")


def chooser(terms: Iterable[str]) -> Wants:
    """A filter from terms such as ``port=443``: terms with the same key widen it, others narrow it.

    Raises:
        UsageError: a term is none of the known ones; the sentence says what is.
    """
    groups: dict[str, list[Wants]] = {}
    for term in terms:
        key, equals, value = term.partition("=")
        if not equals or key not in _KEYS:
            raise UsageError(f"'{term}' is no filter: write KEY=VALUE with one of {', '.join(_KEYS)}.")
        groups.setdefault(key, []).append(_TESTS[key](value))
    return lambda one: all(any(test(one) for test in tests) for tests in groups.values())


def _address(value: str) -> Wants:
    try:
        network = ipaddress.ip_network(value, strict=False)
    except ValueError:
        raise UsageError(f"'{value}' is no address: write 192.0.2.7, 10.0.0.0/8 or an IPv6 one.") from None

    def within(ip: str) -> bool:
        return ipaddress.ip_address(ip.partition("%")[0]) in network

    return lambda one: within(one.client.ip) or within(one.server.ip)


def _port(value: str) -> Wants:
    if not (value.isascii() and value.isdecimal() and len(value) <= 5 and 0 < int(value) < 65536):
        raise UsageError(f"'{value}' is no port: write a number between 1 and 65535.")
    port = int(value)
    return lambda one: port in (one.client.port, one.server.port)


def _cause(value: str) -> Wants:
    if value not in CAUSES:
        near = difflib.get_close_matches(value, CAUSES, 1)
        hint = f" Did you mean {near[0]}?" if near else " They are listed in docs/reference/causes.md."
        raise UsageError(f"there is no cause '{value}'.{hint}")
    return lambda one: one.cause == value


def _sender(value: str) -> Wants:
    if value not in SENDERS:
        raise UsageError(f"there is no sender '{value}': write one of {', '.join(SENDERS)}.")
    return lambda one: one.sender == value


def _from(value: str) -> Wants:
    return _time(value, lambda at_ns, limit_ns: at_ns >= limit_ns)


def _to(value: str) -> Wants:
    return _time(value, lambda at_ns, limit_ns: at_ns <= limit_ns)


def _time(value: str, holds: Callable[[int, int], bool]) -> Wants:
    """RFC 3339, or a time of day (UTC) that is meant on the day of each record."""
    day_ns = 86_400_000_000_000
    try:
        clock = datetime.strptime(value, "%H:%M:%S" if value.count(":") == 2 else "%H:%M")
        limit_ns = (clock.hour * 3600 + clock.minute * 60 + clock.second) * 1_000_000_000
        return lambda one: holds(one.time_ns % day_ns, limit_ns)
    except ValueError:
        pass
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        raise UsageError(
            f"'{value}' is no time: write 2026-11-22T14:03:00Z, or 14:03:00 for any day."
        ) from None
    moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    limit_ns = int(moment.timestamp() * 1_000_000) * 1000
    return lambda one: holds(one.time_ns, limit_ns)


_TESTS: dict[str, Callable[[str], Wants]] = {
    "address": _address,
    "port": _port,
    "cause": _cause,
    "sender": _sender,
    "from": _from,
    "to": _to,
}
