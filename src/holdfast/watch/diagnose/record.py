"""Writes a conclusion down as the one record that every face of Holdfast shows."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import errno
from datetime import UTC, datetime
from hashlib import blake2s

from holdfast.causes import CAUSES, Direction, Ending, Severity
from holdfast.events import Earlier, Event, Evidence, Harm, Kind, Process, Reset
from holdfast.watch.diagnose.conclude import Conclusion
from holdfast.watch.diagnose.sent import RESET_ERRORS

# Frames of the tracing itself, and of the kernel's entry: they are the same under every call.
_FRAMES_ABOVE = ("bpf_", "trace_", "__traceiter_", "perf_")
_FRAMES_BELOW = ("do_syscall_64", "entry_SYSCALL", "el0", "invoke_syscall", "do_el0")

# The kernel's way of destroying a socket that belongs to somebody else: ss -K, a network agent, BPF.
_DESTROYING = "tcp_abort"

_WITHOUT_RIGHTS = "Watch as root to learn what ended it; holdfast doctor says which rights are missing."


def record(one: Conclusion, host: str, wall_offset_ns: int, noise: str | None) -> Reset:
    """The record of one conclusion.

    Args:
        host: name to put into it.
        wall_offset_ns: wall clock minus monotonic clock.
        noise: identifier of its noise class, or None.
    """
    event, cause = one.event, CAUSES[one.verdict.cause]
    lasting = _gone(one)
    return Reset(
        id=identity(event, one.ending),
        host=host,
        time=wall_time(event.mono_ns + wall_offset_ns),
        story=_story(one),
        ending=one.ending,
        direction=one.direction,
        trigger=one.verdict.trigger,
        local=event.local,
        peer=event.peer,
        sender=one.sender,
        cause=cause.id,
        sentence=sentence(one),
        basis=one.verdict.basis,
        severity=Severity.INFO if noise else cause.severity,
        noise=noise is not None,
        obeyed=one.obeyed,
        state=event.state_before if event.state == "CLOSED" and event.state_before else event.state,
        owner=owner(one),
        netns=event.netns,
        lifetime_s=_seconds(event.lifetime_ns),
        bytes_sent=lasting.bytes_sent if lasting else event.bytes_sent,
        bytes_received=lasting.bytes_received if lasting else event.bytes_received,
        rtt_us=event.rtt_us,
        idle_s=_seconds(lasting.idle_ns) if lasting else _idle_s(event),
        harm=event.harm,
        call_path=call_path(event),
        evidence=(*one.verdict.evidence, *_people(one), *_other_end(one), *_circumstances(one, noise)),
        remedy=cause.remedy if event.kind is not Kind.DESTROYED else (_WITHOUT_RIGHTS,),
        kernel_reason=event.reason,
    )


def _story(one: Conclusion) -> str | None:
    """What the two records of one RST share: the sender's identifier; None where only one end was seen."""
    if one.sent_by is not None:
        return identity(one.sent_by.event)
    seen_at_both = one.direction is Direction.SENT and one.obeyed == "yes"
    return identity(one.event) if seen_at_both else None


def identity(event: Event, ending: Ending = Ending.RESET) -> str:
    """A short identifier, the same for the same event whoever asks."""
    facts = f"{event.kind}{event.mono_ns}{event.netns}{event.local}{event.peer}{event.cookie}{ending}"
    return blake2s(facts.encode(), digest_size=8).hexdigest()


def wall_time(wall_ns: int) -> str:
    """RFC 3339 in UTC with nanoseconds."""
    seconds, rest = divmod(wall_ns, 1_000_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest:09d}Z"


def owner(one: Conclusion) -> Process | None:
    """Whose socket it is or was: who closed it if that was seen, else who opened it."""
    event, gone = one.event, _gone(one)
    if gone is not None and gone.owner is not None:
        return gone.owner
    if event.closer is not None and _outsider(one) is None:
        return event.closer
    if event.opener is not None:
        return event.opener
    return event.earlier.owner if event.earlier is not None else None


def _gone(one: Conclusion) -> Earlier | None:
    """The connection that the reset is about, where its socket is gone; a listener may answer for it."""
    about = one.event.state in (None, "TIME_WAIT") or one.verdict.cause == "late_segment"
    return one.event.earlier if about else None


def _outsider(one: Conclusion) -> Process | None:
    """Who destroyed the socket of somebody else; a listener takes those that wait in its queue along."""
    event = one.event
    if event.kind is not Kind.RESET_SENT or event.in_process is False:
        return None
    destroyed = one.verdict.cause == "socket_destroyed" or _DESTROYING in event.kernel_stack
    return event.closer if destroyed else None


def call_path(event: Event) -> tuple[str, ...]:
    """The calls that led to an active reset, innermost first, without the frames of the tracing itself."""
    kernel = [frame for frame in event.kernel_stack if not frame.startswith(_FRAMES_ABOVE)]
    for at, frame in enumerate(kernel):
        if frame.startswith(_FRAMES_BELOW):
            kernel = kernel[:at]
            break
    return (*kernel, *event.user_stack)


def _seconds(ns: int | None) -> float | None:
    return None if ns is None else round(ns / 1e9, 6)


def _idle_s(event: Event) -> float | None:
    # Both are in ticks of some milliseconds: a younger connection cannot have been idle for longer.
    ago = [ns for ns in (event.send_ago_ns, event.receive_ago_ns, event.lifetime_ns) if ns is not None]
    return _seconds(min(ago)) if ago else None


def name(process: Process) -> str:
    """A process in words, ``nginx (pid 812)``; the name is as hostile as it came, and may be empty."""
    return f"{process.comm or 'a process'} (pid {process.pid})"


def _people(one: Conclusion) -> tuple[Evidence, ...]:
    event, gone, outsider = one.event, _gone(one), _outsider(one)
    if outsider is not None:
        whose = f", the socket of {name(event.opener)}" if event.opener is not None else ""
        return (Evidence(f"destroyed from outside by {name(outsider)}{whose}", 5),)
    opener, closer = (gone.opener, gone.owner) if gone is not None else (event.opener, event.closer)
    if closer is None or opener is None or closer.pid == opener.pid:
        return ()
    return (Evidence(f"opened by {name(opener)}, closed by {name(closer)}", 0),)


def _other_end(one: Conclusion) -> tuple[Evidence, ...]:
    """What the RST destroyed at its other end, where that is on this host as well."""
    if one.heard_by is None:
        return ()
    lost = harm_words(one.heard_by.harm)
    return () if lost in (None, "nothing") else (Evidence(f"the other end lost {lost}", 0),)


def _circumstances(one: Conclusion, noise: str | None) -> tuple[Evidence, ...]:
    event, gone, facts = one.event, _gone(one), []
    if event.earlier is not None and event.earlier.closed_ns_ago:
        facts.append(f"{_ended(event.earlier)} {event.earlier.closed_ns_ago / 1e9:.3f} s before")
    if gone is not None and gone.was_idle and gone.idle_ns is not None:
        facts.append(f"silent for {gone.idle_ns / 1e9:.3f} s when it was closed")
    if gone is not None and gone.exiting:
        facts.append("it was closed because its process ended: no idle time-out did it")
    if event.probes:
        facts.append(f"{_counted(event.probes, 'probe')} had gone unanswered")
    if event.retransmits:
        facts.append(f"{_counted(event.retransmits, 'retransmission')} had gone unanswered")
    if event.user_timeout_ms:
        facts.append(f"TCP_USER_TIMEOUT is {event.user_timeout_ms} ms")
    if noise is not None:
        facts.append(f"usual traffic of the class {noise}")
    return tuple(Evidence(fact, 0) for fact in facts)


def _ended(earlier: Earlier) -> str:
    who = name(earlier.owner) if earlier.owner else None
    if earlier.error in RESET_ERRORS or earlier.error == errno.ETIMEDOUT:
        verb = "timed out" if earlier.error == errno.ETIMEDOUT else "was reset"
        return f"the connection{f' of {who}' if who else ''} {verb} here"
    return f"closed here{f' by {who}' if who else ''}"


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def sentence(one: Conclusion) -> str:
    """The cause as one plain sentence about this connection, told from the end that sent the RST if seen."""
    if one.event.kind is Kind.DESTROYED:
        ends = f"The connection between {one.event.local} and {one.event.peer}"
        return f"{ends} ended with {harm_words(one.event.harm)}; what ended it cannot be seen without rights."
    teller = (
        one.sent_by if one.sent_by is not None and one.sent_by.verdict.cause == one.verdict.cause else one
    )
    who = owner(teller)
    event = teller.event
    return CAUSES[one.verdict.cause].describe(
        name(who) if who is not None else None, str(event.peer), str(event.local), harm_words(event.harm)
    )


def harm_words(harm: Harm) -> str | None:
    """What the ending put at risk, in words; None if nothing is known of it."""
    if harm.unread_bytes is None and harm.unsent_bytes is None and harm.unacked_bytes is None:
        return None
    parts = [
        f"{count:,} {word}"
        for count, word in (
            (harm.unread_bytes, "unread"),
            (harm.unsent_bytes, "unsent"),
            (harm.unacked_bytes, "unacknowledged"),
        )
        if count
    ]
    if not parts:
        return "nothing"
    only_one = sum(filter(None, (harm.unread_bytes, harm.unsent_bytes, harm.unacked_bytes))) == 1
    return f"{' and '.join(parts)} {'byte' if only_one else 'bytes'}"
