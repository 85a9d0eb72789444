"""What ``import holdfast`` offers: exactly these names, importable without a kernel, rights or network."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import subprocess
import sys

import holdfast

PUBLIC = ["HoldfastError", "KernelUnavailable", "UsageError"]

# Loading any of these from `import holdfast` would cost every user who only wants an error class.
HEAVY = ["holdfast._bpf", "holdfast.watch.kernel", "rich", "click"]


def test_the_public_names_are_exactly_these() -> None:
    assert sorted(holdfast.__all__) == PUBLIC


def test_every_public_name_is_there_and_described() -> None:
    undescribed = [name for name in holdfast.__all__ if not getattr(holdfast, name).__doc__]
    assert undescribed == []


def test_importing_holdfast_loads_nothing_heavy() -> None:
    code = f"import sys, holdfast; print([name for name in {HEAVY} if name in sys.modules])"
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30
    )
    assert answer.stdout == "[]\n"
