"""An interface is listened to: what happens on it is told like a file's, and drops are counted."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import socket
import struct

import pytest

from holdfast.errors import UsageError
from holdfast.watch.capture import LiveReading, listen
from holdfast.watch.capture.flow import RST, EndedBy, Flow

LINGER_NOW = struct.pack("ii", 1, 0)


def reset_on_loopback() -> int:
    """A connection to ourselves that ends with a RST; gives the server's port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as client:
            accepted, _ = listener.accept()
            client.sendall(b"GET / HTTP/1.1\r\n\r\n")
            assert accepted.recv(100)
            accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_NOW)
            accepted.close()
            with pytest.raises(ConnectionResetError):
                client.recv(1)
    return port


def flows_on(reading: LiveReading, port: int) -> list[Flow]:
    reading.stop()
    return [flow for flow in reading if flow.server.port == port]


@pytest.mark.needs_netns
def test_a_reset_on_loopback_is_told_once_with_all_its_packets() -> None:
    reading = listen("lo")
    (flow,) = flows_on(reading, reset_on_loopback())
    assert (flow.zeek_state, flow.zeek_history, flow.ended_by) == ("RSTR", "ShADar", EndedBy.CAPTURE)
    assert flow.packets[-1].flags & RST
    assert [packet.offset for packet in flow.packets] == [None] * len(flow.packets)
    assert flow.sent_by_client.payload_bytes == 18
    assert flow.sent_by_server.duplicates == 0
    assert (reading.summary.dropped, reading.summary.stopped) == (0, True)


@pytest.mark.needs_netns
def test_time_alone_gives_a_flow_that_has_waited_long_enough() -> None:
    reading = listen("lo")
    port = reset_on_loopback()
    while not reading.summary.reset_connections and reading.summary.tcp < 6:
        reading._step()
    reading._capture.tick(1 << 62)
    reading._take()
    (flow,) = flows_on(reading, port)
    assert flow.ended_by == EndedBy.CLOSED


@pytest.mark.needs_netns
@pytest.mark.parametrize("name", ["nothing0", "", "../lo", "x" * 100])
def test_an_interface_that_is_not_there_is_one_sentence(name: str) -> None:
    with pytest.raises(UsageError, match="There is no interface"):
        listen(name)
