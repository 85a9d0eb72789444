"""What is told of a connection before the others are known is told again where they change it."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import making_captures as make
from making_captures import CLIENT, SERVER, ethernet, segment

from holdfast.watch.capture.flow import ACK, RST, SYN
from holdfast.watch.diagnose.explained import Explained
from holdfast.watch.explain import Explaining


def refusal(port: int) -> list[make.Record]:
    """An attempt at a closed port of the server."""
    at_port = (SERVER[0], port)
    packets = [
        segment((CLIENT[0], 50_000), at_port, SYN, seq=5, options=make.SYN_OPTIONS),
        segment(at_port, (CLIENT[0], 50_000), RST | ACK, ack=6, window=0, ttl=57),
    ]
    return [make.Record(10**18 + at, ethernet(packet)) for at, packet in enumerate(packets)]


def test_a_refusal_whose_sender_other_connections_show_is_corrected(tmp_path: Path) -> None:
    path = tmp_path / "a.pcap"
    path.write_bytes(make.pcap([*refusal(81), *make.conversation()]))
    heard: list[Explained] = []
    told = Explaining([[str(path)]], on_found=heard.append).run()
    first = {one.id: (one.cause, one.sender) for one in heard}
    (again,) = told.corrected
    assert first[again.id] == ("connection_refused", "unknown")
    assert (again.cause, again.sender) == ("connection_refused", "server")
    assert again in told.found and len(told.found) == len(heard) == 2


def test_nothing_is_corrected_that_stays_as_it_was_told(tmp_path: Path) -> None:
    path = tmp_path / "a.pcap"
    path.write_bytes(make.pcap(refusal(81)))
    assert Explaining([[str(path)]], on_found=lambda one: None).run().corrected == ()
