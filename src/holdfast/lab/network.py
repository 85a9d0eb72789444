"""Three private hosts in a row: client, router, server, each a network namespace held by a process."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import errno
import itertools
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from holdfast.causes import Direction
from holdfast.errors import KernelUnavailable
from holdfast.events import Endpoint, Harm
from holdfast.lab.app import BACKLOG, WAIT_S, App, Options
from holdfast.lab.label import ANY, Label, Pair, ScenarioFailed
from holdfast.lab.remote import Remote
from holdfast.lab.segment import Datagram, build, parse

ACTOR = Path(__file__).with_name("actor.py")
CAP_NET_ADMIN, CAP_NET_RAW, CAP_SYS_ADMIN = 12, 13, 21
_numbers = itertools.count()

LAB_PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
"""Where the lab looks for programs: Debian keeps ``nft`` and others out of the path of ordinary users."""


class NoNetwork(KernelUnavailable):
    """No private network can be made here, whatever the scenario."""

    def __init__(self, needs: str) -> None:
        super().__init__("A private network", needs)


def addresses(number: int) -> dict[int, dict[str, str]]:
    """The addresses of a process's n-th network, by family and place.

    Two networks of one process never share an address soon: the kernel gives namespace numbers again at
    once, so that a connection is told from its namesake in an earlier network by nothing else.
    """
    high, low = 64 + number // 128 % 64, number % 128 * 2
    four, six = f"10.{high}", f"fd83:{number % 65536:x}"
    return {
        4: {"client": f"{four}.{low}.2", "near": f"{four}.{low}.1",
            "far": f"{four}.{low + 1}.1", "server": f"{four}.{low + 1}.2"},
        6: {"client": f"{six}:1::2", "near": f"{six}:1::1", "far": f"{six}:2::1", "server": f"{six}:2::2"},
    }  # fmt: skip


class Captured(NamedTuple):
    """A datagram as a host saw it: wall clock, device, whether it left, its first 160 bytes."""

    time_ns: int
    device: str
    left: bool
    data: bytes


class Host(Remote):
    """A namespace, its address in the network's family, and the programs that run there."""

    def __init__(self, name: str, control: socket.socket, pid: int, ip: str, peer_ip: str) -> None:
        super().__init__(control, pid)
        self.name = name
        self.ip = ip
        self.peer_ip = peer_ip
        self.netns: int = self.ask("new_network")
        self.apps: list[App] = []

    def app(self, comm: str = "") -> App:
        """Start a program here."""
        app = App(self, *self.spawn(comm or f"lab-{self.name}"))
        self.apps.append(app)
        return app

    def run(self, *argv: str, text: str = "") -> str:
        """Run a command here; gives what it printed."""
        return str(self.ask("run", argv=argv, text=text))

    def firewall(self, rules: str) -> None:
        """Load nftables rules here."""
        self.run("nft", "-f", "-", text=rules)

    def sysctl(self, prefix: str = "net/ipv4", *, optional: bool = False, **values: int) -> None:
        """Set settings of this namespace; ``optional`` passes over those that this kernel does not have."""
        files = {f"/proc/sys/{prefix}/{name}": str(value) for name, value in values.items()}
        self.ask("write", values=files, optional=optional)

    def await_sockets(self, state: int, port: int, count: int) -> None:
        """Wait until so many sockets of the local port, mini-sockets included, are in this state."""
        self.ask("await_sockets", state=state, port=port, count=count, wait_s=WAIT_S)

    def await_gone(self, pairs: tuple[Pair, ...]) -> None:
        """Wait until no socket, mini-sockets included, has any of the local ports."""
        self.ask("await_gone", ports=[local.port for local, _ in pairs], wait_s=WAIT_S)

    def await_counter(self, name: str, rise_to: int) -> None:
        """Wait until a TCP counter of this namespace reaches a value (all start at 0)."""
        end = time.monotonic() + WAIT_S
        while (now := self.counters().get(name, 0)) < rise_to:
            if time.monotonic() > end:
                raise ScenarioFailed(f"{name} of the {self.name} stayed at {now} and never was {rise_to}")
            time.sleep(0.002)

    def inject(self, segments: Iterable[Datagram]) -> None:
        """Send segments made by hand from this host, whoever they claim to come from."""
        self.ask("inject", datagrams=[[made.dst.ip, build(made).hex()] for made in segments])

    def sniff(self) -> None:
        """Begin to capture at this host."""
        self.ask("sniff")

    def sniffed(self) -> list[tuple[bool, Datagram]]:
        """The TCP segments captured since the last call, with whether each left this host."""
        rows = [(one.left, parse(one.data)) for one in self.captured()]
        return [(out, made) for out, made in rows if made]

    def captured(self) -> list[Captured]:
        """The datagrams captured since the last call, of any protocol."""
        rows = self.ask("sniffed")
        return [Captured(at_ns, device, left, bytes.fromhex(data)) for left, data, at_ns, device in rows]

    def counters(self) -> dict[str, int]:
        """The namespace's TCP counters (``TcpOutRsts``, ``TcpExtTCPAbortOnClose``, ...)."""
        text = self.ask("read", path="/proc/self/net/snmp") + self.ask("read", path="/proc/self/net/netstat")
        return parse_counters(text)

    def label(
        self,
        cause: str,
        sender: str,
        direction: Direction,
        owner: App | None,
        pairs: tuple[Pair, ...],
        harm: Harm = ANY,
    ) -> Label:
        """A label whose local end is on this host."""
        return Label(cause, sender, direction, owner.pid if owner else None, self.netns, pairs, harm=harm)


def parse_counters(text: str) -> dict[str, int]:
    """Pairs of header and value lines, as in /proc/net/snmp, as one flat table."""
    lines = [line.split() for line in text.splitlines()]
    return {
        names[0].rstrip(":") + name: int(value)
        for names, values in zip(lines[::2], lines[1::2], strict=True)
        for name, value in zip(names[1:], values[1:], strict=True)
    }


class Network:
    """Client, router and server, joined by cables, with addresses and routes; a context manager.

    Open and close it in one thread: the processes die with the thread that opened it.

    Args:
        family: 4 or 6; which addresses the hosts use.

    Raises:
        NoNetwork: neither root nor user namespaces are allowed, or ``ip`` is missing.
    """

    client: Host
    router: Host
    server: Host

    def __init__(self, family: int = 4) -> None:
        self.family = family
        self._addresses = addresses(next(_numbers))
        ip = self._addresses[family]
        if not shutil.which("ip", path=LAB_PATH):
            raise NoNetwork("the program ip (Debian package iproute2)")
        self._seed, self._process = start_seed()
        try:
            self.client = Host("client", *self._seed.spawn("lab-host"), ip["client"], ip["server"])
            self.router = Host("router", *self._seed.spawn("lab-host"), ip["far"], ip["server"])
            self.server = Host("server", *self._seed.spawn("lab-host"), ip["server"], ip["client"])
            self._connect_cables()
        except BaseException:
            self._kill()
            raise

    @property
    def hosts(self) -> tuple[Host, ...]:
        """All hosts made so far."""
        return tuple(vars(self)[name] for name in ("client", "router", "server") if name in vars(self))

    def _connect_cables(self) -> None:
        self.router.sysctl(ip_forward=1, icmp_ratelimit=0)
        self.router.sysctl("net/ipv6/conf/all", forwarding=1)
        self.router.sysctl("net/ipv6/icmp", ratelimit=0)
        self.router.sysctl(optional=True, icmp_msgs_per_sec=100_000, icmp_msgs_burst=100_000)
        self._plug(self.client, "near")
        self._plug(self.server, "far")

    def _plug(self, host: Host, cable: str) -> None:
        """Join a host to the router: addresses of both families and a route to everything."""
        # Optional: before Linux 6.9 hidden in a user namespace, where then 4096 is the default.
        host.sysctl("net/core", optional=True, somaxconn=BACKLOG)
        host.sysctl(tcp_max_syn_backlog=BACKLOG)
        laid = f"link add {cable} type veth peer name eth0 netns {host.pid}\n"
        self.router.run("ip", "-batch", "-", text=laid + self._end(cable, cable))
        routes = "".join(f"route add default via {self._addresses[family][cable]}\n" for family in (4, 6))
        host.run("ip", "-batch", "-", text=self._end(host.name, "eth0") + "link set lo up\n" + routes)
        self.router.ask("await_link", name=cable, wait_s=WAIT_S)
        host.ask("await_link", name="eth0", wait_s=WAIT_S)

    def _end(self, name: str, cable: str) -> str:
        lines = [f"link set {cable} addrgenmode none", f"link set {cable} up"]
        # Without a link-local address a router cannot ask who has the next hop (RFC 4861 7.2.2).
        lines.append(f"addr add fe80::1:{len(name)}/64 dev {cable} nodad")
        lines.append(f"addr add {self._addresses[4][name]}/24 dev {cable}")
        lines.append(f"addr add {self._addresses[6][name]}/64 dev {cable} nodad")
        return "\n".join(lines) + "\n"

    def replace_server(self) -> None:
        """Pull the server's cable, end the host with all its programs, and plug in a fresh one.

        Nobody hears of it: not a single segment of the old connections leaves the old host.
        """
        old = self.server
        # Made before the old one ends, so that the kernel cannot give it the old one's number.
        self.server = Host("server", *self._seed.spawn("lab-host"), old.ip, old.peer_ip)
        self.router.run("ip", "link", "del", "far")
        for app in old.apps:
            app.kill()
            app.release()
        old.kill()
        old.release()
        self._plug(self.server, "far")

    def listening(self, backlog: int = BACKLOG, options: Options = ()) -> tuple[App, App, Endpoint]:
        """A server program that listens, a client program, and where to dial."""
        server, client = self.server.app(), self.client.app()
        return server, client, server.listen(backlog=backlog, options=options)

    def established(self, count: int) -> tuple[App, App]:
        """A server and a client program with ``count`` connections between them."""
        server, client, address = self.listening()
        client.dial(address, count)
        server.accept(count)
        return server, client

    def close(self) -> None:
        """End every process without a further segment; the namespaces and cables go with them."""
        for app in (app for host in self.hosts for app in host.apps if app.alive):
            app.vanish()
        self._kill()

    def _kill(self) -> None:
        for host in self.hosts:
            for app in host.apps:
                app.release()
        for remote in (*self.hosts, self._seed):
            remote.kill()
            remote.release()
        self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # After a failure a program may still be busy with what it was asked, so it is not asked again.
        if error is None:
            self.close()
        else:
            self._kill()


def needs_user_namespace() -> bool:
    """Whether this process lacks the rights to make network namespaces directly."""
    status = Path("/proc/self/status").read_text()
    held = int(status.split("CapEff:")[1].split()[0], 16)
    return any(not held >> bit & 1 for bit in (CAP_NET_ADMIN, CAP_NET_RAW, CAP_SYS_ADMIN))


def _spawn(fd: int) -> subprocess.Popen[bytes]:
    argv = [sys.executable, "-E", "-S", str(ACTOR), str(fd), str(os.getpid())]
    environment = {**os.environ, "PATH": LAB_PATH}
    try:
        return subprocess.Popen(argv, pass_fds=[fd], env=environment)
    except OSError as error:
        # Seen about once in a thousand starts from several threads, on Linux 6.1 and 6.18 and with
        # CPython 3.11: execve fails although the program is there. We do not know why.
        if error.errno != errno.EFAULT:
            raise
        return subprocess.Popen(argv, pass_fds=[fd], env=environment)


def start_seed() -> tuple[Remote, subprocess.Popen[bytes]]:
    """The first process of a network, in a user namespace of its own where rights are lacking."""
    try:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    except OSError as error:
        raise NoNetwork(f"a socket to talk through ({error.strerror})") from error
    with theirs:
        try:
            process = _spawn(theirs.fileno())
        except OSError as error:
            ours.close()
            raise NoNetwork(f"the right to run {sys.executable} ({error.strerror})") from error
    try:
        seed = Remote(ours, process.pid)
    except ScenarioFailed:
        process.wait()
        raise
    if needs_user_namespace():
        try:
            seed.ask("new_user")
        except ScenarioFailed as problem:
            seed.release()
            process.wait()
            raise NoNetwork(
                "root, or user namespaces (kernel.unprivileged_userns_clone, user.max_user_namespaces)"
            ) from problem
    return seed, process
