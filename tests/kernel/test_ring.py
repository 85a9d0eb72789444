# SPDX-License-Identifier: Apache-2.0
"""``holdfast._bpf``: misuse is an exception in words, never a crash; what is folded is counted exactly."""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import AS_NOBODY
from kernel.quiet_network import netns, quiet_network
from kernel.watching import await_that, each_of

from holdfast.events import Kind
from holdfast.watch.kernel import wire
from holdfast.watch.kernel.load import OBJECT, Monitor
from holdfast.watch.kernel.source import ALIKE, EVERYTHING, KernelSource

_bpf = pytest.importorskip("holdfast._bpf", exc_type=ModuleNotFoundError)
PLENTY = 1_000_000
Inside = Callable[[Callable[[], Any]], Any]


@pytest.fixture
def unloaded() -> Iterator[Any]:
    made = _bpf.Object(str(OBJECT))
    yield made
    made.close()


@pytest.fixture
def loaded(unloaded: Any) -> Any:
    """Maps only: no program is asked for."""
    unloaded.load([])
    return unloaded


@pytest.fixture
def inside() -> Iterator[Inside]:
    with quiet_network() as run:
        yield run


# What needs no rights.


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("/nowhere/at/all.o", FileNotFoundError),
        ("/etc/passwd", OSError),
        ("/tmp", OSError),
        ("", OSError),
        ("a\0b", ValueError),
        (7, TypeError),
        (None, TypeError),
    ],
)
def test_a_path_that_is_no_object(path: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        _bpf.Object(path)


def test_the_sentence_names_the_file_and_what_is_wrong_with_it() -> None:
    with pytest.raises(FileNotFoundError, match=r"opening /nowhere\.o: No such file") as caught:
        _bpf.Object("/nowhere.o")
    assert caught.value.errno == errno.ENOENT
    with pytest.raises(OSError, match="'/etc/passwd' is not a proper ELF object"):
        _bpf.Object("/etc/passwd")


def test_a_damaged_object_is_refused(tmp_path: Path) -> None:
    """Cut anywhere, or with octets turned over in its headers: an exception, or an object, never a crash."""
    whole = OBJECT.read_bytes()
    broken = tmp_path / "broken.o"
    for cut in (1, 16, 64, 1000, len(whole) // 2, len(whole) - 1):
        broken.write_bytes(whole[:cut])
        with pytest.raises(OSError, match=r"broken\.o"):
            _bpf.Object(str(broken))


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (("set_constant", "nothing", b"x"), KeyError, "no BPF constant nothing of 1 bytes"),
        (("set_constant", "segments", b"xx"), KeyError, "no BPF constant segments of 2 bytes"),
        (("set_constant", "segments", b""), KeyError, "no BPF constant segments of 0 bytes"),
        (("set_constant", "ring", b"x"), KeyError, "no BPF constant ring"),
        (("set_max_entries", "nothing", 1), KeyError, "no BPF map named nothing"),
        (("attach", "nothing"), KeyError, "no BPF program named nothing"),
        (("attach", "state_changed"), OSError, "attaching state_changed"),
        (("iterate", "nothing"), KeyError, "no BPF program named nothing"),
        (("iterate", "socket_found"), OSError, "attaching socket_found"),
        (("sums", "nothing"), KeyError, "no BPF map named nothing"),
        (("sums", "losses"), ValueError, "losses is not a loaded map of counters"),
        (("drain", "nothing", 1, 1), KeyError, "no BPF map named nothing"),
        (("drain", "ring", 1, 1), OSError, "reading ring ring"),
        (("load", 7), TypeError, "not iterable"),
        (("load", ["nothing"]), KeyError, "not every one of"),
        (("load", ["state_changed", "nothing"]), KeyError, "not every one of"),
        (("set_max_entries", "ring", -1), ValueError, "no map has -1 entries"),
        (("set_max_entries", "ring", 1 << 40), ValueError, "no map has 1099511627776 entries"),
        (("load",), TypeError, "argument"),
    ],
)
def test_misuse_before_loading(
    unloaded: Any, call: tuple[Any, ...], error: type[Exception], words: str
) -> None:
    name, *arguments = call
    with pytest.raises(error, match=words):
        getattr(unloaded, name)(*arguments)


EVERY_CALL: list[tuple[Any, ...]] = [
    ("set_constant", "segments", b"\1"),
    ("set_max_entries", "ring", 4096),
    ("load", []),
    ("attach", "state_changed"),
    ("iterate", "socket_found"),
    ("sums", "losses"),
    ("drain", "ring", 1, 1),
    ("statistics",),
    ("skipped",),
]


@pytest.mark.parametrize("call", EVERY_CALL, ids=[call[0] for call in EVERY_CALL])
def test_a_closed_object_says_so(unloaded: Any, call: tuple[Any, ...]) -> None:
    unloaded.close()
    unloaded.close()
    name, *arguments = call
    with pytest.raises(ValueError, match="the BPF object is closed"):
        getattr(unloaded, name)(*arguments)


def test_every_method_is_in_the_table_above() -> None:
    public = {name for name in dir(_bpf.Object) if not name.startswith("_")}
    assert public == {call[0] for call in EVERY_CALL} | {"close"}


def test_an_object_that_was_never_made_is_closed() -> None:
    with pytest.raises(ValueError, match="the BPF object is closed"):
        _bpf.Object.__new__(_bpf.Object).sums("losses")


# What needs the rights to load.


@pytest.mark.needs_bpf
@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (("load", []), OSError, "load can't be attempted twice"),
        (("set_constant", "segments", b"\1"), ValueError, "set too late"),
        (("set_max_entries", "ring", 4096), OSError, "sizing map ring"),
        (("attach", "state_changed"), OSError, "can't attach before loaded"),
        (("iterate", "reset_sent"), OSError, "attaching reset_sent"),
        (("sums", "ring"), ValueError, "ring is not a loaded map of counters"),
        (("sums", "closed"), ValueError, "closed is not a loaded map of counters"),
        (("drain", "losses", 1, 1), OSError, "reading ring losses"),
        (("drain", "ring", -1, 1), ValueError, "nobody keeps -1 records, or 1 of alike"),
        (("drain", "ring", 1, 0), ValueError, "nobody keeps 1 records, or 0 of alike"),
        (("drain", "ring", 1, -1), ValueError, "nobody keeps 1 records, or -1 of alike"),
        (("drain", "ring", 1, 1 << 64), OverflowError, "too large"),
    ],
)
def test_misuse_after_loading(loaded: Any, call: tuple[Any, ...], error: type[Exception], words: str) -> None:
    name, *arguments = call
    with pytest.raises(error, match=words):
        getattr(loaded, name)(*arguments)


@pytest.mark.needs_bpf
def test_an_object_is_read_by_one_ring(loaded: Any) -> None:
    loaded.drain("ring", 1, 1)
    with pytest.raises(ValueError, match="another ring than before"):
        loaded.drain("closed", 1, 1)


@pytest.mark.needs_bpf
def test_a_fresh_object_has_counted_nothing(loaded: Any) -> None:
    assert loaded.sums("losses") == {loss.to_bytes(4, "little"): 0 for loss in wire.Loss}
    assert loaded.sums("tallies") == {}
    assert loaded.drain("ring", 1, 1) == (b"", {})
    assert loaded.statistics() == {}


@pytest.mark.needs_bpf
def test_a_second_start_frees_the_first(unloaded: Any) -> None:
    """__init__ called again, as Python allows, replaces the object."""
    unloaded.load([])
    unloaded.__init__(str(OBJECT))
    unloaded.load([])
    assert unloaded.sums("tallies") == {}


@pytest.mark.needs_bpf
def test_closing_detaches() -> None:
    monitor = Monitor()
    monitor.close()
    with pytest.raises(ValueError, match="closed"):
        monitor.object.drain("ring", 1, 1)
    monitor.close()


# Folding: known numbers of refused connections, alike but for the port.


def refuse(count: int) -> int:
    """So many connection attempts to a closed port; gives the namespace they happened in."""
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        address = reserved.getsockname()
    for _ in range(count):
        with socket.socket() as sock:
            assert sock.connect_ex(address) == errno.ECONNREFUSED
    return netns()


def kinds(records: bytes, of: int) -> Counter[Kind]:
    names = wire.Names({}, 1)
    return Counter(event.kind for event in wire.decode(records, names) if event.netns == of)


def folded_kinds(folded: dict[tuple[bytes, int, int, int], int], of: int) -> Counter[Kind]:
    found = Counter[Kind]()
    for (raw, *_), times in folded.items():
        event = wire.event_of_key(wire.TallyKey(*wire.TALLY_KEY.unpack(raw)), wire.Names({}, 1))
        if event.netns == of:
            found[event.kind] += times
    return found


@pytest.mark.needs_bpf
@pytest.mark.needs_netns
@pytest.mark.parametrize(("count", "keep"), [(10, 64), (64, 64), (65, 64), (200, 64), (200, 1), (91, 90)])
@pytest.mark.parametrize("plenty", [0, 3])
def test_where_not_all_can_be_kept_alike_records_are_counted(
    inside: Inside, count: int, keep: int, plenty: int
) -> None:
    """512 are told apart by port and process: enough for 4 times 90, and for what others reset here."""
    monitor = Monitor()
    try:
        of = inside(lambda: refuse(count))
        records, folded = monitor.object.drain("ring", plenty, keep)
        kept, each = min(count, keep), each_of(monitor.hooks)
        assert kinds(records, of) == dict.fromkeys(each, kept)
        assert folded_kinds(folded, of) == {kind: count - kept for kind in each if count > kept}
        again, folded = monitor.object.drain("ring", plenty, keep)
        assert (kinds(again, of), folded_kinds(folded, of)) == ({}, {})
    finally:
        monitor.close()


@pytest.mark.needs_bpf
@pytest.mark.needs_netns
@pytest.mark.parametrize("beyond", [0, 1])
def test_nothing_is_folded_until_there_is_more_than_plenty(inside: Inside, beyond: int) -> None:
    """Others reset too on this host: so what is plenty is found by how many records there were."""
    monitor = Monitor()
    try:
        of = inside(lambda: refuse(50))
        each = each_of(monitor.hooks)
        records, folded = monitor.object.drain("ring", 50 * len(each) - beyond, 1)
        others = len(records) // wire.EVENT.size != 50 * len(each)
        if others or beyond:
            assert kinds(records, of).total() + folded_kinds(folded, of).total() == 50 * len(each)
        if not others and not beyond:
            assert (kinds(records, of), folded) == (dict.fromkeys(each, 50), {})
        if beyond:
            assert kinds(records, of) == dict.fromkeys(each, 1)
    finally:
        monitor.close()


@pytest.mark.needs_bpf
@pytest.mark.needs_netns
def test_a_flood_does_not_hide_another_port(inside: Inside) -> None:
    """The same cause, namespace and process; only the ports differ, at one end each."""
    monitor = Monitor()
    try:

        def flood_and_one() -> tuple[int, int]:
            of = refuse(300)
            with socket.socket() as sock:
                sock.bind(("127.0.0.1", 0))
                assert sock.connect_ex(("127.0.0.1", 11)) == errno.ECONNREFUSED
                own = sock.getsockname()[1]
            refuse(300)
            return of, own

        of, own = inside(flood_and_one)
        records, folded = monitor.object.drain("ring", 0, 8)
        each = each_of(monitor.hooks)
        told = Counter(
            event.kind
            for event in wire.decode(records, wire.Names({}, 1))
            if event.netns == of and {event.local.port, event.peer.port} == {11, own}
        )
        assert told == dict.fromkeys(each, 1)
        assert folded_kinds(folded, of) == dict.fromkeys(each, 600 - 16)
        assert {bool(local) != bool(peer) for _, local, peer, _ in folded} == {True}
    finally:
        monitor.close()


@pytest.mark.needs_bpf
@pytest.mark.needs_netns
def test_a_flood_over_many_ports_is_folded_too(inside: Inside) -> None:
    """Each port for itself is no flood; beyond so many of them the tally alone decides."""
    monitor = Monitor()
    try:

        def refuse_each() -> int:
            for port in range(2_000, 3_000):
                with socket.socket() as sock:
                    assert sock.connect_ex(("127.0.0.1", port)) == errno.ECONNREFUSED
            return netns()

        of = inside(refuse_each)
        records, folded = monitor.object.drain("ring", 0, 8)
        each = each_of(monitor.hooks)
        kept, more = kinds(records, of), folded_kinds(folded, of)
        assert kept + more == dict.fromkeys(each, 1_000)
        assert kept.total() <= 512 + 8 * len(each) * 2
    finally:
        monitor.close()


@pytest.mark.needs_bpf
@pytest.mark.needs_netns
def test_more_than_one_drain_returns_waits_for_the_next(inside: Inside) -> None:
    """4096 records a call: neither lost nor told twice at the seam."""
    count = 1500
    monitor = Monitor()
    try:
        of = inside(lambda: refuse(count))
        found, calls = Counter[Kind](), 0
        while (got := monitor.object.drain("ring", PLENTY, 1))[0]:
            assert got[1] == {}
            assert len(got[0]) <= 4096 * wire.EVENT.size
            found += kinds(got[0], of)
            calls += 1
        each = each_of(monitor.hooks)
        assert found == dict.fromkeys(each, count)
        assert calls >= count * len(each) / 4096
    finally:
        monitor.close()


def told_by(source: KernelSource, of: int) -> Counter[Kind]:
    """What one drain and what it left tell of a namespace."""
    found = Counter[Kind]()
    while events := source.drain():
        found += Counter(event.kind for event in events if event.netns == of)
    return found


@pytest.mark.needs_bpf
@pytest.mark.needs_netns
def test_two_hundred_resets_at_once_are_told_one_by_one(inside: Inside) -> None:
    """A process killed with its connections open is no flood."""
    with KernelSource() as source:
        of = inside(lambda: refuse(200))
        assert told_by(source, of) == dict.fromkeys(each_of(source.hooks), 200)
        assert (source.folded, source.folds()) == (0, [])


@pytest.mark.needs_bpf
@pytest.mark.needs_netns
def test_who_wants_everything_is_told_everything(inside: Inside) -> None:
    with KernelSource(keep=EVERYTHING) as source:
        of = inside(lambda: refuse(1_500))
        assert told_by(source, of) == dict.fromkeys(each_of(source.hooks), 1_500)
        assert (source.folded, source.folds()) == (0, [])


@pytest.mark.needs_bpf
@pytest.mark.needs_netns
def test_the_source_adds_up_what_it_folds_and_says_of_what(inside: Inside) -> None:
    with KernelSource(keep=0) as source:
        of = inside(lambda: refuse(200))
        told = Counter(event.kind for event in source.drain() if event.netns == of)
        each = each_of(source.hooks)
        assert told == dict.fromkeys(each, ALIKE)
        assert source.folded >= 2 * (200 - ALIKE)
        folds = [(event, count) for event, count in source.folds() if event.netns == of]
        assert Counter({event.kind: count for event, count in folds}) == dict.fromkeys(each, 200 - ALIKE)
        # Of the refused connections one port is the same, at the one end or the other.
        assert len({event.local.port or event.peer.port for event, _ in folds}) == 1
        assert source.folds() == []
        totals = Counter[Kind]()
        for event, times in source.totals():
            if event.netns == of:
                totals[event.kind] += times
        assert totals == dict.fromkeys(each, 200)
        assert (source.lost(), source.uncounted()) == (0, 0)


@pytest.mark.needs_bpf
@pytest.mark.needs_netns
def test_only_resets_are_more_like_them(inside: Inside) -> None:
    """Arrivals and errors go with a reset and are none of their own: 200 are 2 times 200, not 4 times."""
    with KernelSource(keep=0) as source:
        inside(lambda: refuse(200))
        source.drain()
        resets = (Kind.RESET_SENT, Kind.RESET_RECEIVED)
        assert source.folded == sum(count for event, count in source.folds() if event.kind in resets)


# Without rights.


ATTEMPT = """
from holdfast.errors import KernelUnavailable
from holdfast.watch.kernel.source import KernelSource
try:
    KernelSource().close()
except KernelUnavailable as error:
    print(error.feature, error.needs, error, sep="|")
"""


@pytest.mark.needs_bpf
def test_without_rights_the_sentence_says_which_are_needed() -> None:
    """Whatever fails first (opening BTF, loading, attaching): one error of ours, and what would help."""
    done = subprocess.run(
        [*AS_NOBODY, sys.executable, "-c", ATTEMPT], capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    feature, needs, sentence = done.stdout.strip().split("|")
    assert feature == "watching by BPF"
    assert needs == "root, or the capabilities BPF, PERFMON and NET_ADMIN"
    assert sentence == f"{feature} is not available here: it needs {needs}."


KILLED = """
import os, pathlib
from holdfast.watch.kernel.load import Monitor
monitor = Monitor()
for fd in range(3, 100):
    info = pathlib.Path(f"/proc/self/fdinfo/{fd}")
    words = info.read_text().split() if info.exists() else []
    if "prog_id:" in words:
        print(words[words.index("prog_id:") + 1], flush=True)
os.kill(os.getpid(), 9)
"""


@pytest.mark.needs_bpf
def test_a_process_that_is_killed_leaves_nothing_attached() -> None:
    """The kernel detaches with the last file descriptor; nothing is pinned."""
    done = subprocess.run([sys.executable, "-c", KILLED], capture_output=True, timeout=30, check=False)
    assert done.returncode == -9, done.stderr
    loaded = {int(number) for number in done.stdout.split()}
    assert len(loaded) > 5
    left = await_that(lambda: loaded & loaded_programs(), lambda left: not left)
    assert left == set(), "programs are left in the kernel"


BPF_PROG_GET_NEXT_ID = 11


def loaded_programs() -> set[int]:
    """Identifiers of every BPF program in the kernel (bpf(BPF_PROG_GET_NEXT_ID))."""
    libc = ctypes.CDLL(None, use_errno=True)
    number = {"x86_64": 321, "aarch64": 280}[os.uname().machine]
    found: set[int] = set()
    last = 0
    while True:
        attr = ctypes.create_string_buffer(struct.pack("<III", last, 0, 0), 12)
        if libc.syscall(number, BPF_PROG_GET_NEXT_ID, attr, 12) != 0:
            return found
        last = struct.unpack_from("<III", attr)[1]
        found.add(last)
