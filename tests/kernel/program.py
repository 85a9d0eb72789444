"""A program that is reset or refused in the namespace it is started in; prints what it was, as JSON.

Run by its path with one argument, a JSON object: ``host`` (a loopback address, or ``::`` for both families),
``dial`` (another address to reach it by), ``count``, ``worker`` (fork one that accepts and closes), ``comm``
(its name in hexadecimal), ``uid`` (become that user), ``cgroup`` (a directory of the cgroup v2 tree to
enter), ``wait`` (print the port and wait for a line before anything else).
"""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import ctypes
import json
import os
import socket
import sys
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
        client.sendall(b"unread")
    if not worker:
        close_unread(listener, count)
        if wanted.get("worker"):
            os._exit(0)
    else:
        os.waitpid(worker, 0)
    netns = os.stat("/proc/self/ns/net").st_ino
    print(json.dumps({"pid": os.getpid(), "worker": worker, "netns": netns, "ends": ends}))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
