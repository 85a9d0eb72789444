"""The virtual machine of ``make kernel-test`` runs what it is given, and says how it ended."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
WORDS = ["two words", "it's"]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not shutil.which("qemu-system-x86_64") or not list(ROOT.glob("build/kernel-test/*/complete")),
        reason="needs what `make kernel-test` installs and fetches",
    ),
]


def run(*command: str, limit_s: int = 200) -> subprocess.CompletedProcess[str]:
    tool = [str(ROOT / "tools" / "kernel-test"), "--limit", str(limit_s), "--", *command]
    return subprocess.run(tool, capture_output=True, text=True, timeout=limit_s + 30)


def test_a_command_runs_on_the_other_kernel_with_this_checkout() -> None:
    code = "import os, sys, holdfast; print(os.uname().release, holdfast.__file__, sys.argv[1:]); sys.exit(7)"
    done = run(".venv/bin/python", "-c", code, *WORDS)
    (kernel,) = (path.parent.name for path in ROOT.glob("build/kernel-test/*/complete"))
    expected = f"{kernel.removeprefix('linux-image-')} {ROOT / 'src/holdfast/__init__.py'} {WORDS}\n"
    assert (done.returncode, done.stdout) == (7, expected)


def test_what_it_writes_into_the_checkout_is_gone_afterwards() -> None:
    done = run("bash", "-c", "echo x > tests/vm/written && cat tests/vm/written")
    assert (done.returncode, done.stdout) == (0, "x\n")
    assert not (ROOT / "tests" / "vm" / "written").exists()


def test_a_crash_of_its_kernel_is_no_answer_of_the_command() -> None:
    done = run("bash", "-c", "echo c > /proc/sysrq-trigger")
    assert done.returncode == 125
    assert "the virtual machine ended early" in done.stderr


def test_the_limit_ends_it() -> None:
    done = run("sleep", "100", limit_s=8)
    assert done.returncode == 124
    assert "stopped after 8 s" in done.stderr
