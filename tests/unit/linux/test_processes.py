# SPDX-License-Identifier: Apache-2.0
"""Processes are described from /proc, and sockets are traced to those who hold them."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from holdfast.errors import KernelUnavailable
from holdfast.events import Process
from holdfast.linux.processes import cgroup_path, describe, socket_owners, sockets_of

ID = "ab" * 32


def write(proc: Path, **files: str) -> None:
    folder = proc / "7"
    folder.mkdir(parents=True)
    for name, text in files.items():
        (folder / name).write_text(text)


def test_everything_that_proc_tells(tmp_path: Path) -> None:
    proc, root = tmp_path / "proc", tmp_path / "cgroup"
    (root / "docker" / ID).mkdir(parents=True)
    write(
        proc,
        comm="a\nb\x1b\n",
        status="Name:\ta\\nb\nUid:\t1\t2\t3\t4\n",
        cgroup=f"5:memory:/x\n0::/docker/{ID}\n",
    )
    number = os.stat(root / "docker" / ID).st_ino
    assert describe(7, root, proc) == Process(7, "a\nb\x1b", 2, number, f"/docker/{ID}", ID)
    assert describe(7, None, proc) == Process(7, "a\nb\x1b", 2, None, f"/docker/{ID}", ID)


def test_a_process_with_bare_files(tmp_path: Path) -> None:
    write(tmp_path, comm="x\n", status="")
    assert describe(7, tmp_path, tmp_path) == Process(7, "x")


def test_a_process_that_is_gone(tmp_path: Path) -> None:
    assert describe(7, None, tmp_path) is None


def test_ourselves() -> None:
    found = describe(os.getpid())
    assert found is not None
    assert (found.pid, found.uid) == (os.getpid(), os.geteuid())


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("0::/\n", "/"),
        ("1:name=systemd:/a\n0::/b c:d\n", "/b c:d"),
        ("0::/gone (deleted)\n", "/gone"),
        ("1:cpu:/a\n", None),
        ("0::", None),
        ("", None),
    ],
)
def test_cgroup_paths(text: str, path: str | None) -> None:
    assert cgroup_path(text) == path


def test_holders_of_a_socket() -> None:
    with socket.socket() as held:
        inode = os.fstat(held.fileno()).st_ino
        assert socket_owners([inode, 0, 1 << 60]) == {inode: (os.getpid(),)}
    assert socket_owners([inode]) == {}


def test_a_socket_that_two_processes_hold(tmp_path: Path) -> None:
    for pid, link in ((30, "socket:[9]"), (4, "socket:[9]"), (5, "/dev/null")):
        (tmp_path / str(pid) / "fd").mkdir(parents=True)
        (tmp_path / str(pid) / "fd" / "0").symlink_to(link)
    (tmp_path / "6").mkdir()
    assert socket_owners([9], tmp_path) == {9: (4, 30)}
    assert socket_owners([9], tmp_path / "absent") == {}


def test_the_sockets_of_a_process() -> None:
    with socket.socket() as sock, socket.socket() as closed:
        inode, gone = os.fstat(sock.fileno()).st_ino, os.fstat(closed.fileno()).st_ino
        closed.close()
        held = sockets_of(os.getpid())
        assert (inode in held, gone in held) == (True, False)


def test_other_files_are_no_sockets(tmp_path: Path) -> None:
    folder = tmp_path / "7" / "fd"
    folder.mkdir(parents=True)
    for handle, target in (("0", "/dev/null"), ("1", "socket:[12]"), ("2", "pipe:[13]"), ("3", "socket:[x]")):
        (folder / handle).symlink_to(target)
    assert sockets_of(7, tmp_path) == {12}


def test_a_process_without_sockets_to_look_at_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(KernelUnavailable, match=r"process 7 .* needs a living process"):
        sockets_of(7, tmp_path)
