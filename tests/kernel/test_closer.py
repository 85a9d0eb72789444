# SPDX-License-Identifier: Apache-2.0
"""Who closed it, where that is neither who opened it nor who ran when the RST was sent."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from kernel.quiet_network import connections, quiet_network
from kernel.test_owner import COUNT, finish, run, sent, start
from kernel.watching import Pair, Watch, watching

from holdfast.causes import Direction
from holdfast.events import Endpoint, Reset
from holdfast.lab import Network
from holdfast.lab.rules import FROM_SERVER, OPEN, SILENCE, host_input, path
from holdfast.lab.scenarios.closing import ANSWER, REQUEST, close_in_peace

pytestmark = [pytest.mark.needs_bpf, pytest.mark.needs_netns]


@pytest.fixture(scope="module")
def watch() -> Iterator[Watch]:
    with watching() as running:
        yield running


def facts(one: Reset) -> list[str]:
    return [evidence.fact for evidence in one.evidence]


def prefork(watch: Watch, end: str) -> tuple[dict[str, Any], list[Reset]]:
    """A pre-fork server whose worker ends its connections so; the resets it sent."""
    comm = "prefork"
    done, records = run(watch, worker=True, end=end, comm=comm.encode().hex())
    assert len(records) == COUNT
    assert [one.owner and one.owner.pid for one in records] == [done["worker"]] * COUNT
    both = f"opened by {comm} (pid {done['pid']}), closed by {comm} (pid {done['worker']})"
    assert all(both in facts(one) for one in records)
    assert all(f"{comm} (pid {done['worker']})" in one.sentence for one in records)
    return done, records


ENDED = "it was closed because its process ended: no idle time-out did it"


@pytest.mark.parametrize(("end", "ended"), [("close_idle", False), ("exit_idle", True)])
def test_the_worker_that_closed_an_idle_connection_is_named(watch: Watch, end: str, ended: bool) -> None:
    """Nothing is left of the socket when the next request comes; and stopping a worker is no idle limit."""
    _, records = prefork(watch, end)
    assert {one.cause for one in records} == {"keepalive_race"}
    for one in records:
        assert one.idle_s is not None and 0.15 < one.idle_s < 5
        assert f"silent for {one.idle_s:.3f} s when it was closed" in facts(one)
        assert (ENDED in facts(one)) == ended


def test_the_worker_that_shut_its_connection_is_named(watch: Watch) -> None:
    _, records = prefork(watch, "shut")
    assert {one.cause for one in records} == {"data_after_shutdown"}


def test_the_worker_that_closed_while_the_peer_sent_is_named(watch: Watch) -> None:
    _, records = prefork(watch, "close_full")
    assert {one.cause for one in records} == {"closed_while_receiving"}
    assert all("the process had closed the socket" in facts(one) for one in records)


DEAF = host_input("tcp flags & rst == rst drop")


def test_the_worker_whose_reset_was_lost_is_named_by_the_next_one_too(watch: Watch) -> None:
    """Only the listener is left to answer a segment of a connection that was closed without a FIN."""
    with quiet_network() as inside:

        def deafened() -> dict[str, Any]:
            subprocess.run(["nft", "-f", "-"], input=DEAF, text=True, check=True, timeout=10)
            return finish(start(worker=True, end="close_unheard"))

        done = inside(deafened)
        records = sent(watch, done["ends"])
    # How often the peer tries again is left open.
    assert {(one.cause, one.owner and one.owner.pid) for one in records} == {
        ("closed_with_unread_data", done["worker"]),
        ("late_segment", done["worker"]),
    }


def test_a_program_that_ends_with_linger_zero_did_not_choose_to_abort(watch: Watch) -> None:
    _, records = prefork(watch, "exit_lingering")
    assert {one.cause for one in records} == {"linger_zero"}
    assert all("the process was exiting: its end closed the socket" in facts(one) for one in records)


def test_retransmitted_bytes_are_not_counted_again(watch: Watch) -> None:
    """Neither by a socket nor by what is remembered of one that is gone."""
    with Network(4) as net:
        server, client = net.established(1)
        client.send(REQUEST)
        server.receive(len(REQUEST))
        before = net.server.counters().get("TcpRetransSegs", 0)
        net.router.firewall(path(FROM_SERVER + SILENCE))
        server.send(ANSWER)
        net.server.await_counter("TcpRetransSegs", before + 1)
        net.router.firewall(OPEN)
        client.receive(len(ANSWER))
        close_in_peace(server)
        client.send(REQUEST)
        told = watch.await_told(2, *server.pairs)
    [one] = [one for one in told if one.direction is Direction.SENT]
    assert (one.bytes_sent, one.bytes_received) == (len(ANSWER), len(REQUEST))


def test_who_destroys_a_listener_did_not_stop_listening(watch: Watch) -> None:
    """With `ss -K`, a listener takes along what waits in its queue."""
    with quiet_network() as inside:

        def destroy() -> list[Pair]:
            with socket.create_server(("127.0.0.1", 0)) as listener:
                port = listener.getsockname()[1]
                clients = [socket.create_connection(("127.0.0.1", port)) for _ in range(COUNT)]
                subprocess.run(["ss", "-K", "-l", "-t", "sport", "=", f":{port}"], check=True, timeout=10)
                ends = [(Endpoint("127.0.0.1", port), Endpoint(*one.getsockname())) for one in clients]
                for one in clients:
                    one.close()
            return ends

        ends = inside(destroy)
        told = watch.await_told(2 * COUNT, *ends)
    records = [one for one in told if one.direction is Direction.SENT]
    assert [(one.cause, one.owner and one.owner.pid) for one in records] == [
        ("listener_closed", os.getpid())
    ] * COUNT
    for one in records:
        assert any(fact.startswith("destroyed from outside by ss (pid ") for fact in facts(one))


def test_a_kernel_worker_that_collects_a_socket_is_not_its_owner(watch: Watch) -> None:
    """A descriptor lost in a cycle of unix sockets is closed by the kernel's collector (a kworker, 6.10)."""
    with quiet_network() as inside:

        def lose() -> list[Pair]:
            [(client, server)] = connections("127.0.0.1", 1)
            ends = [(Endpoint(*server.getsockname()), Endpoint(*client.getsockname()))]
            client.sendall(b"unread")
            one, other = socket.socketpair()
            socket.send_fds(one, [b"x"], [server.fileno(), other.fileno()])
            for sock in (server, one, other):
                sock.close()
            one, other = socket.socketpair()  # closing what is in flight calls the collector
            socket.send_fds(one, [b"x"], [one.fileno()])
            one.close()
            other.close()
            client.settimeout(5)
            with pytest.raises(ConnectionResetError):
                client.recv(1)
            client.close()
            return ends

        ends = inside(lose)
        told = watch.await_told(2, *ends)
    assert [(one.cause, one.owner and one.owner.pid) for one in told if one.direction is Direction.SENT] == [
        ("closed_with_unread_data", os.getpid())
    ]
