"""A program that is reset or refused in the namespace it is started in; prints what it was, as JSON.

Run by its path with one argument, a JSON object: ``host`` (a loopback address, or ``::`` for both families),
``dial`` (another address to reach it by), ``count``, ``worker`` (fork one that accepts and closes), ``end``
(how it ends what it accepted, see ``ENDS``; then the peer sends once more), ``comm``
(its name in hexadecimal), ``uid`` (become that user), ``cgroup`` (a directory of the cgroup v2 tree to
enter), ``wait`` (print the port and wait for a line before anything else).
"""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import contextlib
import ctypes
import json
import os
import socket
import sys
import time
from pathlib import Path
from typing import Any

PR_SET_NAME = 15


def become(wanted: dict[str, Any]) -> None:
    """Take the name, group and user that were asked for."""
    if "cgroup" in wanted:
        Path(wanted["cgroup"], "cgroup.procs").write_text(str(os.getpid()))
    if "uid" in wanted:
        os.setresuid(wanted["uid"], wanted["uid"], wanted["uid"])
    if "comm" in wanted:
        ctypes.CDLL(None).prctl(PR_SET_NAME, bytes.fromhex(wanted["comm"]), 0, 0, 0)


def dialled(host: str, port: int) -> socket.socket:
    """A connection; without getaddrinfo(), for which another user may lack the files."""
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    sock.connect((host, port))
    return sock


def close_unread(listener: socket.socket, count: int) -> None:
    """Accept, wait until each connection has something to read, and close without reading it."""
    accepted = [listener.accept()[0] for _ in range(count)]
    for conn in accepted:
        conn.recv(1, socket.MSG_PEEK | socket.MSG_WAITALL)
        conn.close()


def await_acknowledged() -> None:
    """Wait until no socket of this namespace is in FIN_WAIT_1: the kernel delays the ACK of a FIN."""
    while any(line.split()[3] == "04" for line in Path("/proc/net/tcp").read_text().splitlines()):
        time.sleep(0.005)


def speak(clients: list[socket.socket]) -> None:
    """Read the answer, see whether the stream ends, and send the next request all the same."""
    for client in clients:
        client.settimeout(5)
        client.recv(len(REQUEST), socket.MSG_WAITALL)
        client.recv(1)
        client.sendall(REQUEST)


def answered(listener: socket.socket, count: int) -> list[socket.socket]:
    """Accept, read and answer a request on each connection, then be silent for a while."""
    accepted = [listener.accept()[0] for _ in range(count)]
    for conn in accepted:
        conn.recv(len(REQUEST), socket.MSG_WAITALL)
        conn.sendall(REQUEST)
    time.sleep(IDLE_S)
    return accepted


def close_idle(listener: socket.socket, count: int) -> None:
    """As a server does when its idle limit has come."""
    for conn in answered(listener, count):
        conn.close()


def exit_idle(listener: socket.socket, count: int) -> None:
    """As a server does that is stopped: what it had open ends with it."""
    kept.extend(answered(listener, count))
    os._exit(0)


def shut(listener: socket.socket, count: int) -> None:
    """Shut both ways and stay until the peer has found out."""
    accepted = answered(listener, count)
    for conn in accepted:
        conn.shutdown(socket.SHUT_RDWR)
    for conn in accepted:
        conn.setblocking(False)
        poll(conn)


def close_full(listener: socket.socket, count: int) -> None:
    """Close with more to send than the peer takes, so that the FIN waits."""
    for conn in answered(listener, count):
        conn.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                conn.send(bytes(1 << 16))
        conn.close()


def exit_lingering(listener: socket.socket, count: int) -> None:
    """End with SO_LINGER at zero seconds set on every connection."""
    kept.extend(answered(listener, count))
    for conn in kept:
        conn.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    os._exit(0)


def close_unheard(listener: socket.socket, count: int) -> None:
    """As close_unread, where a firewall keeps the reset from the peer."""
    close_unread(listener, count)


def poll(conn: socket.socket) -> None:
    """Wait until the connection is reset: it was shut before, so it is readable already."""
    while conn.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0:
        time.sleep(0.005)


REQUEST = b"unread"
IDLE_S = 0.2
ENDS = {
    function.__name__: function
    for function in (close_unread, close_unheard, close_idle, exit_idle, shut, close_full, exit_lingering)
}
kept: list[socket.socket] = []  # Python closes what nothing refers to


def main(wanted: dict[str, Any]) -> None:
    """Do as asked."""
    become(wanted)
    host, count = wanted["host"], wanted["count"]
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, 0), family=family, backlog=count, dualstack_ipv6=host == "::")
    port = listener.getsockname()[1]
    if wanted.get("wait"):
        print(json.dumps({"port": port, "pid": os.getpid()}), flush=True)
        sys.stdin.readline()
    worker = os.fork() if wanted.get("worker") else 0
    clients: list[socket.socket] = []
    if worker or not wanted.get("worker"):
        clients = [dialled(wanted.get("dial", host), port) for _ in range(count)]
    ends = [[client.getpeername()[:2], client.getsockname()[:2]] for client in clients]
    for client in clients:
        client.sendall(REQUEST)
    end = wanted.get("end", "close_unread")
    if not worker:
        ENDS[end](listener, count)
        if wanted.get("worker"):
            os._exit(0)
    else:
        if end == "shut":
            speak(clients)
        os.waitpid(worker, 0)
        if end in ("close_idle", "exit_idle"):
            await_acknowledged()
        if end in ("close_idle", "exit_idle", "close_full"):
            speak(clients)
        if end == "close_unheard":
            for client in clients:
                client.sendall(REQUEST)
    netns = os.stat("/proc/self/ns/net").st_ino
    print(json.dumps({"pid": os.getpid(), "worker": worker, "netns": netns, "ends": ends}))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
