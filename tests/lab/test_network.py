"""The private network works, is private, and leaves nothing behind, however its maker ends."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import AS_NOBODY

import holdfast
from holdfast.lab import Network, ScenarioFailed
from holdfast.lab.network import parse_counters

SOURCE = Path(holdfast.__file__).parents[1]
HOLD_A_NETWORK = """
import json, sys, time
from holdfast.lab import Network
net = Network()
server, client = net.established(3)
everyone = [*net.hosts, *net.server.apps, *net.client.apps, net._seed]
made = {"pids": [one.pid for one in everyone], "netns": [host.netns for host in net.hosts]}
print(json.dumps(made), flush=True)
time.sleep(60)
"""
RUN_ONE = """
from holdfast.lab import SCENARIOS, make
made = make(SCENARIOS["closed_with_unread_data"], 6, 3)
print(made.delta("server", "TcpExtTCPAbortOnClose"))
"""


def start(script: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    return subprocess.Popen(
        [sys.executable, "-c", script], env=environment, text=True, stdout=subprocess.PIPE
    )


def await_end_of(pids: list[int]) -> None:
    """Wait until none of the processes exists, at most 10 s."""
    for pid in pids:
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        try:
            poll = select.poll()
            poll.register(pidfd, select.POLLIN)
            assert poll.poll(10_000), f"process {pid} is still there"
        finally:
            os.close(pidfd)


def namespaces() -> set[int]:
    """Inode numbers of the network namespaces that any process is in or any mount holds."""
    found = set()
    for link in Path("/proc").glob("[0-9]*/ns/net"):
        try:
            found.add(os.stat(link).st_ino)
        except OSError:
            continue  # it ended meanwhile, or is a zombie
    mounts = Path("/proc/self/mountinfo").read_text()
    return found | {int(part.split("]")[0]) for part in mounts.split("net:[")[1:]}


def links() -> set[str]:
    """Names of this namespace's network interfaces."""
    return {line.split(":")[0].strip() for line in Path("/proc/net/dev").read_text().splitlines()[2:]}


@pytest.mark.needs_netns
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_nothing_is_left_when_the_maker_is_killed(number: signal.Signals) -> None:
    links_before = links()
    with start(HOLD_A_NETWORK) as maker:
        assert maker.stdout is not None
        made = json.loads(maker.stdout.readline())
        assert set(made["netns"]) <= namespaces()
        maker.send_signal(number)
        maker.wait(10)
    await_end_of(made["pids"])
    assert not set(made["netns"]) & namespaces()
    assert links() <= links_before


@pytest.mark.needs_netns
def test_nothing_is_left_after_the_with_block() -> None:
    with Network() as net:
        net.established(3)
        pids = [one.pid for one in (*net.hosts, *net.server.apps, *net.client.apps)]
        netns = {host.netns for host in net.hosts}
        descriptors = len(os.listdir("/proc/self/fd"))
    await_end_of(pids)
    assert not netns & namespaces()
    assert len(os.listdir("/proc/self/fd")) < descriptors


@pytest.mark.needs_netns
@pytest.mark.parametrize("family", [4, 6])
def test_a_segment_takes_one_hop(family: int) -> None:
    with Network(family) as net:
        net.client.sniff()
        net.established(1)
        assert {one.ttl for out, one in net.client.sniffed() if not out} == {63}


@pytest.mark.needs_netns
def test_settings_change_in_the_private_network_only() -> None:
    setting = Path("/proc/sys/net/ipv4/tcp_abort_on_overflow")
    before = setting.read_text()
    with Network() as net:
        net.server.sysctl(tcp_abort_on_overflow=1 - int(before))
        assert setting.read_text() == before
        assert net.server.ask("read", path=str(setting)) != before


@pytest.mark.needs_netns
def test_a_network_stands_within_a_second() -> None:
    started = time.monotonic()
    with Network():
        pass
    assert time.monotonic() - started < 1


@pytest.mark.needs_netns
def test_what_does_not_happen_is_told_in_a_sentence() -> None:
    with Network() as net:
        server = net.server.app()
        server.listen()
        with pytest.raises(ScenarioFailed, match=r"waited 0.05 s in vain for 1 connections to accept"):
            server.ask("accept", count=1, wait_s=0.05)


@pytest.mark.needs_netns
def test_a_stopped_program_still_has_a_kernel_that_acknowledges() -> None:
    with Network() as net:
        server, client = net.established(1)
        server.stop()
        client.send("hello")
        net.server.await_counter("TcpInSegs", 3)
        server.resume()
        server.receive(5)


@pytest.mark.needs_netns
def test_nothing_is_left_after_a_failure_inside_the_with_block() -> None:
    with pytest.raises(ScenarioFailed), Network() as net:
        server = net.server.app()
        pids = [server.pid, *(host.pid for host in net.hosts)]
        server.listen()
        server.ask("accept", count=1, wait_s=0.01)
    await_end_of(pids)


@pytest.mark.needs_netns
def test_a_dead_program_is_told_as_such() -> None:
    with Network() as net:
        app = net.client.app()
        app.kill()
        with pytest.raises(ScenarioFailed, match="is gone and cannot close"):
            app.close()


def without_rights(*argv: str) -> subprocess.CompletedProcess[str]:
    """Run a program as an ordinary user."""
    prefix = AS_NOBODY if os.geteuid() == 0 else ()
    environment = {**os.environ, "PYTHONPATH": str(SOURCE), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        [*prefix, *argv], text=True, capture_output=True, timeout=30, check=False, env=environment
    )


def test_it_works_without_rights_in_a_user_namespace() -> None:
    """An ordinary user makes the same reset, with nothing but a user namespace."""
    if without_rights("unshare", "-Urn", "true").returncode:
        pytest.skip("this machine does not allow user namespaces to ordinary users")
    done = without_rights(sys.executable, "-c", RUN_ONE)
    assert (done.stdout.strip(), done.stderr) == ("3", "")


def test_it_says_what_is_missing_where_user_namespaces_are_forbidden() -> None:
    """A user namespace that may hold no further ones stands for such a machine."""
    if os.geteuid() != 0 or without_rights("unshare", "-Ur", "true").returncode:
        pytest.skip("needs root and user namespaces")
    script = f"""
        echo 0 > /proc/sys/user/max_user_namespaces
        exec setpriv --bounding-set=-all --inh-caps=-all "{sys.executable}" -c "$SCRIPT"
    """
    script_within = "import holdfast.lab; holdfast.lab.Network()"
    environment = {**os.environ, "PYTHONPATH": str(SOURCE), "SCRIPT": script_within}
    argv = ["unshare", "-Ur", "sh", "-c", script]
    done = subprocess.run(argv, text=True, capture_output=True, timeout=30, check=False, env=environment)
    assert "NoNetwork: A private network is not available here: it needs root" in done.stderr


def test_counters_are_read_by_name() -> None:
    assert parse_counters("Tcp: OutRsts InErrs\nTcp: 3 4\nTcpExt: A\nTcpExt: -1\n") == {
        "TcpOutRsts": 3, "TcpInErrs": 4, "TcpExtA": -1,
    }  # fmt: skip


@pytest.mark.needs_netns
def test_programs_are_found_without_sbin_in_the_path() -> None:
    """Debian gives ordinary users a path without it; the lab's processes inherit what the check uses."""
    script = """
from holdfast.lab import SCENARIOS, make
made = make(SCENARIOS["local_firewall_reject"], 4, 1)
print(made.label.cause)
"""
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(SOURCE)}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=30
    )
    assert (done.stdout, done.stderr) == ("local_firewall_reject\n", "")
