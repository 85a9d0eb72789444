# SPDX-License-Identifier: Apache-2.0
"""Network namespaces are found by their processes, and entered without moving this one."""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path

import pytest

from holdfast.errors import KernelUnavailable
from holdfast.linux.namespaces import inside, netns_of, network_namespaces


def test_ours_is_among_them() -> None:
    own = netns_of("self")
    assert own is not None
    assert own in network_namespaces()
    assert netns_of(os.getpid()) == own


def test_the_smallest_pid_stands_for_each(tmp_path: Path) -> None:
    for pid in (20, 3, 100):
        (tmp_path / str(pid) / "ns").mkdir(parents=True)
    (tmp_path / "3" / "ns" / "net").touch()
    (tmp_path / "20" / "ns" / "net").hardlink_to(tmp_path / "3" / "ns" / "net")
    (tmp_path / "self").mkdir()
    assert network_namespaces(tmp_path) == {os.stat(tmp_path / "3" / "ns" / "net").st_ino: 3}


def test_no_proc_no_namespaces(tmp_path: Path) -> None:
    assert network_namespaces(tmp_path / "absent") == {}
    assert netns_of(1, tmp_path) is None


def test_a_process_that_is_gone_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(KernelUnavailable, match="needs a living process"):
        inside(7, list, tmp_path)


@pytest.mark.needs_netns
def test_a_socket_made_inside_belongs_there() -> None:
    command = ["unshare", "--net", "sh", "-c", "ip link set lo up && echo ready && read wait"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        try:
            assert child.stdout is not None
            assert child.stdout.readline() == b"ready\n"
            assert inside(child.pid, lambda: socket.if_nameindex()) == [(1, "lo")]
            listener = inside(child.pid, lambda: socket.create_server(("127.0.0.1", 0)))
            with listener, pytest.raises(ConnectionRefusedError):
                socket.create_connection(listener.getsockname(), timeout=5)
            assert netns_of(child.pid) != netns_of("self")
        finally:
            child.kill()


@pytest.mark.needs_netns
def test_what_fails_inside_is_raised_outside() -> None:
    with pytest.raises(ZeroDivisionError):
        inside(os.getpid(), lambda: 1 // 0)
