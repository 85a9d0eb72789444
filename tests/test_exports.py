"""What ``import holdfast`` offers: exactly these names, importable without a kernel, rights or network."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import subprocess
import sys

import holdfast

PUBLIC = [
    "Backoff",
    "BlockingSession",
    "Cancelled",
    "CauseSource",
    "Connection",
    "ConnectionAborted",
    "ConnectionClosed",
    "ConnectionLost",
    "ConnectionRefused",
    "ConnectionReset",
    "ConnectionTimedOut",
    "ConnectionUnreachable",
    "DeadlineExceeded",
    "Explanation",
    "FastOpen",
    "GaveUp",
    "HoldfastError",
    "KeepAlive",
    "KernelUnavailable",
    "LimitExceeded",
    "NotTrusted",
    "PROFILES",
    "ReplayRefused",
    "RetryBudget",
    "RetryPolicy",
    "Retrying",
    "Session",
    "SessionEvent",
    "SessionLost",
    "SessionPolicy",
    "SessionServer",
    "SocketPolicy",
    "Stream",
    "TlsError",
    "Truncated",
    "UsageError",
    "apply",
    "connect",
    "connect_async",
    "effective",
    "recv",
    "recv_into",
    "retry",
    "retrying",
    "sendall",
    "serve",
    "wrap",
]

# Loading any of these from `import holdfast` would cost every user who only wants an error class.
HEAVY = ["holdfast._bpf", "holdfast.watch.kernel", "holdfast.hold", "rich", "click", "asyncio", "ssl"]


# Opens a session after one name was asked for, and says what that has loaded of ours and of what we need.
OPENING = """
import asyncio, sys, holdfast
from holdfast import SessionPolicy
before = set(sys.modules)

async def handle(session):
    await session.recv()

async def main():
    async with holdfast.serve(handle, "tcp://127.0.0.1:0") as server:
        async with holdfast.connect(server.url) as session:
            await session.send_eof()

asyncio.run(main())
loaded = sorted(set(sys.modules) - before)
print([name for name in loaded if name.startswith(("holdfast", "google", "cryptography"))])
"""


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


def test_a_session_without_its_packages_says_what_to_install() -> None:
    """As somebody meets it who installed ``holdfast`` alone."""
    code = (
        "import sys; sys.modules['google'] = None\n"
        "try:\n    from holdfast import Session\n"
        "except ImportError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'holdfast[session]'" in done.stdout


def test_who_names_a_part_of_sessions_has_all_of_them_loaded() -> None:
    """What is loaded within an event loop makes everybody there wait, for 0.15 s in all."""
    answer = subprocess.run(
        [sys.executable, "-c", OPENING], capture_output=True, text=True, check=True, timeout=30
    )
    assert answer.stdout == "[]\n"
