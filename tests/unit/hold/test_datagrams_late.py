"""An error that comes after some datagrams reaches the caller, whoever else looks at the socket."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import errno
import gc
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from unit.hold.datagram_pairs import ends, use, why_no_native

from holdfast.hold import datagrams
from holdfast.hold.datagrams import recv_batch

# A recvmmsg during which the peer's ICMP answer arrives: after two datagrams, as the kernel's own would
# report it, by the error of the socket.
RACE = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <sys/socket.h>

int recvmmsg(int fd, struct mmsghdr *messages, unsigned int count, int flags, struct timespec *timeout)
{
	int (*real)(int, struct mmsghdr *, unsigned int, int, struct timespec *) = dlsym(RTLD_NEXT, "recvmmsg");
	int got = real(fd, messages, count < 2 ? count : 2, flags, timeout);

	if (got > 0)
		send(fd, "nobody", 6, MSG_DONTWAIT);
	return got;
}
"""

VICTIM = """
import socket
from holdfast._native import recv_datagrams
from holdfast.hold import datagrams

assert datagrams.recv_datagrams is recv_datagrams
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        one.bind(("127.0.0.1", 0))
        peer.bind(("127.0.0.1", 0))
        one.connect(peer.getsockname())
        for text in (b"1", b"2", b"3"):
            peer.sendto(text, one.getsockname())
    print([data for data, _ in datagrams.recv_batch(one, 8)])
    print(one.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))  # somebody else looks
    try:
        print(datagrams.recv_batch(one, 8))
    except OSError as error:
        print(type(error).__name__)
    print([data for data, _ in datagrams.recv_batch(one, 8)])
"""


@pytest.mark.skipif(why_no_native() is not None, reason=str(why_no_native()))
def test_the_native_call_fetches_the_error_before_anybody_else_can(tmp_path: Path) -> None:
    compiler = shutil.which("cc") or shutil.which("gcc") or "clang"
    source, library = tmp_path / "race.c", tmp_path / "race.so"
    source.write_text(RACE)
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True, timeout=60)
    told = subprocess.run(
        [sys.executable, "-c", VICTIM],
        env=os.environ | {"LD_PRELOAD": str(library)},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert told.stderr == ""
    assert told.stdout.splitlines() == ["[b'1', b'2']", "0", "ConnectionRefusedError", "[b'3']"]


class Racing(socket.socket):
    """A socket whose second receive meets the peer's ICMP answer."""

    receives = 0

    def recvmsg_into(self, *args: Any) -> Any:
        self.receives += 1
        if self.receives == 2:
            raise ConnectionRefusedError(errno.ECONNREFUSED, "refused")
        return super().recvmsg_into(*args)


@pytest.fixture
def racing(monkeypatch: pytest.MonkeyPatch) -> Any:
    use("holdfast.hold.datagrams_portable", monkeypatch)
    with ends() as two, Racing(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.bind(("127.0.0.1", 0))
        for text in (b"1", b"2"):
            two.sender.sendto(text, one.getsockname())
        yield one


def test_the_portable_call_keeps_the_error_for_the_next_one(racing: Racing) -> None:
    assert [data for data, _ in recv_batch(racing, 8)] == [b"1"]
    with pytest.raises(ConnectionRefusedError):
        recv_batch(racing, 8)
    assert [data for data, _ in recv_batch(racing, 8)] == [b"2"]


def test_a_kept_error_belongs_to_one_socket_and_goes_with_it(racing: Racing) -> None:
    recv_batch(racing, 8)
    with ends() as two:
        two.sender.sendto(b"else", two.to)
        assert len(recv_batch(two.receiver, 8)) == 1
    assert len(datagrams._late) == 1
    with Racing(socket.AF_INET, socket.SOCK_DGRAM) as gone:
        gone.bind(("127.0.0.1", 0))
        with ends() as two:
            two.sender.sendto(b"1", gone.getsockname())
        recv_batch(gone, 8)
    assert len(datagrams._late) == 2
    del gone
    gc.collect()
    assert len(datagrams._late) == 1
