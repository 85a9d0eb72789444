# SPDX-License-Identifier: Apache-2.0
"""Usual traffic is recognised by what it is, and a scanner by what it does within a while."""

from __future__ import annotations

import dataclasses
import errno
from typing import Any

import pytest
from unit.watch.samples import ACK, EARLIER, NOW_NS, PEER, SYN, active_rst, received, segment, sent

from holdfast.causes import CAUSES, NOISE
from holdfast.events import Endpoint, Event, Harm
from holdfast.watch.diagnose.conclude import Conclusion, conclude
from holdfast.watch.diagnose.noise import SCAN_NS, SCAN_PORTS, NoiseFilter

HARMLESS = Harm(unread_bytes=0, unsent_bytes=0, unacked_bytes=1)  # our FIN takes a number of its own
NO_BYTES: dict[str, Any] = {"bytes_sent": 0, "bytes_received": 0}
ABORT: dict[str, Any] = {"linger_zero": True, "closing": True}


def only(*events: Event) -> Conclusion:
    return conclude(events)[-1]


MS = 1_000_000
GONE: dict[str, Any] = {"state": None, "cookie": 0, "segment": segment(ACK, data=20)}


@pytest.mark.parametrize(
    ("reset_ms", "closed_ms", "late_ms", "noise"),
    [
        (0, 0, 1, "segment_after_reset"),
        (1, 0, 2, "segment_after_reset"),  # closed in the kernel just before
        (0, 1, 2, "segment_after_reset"),  # or just after
        (0, 100, 101, None),  # another connection on these addresses, closed in order meanwhile
        (2, 0, 1, None),  # the reset came later
        (0, 0, 0, None),
    ],
)
def test_what_was_on_its_way_when_this_host_reset_is_no_second_alarm(
    reset_ms: int, closed_ms: int, late_ms: int, noise: str | None
) -> None:
    """A client closes a TLS connection: the first segment that still comes is reset, and so is the second."""
    reset = sent("TCP_ABORT_ON_DATA", orphaned=True, mono_ns=NOW_NS + reset_ms * MS)
    earlier = dataclasses.replace(EARLIER, closed_ns_ago=(late_ms - closed_ms) * MS)
    late = sent("NO_SOCKET", **GONE, mono_ns=NOW_NS + late_ms * MS, earlier=earlier)
    for events in ((reset, late), (late, reset)):
        told = {one.verdict.cause: NoiseFilter().noise_class(one) for one in conclude(events)}
        assert told == {"closed_while_receiving": None, "late_segment": noise}


def test_a_late_segment_that_is_answered_twice_is_one_alarm() -> None:
    def late(after_ms: int) -> Event:
        earlier = dataclasses.replace(EARLIER, closed_ns_ago=(500 + after_ms) * MS)
        return sent("NO_SOCKET", **GONE, mono_ns=NOW_NS + after_ms * MS, earlier=earlier)

    told = [NoiseFilter().noise_class(one) for one in conclude([late(0), late(1), late(2)])]
    assert told == [None, "segment_after_reset", "segment_after_reset"]


def knock(port: int, at_ns: int = NOW_NS, ip: str = PEER.ip) -> Conclusion:
    """One SYN to a closed port."""
    return only(
        sent(
            "NO_SOCKET", state=None, cookie=0, segment=segment(SYN), mono_ns=at_ns,
            local=Endpoint("10.1.0.1", port), peer=Endpoint(ip, 51000),
        )
    )  # fmt: skip


@pytest.mark.parametrize(
    ("event", "noise"),
    [
        (sent("NO_SOCKET", state=None, segment=segment(SYN | ACK)), "backscatter"),
        (
            sent("TCP_INVALID_ACK_SEQUENCE", state="SYN_SENT", segment=segment(SYN | ACK)),
            "recovered_handshake",
        ),
        (sent("TCP_STATE", **ABORT, **NO_BYTES), "health_check"),
        (sent("TCP_STATE", **ABORT, bytes_sent=1, bytes_received=0), None),
        (sent("TCP_STATE", **ABORT, bytes_sent=0, bytes_received=1), None),
        (sent("TCP_STATE", **ABORT, **NO_BYTES, exiting=False), "health_check"),
        (sent("TCP_STATE", **ABORT, **NO_BYTES, exiting=True), None),  # killed, not checking
        (sent("TCP_STATE", **ABORT), None),  # unknown is not zero
        (sent("TCP_ABORT_ON_CLOSE", closing=True, **NO_BYTES), None),
        (
            sent(
                "NO_SOCKET",
                state=None,
                segment=segment(ACK),
                earlier=dataclasses.replace(EARLIER, error=errno.ETIMEDOUT),
            ),
            "answer_to_late_probe",
        ),
        *(
            (
                sent(
                    "NO_SOCKET",
                    state=None,
                    segment=segment(ACK),
                    earlier=dataclasses.replace(EARLIER, error=error),
                ),
                "segment_after_reset",
            )
            for error in (errno.ECONNRESET, errno.EPIPE, errno.ECONNABORTED)
        ),
        (sent("NO_SOCKET", state=None, segment=segment(ACK), earlier=EARLIER), None),
        (sent("NO_SOCKET", state=None, segment=segment(SYN)), None),
        *(
            (received(active_rst(), state=state, harm=HARMLESS), "after_both_fins")
            for state in ("CLOSING", "LAST_ACK", "TIME_WAIT")
        ),
        *(
            (received(active_rst(), state=state, harm=HARMLESS), None)
            for state in ("ESTABLISHED", "CLOSE_WAIT", "FIN_WAIT_1", "FIN_WAIT_2")
        ),
        (received(active_rst(), state="LAST_ACK", harm=Harm(0, 0, 2)), None),
        (received(active_rst(), state="LAST_ACK", harm=Harm(0, 1, 0)), None),
        (received(active_rst(), state="LAST_ACK", harm=Harm(1, 0, 0)), None),
        (sent("TCP_DISCONNECT_WITH_DATA", state_before="LAST_ACK", harm=HARMLESS), None),
    ],
)
def test_class(event: Event, noise: str | None) -> None:
    found = NoiseFilter().noise_class(only(event))
    assert found == noise
    assert found is None or found in NOISE


def test_every_cause_that_is_noise_by_itself_has_a_class() -> None:
    """Whatever the table of causes calls noise is put into a class that exists."""
    noisy = {cause.id for cause in CAUSES.values() if cause.noise}
    assert noisy, "the table of causes marks some as noise"
    filter_ = NoiseFilter()
    template = only(sent("TCP_STATE"))
    for cause in noisy:
        one = dataclasses.replace(template, verdict=template.verdict._replace(cause=cause))
        assert filter_.noise_class(one) in NOISE, cause


def test_ten_ports_within_ten_seconds_are_a_scan() -> None:
    filter_ = NoiseFilter()
    classes = [filter_.noise_class(knock(port, NOW_NS + port)) for port in range(1, SCAN_PORTS + 2)]
    assert classes == [None] * (SCAN_PORTS - 1) + ["port_scan"] * 2


def test_one_port_tried_often_is_a_client_without_its_server() -> None:
    filter_ = NoiseFilter()
    assert {filter_.noise_class(knock(80, NOW_NS + n)) for n in range(100)} == {None}


def test_ports_tried_slowly_are_no_scan() -> None:
    filter_ = NoiseFilter()
    slow = [filter_.noise_class(knock(port, NOW_NS + port * SCAN_NS // 5)) for port in range(50)]
    assert set(slow) == {None}


def test_each_peer_is_judged_by_what_it_did_itself() -> None:
    filter_ = NoiseFilter()
    found = [
        filter_.noise_class(knock(port, NOW_NS, f"10.9.0.{peer}"))
        for port in range(SCAN_PORTS - 1)
        for peer in range(3)
    ]
    assert set(found) == {None}


def test_a_flood_of_peers_costs_bounded_memory_and_the_busy_one_is_still_known() -> None:
    filter_ = NoiseFilter()
    for n in range(5000):
        filter_.noise_class(knock(1, NOW_NS, f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}"))
        if n % 500 == 0:
            filter_.noise_class(knock(n, NOW_NS))
    assert filter_.noise_class(knock(9999, NOW_NS)) == "port_scan"
    assert len(filter_._tried) <= 1024
    assert max(len(ports) for ports in filter_._tried.values()) <= SCAN_PORTS


def test_a_health_check_is_known_from_either_end() -> None:
    abort = sent("TCP_STATE", **ABORT, **NO_BYTES, snd_nxt=1000, snd_una=1000)
    other = received(active_rst(seq=1000), local=abort.peer, peer=abort.local, cookie=8)
    both = conclude([abort, other])
    assert [NoiseFilter().noise_class(one) for one in both] == ["health_check"] * 2
