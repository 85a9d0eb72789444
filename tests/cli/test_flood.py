# SPDX-License-Identifier: Apache-2.0
"""``holdfast watch`` over many resets at once: each is told, or is in a group with its number."""

from __future__ import annotations

import errno
import json
import re
import socket
from collections import Counter
from typing import Any

import pytest
from cli.command import Done, Running, server

pytestmark = [pytest.mark.needs_bpf, pytest.mark.timeout(120)]

MANY = 3_000


def objects(done: Done) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """What it printed: the records, and the groups of all other objects."""
    told = [json.loads(line) for line in done.out.splitlines()]
    groups = [group for one in told if "cause" not in one for group in one["folded"]]
    return [one for one in told if "cause" in one], groups


def refuse(port: int, count: int) -> None:
    for _ in range(count):
        with socket.socket() as sock:
            assert sock.connect_ex(("127.0.0.1", port)) == errno.ECONNREFUSED


@pytest.fixture
def closed_ports() -> tuple[int, int]:
    with socket.socket() as one, socket.socket() as other:
        one.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        return one.getsockname()[1], other.getsockname()[1]


def test_a_server_killed_with_200_connections_has_200_records() -> None:
    with (
        server(count=200) as program,
        Running("watch", "--json", "--all", "--port", str(program.port)) as watch,
    ):
        watch.await_ready()
        program.reset()
        done = watch.end()
    records, groups = objects(done)
    assert Counter((one["direction"], one["cause"]) for one in records) == {
        ("sent", "closed_with_unread_data"): 200,
        ("received", "closed_with_unread_data"): 200,
    }
    assert groups == []
    assert "more like them" not in done.err


def test_in_a_flood_every_reset_is_a_record_or_counted_in_a_group(closed_ports: tuple[int, int]) -> None:
    """And one on another port has its record, which 3,000 do not hide."""
    flooded, quiet = closed_ports
    with Running("watch", "--json", "--all", "--netns", "/proc/self/ns/net") as watch:
        watch.await_ready()
        refuse(flooded, MANY)
        refuse(quiet, 1)
        done = watch.end()
    records, groups = objects(done)
    told, folded = Counter[tuple[str, int]](), Counter[tuple[str, int]]()
    for one in records:
        end = one["local"] if one["direction"] == "sent" else one["peer"]
        told[one["direction"], int(end.rpartition(":")[2])] += 1
    for group in groups:
        direction = {"reset_sent": "sent", "reset_received": "received"}.get(group["kind"], "")
        folded[direction, group["local_port"] or group["peer_port"]] += group["count"]
    assert [told[direction, quiet] for direction in ("sent", "received")] == [1, 1]
    for direction in ("sent", "received"):
        assert told[direction, flooded] + folded[direction, flooded] == MANY
    assert folded["sent", flooded] > MANY // 2
    more = re.search(r"([0-9,]+) more like them", done.err)
    assert more, done.err
    resets = sum(group["count"] for group in groups if group["kind"].startswith("reset_"))
    assert int(more[1].replace(",", "")) >= resets
