# SPDX-License-Identifier: Apache-2.0
"""Every scenario, made now and captured at three places, is explained as well as each place can know."""

from __future__ import annotations

from errno import ECONNREFUSED
from pathlib import Path

import pytest
from lab_captures import PLACES, captured, stamping, true_sender, write
from lab_known import KNOWN, agrees

from holdfast.lab import SCENARIOS
from holdfast.lab.network import Network
from holdfast.lab.rules import FROM_CLIENT, path
from holdfast.lab.scenario import Scenario
from holdfast.watch.explain import Explaining

MADE = [
    pytest.param(scenario, family, id=f"{name}-ipv{family}")
    for name, scenario in SCENARIOS.items()
    if not scenario.vm_only
    for family in scenario.families
]


@pytest.mark.slow
@pytest.mark.needs_netns
@pytest.mark.parametrize(("scenario", "family"), MADE)
def test_each_place_says_what_it_can_know(scenario: Scenario, family: int, tmp_path: Path) -> None:
    scenario.check()
    label, seen, client_ip = captured(scenario, family)
    files = write(tmp_path, scenario.name, {place: seen[place] for place in PLACES if seen.get(place)})
    for place, file in files.items():
        found = Explaining([[str(file)]]).run().found
        told = [(one.cause, one.sender) for one in found]
        assert agrees(KNOWN[scenario.name].at(place), found), (place, told)
        if place == "client":
            assert {sender for _, sender in told} <= {true_sender(label, client_ip), "unknown"}


ECN_SYN = FROM_CLIENT + "tcp flags & (syn | ack | ecn | cwr) == syn | ecn | cwr reject with tcp reset"


@pytest.mark.needs_netns
def test_a_device_that_refuses_ecn_is_found(tmp_path: Path) -> None:
    """RFC 3360: the client is refused while it asks for ECN, and accepted at once without it."""
    with stamping(), Network() as net:
        net.router.firewall(path(ECN_SYN))
        server = net.server.app()
        address = server.listen()
        net.client.sniff()
        for ecn, ending in ((1, ECONNREFUSED), (0, None)):
            net.client.sysctl(tcp_ecn=ecn)
            client = net.client.app()
            client.dial(address, 1)
            if ending is not None:
                client.await_end(ending)
        server.accept(1)
        files = write(tmp_path, "ecn", {"client": net.client.captured()})
    (only,) = Explaining([[str(files["client"])]]).run().found
    assert (only.cause, only.sender) == ("handshake_option_refused", "path")
    assert "without ECN" in only.evidence[0].fact
