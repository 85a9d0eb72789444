"""The table of BPF programs: what each tells, and which kernels it fits; the choice is pure."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from holdfast.linux.btf import Btf


@dataclass(frozen=True, slots=True)
class Program:
    """One BPF program: what it tells, and the kernels it fits.

    Attributes:
        name: the C function's name.
        tells: what is lost without it, in words.
        fits: whether the kernel with this BTF has what the program needs, and allows it safely.
        needs: what ``fits`` asks for, in words.
        required: nothing works without it (or without a sibling of the same ``role``).
        role: programs of one role replace each other; the first that fits is loaded.
        attach: ``function`` is fentry or fexit, which a kernel may have and not allow.
        needless: whether another program already tells this on the kernel with this BTF.
        beside: only loaded with the program of this name.
    """

    name: str
    role: str
    tells: str
    fits: Callable[[Btf], bool]
    needs: str
    required: bool = False
    attach: str = "tracing"  # tracing, function, cgroup or iterator
    needless: Callable[[Btf], bool] = lambda btf: False
    beside: str = ""


@dataclass(frozen=True, slots=True)
class HookReport:
    """Whether a program is at work, and why not if it is not."""

    name: str
    tells: str
    attached: bool
    reason: str = ""


def typed_nullable(btf: Btf) -> bool:
    """Whether hooks whose arguments may be NULL can be typed here (trap T10)."""
    # Since 6.14 the verifier knows which tracepoint arguments may be NULL; the table's type shows it.
    # Before, it may drop a NULL check as needless, and the kernel would fault.
    return btf.has_struct("bpf_raw_tp_null_args")


def _arguments(btf: Btf, tracepoint: str) -> int:
    parameters = btf.parameters(f"btf_trace_{tracepoint}")
    return 0 if parameters is None else len(parameters) - 1  # the first is the probe's own data


def _reasoned(btf: Btf) -> bool:
    return _arguments(btf, "tcp_send_reset") >= 3


PROGRAMS: tuple[Program, ...] = (
    Program(
        "state_changed",
        "state",
        "who opened a connection, and its state before it was closed",
        lambda btf: _arguments(btf, "inet_sock_set_state") == 3,
        "tracepoint inet_sock_set_state (Linux 4.16)",
        required=True,
    ),
    Program(
        "reset_sent",
        "sent",
        "resets this host sends, with the kernel's reason",
        lambda btf: typed_nullable(btf) and _arguments(btf, "tcp_send_reset") == 3,
        "a verifier that knows nullable arguments (Linux 6.14)",
        required=True,
    ),
    Program(
        "reset_sent_untyped",
        "sent",
        "resets this host sends, with the kernel's reason",
        lambda btf: _arguments(btf, "tcp_send_reset") == 3,
        "tracepoint tcp_send_reset with a reason (Linux 6.10)",
        required=True,
    ),
    Program(
        "reset_sent_unreasoned",
        "sent",
        "resets this host decides to send, without the kernel's reason",
        lambda btf: _arguments(btf, "tcp_send_reset") == 2,
        "tracepoint tcp_send_reset (Linux 4.15)",
        required=True,
    ),
    Program(
        "passive_sent_v4",
        "passive_v4",
        "IPv4 resets in answer to segments, where the tracepoint is silent about them",
        lambda btf: _arguments(btf, "tcp_send_reset") == 2 and btf.has_function("tcp_v4_send_reset"),
        "permission for fentry",
        needless=_reasoned,
        attach="function",
    ),
    Program(
        "passive_sent_v6",
        "passive_v6",
        "IPv6 resets in answer to segments, where the tracepoint is silent about them",
        lambda btf: _arguments(btf, "tcp_send_reset") == 2 and btf.has_function("tcp_v6_send_reset"),
        "permission for fentry",
        needless=_reasoned,
        attach="function",
    ),
    Program(
        "reset_received",
        "received",
        "resets that local sockets obeyed",
        lambda btf: _arguments(btf, "tcp_receive_reset") == 1,
        "tracepoint tcp_receive_reset (Linux 4.15)",
        required=True,
    ),
    Program(
        "reset_entered",
        "segments",
        "the RST segment itself (TTL, IP ID, window), at no cost per packet",
        lambda btf: len(btf.parameters("tcp_reset") or ()) == 2,
        "permission for fentry, and tcp_reset with its segment (Linux 5.11)",
        attach="function",
    ),
    *(
        Program(
            name,
            name,
            "the TTL of the peer's first segment, at no cost per packet",
            lambda btf: True,
            "permission for fentry",
            attach="function",
            beside="reset_entered",
        )
        for name in ("connect_finished", "connection_accepted")
    ),
    Program(
        "rst_dropped",
        "ignored",
        "RSTs that were ignored",
        lambda btf: _arguments(btf, "kfree_skb") >= 3,
        "tracepoint kfree_skb with a reason (Linux 5.17)",
        beside="reset_entered",
    ),
    Program(
        "segment_arrived",
        "segments",
        "the RST segment itself (TTL, IP ID, window, options), and RSTs that were ignored",
        lambda btf: True,
        "a mounted cgroup v2 tree and CAP_NET_ADMIN",
        attach="cgroup",
    ),
    Program(
        "segment_left",
        "left",
        "RSTs that leave this host although TCP did not send them",
        lambda btf: _arguments(btf, "net_dev_queue") == 1,
        "tracepoint net_dev_queue",
    ),
    Program(
        "segment_dropped",
        "dropped",
        "whether such a RST came from a firewall rule of this host",
        lambda btf: _arguments(btf, "kfree_skb") >= 3,
        "tracepoint kfree_skb with a reason (Linux 5.17)",
    ),
    Program(
        "error_reported",
        "error",
        "timeouts and ICMP errors, which end connections without a RST",
        lambda btf: _arguments(btf, "inet_sk_error_report") == 1,
        "tracepoint inet_sk_error_report (Linux 5.14)",
    ),
    Program(
        "socket_found",
        "existing",
        "owners of sockets that were open before the start",
        lambda btf: btf.has_function("bpf_sock_from_file") or btf.has_function("sock_from_file"),
        "the task_file iterator (Linux 5.11)",
        attach="iterator",
    ),
)

_SEGMENT_ROLES = frozenset({"segments", "left", "dropped", "ignored"})


def choose(btf: Btf, segments: bool = True, functions: bool = True) -> tuple[list[Program], list[HookReport]]:
    """The programs to load on the kernel with this BTF, and why the others are left out.

    Args:
        segments: False leaves out the programs that look at packets.
        functions: False leaves out fentry and fexit, for a kernel that does not allow them.
    """
    chosen: dict[str, Program] = {}
    refused: list[tuple[Program, str]] = []
    for program in PROGRAMS:
        beside = {one.name for one in chosen.values()} | {""}
        if program.role in chosen or program.needless(btf) or program.beside not in beside:
            continue
        if not segments and program.role in _SEGMENT_ROLES:
            refused.append((program, "turned off"))
        elif program.attach == "function" and not functions:
            refused.append((program, f"needs {program.needs}"))
        elif program.fits(btf):
            chosen[program.role] = program
        else:
            refused.append((program, f"needs {program.needs}"))
    # A program whose role another plays is not missed.
    missed = [(program, why) for program, why in refused if program.role not in chosen]
    return list(chosen.values()), [HookReport(one.name, one.tells, False, why) for one, why in missed]
