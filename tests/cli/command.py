"""The command as a process: start it, await a line, end it; and a program that is reset beside it."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import IO, Any, NamedTuple, Self

WAIT_S = 90.0
PROGRAM = Path(__file__).parent.parent / "kernel" / "program.py"
HOLDFAST = (sys.executable, "-m", "holdfast")


class Done(NamedTuple):
    """How a command ended: exit code, standard output and standard error."""

    code: int
    out: str
    err: str


def holdfast(*args: str, **options: Any) -> Done:
    """Run a command to its end, with no standard input."""
    options = {"stdin": subprocess.DEVNULL, "timeout": WAIT_S} | options
    done = subprocess.run((*HOLDFAST, *args), capture_output=True, text=True, **options)
    return Done(done.returncode, done.stdout, done.stderr)


class Running:
    """A command that runs; a context manager that ends it, whatever happens."""

    def __init__(self, *args: str, command: Sequence[str] = HOLDFAST, **options: Any) -> None:
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
        self.process = subprocess.Popen(
            (*command, *args), stdin=subprocess.DEVNULL, text=True, encoding="utf-8", **options
        )
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._talk: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._out: list[str] = []
        self._err: list[str] = []
        for stream, lines in ((self.process.stdout, self._lines), (self.process.stderr, self._talk)):
            if stream is not None:
                threading.Thread(target=_read, args=(stream, lines), daemon=True).start()

    def await_ready(self) -> Self:
        """Wait until it watches: then it has said by which step."""
        while "Watching by" not in self._next(self._talk, self._err):
            pass
        return self

    def line(self) -> str:
        """The next line of its standard output, without its end."""
        return self._next(self._lines, self._out)

    def _next(self, lines: queue.SimpleQueue[str | None], seen: list[str]) -> str:
        text = lines.get(timeout=WAIT_S)
        assert text is not None, f"it ended with {self.process.wait()}: {self._out} {self._err}"
        seen.append(text)
        return text

    def await_exit(self) -> Done:
        """Wait for its end."""
        code = self.process.wait(WAIT_S)
        for stream, lines, seen in (
            (self.process.stdout, self._lines, self._out),
            (self.process.stderr, self._talk, self._err),
        ):
            while stream is not None and (text := lines.get(timeout=WAIT_S)) is not None:
                seen.append(text)
        return Done(code, "\n".join(self._out), "\n".join(self._err))

    def end(self, number: int = signal.SIGINT) -> Done:
        """Send it a signal and wait for its end."""
        self.process.send_signal(number)
        return self.await_exit()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(WAIT_S)


def _read(stream: IO[str], lines: queue.SimpleQueue[str | None]) -> None:
    for text in stream:
        lines.put(text.rstrip("\n"))
    lines.put(None)


class Server:
    """A program that listens on loopback and, when told, closes connections with unread data.

    Attributes:
        pid, port: of the program.
    """

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        started = json.loads(process.stdout.readline())
        self._process = process
        self.pid: int = started["pid"]
        self.port: int = started["port"]

    def reset(self) -> None:
        """Have every connection reset, and wait until that is done."""
        out, _ = self._process.communicate("\n", timeout=WAIT_S)
        assert json.loads(out)["ends"]


@contextmanager
def server(host: str = "127.0.0.1", count: int = 1, **wanted: Any) -> Iterator[Server]:
    """A program to watch; ``comm`` is its name as bytes. See tests/kernel/program.py."""
    if "comm" in wanted:
        wanted["comm"] = wanted["comm"].hex()
    asked = json.dumps({"host": host, "count": count, "wait": True, **wanted})
    with subprocess.Popen(
        (sys.executable, str(PROGRAM), asked), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield Server(process)
        finally:
            process.kill()
