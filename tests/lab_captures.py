# SPDX-License-Identifier: Apache-2.0
"""Captures of the lab's scenarios, taken at three places at once: client, router and server."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from pathlib import Path

from holdfast.lab.label import Label
from holdfast.lab.network import Captured, Network
from holdfast.lab.scenario import Scenario

PLACES = ("client", "router", "server")
ROUTER_DEVICE = "near"  # its cable to the client: a segment that is forwarded shows once
LINKTYPE_RAW, SNAP_BYTES, MAGIC_NS = 101, 160, 0xA1B23C4D


def captured(scenario: Scenario, family: int = 4, count: int = 1) -> tuple[Label, dict[str, list[Captured]]]:
    """Make a scenario, and give its label and what each place saw."""
    with Network(family) as net:
        watched = {host.name: host for host in net.hosts}
        for host in watched.values():
            host.sniff()
        label = scenario.make(net, count)
        seen = {name: host.captured() for name, host in watched.items() if host.alive}
    seen["router"] = [one for one in seen["router"] if one.device == ROUTER_DEVICE]
    return label, seen


def pcap(frames: Iterable[Captured]) -> bytes:
    """A capture file of raw IP datagrams, with nanoseconds."""
    made = [struct.pack("<IHHiIII", MAGIC_NS, 2, 4, 0, 0, SNAP_BYTES, LINKTYPE_RAW)]
    for one in sorted(frames, key=lambda frame: frame.time_ns):
        seconds, rest = divmod(one.time_ns, 1_000_000_000)
        length = ip_length(one.data)
        made += (struct.pack("<IIII", seconds, rest, len(one.data), length), one.data)
    return b"".join(made)


def ip_length(data: bytes) -> int:
    """The length that the IP header tells, else what there is."""
    version = data[0] >> 4 if data else 0
    told = 0
    if version == 4 and len(data) >= 20:
        told = struct.unpack_from("!H", data, 2)[0]
    elif version == 6 and len(data) >= 40:
        told = 40 + struct.unpack_from("!H", data, 4)[0]
    return max(told, len(data))


def write(folder: Path, name: str, seen: dict[str, list[Captured]]) -> dict[str, Path]:
    """One file for each place."""
    files = {}
    for place, frames in seen.items():
        files[place] = folder / f"{name}.{place}.pcap"
        files[place].write_bytes(pcap(frames))
    return files
