# SPDX-License-Identifier: Apache-2.0
"""The thirteen ways in which the kernel's word misleads, each made for real and not fallen for."""

from __future__ import annotations

import re
import socket
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from errno import ECONNRESET, ETIMEDOUT
from pathlib import Path

import pytest
from kernel.quiet_network import connections, netns, quiet_network
from kernel.watching import Watch, watching

from holdfast.causes import Direction, Ending
from holdfast.events import Endpoint, Event, Kind, Reset
from holdfast.lab import Made, Network, ScenarioFailed, find
from holdfast.lab.matrix import TRIES, observe
from holdfast.lab.rules import SILENCE, path
from holdfast.linux.btf import Btf, Parameter
from holdfast.watch.diagnose.sent import sent_cause
from holdfast.watch.kernel.load import PROGRAMS, choose

BPF = Path(__file__).parents[2] / "bpf"
COUNT = 3


@pytest.fixture(scope="module")
def watch() -> Iterator[Watch]:
    with watching() as running:
        yield running


@dataclass(frozen=True)
class Scene:
    """A scenario that ran, with what was seen of it."""

    made: Made
    records: list[Reset]
    events: dict[str, list[Event]]

    def of(self, host: str, *kinds: Kind) -> list[Event]:
        """The events of a host, of these kinds."""
        return [event for event in self.events[host] if event.kind in kinds]


def see(watch: Watch, name: str, count: int = COUNT) -> Scene:
    """Make a scenario; its records are those of the label, explained."""
    pairings = observe(find(name), 4, count, watch.records, lambda _: None)
    made = pairings[0].made
    assert [one.differences() for one in pairings] == [{}] * count
    return Scene(
        made,
        [one.reset for one in pairings if one.reset is not None],
        {
            host: [event for event in watch.events(number) if event.mono_ns >= made.started_mono_ns]
            for host, number in made.netns.items()
        },
    )


def said_here(reason: str) -> str | None:
    """The reason, on a kernel that gives it (most since 6.10, those of active resets since 6.12)."""
    return reason if f"SK_RST_REASON_{reason}" in Btf.of_kernel().enum("sk_rst_reason") else None


@pytest.mark.needs_bpf
@pytest.mark.needs_netns
def test_t01_reset_without_a_rst_received(watch: Watch) -> None:
    """tcp_receive_reset also runs when data comes after a shutdown: nobody reset that socket but itself."""
    scene = see(watch, "data_after_shutdown")
    assert len(scene.of("server", Kind.SELF_RESET)) == COUNT
    assert scene.of("server", Kind.RESET_RECEIVED) == []
    told = watch.await_told(2 * COUNT, *scene.made.label.pairs)
    server = [one for one in told if one.netns == scene.made.netns["server"]]
    assert Counter((one.direction, one.cause) for one in server) == {
        (Direction.SENT, "data_after_shutdown"): COUNT
    }
    assert len(scene.of("client", Kind.RESET_RECEIVED)) == COUNT


@pytest.mark.needs_bpf
@pytest.mark.needs_netns
def test_t02_the_receiver_is_logged_before_the_sender(watch: Watch) -> None:
    """An active reset is traced after the segment has gone: by then the other end has obeyed."""
    with quiet_network() as inside:

        def abort() -> tuple[int, list[tuple[Endpoint, Endpoint]]]:
            ends = []
            for client, server in connections("127.0.0.1", COUNT):
                ends.append((Endpoint(*server.getsockname()), Endpoint(*client.getsockname())))
                server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                server.close()
                assert client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == ECONNRESET
                client.close()
            return netns(), ends

        number, ends = inside(abort)
        told = watch.await_told(2 * COUNT, *ends)
    sent = {e.local: e.mono_ns for e in watch.events(number, Kind.RESET_SENT) if (e.local, e.peer) in ends}
    received = [e for e in watch.events(number, Kind.RESET_RECEIVED) if (e.peer, e.local) in ends]
    assert all(event.mono_ns < sent[event.peer] for event in received), "the trap is not there any more"
    assert len(received) == COUNT
    assert Counter((one.local, one.peer, one.direction, one.sender) for one in told) == Counter(
        [(*pair, Direction.SENT, "local") for pair in ends]
        + [(peer, local, Direction.RECEIVED, "peer") for local, peer in ends]
    )
    assert {one.cause for one in told} == {"linger_zero"}
    assert len({one.story for one in told}) == COUNT, "both ends tell one story"


@pytest.mark.needs_bpf
@pytest.mark.needs_netns
def test_t03_the_state_is_closed_by_the_time_of_the_reset(watch: Watch) -> None:
    """close() changes the state first; what matters is the state before."""
    scene = see(watch, "closed_with_unread_data")
    assert {event.state for event in scene.of("server", Kind.RESET_SENT)} == {"CLOSED"}
    assert {one.state for one in scene.records} == {"ESTABLISHED"}


@pytest.mark.needs_bpf
@pytest.mark.needs_netns
@pytest.mark.parametrize("name", ["data_after_close", "keepalive_race", "closed_port", "fin_wait2_timeout"])
def test_t04_whoever_was_interrupted_is_not_the_owner(watch: Watch, name: str) -> None:
    """In a softirq or timer the current process is any: nobody is blamed but who had the socket."""
    scene = see(watch, name)
    sent = scene.of("server", Kind.RESET_SENT)
    assert len(sent) == COUNT
    assert [(event.closer, event.user_stack) for event in sent] == [(None, ())] * COUNT
    assert {one.owner.pid if one.owner else None for one in scene.records} == {scene.made.label.owner_pid}


@pytest.mark.needs_bpf
@pytest.mark.needs_netns
@pytest.mark.parametrize("name", ["segment_to_listener", "duplicate_syn", "accept_queue_overflow"])
def test_t05_a_listener_has_no_peer(watch: Watch, name: str) -> None:
    """The listening socket is of 0.0.0.0:0; who was reset is in the segment."""
    scene = see(watch, name)
    assert {(one.local, one.peer) for one in scene.records} == set(scene.made.label.pairs)
    assert {event.state for event in scene.of("server", Kind.RESET_SENT)} <= {"LISTEN", "NEW_SYN_RECV"}


@pytest.mark.needs_bpf
@pytest.mark.needs_netns
def test_t06_the_ports_outlive_the_socket(watch: Watch) -> None:
    """Closing gives an unbound port back before the event, and later events have no peer's port."""
    scene = see(watch, "connect_af_unspec")
    pairs = set(scene.made.label.pairs)
    assert {(event.local, event.peer) for event in scene.of("client", Kind.RESET_SENT)} == pairs
    assert all(local.port for local, _ in pairs)
    numbers = {event.cookie for event in scene.of("client", Kind.RESET_SENT)}
    client = [one for one in watch.told(*pairs) if one.netns == scene.made.netns["client"]]
    assert len(client) == len(numbers) == COUNT
    strays = {event.local for event in scene.of("client", Kind.ERROR) if not event.peer.port}
    told = {one.local for one in watch.told(*((local, Endpoint(p.ip, 0)) for local, p in pairs))}
    assert not told & strays, "the error of a reset is told as an ending of its own"


@pytest.mark.needs_bpf
@pytest.mark.needs_netns
@pytest.mark.parametrize(
    ("name", "reason", "counter"),
    [
        ("linger_zero", "TCP_STATE", "TcpExtTCPAbortOnData"),
        ("linger2_negative", "TCP_ABORT_ON_LINGER", "TcpExtTCPAbortOnLinger"),
    ],
)
def test_t07_abort_on_linger_is_not_so_linger(watch: Watch, name: str, reason: str, counter: str) -> None:
    """SO_LINGER with zero seconds is told as TCP_STATE; the reason of that name means TCP_LINGER2."""
    scene = see(watch, name)
    assert {(one.cause, one.kernel_reason) for one in scene.records} == {(name, said_here(reason))}
    assert scene.made.delta("server", counter) == COUNT


# Kernels that are not here, by what their BTF says.

FULL = {
    "btf_trace_inet_sock_set_state": 3,
    "btf_trace_tcp_receive_reset": 1,
    "btf_trace_net_dev_queue": 1,
    "btf_trace_inet_sk_error_report": 1,
}
FUNCTIONS = {"tcp_v4_send_reset", "tcp_v6_send_reset", "bpf_sock_from_file", "tcp_reset"}


class OtherKernel(Btf):
    """What the chooser asks of a kernel's types."""

    def __init__(self, sent: int, dropped: int, typed: bool) -> None:
        counts = FULL | {"btf_trace_tcp_send_reset": sent, "btf_trace_kfree_skb": dropped}
        self._counts = {name: count for name, count in counts.items() if count}
        self._typed = typed

    def parameters(self, name: str) -> tuple[Parameter, ...] | None:
        count = self._counts.get(name)
        return None if count is None else (Parameter("", "void *"),) * (count + 1)

    def has_struct(self, name: str) -> bool:
        return self._typed and name == "bpf_raw_tp_null_args"

    def has_function(self, name: str) -> bool:
        return name in FUNCTIONS

    def enum(self, name: str) -> dict[str, int]:
        return {}

    def members(self, name: str) -> tuple[str, ...] | None:
        return None


#  kernel        arguments of tcp_send_reset, of kfree_skb, verifier knows NULL; what sends are seen by
KERNELS = {
    "5.15": (OtherKernel(2, 2, False), {"reset_sent_unreasoned", "passive_sent_v4", "passive_sent_v6"}),
    "6.1": (OtherKernel(2, 3, False), {"reset_sent_unreasoned", "passive_sent_v4", "passive_sent_v6"}),
    "6.6": (OtherKernel(2, 3, False), {"reset_sent_unreasoned", "passive_sent_v4", "passive_sent_v6"}),
    "6.10": (OtherKernel(3, 3, False), {"reset_sent_untyped"}),
    "6.12": (OtherKernel(3, 4, False), {"reset_sent_untyped"}),
    "6.14": (OtherKernel(3, 4, True), {"reset_sent"}),
    "6.18": (OtherKernel(3, 4, True), {"reset_sent"}),
}
SENDING = {program.name for program in PROGRAMS if program.role in ("sent", "passive_v4", "passive_v6")}


@pytest.mark.parametrize("release", KERNELS)
def test_each_kernel_gets_the_programs_that_fit_it(release: str) -> None:
    btf, expected = KERNELS[release]
    chosen, refused = choose(btf)
    assert {program.name for program in chosen} & SENDING == expected
    assert not {report.name for report in refused} & expected
    assert all(report.reason for report in refused)


def sections() -> dict[str, tuple[str, list[str]]]:
    """Of each BPF program its section and its parameters, from the sources."""
    found = {}
    pattern = re.compile(
        r'SEC\("([^"]+)"\)\s+int\s+(?:BPF_PROG\((\w+),?\s*([^)]*)\)|(\w+)\(([^)]*)\))', re.DOTALL
    )
    for file in BPF.glob("*.bpf.c"):
        for section, typed, arguments, plain, context in pattern.findall(file.read_text()):
            words = " ".join((arguments or context).split())
            found[typed or plain] = (section, [word.strip() for word in words.split(",")])
    return found


def test_every_program_of_the_table_is_in_the_sources() -> None:
    assert {program.name for program in PROGRAMS} == set(sections())


def test_t08_no_prototype_that_varies_is_relied_on() -> None:
    """tcp_send_active_reset() was changed twice, once in a stable release: the tracepoint says the reason."""
    hooks = {section.split("/")[-1] for section, _ in sections().values()}
    assert "tcp_send_active_reset" not in hooks
    functions = {
        name: arguments
        for name, (section, arguments) in sections().items()
        if section.startswith(("fentry", "fexit"))
    }
    # What is attached to a function reads no number from it, and below 6.10 these two must be there.
    assert {"passive_sent_v4", "passive_sent_v6"} <= set(functions)
    assert all("*" in argument for arguments in functions.values() for argument in arguments), functions
    for arguments, name in ((2, "reset_sent_unreasoned"), (3, "reset_sent_untyped")):
        chosen = {program.name for program in choose(OtherKernel(arguments, 3, False))[0]}
        assert chosen & {"reset_sent", "reset_sent_untyped", "reset_sent_unreasoned"} == {name}
    required = {report.name for report in choose(OtherKernel(4, 3, True))[1]}
    assert {"reset_sent", "reset_sent_untyped", "reset_sent_unreasoned"} <= required, "a layout yet unknown"


@pytest.mark.needs_bpf
@pytest.mark.needs_netns
def test_t09_an_overflow_is_not_an_invalid_syn(watch: Watch) -> None:
    """The kernel says INVALID_SYN for both; the segment that provoked it has no SYN if the queue was full."""
    scenes = {name: see(watch, name) for name in ("accept_queue_overflow", "duplicate_syn")}
    for name, scene in scenes.items():
        said = said_here("INVALID_SYN")
        assert {(one.cause, one.kernel_reason) for one in scene.records} == {(name, said)}


# Tracepoints whose arguments are never NULL in any kernel (or whose nullable one is not asked for: a
# fourth of kfree_skb). The arguments of tcp_send_reset may be.
NEVER_NULL = {
    "inet_sock_set_state": 3,
    "tcp_receive_reset": 1,
    "net_dev_queue": 1,
    "kfree_skb": 3,
    "inet_sk_error_report": 1,
}


@pytest.mark.parametrize("release", KERNELS)
def test_t10_no_typed_program_gets_null_where_the_verifier_does_not_know(release: str) -> None:
    """Before 6.14 the verifier drops a NULL check on a tracepoint's argument as needless: a crash."""
    btf, _ = KERNELS[release]
    known = sections()
    for program in choose(btf)[0]:
        section, arguments = known[program.name]
        if not section.startswith("tp_btf/"):
            continue
        tracepoint = section.removeprefix("tp_btf/")
        if btf.has_struct("bpf_raw_tp_null_args"):
            continue
        assert len(arguments) <= NEVER_NULL.get(tracepoint, -1), f"{program.name} on {tracepoint}"


@pytest.mark.needs_bpf
def test_t10_this_kernel_runs_the_typed_program_only_if_it_may(watch: Watch) -> None:
    attached = {hook.name for hook in watch.source.hooks if hook.attached} & SENDING
    assert attached & {"reset_sent", "reset_sent_untyped", "reset_sent_unreasoned"} == {
        program.name for program in choose(Btf.of_kernel())[0] if program.role == "sent"
    }


@pytest.mark.needs_bpf
@pytest.mark.needs_netns
@pytest.mark.parametrize(
    ("name", "host", "cause"),
    [
        ("local_firewall_reject", "server", "local_firewall_reject"),
        ("not_sent_by_tcp", "server", "not_sent_by_tcp"),
        ("path_firewall_reject", "router", "local_firewall_reject"),
    ],
)
def test_t11_a_rst_that_tcp_did_not_send_is_seen(watch: Watch, name: str, host: str, cause: str) -> None:
    """No tracepoint of TCP and no OutRsts tell of a firewall or a raw socket."""
    scene = see(watch, name)
    assert scene.made.delta(host, "TcpOutRsts") == 0
    assert scene.of(host, Kind.RESET_SENT) == []
    assert len(scene.of(host, Kind.RST_LEFT)) == COUNT
    sent = [
        one
        for one in watch.told(*scene.made.label.pairs)
        if one.netns == scene.made.netns[host] and one.direction is Direction.SENT
    ]
    assert Counter(one.cause for one in sent) == {cause: COUNT}


@pytest.mark.needs_bpf
@pytest.mark.needs_netns
def test_t12_counters_lump_together_what_the_totals_tell_apart(watch: Watch) -> None:
    """TCPAbortOnData counts an abort and data after a shutdown alike; ECONNRESET may be no TCP at all."""
    with quiet_network() as inside:

        def both() -> int:
            for number, (client, server) in enumerate(connections("127.0.0.1", 5)):
                if number < COUNT:
                    server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                else:
                    server.shutdown(socket.SHUT_RDWR)
                    client.sendall(b"more")
                server.close()
                client.close()
            one, other = socket.socketpair()
            one.sendall(b"unread")
            other.close()
            with one, pytest.raises(ConnectionResetError):
                one.recv(1)
            return netns()

        before = _causes(watch, inside(netns))  # of an earlier namespace with the same number
        number = inside(both)
        text = inside(lambda: Path("/proc/thread-self/net/netstat").read_text())
        names, values = (line.split() for line in text.splitlines()[:2])
        counters = dict(zip(names, values, strict=True))
        caused = _causes(watch, number) - before
    assert int(counters["TCPAbortOnData"]) == 5
    assert caused == {"linger_zero": COUNT, "data_after_shutdown": 5 - COUNT}


def _causes(watch: Watch, number: int) -> Counter[str]:
    """Totals of a namespace by cause."""
    found = Counter[str]()
    for event, times in watch.source.totals():
        if event.netns == number and event.kind is Kind.RESET_SENT:
            found[sent_cause(event).cause] += times
    return found


@pytest.mark.needs_bpf
@pytest.mark.needs_netns
def test_t13_the_first_error_is_the_kernels_not_the_programs_last(watch: Watch) -> None:
    """Reading the error clears it; the program then sees EPIPE, and we still tell what it was."""
    for _ in range(TRIES):  # as observe() does
        with Network(4) as net:
            _, client = net.established(COUNT)
            net.router.firewall(path(SILENCE))
            client.user_timeout(300)
            client.send("hello")
            assert client.await_end(ETIMEDOUT) == [ETIMEDOUT] * COUNT  # SO_ERROR: consumed
            with pytest.raises(ScenarioFailed, match="Broken pipe"):
                client.send("again")
            told = watch.await_told(COUNT, *client.pairs)
            seen = watch.events(net.client.netns, Kind.ERROR)
            errors = [event.error for event in seen if (event.local, event.peer) in client.pairs]
        if errors:
            break
    assert errors == [ETIMEDOUT] * COUNT
    assert Counter((one.cause, one.ending) for one in told) == {("user_timeout", Ending.TIMED_OUT): COUNT}


def test_every_trap_has_a_test() -> None:
    text = Path(__file__).read_text()
    assert {int(number) for number in re.findall(r"^def test_t(\d\d)_", text, re.MULTILINE)} == set(
        range(1, 14)
    )
