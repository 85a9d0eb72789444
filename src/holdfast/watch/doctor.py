"""What this machine can tell of its resets: the step it gets, why not a better one, and risky settings."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import importlib
import os
import shlex
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from holdfast.errors import HoldfastError
from holdfast.linux import capabilities, sysctls
from holdfast.linux.btf import Btf
from holdfast.linux.cgroups import find_mount
from holdfast.linux.sysctls import Verdict, judge
from holdfast.watch.kernel import load
from holdfast.watch.kernel.abilities import BY_NAME, missing, parse_release
from holdfast.watch.sockdiag import SockDiagSource
from holdfast.watch.tracepoint.source import TracepointSource

BUILD = "make setup"
"""Builds what is missing; as root it also installs what the build needs."""

INSTALL_AND_BUILD = f"sudo apt install clang libbpf-dev pkg-config && {BUILD}"


def as_root() -> str:
    """A command that asks again as root, whether or not this program is in the path."""
    path = os.path.abspath(sys.argv[0])
    program = [sys.executable, "-m", "holdfast"] if path.endswith("__main__.py") else [path]
    return shlex.join(["sudo", *program, "doctor"])


class Hook(NamedTuple):
    """A BPF program: whether it is at work, what is lost without it, and why it is not."""

    name: str
    tells: str
    attached: bool
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Facts:
    """What was found, before any judgement. An ``*_error`` is None where the thing works.

    Attributes:
        release, machine: as ``uname`` says.
        capabilities: effective ones, by name.
        host_rights: the capabilities hold for the whole kernel, not only in a user namespace.
        btf_error, extension_error, object_error: type information; ``holdfast._bpf``; the BPF object file.
        hooks, hooks_error: what loading the BPF programs gave.
        tracepoints_error, sock_diag_error: what opening the other two sources gave.
        cgroup_mount: where control groups version 2 are mounted.
        restrictions: ``/proc/sys/kernel`` settings and the lockdown mode, None where unknown.
        settings: values of :mod:`holdfast.linux.sysctls`.
    """

    release: str = ""
    machine: str = ""
    capabilities: frozenset[str] = frozenset()
    host_rights: bool = True
    btf_error: str | None = None
    extension_error: str | None = None
    object_error: str | None = None
    hooks: tuple[Hook, ...] = ()
    hooks_error: str | None = None
    tracepoints_error: str | None = None
    sock_diag_error: str | None = None
    cgroup_mount: str | None = None
    restrictions: tuple[tuple[str, str | None], ...] = ()
    settings: tuple[tuple[str, str | None], ...] = ()


@dataclass(frozen=True, slots=True)
class Step:
    """One of the three ways to watch; ``why_not`` and ``fix`` are empty where it works."""

    number: int
    name: str
    tells: str
    works: bool
    why_not: str = ""
    fix: str = ""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that a step stands on."""

    name: str
    ok: bool
    found: str


@dataclass(frozen=True, slots=True)
class Right:
    """A capability, whether this process has it, and what for."""

    name: str
    held: bool
    why: str


@dataclass(frozen=True, slots=True)
class Setting:
    """A kernel setting with its verdict (``fine``, ``note``, ``risky``, ``absent``) and advice."""

    name: str
    value: str | None
    verdict: str
    decides: str
    advice: str


@dataclass(frozen=True, slots=True)
class Report:
    """Everything ``holdfast doctor`` says; the fields are the keys of its ``--json``.

    Attributes:
        step: number of the best step that works, 0 for none.
        steps: all three, best first.
        checks: what the steps stand on.
        rights: capabilities, and why each is wanted.
        hooks: BPF programs, attached or why not; empty where BPF was not tried.
        cannot_tell: what this kernel version keeps to itself, in sentences.
        notes: what works in another way than it could, in sentences.
        settings: every setting that decides how this host resets.
    """

    kernel: str
    machine: str
    step: int
    steps: tuple[Step, ...]
    checks: tuple[Check, ...]
    rights: tuple[Right, ...]
    hooks: tuple[Hook, ...]
    cannot_tell: tuple[str, ...]
    settings: tuple[Setting, ...]
    notes: tuple[str, ...] = ()
    schema: int = 1

    @property
    def exit_code(self) -> int:
        """0 for step 1, 1 for a lesser step, 3 if nothing works."""
        return {1: 0, 0: 3}.get(self.step, 1)

    def as_json(self) -> dict[str, Any]:
        """The report as plain values; the keys are stable."""
        return asdict(self) | {"hooks": [hook._asdict() for hook in self.hooks]}


_RIGHTS: tuple[tuple[str, str], ...] = (
    ("CAP_BPF", "Step 1: load BPF programs (before Linux 5.8: CAP_SYS_ADMIN)."),
    ("CAP_PERFMON", "Steps 1 and 2: attach to the kernel's tracepoints."),
    ("CAP_NET_ADMIN", "Step 1: see the RST segments that arrive and leave."),
    ("CAP_SYS_ADMIN", "Step 2: read tracefs where it is not mounted. All steps: look into other namespaces."),
    ("CAP_SYS_PTRACE", "Name the processes and modules of other users."),
    ("CAP_SYSLOG", "Name the kernel functions in a call path where kptr_restrict hides them."),
)


def assess(facts: Facts) -> Report:
    """The judgement on what was found."""
    steps = (_bpf(facts), _tracepoints(facts), _no_rights(facts))
    return Report(
        kernel=facts.release,
        machine=facts.machine,
        step=next((step.number for step in steps if step.works), 0),
        steps=steps,
        checks=_checks(facts),
        rights=tuple(Right(name, _held(facts, name), why) for name, why in _RIGHTS),
        hooks=facts.hooks,
        cannot_tell=_cannot_tell(facts.release),
        settings=tuple(
            Setting(j.name, j.value, j.verdict.value, j.decides, j.advice)
            for j in judge(dict(facts.settings))
        ),
        notes=_notes(facts),
    )


def _held(facts: Facts, name: str) -> bool:
    return facts.host_rights and name in facts.capabilities


def _bpf(facts: Facts) -> Step:
    tells = "every reset: its cause, its owner, its call path, the bytes lost"
    held = {name for name in facts.capabilities if facts.host_rights}
    lacking = [] if "CAP_SYS_ADMIN" in held else [n for n in ("CAP_BPF", "CAP_PERFMON") if n not in held]
    lacking += [] if "CAP_NET_ADMIN" in held else ["CAP_NET_ADMIN"]
    build = BUILD if "CAP_SYS_ADMIN" in held else INSTALL_AND_BUILD
    if facts.extension_error is not None:
        why, fix = f"The extension holdfast._bpf does not load: {facts.extension_error}.", build
    elif facts.object_error is not None:
        why, fix = f"The BPF programs are not there: {facts.object_error}.", build
    elif facts.btf_error is not None:
        why, fix = f"This kernel has no usable BTF: {facts.btf_error}", ""
    elif not facts.host_rights:
        why, fix = "This process runs in a user namespace; its rights end there.", as_root()
    elif facts.hooks_error is None:
        return Step(1, "BPF", tells, True)
    elif lacking:
        why, fix = f"This process lacks {_words(lacking)}.", as_root()
    else:
        why, fix = facts.hooks_error, ""
    return Step(1, "BPF", tells, False, why, fix)


def _tracepoints(facts: Facts) -> Step:
    tells = "resets that TCP sends or obeys: cause and caller, but no segments and few owners"
    if facts.tracepoints_error is None:
        return Step(2, "tracepoints", tells, True)
    rights = facts.host_rights and "CAP_SYS_ADMIN" in facts.capabilities
    return Step(2, "tracepoints", tells, False, facts.tracepoints_error, "" if rights else as_root())


def _no_rights(facts: Facts) -> Step:
    tells = "connections as they end, and rates; no causes, no owners"
    if facts.sock_diag_error is None:
        return Step(3, "no rights", tells, True)
    return Step(3, "no rights", tells, False, facts.sock_diag_error, "sudo modprobe tcp_diag")


def _words(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _checks(facts: Facts) -> tuple[Check, ...]:
    def check(name: str, error: str | None, good: str) -> Check:
        return Check(name, error is None, good if error is None else error)

    mount = facts.cgroup_mount
    return (
        check("BTF", facts.btf_error, "The kernel describes its own types."),
        check("extension", facts.extension_error, "holdfast._bpf is built and loads."),
        check("programs", facts.object_error, "The BPF object file is installed."),
        Check("cgroup v2", mount is not None, f"Mounted at {mount}." if mount else "Not mounted."),
        *(Check(name, *_restriction(name, value)) for name, value in facts.restrictions),
    )


# What each value means, and whether it leaves Holdfast what it needs.
_RESTRICTIONS: Mapping[str, Mapping[str, tuple[bool, str]]] = {
    "unprivileged_bpf_disabled": {
        "0": (True, "Every user may load some BPF programs."),
        "1": (True, "BPF needs CAP_BPF, until the next boot."),
        "2": (True, "BPF needs CAP_BPF."),
    },
    "perf_event_paranoid": {
        "-1": (True, "Tracepoints are open to every user."),
        "0": (True, "Tracepoints need CAP_PERFMON."),
        "1": (True, "Tracepoints need CAP_PERFMON."),
        "2": (True, "Tracepoints need CAP_PERFMON."),
        "3": (True, "All of perf needs CAP_PERFMON."),
        "4": (True, "All of perf needs CAP_PERFMON."),
    },
    "kptr_restrict": {
        "0": (True, "Kernel addresses are shown to those with CAP_SYSLOG."),
        "1": (True, "Kernel addresses are shown to those with CAP_SYSLOG."),
        "2": (False, "Kernel addresses are hidden from all: call paths without BPF have no names."),
    },
    "lockdown": {
        "none": (True, "The kernel is not locked down."),
        "integrity": (True, "The kernel protects itself; tracing is allowed."),
        "confidentiality": (False, "The kernel keeps its memory to itself: BPF and perf are refused."),
    },
}


def _restriction(name: str, value: str | None) -> tuple[bool, str]:
    if value is None:
        return True, "Not known here."
    fine, words = _RESTRICTIONS[name].get(value, (True, "An unknown value."))
    return fine, f"{value}: {words}"


def _cannot_tell(release: str) -> tuple[str, ...]:
    try:
        return tuple(ability.without for ability in missing(parse_release(release)))
    except ValueError:
        return ()


_LOOKS_AT_PACKETS = (
    "This kernel does not let Holdfast attach to functions (fentry), so the RST segments are found by a "
    "filter on arriving packets: the same is seen, at some cost for each packet."
)


def _notes(facts: Facts) -> tuple[str, ...]:
    try:
        release = parse_release(facts.release)
    except ValueError:
        return ()
    filtered = any(hook.attached and hook.name == "segment_arrived" for hook in facts.hooks)
    return (_LOOKS_AT_PACKETS,) if filtered and release >= BY_NAME["received_segment"].since else ()


def attention(report: Report) -> tuple[Setting, ...]:
    """The settings that need a look, the risky ones first."""
    order = {Verdict.RISKY.value: 0, Verdict.NOTE.value: 1}
    found = [setting for setting in report.settings if setting.verdict in order]
    return tuple(sorted(found, key=lambda setting: order[setting.verdict]))


def collect() -> Facts:
    """What is found here and now. Tries every source and lets go of it again; never raises."""
    btf = _error_of(lambda: Btf.of_kernel())
    extension = _error_of(lambda: importlib.import_module("holdfast._bpf"))
    no_object = None if load.OBJECT.exists() else f"there is no {load.OBJECT.name}; the build left it out"
    hooks: tuple[Hook, ...] = ()
    hooks_error = None
    if btf is None and extension is None and no_object is None:
        found: list[Hook] = []
        hooks_error = _error_of(lambda: found.extend(_probe()))
        hooks = tuple(found)
    return Facts(
        release=os.uname().release,
        machine=os.uname().machine,
        capabilities=capabilities.effective(),
        host_rights=capabilities.in_initial_user_namespace(),
        btf_error=btf,
        extension_error=extension,
        object_error=no_object,
        hooks=hooks,
        hooks_error=hooks_error,
        tracepoints_error=_error_of(lambda: _try(TracepointSource(ring_bytes=1 << 16))),
        sock_diag_error=_error_of(lambda: _try(SockDiagSource())),
        cgroup_mount=None if (mount := find_mount()) is None else str(mount),
        restrictions=tuple((name, _read_restriction(name)) for name in _RESTRICTIONS),
        settings=tuple(sysctls.read().items()),
    )


def parse_lockdown(text: str) -> str | None:
    """The mode in force in ``/sys/kernel/security/lockdown``, which lists all and brackets one."""
    _, _, rest = text.partition("[")
    mode, bracket, _ = rest.partition("]")
    return mode if bracket else None


def _read_restriction(name: str) -> str | None:
    if name != "lockdown":
        return sysctls.read_one(f"kernel.{name}")
    try:
        return parse_lockdown(Path("/sys/kernel/security/lockdown").read_text("ascii", "replace"))
    except OSError:
        return None


def _probe() -> list[Hook]:
    return [Hook(hook.name, hook.tells, hook.attached, hook.reason) for hook in load.probe()]


def _try(source: TracepointSource | SockDiagSource) -> None:
    with source:
        pass


def _error_of(attempt: Callable[[], object]) -> str | None:
    try:
        attempt()
    except HoldfastError as error:
        return str(error)
    except Exception as error:  # noqa: BLE001  a diagnosis must outlive whatever it finds
        return f"{type(error).__name__}: {error}"
    return None
