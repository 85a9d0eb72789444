"""Where to look at each arriving packet: what a hook costs, by attaching none and several."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import ctypes
import os
import socket
import struct
from collections.abc import Callable, Iterable
from functools import partial
from statistics import median

from bench import report
from bench.frames import ACK, frame, pack
from bench.network import TARGET_IP, Pair
from bench.numbers import Estimate, estimate, rotations
from bench.tools import Tools, say
from holdfast import _bpf
from holdfast.linux.cgroups import find_mount
from holdfast.watch.kernel.source import KernelSource

ROUNDS, ROUND_S, COPIES, PORT = 12, 0.25, 8, 7000

# include/uapi/linux/tcp.h; the module `socket` does not name them.
TCP_REPAIR, TCP_REPAIR_QUEUE, TCP_QUEUE_SEQ = 19, 20, 21
TCP_RECV_QUEUE, TCP_SEND_QUEUE, TCP_REPAIR_OFF_NO_WP = 1, 2, -1
SO_ATTACH_FILTER, ETH_P_IP = 26, 0x0800

# Classic BPF: IPv4, TCP, RST set; as `tcpdump -dd "tcp[tcpflags] & tcp-rst != 0"` has it, without fragments.
RST_FILTER = (
    (0x30, 0, 0, 23),
    (0x15, 0, 4, 6),
    (0xB1, 0, 0, 14),
    (0x50, 0, 0, 27),
    (0x45, 0, 1, 4),
    (6, 0, 0, 65535),
    (6, 0, 0, 0),
)

Undo = Callable[[], object]


class Hooks:
    """A stream of bare ACKs into an established connection: nothing answers, nobody wakes."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools

    def run(self) -> None:
        """Measure and print."""
        with Pair() as self._pair:
            frames, sockets = self._connection()
            ns = self._rounds(frames)
            for end in sockets:
                end.close()
        report.heading("Looking for RST in each arriving packet: the same test at three hooks")
        rows = [["no hook", f"{median(ns['none']):.0f}", "", ""]]
        for name in ("cgroup_skb", "tc", "packet socket"):
            one, many = (
                [a - b for a, b in zip(ns[f"{name} x{k}"], ns["none"], strict=True)] for k in (1, COPIES)
            )
            each = estimate([extra / COPIES for extra in many])
            rows.append([name, f"{median(ns[f'{name} x1']):.0f}", f"{median(one):.0f}", _interval(each)])
        ours = estimate([a - b for a, b in zip(ns["Holdfast"], ns["none"], strict=True)])
        rows.append(["Holdfast, all programs", f"{median(ns['Holdfast']):.0f}", _interval(ours), ""])
        report.table(["hook", "ns/packet", "more than without", f"each of {COPIES} (95 % interval)"], rows)

    def _connection(self) -> tuple[bytes, list[socket.socket]]:
        """An idle connection, and the ACK that its server has already seen."""
        for space in (self._pair.source, self._pair.target):
            space.set(tcp_timestamps="0")
        listener = self._pair.target.call(lambda: socket.create_server((TARGET_IP, PORT)))
        client = self._pair.source.call(lambda: socket.create_connection((TARGET_IP, PORT)))
        server, _ = listener.accept()
        client.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)
        numbers = []
        for queue in (TCP_SEND_QUEUE, TCP_RECV_QUEUE):
            client.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR_QUEUE, queue)
            numbers.append(client.getsockopt(socket.IPPROTO_TCP, TCP_QUEUE_SEQ) & 0xFFFFFFFF)
        client.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, TCP_REPAIR_OFF_NO_WP)
        one = frame(client.getsockname()[1], PORT, numbers[0], numbers[1], ACK)
        return pack([one] * 64), [client, server, listener]

    def _rounds(self, frames: bytes) -> dict[str, list[float]]:
        arms: dict[str, Callable[[], Undo]] = {"none": lambda: lambda: None, "Holdfast": self._holdfast}
        for name, attach in (("cgroup_skb", self._cgroup), ("tc", self._tc), ("packet socket", self._packet)):
            for copies in (1, COPIES):
                arms[f"{name} x{copies}"] = partial(attach, copies)
        ns: dict[str, list[float]] = {arm: [] for arm in arms}
        for turn, order in enumerate(rotations(list(arms), ROUNDS)):
            say(f"hooks: round {turn + 1} of {ROUNDS}")
            for arm in order:
                undo = arms[arm]()
                told = self._pair.source.run([str(self._tools.flood), "v0", str(ROUND_S), "0"], frames)
                undo()
                sent, nanoseconds = map(int, told.split())
                ns[arm].append(nanoseconds / sent)
        return ns

    def _holdfast(self) -> Undo:
        return KernelSource().close

    def _cgroup(self, copies: int) -> Undo:
        root = os.open(find_mount() or "/sys/fs/cgroup", os.O_RDONLY)
        objects = []
        for _ in range(copies):
            made = _bpf.Object(str(self._tools.hooks))
            made.load(["look_cgroup"])
            made.attach("look_cgroup", root)
            objects.append(made)
        os.close(root)
        return partial(_close, objects)

    def _tc(self, copies: int) -> Undo:
        target = self._pair.target
        target.run(["tc", "qdisc", "add", "dev", "v1", "clsact"])
        for place in range(1, copies + 1):
            add = f"tc filter add dev v1 ingress pref {place} bpf da obj {self._tools.hooks} sec tc"
            target.run(add.split())
        return lambda: target.run(["tc", "qdisc", "del", "dev", "v1", "clsact"])

    def _packet(self, copies: int) -> Undo:
        sockets = [self._pair.target.call(_filtered_socket) for _ in range(copies)]
        return partial(_close, sockets)


def _filtered_socket() -> socket.socket:
    made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in RST_FILTER))
    program = struct.pack("HP", len(RST_FILTER), ctypes.addressof(code))
    made.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)
    made.bind(("v1", ETH_P_IP))
    return made


def _close(made: Iterable[_bpf.Object | socket.socket]) -> None:
    for one in made:
        one.close()


def _interval(one: Estimate) -> str:
    return f"{one.value:.0f} ({one.low:.0f} to {one.high:.0f})"
