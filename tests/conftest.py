"""What this machine allows, and which tests may therefore skip.

Mark a test ``needs_bpf`` or ``needs_netns``. It skips, with the reason, only where the machine cannot
do it: another system, no BTF, missing capabilities. Where the machine can, nothing turns into a skip:
a missing extension, a program that the kernel refuses or a hook that is gone fails the test.
"""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import sys
from pathlib import Path

import hypothesis
import pytest

# A busy machine must not fail a test: how long an example takes is measured in bench/, not here.
hypothesis.settings.register_profile("holdfast", deadline=None)
hypothesis.settings.load_profile("holdfast")

# Bits of CapEff, from linux/capability.h.
CAP_NET_ADMIN, CAP_SYS_ADMIN, CAP_PERFMON, CAP_BPF = 12, 21, 38, 39

AS_NOBODY = (
    "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all,+dac_read_search",
    "--ambient-caps=-all,+dac_read_search", "--bounding-set=-all,+dac_read_search", "--",
)  # fmt: skip
"""Another user, who may read our files (they can be in root's home) and has no other right."""

STATUS = Path("/proc/self/status")
BTF = Path("/sys/kernel/btf/vmlinux")


def effective_capabilities(status: str) -> int:
    """The CapEff mask in the text of a ``/proc/PID/status``; 0 if it has none."""
    for line in status.splitlines():
        if line.startswith("CapEff:"):
            return int(line.split()[1], 16)
    return 0


def why_no_bpf(capabilities: int, has_btf: bool) -> str | None:
    """Why tracing programs cannot be loaded here, or None if they can and so must."""
    held = [bit for bit in range(64) if capabilities >> bit & 1]
    if CAP_SYS_ADMIN not in held and not {CAP_BPF, CAP_PERFMON} <= set(held):
        return "needs root, or CAP_BPF and CAP_PERFMON"
    if CAP_NET_ADMIN not in held:
        return "needs CAP_NET_ADMIN"
    if not has_btf:
        return f"this kernel has no BTF ({BTF})"
    return None


def why_no_netns(capabilities: int) -> str | None:
    """Why network namespaces cannot be made and configured here, or None if they can."""
    needed = 1 << CAP_SYS_ADMIN | 1 << CAP_NET_ADMIN
    return None if capabilities & needed == needed else "needs root (CAP_SYS_ADMIN, CAP_NET_ADMIN)"


def reasons() -> dict[str, str | None]:
    """For each marker, why its tests skip on this machine, or None."""
    if sys.platform != "linux":
        return dict.fromkeys(("needs_bpf", "needs_netns"), "needs Linux")
    capabilities = effective_capabilities(STATUS.read_text())
    return {
        "needs_bpf": why_no_bpf(capabilities, BTF.exists()),
        "needs_netns": why_no_netns(capabilities),
    }


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Add the skips that this machine earns."""
    for marker, reason in reasons().items():
        for item in items:
            if reason and item.get_closest_marker(marker):
                item.add_marker(pytest.mark.skip(reason=reason))
