"""Chooses, loads and attaches the BPF programs that the running kernel allows."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import re
import time
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from holdfast.errors import KernelUnavailable
from holdfast.linux.btf import Btf
from holdfast.linux.cgroups import find_mount
from holdfast.watch.kernel.programs import PROGRAMS, HookReport, Program, choose, typed_nullable

OBJECT = Path(str(files(__package__) / "holdfast.bpf.o"))
"""Where the build puts the BPF object; in an editable install that is not beside this file."""

IDLE_NS = 100_000_000
"""Silence after which closing a connection counts as closing an idle one."""

_FAILED_PROGRAM = re.compile(r"prog '(\w+)': (?:BPF program load failed|failed to load)")


class Monitor:
    """The loaded BPF object.

    Attributes:
        object: the ``holdfast._bpf.Object``.
        btf: the running kernel's type information.
        hooks: every program, attached or not, with the reason.
    """

    def __init__(self, segments: bool = True, ring_bytes: int | None = None) -> None:
        """Load and attach; see :func:`choose`.

        Raises:
            KernelUnavailable: the extension or the object was not built, BTF is missing, the rights are
                missing, or a required program was refused.
        """
        module = _extension()
        self.btf = Btf.of_kernel()
        functions = True
        programs, self.hooks = choose(self.btf, segments, functions)
        while True:
            self.object = _open(module)
            try:
                _configure(self.object, self.btf, segments, ring_bytes)
                self.object.load([program.name for program in programs])
                break
            except OSError as error:
                if functions and _failed(programs, error, "function"):
                    # Locked-down kernels refuse fentry with EPERM; nothing shows it beforehand.
                    functions = False
                    programs, self.hooks = choose(self.btf, segments, functions)
                else:
                    programs = self._without_failed(programs, error)
        for program in programs:
            self._attach(program)
        self.hooks.sort(key=lambda hook: [program.name for program in PROGRAMS].index(hook.name))

    def close(self) -> None:
        """Detach everything."""
        self.object.close()

    def _without_failed(self, programs: list[Program], error: OSError) -> list[Program]:
        failed = _failed(programs, error)
        if failed is None or failed.required:
            raise _unavailable(error) from error
        self.hooks.append(HookReport(failed.name, failed.tells, False, _why(error)))
        return [program for program in programs if program is not failed]

    def _attach(self, program: Program) -> None:
        try:
            if program.attach == "iterator":
                self.object.iterate(program.name)
            elif program.attach == "cgroup":
                self._attach_cgroup(program)
            else:
                self.object.attach(program.name)
        except OSError as error:
            if program.required:
                raise _unavailable(error) from error
            self.hooks.append(HookReport(program.name, program.tells, False, _why(error)))
        else:
            self.hooks.append(HookReport(program.name, program.tells, True))

    def _attach_cgroup(self, program: Program) -> None:
        root = find_mount()
        if root is None:
            raise OSError(2, "no cgroup v2 tree is mounted")
        directory = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            self.object.attach(program.name, directory)
        finally:
            os.close(directory)


def tick_ns() -> int:
    """Length of the kernel's jiffy: the coarse clocks advance once per tick."""
    return round(time.clock_getres(5) * 1e9)  # 5 is CLOCK_REALTIME_COARSE, which `time` does not name


def probe() -> Sequence[HookReport]:
    """Load and attach once, then let go: what :class:`Monitor` can do here.

    Raises:
        KernelUnavailable: as :class:`Monitor`.
    """
    monitor = Monitor()
    monitor.close()
    return monitor.hooks


def _extension() -> Any:
    try:
        from holdfast import _bpf
    except ImportError as error:
        raise KernelUnavailable(
            "watching by BPF",
            f"the extension holdfast._bpf, which was not built ({error}); see `holdfast doctor`",
        ) from error
    if not OBJECT.exists():
        raise KernelUnavailable(
            "watching by BPF", "the BPF object, which was not built: install clang and libbpf-dev"
        )
    return _bpf


def _failed(programs: Sequence[Program], error: OSError, attach: str | None = None) -> Program | None:
    """The program (of this kind of attachment, if one is named) that libbpf's words name as refused."""
    found = _FAILED_PROGRAM.search(str(error))
    return next((p for p in programs if found and p.name == found[1] and attach in (None, p.attach)), None)


def _open(module: Any) -> Any:
    try:
        return module.Object(str(OBJECT))
    except OSError as error:
        raise _unavailable(error) from error


def _configure(bpf: Any, btf: Btf, segments: bool, ring_bytes: int | None) -> None:
    drops = btf.enum("skb_drop_reason")
    for constant, name in _DROPS.items():
        value = drops.get(f"SKB_DROP_REASON_{name}", -1)
        bpf.set_constant(constant, value.to_bytes(4, "little", signed=True))
    bpf.set_constant("segments", bytes([segments]))
    bpf.set_constant("index_sockets", bytes([not typed_nullable(btf)]))
    bpf.set_constant("idle_ticks", (IDLE_NS // tick_ns()).to_bytes(4, "little"))
    if ring_bytes is not None:
        bpf.set_max_entries("ring", ring_bytes)


# Constants of the programs, and the names in enum skb_drop_reason whose numbers they need.
_DROPS = {
    "netfilter_drop": "NETFILTER_DROP",
    "foreign_drop": "NETFILTER_DROP",
    "no_socket_drop": "NO_SOCKET",
    "in_window_drop": "TCP_RESET",
}


def _why(error: OSError) -> str:
    return str(error.args[1]).splitlines()[0] if len(error.args) > 1 else str(error)


def _unavailable(error: OSError) -> KernelUnavailable:
    if error.errno in (1, 13):
        return KernelUnavailable("watching by BPF", "root, or the capabilities BPF, PERFMON and NET_ADMIN")
    return KernelUnavailable("watching by BPF", f"a kernel that accepts our programs ({_why(error)})")
