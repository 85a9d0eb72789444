"""Who really sent a RST that arrived: its shape on the wire, scored against what the peer looked like."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Sequence

from holdfast.causes import Basis
from holdfast.events import Event, Evidence, Segment
from holdfast.watch.diagnose.sent import Verdict
from holdfast.watch.diagnose.shape import is_active_shape, is_passive_shape

INJECTED_SCORE = 6
"""From this score on a RST is called injected. No single sign weighs as much: it takes two or more."""

SUSPECT_SCORE = 3
"""From this score on the sender is called unknown."""


def received_cause(event: Event, arrived: Sequence[Event], answered: Sequence[Event]) -> tuple[Verdict, str]:
    """The cause of a reset that a local socket obeyed, and who sent it, when no sender was seen here.

    Args:
        event: kind RESET_RECEIVED.
        arrived: every RST that reached this socket (kind RST_ARRIVED), the obeyed one among them.
        answered: RSTs this host sent later for the same addresses because the peer went on talking.

    Returns:
        The verdict and the sender: ``peer``, ``path`` or ``unknown``.
    """
    rst = event.segment
    if event.state == "SYN_SENT":
        return _refused(rst), "unknown"
    if rst is None:
        return Verdict(
            "peer_aborted", Basis.NONE, (Evidence("the RST segment itself was not seen", 0),)
        ), "unknown"
    signs = injection_signs(event, rst, arrived, answered)
    score = sum(sign.weight for sign in signs)
    hops = ttl_difference(event, rst)
    if (
        is_passive_shape(rst)
        and hops
        and score < INJECTED_SCORE + len(_talks_on(answered)) * 4
        and not _ladder(rst, arrived)
    ):
        return _path_firewall(rst, hops, answered), "path"
    if score >= INJECTED_SCORE:
        return Verdict("injected", Basis.INFERRED, signs), "path"
    if score >= SUSPECT_SCORE:
        return Verdict("unrecognised_sender", Basis.INFERRED, signs), "unknown"
    if event.state == "CLOSE_WAIT":
        fact = Evidence("the peer had closed its side, and then reset what we still sent (CLOSE_WAIT)", 3)
        return Verdict("peer_closed_then_reset", Basis.INFERRED, (fact, *signs)), "peer"
    if is_active_shape(rst):
        fact = Evidence("RST,ACK with window and TCP options: the peer's kernel reset by its own decision", 3)
        return Verdict("peer_aborted", Basis.INFERRED, (fact, *signs)), "peer"
    if is_passive_shape(rst):
        fact = Evidence("bare RST without window, options or IP ID: its sender had no such connection", 3)
        return Verdict("peer_had_no_connection", Basis.INFERRED, (fact, *signs)), "peer"
    return Verdict("unrecognised_sender", Basis.INFERRED, signs), "unknown"


def _refused(rst: Segment | None) -> Verdict:
    facts = [Evidence("a RST answered our SYN", 3)]
    if rst is not None and is_passive_shape(rst):
        facts.append(Evidence("a closed port and a firewall's REJECT look the same from here", 0))
    return Verdict("connection_refused", Basis.INFERRED, tuple(facts))


def _path_firewall(rst: Segment, hops: int, answered: Sequence[Event]) -> Verdict:
    facts = [
        Evidence(f"the RST's TTL {rst.ttl} differs by {abs(hops)} from the peer's first segment", 3),
        Evidence("bare RST without window, options or IP ID, exactly in sequence: it answers our segment", 2),
        *_talks_on(answered),
    ]
    return Verdict("path_firewall_reject", Basis.INFERRED, tuple(facts))


def ttl_difference(event: Event, rst: Segment) -> int:
    """TTL of the RST minus TTL of the peer's first segment; 0 if the latter was not seen."""
    return rst.ttl - event.baseline_ttl if event.baseline_ttl else 0


def injection_signs(
    event: Event, rst: Segment, arrived: Sequence[Event], answered: Sequence[Event]
) -> tuple[Evidence, ...]:
    """Facts for (positive) and against (negative) a RST that someone on the path made up.

    Weights follow the detectors of Weaver, Sommer and Paxson (NDSS 2009): one weak sign never suffices.
    """
    signs = []
    hops = ttl_difference(event, rst)
    if hops:
        said = f"TTL {rst.ttl}, but the peer's first segment had {event.baseline_ttl}"
        signs.append(Evidence(said, 3 if abs(hops) > 1 else 1))
    elif event.baseline_ttl:
        signs.append(Evidence(f"TTL {rst.ttl}, as in the peer's first segment", -1))
    if not is_active_shape(rst) and not is_passive_shape(rst):
        signs.append(Evidence("flags, window, options and IP ID together fit no Linux sender", 2))
    if _ladder(rst, arrived):
        signs.append(
            Evidence(f"{len(arrived)} RSTs with different sequence numbers: a sender guessing ahead", 3)
        )
    signs.extend(_talks_on(answered))
    if _too_early(event):
        signs.append(Evidence("the RST came sooner after our segment than the peer can answer", 3))
    return tuple(signs)


def _ladder(obeyed: Segment, arrived: Sequence[Event]) -> bool:
    return len({obeyed.seq, *(rst.segment.seq for rst in arrived if rst.segment)}) > 1


def _talks_on(answered: Sequence[Event]) -> tuple[Evidence, ...]:
    if not answered:
        return ()
    return (Evidence("the peer went on talking after the RST: it did not know of it", 4),)


def _too_early(event: Event) -> bool:
    # Send times are kept in ticks of a few milliseconds: only a long round trip can be judged.
    if event.send_ago_ns is None or event.min_rtt_us is None or event.min_rtt_us < 20_000:
        return False
    return event.send_ago_ns + 10_000_000 < event.min_rtt_us * 1000 // 2
