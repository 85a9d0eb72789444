"""A process that obeys: it holds a network namespace or plays a program, and does what the lab tells it.

Run by its path, without site packages and without the rest of Holdfast, so that it starts in a few
milliseconds; every further process of the lab is a fork of the first. A process ends when its control
socket does, or its parent, so a killed lab leaves nothing behind.
"""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import json
import os
import resource
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
PR_SET_PDEATHSIG = 1
MESSAGE_BYTES, POLL_S = 1 << 20, 0.002
FIONREAD, SIOCGIFFLAGS, IFF_RUNNING = 0x541B, 0x8913, 0x40
TCP_REPAIR, TCP_REPAIR_QUEUE, TCP_QUEUE_SEQ, TCP_REPAIR_OFF_NO_PROBE = 19, 20, 21, -1
RECEIVE_QUEUE, SEND_QUEUE = 1, 2
SOL_PACKET, PACKET_OUTGOING, ETH_P_ALL = 263, 4, 3
IPV6_HDRINCL, SO_RCVBUFFORCE, SO_TIMESTAMPNS = 36, 33, 35

_libc = ctypes.CDLL(None, use_errno=True)


class Refused(Exception):
    """What was asked cannot be done, or did not happen in time."""


def checked(result: int, what: str) -> None:
    """Raise the errno of a libc call that failed."""
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def die_with_parent(parent: int) -> None:
    """Be killed when the parent ends, however it ends."""
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(0)


def deadline(seconds: float, what: str) -> Iterator[None]:
    """Loop until the caller breaks; after the given time say what was awaited in vain."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        yield
        time.sleep(POLL_S)
    raise Refused(f"waited {seconds:g} s in vain for {what}")


class Actor:
    """The verbs. ``conns`` are this program's connections; most verbs act on all of them at once."""

    def __init__(self, control: socket.socket) -> None:
        self.control = control
        self.listeners: list[socket.socket] = []
        self.conns: list[socket.socket] = []
        self.sniffer: socket.socket | None = None

    def serve(self) -> None:
        """Obey until the control socket ends."""
        while message := self.control.recv(MESSAGE_BYTES):
            request = json.loads(message)
            verb: Callable[..., Any] = getattr(self, "do_" + request.pop("verb"))
            try:
                answer = {"value": verb(**request)}
            except (Refused, OSError) as problem:
                answer = {"refused": str(problem)}
            self.control.send(json.dumps(answer).encode())

    # Processes and namespaces.

    def do_spawn(self, comm: str) -> int:
        """Fork a process in the same namespaces; its control socket is sent before the answer."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        parent = os.getpid()
        child = os.fork()
        if child == 0:
            die_with_parent(parent)
            self.control.close()
            ours.close()
            self.do_write({"/proc/self/comm": comm}, optional=False)
            obey(theirs)
        theirs.close()
        socket.send_fds(self.control, [b"child"], [ours.fileno()])
        ours.close()
        return child

    def do_new_user(self) -> None:
        """Become root of a new user namespace."""
        uid, gid, parent = os.getuid(), os.getgid(), os.getppid()
        checked(_libc.unshare(CLONE_NEWUSER), "unshare")
        for path, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
            with open(f"/proc/self/{path}", "w") as file:
                file.write(text)
        die_with_parent(parent)  # a change of credentials clears the death signal

    def do_new_network(self) -> int:
        """Enter a new network namespace; gives its inode number."""
        checked(_libc.unshare(CLONE_NEWNET), "unshare")
        return os.stat("/proc/self/ns/net").st_ino

    def do_run(self, argv: list[str], text: str) -> str:
        """Run a command to its end; gives what it printed."""
        done = subprocess.run(argv, input=text, text=True, capture_output=True, timeout=10, check=False)
        if done.returncode:
            raise Refused(f"{' '.join(argv)}: {done.stderr.strip() or done.returncode}")
        return done.stdout

    def do_read(self, path: str) -> str:
        """The text of a file of /proc as this process sees it."""
        with open(path) as file:
            return file.read()

    def do_write(self, values: dict[str, str], optional: bool) -> None:
        """Write files of /proc as this process sees them; pass over missing ones if they are optional."""
        for path, value in values.items():
            if not optional or os.path.exists(path):
                with open(path, "w") as file:
                    file.write(value)

    def do_await_link(self, name: str, wait_s: float) -> None:
        """Wait until a network interface can carry traffic."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            for _ in deadline(wait_s, f"the link {name}"):
                request = fcntl.ioctl(sock, SIOCGIFFLAGS, name.encode().ljust(40, b"\0"))
                if struct.unpack_from("H", request, 16)[0] & IFF_RUNNING:
                    break

    def do_become(self, argv: list[str]) -> None:
        """Run another program in this process."""
        os.execvp(argv[0], argv)

    def do_exit(self) -> None:
        """End as a program does that returns from main, with everything still open."""
        os._exit(0)

    # Opening.

    def _socket(self, ip: str, options: list[list[int]], protocol: int = 0) -> socket.socket:
        family = socket.AF_INET6 if ":" in ip else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK, protocol)
        for level, option, value in options:
            sock.setsockopt(level, option, value)
        return sock

    def do_listen(self, ip: str, backlog: int, options: list[list[int]], protocol: int) -> int:
        """Listen; gives the port."""
        sock = self._socket(ip, options, protocol)
        sock.bind((ip, 0))
        sock.listen(backlog)
        self.listeners.append(sock)
        return int(sock.getsockname()[1])

    def do_connect(
        self, ip: str, port: int, count: int, options: list[list[int]], protocol: int, source_port: int
    ) -> list[int]:
        """Dial without waiting, all at once; gives the local ports."""
        ports = []
        for _ in range(count):
            sock = self._socket(ip, options, protocol)
            if source_port:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                sock.bind(("", source_port))
            result = sock.connect_ex((ip, port))
            if result not in (0, errno.EINPROGRESS, errno.ECONNREFUSED, errno.EHOSTUNREACH):
                raise OSError(result, f"connect to {ip} port {port}: {os.strerror(result)}")
            self.conns.append(sock)
            ports.append(sock.getsockname()[1])
        return ports

    def do_accept(self, count: int, wait_s: float) -> list[int]:
        """Accept as many connections; gives the peers' ports."""
        peers: list[int] = []
        for _ in deadline(wait_s, f"{count} connections to accept"):
            with contextlib.suppress(BlockingIOError):
                while len(peers) < count:
                    sock, address = self.listeners[-1].accept()
                    sock.setblocking(False)
                    self.conns.append(sock)
                    peers.append(address[1])
            if len(peers) == count:
                break
        return peers

    # Talking.

    def do_send(self, text: str) -> None:
        """Send the same bytes on every connection."""
        for sock in self.conns:
            sock.send(text.encode())

    def do_send_to(self, text: str, ip: str, port: int, count: int, options: list[list[int]]) -> list[int]:
        """Dial with the bytes in the SYN (TCP Fast Open); gives the local ports."""
        opened = [self._socket(ip, options) for _ in range(count)]
        for sock in opened:
            with contextlib.suppress(BlockingIOError):
                sock.sendto(text.encode(), socket.MSG_FASTOPEN, (ip, port))
        self.conns += opened
        return [sock.getsockname()[1] for sock in opened]

    def do_fill(self) -> None:
        """Send until the kernel takes no more."""
        for sock in self.conns:
            with contextlib.suppress(BlockingIOError):
                while True:
                    sock.send(bytes(65536))

    def do_receive(self, size: int, wait_s: float) -> None:
        """Read exactly this many bytes from every connection; 0 reads the end of the stream."""
        for sock in self.conns:
            left = size
            for _ in deadline(wait_s, f"{size} bytes to read"):
                with contextlib.suppress(BlockingIOError):
                    got = len(sock.recv(max(left, 1)))
                    if not got and left:
                        raise Refused(f"the stream ended {left} bytes early")
                    left -= got
                    if not left:
                        break

    # Ending.

    def do_shutdown(self, how: int) -> None:
        """Shut one or both directions of every connection."""
        for sock in self.conns:
            sock.shutdown(how)

    def do_close(self) -> None:
        """Close every connection."""
        for sock in self.conns:
            sock.close()
        self.conns = []

    def do_close_listeners(self) -> None:
        """Close the listening sockets."""
        for sock in self.listeners:
            sock.close()
        self.listeners = []

    def do_option(self, level: int, option: int, value: int | list[int]) -> None:
        """Set a socket option on every connection; a list is a struct of ints."""
        packed = struct.pack(f"{len(value)}i", *value) if isinstance(value, list) else value
        for sock in self.conns:
            sock.setsockopt(level, option, packed)

    def do_disconnect(self) -> None:
        """connect(AF_UNSPEC): dissolve every connection and keep the descriptors."""
        for sock in self.conns:
            checked(_libc.connect(sock.fileno(), bytes(16), 16), "connect")

    def do_vanish(self) -> None:
        """Close every connection, accepted or not, without a segment on the wire, as a power cut does."""
        for listener in self.listeners:
            with contextlib.suppress(OSError):  # BlockingIOError: none is left
                while True:
                    self.conns.append(listener.accept()[0])
        for sock in self.conns:
            with contextlib.suppress(OSError):  # Multipath sockets cannot; they say goodbye
                sock.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)
        self.do_close()

    # Looking.

    def do_await_unread(self, size: int, wait_s: float) -> None:
        """Wait until every connection has this many bytes to read."""
        for sock in self.conns:
            for _ in deadline(wait_s, f"{size} unread bytes"):
                if unread(sock) >= size:
                    break

    def do_await_state(self, states: list[int], wait_s: float) -> None:
        """Wait until every connection is in one of these kernel states."""
        for sock in self.conns:
            for _ in deadline(wait_s, f"TCP state {states}"):
                if state(sock) in states:
                    break

    def do_await_pending(self, count: int, wait_s: float) -> None:
        """Wait until so many connections wait to be accepted."""
        for _ in deadline(wait_s, f"{count} connections in the accept queue"):
            info = self.listeners[-1].getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
            # For a listener tcpi_unacked, at offset 24, is the length of the accept queue.
            if struct.unpack_from("I", info, 24)[0] >= count:
                break

    def _sockets(self) -> list[tuple[int, int]]:
        """Local port and kernel state of every TCP socket of this namespace, mini-sockets included."""
        text = self.do_read("/proc/self/net/tcp") + self.do_read("/proc/self/net/tcp6")
        rows = [line.split() for line in text.splitlines() if ":" in line]
        return [(int(row[1].rsplit(":")[-1], 16), int(row[3], 16)) for row in rows]

    def do_await_sockets(self, state: int, port: int, count: int, wait_s: float) -> None:
        """Wait until so many sockets with this local port are in this kernel state."""
        for _ in deadline(wait_s, f"{count} sockets of port {port} in state {state}"):
            if self._sockets().count((port, state)) >= count:
                break

    def do_await_gone(self, ports: list[int], wait_s: float) -> None:
        """Wait until no socket has any of these local ports."""
        for _ in deadline(wait_s, f"the end of all sockets of ports {ports}"):
            if not {port for port, _ in self._sockets()} & set(ports):
                break

    def do_await_end(self, wait_s: float) -> list[int]:
        """Wait until every connection has failed or closed; gives the errno latched in each."""
        errors = []
        for sock in self.conns:
            poll = select.poll()
            poll.register(sock, 0)  # POLLERR and POLLHUP are always reported
            for _ in deadline(wait_s, "an error on the connection"):
                if poll.poll(0):
                    break
            # The kernel wakes us before it reports the error to those who trace it, and SO_ERROR would
            # take it from under them. TCP_INFO waits for the socket's lock: then all is said.
            state(sock)
            errors.append(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
        return errors

    def do_numbers(self) -> list[list[int]]:
        """Per connection: the next sequence number to send, and to receive."""
        rows = []
        for sock in self.conns:
            sock.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)
            row = []
            for queue in (SEND_QUEUE, RECEIVE_QUEUE):
                sock.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR_QUEUE, queue)
                row.append(sock.getsockopt(socket.IPPROTO_TCP, TCP_QUEUE_SEQ) & 0xFFFFFFFF)
            sock.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, TCP_REPAIR_OFF_NO_PROBE)
            rows.append(row)
        return rows

    # Segments made by hand.

    def do_inject(self, datagrams: list[list[str]]) -> None:
        """Send whole IP datagrams: destination and octets in hexadecimal."""
        raw4 = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
        raw6 = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_RAW)
        with raw4, raw6:
            raw6.setsockopt(socket.IPPROTO_IPV6, IPV6_HDRINCL, 1)
            for ip, octets in datagrams:
                (raw6 if ":" in ip else raw4).sendto(bytes.fromhex(octets), (ip, 0))

    def do_sniff(self) -> None:
        """Start to keep every datagram that enters or leaves this namespace."""
        self.sniffer = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_ALL))
        self.sniffer.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 8 << 20)
        self.sniffer.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        self.sniffer.setblocking(False)

    def do_sniffed(self) -> list[list[Any]]:
        """What came since the last call: whether it left this host, its first 160 bytes, when, and where."""
        assert self.sniffer is not None, "sniff first"
        seen: list[list[Any]] = []
        with contextlib.suppress(BlockingIOError):
            while len(seen) < 2000:
                data, notes, _, address = self.sniffer.recvmsg(65536, 64)
                if address[0] != "lo":
                    seconds, rest_ns = struct.unpack("@ll", notes[0][2])
                    at_ns = seconds * 1_000_000_000 + rest_ns
                    seen.append([address[2] == PACKET_OUTGOING, data[:160].hex(), at_ns, address[0]])
        return seen


def unread(sock: socket.socket) -> int:
    """Bytes received and not yet read."""
    return int(struct.unpack("i", fcntl.ioctl(sock, FIONREAD, bytes(4)))[0])


def state(sock: socket.socket) -> int:
    """The kernel's number for the state of a TCP socket."""
    return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]


def obey(control: socket.socket) -> None:
    """Serve, then end without running anything else."""
    status = 1
    try:
        Actor(control).serve()
        status = 0
    except Exception:  # noqa: BLE001 - a fork has nobody above it who could tell
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(status)


if __name__ == "__main__":
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the lab's to handle; EOF ends us
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # a program here may hold thousands of sockets
    die_with_parent(int(sys.argv[2]))
    obey(socket.socket(fileno=int(sys.argv[1])))
