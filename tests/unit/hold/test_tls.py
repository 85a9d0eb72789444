# SPDX-License-Identifier: Apache-2.0
"""What is special about TLS: bytes that no poll can see, reads that must write, errors without a number."""

from __future__ import annotations

import pickle
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conformance.drivers import Certificate, handshaking, reset, tcp_pair, unix_pair

from holdfast.errors import ConnectionReset, DeadlineExceeded, HoldfastError, Truncated, UsageError
from holdfast.hold.connection import Connection
from holdfast.hold.receive import recv, sendall
from holdfast.hold.tls import RECORD_BYTES, TlsCalls, TlsError


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[Connection, ssl.SSLSocket]]:
    certificate = Certificate(tmp_path)
    near, far = tcp_pair()
    with handshaking(certificate, far) as made:
        near = certificate.client.wrap_socket(near, server_hostname="localhost")
    held = Connection(near)
    yield held, made[0]
    held.close()
    made[0].close()


Pair = tuple[Connection, ssl.SSLSocket]


def test_bytes_that_openssl_holds_are_not_waited_for(pair: Pair) -> None:
    near, far = pair
    far.sendall(b"one record, read in pieces")
    assert near.recv(3, deadline=time.monotonic() + 9) == b"one"
    assert near.recv(99, deadline=0.0) == b" record, read in pieces"


class Renegotiating(socket.socket):
    """A socket whose reads must write first, as after a request for a key update."""

    suppress_ragged_eofs = True
    asked = 0

    def recv(self, size: int, flags: int = 0) -> bytes:
        self.asked += 1
        if self.asked <= 2:
            raise ssl.SSLWantWriteError
        return b"data"


def test_a_read_that_must_write_first_waits_for_room(monkeypatch: pytest.MonkeyPatch) -> None:
    raw, far = unix_pair()
    with Renegotiating(fileno=raw.detach()) as near, far:
        assert TlsCalls().receive(near, 9, time.monotonic() + 9, None) == b"data"
        assert near.asked == 3
        # With its buffer full there is no room to write, so the same read waits for it, in vain.
        near.setblocking(False)
        with pytest.raises(BlockingIOError):
            while True:
                near.send(bytes(1 << 16))
        near.asked = 0
        assert TlsCalls().receive(near, 9, time.monotonic() + 0.02, None) == -1


def test_a_socket_whose_tls_was_taken_off_waits_like_any_other(tmp_path: Path) -> None:
    """As after FTP's CCC: unwrap() gives the same SSLSocket back, and it speaks plainly from then on."""
    certificate = Certificate(tmp_path)
    near, far = tcp_pair()
    with handshaking(certificate, far) as made:
        held = certificate.client.wrap_socket(near, server_hostname="localhost")
    farewell = threading.Thread(target=made[0].unwrap)
    farewell.start()
    plain = held.unwrap()
    farewell.join(10)
    with plain, made[0] as peer:
        assert plain is held
        with pytest.raises(DeadlineExceeded):
            recv(plain, 1, deadline=time.monotonic() + 0.05)
        with pytest.raises(DeadlineExceeded) as caught:
            sendall(plain, bytes(64 << 20), deadline=time.monotonic() + 0.05)
        assert caught.value.sent_bytes
        threading.Timer(0.02, peer.sendall, [b"220 ready"]).start()
        assert recv(plain, 99, deadline=time.monotonic() + 9) == b"220 ready"
        with pytest.raises(DeadlineExceeded):
            Connection(plain).recv(1, deadline=time.monotonic() + 0.05)


def test_a_reset_has_its_number_although_python_lost_it(pair: Pair) -> None:
    near, far = pair
    near.sendall(b"unread")
    reset(far)
    with pytest.raises(ConnectionReset):
        near.recv(1, deadline=time.monotonic() + 9)


def test_a_send_out_of_time_counts_whole_records(pair: Pair) -> None:
    near, _ = pair
    with pytest.raises(DeadlineExceeded) as caught:
        near.sendall(bytes(32 << 20), deadline=time.monotonic() + 0.1)
    assert caught.value.sent_bytes % (1 << 14) == 0 < caught.value.sent_bytes


def received(far: ssl.SSLSocket, into: bytearray) -> threading.Thread:
    """Read all that comes, in a thread, until there is no more for a moment."""
    far.settimeout(0.3)

    def read() -> None:
        try:
            while data := far.recv(1 << 16):
                into.extend(data)
        except TimeoutError:
            pass

    thread = threading.Thread(target=read)
    thread.start()
    return thread


def half_sent(near: Connection) -> int:
    """Send until the peer's window is full and time is up in the middle of a record."""
    with pytest.raises(DeadlineExceeded) as caught:
        near.sendall(b"m" * (32 << 20), deadline=time.monotonic() + 0.1)
    return caught.value.sent_bytes


def test_other_bytes_than_the_rest_are_refused_after_half_a_record(pair: Pair) -> None:
    """OpenSSL would send the old ones in their place, and say that it sent the new."""
    near, far = pair
    sent, came = half_sent(near), bytearray()
    thread = received(far, came)
    for _ in range(2):
        with pytest.raises(UsageError, match="half on its way"):
            near.sendall(b"n" * 20000)
    near.sendall(b"m")
    thread.join(10)
    assert came == b"m" * (sent + RECORD_BYTES)  # the whole record is out, of which one byte was asked for
    with pytest.raises(UsageError, match="half on its way"):
        near.sendall(b"n")
    near.sendall(b"m" * (RECORD_BYTES - 1) + b"n")
    far.settimeout(10)
    assert far.recv(9) == b"n"
    assert near.counters.bytes_sent == sent + RECORD_BYTES + 1


def test_the_functions_too_refuse_other_bytes_after_half_a_record(tmp_path: Path) -> None:
    certificate = Certificate(tmp_path)
    near, far = tcp_pair()
    with handshaking(certificate, far) as made:
        near = certificate.client.wrap_socket(near, server_hostname="localhost")
    with near, made[0]:
        with pytest.raises(DeadlineExceeded):
            sendall(near, b"m" * (32 << 20), deadline=time.monotonic() + 0.1)
        with pytest.raises(UsageError, match="half on its way"):
            sendall(near, b"n" * 20000, deadline=time.monotonic() + 0.1)


def test_half_a_record_is_finished_if_a_handler_raised(pair: Pair) -> None:
    near, _ = pair
    calls, sock = TlsCalls(), near.sock
    with pytest.raises(KeyboardInterrupt):
        sock.send = _interrupted  # type: ignore[method-assign]
        calls.send_from(sock, b"m" * 100, time.monotonic() + 9, None)
    with pytest.raises(UsageError):
        calls.send_from(sock, b"n" * 100, time.monotonic() + 9, None)


def _interrupted(*_: object) -> int:
    raise KeyboardInterrupt


def test_a_cut_stream_is_cut_although_a_send_ends_during_the_receive(pair: Pair) -> None:
    """Who cuts the TCP connection must not choose the moment at which that looks like the end."""
    near, far = pair
    data, raised = bytes(8 << 20), []

    def receive() -> None:
        try:
            raised.append(near.recv(9))
        except Truncated as error:
            raised.append(error)

    sender, receiver = threading.Thread(target=near.sendall, args=(data,)), threading.Thread(target=receive)
    for thread in (sender, receiver):
        thread.start()
        time.sleep(0.05)
    left = len(data)
    while left:
        left -= len(far.recv(1 << 16))
    sender.join(10)
    socket.socket.shutdown(far, socket.SHUT_WR)
    receiver.join(10)
    assert [type(one) for one in raised] == [Truncated]


def test_the_mode_of_a_socket_is_put_back_when_the_last_call_has_left(tmp_path: Path) -> None:
    certificate = Certificate(tmp_path)
    near, far = tcp_pair()
    with handshaking(certificate, far) as made:
        near = certificate.client.wrap_socket(near, server_hostname="localhost")
    near.settimeout(7.0)
    with near, made[0] as far:
        ends: list[object] = []
        thread = threading.Thread(target=lambda: ends.append(recv(near, 9, deadline=time.monotonic() + 9)))
        thread.start()
        time.sleep(0.05)
        with pytest.raises(DeadlineExceeded):
            sendall(near, bytes(32 << 20), deadline=time.monotonic() + 0.05)
        assert (near.gettimeout(), near.suppress_ragged_eofs) == (0.0, False)  # type: ignore[attr-defined]
        far.sendall(b"one")
        thread.join(10)
        assert ends == [b"one"]
        assert (near.gettimeout(), near.suppress_ragged_eofs) == (7.0, True)  # type: ignore[attr-defined]


def test_what_is_no_tls_is_an_error_of_its_own_and_stays_it(pair: Pair) -> None:
    near, far = pair
    far.sendall(b"said before")
    raw = socket.socket(fileno=far.detach())
    with raw:
        raw.sendall(b"GARBAGE GARBAGE GARBAGE")
        raw.shutdown(socket.SHUT_WR)
        with pytest.raises(TlsError) as caught:
            near.recv_exactly(99, deadline=time.monotonic() + 9)
    first = caught.value
    assert (first.reason, first.partial) == ("WRONG_VERSION_NUMBER", b"said before")
    assert isinstance(first, HoldfastError) and isinstance(first, ssl.SSLError)
    near.recv_exactly(11)
    for again in (lambda: near.recv(1), lambda: near.sendall(b"x"), lambda: near.recv_exactly(1)):
        with pytest.raises(TlsError, match="WRONG_VERSION_NUMBER"):
            again()
    assert isinstance(near.error, TlsError)
    copy = pickle.loads(pickle.dumps(first))
    assert (str(copy), copy.partial, copy.errno) == (str(first), b"said before", first.errno)


def test_an_alert_of_the_peer_is_told_as_its_refusal(tmp_path: Path) -> None:
    """A TLS 1.3 client has finished its handshake when the server misses its certificate."""
    near, far = tcp_pair()
    certificate = Certificate(tmp_path)
    demanding = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    demanding.load_cert_chain(certificate.path, certificate.path.with_name("key.pem"))
    demanding.load_verify_locations(certificate.path)
    demanding.verify_mode = ssl.CERT_REQUIRED

    def refuse() -> None:
        with pytest.raises(ssl.SSLError):
            demanding.wrap_socket(far, server_side=True)

    thread = threading.Thread(target=refuse)
    thread.start()
    with Connection(certificate.client.wrap_socket(near, server_hostname="localhost")) as connection:
        with pytest.raises(TlsError, match=r"The peer refused .*_ALERT_CERTIFICATE_REQUIRED") as caught:
            connection.recv(1, deadline=time.monotonic() + 9)
        thread.join(10)
    far.close()
    assert type(caught.value.__cause__) is ssl.SSLError


def test_a_handler_that_looks_in_the_middle_of_a_send_does_not_wait_for_it(pair: Pair) -> None:
    near, far = pair
    sock, seen = near.sock, []
    send = sock.send

    def interrupted(data: bytes) -> int:
        sent = send(data)
        seen.append(near.peek(1))  # where Python would call a handler: the lock is held still
        return sent

    sock.send = interrupted  # type: ignore[method-assign, assignment]
    thread = threading.Thread(target=near.sendall, args=(b"hello",), daemon=True)
    thread.start()
    thread.join(5)
    assert (thread.is_alive(), seen, far.recv(9)) == (False, [b""], b"hello")


def test_a_child_says_no_farewell_for_its_parent(pair: Pair) -> None:
    near, far = pair
    near._become_the_childs()
    near.close()
    # Session tickets lie unread, so the kernel resets; CPython loses that errno before 3.11.9 and 3.12.3.
    with pytest.raises((ssl.SSLEOFError, ConnectionResetError)):
        far.recv(1)


def test_who_closes_says_farewell(pair: Pair) -> None:
    near, far = pair
    near.close()
    assert far.recv(1) == b""
