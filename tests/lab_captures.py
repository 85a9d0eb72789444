# SPDX-License-Identifier: Apache-2.0
"""Captures of the lab's scenarios, taken at three places at once: client, router and server."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from holdfast.lab.capture_file import pcap
from holdfast.lab.label import Label
from holdfast.lab.network import Captured, Network
from holdfast.lab.scenario import Scenario

SO_TIMESTAMPNS = 35  # include/uapi/asm-generic/socket.h
PLACES = ("client", "router", "server")
ROUTER_DEVICE = "near"  # its cable to the client: what is forwarded shows once


Seen = dict[str, list[Captured]]


def captured(scenario: Scenario, family: int = 4, count: int = 1) -> tuple[Label, Seen, str]:
    """Make a scenario, and give its label, what each place saw, and the client's address."""
    with stamping(), Network(family) as net:
        watched = {host.name: host for host in net.hosts}
        for host in watched.values():
            host.sniff()
        label = scenario.make(net, count)
        seen = {name: host.captured() for name, host in watched.items() if host.alive}
    seen["router"] = [one for one in seen["router"] if one.device == ROUTER_DEVICE]
    return label, seen, net.client.ip


@contextmanager
def stamping() -> Iterator[None]:
    """Have the kernel stamp segments as they pass, not as they are read.

    It turns its clock on in a worker, some time after the first socket asks for it; making a network takes
    longer.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asks:
        asks.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        yield


def true_sender(label: Label, client_ip: str) -> str:
    """The label's sender, seen from beside the connection: client, server, path or unknown."""
    if label.sender not in ("local", "peer"):
        return label.sender
    local, peer = label.pairs[0]
    end = local if label.sender == "local" else peer
    return "client" if end.ip == client_ip else "server"


def write(folder: Path, name: str, seen: dict[str, list[Captured]]) -> dict[str, Path]:
    """One file for each place."""
    files = {}
    for place, frames in seen.items():
        files[place] = folder / f"{name}.{place}.pcap"
        files[place].write_bytes(pcap((one.time_ns, one.data) for one in frames))
    return files
