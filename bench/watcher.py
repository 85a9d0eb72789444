"""A process that runs Holdfast as ``holdfast watch --json`` does, loading it and letting go on demand.

Commands are JSON lines on standard input, each answered by one line on standard output. Records are
written as JSON to /dev/null: they are made in full, and nobody's terminal slows us down.
"""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import os
import resource
import select
import subprocess
import sys
from types import TracebackType
from typing import IO, Any, Self

from holdfast.watch.kernel.source import KernelSource
from holdfast.watch.session import Session


class Consumer:
    """The loop of the child process."""

    def __init__(self, out: IO[str]) -> None:
        self._out = out
        self._source: KernelSource | None = None
        self._session: Session | None = None
        self._records = 0

    def obey(self, do: str, **settings: Any) -> dict[str, Any]:
        """The answer to one command."""
        if do == "start":
            self._source = KernelSource(**settings)
            self._session = Session(self._source)
            self._records = 0
            return {}
        assert self._source is not None and self._session is not None
        if do == "stop":
            self._source.close()
            self._source = self._session = None
            return {}
        self.poll()
        totals = self._source.totals()
        return {
            "records": self._records,
            "folded": self._source.folded,
            "lost": self._source.lost(),
            "uncounted": self._source.uncounted(),
            "hurried": self._session.hurried,
            "totals": [[event.kind.value, event.netns, count] for event, count in totals],
            **cpu_and_memory(),
        }

    def poll(self) -> None:
        """Take in what happened and write the records that settled."""
        if self._session is None:
            return
        for reset in self._session.poll():
            self._records += 1
            self._out.write(json.dumps(reset.as_json(), ensure_ascii=False) + "\n")

    def pause_s(self) -> float | None:
        """How long to wait for a command."""
        return None if self._session is None else self._session.pause_s()


def cpu_and_memory() -> dict[str, float]:
    """User and system seconds of this process so far, and its resident bytes."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    with open("/proc/self/statm") as file:
        pages = int(file.read().split()[1])
    return {
        "user_s": usage.ru_utime,
        "system_s": usage.ru_stime,
        "rss_bytes": pages * os.sysconf("SC_PAGE_SIZE"),
    }


def main() -> None:
    """Obey until standard input ends."""
    with open(os.devnull, "w") as out:
        consumer = Consumer(out)
        while True:
            ready, _, _ = select.select([sys.stdin], [], [], consumer.pause_s())
            if not ready:
                consumer.poll()
                continue
            line = sys.stdin.readline()
            if not line:
                return
            print(json.dumps(consumer.obey(**json.loads(line))), flush=True)


class Watcher:
    """The other end: a child process that is there as long as this object is open."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.watcher"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ask(self, do: str, **settings: Any) -> dict[str, Any]:
        """Have it ``start`` (arguments of KernelSource), ``report`` or ``stop``.

        Raises:
            RuntimeError: it died; its words are on standard error.
        """
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps({"do": do, **settings}) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError("the process that watches has died")
        told: dict[str, Any] = json.loads(answer)
        return told

    def close(self) -> None:
        """End the child."""
        self._process.communicate()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


if __name__ == "__main__":
    main()
