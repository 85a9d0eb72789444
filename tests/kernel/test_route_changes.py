# SPDX-License-Identifier: Apache-2.0
"""What a real kernel tells when addresses, routes and links change, and that nobody else is believed."""

from __future__ import annotations

import socket
import struct
import subprocess
from collections.abc import Callable, Iterator
from ipaddress import IPv4Network, IPv6Network
from typing import Any

import pytest
from kernel.quiet_network import quiet_network

from holdfast.hold.drivers.news import Fate, News
from holdfast.linux.rtnetlink import ANYTHING, NOTHING, Changes, RouteChanges

pytestmark = pytest.mark.needs_netns

READY = """link add way0 type veth peer name way1
link set way0 addrgenmode none
link set way1 addrgenmode none
link set way1 up
link set way0 up
addr add 10.1.0.1/24 dev way0
addr add 2001:db8::1/64 dev way0 nodad
route add 10.7.0.0/16 via 10.1.0.2"""


class Kernel:
    """A namespace with a link, and what it tells of changes."""

    def __init__(self, inside: Callable[[Callable[[], Any]], Any]) -> None:
        self.inside = inside
        self.ip(READY)
        self.changes: RouteChanges = inside(RouteChanges)

    def ip(self, lines: str) -> None:
        done = self.inside(
            lambda: subprocess.run(["ip", "-batch", "-"], input=lines + "\n", text=True, capture_output=True)
        )
        assert done.returncode == 0, done.stderr

    def after(self, lines: str) -> Changes:
        self.ip(lines)
        return self.changes.read()


@pytest.fixture
def kernel() -> Iterator[Kernel]:
    with quiet_network() as inside:
        one = Kernel(inside)
        yield one
        one.changes.close()


def networks(*names: str) -> frozenset[Any]:
    return frozenset(IPv6Network(name) if ":" in name else IPv4Network(name) for name in names)


def test_a_route_by_its_network(kernel: Kernel) -> None:
    assert kernel.after("route replace 10.7.0.0/16 via 10.1.0.3") == Changes(networks("10.7.0.0/16"))
    assert kernel.after("route add default via 10.1.0.2") == Changes(networks("0.0.0.0/0"))
    assert kernel.after("route del default") == Changes(networks("0.0.0.0/0"))
    assert kernel.after("route add ::/0 via 2001:db8::2") == Changes(networks("::/0"))
    assert kernel.after("route add blackhole 10.9.0.0/16") == Changes(networks("10.9.0.0/16"))


def test_a_rule_is_everywhere(kernel: Kernel) -> None:
    """As a VPN does that has a table of its own."""
    assert kernel.after("rule add fwmark 7 table 77") == Changes(networks("0.0.0.0/0", "::/0"))


def test_an_address_that_comes_and_goes(kernel: Kernel) -> None:
    assert kernel.after("addr add 10.2.0.1/24 dev way0") == Changes(networks("10.2.0.0/24"))
    gone = kernel.after("addr del 10.2.0.1/24 dev way0")
    assert gone.less and gone.networks == networks("10.2.0.0/24")
    way = ("10.2.0.1", 5), ("10.7.0.1", 5)
    assert kernel.inside(lambda: News(gone).fate(*way)) is Fate.GONE
    other = ("10.1.0.1", 5), ("10.7.0.1", 5)
    assert kernel.inside(lambda: News(gone).fate(*other)) is Fate.SAME


def test_an_ipv6_address_that_goes(kernel: Kernel) -> None:
    gone = kernel.after("addr del 2001:db8::1/64 dev way0")
    way = ("2001:db8::1", 5, 0, 0), ("2001:db8::9", 5, 0, 0)
    assert kernel.inside(lambda: News(gone).fate(*way)) is Fate.GONE


def test_a_link_that_goes_down_takes_its_routes_with_it(kernel: Kernel) -> None:
    """Linux says no word of each, and the address stays."""
    down = kernel.after("link set way0 down")
    assert down.less and IPv4Network("10.7.0.0/16") not in down.networks
    way = ("10.1.0.1", 5), ("10.7.0.1", 5)
    assert kernel.inside(lambda: News(down).fate(*way)) is Fate.CHANGED


def test_what_is_of_no_concern(kernel: Kernel) -> None:
    """Neighbours, multicast, a link that comes: none of it takes a way away."""
    kernel.ip("neigh add 10.1.0.77 lladdr 02:00:00:00:00:01 dev way0")
    assert kernel.after("link set way0 mtu 1400") == NOTHING


def test_what_the_kernel_had_to_drop_is_anything(kernel: Kernel) -> None:
    kernel.changes.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    assert (
        kernel.after("\n".join(f"route add 10.8.{number}.0/24 via 10.1.0.2" for number in range(99)))
        == ANYTHING
    )
    assert kernel.changes.read() == NOTHING


def test_only_the_kernel_is_believed(kernel: Kernel) -> None:
    """Whoever has CAP_NET_ADMIN could send to this socket, and does not get a session to move."""
    port, _groups = kernel.changes.sock.getsockname()
    message = struct.pack("=IHHII", 24, 21, 0, 0, 0) + bytes(8)

    def forge() -> None:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as sock:
            sock.sendto(message, (port, 0))

    kernel.inside(forge)
    assert kernel.changes.sock.recv(100, socket.MSG_PEEK) == message
    assert kernel.changes.read() == NOTHING
