"""Netlink ``sock_diag``: a network namespace's sockets, and those it destroys, with their ``tcp_info``."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import errno
import os
import socket
import struct
import sys
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Self

from holdfast.errors import KernelUnavailable
from holdfast.linux import states, tcp_cc_info, tcp_info
from holdfast.linux.namespaces import inside, netns_of
from holdfast.linux.netlink import HEADER, attributes, messages
from holdfast.linux.socket_queues import SocketMemory, decode_memory
from holdfast.linux.tcp_cc_info import CcInfo
from holdfast.linux.tcp_info import TcpInfo

NETLINK_SOCK_DIAG = 4

_SOCK_DIAG_BY_FAMILY = 20
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_NLM_F_REQUEST, _NLM_F_DUMP = 0x1, 0x300
_SKNLGRP_INET_TCP_DESTROY, _SKNLGRP_INET6_TCP_DESTROY = 1, 3
_DESTROY_GROUPS = 1 << (_SKNLGRP_INET_TCP_DESTROY - 1) | 1 << (_SKNLGRP_INET6_TCP_DESTROY - 1)
_INFO, _VEGAS, _CONGESTION, _MEMORY, _SHUTDOWN, _DCTCP, _BBR, _CGROUP_ID = 2, 3, 4, 7, 8, 9, 16, 21
# Extensions are asked for by bits; the one for Vegas stands for every algorithm's.
_USUAL = 1 << (_INFO - 1) | 1 << (_SHUTDOWN - 1)
_DETAILS = _USUAL | 1 << (_VEGAS - 1) | 1 << (_CONGESTION - 1) | 1 << (_MEMORY - 1)
_DECODE_CC = {
    _VEGAS: tcp_cc_info.decode_vegas,
    _DCTCP: tcp_cc_info.decode_dctcp,
    _BBR: tcp_cc_info.decode_bbr,
}
_ALL_STATES = 0xFFFFFFFF
_SO_RCVBUFFORCE = 33
_MAPPED = b"\0" * 10 + b"\xff\xff"

_REQUEST = struct.Struct("=BBBxI48x")
# struct inet_diag_msg: family, state, timer, retrans, ports, addresses, interface, cookie,
# expires, rqueue, wqueue, uid, inode.
_SOCKET = struct.Struct("=4B2s2s16s16sIQ5I")
_PORTS, _INODE = struct.Struct(">2H"), struct.Struct("=I")
_PORTS_AT, _INODE_AT = 4, _SOCKET.size - _INODE.size
_RECEIVE_BYTES = 1 << 16

TIMERS = {1: "retransmit", 2: "keep_alive", 3: "time_wait", 4: "window_probe"}
"""What a socket's timer will do; ``retransmit`` includes the probe for a lost tail, and a SYN."""


@dataclass(frozen=True, slots=True)
class Socket:
    """One TCP socket as ``sock_diag`` describes it.

    Attributes:
        local_ip, local_port, peer_ip, peer_port: the ends; IPv4-mapped addresses are shown as IPv4.
        state: RFC 9293 spelling (a destroyed socket is always CLOSED), None for an unknown number.
        cookie: the kernel's socket cookie: never reused.
        uid: owner, always 0 for a destroyed socket.
        inode: of the socket file, 0 when no process holds it.
        netns: inode number of the network namespace it was listed in, None if not told to the parser.
        interface: index it is bound to, 0 for none.
        receive_queue, send_queue: unread and unacknowledged bytes; a listener's accept queue and its limit.
        info: its ``tcp_info``, None where the kernel gave none (TIME_WAIT, half-open requests).
        cgroup_id: cgroup version 2 it was made in, None below Linux 5.8.
        shutdown: bit 1 receive side shut, bit 2 send side shut.
        timer: what waits for a time, see :data:`TIMERS`; None if nothing does.
        timer_ms: how long it still waits.
        timer_tries: how often it went off in vain.
        memory, congestion, cc_info: buffers, name of the congestion control algorithm and what it tells;
            None if they were not asked for.
    """

    local_ip: str
    local_port: int
    peer_ip: str
    peer_port: int
    state: str | None
    cookie: int
    uid: int
    inode: int
    netns: int | None = None
    interface: int = 0
    receive_queue: int = 0
    send_queue: int = 0
    info: TcpInfo | None = None
    cgroup_id: int | None = None
    shutdown: int | None = None
    timer: str | None = None
    timer_ms: int | None = None
    timer_tries: int | None = None
    memory: SocketMemory | None = None
    congestion: str | None = None
    cc_info: CcInfo | None = None


def parse_socket(payload: bytes, netns: int | None = None) -> Socket | None:
    """The socket that a ``SOCK_DIAG_BY_FAMILY`` message describes; None if it is too short or not IP."""
    if len(payload) < _SOCKET.size:
        return None
    fields = _SOCKET.unpack_from(payload)
    family, state, timer, tries, local_port, peer_port, local, peer, interface, cookie = fields[:10]
    expires_ms, receive_queue, send_queue, uid, inode = fields[10:]
    local_ip, peer_ip = _address(family, local), _address(family, peer)
    if local_ip is None or peer_ip is None:
        return None
    extra = attributes(payload[_SOCKET.size :])
    info, shutdown, cgroup_id = extra.get(_INFO), extra.get(_SHUTDOWN), extra.get(_CGROUP_ID)
    memory, congestion = extra.get(_MEMORY), extra.get(_CONGESTION)
    return Socket(
        local_ip=local_ip,
        local_port=int.from_bytes(local_port, "big"),
        peer_ip=peer_ip,
        peer_port=int.from_bytes(peer_port, "big"),
        state=states.name(state),
        cookie=cookie,
        uid=uid,
        inode=inode,
        netns=netns,
        interface=interface,
        receive_queue=receive_queue,
        send_queue=send_queue,
        info=tcp_info.decode(info) if info else None,
        cgroup_id=int.from_bytes(cgroup_id[:8], sys.byteorder) if cgroup_id else None,
        shutdown=shutdown[0] if shutdown else None,
        timer=TIMERS.get(timer),
        timer_ms=expires_ms if timer in TIMERS else None,
        timer_tries=tries if timer in TIMERS else None,
        memory=decode_memory(memory) if memory else None,
        congestion=congestion.partition(b"\0")[0].decode("ascii", "replace") if congestion else None,
        cc_info=next((decode(extra[kind]) for kind, decode in _DECODE_CC.items() if kind in extra), None),
    )


def _address(family: int, raw: bytes) -> str | None:
    if family == socket.AF_INET:
        return socket.inet_ntop(socket.AF_INET, raw[:4])
    if family == socket.AF_INET6:
        if raw.startswith(_MAPPED):
            return socket.inet_ntop(socket.AF_INET, raw[12:])
        return socket.inet_ntop(socket.AF_INET6, raw)
    return None


def _open(pid: int | None, groups: int) -> socket.socket:
    def make() -> socket.socket:
        sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_SOCK_DIAG)
        try:
            # An unbound socket has no address of its own: groups joined on it stay silent.
            sock.bind((0, groups))
        except OSError:
            sock.close()
            raise
        return sock

    try:
        return make() if pid is None else inside(pid, make)
    except OSError as error:
        needs = f"the kernel modules inet_diag and tcp_diag ({error.strerror})"
        raise KernelUnavailable("Listing sockets (sock_diag)", needs) from error


def list_sockets(
    pid: int | None = None, state_names: Collection[str] = (), *, limit_s: float = 10.0
) -> list[Socket]:
    """TCP sockets of one network namespace, IPv4 then IPv6, with their ``tcp_info``.

    Args:
        pid: a process that lives in the namespace; None is our own.
        state_names: only these states (RFC 9293 spelling); empty is all.
        limit_s: give up on a kernel that stops answering.

    Raises:
        KernelUnavailable: no ``tcp_diag``, the namespace cannot be entered, or no answer.
    """
    return list(iter_sockets(pid, state_names, limit_s=limit_s))


def iter_sockets(
    pid: int | None = None,
    state_names: Collection[str] = (),
    *,
    ports: Collection[int] = (),
    inodes: Collection[int] | None = None,
    details: bool = False,
    limit_s: float = 10.0,
) -> Iterator[Socket]:
    """The same one by one as the kernel tells them: however many there are, memory stays small.

    Sockets come and go meanwhile, so the whole is no picture of one moment.

    Args:
        pid, state_names, limit_s: as for :func:`list_sockets`.
        ports: only sockets with one of these at either end; empty is all.
        inodes: only these socket files; None is all.
        details: ask for ``memory``, ``congestion`` and ``cc_info`` as well.

    Raises:
        KernelUnavailable: as for :func:`list_sockets`, from the first ``next()``.
    """
    mask = sum(1 << states.NUMBERS[name] for name in state_names) or _ALL_STATES
    netns = netns_of(pid if pid is not None else "thread-self")
    with _open(pid, 0) as sock:
        sock.settimeout(limit_s)
        for family in (socket.AF_INET, socket.AF_INET6):
            request = _REQUEST.pack(family, socket.IPPROTO_TCP, _DETAILS if details else _USUAL, mask)
            for payload in _dump(sock, request):
                if _wanted(payload, ports, inodes) and (found := parse_socket(payload, netns)):
                    yield found


def _wanted(payload: bytes, ports: Collection[int], inodes: Collection[int] | None) -> bool:
    """Whether a socket is asked for, found out before it is decoded: most are not."""
    if len(payload) < _SOCKET.size:
        return False
    if ports:
        near, far = _PORTS.unpack_from(payload, _PORTS_AT)
        if near not in ports and far not in ports:
            return False
    return inodes is None or _INODE.unpack_from(payload, _INODE_AT)[0] in inodes


def _dump(sock: socket.socket, request: bytes) -> Iterator[bytes]:
    """The payload of each socket that the kernel lists."""
    size = HEADER.size + len(request)
    feature = "Listing sockets (sock_diag)"
    try:
        sock.send(HEADER.pack(size, _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST | _NLM_F_DUMP, 1, 0) + request)
        while True:
            for kind, _flags, payload in messages(sock.recv(_RECEIVE_BYTES)):
                if kind == _NLMSG_DONE:
                    return
                if kind == _NLMSG_ERROR:
                    code = -int.from_bytes(payload[:4], sys.byteorder, signed=True)
                    raise OSError(code, os.strerror(code))
                if kind == _SOCK_DIAG_BY_FAMILY:
                    yield payload
    except TimeoutError as error:
        raise KernelUnavailable(feature, "a kernel that answers") from error
    except OSError as error:
        raise KernelUnavailable(feature, f"the kernel module tcp_diag ({error.strerror})") from error


class DestroyedSockets:
    """Every TCP socket that one network namespace destroys, as it goes; needs no rights.

    The kernel tells neither owner nor error, and TIME_WAIT and half-open requests are not reported.
    A socket that was aborted locally (SO_LINGER with zero seconds) is told as wiped: peer port 0 and
    hardly a figure left.

    Args:
        pid: a process that lives in the namespace; None is our own.
        buffer_bytes: kernel memory for notices not yet read (about 1 kB each).

    Attributes:
        overflows: how often the buffer was full; each time at least one notice was lost.

    Raises:
        KernelUnavailable: no ``inet_diag``, or the namespace cannot be entered.
    """

    def __init__(self, pid: int | None = None, buffer_bytes: int = 4 << 20) -> None:
        self.overflows = 0
        self.netns = netns_of(pid if pid is not None else "thread-self")
        self._sock = _open(pid, _DESTROY_GROUPS)
        self._sock.setblocking(False)
        for option in (_SO_RCVBUFFORCE, socket.SO_RCVBUF):
            try:
                self._sock.setsockopt(socket.SOL_SOCKET, option, buffer_bytes)
                break
            except OSError:  # without CAP_NET_ADMIN the second asks for what net.core.rmem_max allows
                continue

    def drain(self, limit: int = 100_000) -> list[Socket]:
        """Sockets destroyed since the last call, oldest first, at most ``limit``; never waits."""
        found: list[Socket] = []
        while len(found) < limit:
            try:
                data = self._sock.recv(_RECEIVE_BYTES)
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise KernelUnavailable("Notices of destroyed sockets", str(error.strerror)) from error
                self.overflows += 1
                continue
            for kind, _flags, payload in messages(data):
                if kind == _SOCK_DIAG_BY_FAMILY and (one := parse_socket(payload, self.netns)):
                    found.append(one)
        return found

    def fileno(self) -> int:
        """For ``select`` and ``poll``: readable when a notice waits."""
        return self._sock.fileno()

    def close(self) -> None:
        """Stop listening."""
        self._sock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
