# SPDX-License-Identifier: Apache-2.0
"""A storm of signals, however dense, and any split of the bytes: nothing is lost, and no deadline moves."""

from __future__ import annotations

import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from conformance.drivers import Certificate, Drivers
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from holdfast.errors import DeadlineExceeded

BLOCKING = [name for name in Drivers.NAMES if not name.startswith(("asyncio", "uvloop"))]
LARGE = bytes(range(256)) * (1 << 13)  # 2 MiB: more than the buffers of both sockets hold
LATE_S = 2.0  # for a machine that is busy; a deadline that begins anew at each signal never passes

storms = settings(
    max_examples=5,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
every_s = st.floats(0.0003, 0.003)


@pytest.fixture(scope="module")
def drivers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Drivers]:
    drivers = Drivers(Certificate(tmp_path_factory.mktemp("certificate")))
    yield drivers
    drivers.close()


@pytest.fixture(params=BLOCKING)
def driver(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@contextmanager
def storm(every_s: float) -> Iterator[list[int]]:
    """Interrupt this thread so often; gives the signals that were served."""
    served: list[int] = []
    before = signal.signal(signal.SIGALRM, lambda number, _: served.append(number))
    signal.setitimer(signal.ITIMER_REAL, every_s, every_s)
    try:
        yield served
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def meanwhile(work: threading.Thread) -> Iterator[None]:
    work.start()
    yield
    work.join(20)
    assert not work.is_alive()


@storms
@given(every_s=every_s, pieces=st.lists(st.binary(max_size=9), min_size=1, max_size=9))
def test_every_byte_comes_whatever_interrupts(
    drivers: Drivers, driver: str, every_s: float, pieces: list[bytes]
) -> None:
    near, far = drivers.pair(driver, *drivers.sockets(driver))
    body = b"".join(pieces)

    def send() -> None:
        for piece in [*pieces, b"\r", b"\n", *pieces]:
            time.sleep(0.002)
            if piece:  # OpenSSL refuses to send nothing
                far.sendall(piece)

    with storm(every_s) as served, meanwhile(threading.Thread(target=send)):
        deadline = time.monotonic() + 20
        assert near.recv_exactly(len(body), deadline=deadline) == body
        assert near.recv_until(b"\r\n", 9, deadline=deadline) == b"\r\n"
        assert near.recv_exactly(len(body), deadline=deadline) == body
    assert served
    near.close()
    far.close()


@storms
@given(every_s=every_s)
def test_every_byte_goes_whatever_interrupts(drivers: Drivers, driver: str, every_s: float) -> None:
    raw, far = drivers.sockets(driver)
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 17)
    near, far = drivers.pair(driver, raw, far)
    received = bytearray()

    def read() -> None:
        while len(received) < len(LARGE):
            time.sleep(0.001)
            received.extend(far.recv(1 << 16))

    with storm(every_s) as served, meanwhile(threading.Thread(target=read)):
        near.sendall(LARGE, deadline=time.monotonic() + 20)
    assert bytes(received) == LARGE
    assert served
    near.close()
    far.close()


@storms
@given(every_s=every_s, wait_s=st.floats(0.005, 0.02))
def test_no_deadline_moves_whatever_interrupts(
    drivers: Drivers, driver: str, every_s: float, wait_s: float
) -> None:
    near, far = drivers.pair(driver, *drivers.sockets(driver))
    with storm(every_s) as served:
        deadline = time.monotonic() + wait_s
        with pytest.raises(DeadlineExceeded):
            near.recv(1, deadline=deadline)
        late_s = time.monotonic() - deadline
    assert 0 <= late_s < LATE_S
    assert served
    near.close()
    far.close()
