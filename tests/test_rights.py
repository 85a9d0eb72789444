"""A machine that can load BPF programs gets no skip; one that cannot is told why."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
from conftest import (
    CAP_BPF,
    CAP_NET_ADMIN,
    CAP_PERFMON,
    CAP_SYS_ADMIN,
    effective_capabilities,
    why_no_bpf,
    why_no_netns,
)


def mask(*bits: int) -> int:
    return sum(1 << bit for bit in bits)


@pytest.mark.parametrize(
    ("capabilities", "has_btf", "expected"),
    [
        (mask(CAP_SYS_ADMIN, CAP_NET_ADMIN), True, None),
        (mask(CAP_BPF, CAP_PERFMON, CAP_NET_ADMIN), True, None),
        (mask(CAP_BPF, CAP_NET_ADMIN), True, "needs root, or CAP_BPF and CAP_PERFMON"),
        (mask(CAP_SYS_ADMIN), True, "needs CAP_NET_ADMIN"),
        (mask(CAP_SYS_ADMIN, CAP_NET_ADMIN), False, "this kernel has no BTF (/sys/kernel/btf/vmlinux)"),
        (0, True, "needs root, or CAP_BPF and CAP_PERFMON"),
    ],
)
def test_bpf_tests_skip_only_without_rights_or_btf(
    capabilities: int, has_btf: bool, expected: str | None
) -> None:
    assert why_no_bpf(capabilities, has_btf) == expected


def test_namespace_tests_skip_only_without_rights() -> None:
    assert why_no_netns(mask(CAP_SYS_ADMIN, CAP_NET_ADMIN)) is None
    assert why_no_netns(mask(CAP_NET_ADMIN)) == "needs root (CAP_SYS_ADMIN, CAP_NET_ADMIN)"


def test_capabilities_are_read_as_the_kernel_prints_them() -> None:
    assert effective_capabilities("Name:\tx\nCapEff:\t0000000000201000\n") == 1 << 21 | 1 << 12
    assert effective_capabilities("Name:\tx\n") == 0
