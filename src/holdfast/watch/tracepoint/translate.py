"""Turns samples of the TCP tracepoints into events; names and processes come from the functions given."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple, TypeVar

from holdfast.events import Endpoint, Event, Kind, Process
from holdfast.linux import states
from holdfast.linux.symbols import user_path
from holdfast.watch.tracepoint.formats import Format
from holdfast.watch.tracepoint.records import Sample

SENT = "tcp:tcp_send_reset"
RECEIVED = "tcp:tcp_receive_reset"
STATE = "sock:inet_sock_set_state"
ERROR = "sock:inet_sk_error_report"
EXIT = "sched:sched_process_exit"

# What we want of each, and what the kernel may leave out for us (checked again here).
FILTERS: dict[str, str] = {
    SENT: "",
    RECEIVED: "",
    STATE: "protocol == 6 && (newstate == 7 || newstate == 2)",
    ERROR: "protocol == 6 && error != 0",
    EXIT: "",
}
WITH_CALLCHAIN = frozenset({SENT, RECEIVED})

_V = TypeVar("_V")
_TCP = 6
_SYN_SENT, _FIN_WAIT_2, _CLOSED = 2, 5, 7
_MAX_SOCKETS = 65536
_MAX_EXITS = 4096
_MAX_PATHS = 4096
# A socket is closed and its RST sent within microseconds; later the address belongs to another socket.
_SAME_CLOSE_NS = 1_000_000_000

# A softirq runs on the stack of whoever it interrupted: that process has nothing to do with the socket.
_SOFTIRQ = frozenset({"handle_softirqs", "__do_softirq", "do_softirq", "net_rx_action", "run_timer_softirq"})
_BY_PROCESS = frozenset(
    {
        "do_syscall_64",
        "do_fast_syscall_32",
        "do_int80_emulation",
        "invoke_syscall",
        "task_work_run",
        "do_exit",
    }
)

_LINGER = frozenset({"__tcp_close", "tcp_disconnect"})


class Names(NamedTuple):
    """What the kernel's numbers mean, and who processes are.

    Attributes:
        reasons: ``enum sk_rst_reason`` without the prefix, for a kernel that does not print them.
        kernel: the function that holds an address.
        user: module and offset of a process's address, or None.
        process: a living process, or None.
        validates: the kernel has ``tcp_validate_incoming`` as a function of its own, so that a call
            chain tells whether a RST arrived.
    """

    reasons: Mapping[int, str]
    kernel: Callable[[int], str]
    user: Callable[[int, int], str | None]
    process: Callable[[int], Process | None]
    validates: bool


class _Close(NamedTuple):
    mono_ns: int
    state_before: int
    opener: Process | None
    self_reset: bool


class _Last(NamedTuple):
    """The socket that a CPU closed last: an error report that follows is about it."""

    layout: Format
    raw: bytes
    cookie: int


class Translator:
    """Samples in, events out; remembers what the kernel has forgotten by the time it sends the RST.

    Args:
        formats: layouts of the tracepoints that are open.
        names: see :class:`Names`.
    """

    def __init__(self, formats: Iterable[Format], names: Names) -> None:
        self._formats = {one.id: one for one in formats}
        self._names = names
        self._closed: OrderedDict[int, _Close] = OrderedDict()
        self._openers: OrderedDict[int, Process] = OrderedDict()
        self._exits: OrderedDict[int, str] = OrderedDict()
        self._waiting: dict[int, Event] = {}
        self._last: dict[int, _Last] = {}
        # A flood takes few different paths.
        self._stack = lru_cache(_MAX_PATHS)(self._path)

    def events(self, samples: Iterable[Sample]) -> list[Event]:
        """Events of these samples, given in the order of time.

        A received reset is told when its socket has closed, which shows the state before: usually at
        once, at the latest by the next call.
        """
        late, self._waiting = self._waiting, {}
        found: list[Event] = []
        for sample in samples:
            layout = self._formats.get(int.from_bytes(sample.raw[:2], sys.byteorder))
            if layout is None:
                continue
            if layout.name == SENT:
                found.append(self._sent(layout, sample))
            elif layout.name == RECEIVED:
                socket = layout.number(sample.raw, "skaddr")
                self._waiting[socket] = self._received(layout, sample)
            elif layout.name == STATE:
                self._state(layout, sample, found, late)
            elif layout.name == ERROR:
                self._error(layout, sample, found)
            elif layout.name == EXIT and sample.pid == sample.tid:
                comm = layout.raw(sample.raw, "comm").partition(b"\0")[0].decode("utf-8", "replace")
                _remember(self._exits, sample.pid, comm, _MAX_EXITS)
        return sorted([*late.values(), *found], key=lambda event: event.mono_ns)

    def flush(self) -> list[Event]:
        """Events that still wait for their socket to close."""
        late, self._waiting = self._waiting, {}
        return list(late.values())

    def _sent(self, layout: Format, sample: Sample) -> Event:
        raw = sample.raw
        local, peer = endpoints(layout, raw)
        state = layout.number(raw, "state")
        socket = layout.number(raw, "skaddr")
        close = self._closed.pop(socket, None) if state == _CLOSED else None
        if close is not None and sample.mono_ns - close.mono_ns > _SAME_CLOSE_NS:
            close = None
        path = self._stack(sample.kernel)
        # A passive reset answers a segment: nobody's system call asked for it.
        passive = bool(layout.number(raw, "skbaddr"))
        named = bool(path) and not path[0].startswith("0x")  # else kptr_restrict hides who called
        in_process = False if passive else bool(_BY_PROCESS.intersection(path)) if named else None
        closer = self._process(sample.pid) if in_process and "kthread" not in path else None
        unaccepted = "inet_child_forget" in path
        reason = self._reason(layout, raw)
        return Event(
            Kind.RESET_SENT,
            sample.mono_ns,
            local,
            peer,
            reason=reason,
            state=states.name(state),
            state_before=states.name(close.state_before) if close else None,
            opener=close.opener if close else self._openers.get(socket),
            closer=closer,
            in_process=in_process,
            exiting="do_exit" in path if in_process else None,
            closing="__tcp_close" in path if in_process else None,
            # Closing disconnects a socket of its own for one reason only; a listener's children are another.
            linger_zero=True if not unaccepted and set(path) >= _LINGER else None,
            unaccepted=unaccepted or None,
            orphaned=_orphaned(reason, state, path, close),
            mptcp=any(name.startswith("mptcp_") for name in path) or None,
            kernel_stack=path,
            user_stack=user_path(self._names.user, sample.pid, sample.user) if in_process else (),
        )

    def _received(self, layout: Format, sample: Sample) -> Event:
        local, peer = endpoints(layout, sample.raw)
        return Event(
            Kind.RESET_RECEIVED,
            sample.mono_ns,
            local,
            peer,
            cookie=layout.number(sample.raw, "sock_cookie"),
            opener=self._openers.get(layout.number(sample.raw, "skaddr")),
            kernel_stack=self._stack(sample.kernel),
        )

    def _state(self, layout: Format, sample: Sample, found: list[Event], late: dict[int, Event]) -> None:
        raw = sample.raw
        if layout.number(raw, "protocol") not in (0, _TCP):  # 0: this kernel does not tell
            return
        socket, new = layout.number(raw, "skaddr"), layout.number(raw, "newstate")
        if new == _SYN_SENT:
            # Dialling always happens in a system call, so whoever runs is the opener.
            process = self._names.process(sample.pid)
            if process is not None:
                _remember(self._openers, socket, process, _MAX_SOCKETS)
        elif new == _CLOSED:
            old = layout.number(raw, "oldstate")
            received = late.pop(socket, None) or self._waiting.pop(socket, None)
            if received is not None:
                found.append(self._closing(received, old))
            own = received is not None and found[-1].kind is Kind.SELF_RESET
            close = _Close(sample.mono_ns, old, self._openers.pop(socket, None), own)
            self._last[sample.cpu] = _Last(layout, raw, received.cookie if received else 0)
            _remember(self._closed, socket, close, _MAX_SOCKETS)

    def _closing(self, received: Event, state_before: int) -> Event:
        # tcp_reset() also runs when data comes after shutdown, without any RST: then nobody validated one.
        own = (
            self._names.validates
            and state_before != _SYN_SENT
            and received.kernel_stack[:2] == ("tcp_reset", "tcp_rcv_state_process")
        )
        name = states.name(state_before)
        kind = Kind.SELF_RESET if own else Kind.RESET_RECEIVED
        return replace(received, kind=kind, state=name, state_before=name)

    def _error(self, layout: Format, sample: Sample, found: list[Event]) -> None:
        error = layout.number(sample.raw, "error")
        if error and layout.number(sample.raw, "protocol") in (0, _TCP):
            found.append(self._error_event(sample, error, *endpoints(layout, sample.raw)))

    def _error_event(self, sample: Sample, error: int, local: Endpoint, peer: Endpoint) -> Event:
        event = Event(Kind.ERROR, sample.mono_ns, local, peer, error=error)
        last = self._last.get(sample.cpu)
        if last is None or endpoints(last.layout, last.raw) != (local, peer):
            return event
        before = states.name(last.layout.number(last.raw, "oldstate"))
        return replace(event, cookie=last.cookie, state="CLOSED", state_before=before)

    def _reason(self, layout: Format, raw: bytes) -> str | None:
        if not layout.has("reason"):
            return None
        number = layout.number(raw, "reason")
        return layout.symbols.get("reason", {}).get(number) or self._names.reasons.get(number) or str(number)

    def _path(self, addresses: tuple[int, ...]) -> tuple[str, ...]:
        """The call path, up to the softirq: what lies beyond belongs to whoever was interrupted."""
        names = [self._names.kernel(address) for address in addresses]
        # With a second listener on the tracepoint (BPF, say) the kernel calls it through one more function.
        if names and names[0].startswith("__traceiter_"):
            del names[0]
        end = next((at + 1 for at, name in enumerate(names) if name in _SOFTIRQ), len(names))
        return tuple(names[:end])

    def _process(self, pid: int) -> Process | None:
        gone = self._exits.get(pid)
        return self._names.process(pid) or (Process(pid, gone) if gone is not None else None)


def _orphaned(reason: str | None, state: int, path: tuple[str, ...], close: _Close | None) -> bool | None:
    if reason == "TCP_ABORT_ON_DATA" and close is not None:
        return not close.self_reset  # with a process still there, the stack resets the socket itself first
    if state == _FIN_WAIT_2 and "tcp_keepalive_timer" in path:
        return True  # the timer that ends a wait in FIN_WAIT_2 runs for orphans only
    return None


def endpoints(layout: Format, raw: bytes) -> tuple[Endpoint, Endpoint]:
    """The local and the peer end in a record, whichever way this kernel lays them out."""
    if layout.has("sport", "dport"):
        local, peer = (_address(layout, raw, name) for name in ("saddr", "daddr"))
        return Endpoint(local, layout.number(raw, "sport")), Endpoint(peer, layout.number(raw, "dport"))
    # Linux 6.10 and later: a struct sockaddr_in6 or sockaddr_in for each end.
    return _sockaddr(layout.raw(raw, "saddr")), _sockaddr(layout.raw(raw, "daddr"))


def _address(layout: Format, raw: bytes, name: str) -> str:
    long, short = layout.raw(raw, f"{name}_v6"), layout.raw(raw, name)
    # For an IPv4 socket the kernel stores the mapped address here, so one field serves both.
    if len(long) == 16 and any(long):
        return _text(long)
    return (
        str(IPv4Address(short)) if len(short) == 4 and any(short) else "::" if len(long) == 16 else "0.0.0.0"
    )


def _sockaddr(raw: bytes) -> Endpoint:
    family = int.from_bytes(raw[:2], sys.byteorder)
    port = int.from_bytes(raw[2:4], "big")
    if family == 10 and len(raw) >= 24:
        return Endpoint(_text(raw[8:24]), port)
    return Endpoint(_text4(raw[4:8]) if len(raw) >= 8 else "0.0.0.0", port)


@lru_cache(4096)
def _text4(raw: bytes) -> str:
    return str(IPv4Address(raw))


@lru_cache(4096)
def _text(raw: bytes) -> str:
    address = IPv6Address(raw)
    return str(address.ipv4_mapped or address)


def _remember(table: OrderedDict[int, _V], key: int, value: _V, limit: int) -> None:
    table[key] = value
    table.move_to_end(key)
    if len(table) > limit:
        table.popitem(last=False)
