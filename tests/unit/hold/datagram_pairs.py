"""Both implementations, and two ends of every kind of datagram socket."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import importlib
import os
import shutil
import socket
import sysconfig
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from holdfast.hold import datagrams
from holdfast.hold.datagrams import Address


def why_no_native() -> str | None:
    """Why ``holdfast._native`` cannot be built here, or None if it can and so must be there."""
    if not any(map(shutil.which, ("cc", "gcc", "clang"))):
        return "no C compiler"
    header = Path(sysconfig.get_path("include")) / "Python.h"
    return None if header.exists() else "no Python.h"


NATIVE = pytest.param(
    "holdfast._native",
    id="native",
    marks=pytest.mark.skipif(why_no_native() is not None, reason=str(why_no_native())),
)
BOTH = [NATIVE, pytest.param("holdfast.hold.datagrams_portable", id="portable")]


def use(implementation: str, patch: pytest.MonkeyPatch) -> None:
    """Have the public calls use this one."""
    calls = importlib.import_module(implementation)
    patch.setattr(datagrams, "recv_datagrams", calls.recv_datagrams)
    patch.setattr(datagrams, "send_datagrams", calls.send_datagrams)


@dataclass
class Ends:
    receiver: socket.socket
    sender: socket.socket
    to: Address  # what the sender must say to reach the receiver


KINDS = [
    "udp4",
    pytest.param(
        "udp6",
        marks=pytest.mark.skipif(not Path("/proc/net/if_inet6").exists(), reason="this kernel has no IPv6"),
    ),
    "udp4 connected",
    "unix path",
    "unix abstract",
    "unix pair",
]


@contextmanager
def ends(kind: str = "udp4") -> Iterator[Ends]:
    """Two sockets of a kind; blocking, closed at the end."""
    with ExitStack() as stack:
        if kind == "unix pair":
            receiver, sender = map(stack.enter_context, socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM))
            yield Ends(receiver, sender, None)
            return
        family = {"udp6": socket.AF_INET6, "unix": socket.AF_UNIX}.get(kind.split()[0], socket.AF_INET)
        made = [stack.enter_context(socket.socket(family, socket.SOCK_DGRAM)) for _ in range(2)]
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        for place, one in enumerate(made):
            one.bind({
                "udp6": ("::1", 0),
                "unix path": f"{folder}/{place}",
                "unix abstract": f"\0holdfast-{os.getpid()}-{folder}-{place}",
            }.get(kind, ("127.0.0.1", 0)))  # fmt: skip
        receiver, sender = made
        if kind.endswith("connected"):
            sender.connect(receiver.getsockname())
            receiver.connect(sender.getsockname())
            yield Ends(receiver, sender, None)
            return
        yield Ends(receiver, sender, receiver.getsockname())


def refused_port() -> tuple[str, int]:
    """An address where nothing listens."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.bind(("127.0.0.1", 0))
        address: tuple[str, int] = one.getsockname()
        return address
