"""What only several connections together can tell: who answers for a host, bursts, a refused option."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from holdfast.causes import CAUSES, Severity
from holdfast.events import Endpoint, Evidence
from holdfast.watch.capture.flow import CWR, ECE, Option
from holdfast.watch.diagnose.judge import Judged, lost_words
from holdfast.watch.diagnose.noise import SCAN_NS, SCAN_PORTS
from holdfast.watch.diagnose.reused import Displaced, Ends, by_ends, why_reused
from holdfast.watch.diagnose.signs import from_nearer

BURST_NS, BURST = 10_000_000, 3
"""So many connections of one server reset within this time are one act: a listener or a process ended."""

FORGOTTEN_NS = 10_000_000_000
"""A host that restarts answers its clients when they next speak: within about this time."""

AGAIN_NS = 60_000_000_000
"""A client that tries again without an option does so within this time."""

Ttls = dict[str, tuple[int, int]]
"""Lowest and highest TTL of what each address sent, RSTs aside."""

_OPTIONS = (
    (Option.FAST_OPEN, "TCP Fast Open"),
    (Option.MPTCP, "Multipath TCP"),
    (Option.TIMESTAMP, "timestamps"),
    (Option.WINDOW_SCALE, "window scaling"),
    (Option.SACK_PERMITTED, "selective acknowledgment"),
)


def refine(
    found: Sequence[Judged], ttls: Ttls, opened: Sequence[Opened], displaced: Iterable[Displaced] = ()
) -> list[Judged]:
    """The same records, those that others shed light on told better.

    Args:
        ttls: of every address, from all connections of the capture.
        opened: connections whose handshake was answered, for those that were refused before.
        displaced: connections after which a SYN came from the same port.
    """
    known = _with_own(found, ttls)
    bursts, forgotten, scans = _bursts(found), _forgotten(found), _scans(found)
    accepted, before = _accepted(opened), by_ends(displaced)
    refined = []
    for one in found:
        if one.refused:
            one = _option_refused(one, accepted) or _reused(_who_refuses(one, known), before)
            one = _as_scan(one) if one.explained.client.ip in scans else one
        elif id(one) in bursts:
            one = _in_burst(one, bursts[id(one)])
        elif id(one) in forgotten:
            one = _of_many_forgotten(one, forgotten[id(one)])
        refined.append(one)
    return refined


@dataclass(frozen=True, slots=True)
class Opened:
    """A connection that was accepted: its client, server and port, when, and what its SYN carried."""

    client_ip: str
    server: Endpoint
    syn_ns: int
    syn_flags: int
    syn_options: int


def _with_own(found: Sequence[Judged], ttls: Ttls) -> Ttls:
    merged = dict(ttls)
    for one in found:
        for ip, span in (
            (one.explained.client.ip, one.client_ttl),
            (one.explained.server.ip, one.server_ttl),
        ):
            if span is not None:
                low, high = merged.get(ip, span)
                merged[ip] = min(low, span[0]), max(high, span[1])
    return merged


def _who_refuses(one: Judged, ttls: Ttls) -> Judged:
    """A refusal, held against the hop counts of what else the server's address sent."""
    span = ttls.get(one.explained.server.ip)
    if span is None or one.rst_ttl is None or one.explained.sender == "path":
        return one
    low, high = span
    usual = f"{low}" if low == high else f"{low} to {high}"
    if low <= one.rst_ttl <= high:
        if low < high and one.copy_ttls != span:
            return one  # some box between its ways, or the place of the capture, may have such a TTL as well
        fact = f"TTL {one.rst_ttl}, as in other connections of that server ({usual}): its host refused"
        return told(one, "connection_refused", "server", fact, 2)
    if low == high and one.answers and from_nearer(one.rst_ttl - high):
        fact = (
            f"TTL {one.rst_ttl}, but other connections of that server have "
            f"{usual}: somebody before it refused"
        )
        return told(one, "path_firewall_reject", "path", fact, 3)
    return one


def _reused(one: Judged, before: Mapping[Ends, list[Displaced]]) -> Judged:
    """The same; if the server itself refused it for a connection that it still has, for that reason."""
    why = why_reused(one, before) if one.explained.sender == "server" else None
    return one if why is None else told(one, why[0], "server", why[1], 3)


def _accepted(opened: Sequence[Opened]) -> dict[tuple[str, Endpoint], list[Opened]]:
    grouped: dict[tuple[str, Endpoint], list[Opened]] = {}
    for one in opened:
        grouped.setdefault((one.client_ip, one.server), []).append(one)
    return grouped


def _option_refused(one: Judged, accepted: dict[tuple[str, Endpoint], list[Opened]]) -> Judged | None:
    """RFC 3360: a SYN with ECN or a new option is reset, and one without it is accepted right after."""
    explained = one.explained
    for later in accepted.get((explained.client.ip, explained.server), ()):
        if not 0 <= later.syn_ns - explained.time_ns <= AGAIN_NS:
            continue
        asked = [] if one.syn_flags & (ECE | CWR) == 0 or later.syn_flags & (ECE | CWR) else ["ECN"]
        gone = one.syn_options & ~later.syn_options
        asked += [name for option, name in _OPTIONS if gone & option]
        if asked:
            what = " and ".join(asked)
            fact = (
                f"the next SYN, without {what}, was accepted: what refuses "
                f"{what} stands in the way (RFC 3360)"
            )
            return told(one, "handshake_option_refused", "path", fact, 4)
    return None


def _scans(found: Sequence[Judged]) -> set[str]:
    """Addresses that were refused at so many places in a row that they look for an open port."""
    tries: dict[str, list[tuple[int, Endpoint]]] = {}
    for one in found:
        if one.refused:
            tries.setdefault(one.explained.client.ip, []).append(
                (one.explained.time_ns, one.explained.server)
            )
    return {ip for ip, tried in tries.items() if _is_scan(sorted(tried))}


def _is_scan(tried: Sequence[tuple[int, Endpoint]]) -> bool:
    return any(
        last_ns - first_ns <= SCAN_NS and len({end for _, end in tried[at : at + SCAN_PORTS]}) == SCAN_PORTS
        for at, ((first_ns, _), (last_ns, _)) in enumerate(zip(tried, tried[SCAN_PORTS - 1 :], strict=False))
    )


def _as_scan(one: Judged) -> Judged:
    fact = Evidence("that address tried many closed ports in a row: usual traffic of the class port_scan", 0)
    old = one.explained
    changed = old._replace(noise=True, severity=Severity.INFO, evidence=(fact, *old.evidence), settle=())
    return one._replace(explained=changed)


def _bursts(found: Sequence[Judged]) -> dict[int, int]:
    """For each aborted connection that is part of a burst, the size of it."""
    groups: dict[object, list[Judged]] = {}
    for one in found:
        if one.explained.cause in ("peer_aborted", "closed_with_unread_data") and _by_server(one):
            groups.setdefault(one.explained.server, []).append(one)
    return _sizes(groups, BURST_NS)


def _forgotten(found: Sequence[Judged]) -> dict[int, int]:
    """For each connection that a host did not know any more, how many it forgot at about that time."""
    groups: dict[object, list[Judged]] = {}
    for one in found:
        if one.explained.cause == "peer_had_no_connection" and _by_server(one):
            groups.setdefault(one.explained.server.ip, []).append(one)
    return _sizes(groups, FORGOTTEN_NS)


def _by_server(one: Judged) -> bool:
    return one.explained.sender == "server"


def _sizes(groups: Mapping[object, list[Judged]], within_ns: int) -> dict[int, int]:
    sizes = {}
    for group in groups.values():
        times = sorted(one.explained.time_ns for one in group)
        for one in group:
            at_ns = one.explained.time_ns
            size = bisect_right(times, at_ns + within_ns) - bisect_left(times, at_ns - within_ns)
            if size >= BURST:
                sizes[id(one)] = size
    return sizes


def _in_burst(one: Judged, size: int) -> Judged:
    fact = f"{size} connections of that server were reset within {BURST_NS // 1_000_000} ms: one act"
    if one.quiet:
        return told(one, "listener_closed", "server", f"{fact}, before it had said anything on them", 3)
    return told(one, one.explained.cause, "server", f"{fact}, as when a process ends", 2)


def _of_many_forgotten(one: Judged, size: int) -> Judged:
    within = f"{size} connections within {FORGOTTEN_NS // 1_000_000_000} s"
    fact = f"that host did not know {within}: it restarted, or a load balancer moved them"
    return told(one, one.explained.cause, "server", fact, 2)


def told(one: Judged, cause: str, sender: str, fact: str, weight: int) -> Judged:
    """The record with another cause or sender, and why."""
    old = one.explained
    row = CAUSES[cause]
    evidence = (Evidence(fact, weight), *(e for e in old.evidence if "look the same from here" not in e.fact))
    changed = old._replace(
        cause=cause,
        sender=sender,
        evidence=evidence,
        lost=old.lost if cause == old.cause else lost_words(old.unacked_bytes),
        severity=Severity.INFO if old.noise else row.severity,
        settle=old.settle if sender in ("unknown", old.sender) else (),
    )
    return one._replace(explained=changed)
