"""The layout of ``bpf/event.h`` in Python: bytes of the ring buffer in, :class:`Event` out."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from ipaddress import IPv6Address
from struct import Struct
from typing import Any, NamedTuple

from holdfast.errors import KernelUnavailable
from holdfast.events import Earlier, Endpoint, Event, Harm, Kind, Process, Segment
from holdfast.linux import states
from holdfast.linux.symbols import user_path

ABI = 2
KERNEL_FRAMES = 14
USER_FRAMES = 8
NEVER = 0xFFFFFFFF

_KINDS = {
    1: Kind.RESET_SENT,
    2: Kind.RESET_RECEIVED,
    3: Kind.RST_ARRIVED,
    4: Kind.RST_LEFT,
    5: Kind.REJECTED,
    6: Kind.SELF_RESET,
    7: Kind.ERROR,
}
KIND_NUMBERS = {kind: number for number, kind in _KINDS.items()}


_LISTEN, _SYN_SENT = states.NUMBERS["LISTEN"], states.NUMBERS["SYN_SENT"]
_FIN_RECEIVED = ("CLOSE_WAIT", "LAST_ACK", "CLOSING", "TIME_WAIT")
_SYN_OR_FIN_SENT = ("SYN_SENT", "SYN_RECEIVED", "FIN_WAIT_1", "LAST_ACK", "CLOSING")


class Shape(IntEnum):
    """``enum shape``: what decides the cause, as bits."""

    PROVOKED = 1 << 0
    SYN = 1 << 1
    ACK = 1 << 2
    FIN = 1 << 3
    DATA = 1 << 4
    SOCKET = 1 << 5
    LINGER_ZERO = 1 << 6
    LINGER2_NEGATIVE = 1 << 7
    ORPHANED = 1 << 8
    UNACCEPTED = 1 << 9
    OWNED = 1 << 10
    EXITING = 1 << 11
    SHUTDOWN = 1 << 12
    MPTCP = 1 << 13
    EARLIER = 1 << 14
    EARLIER_SERVED = 1 << 15
    EARLIER_IDLE = 1 << 16
    IN_WINDOW = 1 << 17
    EXACT = 1 << 18
    USER_TIMEOUT = 1 << 19
    UNACKED = 1 << 20
    ESTABLISHED = 1 << 21
    FORWARDED = 1 << 22
    QUEUE_FULL = 1 << 23
    ACKS_US = 1 << 24


class Loss(IntEnum):
    """``enum loss``: what could not be kept, by index in the map ``losses``."""

    RING = 0
    TALLY = 1
    CONNECTION = 2


class TallyKey(NamedTuple):
    """``struct tally_key``: what every event is counted by."""

    netns: int
    shape: int
    kind: int
    state: int
    state_before: int
    family: int
    reason: int
    error: int


TALLY_KEY = Struct("<IIBBBBhH")
_PROCESS = "IIQ16s"
_SEGMENT = "IIHHHBBBBB5x32s"
_EARLIER = "Q" + _PROCESS * 2 + "QQIHBB"
EVENT = Struct(
    "<16sQQ16s16sHHBBBB"
    + _PROCESS * 2
    + "QQQQ"
    + "IIII" * 3
    + "B3xI"
    + _SEGMENT
    + _EARLIER
    + f"{KERNEL_FRAMES}Q{USER_FRAMES}Q"
)


@dataclass(frozen=True, slots=True)
class Names:
    """What numbers mean on the running kernel, and how long its tick is.

    Attributes:
        reasons: ``enum sk_rst_reason`` by number, prefix removed; from BTF, never from a header.
        tick_ns: length of a jiffy.
        process: adds what only user space knows (control group path, container) to a process.
        kernel_symbol: name of a kernel address. user_symbol: ``module+0xoffset`` of (pid, address), or None.
    """

    reasons: Mapping[int, str]
    tick_ns: int
    process: Callable[[Process], Process] = lambda process: process
    kernel_symbol: Callable[[int], str] = hex
    user_symbol: Callable[[int, int], str | None] = lambda pid, address: hex(address)


def decode(records: bytes, names: Names) -> Iterator[Event]:
    """Every record of one drain; ``records`` is a whole number of ``struct event``.

    Raises:
        KernelUnavailable: the object was built from another ``event.h``.
    """
    for fields in EVENT.iter_unpack(records):
        if fields[7] != ABI:
            raise KernelUnavailable(
                "watching by BPF",
                f"a rebuild (make setup): the BPF object speaks event format {fields[7]}, this program {ABI}",
            )
        yield _event(fields, names)


def event_of_key(key: TallyKey, names: Names) -> Event:
    """The event that a tally counts, with just the facts that its key holds.

    Counted and detailed events are classified by the same rules, so what is None here must not decide.
    """
    nowhere = Endpoint("::", 0)
    return Event(
        kind=_KINDS[key.kind],
        mono_ns=0,
        local=nowhere,
        peer=nowhere,
        segment=_segment_of_shape(key.shape),
        earlier=_earlier_of_shape(key.shape),
        **_shared(key, names),
    )


def _shared(key: TallyKey, names: Names) -> dict[str, Any]:
    shape = key.shape
    socket = bool(shape & Shape.SOCKET)
    return {
        "netns": key.netns or None,
        "reason": _reason(key.reason, names) if key.kind == 1 else None,
        "state": states.name(key.state),
        "state_before": states.name(key.state_before),
        "error": key.error,
        "linger_zero": bool(shape & Shape.LINGER_ZERO) if socket else None,
        "linger2_negative": bool(shape & Shape.LINGER2_NEGATIVE) if socket else None,
        "orphaned": bool(shape & Shape.ORPHANED) if socket else None,
        "unaccepted": bool(shape & Shape.UNACCEPTED) if socket else None,
        "closing": bool(shape & Shape.SHUTDOWN) if socket else None,
        "in_process": bool(shape & (Shape.OWNED | Shape.UNACCEPTED)) if socket else None,
        "exiting": bool(shape & Shape.EXITING) if socket else None,
        "established": bool(shape & Shape.ESTABLISHED) if socket else None,
        "user_timeout": bool(shape & Shape.USER_TIMEOUT) if socket else None,
        "unacked": bool(shape & Shape.UNACKED) if socket else None,
        "in_window": bool(shape & Shape.IN_WINDOW) if key.kind == 3 else None,
        "exact": bool(shape & Shape.EXACT) if key.kind == 3 else None,
        "forwarded": bool(shape & Shape.FORWARDED) if key.kind == 5 else None,
        "queue_full": bool(shape & Shape.QUEUE_FULL) if key.state == _LISTEN else None,
        "acks_us": bool(shape & Shape.ACKS_US) if key.state == _SYN_SENT else None,
        "mptcp": bool(shape & Shape.MPTCP) if socket else None,
    }


def _reason(number: int, names: Names) -> str | None:
    if number < 0:
        return None
    # Rule: a number without a name is kept, and its cause is `unknown`.
    return names.reasons.get(number, f"REASON_{number}")


def _segment_of_shape(shape: int) -> Segment | None:
    if not shape & Shape.PROVOKED:
        return None
    flags = 0
    for bit, flag in ((Shape.SYN, 0x02), (Shape.ACK, 0x10), (Shape.FIN, 0x01)):
        if shape & bit:
            flags |= flag
    return Segment(flags, 0, 0, 0, 0, None, 0, False, 1 if shape & Shape.DATA else 0)


def _earlier_of_shape(shape: int) -> Earlier | None:
    if not shape & Shape.EARLIER:
        return None
    served = 1 if shape & Shape.EARLIER_SERVED else 0
    return Earlier(
        closed_ns_ago=0,
        bytes_sent=served,
        bytes_received=served,
        served=bool(served),
        was_idle=bool(shape & Shape.EARLIER_IDLE),
    )


def _event(f: tuple[Any, ...], names: Names) -> Event:
    (raw_key, mono_ns, cookie, local, peer, local_port, peer_port, _abi, shutdown, retransmits, probes) = f[
        :11
    ]
    opener, closer = _process(f[11:15], names), _process(f[15:19], names)
    opened_ns, established_ns, sent, received = f[19:23]
    srtt_us, min_rtt_us, send_ago, receive_ago = f[23:27]
    unread, unsent, unacked, user_timeout_ms = f[27:31]
    rcv_nxt, rcv_wnd, snd_una, snd_nxt, baseline_ttl, _drop_reason = f[31:37]
    key = TallyKey(*TALLY_KEY.unpack(raw_key))
    # Fields of a full socket: a listener, a mini-socket and no socket have none.
    full = bool(key.shape & Shape.SOCKET) and key.state != _LISTEN
    begun = established_ns or opened_ns
    return Event(
        kind=_KINDS[key.kind],
        mono_ns=mono_ns,
        local=Endpoint(_address(local), local_port),
        peer=Endpoint(_address(peer), peer_port),
        cookie=cookie,
        segment=_segment(f[37:48]),
        opener=opener,
        closer=closer,
        baseline_ttl=baseline_ttl or None,
        rtt_us=srtt_us or None,
        min_rtt_us=min_rtt_us if min_rtt_us not in (0, NEVER) else None,
        lifetime_ns=mono_ns - begun if begun and begun <= mono_ns else None,
        send_ago_ns=_ticks(send_ago, names) if full else None,
        receive_ago_ns=_ticks(receive_ago, names) if full else None,
        bytes_sent=sent if full else None,
        bytes_received=received if full else None,
        harm=_harm(_last_state(key), unread, unsent, unacked) if full else Harm(),
        rcv_nxt=rcv_nxt if full else None,
        rcv_wnd=rcv_wnd if full else None,
        snd_una=snd_una if full else None,
        snd_nxt=snd_nxt if full else None,
        shutdown=shutdown if full else None,
        user_timeout_ms=user_timeout_ms if full else None,
        retransmits=retransmits if full else None,
        probes=probes if full else None,
        kernel_stack=tuple(names.kernel_symbol(a) for a in f[63 : 63 + KERNEL_FRAMES] if a),
        user_stack=_user_stack(closer, f[63 + KERNEL_FRAMES :], names),
        earlier=_earlier(f[48:63], key.shape, mono_ns, names),
        **_shared(key, names),
    )


def _last_state(key: TallyKey) -> str | None:
    closed = key.state == states.NUMBERS["CLOSED"]
    return states.name(key.state_before if closed and key.state_before else key.state)


def _harm(state: str | None, unread: int, unsent: int, unacked: int) -> Harm:
    """Bytes of data at risk: a SYN and a FIN take a sequence number each, and carry nothing."""
    if state in _FIN_RECEIVED and unread:
        unread -= 1
    if state in _SYN_OR_FIN_SENT:
        if unacked:
            unacked -= 1
        elif unsent:
            unsent -= 1
    return Harm(unread, unsent, unacked)


def _ticks(ticks: int, names: Names) -> int | None:
    return None if ticks == NEVER else ticks * names.tick_ns


def _user_stack(closer: Process | None, addresses: tuple[int, ...], names: Names) -> tuple[str, ...]:
    if closer is None:
        return ()
    return user_path(names.user_symbol, closer.pid, addresses)


def _process(f: tuple[Any, ...], names: Names) -> Process | None:
    pid, uid, cgroup_id, comm = f
    if not pid:
        return None
    text = comm.split(b"\0", 1)[0].decode("utf-8", "backslashreplace")
    return names.process(Process(pid, text, uid, cgroup_id or None))


def _segment(f: tuple[Any, ...]) -> Segment | None:
    seq, ack, window, ip_id, payload_bytes, flags, ttl, options_bytes, has_timestamp, version, payload = f
    if not version:
        return None
    return Segment(
        flags=flags,
        seq=seq,
        ack=ack,
        window=window,
        ttl=ttl,
        ip_id=ip_id if version == 4 else None,
        options_bytes=options_bytes,
        has_timestamp=bool(has_timestamp),
        payload_bytes=payload_bytes,
        payload=payload[:payload_bytes],
    )


def _earlier(f: tuple[Any, ...], shape: int, mono_ns: int, names: Names) -> Earlier | None:
    closed_ns, sent, received, idle_ticks, error, state_before, exiting = (f[0], *f[9:])
    if not closed_ns:
        return None
    return Earlier(
        closed_ns_ago=max(0, mono_ns - closed_ns),
        owner=_process(f[1:5], names),
        opener=_process(f[5:9], names),
        state_before=states.name(state_before),
        bytes_sent=sent,
        bytes_received=received,
        idle_ns=_ticks(idle_ticks, names),
        error=error,
        served=bool(shape & Shape.EARLIER_SERVED),
        was_idle=bool(shape & Shape.EARLIER_IDLE),
        exiting=bool(exiting),
    )


@lru_cache(maxsize=4096)
def _address(sixteen: bytes) -> str:
    address = IPv6Address(sixteen)
    return str(address.ipv4_mapped or address)
