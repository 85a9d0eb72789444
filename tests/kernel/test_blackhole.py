"""A dead peer is noticed when the policy says so: the prediction against a real black hole."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import errno
import select
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from kernel.inside import inside

from holdfast.events import Endpoint
from holdfast.hold.options import apply, effective
from holdfast.lab import Network
from holdfast.lab.rules import OPEN, path
from holdfast.policy import PROFILES, Detection, KeepAlive, SocketPolicy

pytestmark = pytest.mark.needs_netns

SMALL_WINDOW = (socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)


@dataclass(frozen=True)
class Case:
    """A policy, what the connection is doing when its peer dies, and how exact the prediction must be.

    An idle connection is looked at once in an interval. Less than one apart, a prediction cannot be one
    probe too many or too few.
    """

    name: str
    policy: SocketPolicy
    doing: str
    within_s: float

    def predicted_s(self) -> float:
        found: Detection = self.policy.detection()
        at_s = {"idle": found.idle_s, "busy": found.busy_s, "stalled": found.stalled_s}[self.doing]
        assert at_s is not None
        return at_s


def idle(name: str, keepalive: KeepAlive, user_timeout_ms: int = 0) -> Case:
    return Case(name, SocketPolicy(keepalive, user_timeout_ms), "idle", 0.75 * keepalive.interval_s)


QUICK = (
    idle("count decides without a user timeout", KeepAlive(1, 1, 2)),
    idle("a short user timeout ends it after one probe", KeepAlive(1, 1, 9), 500),
    idle("a long user timeout outlasts the count", KeepAlive(1, 1, 1), 4_500),
    idle("the kernel looks only when a probe is due", KeepAlive(1, 2, 9), 3_200),
    Case("busy, by user timeout", SocketPolicy(KeepAlive(1, 1, 1), 3_000), "busy", 1),
    Case("busy without keep-alive", SocketPolicy(None, 1_500), "busy", 1),
    Case("stalled, by user timeout", SocketPolicy(KeepAlive(1, 1, 1), 2_500), "stalled", 1),
)
NEVER = (
    Case("keep-alive stops while data is in flight", SocketPolicy(KeepAlive(1, 1, 1)), "busy", 0),
    Case("a user timeout alone ends nothing idle", SocketPolicy(None, 500), "idle", 0),
    Case("a stalled peer is waited for without one", SocketPolicy(KeepAlive(1, 1, 1)), "stalled", 0),
)
LANS = (
    Case("lan, idle", PROFILES["lan"].policy, "idle", 5),
    Case("lan, busy", PROFILES["lan"].policy, "busy", 5),
    Case("lan, stalled", PROFILES["lan"].policy, "stalled", 5),
)


def dark(port: int) -> str:
    """Rules of a router in which one port's segments vanish."""
    return path(f"tcp dport {port} drop", f"tcp sport {port} drop")


def fill(sock: socket.socket) -> None:
    """Send until the kernel takes no more."""
    try:
        while True:
            sock.send(bytes(65536))
    except BlockingIOError:
        pass


def lives(net: Network, cases: tuple[Case, ...], wait_s: float) -> dict[str, float]:
    """How long each case's connection lived after its peer died; those that outlived the wait are missing."""
    silent, stuck = net.server.app().listen(), net.server.app().listen(options=[SMALL_WINDOW])
    return inside(net.client, lambda: _lives(net, cases, wait_s, silent, stuck))


def _lives(
    net: Network, cases: tuple[Case, ...], wait_s: float, silent: Endpoint, stuck: Endpoint
) -> dict[str, float]:
    opened: dict[int, tuple[Case, socket.socket]] = {}
    begun_s: dict[str, float] = {}
    poll = select.poll()
    for case in cases:
        to = stuck if case.doing == "stalled" else silent
        sock = socket.create_connection((to.ip, to.port), timeout=5)
        apply(case.policy, sock)
        assert effective(sock) == case.policy
        sock.setblocking(False)
        opened[sock.fileno()] = case, sock
        # Idle time is counted from the last segment, which was that of the handshake.
        begun_s[case.name] = time.monotonic()
        poll.register(sock, 0)  # errors are always reported
    net.router.firewall(dark(silent.port))
    for case, sock in opened.values():
        if case.doing != "idle":
            begun_s[case.name] = time.monotonic()
            fill(sock) if case.doing == "stalled" else sock.send(b"hello")
    died: dict[str, float] = {}
    end_s = time.monotonic() + wait_s
    while len(died) < len(opened) and (left_s := end_s - time.monotonic()) > 0:
        for fd, _ in poll.poll(left_s * 1000):
            case, sock = opened[fd]
            died[case.name] = time.monotonic() - begun_s[case.name]
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ETIMEDOUT
            poll.unregister(fd)
    for _, sock in opened.values():
        sock.close()
    return died


@pytest.mark.parametrize("family", [4, pytest.param(6, marks=pytest.mark.slow)])
def test_a_dead_peer_is_noticed_when_the_policy_says(family: int) -> None:
    """All at once, idle, busy and stalled; what is said never to be noticed lives on."""
    with Network(family) as net:
        died = lives(net, QUICK + NEVER, 6.5)
    assert died == {case.name: pytest.approx(case.predicted_s(), abs=case.within_s) for case in QUICK}


@pytest.mark.slow
def test_a_profile_notices_when_it_says() -> None:
    with Network() as net:
        died = lives(net, LANS, 45)
    assert died == {case.name: pytest.approx(case.predicted_s(), abs=case.within_s) for case in LANS}


@pytest.mark.slow
def test_an_outage_is_survived_up_to_the_last_retransmission() -> None:
    """With 4 s of user timeout: 3.2 s are said to be survived; 2 s are, and 4 s are not."""
    policy = SocketPolicy(None, 4_000)
    assert policy.detection().survived_s == pytest.approx(3.2)
    with Network() as net:
        assert [inside(net.client, outage(net, policy, wait_s)) for wait_s in (2.0, 3.9)] == [
            0,
            errno.ETIMEDOUT,
        ]


def outage(net: Network, policy: SocketPolicy, wait_s: float) -> Callable[[], int]:
    """Data sent into a black hole that ends after a while: the errno with which it ends, 0 if it arrives."""
    server = net.server.app()
    to = server.listen()

    def work() -> int:
        with socket.create_connection((to.ip, to.port), timeout=5) as sock:
            apply(policy, sock)
            server.accept(1)
            net.router.firewall(dark(to.port))
            sock.send(b"hello")
            time.sleep(wait_s)
            net.router.firewall(OPEN)
            poll = select.poll()
            poll.register(sock, 0)
            if poll.poll(2_500):
                return sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        server.receive(5)
        return 0

    return work
