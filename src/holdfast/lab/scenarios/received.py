"""Resets as the end that receives them can tell them, were the other end on another machine."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import replace
from errno import ECONNREFUSED, ECONNRESET, EPIPE

from holdfast.events import Endpoint
from holdfast.lab.app import App
from holdfast.lab.label import Label
from holdfast.lab.network import Network
from holdfast.lab.scenario import Needs, scenario
from holdfast.lab.scenarios.closing import REQUEST, close_in_peace, unread_at_server
from holdfast.lab.scenarios.firewall import suffered_by
from holdfast.lab.scenarios.handshake import CLOSED_PORT


def told_alone(app: App, cause: str) -> Label:
    """The label of what the peer did to this program, without knowledge of the peer."""
    return replace(suffered_by(app, cause, "peer"), alone=True)


@scenario()
def peer_aborted(net: Network, count: int) -> Label:
    """The peer's kernel resets because its program closed with data unread."""
    server, client = unread_at_server(net, count)
    server.close()
    client.await_end(ECONNRESET)
    return told_alone(client, "peer_aborted")


@scenario(needs=Needs.FIREWALL)
def peer_had_no_connection(net: Network, count: int) -> Label:
    """The peer was restarted and its kernel knows nothing of the connection."""
    _, client = net.established(count)
    net.replace_server()
    client.send(REQUEST)
    client.await_end(ECONNRESET)
    return told_alone(client, "peer_had_no_connection")


@scenario()
def peer_closed_then_reset(net: Network, count: int) -> Label:
    """The peer closed in peace, and resets because this end keeps sending."""
    server, client = net.established(count)
    close_in_peace(server)
    client.send(REQUEST)
    client.await_end(EPIPE)
    return told_alone(client, "peer_closed_then_reset")


@scenario()
def connection_refused(net: Network, count: int) -> Label:
    """The peer's host answers the SYN with a reset: nobody listens there."""
    client = net.client.app()
    client.dial(Endpoint(net.server.ip, CLOSED_PORT), count)
    client.await_end(ECONNREFUSED)
    return replace(told_alone(client, "connection_refused"), sender="unknown")
