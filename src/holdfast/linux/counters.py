"""TCP counters of a network namespace: ``/proc/<pid>/net/snmp`` and ``netstat``."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from holdfast.errors import KernelUnavailable
from holdfast.linux.namespaces import PROC

_GROUPS = frozenset({"Tcp", "TcpExt", "MPTcpExt"})
# Levels and settings that share the files with the counters.
_NOT_COUNTERS = frozenset({"RtoAlgorithm", "RtoMin", "RtoMax", "MaxConn", "CurrEstab", "MPCurrEstab"})


class Refusal(NamedTuple):
    """A counter of what the receive path did not take: the kernel's name, and what it counts."""

    name: str
    words: str


REFUSALS = (
    # Outside the window.
    Refusal("BeyondWindow", "segments with data beyond the window"),  # since Linux 6.17
    Refusal("TCPACKSkippedSeq", "segments out of window, left unanswered to save ACKs"),
    Refusal("TCPChallengeACK", "RSTs, SYNs and ACKs out of window, answered by a challenge ACK"),
    Refusal("TCPSYNChallenge", "SYNs on an open connection, answered by a challenge ACK"),
    Refusal("OutOfWindowIcmps", "ICMP errors that quoted a segment out of window"),
    # PAWS, RFC 7323: older than what has come before.
    Refusal("PAWSEstab", "segments with an old timestamp"),
    Refusal("PAWSActive", "answers to our SYNs with a wrong timestamp"),
    Refusal("PAWSOldAck", "overtaken ACKs with an old timestamp"),  # since Linux 6.14
    Refusal("PAWSTimewait", "segments with an old timestamp for a TIME_WAIT"),  # since Linux 6.15
    Refusal("TSEcrRejected", "handshakes that echo a timestamp never sent"),  # since Linux 6.15
    # No room.
    Refusal("TCPZeroWindowDrop", "segments with data while the window was closed"),
    Refusal("TCPRcvQDrop", "segments for which the receive queue had no memory"),
    Refusal("RcvPruned", "segments dropped because pruning the receive queue did not help"),
    Refusal("PruneCalled", "times a receive queue was over its buffer and was pruned"),
    Refusal("OfoPruned", "times segments that had arrived out of order were thrown away"),
    Refusal("TCPOFODrop", "segments out of order dropped for lack of memory"),
    Refusal("TCPBacklogDrop", "segments over the backlog of a socket in use"),
    Refusal("PFMemallocDrop", "segments in memory that is kept for swapping"),
    # New connections.
    Refusal("ListenOverflows", "connections over a full accept queue"),
    Refusal("ListenDrops", "connections dropped by a listener for any reason"),
    Refusal("TCPReqQFullDrop", "SYNs over a full queue of half-open connections"),
    Refusal("TCPReqQFullDoCookies", "SYNs over a full queue, answered by a SYN cookie"),
    Refusal("TCPFastOpenListenOverflow", "Fast Open SYNs over a listener's limit"),
    Refusal("TCPDeferAcceptDrop", "ACKs without data at a listener that waits for data"),
    # Damaged, unsigned, from too far away.
    Refusal("InErrs", "damaged segments, wrong checksums included"),
    Refusal("InCsumErrors", "segments with a wrong checksum"),
    Refusal("TCPMinTTLDrop", "segments from too far away (IP_MINTTL)"),
    Refusal("TCPMD5NotFound", "segments without the TCP-MD5 signature they need"),
    Refusal("TCPMD5Unexpected", "segments with a TCP-MD5 signature not asked for"),
    Refusal("TCPMD5Failure", "segments with a wrong TCP-MD5 signature"),
    Refusal("TCPAORequired", "segments without the TCP-AO signature they need"),  # since Linux 6.7
    Refusal("TCPAOBad", "segments with a wrong TCP-AO signature"),
    Refusal("TCPAOKeyNotFound", "segments signed with an unknown TCP-AO key"),
)
"""What a network namespace refused. A counter may include another (``ListenDrops`` has the overflows)."""


def refused(counts: Mapping[str, int]) -> dict[str, int | None]:
    """The counters of :data:`REFUSALS`, in their order; None for one that this kernel does not have."""
    return {refusal.name: counts.get(refusal.name) for refusal in REFUSALS}


def parse(text: str) -> dict[str, int]:
    """Counters by the kernel's names, from the text of ``snmp``, ``netstat`` or both joined.

    Only TCP and MPTCP groups are kept, levels and settings are left out. Lines that do not pair up
    are skipped, so damaged text gives fewer counters, never an error.
    """
    found: dict[str, int] = {}
    names: list[str] = []
    for line in text.splitlines():
        words = line.split()
        if not words or words[0].rstrip(":") not in _GROUPS:
            names = []
        elif names and names[0] == words[0]:
            for name, value in zip(names[1:], words[1:], strict=False):
                if name not in _NOT_COUNTERS and value.isascii() and value.isdecimal():
                    found[name] = int(value)
            names = []
        else:
            names = words
    return found


def read(pid: int | str = "self", proc: Path = PROC) -> dict[str, int]:
    """Counters of the network namespace that ``pid`` lives in.

    Raises:
        KernelUnavailable: the process is gone, or its files are not ours to read.
    """
    folder = proc / str(pid) / "net"
    try:
        text = "\n".join((folder / name).read_text("ascii", "replace") for name in ("snmp", "netstat"))
    except OSError as error:
        needs = f"a living process ({error.strerror})"
        raise KernelUnavailable(f"Reading TCP counters of process {pid}", needs) from error
    return parse(text)


def delta(before: Mapping[str, int], after: Mapping[str, int]) -> dict[str, int]:
    """What was counted between two readings; only names that moved.

    A counter that went backwards belongs to a new namespace: it is counted from zero.
    """
    moved = {}
    for name, value in after.items():
        old = before.get(name, 0)
        if value != old:
            moved[name] = value - old if value > old else value
    return {name: count for name, count in moved.items() if count}
