# SPDX-License-Identifier: Apache-2.0
"""Every errno at every system call: retried, waited for, typed or passed on, the same with and without C."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent

RETRIED = ("EINTR", "EAGAIN")
TYPED = {
    "ECONNRESET": "ConnectionReset ECONNRESET",
    "ETIMEDOUT": "ConnectionTimedOut ETIMEDOUT",
    "EHOSTUNREACH": "ConnectionUnreachable EHOSTUNREACH",
    "EPIPE": "ConnectionClosed EPIPE",
}
MISTAKES = {"EFAULT": "OSError EFAULT", "ENOMEM": "OSError ENOMEM", "EBADF": "OSError EBADF"}
EXPECTED = {
    f"{kind}, {name}: {error}": answer
    for kind, name, done in (
        ("recv", "recv", "data"),
        ("recv waiting", "poll", "late"),
        ("sendall", "send", "sent 1000"),
    )
    for error, answer in {**dict.fromkeys(RETRIED, done), **TYPED, **MISTAKES}.items()
}
# poll() itself never says EAGAIN on Linux; a failure of it is none of the connection.
NOT_RETRIED = {"recv waiting, poll: EAGAIN": "BlockingIOError EAGAIN"}


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    library = tmp_path_factory.mktemp("inject") / "inject.so"
    command = ["cc", "-shared", "-fPIC", "-o", str(library), str(HERE / "inject.c"), "-ldl"]
    subprocess.run(command, check=True, timeout=60)
    return library


@pytest.mark.parametrize("build", ["native", "portable"])
def test_each_error_at_each_call(library: Path, build: str) -> None:
    answer = subprocess.run(
        [sys.executable, str(HERE / "injected.py"), build],
        env={**os.environ, "LD_PRELOAD": str(library)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert answer.returncode == 0, answer.stderr
    assert json.loads(answer.stdout) == {**EXPECTED, **NOT_RETRIED}
