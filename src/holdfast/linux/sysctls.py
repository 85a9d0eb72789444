"""The kernel settings that decide how this host resets: what each decides, and when its value is a risk."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

SYS = Path("/proc/sys")


class Verdict(StrEnum):
    """What we think of a setting's value."""

    FINE = "fine"
    NOTE = "note"  # usual, but it surprises people: know it
    RISKY = "risky"  # likely to cause resets, or to hide them
    ABSENT = "absent"  # this kernel does not have it, or its module is not loaded


class Judgement(NamedTuple):
    """One setting, its value here, and the advice that follows (empty when fine or absent)."""

    name: str
    value: str | None
    verdict: Verdict
    decides: str
    advice: str = ""


# A verdict worse than fine, and what to do about it.
_Advice = tuple[Verdict, str] | None
_Rule = Callable[[int, Mapping[str, int]], _Advice]
_RISKY, _NOTE = Verdict.RISKY, Verdict.NOTE


class _Setting(NamedTuple):
    name: str
    decides: str
    rule: _Rule


def _when(test: Callable[[int], bool], verdict: Verdict, words: str) -> _Rule:
    return lambda value, _others: (verdict, words) if test(value) else None


def _always_fine(_value: int, _others: Mapping[str, int]) -> _Advice:
    return None


def _keepalive_span(_value: int, others: Mapping[str, int]) -> _Advice:
    seconds = others.get("net.ipv4.tcp_keepalive_intvl", 75) * others.get("net.ipv4.tcp_keepalive_probes", 9)
    if seconds <= 300:
        return None
    return _NOTE, f"A dead peer is noticed {seconds} s after the first of these probes; 15 s x 4 is usual."


def _conntrack_idle(value: int, others: Mapping[str, int]) -> _Advice:
    keepalive_s = others.get("net.ipv4.tcp_keepalive_time", 7200)
    if value > keepalive_s:
        return None
    return _RISKY, f"Raise it above tcp_keepalive_time ({keepalive_s} s): else probes come too late."


def _conntrack_full(value: int, others: Mapping[str, int]) -> _Advice:
    limit = others.get("net.netfilter.nf_conntrack_max", 0)
    if limit <= 0 or value * 5 < limit * 4:
        return None
    return (
        _RISKY,
        f"The table is {100 * value // limit} % full: raise nf_conntrack_max or shorten its timeouts.",
    )


def _retries2(value: int, _others: Mapping[str, int]) -> _Advice:
    if value < 8:
        return _RISKY, "Raise it to 8 or more: RFC 1122 asks for at least 100 s before giving up."
    if value >= 15:
        return (
            _NOTE,
            "A vanished peer is noticed after about 15 minutes: set TCP_USER_TIMEOUT if that is long.",
        )
    return None


# Rule: the names of all settings that the advice of another may mention are in this table too.
_TABLE: tuple[_Setting, ...] = (
    _Setting(
        "net.ipv4.tcp_abort_on_overflow",
        "Whether a full accept queue answers the client with a reset (1) or lets it retry (0).",
        _when(
            lambda v: v != 0, _RISKY, "Set it to 0: a busy moment then delays connections, not resets them."
        ),
    ),
    _Setting(
        "net.core.somaxconn",
        "The longest accept queue that any listener can have.",
        _when(lambda v: v < 1024, _RISKY, "Raise it to 4096: short queues overflow in bursts."),
    ),
    _Setting(
        "net.ipv4.tcp_max_syn_backlog",
        "How many half-open handshakes a listener remembers before it falls back to SYN cookies.",
        _when(lambda v: v < 512, _NOTE, "Raise it to 1024 or more on a busy server."),
    ),
    _Setting(
        "net.ipv4.tcp_syncookies",
        "Whether handshakes survive a SYN flood without being remembered.",
        _when(lambda v: v != 1, _RISKY, "Set it to 1: cookies only when the queue is full."),
    ),
    _Setting(
        "net.ipv4.tcp_fin_timeout",
        "How many seconds a connection that we closed waits for the peer's FIN.",
        _when(lambda v: v < 15, _NOTE, "Raise it to 15 or more: slow peers are reset while they still send."),
    ),
    _Setting(
        "net.ipv4.tcp_max_orphans",
        "How many closed sockets may still be sending; beyond it they are reset.",
        _when(lambda v: v < 4096, _RISKY, "Raise it to 16384 or more (64 kB of memory each at most)."),
    ),
    _Setting(
        "net.ipv4.tcp_orphan_retries",
        "How often a closed socket retries its last data before it gives up (0 means 8).",
        _when(lambda v: 0 < v < 4, _NOTE, "Set it to 0: few retries lose the end of answers on a poor path."),
    ),
    _Setting(
        "net.ipv4.tcp_max_tw_buckets",
        "How many TIME_WAIT sockets are remembered; late segments of forgotten ones draw a reset.",
        _when(lambda v: v < 8192, _NOTE, "Raise it to 65536 or more on a busy server."),
    ),
    _Setting(
        "net.ipv4.tcp_keepalive_time",
        "After how many idle seconds keep-alive probes start, on sockets that ask for them.",
        _when(
            lambda v: v > 350, _NOTE, "Paths forget idle connections sooner, often after 350 s: 240 is safer."
        ),
    ),
    _Setting("net.ipv4.tcp_keepalive_intvl", "Seconds between keep-alive probes.", _keepalive_span),
    _Setting(
        "net.ipv4.tcp_keepalive_probes",
        "How many unanswered keep-alive probes reset a connection.",
        _when(lambda v: v < 3, _RISKY, "Raise it to 4 or more: a short outage resets healthy connections."),
    ),
    _Setting("net.ipv4.tcp_retries1", "After how many retransmissions another route is tried.", _always_fine),
    _Setting(
        "net.ipv4.tcp_retries2",
        "After how many retransmissions an established connection is given up.",
        _retries2,
    ),
    _Setting(
        "net.ipv4.tcp_syn_retries",
        "How often an unanswered connect is retried.",
        _when(lambda v: v < 2, _RISKY, "Raise it to 4 or more: one lost SYN fails the connect."),
    ),
    _Setting(
        "net.ipv4.tcp_challenge_ack_limit",
        "How many challenge ACKs (RFC 5961, the defence against forged resets) are sent per second.",
        _when(
            lambda v: v < 1_000_000, _RISKY, "Set it to 2147483647: a small limit helps to guess sequences."
        ),
    ),
    _Setting(
        "net.ipv4.tcp_rfc1337",
        "Whether a reset is ignored in TIME_WAIT (1) or ends it early (0).",
        _always_fine,
    ),
    _Setting(
        "net.ipv4.tcp_timestamps",
        "Whether timestamps protect against old segments and measure the round trip time.",
        _when(lambda v: v == 0, _RISKY, "Set it to 1: without it old segments can be taken for new ones."),
    ),
    _Setting(
        "net.ipv4.tcp_fastopen",
        "Whether data may travel with the SYN (bit 1 as client, bit 2 as server).",
        _always_fine,
    ),
    _Setting(
        "net.ipv4.tcp_migrate_req",
        "Whether a closed listener's waiting connections move to another on its port (1) or are reset (0).",
        _when(
            lambda v: v == 0, _NOTE, "Set it to 1 where processes that share a port (SO_REUSEPORT) restart."
        ),
    ),
    _Setting(
        "net.netfilter.nf_conntrack_tcp_timeout_established",
        "After how many idle seconds the firewall forgets a connection; its next segment may draw a reset.",
        _conntrack_idle,
    ),
    _Setting(
        "net.netfilter.nf_conntrack_tcp_be_liberal",
        "Whether segments outside the window are still translated (1) or called invalid (0).",
        _when(
            lambda v: v == 0, _NOTE, "Set it to 1 on a host that does NAT: untranslated segments draw resets."
        ),
    ),
    _Setting("net.netfilter.nf_conntrack_max", "How many connections the firewall can follow.", _always_fine),
    _Setting("net.netfilter.nf_conntrack_count", "How many connections it follows now.", _conntrack_full),
)

NAMES: tuple[str, ...] = tuple(setting.name for setting in _TABLE)


def judge(values: Mapping[str, str | None]) -> tuple[Judgement, ...]:
    """A verdict on every setting of the table, in its order.

    Args:
        values: texts as ``/proc/sys`` gives them, by dotted name; missing or None is absent.
    """
    numbers: dict[str, int] = {}
    for name, text in values.items():
        try:
            numbers[name] = int(text or "")
        except ValueError:
            continue
    judgements = []
    for setting in _TABLE:
        text = values.get(setting.name)
        if text is None or setting.name not in numbers:
            judgements.append(Judgement(setting.name, text, Verdict.ABSENT, setting.decides))
            continue
        advice = setting.rule(numbers[setting.name], numbers)
        verdict, words = advice or (Verdict.FINE, "")
        judgements.append(Judgement(setting.name, text, verdict, setting.decides, words))
    return tuple(judgements)


def read(root: Path = SYS) -> dict[str, str | None]:
    """Values of the table's settings here, None where there is none or it is not ours to read.

    Most belong to the network namespace of this process.
    """
    return {name: read_one(name, root) for name in NAMES}


def read_one(name: str, root: Path = SYS) -> str | None:
    """One setting by its dotted name, without the final newline; None if it cannot be read."""
    try:
        return root.joinpath(*name.split(".")).read_text("ascii", "replace").strip()
    except OSError:
        return None
