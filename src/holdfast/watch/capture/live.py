"""Listens to an interface: a ring that the kernel fills, read by the same parser as files."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import mmap
import select
import socket
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from holdfast.errors import KernelUnavailable, UsageError
from holdfast.watch.capture.parser import EVIDENCE_BYTES, MAX_FLOWS, RING_BYTES
from holdfast.watch.capture.reading import Reading
from holdfast.watch.capture.summary import Progress

# linux/if_packet.h and asm-generic/socket.h; Python has no names for them.
_SOL_PACKET = 263
_PACKET_RX_RING, _PACKET_STATISTICS, _PACKET_VERSION = 5, 6, 10
_TPACKET_V3 = 2
_SO_ATTACH_FILTER = 26
_ETH_P_ALL = 3
_STATUS_AT = 8
_STATUS_KERNEL, _STATUS_USER = 0, 1

_BLOCK_BYTES, _BLOCKS, _FRAME_BYTES, _RETIRE_MS = 1 << 20, 32, 2048, 50
_POLL_MS = 200
_SNAP_BYTES = 256
"""What is kept of a packet: headers with tunnels and options, and 64 bytes of a RST's payload."""

_LINK_ETHERNET, _LINK_RAW = 1, 101
_ARP_ETHERNET, _ARP_LOOPBACK = 1, 772


class _Ring:
    """A packet socket with its ring.

    Raises:
        KernelUnavailable: no right to listen.
        UsageError: there is no such interface.
    """

    def __init__(self, interface: str) -> None:
        kind = _kind(interface)
        self.loopback = kind == _ARP_LOOPBACK
        framed = kind in (_ARP_ETHERNET, _ARP_LOOPBACK)
        self.link = _LINK_ETHERNET if framed else _LINK_RAW
        try:
            # Protocol 0: nothing comes before the ring and the filter are there.
            self._sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW if framed else socket.SOCK_DGRAM, 0)
        except PermissionError:
            raise KernelUnavailable("Listening to an interface", "root or CAP_NET_RAW") from None
        try:
            self._memory = self._make_ring()
            self._sock.bind((interface, _ETH_P_ALL))
        except OSError as why:
            self._sock.close()
            raise UsageError(f"{interface} cannot be listened to: {why.strerror}.") from None
        self._view = memoryview(self._memory)
        self._blocks = [self._view[at : at + _BLOCK_BYTES] for at in range(0, len(self._view), _BLOCK_BYTES)]
        self._next = 0
        self._poll = select.poll()
        self._poll.register(self._sock, select.POLLIN)

    def _make_ring(self) -> mmap.mmap:
        keep_all = (0x06, 0, 0, _SNAP_BYTES)  # one instruction: return so many bytes
        program = struct.pack("HBBI", *keep_all)
        holder = bytearray(program)
        address = _address_of(holder)
        self._sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HL", 1, address))
        self._sock.setsockopt(_SOL_PACKET, _PACKET_VERSION, _TPACKET_V3)
        frames = _BLOCK_BYTES // _FRAME_BYTES * _BLOCKS
        request = struct.pack("7I", _BLOCK_BYTES, _BLOCKS, _FRAME_BYTES, frames, _RETIRE_MS, 0, 0)
        self._sock.setsockopt(_SOL_PACKET, _PACKET_RX_RING, request)
        return mmap.mmap(self._sock.fileno(), _BLOCK_BYTES * _BLOCKS)

    def drain(self, take: Callable[[memoryview], None]) -> bool:
        """Hand over every block that is full and give it back; whether there was one."""
        found = False
        for _ in range(_BLOCKS):
            block = self._blocks[self._next]
            (status,) = struct.unpack_from("I", block, _STATUS_AT)
            if not status & _STATUS_USER:
                break
            take(block)
            struct.pack_into("I", block, _STATUS_AT, _STATUS_KERNEL)
            self._next = (self._next + 1) % _BLOCKS
            found = True
        return found

    def wait(self, timeout_ms: int) -> None:
        """Until a block is full, or so long."""
        self._poll.poll(timeout_ms)

    def dropped(self) -> int:
        """Packets that found no room since the last call."""
        raw = self._sock.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 12)
        drops: int = struct.unpack("III", raw)[1]
        return drops

    def close(self) -> None:
        """Give the ring back."""
        for block in self._blocks:
            block.release()
        self._view.release()
        self._memory.close()
        self._sock.close()


def _address_of(buffer: bytearray) -> int:
    import ctypes  # only here: the kernel wants a pointer inside a structure

    return ctypes.addressof(ctypes.c_char.from_buffer(buffer))


def _kind(interface: str) -> int:
    """ARPHRD number of an interface."""
    if "/" in interface or interface in ("", ".", ".."):
        raise UsageError(f"There is no interface {interface!r}.")
    try:
        return int(Path("/sys/class/net", interface, "type").read_text())
    except OSError:
        names = ", ".join(name for _, name in socket.if_nameindex())
        raise UsageError(f"There is no interface {interface!r}: choose from {names}.") from None


class LiveReading(Reading):
    """The flows of an interface; iteration ends only after :meth:`stop`.

    A flow is given when ten seconds passed after its RST: what follows a RST says who sent it.
    """

    def __init__(
        self,
        interface: str,
        on_progress: Callable[[Progress], None] | None,
        on_connections: Callable[[Any], None] | None,
        max_flows: int,
        ring_bytes: int,
        evidence_bytes: int,
    ) -> None:
        try:
            from holdfast._native import Capture
        except ImportError:
            raise KernelUnavailable("Listening to an interface", "holdfast's C extension") from None
        self._capture = Capture(max_flows, ring_bytes, evidence_bytes, on_connections is not None)
        super().__init__([interface], self._capture, on_progress, on_connections)
        self._interface = interface
        self._ring = _Ring(interface)
        self._capture.begin_live(self._ring.link)
        self._dropped = 0
        self._closed = False

    def _step(self) -> None:
        if self._stopped:
            self._finish()
            return
        if not self._ring.drain(self._feed):
            self._ring.wait(_POLL_MS)
        self._capture.tick(time.time_ns())
        self._count_drops()

    def _feed(self, block: memoryview) -> None:
        self._capture.ring_block(block, self._ring.loopback)

    def _count_drops(self) -> None:
        self._dropped = (self._dropped or 0) + self._ring.dropped()

    def _finish(self) -> None:
        if not self._closed:
            # The kernel hands over a block that is not full after this long.
            time.sleep(2 * _RETIRE_MS / 1000)
            self._ring.drain(self._feed)
            self._count_drops()
            self._ring.close()
            self._closed = True
        self._done = not self._capture.finish()

    def _where(self) -> tuple[str, int, int | None]:
        return self._interface, self.summary.bytes, None


def listen(
    interface: str,
    *,
    on_progress: Callable[[Progress], None] | None = None,
    on_connections: Callable[[Any], None] | None = None,
    max_flows: int = MAX_FLOWS,
    ring_bytes: int = RING_BYTES,
    evidence_bytes: int = EVIDENCE_BYTES,
) -> LiveReading:
    """Every connection on this interface with a RST or an ICMP error, from now on.

    Packets have no offsets; ``summary.dropped`` counts those that the kernel dropped because we were slow.

    Args:
        interface: its name, for example ``eth0``. The others are as for :func:`read_captures`.

    Raises:
        KernelUnavailable: no CAP_NET_RAW, or no compiled extension.
        UsageError: there is no such interface.
    """
    return LiveReading(interface, on_progress, on_connections, max_flows, ring_bytes, evidence_bytes)
