"""The vocabulary of resets: every cause, its sentence, its remedy and its place in the standards.

A reset is described by four independent words: direction, trigger, cause and basis. Nothing else in
Holdfast defines a cause; documentation, metrics, the lab and the diagnosis rules refer to this table.
"""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import re
from dataclasses import dataclass
from difflib import get_close_matches
from enum import StrEnum


class Direction(StrEnum):
    """Which way the RST went, seen from the local socket or host."""

    SENT = "sent"
    RECEIVED = "received"


class Trigger(StrEnum):
    """What made a stack reset (the kernel's words, ``net/rstreason.h``)."""

    ACTIVE = "active"  # the stack's own decision; answers no segment
    PASSIVE = "passive"  # answers a segment that should not have come


class Basis(StrEnum):
    """How a cause is known."""

    OBSERVED = "observed"  # the kernel said so: its reason, or the state of the socket at that moment
    INFERRED = "inferred"  # a named rule concluded it from evidence
    NONE = "none"  # not known


class Ending(StrEnum):
    """How a connection ended; only ``RESET`` involves a RST that was obeyed."""

    RESET = "reset"
    TIMED_OUT = "timed_out"
    UNREACHABLE = "unreachable"
    REFUSED_BY_ICMP = "refused_by_icmp"
    ABORTED = "aborted"


class Severity(StrEnum):
    """How much attention an ending deserves; see :func:`at_least`."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"
    CRITICAL = "critical"


_RANK = {severity: rank for rank, severity in enumerate(Severity)}


def at_least(severity: Severity, floor: Severity) -> bool:
    """Whether ``severity`` is as grave as ``floor`` or graver."""
    return _RANK[severity] >= _RANK[floor]


class Family(StrEnum):
    """Which part of the vocabulary a cause belongs to."""

    SENT = "sent"  # a RST that this host's TCP stack sent
    ENDING = "ending"  # an error the application sees without a RST
    RECEIVED = "received"  # a RST that arrived: who really sent it


SLOTS = ("who", "peer", "local", "bytes")
_SLOT = re.compile(r"\{(" + "|".join(SLOTS) + r")\}")
_UNSEEN = {
    "who": "an unknown process",
    "peer": "an unknown peer",
    "local": "this host",
    "bytes": "an unknown number of bytes",
}


@dataclass(frozen=True, slots=True)
class Cause:
    """One row of the table.

    Attributes:
        id: stable identifier, used in JSON, metrics, filters and documentation headings.
        family: which part of the vocabulary it belongs to.
        sentence: one plain sentence; the slots ``{who}`` (the owner of the local socket), ``{peer}``,
            ``{local}`` (addresses) and ``{bytes}`` (what was lost, in words) may appear.
        remedy: one or two imperative sentences that name the setting to change.
        kernel_reasons: names of ``enum sk_rst_reason`` without their prefix that can mean this cause.
        rfc: section that demands or allows it, or an empty string.
        ietf_code: reason code of draft-ietf-tcpm-rst-diagnostic-payload, if one fits.
        noise: folded by default: usual, harmless traffic.
        severity: default severity; diagnosis may lower it.
        not_made: why the lab cannot make it; None when a lab scenario does.
        why: one or two sentences: what usually leads to it.
    """

    id: str
    family: Family
    sentence: str
    remedy: tuple[str, ...]
    kernel_reasons: tuple[str, ...] = ()
    rfc: str = ""
    ietf_code: int | None = None
    noise: bool = False
    severity: Severity = Severity.WARNING
    not_made: str | None = None
    why: str = ""

    def describe(
        self,
        who: str | None = None,
        peer: str | None = None,
        local: str | None = None,
        bytes_: str | None = None,
    ) -> str:
        """The sentence with its slots filled; None says that the source could not see it.

        Args:
            who: the owner in words, such as ``nginx (pid 812)``.
            peer: the other end in words.
            local: this end in words.
            bytes_: what was lost in words, such as ``512 unread bytes`` or ``nothing``.
        """
        seen = {"who": who, "peer": peer, "local": local, "bytes": bytes_}

        # Not str.format: a process may be called "{0.__class__}", and names are put in as they are.
        def fill(slot: re.Match[str]) -> str:
            value = seen[slot[1]]
            if value is not None:
                return value
            words = _UNSEEN[slot[1]]
            return words[0].upper() + words[1:] if slot.start() == 0 else words

        return _SLOT.sub(fill, self.sentence)


@dataclass(frozen=True, slots=True)
class NoiseClass:
    """Usual traffic that is folded by default, because showing it would hide the rest.

    Attributes:
        id: stable identifier, used in filters and counts.
        sentence: what such traffic looks like.
        harmless: why it may be folded.
        unless: when it is worth a look after all.
    """

    id: str
    sentence: str
    harmless: str
    unless: str


# Rule: every cause is a row here, and an identifier, once released, keeps its meaning.
# Order: as a reader would look for them: no socket, closing, aborting, timers, handshake, MPTCP, the rest.
_SENT = (
    Cause(
        "closed_port",
        Family.SENT,
        "This host refused a connection from {peer} to {local}: nothing listens on that port.",
        (
            "Start the service, or bind it to an address that the client can reach (not only 127.0.0.1).",
            "Let the readiness probe pass only once the port is open.",
        ),
        why="The service is not started, has crashed, listens on another address or port, or somebody "
        "scans ports.",
        kernel_reasons=("NO_SOCKET",),
        rfc="RFC 9293 3.10.7.1",
        ietf_code=13,
        severity=Severity.INFO,
    ),
    Cause(
        "late_segment",
        Family.SENT,
        "{peer} still sent to {local} on a connection of {who} that had already ended.",
        (
            "Close a connection only after the peer has finished, and let the peer retry what it sent "
            "too late.",
            "Check the earlier error of that connection: if it had timed out, repair the path first.",
        ),
        why="The socket is gone: it timed out, was reset or aborted earlier, or its process was killed; "
        "the peer has not noticed yet.",
        kernel_reasons=("NO_SOCKET", "TCP_FLAGS"),
        rfc="RFC 9293 3.5.1",
        ietf_code=2,
    ),
    Cause(
        "unknown_connection",
        Family.SENT,
        "{peer} sent a segment to {local} in the middle of a connection that this host does not know.",
        (
            "Set net.netfilter.nf_conntrack_tcp_be_liberal=1 or drop packets in state INVALID, "
            "and enlarge nf_conntrack_max if the table was full.",
            "Make load balancers keep a flow on its backend (consistent hashing, connection draining).",
        ),
        why="A rebooted host, an address that now belongs to another pod, a load balancer that moved the "
        "flow "
        "to another backend, or address translation that lost its entry.",
        kernel_reasons=("NO_SOCKET",),
        rfc="RFC 9293 3.10.7.1",
        ietf_code=2,
    ),
    Cause(
        "unexpected_syn_ack",
        Family.SENT,
        "{peer} accepted a connection from {local} that this host never dialled, or had already given up.",
        (
            "Raise the connect timeout if that peer is one of yours.",
            "Check address translation: an answer must come from the address that was dialled.",
        ),
        why="A connect timeout shorter than the peer's answer, an answer that skipped address "
        "translation, or "
        "backscatter from a flood with forged sender addresses.",
        kernel_reasons=("NO_SOCKET",),
        rfc="RFC 9293 3.10.7.1",
        ietf_code=2,
        noise=True,
        severity=Severity.INFO,
    ),
    Cause(
        "data_after_close",
        Family.SENT,
        "{peer} sent new data to {local} after {who} had closed that connection cleanly.",
        (
            "Let the side that closes read until the end of the stream first.",
            "Let the peer stop sending once it has read the end of the stream, and retry what was not "
            "answered.",
        ),
        why="The peer ignored the end of the stream, or its data crossed it on the way.",
        kernel_reasons=("TCP_TIMEWAIT_SOCKET",),
        rfc="RFC 9293 3.6.1",
        ietf_code=3,
    ),
    Cause(
        "keepalive_race",
        Family.SENT,
        "{who} closed an idle keep-alive connection and {peer} sent its next request on it at that moment.",
        (
            "Make the client's idle limit shorter than the server's (nginx keepalive_timeout, "
            "Node.js server.keepAliveTimeout, the load balancer's idle timeout).",
            "Retry idempotent requests once on a fresh connection.",
        ),
        why="The server's idle limit ended just as the client reused the connection from its pool.",
        kernel_reasons=("TCP_TIMEWAIT_SOCKET",),
        rfc="RFC 9293 3.6.1",
        ietf_code=3,
        severity=Severity.ERROR,
    ),
    Cause(
        "syn_after_close",
        Family.SENT,
        "{peer} opened a new connection to {local} from a port whose old connection it has not closed yet.",
        (
            "Widen net.ipv4.ip_local_port_range at the client, or give its address translation more ports.",
            "Close both directions at the client before it reuses the port.",
        ),
        why="The client, or a translator in front of it, reuses a port while this side still waits for "
        "its FIN.",
        kernel_reasons=("TCP_TIMEWAIT_SOCKET",),
        rfc="RFC 9293 3.10.7.4",
        ietf_code=3,
    ),
    Cause(
        "linger2_on_ack",
        Family.SENT,
        "{who} closed its connection to {peer} with TCP_LINGER2 below zero, so the peer's ACK drew a reset.",
        ("Remove the negative TCP_LINGER2 from the program.",),
        why="TCP_LINGER2 below zero tells the kernel not to wait for the peer's FIN at all.",
        kernel_reasons=("TCP_ABORT_ON_DATA",),
        rfc="RFC 1122 4.2.2.13",
        ietf_code=3,
    ),
    Cause(
        "closed_while_receiving",
        Family.SENT,
        "{who} closed its connection to {peer} while the peer was still sending.",
        (
            "Read to the end of the stream before closing, or send FIN with shutdown(SHUT_WR) and drain "
            "(nginx: lingering_close always).",
        ),
        why="A server answers early (413, 401) and closes in the middle of an upload, or a client "
        "cancels a download.",
        kernel_reasons=("TCP_ABORT_ON_DATA",),
        rfc="RFC 1122 4.2.2.13",
        ietf_code=3,
        severity=Severity.ERROR,
    ),
    Cause(
        "data_after_shutdown",
        Family.SENT,
        "{who} had shut down receiving on its connection to {peer}, and then more data came.",
        ("Use shutdown(SHUT_WR) instead of SHUT_RD or SHUT_RDWR while the peer may still send.",),
        why="A program calls shutdown(SHUT_RD) or shutdown(SHUT_RDWR) to say that it is done; the kernel "
        "refuses "
        "every later byte.",
        kernel_reasons=("TCP_ABORT_ON_DATA",),
        rfc="RFC 9293 3.6.1",
        ietf_code=3,
        severity=Severity.ERROR,
    ),
    Cause(
        "closed_with_unread_data",
        Family.SENT,
        "{who} closed its connection to {peer} without reading everything and threw away {bytes}.",
        (
            "Read to the end of the stream before close(), or send FIN with shutdown(SHUT_WR) and drain "
            "with a limit.",
            "Check what the program closes early: a rejected upload, a cancelled response, a timeout.",
        ),
        why="A server answers before it has read the request body, a client drops a response, or a proxy "
        "times out; "
        "the reset can also destroy the answer on its way to the peer. A TLS client that closes with the "
        "server's session tickets unread does it too, and does no harm.",
        kernel_reasons=("TCP_ABORT_ON_CLOSE",),
        rfc="RFC 1122 4.2.2.13",
        ietf_code=4,
        severity=Severity.ERROR,
    ),
    Cause(
        "exited_with_unread_data",
        Family.SENT,
        "{who} ended without closing its connection to {peer} and threw away {bytes}.",
        (
            "Handle SIGTERM: stop accepting, finish what was read, then exit; raise "
            "terminationGracePeriodSeconds "
            "if that takes longer.",
            "Check the exit code and the kernel log for a crash or the out-of-memory killer.",
        ),
        why="The process exited, crashed, or was killed (kill -9, out of memory, end of the grace period).",
        kernel_reasons=("TCP_ABORT_ON_CLOSE",),
        rfc="RFC 1122 4.2.2.13",
        ietf_code=4,
        severity=Severity.ERROR,
    ),
    Cause(
        "mptcp_fastclose",
        Family.SENT,
        "{who} aborted its Multipath TCP connection to {peer} and threw away {bytes}.",
        ("Read to the end of the stream before close(), and remove SO_LINGER with zero seconds.",),
        why="A Multipath TCP socket was closed with unread data or with SO_LINGER 0; every subflow is reset.",
        kernel_reasons=("TCP_ABORT_ON_CLOSE",),
        rfc="RFC 8684 3.5",
        ietf_code=4,
    ),
    Cause(
        "linger2_negative",
        Family.SENT,
        "{who} closed its connection to {peer} with TCP_LINGER2 below zero instead of waiting for the "
        "peer's FIN.",
        ("Remove the negative TCP_LINGER2 from the program.",),
        why="The peer had confirmed our FIN but not sent its own; TCP_LINGER2 below zero forbids to wait.",
        kernel_reasons=("TCP_ABORT_ON_LINGER",),
        rfc="RFC 9293 3.10.5",
        ietf_code=4,
    ),
    Cause(
        "orphan_memory",
        Family.SENT,
        "The kernel dropped the closed connection from {local} to {peer} to save memory and lost {bytes}.",
        (
            "Raise net.ipv4.tcp_max_orphans or net.ipv4.tcp_mem, and lower net.ipv4.tcp_orphan_retries.",
            "Find the program that closes many connections with unsent data (TCPAbortOnMemory counts them).",
        ),
        why="More closed but unfinished sockets than net.ipv4.tcp_max_orphans, or TCP memory above "
        "net.ipv4.tcp_mem.",
        kernel_reasons=("TCP_ABORT_ON_MEMORY",),
        ietf_code=10,
        severity=Severity.CRITICAL,
    ),
    Cause(
        "linger_zero",
        Family.SENT,
        "{who} had SO_LINGER set to zero seconds, so closing its connection to {peer} aborted it and threw "
        "away {bytes}.",
        (
            "Remove SO_LINGER with zero seconds where the abort is not meant (nginx "
            "reset_timedout_connection, "
            "HAProxy option nolinger, setSoLinger(true, 0), SetLinger(0), resetAndDestroy()).",
        ),
        why="Load testers, health checkers and proxies abort to save TIME_WAIT entries or to punish slow "
        "clients.",
        kernel_reasons=("TCP_STATE",),
        rfc="RFC 9293 3.10.5",
        ietf_code=4,
    ),
    Cause(
        "connect_af_unspec",
        Family.SENT,
        "{who} dissolved its connection to {peer} with connect(AF_UNSPEC) and threw away {bytes}.",
        ("Close the socket and open a new one instead of reusing it with connect(AF_UNSPEC).",),
        why="A connection pool or a checkpoint tool reuses the file descriptor.",
        kernel_reasons=("TCP_STATE",),
        rfc="RFC 9293 3.10.5",
        ietf_code=4,
    ),
    Cause(
        "listener_closed",
        Family.SENT,
        "{who} stopped listening on {local} before it had accepted the connection from {peer}.",
        (
            "Accept what is queued before closing the listener, or hand the listening socket to the next "
            "process.",
            "Set net.ipv4.tcp_migrate_req=1 where several processes listen with SO_REUSEPORT.",
        ),
        why="A restart, deployment or crash with connections still in the accept queue.",
        kernel_reasons=("TCP_STATE",),
        rfc="RFC 9293 3.10.5",
        ietf_code=4,
        severity=Severity.ERROR,
    ),
    Cause(
        "socket_destroyed",
        Family.SENT,
        "{who} had its connection to {peer} destroyed from outside (ss -K, a network agent, BPF) and "
        "lost {bytes}.",
        ("Look at the command that did it, shown as the closer, and change its policy.",),
        why="An administrator, a network plug-in after a backend was deleted, or Android's netd after an "
        "address change.",
        kernel_reasons=("TCP_STATE",),
        rfc="RFC 9293 3.10.5",
        ietf_code=4,
    ),
    Cause(
        "fin_wait2_timeout",
        Family.SENT,
        "{peer} never closed its half of the connection after {who} had closed its own, so the kernel "
        "gave it up.",
        (
            "Fix the peer that leaves sockets in CLOSE_WAIT.",
            "Raise net.ipv4.tcp_fin_timeout if the peer only needs more time.",
        ),
        why="The peer's program does not close the socket after it has read the end of the stream.",
        kernel_reasons=("TCP_STATE",),
        rfc="RFC 9293 3.6.1",
        ietf_code=4,
        severity=Severity.INFO,
    ),
    Cause(
        "aborted_while_closing",
        Family.SENT,
        "{who} aborted its connection to {peer} while both sides were closing and lost {bytes}.",
        ("Close without SO_LINGER zero, or wait until SIOCOUTQ says that nothing is unsent.",),
        why="SO_LINGER 0 or connect(AF_UNSPEC) after the peer's FIN, with data or our own FIN still unsent.",
        kernel_reasons=("TCP_DISCONNECT_WITH_DATA",),
        rfc="RFC 9293 3.10.5",
        ietf_code=4,
        severity=Severity.ERROR,
    ),
    Cause(
        "keepalive_timeout",
        Family.SENT,
        "{peer} answered none of the keep-alive probes, so the kernel ended the connection of {who}.",
        (
            "Set TCP_KEEPIDLE (net.ipv4.tcp_keepalive_time) below the idle limit of every firewall, NAT "
            "and load "
            "balancer on the path (350 s on AWS).",
            "Check the path if many peers behind it disappear together.",
        ),
        why="The peer is dead or paused, or something on the path forgot the idle flow and drops it in "
        "silence. TCP_USER_TIMEOUT makes it end sooner.",
        kernel_reasons=("TCP_KEEPALIVE_TIMEOUT",),
        rfc="RFC 9293 3.8.4",
        ietf_code=14,
    ),
    Cause(
        "segment_to_listener",
        Family.SENT,
        "{peer} sent a segment of an unknown connection to {local}, where {who} listens for new ones.",
        (
            "Raise the backlog and net.core.somaxconn if ListenOverflows or ListenDrops grow.",
            "Make load balancers keep a flow on its backend (consistent hashing, connection "
            "synchronisation).",
        ),
        why="The accept queue overflowed earlier and the client believes it is connected, the server was "
        "restarted, "
        "or a load balancer moved the flow here.",
        kernel_reasons=("TCP_FLAGS",),
        rfc="RFC 9293 3.10.7.2",
        ietf_code=5,
    ),
    Cause(
        "duplicate_syn",
        Family.SENT,
        "{peer} started a second handshake with {local} from the same port before the first one was "
        "complete.",
        ("Widen net.ipv4.ip_local_port_range at the client, or give its address translation more ports.",),
        why="Port reuse, or two clients behind one translator that share an address and port.",
        kernel_reasons=("INVALID_SYN",),
        rfc="RFC 9293 3.10.7.4",
        ietf_code=6,
    ),
    Cause(
        "accept_queue_overflow",
        Family.SENT,
        "{who} was too slow to accept: the accept queue of {local} was full and {peer} was reset.",
        (
            "Accept faster, or raise the listen backlog together with net.core.somaxconn.",
            "Set net.ipv4.tcp_abort_on_overflow=0 if clients should retry instead of failing.",
        ),
        why="The program does not call accept() often enough (garbage collection, no free thread, no "
        "CPU), the backlog "
        "is small, and net.ipv4.tcp_abort_on_overflow is 1.",
        kernel_reasons=("INVALID_SYN",),
        ietf_code=10,
        severity=Severity.ERROR,
    ),
    Cause(
        "stale_handshake_answer",
        Family.SENT,
        "{peer} answered the handshake of {who} with an ACK that belongs to another connection.",
        (
            "Ignore it if the connection came up right after.",
            "Check firewalls that rewrite sequence numbers if it repeats.",
        ),
        why="The peer still holds an old connection on the same ports; this reset clears it and the "
        "retried SYN "
        "succeeds. Rarely a SYN proxy or a forged answer.",
        kernel_reasons=("TCP_INVALID_ACK_SEQUENCE",),
        rfc="RFC 9293 3.10.7.3",
        ietf_code=5,
        noise=True,
        severity=Severity.INFO,
    ),
    Cause(
        "handshake_timestamp_mismatch",
        Family.SENT,
        "{peer} answered the handshake of {who} with a timestamp that this host never sent.",
        (
            "Fix the translator or middlebox that changes TCP timestamps.",
            "Set net.ipv4.tcp_timestamps=0 for a test only.",
        ),
        why="A translator merges clients with different timestamp clocks, or a middlebox rewrites the "
        "option.",
        kernel_reasons=("TCP_RFC7323_PAWS",),
        rfc="RFC 7323 5",
        ietf_code=2,
    ),
    Cause(
        "bad_handshake_ack",
        Family.SENT,
        "{peer} completed the handshake with {local} by acknowledging bytes that this host never sent.",
        ("Check middleboxes that rewrite sequence numbers.",),
        why="A corrupted handshake, a simultaneous open, TCP Fast Open, or a middlebox.",
        kernel_reasons=("TCP_OLD_ACK", "TCP_TOO_OLD_ACK", "TCP_ACK_UNSENT_DATA"),
        rfc="RFC 9293 3.10.7.4",
        ietf_code=5,
    ),
    Cause(
        "mptcp_unspecified",
        Family.SENT,
        "This host reset a Multipath TCP subflow between {local} and {peer} and gave no particular reason.",
        ("Run `ip mptcp monitor` and look for the error that came before on the same connection.",),
        why="The kernel has no finer code for what went wrong in the subflow.",
        kernel_reasons=("MPTCP_RST_EUNSPEC",),
        rfc="RFC 8684 3.6",
        not_made="No single action makes the kernel choose this code reliably.",
    ),
    Cause(
        "mptcp_protocol_error",
        Family.SENT,
        "This host reset a Multipath TCP subflow between {local} and {peer} that broke the protocol.",
        ("Keep all subflows of a connection on the same backend of the load balancer.",),
        why="A join with an unknown token or a wrong signature, a connection that ended meanwhile, or data "
        "that does not fit its mapping.",
        kernel_reasons=("MPTCP_RST_EMPTCP",),
        rfc="RFC 8684 3.6",
    ),
    Cause(
        "mptcp_no_resources",
        Family.SENT,
        "This host lacked the resources for a Multipath TCP subflow between {local} and {peer}.",
        ("Raise memory limits (net.ipv4.tcp_mem) or allow fewer subflows with `ip mptcp limits`.",),
        why="The kernel could not allocate what the subflow needs.",
        kernel_reasons=("MPTCP_RST_ERESOURCE",),
        rfc="RFC 8684 3.6",
        ietf_code=10,
        severity=Severity.ERROR,
        not_made="The kernel must run out of memory at one exact moment.",
    ),
    Cause(
        "mptcp_prohibited",
        Family.SENT,
        "Settings on this host forbid the Multipath TCP subflow between {local} and {peer}.",
        (
            "Raise the number of subflows with `ip mptcp limits set`, or allow the address with `ip "
            "mptcp endpoint`.",
        ),
        why="The limit of subflows or addresses is reached.",
        kernel_reasons=("MPTCP_RST_EPROHIBIT",),
        rfc="RFC 8684 3.6",
        ietf_code=9,
        severity=Severity.INFO,
    ),
    Cause(
        "mptcp_too_much_data",
        Family.SENT,
        "This host reset a Multipath TCP subflow to {peer} that left too much data outstanding.",
        ("Check the slow path of that subflow, or remove its endpoint.",),
        why="Data waits on one subflow and blocks the others.",
        kernel_reasons=("MPTCP_RST_EWQ2BIG",),
        rfc="RFC 8684 3.6",
        ietf_code=15,
        not_made="No way is known to make Linux send this code.",
    ),
    Cause(
        "mptcp_bad_performance",
        Family.SENT,
        "This host reset a Multipath TCP subflow to {peer} because it performed badly.",
        ("Check the path of that subflow, or mark its endpoint as backup.",),
        why="The subflow was too slow or too lossy beside the others.",
        kernel_reasons=("MPTCP_RST_EBADPERF",),
        rfc="RFC 8684 3.6",
        ietf_code=16,
        severity=Severity.INFO,
        not_made="No way is known to make Linux send this code.",
    ),
    Cause(
        "mptcp_middlebox",
        Family.SENT,
        "This host reset a Multipath TCP subflow to {peer}: something on the path altered its options or "
        "data.",
        ("Fix the middlebox that strips or rewrites Multipath TCP options.",),
        why="A data checksum failed, or the mapping options disappeared in the middle of the stream.",
        kernel_reasons=("MPTCP_RST_EMIDDLEBOX",),
        rfc="RFC 8684 3.6",
        ietf_code=17,
    ),
    Cause(
        "mptcp_unknown_code",
        Family.SENT,
        "This host reset a Multipath TCP subflow to {peer} with a code that this kernel cannot name.",
        ("Report the raw code and the kernel version.",),
        why="The code is newer than the kernel's own table.",
        kernel_reasons=("ERROR",),
        rfc="RFC 8684 3.6",
        not_made="It needs a code that the kernel itself does not know.",
    ),
    Cause(
        "unspecified",
        Family.SENT,
        "{who} reset its connection to {peer}, and the kernel gave no reason.",
        ("Use Linux 6.12 or later to learn the reason of active resets.",),
        why="Linux 6.10 and 6.11 name no reason for active resets, and later kernels omit it for some "
        "Multipath TCP ones.",
        kernel_reasons=("NOT_SPECIFIED",),
        not_made="On this kernel every reset that can be provoked by plain means has a reason.",
    ),
    Cause(
        "unknown",
        Family.SENT,
        "{who} reset its connection to {peer} for a reason that this version of Holdfast does not know.",
        ("Update Holdfast, and report the kernel's name for the reason.",),
        why="The kernel is newer than this table, or the source saw the reset without its reason.",
        not_made="It stands for reasons that do not exist yet, so no kernel reason belongs to it.",
    ),
)

_ENDINGS = (
    Cause(
        "retransmission_timeout",
        Family.ENDING,
        "{peer} stopped acknowledging: the kernel gave up the connection of {who} after many retries and "
        "lost {bytes}.",
        (
            "Check the path and the peer's host.",
            "Set TCP_USER_TIMEOUT (or lower net.ipv4.tcp_retries2) to learn of it sooner.",
        ),
        why="The peer's host is down, or the path or a firewall drops the segments; no RST is sent, so "
        "the peer may "
        "still believe in the connection.",
        rfc="RFC 9293 3.8.3",
        severity=Severity.ERROR,
    ),
    Cause(
        "user_timeout",
        Family.ENDING,
        "{peer} did not acknowledge within the TCP_USER_TIMEOUT that {who} had set, which lost {bytes}.",
        (
            "Check the path and the peer's host.",
            "Raise TCP_USER_TIMEOUT if it is shorter than the outages that should be survived.",
        ),
        why="The peer or the path was silent for longer than the program allows.",
        rfc="RFC 5482 3",
        severity=Severity.ERROR,
    ),
    Cause(
        "connect_timeout",
        Family.ENDING,
        "{peer} never answered the connection attempt of {who}.",
        (
            "Check the address, the route and firewalls that drop in silence.",
            "Set your own connect deadline, or change net.ipv4.tcp_syn_retries.",
        ),
        why="The host is down, the address is wrong, or a firewall drops SYN or SYN-ACK.",
        rfc="RFC 9293 3.8.3",
        severity=Severity.ERROR,
    ),
    Cause(
        "zero_window_timeout",
        Family.ENDING,
        "{peer} kept its receive window shut for too long: {who} lost {bytes}.",
        (
            "Fix the peer's reader: it is alive but does not read.",
            "Raise TCP_USER_TIMEOUT if such pauses are expected.",
        ),
        why="The peer's program is stuck or overloaded and never empties its receive buffer.",
        rfc="RFC 9293 3.8.6.1",
        severity=Severity.ERROR,
    ),
    Cause(
        "fastopen_timeout",
        Family.ENDING,
        "{peer} opened a connection to {local} with TCP Fast Open and never completed the handshake.",
        ("Set net.ipv4.tcp_fastopen=1 (client only) to stop accepting data in SYN, if it repeats.",),
        why="The client vanished, or a middlebox drops the rest of the handshake.",
        rfc="RFC 7413 4.2",
    ),
    Cause(
        "unreachable_after_retries",
        Family.ENDING,
        "The network kept reporting {peer} as unreachable until the connection of {who} ran out of "
        "retries, losing {bytes}.",
        ("Check the route (`ip route get`) and whether the peer's host is up.",),
        why="ICMP or a failed neighbour lookup said why the retries failed, and the kernel passes on "
        "that error instead "
        "of a plain timeout.",
        rfc="RFC 9293 3.9.2.2",
        severity=Severity.ERROR,
    ),
    Cause(
        "icmp_refused",
        Family.ENDING,
        "The connection attempt of {who} to {peer} was refused by ICMP, not by TCP.",
        ("Check that the service has endpoints, and look for a REJECT rule (`nft list ruleset`).",),
        why="The default of iptables REJECT, or a Kubernetes service without endpoints.",
        rfc="RFC 9293 3.9.2.2",
    ),
    Cause(
        "icmp_error",
        Family.ENDING,
        "The attempt of {who} to reach {peer} ended: there is no route to it, or the network said by ICMP "
        "that it cannot be reached.",
        ("Check the route (`ip route get`), the peer's host and firewalls that answer with ICMP.",),
        why="No route, host down, or administratively prohibited.",
        rfc="RFC 9293 3.9.2.2",
        severity=Severity.ERROR,
    ),
    Cause(
        "written_after_close",
        Family.ENDING,
        "{who} wrote to its connection to {peer} after it had ended.",
        ("Stop writing after shutdown() or after the first error, and remember that first error.",),
        why="The program shut down sending, or missed the first error: the kernel reports it only once.",
        rfc="RFC 9293 3.10.2",
        not_made="It is an error inside one program; no segment leaves the host and no kernel event "
        "names it.",
    ),
    Cause(
        "tls_record_error",
        Family.ENDING,
        "{who} received a TLS record from {peer} that the kernel could not decrypt or parse.",
        ("Check for a middlebox that alters the stream, and for keys that both sides disagree on.",),
        why="Kernel TLS found a damaged or unauthentic record.",
        rfc="RFC 8446 6.2",
        severity=Severity.ERROR,
        not_made="It needs kernel TLS (module tls), which is not present everywhere.",
    ),
    Cause(
        "orderly_end",
        Family.ENDING,
        "{who} and {peer} ended their connection in good order.",
        ("Do nothing.",),
        why="Both sides sent FIN and both were acknowledged.",
        rfc="RFC 9293 3.6",
        noise=True,
        severity=Severity.INFO,
    ),
)

_RECEIVED = (
    Cause(
        "peer_aborted",
        Family.RECEIVED,
        "The program at {peer} aborted its connection to {who}, which lost {bytes}.",
        (
            "Look at the peer: it closed with unread data, used SO_LINGER zero, was killed, or gave up "
            "on a timer; "
            "run Holdfast there to learn which.",
        ),
        why="The RST has the shape that Linux gives to its own decisions: ACK set, a window, options kept.",
        rfc="RFC 9293 3.10.5",
        ietf_code=4,
        severity=Severity.ERROR,
    ),
    Cause(
        "peer_had_no_connection",
        Family.RECEIVED,
        "The host of {peer} did not know the connection that {who} was using, which lost {bytes}.",
        (
            "Check whether the peer restarted, timed out earlier, or closed first; keep idle limits "
            "shorter on this side than at the peer.",
            "Check load balancers and address translation that may have moved the flow.",
        ),
        why="The RST has the shape that Linux gives to answers for segments without a connection: no "
        "ACK, no window, "
        "no options.",
        rfc="RFC 9293 3.10.7.1",
        ietf_code=2,
        severity=Severity.ERROR,
    ),
    Cause(
        "peer_closed_then_reset",
        Family.RECEIVED,
        "{peer} had closed the connection, {who} kept sending, and the peer answered with a reset that "
        "lost {bytes}.",
        (
            "Stop sending and close once the end of the stream was read.",
            "Make the client's idle limit shorter than the server's, and retry idempotent requests once.",
        ),
        why="The peer's FIN had arrived before our last data; programs then see EPIPE (broken pipe).",
        rfc="RFC 9293 3.6.1",
        ietf_code=3,
        severity=Severity.ERROR,
    ),
    Cause(
        "connection_refused",
        Family.RECEIVED,
        "The connection of {who} to {peer} was refused: nothing listens there, or a firewall rejects it.",
        (
            "Start the service at the peer, or correct the address and port; if it does listen, look for a "
            "firewall rule that rejects.",
            "Wait for readiness before clients are sent there, and retry with a delay.",
        ),
        why="The service is down, not ready, or on another address; or a firewall there answers with a RST.",
        rfc="RFC 9293 3.10.7.3",
        ietf_code=13,
    ),
    Cause(
        "path_firewall_reject",
        Family.RECEIVED,
        "A firewall on the path, not {peer}, reset the connection of {who}, which lost {bytes}.",
        (
            "Look for a rule that rejects with tcp-reset on the way, and for a firewall that lost its state.",
            "Send keep-alives more often than the firewall's idle limit (TCP_KEEPIDLE).",
        ),
        why="A policy forbids the flow, or the firewall forgot it (idle limit, restart, failover).",
        rfc="RFC 3360",
        ietf_code=9,
        severity=Severity.ERROR,
    ),
    Cause(
        "local_firewall_reject",
        Family.RECEIVED,
        "This host's own firewall reset the connection between {local} and {peer}.",
        (
            "Look for `reject with tcp reset` in `nft list ruleset` (iptables: REJECT --reject-with "
            "tcp-reset).",
            "Set net.netfilter.nf_conntrack_tcp_be_liberal=1 if the rule matches packets in state INVALID.",
        ),
        why="A rule forbids the flow, or connection tracking took a legal segment for INVALID.",
        rfc="RFC 3360",
        ietf_code=9,
    ),
    Cause(
        "not_sent_by_tcp",
        Family.RECEIVED,
        "A reset between {local} and {peer} left this host, but neither its TCP nor a firewall rule sent it.",
        (
            "Look for raw-socket tools and for BPF programs that make packets (`bpftool net`, `ss --raw "
            "--packet`).",
        ),
        why="A BPF data plane, tc or XDP program, a raw socket (tcpkill), a container bridge, or an "
        "offload engine.",
    ),
    Cause(
        "injected",
        Family.RECEIVED,
        "Somebody other than {peer} most likely forged the reset that ended the connection of {who}, "
        "which lost {bytes}.",
        (
            "Capture at both ends and compare: a forged RST is missing at the peer.",
            "Use another path or a tunnel that protects TCP headers (IPsec, WireGuard, QUIC); TLS alone "
            "does not.",
        ),
        why="Several independent signs disagree with the peer: hop count, timing, sequence, or data that "
        "the peer sent "
        "after its own reset.",
        rfc="RFC 5961 3.1",
        severity=Severity.ERROR,
    ),
    Cause(
        "unrecognised_sender",
        Family.RECEIVED,
        "A reset ended the connection of {who} to {peer}, which lost {bytes}, and its shape does not "
        "tell who sent it.",
        ("Run Holdfast on the peer's host or capture near it to see whether it sent the RST.",),
        why="Other systems and devices shape their resets in other ways than Linux, or the segment was "
        "not seen.",
        rfc="RFC 9293 3.5.3",
    ),
    Cause(
        "handshake_option_refused",
        Family.RECEIVED,
        "Something on the way to {peer} resets each handshake of {who} "
        "that asks for ECN or a newer TCP option.",
        (
            "Find the device that resets what it does not know, and update it (RFC 3360 forbids this).",
            "Set net.ipv4.tcp_ecn=0, or leave TCP Fast Open or Multipath "
            "TCP out, for that destination until then.",
        ),
        why="An old firewall or load balancer takes reserved flags or an unknown option for an attack.",
        rfc="RFC 3360 2.1",
        ietf_code=17,
        severity=Severity.ERROR,
        not_made="Only a capture tells it, from two attempts: the one that "
        "was refused and the one that was not.",
    ),
    Cause(
        "ignored_in_window",
        Family.RECEIVED,
        "A reset that claims to come from {peer} was close but not exact; {who} kept its connection.",
        (
            "Watch whether it repeats: many of them are a blind attack.",
            "Check net.ipv4.tcp_challenge_ack_limit if a real peer needs many tries to get through.",
        ),
        why="The sequence number was inside the window but not the next one; the kernel asked the peer "
        "with a "
        "challenge ACK.",
        rfc="RFC 5961 3.2",
    ),
    Cause(
        "ignored_out_of_window",
        Family.RECEIVED,
        "A reset that claims to come from {peer} missed the receive window; {who} kept its connection.",
        ("Watch whether it repeats: many of them are a blind attack or a confused middlebox.",),
        why="A guess by somebody who cannot see the connection, or a very late segment.",
        rfc="RFC 9293 3.5.3",
        severity=Severity.INFO,
    ),
    Cause(
        "handshake_abandoned",
        Family.RECEIVED,
        "{peer} gave up its own connection attempt to {local} before the handshake was complete.",
        (
            "Ignore it unless it is frequent; then look for port scans and for clients with short "
            "connect timeouts.",
        ),
        why="A half-open port scan, a load balancer's probe, or a client that stopped waiting.",
        rfc="RFC 9293 3.10.7.4",
        noise=True,
        severity=Severity.INFO,
    ),
)

CAUSES: dict[str, Cause] = {row.id: row for row in (*_SENT, *_ENDINGS, *_RECEIVED)}

NOISE: dict[str, NoiseClass] = {
    row.id: row
    for row in (
        NoiseClass(
            "port_scan",
            "Closed ports were tried in a row, by one peer or at one port by many.",
            "Nothing was connected, so nothing was lost.",
            "One of the ports should have been open, or the rate is high enough to cost CPU.",
        ),
        NoiseClass(
            "health_check",
            "A health checker connected at a steady pace, exchanged no data and aborted.",
            "The checker aborts on purpose, to leave no TIME_WAIT entry behind.",
            "The pace changes, data was exchanged, or the peer is no health checker.",
        ),
        NoiseClass(
            "recovered_handshake",
            "A leftover of an older connection disturbed a handshake that then succeeded.",
            "The reset cleared the leftover, and the program saw only a short delay.",
            "The connection did not come up, or it happens to every connection on one path.",
        ),
        NoiseClass(
            "after_both_fins",
            "Both sides had already sent FIN when the reset came.",
            "All data had been sent and acknowledged; the reset only shortened the farewell.",
            "Bytes were unread, unsent or unacknowledged.",
        ),
        NoiseClass(
            "backscatter",
            "A stranger answered a connection attempt that this host never made.",
            "Somebody floods the stranger and forges this host's address; nothing of ours is touched.",
            "The stranger is a peer of yours, which points to address translation or a short connect "
            "timeout.",
        ),
        NoiseClass(
            "answer_to_late_probe",
            "The peer probed a connection that this host had already given up, and was told so.",
            "The loss was reported before, when the connection timed out.",
            "No timeout was reported before it.",
        ),
        NoiseClass(
            "segment_after_reset",
            "The peer's segments came when the connection had just been reset, and were answered once more.",
            "The reset was reported before; the segments were on their way when it was sent.",
            "No reset was reported before it.",
        ),
    )
}

# draft-ietf-tcpm-rst-diagnostic-payload, registry "TCP Failure Causes" (a draft: codes may still change).
IETF_CODES: dict[int, str] = {
    1: "Illegal option length",
    2: "Desynchronized state",
    3: "New data is received after CLOSE is called",
    4: "ABORT process",
    5: "Unexpected ACK received by non-synchronized state connection",
    6: "Unexpected SYN in the window",
    7: "Unexpected security compartment",
    8: "Malformed message",
    9: "Not authorized",
    10: "Resource exceeded",
    11: "Network failure",
    12: "Reset received from the peer",
    13: "Destination unreachable",
    14: "Connection timeout",
    15: "Too much outstanding data",
    16: "Unacceptable performance",
    17: "Middlebox interference",
}

# RFC 8684 3.6: reason codes of the MP_TCPRST option.
MPTCP_CODES: dict[int, str] = {
    0: "Unspecified error",
    1: "MPTCP-specific error",
    2: "Lack of resources",
    3: "Administratively prohibited",
    4: "Too much outstanding data",
    5: "Unacceptable performance",
    6: "Middlebox interference",
}


def cause(cause_id: str) -> Cause:
    """The row with this identifier.

    Raises:
        KeyError: no such cause; the message names the nearest identifiers.
    """
    row = CAUSES.get(cause_id)
    if row is None:
        near = get_close_matches(cause_id, CAUSES) or sorted(CAUSES)[:3]
        raise KeyError(f"no cause is called {cause_id!r}; near it: {', '.join(near)}")
    return row


def causes_for_reason(kernel_reason: str) -> tuple[Cause, ...]:
    """Every cause that the kernel may mean by this name, in table order; ``unknown`` if none is listed.

    Args:
        kernel_reason: a name of ``enum sk_rst_reason``, with or without its prefix.
    """
    name = kernel_reason.removeprefix("SK_RST_REASON_")
    return _BY_REASON.get(name) or (CAUSES["unknown"],)


def _group_by_reason() -> dict[str, tuple[Cause, ...]]:
    grouped: dict[str, tuple[Cause, ...]] = {}
    for row in CAUSES.values():
        for name in row.kernel_reasons:
            grouped[name] = (*grouped.get(name, ()), row)
    return grouped


_BY_REASON = _group_by_reason()
