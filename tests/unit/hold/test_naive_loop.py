"""Beside the loop that is often written around recv(): under the same fault it loses, and ours does not."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import ctypes
import errno
import fcntl
import shutil
import signal
import socket
import struct
import subprocess
import termios
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from holdfast.errors import HoldfastError
from holdfast.hold.connection import Connection

PAGE = Path(__file__).resolve().parents[3] / "docs/explanation/naive-receive.md"
SOURCE = Path(__file__).with_name("naive_loop.c")
FRAME = b"abcdefghi"
LIMIT_S = 0.02
SIGNALS, MOST_SIGNALS, GAP_S = 12, 250, 0.002

Result = bytes | str
"""What a call gave: bytes, or the name of its error (with what came before it)."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault: what successive calls give under it, and what that means."""

    naive: tuple[Result, ...]
    loses: str
    ours: tuple[Result, ...]


NON_BLOCKING = "non-blocking socket, data after 100 ms"
RESET = "data, then RST"
SILENCE = "silence for longer than a limit of 20 ms, then data"

# Rule: every row of the table in naive-receive.md is here, and every row has a function below.
FAULTS = {
    "a signal every 2 ms, then data": Fault(
        ("EINTR",), "the data: each signal takes one of five attempts", (FRAME,)
    ),
    NON_BLOCKING: Fault(("EAGAIN",), "the data: five pauses of 1, 2, 4, 8 and 8 ms are 23 ms", (FRAME,)),
    "frame in three parts": Fault(
        (b"abc",), "two thirds of the frame, if the first part is taken for all of it", (FRAME,)
    ),
    RESET: Fault(
        (FRAME, "ECONNRESET", b""),
        "the error: once it is logged, the next call calls it an end of stream",
        (FRAME, "ConnectionReset", "ConnectionReset"),
    ),
    "FIN inside a frame": Fault(
        (b"abc", b""), "the truncation: it looks like a short frame and a clean end", ("Truncated(b'abc')",)
    ),
    SILENCE: Fault(
        ("EAGAIN",),
        "the limit: five attempts wait it out five times",
        ("DeadlineExceeded", FRAME),
    ),
}


# ---- the faults, each in a thread of its own; the test reads `near`


@dataclass(frozen=True, slots=True)
class Scene:
    """A connection; ``done`` when the test has read what it wanted, ``handled`` counts signals."""

    near: socket.socket
    far: socket.socket
    done: threading.Event
    handled: list[int]


def _signals(scene: Scene) -> None:
    # The handler runs between two of our attempts, and only after the last one of the loop in C.
    main = threading.main_thread().ident
    assert main is not None
    for _ in range(MOST_SIGNALS):
        if len(scene.handled) >= SIGNALS or scene.done.wait(GAP_S):
            break
        signal.pthread_kill(main, signal.SIGUSR1)
    scene.far.sendall(FRAME)


def _late(scene: Scene) -> None:
    time.sleep(0.1)
    scene.far.sendall(FRAME)


def _in_parts(scene: Scene) -> None:
    for part in (b"abc", b"def", b"ghi"):
        while _queued_bytes(scene.near) and not scene.done.wait(0.001):
            pass  # the part before has not been taken yet
        scene.far.sendall(part)


def _reset(scene: Scene) -> None:
    scene.far.sendall(FRAME)
    scene.far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    scene.far.close()


def _cut(scene: Scene) -> None:
    scene.far.sendall(b"abc")
    scene.far.close()


def _late_for_the_limit(scene: Scene) -> None:
    scene.done.wait(LIMIT_S * 50)
    scene.far.sendall(FRAME)


HAPPENS = dict(
    zip(FAULTS, (_signals, _late, _in_parts, _reset, _cut, _late_for_the_limit), strict=True)
)  # in the order of the table
OVER_BEFORE = (_reset, _cut)


def _queued_bytes(sock: socket.socket) -> int:
    return int(struct.unpack("i", fcntl.ioctl(sock, termios.FIONREAD, b"\0" * 4))[0])


@contextmanager
def happening(name: str) -> Iterator[tuple[Scene, Callable[[], None]]]:
    """The scene of a fault, and what makes it begin."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.create_connection(listener.getsockname())
        far, _ = listener.accept()
    far.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    scene = Scene(near, far, threading.Event(), [])
    old = signal.signal(signal.SIGUSR1, lambda number, _: scene.handled.append(number))
    thread = threading.Thread(target=HAPPENS[name], args=(scene,))

    def begin() -> None:
        thread.start()
        if HAPPENS[name] in OVER_BEFORE:
            thread.join()

    with near, far:
        try:
            yield scene, begin
        finally:
            scene.done.set()
            thread.join()
            signal.signal(signal.SIGUSR1, old)


@pytest.fixture(scope="module")
def naive(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    compiler = shutil.which("gcc")
    if compiler is None:
        pytest.skip("no gcc")
    made = tmp_path_factory.mktemp("naive") / "naive_loop.so"
    flags = ["-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
    subprocess.run([compiler, *flags, "-o", str(made), str(SOURCE)], check=True, timeout=60)
    library = ctypes.CDLL(str(made), use_errno=True)
    library.naive_recv.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t]
    library.naive_recv.restype = ctypes.c_ssize_t
    return library


def naive_call(library: ctypes.CDLL, near: socket.socket) -> Result:
    buffer = ctypes.create_string_buffer(len(FRAME))
    got = library.naive_recv(near.fileno(), buffer, len(FRAME))
    return buffer.raw[:got] if got >= 0 else errno.errorcode[ctypes.get_errno()]


def our_call(connection: Connection, wait_s: float) -> Result:
    try:
        return connection.recv_exactly(len(FRAME), deadline=time.monotonic() + wait_s)
    except HoldfastError as error:
        partial = getattr(error, "partial", b"")
        return type(error).__name__ + (f"({partial!r})" if partial else "")


@pytest.mark.parametrize("name", FAULTS)
def test_the_naive_loop_loses(name: str, naive: ctypes.CDLL) -> None:
    with happening(name) as (scene, begin):
        begun = time.monotonic()
        if name == NON_BLOCKING:
            scene.near.setblocking(False)
        if name == SILENCE:
            limit = struct.pack("ll", 0, int(LIMIT_S * 1e6))
            scene.near.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
        begin()
        found = tuple(naive_call(naive, scene.near) for _ in FAULTS[name].naive)
        took_s = time.monotonic() - begun
    assert found == FAULTS[name].naive
    assert name != SILENCE or took_s >= 5 * LIMIT_S
    if name == RESET:
        assert naive.naive_resets_logged() == 1


@pytest.mark.parametrize("name", FAULTS)
def test_holdfast_delivers(name: str) -> None:
    with happening(name) as (scene, begin), Connection(scene.near) as connection:
        if name == NON_BLOCKING:
            scene.near.setblocking(False)
        begin()
        found = []
        for _ in FAULTS[name].ours:
            found.append(our_call(connection, LIMIT_S if name == SILENCE and not found else 10))
            if name == SILENCE:
                scene.done.set()
    assert tuple(found) == FAULTS[name].ours


def _cell(results: tuple[Result, ...]) -> str:
    return ", then ".join(
        f"`{result!r}`" if isinstance(result, bytes) else f"`{result}`" for result in results
    )


def table() -> str:
    """The table of the page."""
    rows = [
        f"| {name} | {_cell(row.naive)} | {row.loses} | {_cell(row.ours)} |" for name, row in FAULTS.items()
    ]
    return "\n".join(
        ["| fault | the loop's calls give | what is lost | ours give |", "|---|---|---|---|", *rows]
    )


def test_the_page_has_the_table() -> None:
    assert table() in PAGE.read_text(encoding="utf-8"), f"the table is now:\n{table()}"
