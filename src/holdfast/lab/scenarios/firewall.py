"""Resets and refusals made by nftables, on the host itself or on the path."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from errno import ECONNREFUSED, ECONNRESET, EHOSTUNREACH

from holdfast.causes import Direction
from holdfast.events import Harm
from holdfast.lab.app import App
from holdfast.lab.label import ANY, Label, swapped
from holdfast.lab.network import Network
from holdfast.lab.rules import FROM_CLIENT, RESET, host_input, path
from holdfast.lab.scenario import Needs, scenario


def suffered_by(app: App, cause: str, sender: str, harm: Harm = ANY) -> Label:
    """The label of an ending that came to this program's connections from elsewhere."""
    return app.host.label(cause, sender, Direction.RECEIVED, app, app.pairs, harm)


def refused_client(net: Network, count: int, expect: int) -> tuple[App, App]:
    """A client that dials a listening server in vain."""
    server, client, address = net.listening()
    client.dial(address, count)
    client.await_end(expect)
    return server, client


@scenario(needs=Needs.FIREWALL)
def local_firewall_reject(net: Network, count: int) -> Label:
    """The server's own firewall rejects segments of connections that were fine until now."""
    server, client = net.established(count)
    net.server.firewall(host_input(RESET))
    client.send("hello")
    client.await_end(ECONNRESET)
    return net.server.label("local_firewall_reject", "local", Direction.SENT, server, server.pairs)


@scenario(needs=Needs.FIREWALL, cause="local_firewall_reject")
def local_firewall_reject_syn(net: Network, count: int) -> Label:
    """The server's own firewall rejects the SYN to a port where a program listens."""
    net.server.firewall(host_input(RESET))
    server, client = refused_client(net, count, ECONNREFUSED)
    pairs = swapped(client.pairs)
    return net.server.label("local_firewall_reject", "local", Direction.SENT, server, pairs)


@scenario(needs=Needs.FIREWALL)
def path_firewall_reject(net: Network, count: int) -> Label:
    """A firewall on the path rejects segments of connections that were fine until now."""
    _, client = net.established(count)
    net.router.firewall(path(FROM_CLIENT + RESET))
    client.send("hello")
    client.await_end(ECONNRESET)
    return suffered_by(client, "path_firewall_reject", "path")


@scenario(needs=Needs.FIREWALL, cause="path_firewall_reject")
def path_firewall_reject_syn(net: Network, count: int) -> Label:
    """A firewall on the path rejects the SYN."""
    net.router.firewall(path(FROM_CLIENT + RESET))
    _, client = refused_client(net, count, ECONNREFUSED)
    return suffered_by(client, "path_firewall_reject", "path")


@scenario(needs=Needs.FIREWALL, cause="path_firewall_reject")
def firewall_lost_state(net: Network, count: int) -> Label:
    """A stateful firewall on the path fails over without its table and rejects what it does not know."""
    _, client = net.established(count)
    net.router.firewall(path("ct state established,related accept", "tcp flags syn accept", RESET))
    net.router.sysctl("net/netfilter", nf_conntrack_tcp_loose=0)
    client.send("hello")
    client.await_end(ECONNRESET)
    return suffered_by(client, "path_firewall_reject", "path")


@scenario(needs=Needs.FIREWALL)
def icmp_refused(net: Network, count: int) -> Label:
    """A firewall on the path answers the SYN with ICMP port unreachable."""
    net.router.firewall(path(FROM_CLIENT + "reject with icmpx type port-unreachable"))
    _, client = refused_client(net, count, ECONNREFUSED)
    return suffered_by(client, "icmp_refused", "path")


@scenario(needs=Needs.FIREWALL)
def icmp_error(net: Network, count: int) -> Label:
    """A router answers the SYN with ICMP host unreachable."""
    net.router.firewall(path(FROM_CLIENT + "reject with icmpx type host-unreachable"))
    _, client = refused_client(net, count, EHOSTUNREACH)
    return suffered_by(client, "icmp_error", "path")
