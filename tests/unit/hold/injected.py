# SPDX-License-Identifier: Apache-2.0
"""Run by test_injection.py under LD_PRELOAD: prints what each failing call led to, as JSON."""

from __future__ import annotations

import ctypes
import errno
import inspect
import json
import socket
import sys
import threading
import time

from holdfast.hold import calls, portable, receive

ERRORS = ("EINTR", "EAGAIN", "ECONNRESET", "ETIMEDOUT", "EHOSTUNREACH", "EPIPE", "EFAULT", "ENOMEM", "EBADF")


def outcome(kind: str, name: str, after: int, error: str) -> str:
    near, far = socket.socketpair()
    inject = ctypes.CDLL(None).inject
    deadline = time.monotonic() + 5
    late = threading.Timer(0.02, far.send, [b"late"])
    try:
        if kind == "recv waiting" and error == "EINTR":  # all else must fail before anything comes
            late.start()
        elif kind == "recv":
            far.send(b"data")
        times = 1 if error not in ("EINTR", "EAGAIN") else 5
        inject(name.encode(), after, times, getattr(errno, error))
        if kind == "sendall":
            receive.sendall(near, b"x" * 1000, deadline=deadline)
            return f"sent {len(far.recv(2000))}"
        return receive.recv(near, 100, deadline=deadline).decode()
    except OSError as failed:
        return f"{type(failed).__name__} {errno.errorcode.get(failed.errno or 0)}"
    finally:
        inject(b"", 0, 0, 0)
        late.cancel()
        near.close()
        far.close()


def main() -> None:
    if sys.argv[1] == "portable":
        receive.calls = portable  # type: ignore[attr-defined]
        receive.recv = inspect.unwrap(receive.recv)
    else:
        assert calls.receive.__module__ == "holdfast._native", "the extension was not built"
        assert type(receive.recv).__module__ == "holdfast._native", "the compiled front was not built"
    found = {
        f"{kind}, {name}: {error}": outcome(kind, name, 0, error)
        for kind, name in (("recv", "recv"), ("recv waiting", "poll"), ("sendall", "send"))
        for error in ERRORS
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
