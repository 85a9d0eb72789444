"""The compiled parser and the one in Python give the same bytes, whatever the capture."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import random

import making_captures as make
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from holdfast.watch.capture import columns, wire
from holdfast.watch.capture.parser import Parser
from holdfast.watch.capture.portable import Capture as Portable

native = pytest.importorskip("holdfast._native", reason="holdfast was built without its C extension")

HOSTS = [(make.CLIENT, make.SERVER), (make.CLIENT_6, make.SERVER_6), (("10.0.0.1", 80), ("10.0.0.1", 80))]
SEQS = st.one_of(st.integers(0, 40), st.sampled_from([0xFFFFFFF0, 0xFFFFFFFF, 0x80000000, 1 << 20, 1 << 25]))
OPTIONS = st.one_of(
    st.just(b""),
    st.sampled_from(
        [
            make.TIMESTAMP,
            make.SYN_OPTIONS,
            b"\x05\x12" + bytes(range(16)),
            b"\x1e\x04\x80\x05",
            b"\x1e\x02\x13\x02",
            b"\x03\x03\x0f\x00",
            b"\x02\x00",
        ]
    ),
    st.binary(max_size=40),
)


@st.composite
def frames(draw: st.DrawFn) -> bytes:
    """One frame between two of few hosts: mostly a segment, sometimes wrapped, cut or senseless."""
    client, server = draw(st.sampled_from(HOSTS))
    source, target = draw(st.sampled_from([(client, server), (server, client)]))
    flags = draw(st.sampled_from([2, 18, 16, 24, 17, 4, 20, 25, 3, 6, 0, 0x1FF, 0x52, 0xC2]))
    body = make.tcp(
        source,
        target,
        flags,
        draw(SEQS),
        draw(SEQS),
        draw(
            st.sampled_from(
                [b"", b"x", b"GET / HTTP/1.1", b"HTTP/1.1 200", b"\x16\x03\x01\0\1\1", b"\x15\x03\3\0\2\2"]
            )
        ),
        window=draw(st.sampled_from([0, 1, 65535])),
        options=draw(OPTIONS)[:40],
    )
    ttl = draw(st.sampled_from([64, 63, 1]))
    if ":" in source[0]:
        extension = draw(st.sampled_from([b"", b"\x06\0" + b"\0" * 6, b"\x06\0\0\x09" + b"\0" * 4]))
        proto = {0: 6, 6: 0}.get(len(extension) and 6, 6) if extension[3:4] != b"\x09" else 44
        packet = make.ipv6(source[0], target[0], extension + body, proto=proto, ttl=ttl)
    else:
        packet = make.ipv4(
            source[0],
            target[0],
            body,
            ttl=ttl,
            ip_id=draw(st.sampled_from([0, 1, 2, 500])),
            fragment=draw(st.sampled_from([0x4000, 0, 0x2000, 0x0001])),
            total=draw(st.sampled_from([None, None, None, 0, 30, 3000])),
        )
    return wrap(packet, draw(st.sampled_from(sorted(WRAPS))))


def udp(port: int, body: bytes) -> bytes:
    """A datagram to this port, in IPv4, in Ethernet."""
    head = b"\x10\0" + port.to_bytes(2, "big") + (8 + len(body)).to_bytes(2, "big") + b"\0\0"
    return make.ethernet(make.ipv4("203.0.113.1", "203.0.113.2", head + body, proto=17))


def icmp_error(packet: bytes) -> bytes:
    """A router's answer to this packet."""
    if packet[0] >> 4 == 6:
        return make.ipv6("2001:db8::ff", "2001:db8::1", b"\x02\0\0\0\0\0\x05\x14" + packet[:60], proto=58)
    return make.ipv4("203.0.113.9", "192.0.2.1", b"\x03\x04\0\0\0\0\x05\xdc" + packet[:28], proto=1)


WRAPS = {
    "plain": make.ethernet,
    "vlan": lambda packet: make.ethernet(b"\x20\x05" + make.ethernet(packet)[12:], 0x8100),
    "mpls": lambda packet: make.ethernet(b"\0\x01\x00\x40\0\x02\x01\x40" + packet, 0x8847),
    "pppoe": lambda packet: make.ethernet(
        b"\x11\0\0\1\0\0" + (b"\0\x57" if packet[0] >> 4 == 6 else b"\0\x21") + packet, 0x8864
    ),
    "vxlan": lambda packet: udp(4789, b"\x08\0\0\0\0\0\x2a\0" + make.ethernet(packet)),
    "geneve": lambda packet: udp(6081, b"\x01\0\x65\x58\0\0\x2b\0" + b"\0" * 4 + make.ethernet(packet)),
    "gre": lambda packet: make.ethernet(
        make.ipv4(
            "203.0.113.1",
            "203.0.113.2",
            b"\x20\0" + make.ethernet(packet)[12:14] + b"\0\0\0\x07" + packet,
            proto=47,
        )
    ),
    "ipip": lambda packet: make.ethernet(
        make.ipv4("203.0.113.1", "203.0.113.2", packet, proto=41 if packet[0] >> 4 == 6 else 4)
    ),
    "icmp": lambda packet: make.ethernet(icmp_error(packet)),
}


def wrap(packet: bytes, how: str) -> bytes:
    return WRAPS[how](packet)


@st.composite
def records(draw: st.DrawFn) -> list[make.Record]:
    """A capture: times mostly go on, sometimes far, sometimes back; some packets are cut."""
    out, now_ns = [], 10**18
    for frame in draw(st.lists(frames(), max_size=60)):
        now_ns += draw(st.sampled_from([0, 1000, 500_000, 10**9, 11 * 10**9, 131 * 10**9, -(10**9)]))
        keep = draw(st.sampled_from([len(frame)] * 5 + [60, 54, 30]))
        out.append(make.Record(now_ns, frame[:keep], draw(st.sampled_from([len(frame), len(frame), 1500]))))
    return out


def parse(parser: Parser, data: bytes, cuts: list[int]) -> tuple[object, ...]:
    """All that a parser gives for these bytes, fed in pieces."""
    parser.begin_file(3)
    held, at = b"", 0
    for cut in [*sorted(cuts), len(data)]:
        held += data[at:cut]
        at = max(at, cut)
        held = held[parser.feed(held) :]
        if parser.damaged():
            break
    damage = parser.end_file(len(held))
    records, rows, size, more = parser.records(), parser.rows(), columns.ROW_LAYOUT.size, True
    while more:
        more = parser.finish()
        records, rows = records + parser.records(), rows + parser.rows()
    found = sorted(bytes(record) for record in wire.split(records))
    return damage, parser.counts(), found, sorted(rows[at : at + size] for at in range(0, len(rows), size))


def both_agree(
    data: bytes, cuts: list[int], *, ring_bytes: int = 1 << 20, evidence_bytes: int = 1 << 20
) -> None:
    compiled = parse(native.Capture(1000, ring_bytes, evidence_bytes, True), data, cuts)
    portable = parse(Portable(1000, ring_bytes, evidence_bytes, True), data, cuts)
    assert portable[:2] == compiled[:2]
    named = [readable(part) for part in (portable, compiled)]
    assert named[0] == named[1]
    assert portable == compiled
    for record in compiled[2]:  # type: ignore[attr-defined]
        wire.flow(memoryview(record))


def readable(given: tuple[object, ...]) -> list[dict[str, object]]:
    """The rows by name, so that a difference says where it is."""
    names = [name for name, _ in columns.CONNECTION]
    return [dict(zip(names, columns.ROW_LAYOUT.unpack(row), strict=True)) for row in given[3]]  # type: ignore[attr-defined]


CUTS = st.lists(st.integers(0, 4000), max_size=3)
RELAXED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


@RELAXED
@given(records(), CUTS, st.sampled_from([0, 1024, 1 << 20]), st.sampled_from([0, 700, 2000, 1 << 20]))
def test_both_parsers_give_the_same(
    capture: list[make.Record], cuts: list[int], ring_bytes: int, evidence_bytes: int
) -> None:
    both_agree(make.pcap(capture, kind="ns"), cuts, ring_bytes=ring_bytes, evidence_bytes=evidence_bytes)


@RELAXED
@given(records(), CUTS, st.sampled_from("<>"))
def test_both_parsers_read_pcapng_the_same(capture: list[make.Record], cuts: list[int], order: str) -> None:
    statistics = make.statistics(len(capture), order=order) + make.statistics(1, interface=9, order=order)
    both_agree(make.pcapng(capture, order=order) + statistics, cuts)


@RELAXED
@given(
    records(),
    st.lists(st.tuples(st.integers(0, 1 << 16), st.integers(0, 255)), min_size=1, max_size=8),
    st.booleans(),
)
def test_both_parsers_meet_damage_the_same(
    capture: list[make.Record], hits: list[tuple[int, int]], ng: bool
) -> None:
    data = bytearray(make.pcapng(capture) if ng else make.pcap(capture))
    for place, value in hits:
        data[place % len(data)] = value
    both_agree(bytes(data), [])


@RELAXED
@given(records(), st.sampled_from([make.RAW, make.COOKED, make.COOKED_2, make.NULL, make.LOOP, 228, 9]))
def test_both_parsers_read_every_link_the_same(capture: list[make.Record], link: int) -> None:
    heads = {
        make.COOKED: b"\0" * 14,
        make.COOKED_2: b"",
        make.NULL: b"\x02\0\0\0",
        make.LOOP: b"\0\0\0\x0a",
    }
    changed = []
    for one in capture:
        body = heads.get(link, b"")
        if link == make.COOKED:
            body += one.data[12:]
        elif link == make.COOKED_2:
            body += one.data[12:14] + b"\0" * 18 + one.data[14:]
        else:
            body += one.data[14:]
        changed.append(make.Record(one.time_ns, body))
    both_agree(make.pcap(changed, link=link, kind="modified", order=">"), [])


def long_capture(seed: int, packets: int = 1500) -> list[make.Record]:
    """Few connections with many segments: rings go round, RSTs come in storms, ports are used again."""
    chance = random.Random(seed)
    ends = [(("192.0.2.1", 40000 + i % 3), ("198.51.100.7", 443 + i // 3)) for i in range(6)]
    places = {end: chance.getrandbits(32) for pair in ends for end in pair}
    out, now_ns = [], 10**18
    calm = chance.choice([0.01, 0.1, 0.5])
    for _ in range(packets):
        client, server = chance.choice(ends)
        source, target = chance.choice([(client, server), (server, client)])
        odd = chance.random() < calm
        flags = chance.choice([2, 18, 4, 20, 17, 17, 0x152]) if odd else chance.choice([16, 24])
        payload = b"" if chance.random() < 0.4 else b"y" * chance.choice([1, 6, 100])
        if flags == 2 and chance.random() < 0.5:
            places[source] = chance.getrandbits(32)
        seq = places[source] - (chance.choice([0, 1, 100]) if chance.random() < 0.2 else 0)
        frame = make.segment(
            source,
            target,
            flags,
            seq=seq & 0xFFFFFFFF,
            ack=(places[target] + chance.choice([0, 0, 0, 50, 1 << 30])) & 0xFFFFFFFF,
            payload=payload,
            window=chance.choice([0, 500, 500, 500]),
            options=chance.choice([b"", make.TIMESTAMP, make.SYN_OPTIONS]),
            ttl=chance.choice([64, 64, 64, 63]),
            ip_id=chance.choice([0, len(out) & 0xFFFF]),
        )
        places[source] = (places[source] + len(payload) + (flags & 1) + (flags >> 1 & 1)) & 0xFFFFFFFF
        now_ns += chance.choice([1000, 10**6, 10**9] if chance.random() < 0.1 else [1000])
        out.append(make.Record(now_ns, make.ethernet(frame)))
        if chance.random() < 0.05:
            out.append(make.Record(now_ns + 500, make.ethernet(frame)))
        if chance.random() < 0.02:
            out.append(make.Record(now_ns + 700, make.ethernet(icmp_error(frame))))
    return out


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("ring_bytes", "evidence_bytes"), [(0, 1 << 20), (2048, 1 << 20), (1 << 20, 1 << 20), (1 << 20, 4000)]
)
def test_both_parsers_agree_on_long_captures(seed: int, ring_bytes: int, evidence_bytes: int) -> None:
    capture = make.pcap(long_capture(seed), kind="ns")
    both_agree(capture, [], ring_bytes=ring_bytes, evidence_bytes=evidence_bytes)


def calm_capture(seed: int, connections: int = 60) -> list[make.Record]:
    """Whole conversations, interleaved: mostly in order, sometimes lost, repeated, swapped or reset."""
    chance = random.Random(seed)
    waiting = [conversation_of(chance, 40000 + place) for place in range(connections)]
    frames: list[bytes] = []
    while waiting:
        mine = chance.choice(waiting[:8])
        frames.append(mine.pop(0))
        if not mine:
            waiting.remove(mine)
    out, now_ns = [], 10**18
    for frame in frames:
        now_ns += chance.choice([10_000, 10_000, 2_000_000])
        luck = chance.random()
        if luck < 0.02:
            continue
        out.append(make.Record(now_ns, make.ethernet(frame)))
        if luck < 0.03:
            out.append(make.Record(now_ns + 100, make.ethernet(frame)))
        elif luck < 0.04 and len(out) > 1:
            out[-1], out[-2] = out[-2], out[-1]
    return out


def conversation_of(chance: random.Random, port: int) -> list[bytes]:
    """The packets of one connection from its handshake to its end."""
    ends = [("192.0.2.1", port), ("198.51.100.7", 443)]
    if chance.random() < 0.3:
        ends = [("2001:db8::1", port), ("2001:db8::7", 443)]
    places = [chance.choice([chance.getrandbits(32), 0xFFFFFF00]) for _ in ends]
    scaled = chance.random() < 0.7
    packets = []

    def send(sender: int, flags: int, size: int = 0, options: bytes = make.TIMESTAMP) -> None:
        more = {} if ":" in ends[0][0] else {"ip_id": (len(packets) + 1) * chance.choice([0, 1])}
        packets.append(
            make.segment(
                ends[sender],
                ends[1 - sender],
                flags,
                seq=places[sender] & 0xFFFFFFFF,
                ack=places[1 - sender] & 0xFFFFFFFF if flags & 16 else 0,
                payload=b"z" * size,
                options=options if chance.random() < 0.9 else b"",
                window=chance.choice([0, 600, 600, 600, 600]),
                ttl=64 - 7 * sender,
                **more,
            )
        )
        places[sender] += size + (flags & 1) + (flags >> 1 & 1)

    send(0, 2, options=make.SYN_OPTIONS)
    send(1, 18, options=make.SYN_OPTIONS if scaled else b"")
    send(0, 16)
    for _ in range(chance.randrange(20)):
        sender = chance.randrange(2)
        send(sender, chance.choice([16, 24]), chance.choice([1, 50, 1400]))
        if chance.random() < 0.7:
            send(1 - sender, 16)
    if chance.random() < 0.4:
        send(chance.randrange(2), chance.choice([4, 20]))
    else:
        send(1, 17)
        send(0, 17)
        send(1, 16)
    if chance.random() < 0.2:
        send(0, 4)
    return packets


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("evidence_bytes", [3000, 1 << 20])
def test_both_parsers_agree_on_calm_captures(seed: int, evidence_bytes: int) -> None:
    both_agree(make.pcap(calm_capture(seed), kind="ns"), [], evidence_bytes=evidence_bytes)


def in_order(*, each_bytes: int, rounds: int, gap: int = 0) -> list[make.Record]:
    """A handshake, data of the server and its acknowledgments, then those of data that were not captured."""
    out: list[make.Record] = []

    def send(client: bool, flags: int, seq: int, ack: int, ip_id: int = 0, size: int = 0) -> None:
        ends = (make.CLIENT, make.SERVER) if client else (make.SERVER, make.CLIENT)
        options = make.SYN_OPTIONS if flags & make.SYN else b""
        fields = {"seq": seq & 0xFFFFFFFF, "ack": ack & 0xFFFFFFFF, "ip_id": ip_id, "options": options}
        # Without a total length (offloaded), the length on the wire counts: segments of hundreds of MB.
        frame = make.ethernet(make.segment(*ends, flags, **fields, total=0))
        out.append(make.Record(10**18 + len(out) * 10**6, frame, len(frame) + size))

    send(True, make.SYN, 9, 0)
    send(False, make.SYN | make.ACK, 0, 10)
    send(True, make.ACK, 10, 1)
    seq = 1
    for place in range(rounds):
        send(False, make.ACK, seq, 10, place, each_bytes)
        seq += each_bytes
        send(True, make.ACK, 10, seq, place * 7)
    send(True, make.ACK, 10, seq + gap)
    send(False, make.ACK, seq + gap, 10, 0, 100)
    send(True, make.RST | make.ACK, 10, seq + gap + 100)
    return out


@pytest.mark.parametrize("each_bytes", [50, 400_000_000])
@pytest.mark.parametrize("gap", [0, 5000])
def test_both_parsers_agree_on_what_is_in_order_beyond_two_gib(each_bytes: int, gap: int) -> None:
    for rounds in range(25):
        capture = in_order(each_bytes=each_bytes, rounds=rounds, gap=gap)
        both_agree(make.pcap(capture), [])
        both_agree(make.pcap(capture[:-1]), [])


def test_both_parsers_agree_on_ipv4_mixed_with_mapped_ipv6() -> None:
    mapped = [(f"::ffff:{host}", port) for host, port in (make.CLIENT, make.SERVER)]
    calm = in_order(each_bytes=50, rounds=4)
    six = [
        make.segment(mapped[at % 2], mapped[1 - at % 2], make.ACK, seq=10, ack=1, payload=b"y")
        for at in range(4)
    ]
    others = [make.Record(10**18 + at, make.ethernet(packet)) for at, packet in enumerate(six)]
    for at in range(len(calm)):
        both_agree(make.pcap([*calm[:at], *others, *calm[at:]]), [])
        both_agree(make.pcap([*others, *calm[at:]]), [])
