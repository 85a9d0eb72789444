"""Private networks to measure in: they live as long as this process, and nothing reaches them."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self, TypeVar

from holdfast.linux import counters

T = TypeVar("T")

_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


class Namespace:
    """A network namespace with a thread inside; gone when closed or when this process ends."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1)
        self._descriptor: int = self.call(_unshare)
        self.path = f"/proc/{os.getpid()}/fd/{self._descriptor}"
        self.inode = os.fstat(self._descriptor).st_ino

    def call(self, work: Callable[[], T]) -> T:
        """What ``work`` returns when run inside."""
        return self._thread.submit(work).result(60)

    def start(self, command: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
        """A process inside; options as of ``subprocess.Popen``."""
        return self.call(lambda: subprocess.Popen(command, **options))

    def run(self, command: Sequence[str], stdin: bytes = b"", limit_s: float = 60) -> str:
        """Standard output of a process that ran inside.

        Raises:
            RuntimeError: it failed; with its words.
        """
        process = self.start(command, stdin=-1, stdout=-1, stderr=-1)
        try:
            output, error = process.communicate(stdin, timeout=limit_s)
        finally:
            process.kill()
        if process.returncode:
            raise RuntimeError(f"{command[0]}: {error.decode(errors='replace').strip()}")
        return output.decode()

    def set(self, **settings: str) -> None:
        """Settings below ``net.ipv4``."""
        for name, value in settings.items():
            self.run(["sysctl", "-qw", f"net.ipv4.{name}={value}"])

    def counters(self) -> dict[str, int]:
        """The TCP counters of the namespace."""
        return self.call(lambda: counters.read("thread-self"))

    def close(self) -> None:
        """Leave it; the kernel removes it when no process is inside."""
        self._thread.shutdown()
        os.close(self._descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _unshare() -> int:
    if _libc.unshare(_CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "making a network namespace")
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


SOURCE_IP, TARGET_IP = "10.99.0.1", "10.99.0.2"
SOURCE_MAC, TARGET_MAC = "02:00:00:00:99:01", "02:00:00:00:99:02"


class Pair:
    """Two namespaces joined by a veth cable: frames leave ``source`` by v0 and reach ``target`` by v1."""

    def __init__(self) -> None:
        self.source, self.target = Namespace(), Namespace()
        self.source.run(
            f"ip link add v0 address {SOURCE_MAC} type veth"
            f" peer name v1 address {TARGET_MAC} netns {self.target.path}".split()
        )
        for space, name, address in ((self.source, "v0", SOURCE_IP), (self.target, "v1", TARGET_IP)):
            space.run(["ip", "address", "add", f"{address}/16", "dev", name])
            space.run(["ip", "link", "set", name, "up"])
        self.source.run(f"ip neighbour add {TARGET_IP} lladdr {TARGET_MAC} dev v0".split())

    def close(self) -> None:
        """Remove both."""
        self.source.close()
        self.target.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
