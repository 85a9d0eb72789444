# SPDX-License-Identifier: Apache-2.0
"""Capabilities are named from the mask in /proc."""

from __future__ import annotations

from pathlib import Path

import pytest

from holdfast.linux import capabilities


def status(proc: Path, text: str) -> Path:
    (proc / "self").mkdir()
    (proc / "self" / "status").write_text(text)
    return proc


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("CapEff:\t0000000000000000", set()),
        ("CapEff:\t0000000000001000", {"CAP_NET_ADMIN"}),
        ("CapEff:\t000000c000280000", {"CAP_SYS_ADMIN", "CAP_SYS_PTRACE", "CAP_BPF", "CAP_PERFMON"}),
        ("CapEff:\t000001ffffffffff", set(capabilities.NAMES)),
        ("CapEff:\tffffffffffffffff", set(capabilities.NAMES)),
        ("CapPrm:\tffffffffffffffff", set()),
        ("CapEff:\tnonsense", set()),
        ("CapEff:", set()),
        ("", set()),
    ],
)
def test_effective(tmp_path: Path, line: str, names: set[str]) -> None:
    assert capabilities.effective(proc=status(tmp_path, f"Name:\tx\n{line}\n")) == names


def test_a_process_that_is_gone_has_none(tmp_path: Path) -> None:
    assert capabilities.effective(7, tmp_path) == frozenset()


@pytest.mark.parametrize(
    ("text", "initial"),
    [("         0          0 4294967295\n", True), ("0 1000 1\n", False), ("", False), (None, True)],
)
def test_user_namespaces(tmp_path: Path, text: str | None, initial: bool) -> None:
    status(tmp_path, "")
    if text is not None:
        (tmp_path / "self" / "uid_map").write_text(text)
    assert capabilities.in_initial_user_namespace(tmp_path) == initial
