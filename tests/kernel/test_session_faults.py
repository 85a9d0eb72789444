# SPDX-License-Identifier: Apache-2.0
"""A session in the lab's networks goes on through what a real kernel does to it, and loses nothing."""

from __future__ import annotations

import time

import pytest

from bench.session_faults import FAULTS, Fault, Talk, restart, suffer

pytestmark = pytest.mark.needs_netns

CONTAINER = """link add box{number} type veth peer name eth0box{number}
addr add 172.30.{number}.1/24 dev box{number}
link set box{number} up
link set eth0box{number} up
route add 172.31.{number}.0/24 via 172.30.{number}.2
route del 172.31.{number}.0/24
addr del 172.30.{number}.1/24 dev box{number}
link del box{number}
"""
RESETS = ("nftables", "raw socket", "ss -K")


def resets(fault: Fault) -> bool:
    return any(word in fault.name for word in RESETS)


def unhurt(fault: Fault, times: int) -> float:
    """Hurt it so often; the longest silence after the path was well again."""
    found = suffer(fault, times)
    assert (found.missing, found.wrong, found.lost) == (0, 0, None)
    assert found.sent > 100 or fault.idle
    if resets(fault) or fault.idle:
        assert found.resumes >= times
    return max(found.after_s)


QUICK = [fault for fault in FAULTS if fault.name == "`ss -K`" or fault.idle]


@pytest.mark.parametrize("fault", QUICK, ids=lambda fault: fault.name)
def test_the_quick_ones(fault: Fault) -> None:
    """An idle session would notice by its heartbeat only after half a minute."""
    assert unhurt(fault, 1 if fault.idle else 2) < 2


def test_what_has_nothing_to_do_with_it_moves_no_session() -> None:
    """As on a host of containers: not even a PING is sent for it."""
    with Talk("idle") as talk:
        time.sleep(1.2)
        client = talk.net.client
        client.sniff()
        for number in range(5):
            client.run("ip", "-batch", "-", text=CONTAINER.format(number=number))
            time.sleep(0.1)
        said = [made for _, made in client.sniffed() if made.payload]
        told = talk.finish()
    assert said == []
    assert (told["echoed"], told["wrong"], told["resumes"], told["lost"]) == (1, 0, 0, None)


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_every_fault(fault: Fault) -> None:
    assert unhurt(fault, min(fault.times, 2)) < 5


@pytest.mark.slow
def test_a_restarted_server_is_noticed_and_not_looped_on() -> None:
    after_s, why = restart()
    assert why == "the server was restarted and has forgotten it"
    assert after_s < 2
