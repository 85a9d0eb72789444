"""Files of every kind give the same flows; damage gives what came before it."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import bz2
import gzip
import lzma
import os
import struct
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import lz4.frame
import making_captures as make
import pytest
import zstandard

from holdfast.errors import MalformedCapture, UsageError
from holdfast.watch.capture import read_captures
from holdfast.watch.capture.flow import EndedBy, Flow
from holdfast.watch.capture.summary import Damage, Progress, Summary

PLAIN = make.pcap(make.conversation())
COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "zstd": zstandard.ZstdCompressor().compress,
    "xz": lzma.compress,
    "lz4": lz4.frame.compress,
    "bzip2": bz2.compress,
}


def save(path: Path, data: bytes) -> str:
    path.write_bytes(data)
    return str(path)


def read(*paths: str) -> tuple[list[Flow], Summary]:
    reading = read_captures(paths)
    flows = list(reading)
    return flows, reading.summary


def expected(tmp_path: Path) -> tuple[list[Flow], Summary]:
    return read(save(tmp_path / "plain.pcap", PLAIN))


@pytest.mark.parametrize("name", sorted(COMPRESSORS))
def test_compression_is_known_by_its_magic_not_by_the_name(tmp_path: Path, name: str) -> None:
    assert read(save(tmp_path / "capture.pcap", COMPRESSORS[name](PLAIN))) == expected(tmp_path)


@pytest.mark.parametrize("name", sorted(COMPRESSORS))
def test_concatenated_members_are_one_file(tmp_path: Path, name: str) -> None:
    squeeze = COMPRESSORS[name]
    whole = squeeze(PLAIN[:100]) + squeeze(PLAIN[100:])
    assert read(save(tmp_path / "capture", whole)) == expected(tmp_path)


@pytest.mark.parametrize("name", sorted(COMPRESSORS))
def test_a_compressed_file_that_ends_early_gives_what_it_has(tmp_path: Path, name: str) -> None:
    many = make.pcap(make.conversation() + make.conversation(client=("192.0.2.9", 5)) * 3000)
    squeezed = COMPRESSORS[name](many)
    flows, summary = read(save(tmp_path / "capture", squeezed[: len(squeezed) // 2]))
    assert [damage.path for damage in summary.damage] == [str(tmp_path / "capture")]
    assert all(flow.zeek_state == "RSTR" for flow in flows[:1])


@pytest.mark.parametrize("kind", ["us", "ns", "modified"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_every_pcap_is_the_same(tmp_path: Path, kind: str, order: str) -> None:
    flows, summary = read(save(tmp_path / "a", make.pcap(make.conversation(), kind=kind, order=order)))
    (plain,), counted = expected(tmp_path)
    assert summary == counted
    assert [flow.sent_by_server for flow in flows] == [plain.sent_by_server]
    assert [packet.time_ns for packet in flows[0].packets] == [packet.time_ns for packet in plain.packets]


@pytest.mark.parametrize("order", ["<", ">"])
def test_pcapng_is_the_same(tmp_path: Path, order: str) -> None:
    flows, summary = read(save(tmp_path / "a", make.pcapng(make.conversation(), order=order)))
    (plain,), counted = expected(tmp_path)
    assert summary == counted
    assert [flow.sent_by_client for flow in flows] == [plain.sent_by_client]


def test_pcapng_interfaces_have_clocks_of_their_own(tmp_path: Path) -> None:
    first, second, third = make.conversation()[:3]
    nano = make.Record(first.time_ns + 123, first.data)
    binary = make.Record(second.time_ns, second.data, interface=1)
    whole = (
        make.section()
        + make.interface(resolution=9, offset_s=1000)
        + make.interface(resolution=0x80 | 10)
        + make.enhanced(nano, ticks_per_s=10**9, offset_s=1000)
        + make.enhanced(binary, ticks_per_s=1 << 10)
        + make.block(0x0BAD, b"unknown blocks are skipped")
        + make.simple(third)
        + make.section(">")
        + make.interface(order=">")
        + make.enhanced(make.conversation()[6], order=">")
    )
    (flow,), summary = read(save(tmp_path / "a", whole))
    assert summary.damage == ()
    assert [packet.time_ns - 10**18 for packet in flow.packets] == [123, 9765625, 9765625, 60_000_000]
    assert [packet.interface for packet in flow.packets] == [0, 1, 0, 0]


def test_offsets_and_numbers_find_the_packets_again(tmp_path: Path) -> None:
    (flow,), _ = expected(tmp_path)
    for packet, record in zip(flow.packets, make.conversation(), strict=True):
        assert packet.offset is not None
        (length,) = struct.unpack_from("<I", PLAIN, packet.offset + 8)
        assert PLAIN[packet.offset + 16 : packet.offset + 16 + length] == record.data
    assert [packet.number for packet in flow.packets] == [1, 2, 3, 4, 5, 6, 7]


def test_rotated_files_are_one_capture_in_the_order_of_time(tmp_path: Path) -> None:
    records = make.conversation()
    late, early = save(tmp_path / "a", make.pcap(records[3:])), save(tmp_path / "b", make.pcap(records[:3]))
    (flow,), summary = read(late, early)
    assert (flow.zeek_history, summary.packets) == ("ShADadr", 7)
    assert [packet.source for packet in flow.packets] == [0, 0, 0, 1, 1, 1, 1]


def test_a_file_with_two_names_is_read_once(tmp_path: Path) -> None:
    once = save(tmp_path / "a", PLAIN)
    (tmp_path / "b").symlink_to(once)
    flows, summary = read(once, str(tmp_path / "b"), once)
    assert (len(flows), summary.packets) == (1, 7)
    assert summary.repeated == (str(tmp_path / "b"), once)


@pytest.mark.parametrize(
    ("first", "second", "overlaps"),
    [
        (slice(7), slice(7), True),  # a copy
        (slice(5), slice(1, 7), True),
        (slice(4), slice(3, 7), False),  # as where the queues of a card are not read in order
        (slice(3), slice(3, 7), False),
    ],
)
def test_files_of_the_same_time_are_noted(
    tmp_path: Path, first: slice, second: slice, overlaps: bool
) -> None:
    records = make.conversation()
    one = save(tmp_path / "a", make.pcap(records[first]))
    two = save(tmp_path / "b", make.pcap(records[second]))
    assert read(one, two)[1].overlapping == ((two,) if overlaps else ())


def test_standard_input_is_read(tmp_path: Path) -> None:
    code = (
        "from holdfast.watch.capture import read_captures\n"
        "print([flow.zeek_history for flow in read_captures(['-'])])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], input=gzip.compress(PLAIN), capture_output=True, timeout=30, check=True
    )
    assert done.stdout == b"['ShADadr']\n"


def test_a_silent_pipe_can_be_stopped(tmp_path: Path) -> None:
    out, into = os.pipe()
    os.write(into, PLAIN)
    reading = read_captures([f"/dev/fd/{out}"], on_progress=lambda progress: reading.stop())
    try:
        flows = list(reading)
    finally:
        os.close(out)
        os.close(into)
    assert ([flow.zeek_state for flow in flows], reading.summary.stopped) == ([], True) or flows


@pytest.mark.parametrize("cut", [1, 15, 16, 17, 60])
def test_a_cut_tail_gives_everything_before_it_and_its_place(tmp_path: Path, cut: int) -> None:
    path = save(tmp_path / "a", PLAIN + make.pcap(make.conversation())[24 : 24 + cut])
    (flow,), summary = read(path)
    assert (flow.zeek_history, summary.packets) == ("ShADadr", 7)
    assert summary.damage == (Damage(path, len(PLAIN), "the file ends inside a packet"),)


@pytest.mark.parametrize(
    ("tail", "what"),
    [
        (struct.pack("<IIII", 1, 1, 1 << 30, 1 << 30), "a packet of more than 1 MiB"),
        (struct.pack("<IIII", 1, 1, 0xFFFFFFFF, 9), "a packet of more than 1 MiB"),
        (b"\0" * 4096, "zeros in place of a packet"),
    ],
)
def test_a_damaged_pcap_says_where_and_what(tmp_path: Path, tail: bytes, what: str) -> None:
    path = save(tmp_path / "a", PLAIN + tail + b"x" * 5_000_000)
    (flow,), summary = read(path)
    assert flow.zeek_history == "ShADadr"
    assert summary.damage == (Damage(path, len(PLAIN), what),)


@pytest.mark.parametrize(
    ("tail", "what"),
    [
        (struct.pack("<II", 6, 13) + b"x" * 40, "a block with an impossible length"),
        (struct.pack("<II", 6, 0xFFFFFFF0) + b"x" * 40, "a block of more than 1 MiB"),
        (struct.pack("<II", 77, 0xFFFFFFF0) + b"x" * 40, "the file ends inside a packet"),
        (struct.pack("<II", 6, 32) + b"x" * 24, "a block whose two lengths differ"),
        (make.block(6, b"\0" * 12 + b"\xff\xff\0\0" + b"\0" * 4), "a packet block whose lengths contradict"),
        (make.block(0x0A0D0D0A, b"\0" * 16), "a section in no known byte order"),
        (b"\0" * 4096, "a block with an impossible length"),
    ],
)
def test_a_damaged_pcapng_says_where_and_what(tmp_path: Path, tail: bytes, what: str) -> None:
    whole = make.pcapng(make.conversation())
    path = save(tmp_path / "a", whole + tail)
    (flow,), summary = read(path)
    assert flow.zeek_history == "ShADadr"
    (damage,) = summary.damage
    assert (damage.path, damage.what) == (path, what)
    assert damage.offset == len(whole) + (len(tail) if "ends inside" in what else 0)


@pytest.mark.parametrize(
    "content", [b"", b"x", b"not a capture, but long enough to be one", b"\x0a\x0d\x0d\x0a" * 9]
)
def test_what_is_no_capture_is_refused(tmp_path: Path, content: bytes) -> None:
    path = save(tmp_path / "a", content)
    with pytest.raises(MalformedCapture) as caught:
        read(path)
    assert caught.value.path == path
    assert "is not a capture" in str(caught.value)


@pytest.mark.parametrize("content", [b"", bytes(99)], ids=["empty", "zeros"])
def test_of_several_files_one_that_is_no_capture_is_refused_before_any_is_read(
    tmp_path: Path, content: bytes
) -> None:
    with pytest.raises(MalformedCapture, match="bad is not a capture"):
        read_captures([save(tmp_path / "good", PLAIN), save(tmp_path / "bad", content)])


def test_what_cannot_be_opened_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nowhere cannot be read: No such file or directory\."):
        read(str(tmp_path / "nowhere"))
    with pytest.raises(UsageError, match="is a directory"):
        read(str(tmp_path))
    with pytest.raises(UsageError, match="name at least one"):
        read_captures([])


def test_a_library_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zstandard", None)
    path = save(tmp_path / "a", COMPRESSORS["zstd"](PLAIN))
    with pytest.raises(UsageError, match="install zstandard"):
        read(path)


def test_gzip_needs_no_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "isal", None)
    assert read(save(tmp_path / "a", gzip.compress(PLAIN))) == expected(tmp_path)


def test_progress_says_how_far_it_is(tmp_path: Path) -> None:
    said: list[Progress] = []
    path = save(tmp_path / "a", PLAIN)
    assert len(list(read_captures([path], on_progress=said.append))) == 1
    assert said[-1] == Progress(path, len(PLAIN), len(PLAIN), 7, 1)


def test_stop_gives_what_is_open(tmp_path: Path) -> None:
    big = make.pcap(make.conversation() + make.conversation(client=("192.0.2.9", 5))[:6] * 20000)
    reading = read_captures([save(tmp_path / "a", big)], on_progress=lambda progress: reading.stop())
    flows = list(reading)
    assert [flow.zeek_history for flow in flows] in ([], ["ShADadr"])
    assert reading.summary.stopped
    assert reading.summary.packets < 120_000


def test_columns_have_every_connection(tmp_path: Path) -> None:
    records = (
        make.conversation() + make.conversation(client=("192.0.2.9", 5))[:6] + make.closing(("192.0.2.9", 5))
    )
    tables: list[object] = []
    path = save(tmp_path / "a", make.pcap(records))
    flows = list(read_captures([path], on_connections=tables.append))
    (table,) = tables
    assert [flow.client.port for flow in flows] == [40000]
    names = sorted(zip(table["client_port"].tolist(), table["zeek_state"].tolist(), strict=True))  # type: ignore[index]
    assert names == [(5, b"SF"), (40000, b"RSTR")]


def test_what_the_capturing_program_dropped_is_said(tmp_path: Path) -> None:
    whole = make.pcapng(make.conversation())
    assert read(save(tmp_path / "a", whole))[1].dropped is None
    said = make.statistics(5) + make.statistics(7)
    assert read(save(tmp_path / "b", whole + said))[1].dropped == 7


def test_columns_without_numpy_are_refused_in_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("holdfast.watch.capture.reading.find_spec", lambda name: None)
    with pytest.raises(UsageError, match="install it"):
        read_captures([save(tmp_path / "a", PLAIN)], on_connections=print)


@pytest.mark.slow
def test_a_storm_of_resets_costs_bounded_memory_and_gives_up_none(tmp_path: Path) -> None:
    """Evidence of 300,000 flows is more than its bound: the first do not wait 10 s, which is counted."""
    frames = (
        make.ethernet(make.segment((f"10.{place >> 16}.{place >> 8 & 255}.{place & 255}", 9), make.SERVER, 4))
        for place in range(400_000)
    )
    path = save(tmp_path / "a", make.pcap(make.Record(10**18, frame) for frame in frames))
    reading = read_captures([path])
    ended = Counter(flow.ended_by for flow in reading)
    summary = reading.summary
    assert (ended.total(), summary.reset_connections, summary.evicted) == (400_000, 400_000, 0)
    assert 0 < summary.hurried == ended[EndedBy.HURRIED]


def test_a_storm_of_resets_takes_little_memory(tmp_path: Path) -> None:
    """30,000 resets of six packets each, open at once: 20 MB in the parser, and a piece of them at a time."""
    clients = [(f"10.1.{place >> 8}.{place & 255}", 9) for place in range(30_000)]
    steps = [(2, 10, 0, b""), (18, 90, 11, b""), (16, 11, 91, b""), (24, 11, 91, b"x"), (16, 91, 12, b""),
             (4, 91, 0, b"")]  # fmt: skip
    frames = (
        make.ethernet(
            make.segment(
                *((client, make.SERVER) if step in (0, 2, 3) else (make.SERVER, client)),
                flags,
                seq=seq,
                ack=ack,
                payload=payload,
            )
        )
        for step, (flags, seq, ack, payload) in enumerate(steps)
        for client in clients
    )
    path = save(tmp_path / "a", make.pcap(make.Record(10**18, frame) for frame in frames))
    done = subprocess.run(
        [sys.executable, "-c", PEAK, path], capture_output=True, text=True, timeout=60, check=True
    )
    flows, before_kb, peak_kb = map(int, done.stdout.split())
    assert flows == 30_000
    assert peak_kb - before_kb < 60_000


PEAK = """
import resource, sys
from holdfast.watch.capture import read_captures
reading = read_captures([sys.argv[1]], on_connections=lambda rows: None)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(sum(1 for _ in reading), before, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
