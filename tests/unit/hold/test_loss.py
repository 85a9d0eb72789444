# SPDX-License-Identifier: Apache-2.0
"""A lost connection tells what is known of it, asks who knows more only when asked, and logs no flood."""

from __future__ import annotations

import copy
import errno
import logging
import math
import pickle
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from conformance.drivers import reset, tcp_pair

from holdfast.causes import Basis, Direction, Ending, Severity
from holdfast.errors import (
    ConnectionClosed,
    ConnectionLost,
    ConnectionReset,
    GaveUp,
    Loss,
    ReplayRefused,
    SessionLost,
)
from holdfast.events import Endpoint, Reset
from holdfast.hold import log
from holdfast.hold.cause_source import MOST_LOOKUPS, asker
from holdfast.hold.connection import Connection
from holdfast.hold.log import RateLimit
from holdfast.hold.loss import lost


def lose(causes: object = None) -> ConnectionReset:
    near, far = tcp_pair()
    with Connection(near, causes=causes) as held:  # type: ignore[arg-type]
        held.sendall(b"six by")
        reset(far)
        with pytest.raises(ConnectionReset) as caught:
            held.recv(1)
    return caught.value


SEEN = Reset(
    id="1f", host="web-1", time="2026-01-02T03:04:05.000000006Z", ending=Ending.RESET,
    direction=Direction.RECEIVED, cause="linger_zero", basis=Basis.OBSERVED, severity=Severity.WARNING,
    noise=False, local=Endpoint("10.0.0.1", 443), peer=Endpoint("10.0.0.2", 51000),
    sentence="nginx aborted its connection.", remedy=("Do this.",),
)  # fmt: skip


class Source:
    """A watch that knows, knows nothing, is slow, or fails."""

    def __init__(self, answer: Reset | BaseException | None, slow: threading.Event | None = None) -> None:
        self.asked: list[tuple[int | None, str | None, str | None]] = []
        self._answer, self._slow = answer, slow

    def lookup(self, cookie: int | None, local: str | None, peer: str | None) -> Reset | None:
        self.asked.append((cookie, local, peer))
        if self._slow is not None:
            self._slow.wait(10)
        if isinstance(self._answer, BaseException):
            raise self._answer
        return self._answer


def test_a_reset_tells_what_is_known() -> None:
    error = lose()
    assert (error.errno, error.cause, error.basis) == (
        errno.ECONNRESET,
        "unrecognised_sender",
        Basis.INFERRED,
    )
    assert (error.unsent_bytes, error.unacked_bytes, error.acked_bytes) == (0, 0, 6)
    assert error.local and error.peer and error.loss.cookie
    assert error.tcp_info.bytes_sent == 6
    assert error.idle_s is not None and error.idle_s < 60
    assert error.remedy and error.remedy[0] in str(error) and "[ECONNRESET]" in str(error)


def test_a_watch_is_asked_only_when_asked_for() -> None:
    source = Source(SEEN)
    error = lose(source)
    assert source.asked == []
    found = error.explain(5)
    assert source.asked == [(error.loss.cookie, error.local, error.peer)]
    assert (found.cause, found.basis, found.sentence, found.remedy, found.reset) == (
        "linger_zero", Basis.OBSERVED, "nginx aborted its connection.", ("Do this.",), SEEN,
    )  # fmt: skip


@pytest.mark.parametrize("answer", [None, OSError("gone"), ValueError("broken")])
def test_without_an_answer_our_own_conclusion_stands(answer: BaseException | None) -> None:
    error = lose(Source(answer))
    assert error.explain(5).cause == "unrecognised_sender"
    assert lose().explain().basis is Basis.INFERRED


def test_a_watch_that_is_slow_is_not_waited_for() -> None:
    go_on = threading.Event()
    error = lose(Source(SEEN, go_on))
    assert error.explain(0.01).cause == "unrecognised_sender"
    go_on.set()


def explaining() -> int:
    return sum(thread.name == "holdfast-explain" for thread in threading.enumerate())


def await_no_lookup() -> None:
    limit = time.monotonic() + 5
    while explaining() and time.monotonic() < limit:
        time.sleep(0.001)


def test_a_silent_watch_costs_one_thread_for_each_error_and_few_in_all() -> None:
    await_no_lookup()  # of an earlier test
    go_on = threading.Event()
    source = Source(SEEN, go_on)
    error = lose(source)
    assert {error.explain(0).cause for _ in range(50)} == {"unrecognised_sender"}
    assert (explaining(), len(source.asked)) == (1, 1)
    asks = [asker(source, None, None, None) for _ in range(3 * MOST_LOOKUPS)]
    assert {ask(0) for ask in asks if ask is not None} == {None}
    assert explaining() == MOST_LOOKUPS
    go_on.set()
    assert error.explain(5).cause == "linger_zero"
    await_no_lookup()
    assert error.again().explain(5).cause == "linger_zero"  # what was answered is not asked again
    assert explaining() == 0


def test_a_watch_that_knew_nothing_is_asked_again() -> None:
    source = Source(None)
    error = lose(source)
    for _ in range(2):
        error.explain(5)
    assert len(source.asked) == 2


@pytest.mark.parametrize("junk", ["junk", object(), 5])
def test_an_answer_that_is_no_record_is_no_answer(junk: Any) -> None:
    assert lose(Source(junk)).explain(5).cause == "unrecognised_sender"


@pytest.mark.parametrize("timeout_s", [math.inf, math.nan, -1.0])
def test_any_time_limit_of_an_explanation_is_taken(timeout_s: float) -> None:
    assert lose(Source(None)).explain(timeout_s).cause == "unrecognised_sender"


def test_a_socket_that_was_closed_meanwhile_hides_no_loss() -> None:
    """Another thread may close it between the error and the look at its figures."""
    near, far = tcp_pair()
    near.close()
    far.close()
    found = lost(near, ConnectionResetError(errno.ECONNRESET, "reset"))
    assert found is not None and (found.cause, found.unsent_bytes) == ("unrecognised_sender", None)


def test_the_loss_of_a_session_is_told_again_with_what_was_confirmed() -> None:
    error = SessionLost(Loss(errno.ECONNRESET, "unrecognised_sender"), confirmed_bytes=9, sent_bytes=4)
    again = error.again(3)
    assert (type(again), again.confirmed_bytes, again.sent_bytes, again.loss) == (
        SessionLost, 9, 3, error.loss,
    )  # fmt: skip
    unpickled = pickle.loads(pickle.dumps(error))
    assert (unpickled.confirmed_bytes, unpickled.sent_bytes) == (9, 4)


@pytest.mark.parametrize("of", [lambda error: error, lambda error: error.again(), copy.copy,
                                lambda error: pickle.loads(pickle.dumps(error))],
                         ids=["itself", "again", "copy", "pickle"])  # fmt: skip
def test_a_session_that_ended_says_the_same_in_every_way(of: Callable[[SessionLost], SessionLost]) -> None:
    """Not that this program reset anything: tracebacks, logs and debuggers show another form each."""
    loss = Loss(errno.ECONNRESET, "unspecified", peer="10.0.0.2:5")
    error = of(SessionLost(loss, confirmed_bytes=3, written_bytes=9, why="it was gone"))
    told = "The session with 10.0.0.2:5 has ended: it was gone; the peer has confirmed 3 of 9 bytes."
    assert repr(error) == f"SessionLost(104, {told!r})"
    assert (error.strerror, error.explain().sentence) == (told, told)
    assert str(error).startswith(f"{told} Begin a new session")


def test_the_loss_of_a_session_is_told_the_same_everywhere() -> None:
    """Logs show repr(), explain() the sentence: neither may speak of a connection that was reset."""
    loss = Loss(errno.ECONNRESET, "unspecified", peer="192.0.2.1:7000")
    error = SessionLost(loss, confirmed_bytes=1, written_bytes=2, why="it was away for too long", code=256)
    sentence = (
        "The session with 192.0.2.1:7000 has ended: it was away for too long; "
        "the peer has confirmed 1 of 2 bytes."
    )
    for one in (error, error.again(), pickle.loads(pickle.dumps(error))):
        assert repr(one) == f"SessionLost(104, '{sentence}')"
        assert str(one).startswith(sentence) and one.explain().sentence == sentence
        assert (one.errno, one.code, one.written_bytes) == (errno.ECONNRESET, 256, 2)


def test_a_loss_is_logged_once_with_its_facts(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "holdfast.hold")
    error = lose()
    records = [record for record in caplog.records if record.name == "holdfast.hold"]
    assert len(records) == 1
    fields = vars(records[0])
    assert fields["holdfast_cause"] == "unrecognised_sender"
    assert (fields["holdfast_errno"], fields["holdfast_peer"]) == (errno.ECONNRESET, error.peer)


def test_a_flood_of_losses_is_counted_not_logged(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log, "_LIMIT", RateLimit(2, 0))
    caplog.set_level(logging.WARNING, "holdfast.hold")
    for _ in range(5):
        lose()
    assert sum(record.name == "holdfast.hold" for record in caplog.records) == 2


def test_the_bucket_fills_again_and_tells_what_it_refused() -> None:
    limit = RateLimit(2, 1.0)
    assert [limit.allow(at) for at in (5, 5, 5, 5, 5.5, 6.1, 6.2)] == [0, 0, None, None, None, 3, None]


def test_errors_travel_between_processes() -> None:
    error = ConnectionReset(Loss(errno.ECONNRESET, "unrecognised_sender", peer="10.0.0.2:5"), sent_bytes=7)
    found = pickle.loads(pickle.dumps(error))
    assert (type(found), found.loss, found.sent_bytes, found.errno) == (
        ConnectionReset, error.loss, 7, errno.ECONNRESET,
    )  # fmt: skip
    assert found.explain().cause == "unrecognised_sender"


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (ConnectionClosed(Loss(errno.EPIPE, "written_after_close", peer="192.0.2.1:80")),
         "This program wrote to its connection to 192.0.2.1:80 after it had ended. [EPIPE] Stop writing "
         "after shutdown() or after the first error, and remember that first error."),
        (GaveUp([], "no time was left"), "Gave up: no time was left."),
        (GaveUp([OSError("a"), OSError("b")], "no retry is left"),
         "Gave up after 2 attempts: no retry is left. The last: b"),
        (GaveUp([TimeoutError()], "all were made"),
         "Gave up after 1 attempt: all were made. The last: TimeoutError()"),
        (ReplayRefused(TimeoutError()),
         "Not sent again: the request may have reached the peer and is not marked idempotent. "
         "TimeoutError()"),
        (ReplayRefused(OSError("lost")),
         "Not sent again: the request may have reached the peer and is not marked idempotent. lost"),
    ],
)  # fmt: skip
def test_sentences(error: Exception, sentence: str) -> None:
    assert str(error) == sentence


@pytest.mark.parametrize(
    ("loss", "words"),
    [
        (Loss(0, "unknown"), None),
        (Loss(0, "unknown", unsent_bytes=0, unacked_bytes=0), "no unsent or unacknowledged bytes"),
        (Loss(0, "unknown", unsent_bytes=3, unacked_bytes=0), "3 unsent bytes"),
        (Loss(0, "unknown", unsent_bytes=3, unacked_bytes=4), "3 unsent and 4 unacknowledged bytes"),
    ],
)
def test_what_was_lost_in_words(loss: Loss, words: str | None) -> None:
    assert loss.lost == words


def test_every_class_is_the_builtin_that_programs_catch_already() -> None:
    classes = {one.__name__: one for one in ConnectionLost.__subclasses__()}
    builtins = {
        "ConnectionReset": ConnectionResetError,
        "ConnectionRefused": ConnectionRefusedError,
        "ConnectionTimedOut": TimeoutError,
        "ConnectionUnreachable": ConnectionError,
        "ConnectionAborted": ConnectionAbortedError,
        "ConnectionClosed": BrokenPipeError,
        "SessionLost": ConnectionError,
    }
    assert {name: issubclass(classes[name], builtin) for name, builtin in builtins.items()} == dict.fromkeys(
        classes, True
    )
