"""The first address that answers wins, the others are closed, and every loss is told."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import asyncio
import errno
import math
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from unit.hold.faketime import FakeTime

from holdfast.errors import ConnectionRefused, ConnectionTimedOut, ConnectionUnreachable, GaveUp, UsageError
from holdfast.hold.dial import RoundLost, connect, connect_async
from holdfast.hold.race import Address
from holdfast.hold.resolve import Resolver
from holdfast.hold.retry import Budget, Retried, current_attempt, retrying
from holdfast.policy import Backoff, Failure, RetryBudget, RetryPolicy

ONCE = RetryPolicy(retries=0)
TWICE = RetryPolicy(retries=1, backoff=Backoff(first_s=1.0, cap_s=1.0))
HEAD_START_S = 0.01  # the least, so that tests do not wait
NAME = ("db.test", 5432)
NO_SUCH_FAMILY = Address(99, ("there", 1))
# To a broadcast address the kernel refuses TCP at once, with the errno of a missing route.
NO_ROUTE = Address(socket.AF_INET, ("127.255.255.255", 9))
HAS_IPV6 = "lo\n" in (IF_INET6.read_text() if (IF_INET6 := Path("/proc/net/if_inet6")).exists() else "")


class Names(Resolver):
    """A resolver that gives one list of addresses, or one error, for each lookup; the last for ever."""

    def __init__(self, *answers: list[Address] | socket.gaierror) -> None:
        super().__init__()
        self.answers = list(answers)
        self.asked: list[tuple[str, int]] = []

    def resolve(self, host: str, port: int, timeout_s: float) -> list[Address]:
        self.asked.append((host, port))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, socket.gaierror):
            raise answer
        return answer

    async def resolve_async(self, host: str, port: int, timeout_s: float) -> list[Address]:
        return self.resolve(host, port, timeout_s)


class Peers:
    """Listeners on loopback, and every socket that was dialled."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self.dialled: list[socket.socket] = []

    def listening(self, family: int = socket.AF_INET) -> Address:
        where = ("::1" if family == socket.AF_INET6 else "127.0.0.1", 0)
        server = self._stack.enter_context(socket.create_server(where, family=family))
        return Address(family, server.getsockname())

    def closed(self, family: int = socket.AF_INET) -> Address:
        """Refuses: bound, so that nobody else gets the port, and not listening."""
        bound = self._stack.enter_context(socket.socket(family))
        bound.bind(("::1" if family == socket.AF_INET6 else "127.0.0.1", 0))
        return Address(family, bound.getsockname())

    def silent(self) -> Address:
        """Drops every SYN: its queue of connections to accept is full."""
        server = self._stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(2):
            filler = self._stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(server.getsockname())
        return Address(socket.AF_INET, server.getsockname())

    def open(self) -> list[bool]:
        """Which of the dialled sockets are open, in the order of dialling."""
        return [sock.fileno() >= 0 for sock in self.dialled]


@pytest.fixture
def peers() -> Iterator[Peers]:
    with ExitStack() as stack:
        yield Peers(stack)


Dial = Callable[..., socket.socket]


def blocking(**options: Any) -> socket.socket:
    return connect(NAME, **options)


def in_loop(**options: Any) -> socket.socket:
    return asyncio.run(connect_async(NAME, **options))


@pytest.fixture(params=[blocking, in_loop], ids=lambda way: way.__name__)
def dial(request: pytest.FixtureRequest, peers: Peers) -> Dial:
    """One of the two ways to connect; by default one round, among addresses given."""

    def dialled(*addresses: Address, **options: Any) -> socket.socket:
        given = {"policy": ONCE, "attempt_delay_s": HEAD_START_S, "prepare": peers.dialled.append}
        if addresses:
            given["resolver"] = Names(list(addresses))
        given |= options
        if "time" in given:
            fake = given.pop("time")
            given |= {"sleep": fake.sleep if request.param is blocking else fake.sleep_async}
        sock: socket.socket = request.param(**given)
        return sock

    return dialled


@contextmanager
def gave_up() -> Iterator[Callable[[], GaveUp]]:
    with pytest.raises(GaveUp) as caught:
        yield lambda: caught.value


def facts(error: BaseException) -> tuple[object, ...]:
    return (
        type(error),
        getattr(error, "errno", None),
        getattr(error, "cause", None),
        getattr(error, "peer", None),
    )


def shown(address: Address) -> str:
    return f"{address.sockaddr[0]}:{address.sockaddr[1]}"


# --- one round ---


def test_it_connects(dial: Dial, peers: Peers) -> None:
    address = peers.listening()
    with dial(address) as sock:
        assert sock.getpeername() == address.sockaddr


def test_the_blocking_one_blocks_and_the_other_does_not(peers: Peers) -> None:
    names = Names([peers.listening()])
    with connect(NAME, resolver=names) as sock:
        assert sock.gettimeout() is None
    with asyncio.run(connect_async(NAME, resolver=names)) as sock:
        assert sock.gettimeout() == 0
    assert names.asked == [NAME, NAME]


def test_an_address_that_does_not_answer_costs_its_head_start_only(dial: Dial, peers: Peers) -> None:
    silent, listening = peers.silent(), peers.listening()
    with dial(silent, listening) as sock:
        assert (sock.getpeername(), peers.open()) == (listening.sockaddr, [False, True])


def test_a_refusal_costs_no_time(dial: Dial, peers: Peers) -> None:
    began_s = time.monotonic()
    listening = peers.listening()
    with dial(peers.closed(), peers.closed(), listening, attempt_delay_s=2.0) as sock:
        assert (sock.getpeername(), peers.open()) == (listening.sockaddr, [False, False, True])
    assert time.monotonic() - began_s < 2.0


def test_an_address_that_cannot_be_dialled_from_here_does_not_end_the_race(dial: Dial, peers: Peers) -> None:
    listening = peers.listening()
    with dial(NO_SUCH_FAMILY, listening) as sock:
        assert sock.getpeername() == listening.sockaddr


@pytest.mark.skipif(not HAS_IPV6, reason="no IPv6 on loopback")
def test_the_families_take_turns(dial: Dial, peers: Peers) -> None:
    six = peers.listening(socket.AF_INET6)
    with dial(peers.silent(), peers.silent(), six) as sock:
        assert (sock.getpeername(), len(peers.dialled)) == (six.sockaddr, 2)


@pytest.mark.skipif(not HAS_IPV6, reason="no IPv6 on loopback")
def test_an_ipv6_loss_names_its_address(dial: Dial, peers: Peers) -> None:
    closed = peers.closed(socket.AF_INET6)
    with gave_up() as error:
        dial(closed)
    assert [facts(loss)[3] for loss in error().losses] == [f"[::1]:{closed.sockaddr[1]}"]


def test_the_later_addresses_are_not_dialled_once_one_has_answered(dial: Dial, peers: Peers) -> None:
    with dial(peers.listening(), peers.listening(), attempt_delay_s=2.0):
        assert peers.open() == [True]


def test_each_loss_is_typed_and_names_its_address(dial: Dial, peers: Peers) -> None:
    def clock() -> float:
        """Stands still, so that only losses start the next address, until all are dialled."""
        return 1000.0 if len(peers.dialled) < 3 else 2000.0

    closed, silent = peers.closed(), peers.silent()
    with gave_up() as error:
        dial(closed, NO_SUCH_FAMILY, NO_ROUTE, silent, deadline=1000.05, clock=clock)
    assert [facts(loss) for loss in error().losses] == [
        (ConnectionRefused, errno.ECONNREFUSED, "connection_refused", shown(closed)),
        (OSError, errno.EAFNOSUPPORT, None, None),
        (ConnectionUnreachable, errno.ENETUNREACH, "icmp_error", shown(NO_ROUTE)),
        (ConnectionTimedOut, errno.ETIMEDOUT, "connect_timeout", shown(silent)),
    ]
    assert "there:1" in str(error().losses[1])
    assert peers.open() == [False] * 3


def test_a_loss_tells_the_local_address(dial: Dial, peers: Peers) -> None:
    def bind(sock: socket.socket) -> None:
        sock.bind(("127.0.0.9", 0))
        bound.append(sock.getsockname())

    bound: list[tuple[str, int]] = []
    with gave_up() as error:
        dial(peers.closed(), prepare=bind)
    (loss,) = error().losses
    assert isinstance(loss, ConnectionRefused)
    assert loss.local == f"127.0.0.9:{bound[0][1]}"


def test_nothing_is_dialled_after_the_deadline(dial: Dial, peers: Peers) -> None:
    with gave_up() as error:
        dial(peers.listening(), deadline=time.monotonic() - 1)
    assert (error().losses, error().why, peers.dialled) == ((), "the deadline has passed", [])


def test_a_socket_is_prepared_before_it_connects(dial: Dial, peers: Peers) -> None:
    def prepare(sock: socket.socket) -> None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        with pytest.raises(OSError, match="not connected"):
            sock.getpeername()

    with dial(peers.listening(), prepare=prepare) as sock:
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1


def test_what_prepare_raises_goes_up_and_leaves_no_socket_open(dial: Dial, peers: Peers) -> None:
    def prepare(sock: socket.socket) -> None:
        peers.dialled.append(sock)
        if len(peers.dialled) == 2:
            raise OSError(errno.EPERM, "not allowed")

    with pytest.raises(PermissionError):
        dial(peers.silent(), peers.listening(), prepare=prepare)
    assert peers.open() == [False, False]


def test_a_socket_that_meets_itself_is_a_refusal_and_frees_the_port(dial: Dial, peers: Peers) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        itself = Address(socket.AF_INET, probe.getsockname())
    with gave_up() as error:
        dial(itself, prepare=lambda sock: sock.bind(itself.sockaddr))
    assert [facts(loss)[0] for loss in error().losses] == [ConnectionRefused]
    with socket.socket() as server:
        server.bind(itself.sockaddr)  # a TIME_WAIT would forbid it


def test_a_task_that_is_cancelled_leaves_no_socket_open(peers: Peers) -> None:
    async def run() -> None:
        dialling = asyncio.Event()

        def prepare(sock: socket.socket) -> None:
            peers.dialled.append(sock)
            dialling.set()

        task = asyncio.create_task(
            connect_async(NAME, resolver=Names([peers.silent()]), prepare=prepare, policy=ONCE)
        )
        await dialling.wait()
        task.cancel()
        await task

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(run())
    assert peers.open() == [False]


def test_a_socket_from_the_loop_is_of_use_to_the_loop(peers: Peers) -> None:
    async def run() -> bytes:
        async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(await reader.read(9))
            await writer.drain()
            writer.close()

        async with await asyncio.start_server(echo, "127.0.0.1", 0) as server:
            sock = await connect_async(server.sockets[0].getsockname())
            reader, writer = await asyncio.open_connection(sock=sock)
            writer.write(b"hello")
            answer = await reader.read()
            writer.close()
            return answer

    assert asyncio.run(run()) == b"hello"


@pytest.mark.parametrize("port", [0, -1, 65536, 70000])
def test_a_port_that_cannot_be_is_refused(port: int) -> None:
    with pytest.raises(UsageError, match="from 1 to 65535"):
        connect(("127.0.0.1", port))
    with pytest.raises(UsageError, match="from 1 to 65535"):
        asyncio.run(connect_async(("127.0.0.1", port)))


def test_a_deadline_in_another_life_is_no_overflow(dial: Dial, peers: Peers) -> None:
    with dial(peers.listening(), deadline=time.monotonic() + 1e9) as sock:
        assert sock.fileno() >= 0


def test_names_are_looked_up_by_the_library() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, connect(server.getsockname()) as sock:
        assert sock.getpeername() == server.getsockname()


# --- rounds ---


def test_the_name_is_looked_up_again_before_each_round(dial: Dial, peers: Peers) -> None:
    time, closed, moved = FakeTime(), peers.closed(), peers.listening()
    names = Names([closed], [moved])
    with dial(resolver=names, policy=TWICE, time=time, chance=lambda: 0.5) as sock:
        assert (sock.getpeername(), names.asked, time.slept_s) == (moved.sockaddr, [NAME] * 2, [0.5])


def test_the_losses_of_all_rounds_are_listed(dial: Dial, peers: Peers) -> None:
    first, second = peers.closed(), peers.closed()
    with gave_up() as error:
        dial(first, second, policy=TWICE, time=FakeTime())
    assert [facts(loss)[3] for loss in error().losses] == [shown(first), shown(second)] * 2
    assert error().why == "all retries that the policy allows were made"
    assert error().__cause__ is error().losses[-1]


def test_a_name_without_addresses_is_a_loss_and_looked_up_again(dial: Dial, peers: Peers) -> None:
    listening = peers.listening()
    unknown = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    with dial(resolver=Names(unknown, [listening]), policy=TWICE, time=FakeTime()) as sock:
        assert sock.getpeername() == listening.sockaddr
    with gave_up() as error:
        dial(resolver=Names(unknown), policy=TWICE, time=FakeTime())
    assert [(type(loss), str(loss)) for loss in error().losses] == [
        (socket.gaierror, f"[Errno {socket.EAI_NONAME}] Name or service not known: db.test")
    ] * 2


def test_the_hook_is_told_of_each_lost_round(dial: Dial, peers: Peers) -> None:
    told: list[Retried] = []
    closed = peers.closed()
    with gave_up():
        dial(closed, policy=TWICE, time=FakeTime(), chance=lambda: 0.5, on_retry=told.append)
    (event,) = told
    assert isinstance(event.loss, RoundLost)
    assert (event.attempt, event.delay_s, event.failure) == (1, 0.5, Failure.CONNECT_FAILURE)
    assert [facts(loss)[3] for loss in event.loss.losses] == [shown(closed)]
    assert shown(closed) in str(event.loss)


def test_a_policy_that_does_not_retry_this_still_gives_every_loss(dial: Dial, peers: Peers) -> None:
    with gave_up() as error:
        dial(peers.closed(), policy=RetryPolicy(retry_on=frozenset({"refused-stream"})))
    assert (len(error().losses), error().why) == (1, "the policy does not retry failures to connect")


def test_a_spent_budget_ends_the_rounds(dial: Dial, peers: Peers) -> None:
    with gave_up() as error:
        dial(peers.closed(), policy=TWICE, budget=Budget(RetryBudget(min_retries=0, budget_percent=0)))
    assert (len(error().losses), error().why) == (1, "the retry budget is spent")


def test_by_default_there_are_four_rounds(dial: Dial, peers: Peers) -> None:
    with gave_up() as error:
        dial(peers.closed(), policy=None, time=FakeTime())
    assert len(error().losses) == 4


def test_inside_an_attempt_there_is_one_round_so_that_attempts_do_not_multiply(peers: Peers) -> None:
    names = Names([peers.closed()])
    with pytest.raises(GaveUp) as caught:
        for attempt in retrying(RetryPolicy(retries=2), sleep=lambda delay_s: None):
            with attempt:
                connect(NAME, resolver=names, deadline=attempt.deadline)
    # Not idempotent and yet retried: where no connection came about, nothing can have arrived.
    assert (len(names.asked), len(caught.value.losses)) == (3, 3)
    assert current_attempt() is None


def test_a_time_for_each_round_is_kept(dial: Dial, peers: Peers) -> None:
    policy = RetryPolicy(retries=1, per_try_timeout_s=0.02)
    with gave_up() as error:
        dial(peers.silent(), policy=policy, time=FakeTime())
    assert [facts(loss)[0] for loss in error().losses] == [ConnectionTimedOut] * 2
    assert error().why == "all retries that the policy allows were made"


@pytest.mark.parametrize(
    "address",
    [
        None, "db.test", (), ("db.test",), ("db.test", "80"), ("db.test", True), ("db.test", 0), (None, 80),
        (b"127.0.0.1", 80), ("", 80), ("a\0b", 80), ("a" * 300, 80), ("a" * 10_000, 80), ("a..b", 80),
    ],
    ids=lambda address: repr(address)[:20],
)  # fmt: skip
def test_an_address_that_cannot_be_is_refused_before_anybody_is_asked(address: Any) -> None:
    resolver = Names([])
    with pytest.raises(UsageError) as caught:
        connect(address, resolver=resolver)
    assert resolver.asked == [] and len(str(caught.value)) < 300


def test_a_deadline_that_never_comes_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        to = server.getsockname()
        connect(to, deadline=math.inf).close()
        asyncio.run(connect_async(to, deadline=math.inf)).close()
        found = Resolver(lambda *_, **options: looked_up(to, options))
        connect(("db.test", to[1]), deadline=math.inf, resolver=found).close()


def looked_up(to: tuple[str, int], options: dict[str, Any]) -> list[Any]:
    if options.get("flags"):
        raise socket.gaierror(socket.EAI_NONAME, "a name")
    return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", to)]


def test_a_deadline_that_is_no_number_is_refused() -> None:
    with pytest.raises(UsageError, match="the deadline is nan"):
        connect(NAME, deadline=math.nan, resolver=Names([]))
