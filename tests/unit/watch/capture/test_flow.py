"""What the parsers say of a flow, told as stories; both parsers tell the same."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Callable, Sequence

import making_captures as make
import pytest
from making_captures import CLIENT, SERVER, segment

from holdfast._native import Capture as Compiled
from holdfast.events import Endpoint
from holdfast.watch.capture import columns, wire
from holdfast.watch.capture.flow import ACK, FIN, PSH, RST, SYN, ClientBy, EndedBy, Flow, Option, Tunnel
from holdfast.watch.capture.parser import Parser
from holdfast.watch.capture.portable import Capture as Portable

Make = Callable[[int, int, int, bool], Parser]
MS = 10**6
SECOND = 10**9


@pytest.fixture(params=[Compiled, Portable], ids=["compiled", "portable"])
def parser_class(request: pytest.FixtureRequest) -> Make:
    made: Make = request.param
    return made


def flows_of(made: Make, story: Sequence[tuple[int, bytes]], *, max_flows: int = 100) -> list[Flow]:
    """The flows of frames that come so many ns after the start; IP packets are put in Ethernet."""
    parser = made(max_flows, 1 << 20, 1 << 20, False)
    parser.begin_file(0)
    records = [make.Record(10**18 + after_ns, make.ethernet(packet)) for after_ns, packet in story]
    data = make.pcap(records, kind="ns")
    assert parser.feed(data) == len(data)
    parser.finish()
    found = [wire.flow(record) for record in wire.split(parser.records())]
    return sorted(found, key=lambda flow: flow.first_number)


def counts_of(made: Make, frames: Sequence[bytes], link: int = make.ETHERNET) -> dict[str, int]:
    parser = made(100, 1 << 20, 1 << 20, False)
    parser.begin_file(0)
    parser.feed(make.pcap([make.Record(10**18, frame) for frame in frames], link=link))
    return dict(zip(columns.COUNTS, columns.COUNTS_LAYOUT.unpack(parser.counts()), strict=True))


def handshake() -> list[tuple[int, bytes]]:
    """A client of window scale 7 and its server: seq 101 and 901 come next."""
    return [
        (0, segment(CLIENT, SERVER, SYN, seq=100, options=make.SYN_OPTIONS, window=64240)),
        (10 * MS, segment(SERVER, CLIENT, SYN | ACK, seq=900, ack=101, options=make.SYN_OPTIONS, ttl=57)),
        (11 * MS, segment(CLIENT, SERVER, ACK, seq=101, ack=901, ip_id=7)),
    ]


def test_a_refused_connection(parser_class: Make) -> None:
    (flow,) = flows_of(
        parser_class,
        [
            (0, segment(CLIENT, SERVER, SYN, seq=100)),
            (MS, segment(SERVER, CLIENT, RST | ACK, ack=101, window=0)),
        ],
    )
    assert (flow.client, flow.server) == (Endpoint(*CLIENT), Endpoint(*SERVER))
    assert (flow.client_by, flow.zeek_state, flow.zeek_history) == (ClientBy.SYN, "REJ", "Sr")
    (rst,) = flow.rsts
    assert (rst.sender.next_seq, rst.receiver.next_seq, rst.receiver.packets) == (None, 101, 1)


def test_a_rst_is_described_by_what_was_known_when_it_came(parser_class: Make) -> None:
    story = [
        *handshake(),
        (20 * MS, segment(SERVER, CLIENT, PSH | ACK, seq=901, ack=101, payload=b"hello", window=3, ip_id=9)),
        (30 * MS, segment(SERVER, CLIENT, RST | ACK, seq=906, ack=101, payload=b"go away", ttl=50)),
        (40 * MS, segment(CLIENT, SERVER, ACK, seq=101, ack=906)),
        (50 * MS, segment(SERVER, CLIENT, PSH | ACK, seq=906, ack=101, payload=b"still here")),
    ]
    (flow,) = flows_of(parser_class, story)
    (rst,) = flow.rsts
    assert (rst.sender.next_seq, rst.sender.window_bytes, rst.sender.ip_id) == (906, 3 << 7, 9)
    assert (rst.receiver.last_ack, rst.receiver.window_bytes) == (901, 512 << 7)
    assert (rst.payload, rst.packet.ttl, rst.after_packets) == (b"go away", 50, 2)
    assert flow.sent_by_server.payload_bytes == len("hellostill here")
    assert [packet.place for packet in flow.packets] == [0, 1, 2, 3, 4, 5, 6]


def test_handshake_facts(parser_class: Make) -> None:
    (flow,) = flows_of(parser_class, [*handshake(), (12 * MS, segment(CLIENT, SERVER, RST, seq=101))])
    up = flow.sent_by_client
    assert (up.isn, up.mss, up.window_scale, up.syn_window, up.ip_id_last) == (100, 1460, 7, 64240, 7)
    assert up.syn_options == Option.MSS | Option.SACK_PERMITTED | Option.TIMESTAMP | Option.WINDOW_SCALE
    assert flow.syn_ns is not None
    assert (flow.syn_ack_ns, flow.ack_ns) == (flow.syn_ns + 10 * MS, flow.syn_ns + 11 * MS)
    assert flow.sent_by_server.ttl_last == 57


def test_loss_before_and_in_the_capture_are_told_apart(parser_class: Make) -> None:
    story = [
        *handshake(),
        (20 * MS, segment(CLIENT, SERVER, ACK, seq=111, ack=901, payload=b"b" * 10)),  # 10 bytes ahead
        (21 * MS, segment(CLIENT, SERVER, ACK, seq=101, ack=901, payload=b"a" * 10)),  # and here they are
        (22 * MS, segment(CLIENT, SERVER, ACK, seq=120, ack=901)),  # keep-alive
        (23 * MS, segment(SERVER, CLIENT, ACK, seq=901, ack=171)),  # 50 bytes that nobody captured
        (24 * MS, segment(SERVER, CLIENT, RST | ACK, seq=901, ack=171)),
    ]
    (flow,) = flows_of(parser_class, story)
    up = flow.sent_by_client
    assert (up.ahead, up.retransmits, up.keep_alives, up.unseen_bytes, up.next_seq) == (1, 1, 1, 50, 171)


def test_a_copy_within_a_millisecond_is_a_duplicate(parser_class: Make) -> None:
    data = segment(CLIENT, SERVER, ACK, seq=101, ack=901, payload=b"xy", ip_id=3)
    again = segment(CLIENT, SERVER, ACK, seq=101, ack=901, payload=b"xy", ip_id=4)
    rst = segment(SERVER, CLIENT, RST, seq=901)
    story = [
        *handshake(),
        (20 * MS, data),
        (20 * MS + 9, data),
        (30 * MS, again),
        (31 * MS, rst),
        (31 * MS, rst),
    ]
    (flow,) = flows_of(parser_class, story)
    assert (flow.sent_by_client.duplicates, flow.sent_by_client.retransmits) == (1, 2)
    assert flow.sent_by_server.duplicates == 0  # a RST has no length and this one no IP ID


def test_a_new_syn_begins_a_new_connection_and_the_same_one_does_not(parser_class: Make) -> None:
    refused = segment(SERVER, CLIENT, RST | ACK, ack=101)
    story = [
        (0, segment(CLIENT, SERVER, SYN, seq=100)),
        (1, refused),
        (500 * MS, segment(CLIENT, SERVER, SYN, seq=100)),
        (501 * MS, refused),
        (600 * MS, segment(CLIENT, SERVER, SYN, seq=999)),
        (601 * MS, segment(SERVER, CLIENT, RST | ACK, ack=1000)),
    ]
    one, two = flows_of(parser_class, story)
    assert (one.sent_by_client.syns, one.sent_by_server.rsts, one.ended_by) == (2, 2, EndedBy.REUSED)
    assert (two.sent_by_client.isn, two.ended_by) == (999, EndedBy.CAPTURE)


def test_a_late_rst_belongs_to_its_connection_for_ten_seconds(parser_class: Make) -> None:
    closed = [
        *handshake(),
        (20 * MS, segment(CLIENT, SERVER, FIN | ACK, seq=101, ack=901)),
        (21 * MS, segment(SERVER, CLIENT, FIN | ACK, seq=901, ack=102)),
    ]
    rst = segment(SERVER, CLIENT, RST, seq=902)
    (flow,) = flows_of(parser_class, [*closed, (9 * SECOND, rst)])
    assert (flow.zeek_state, flow.zeek_history, flow.ended_by) == ("SF", "ShAFfr", EndedBy.CAPTURE)
    (stray,) = flows_of(parser_class, [*closed, (11 * SECOND, rst)])
    assert (stray.zeek_state, stray.client_by, stray.client) == ("RSTRH", ClientBy.PORT, Endpoint(*CLIENT))


def test_icmp_errors_are_kept_with_the_flow_they_quote(parser_class: Make) -> None:
    syn = segment(CLIENT, SERVER, SYN, seq=100)
    error = make.ipv4("203.0.113.9", CLIENT[0], b"\x03\x0d\0\0\0\0\0\0" + syn[:28], proto=1)
    (flow,) = flows_of(parser_class, [(0, syn), (MS, error)])
    (kept,) = flow.icmp_errors
    assert (kept.kind, kept.code, kept.reporter, kept.about_client, kept.quoted_seq) == (
        3,
        13,
        "203.0.113.9",
        True,
        100,
    )
    assert [packet.flags for packet in flow.packets] == [SYN]


def test_the_packets_around_every_rst_are_kept_and_the_rest_is_counted(parser_class: Make) -> None:
    def data(place: int) -> tuple[int, bytes]:
        return place * MS, segment(CLIENT, SERVER, ACK, seq=101 + place, ack=901, payload=b"x")

    rst = segment(SERVER, CLIENT, RST, seq=1)
    story = [
        *handshake(),
        *map(data, range(3, 100)),
        (100 * MS, rst),
        *map(data, range(101, 200)),
        (200 * MS, rst),
    ]
    (flow,) = flows_of(parser_class, story)
    assert [packet.place for packet in flow.packets] == [*range(69, 117), *range(169, 201)]
    storm = [*handshake(), *((place * MS, rst) for place in range(20, 220))]
    (flow,) = flows_of(parser_class, storm)
    assert (len(flow.packets), flow.packets_left_out, len(flow.rsts)) == (128, 75, 8)
    assert flow.sent_by_server.rsts == 200


def test_tunnels_are_opened(parser_class: Make) -> None:
    rst = segment(SERVER, CLIENT, RST, seq=1)
    inner = make.ethernet(rst)
    vxlan = b"\0\x05\x12\xb5" + (16 + len(inner)).to_bytes(2, "big") + b"\0\0\x08\0\0\0\0\0\x2a\0" + inner
    story = [
        (0, make.ipv4("203.0.113.1", "203.0.113.2", rst, proto=4)),
        (1, make.ipv4("203.0.113.1", "203.0.113.2", b"\x20\0\x08\0\0\0\0\x09" + rst, proto=47)),
        (2, make.ipv4("203.0.113.1", "203.0.113.2", vxlan, proto=17)),
    ]
    found = [(flow.tunnel, flow.tunnel_id, flow.client) for flow in flows_of(parser_class, story)]
    ends = Endpoint(*CLIENT)
    assert found == [(Tunnel.IPIP, 0, ends), (Tunnel.GRE, 9, ends), (Tunnel.VXLAN, 42, ends)]


def test_every_packet_is_counted_once_for_its_reason(parser_class: Make) -> None:
    whole = segment(CLIENT, SERVER, ACK)
    frames = [
        make.ethernet(whole),
        make.ethernet(b"\0" * 40, 0x0806),
        make.ethernet(make.ipv4(CLIENT[0], SERVER[0], b"\0" * 40, proto=17)),
        make.ethernet(segment(CLIENT, SERVER, ACK, fragment=0x2001)),
        make.ethernet(whole)[:40],
        make.ethernet(whole)[:10],
        make.ethernet(segment(CLIENT, SERVER, ACK, total=24)),
        make.ethernet(b"\x45" + b"\0\0\x05" + whole[4:]),
    ]
    counts = counts_of(parser_class, frames)
    names = ("tcp", "not_ip", "not_tcp", "fragments", "cut", "malformed")
    assert [counts[name] for name in names] == [1, 1, 1, 1, 2, 2]
    assert counts_of(parser_class, frames, link=147)["unknown_link"] == len(frames)


def test_every_bit_of_a_fragment_offset_is_read_and_no_other(parser_class: Make) -> None:
    def quoted(fragment: int) -> bytes:
        about = segment(CLIENT, SERVER, SYN, fragment=fragment)[:28]
        return make.ethernet(make.ipv4("203.0.113.9", CLIENT[0], b"\x03\x01\0\0\0\0\0\0" + about, proto=1))

    def extended(offset: int) -> bytes:
        header = b"\x06\0" + offset.to_bytes(2, "big") + b"\0" * 4
        whole = make.tcp(CLIENT, SERVER, ACK)
        return make.ethernet(make.ipv6("2001:db8::1", "2001:db8::2", header + whole, proto=44))

    bits = [1 << bit for bit in range(16)]
    plain = [make.ethernet(segment(CLIENT, SERVER, ACK, fragment=bit)) for bit in bits]
    read = {
        "IPv4": [counts_of(parser_class, [frame])["fragments"] for frame in plain],
        "quoted": [counts_of(parser_class, [quoted(bit)])["not_tcp"] for bit in bits],
        "IPv6": [counts_of(parser_class, [extended(bit)])["fragments"] for bit in bits],
    }
    # RFC 791: reserved, DF and MF above 13 bits; RFC 8200 4.5: 13 bits above two reserved ones and M.
    assert read == {
        "IPv4": [1] * 13 + [0] * 3,
        "quoted": [1] * 13 + [0] * 3,
        "IPv6": [0] * 3 + [1] * 13,
    }


def test_a_segment_offloaded_with_length_zero_has_the_length_of_the_wire(parser_class: Make) -> None:
    big = segment(CLIENT, SERVER, ACK, seq=101, payload=b"x" * 3000, total=0)
    (flow,) = flows_of(parser_class, [(0, big), (1, segment(SERVER, CLIENT, RST, seq=1))])
    assert flow.sent_by_client.payload_bytes == 3000


def test_a_full_table_gives_the_longest_silent_flow_and_counts_it(parser_class: Make) -> None:
    def opened(port: int) -> tuple[int, bytes]:
        return port, segment((CLIENT[0], port), SERVER, RST, seq=1)

    flows = flows_of(parser_class, [opened(port) for port in range(1, 21)], max_flows=4)
    assert [flow.client.port for flow in flows if flow.ended_by == EndedBy.EVICTED] != []
    assert len(flows) == 20


@pytest.mark.parametrize(
    ("history", "state", "story"),
    [
        ("S", "S0", [(1, SYN, 100, 0, 0)]),
        ("ShA", "S1", [(1, SYN, 100, 0, 0), (0, SYN | ACK, 900, 101, 0), (1, ACK, 101, 901, 0)]),
        ("SR", "RSTOS0", [(1, SYN, 100, 0, 0), (1, RST, 101, 0, 0)]),
        ("^hR", "RSTO", [(0, SYN | ACK, 900, 101, 0), (1, RST, 101, 0, 0)]),
        ("^r", "RSTRH", [(0, RST, 900, 0, 0)]),
        ("ShR", "RSTO", [(1, SYN, 100, 0, 0), (0, SYN | ACK, 900, 101, 0), (1, RST, 101, 0, 0)]),
        ("SI", "OTH", [(1, SYN, 100, 0, 0), (1, FIN | RST, 101, 0, 0)]),
        (
            "ShADTT",
            "S1",
            [(1, SYN, 1, 0, 0), (0, SYN | ACK, 9, 2, 0), (1, ACK, 2, 10, 0)] + [(1, ACK, 2, 10, 5)] * 11,
        ),
        (
            "ShAFRf",
            "SF",
            [
                (1, SYN, 100, 0, 0),
                (0, SYN | ACK, 900, 101, 0),
                (1, ACK, 101, 901, 0),
                (1, FIN | ACK, 101, 901, 0),
                (1, RST, 102, 0, 0),
                (0, FIN | ACK, 901, 102, 0),
            ],
        ),
    ],
)
def test_zeek_would_log_the_same(
    parser_class: Make, history: str, state: str, story: list[tuple[int, int, int, int, int]]
) -> None:
    parser = parser_class(10, 1 << 20, 1 << 20, True)
    parser.begin_file(0)
    records = [
        make.Record(
            10**18 + place,
            make.ethernet(
                segment(
                    *((CLIENT, SERVER) if up else (SERVER, CLIENT)),
                    flags,
                    seq=seq,
                    ack=ack,
                    payload=b"x" * size,
                )
            ),
        )
        for place, (up, flags, seq, ack, size) in enumerate(story)
    ]
    parser.feed(make.pcap(records, kind="ns"))
    parser.finish()
    row = dict(
        zip((name for name, _ in columns.CONNECTION), columns.ROW_LAYOUT.unpack(parser.rows()), strict=True)
    )
    said = row["zeek_history"].rstrip(b"\0").decode(), row["zeek_state"].rstrip(b"\0").decode()
    assert said == (history, state)


def lone_rst(place: int, after_ns: int = 0) -> make.Record:
    """A RST of a connection of its own."""
    frame = make.ethernet(segment((f"10.0.{place >> 8}.{place & 255}", 9), SERVER, RST, seq=place))
    return make.Record(10**18 + after_ns, frame)


def told(parser: Parser) -> list[Flow]:
    """What the parser gives now."""
    return [wire.flow(record) for record in wire.split(parser.records())]


def counted(parser: Parser) -> dict[str, int]:
    return dict(zip(columns.COUNTS, columns.COUNTS_LAYOUT.unpack(parser.counts()), strict=True))


def test_resets_for_which_there_is_no_room_are_told_at_once_and_are_not_called_evicted(
    parser_class: Make,
) -> None:
    """One takes 48 + 64 + 264 bytes; they go one segment after the bound was passed."""
    parser = parser_class(1000, 1 << 20, 10 * 376, False)
    parser.begin_file(0)
    parser.feed(make.pcap([lone_rst(place) for place in range(50)]))
    flows = told(parser)
    assert [flow.first_number for flow in flows] == list(range(1, 40))
    assert {flow.ended_by for flow in flows} == {EndedBy.HURRIED}
    counts = counted(parser)
    assert (counts["hurried"], counts["evicted"]) == (39, 0)


def test_connections_that_closed_well_make_no_room_for_evidence(parser_class: Make) -> None:
    parser = parser_class(1000, 1 << 20, 0, False)
    parser.begin_file(0)
    parser.feed(make.pcap([*make.conversation()[:6], *make.closing(), lone_rst(1), lone_rst(2)]))
    assert [flow.server.port for flow in told(parser)] == [9]
    assert not parser.finish()
    assert counted(parser)["hurried"] == 1
    assert counted(parser)["connections"] == 3


def test_an_open_connection_with_evidence_gives_way_last_and_is_evicted(parser_class: Make) -> None:
    """It went on after its RST: what follows will look like a connection of its own, which is a loss."""
    story = [segment(CLIENT, SERVER, flags, seq=5) for flags in (ACK, RST, ACK)]
    goes_on = [make.Record(10**18, make.ethernet(packet)) for packet in story]
    ended = []
    for evidence_bytes in (900, 500):
        parser = parser_class(1000, 1 << 20, evidence_bytes, False)
        parser.begin_file(0)
        parser.feed(make.pcap([*goes_on, lone_rst(1), lone_rst(2), lone_rst(3)]))
        ended.append([flow.ended_by for flow in told(parser)])
        counts = counted(parser)
        assert counts["hurried"] == ended[-1].count(EndedBy.HURRIED)
        assert counts["evicted"] == ended[-1].count(EndedBy.EVICTED)
    assert ended == [[EndedBy.HURRIED, EndedBy.HURRIED], [EndedBy.EVICTED, EndedBy.HURRIED]]


def test_few_flows_end_at_a_segment_though_the_time_of_many_is_up(parser_class: Make) -> None:
    parser = parser_class(1000, 1 << 20, 1 << 20, False)
    parser.begin_file(0)
    data = make.pcap([lone_rst(place) for place in range(40)] + [lone_rst(7, 11 * SECOND)] * 9)
    ended: list[int] = []
    held = b""
    for at in range(0, len(data), 10):
        held += data[at : at + 10]
        held = held[parser.feed(held) :]
        ended.append(len(told(parser)))
    # At the first late segment that of its own ends, too: its time is up as well.
    assert [count for count in ended if count] == [5, 4, 4, 4, 4, 4, 4, 4, 4]
    assert counted(parser)["connections"] == 41


def test_what_is_open_is_given_some_at_a_time(parser_class: Make) -> None:
    parser = parser_class(10_000, 1 << 20, 1 << 30, True)
    parser.begin_file(0)
    parser.feed(make.pcap([lone_rst(place) for place in range(6000)]))
    found, pieces, more = 0, 0, True
    while more:
        more = parser.finish()
        found += len(told(parser))
        pieces += 1
        assert len(parser.rows()) < 3 << 20
    assert found == 6000
    assert pieces > 1


def test_packets_of_too_many_files_are_counted(parser_class: Make) -> None:
    parser = parser_class(10, 1 << 20, 1 << 20, False)
    for number in range(65_537):
        parser.begin_file(number)
    parser.feed(make.pcap([lone_rst(1)]))
    parser.finish()
    assert [flow.source for flow in told(parser)] == [65_535]
    assert counted(parser)["unplaced"] == 1


def test_sections_of_a_file_share_its_interfaces(parser_class: Make) -> None:
    """A file of 70,000 sections is no more to be told apart than one of a single section."""
    parser = parser_class(10, 1 << 20, 1 << 20, False)
    parser.begin_file(3)
    empty = make.pcapng([])
    parser.feed(empty * 70_000 + make.pcapng([lone_rst(1)]))
    parser.finish()
    assert [(flow.source, flow.packets[0].interface) for flow in told(parser)] == [(3, 0)]
    assert counted(parser)["unplaced"] == 0


@pytest.mark.parametrize("kind", ["us", "ns", "modified"])
@pytest.mark.parametrize("order", "<>")
def test_a_hole_of_zeros_is_damage_and_a_packet_of_1970_is_none(
    parser_class: Make, kind: str, order: str
) -> None:
    frame = make.ethernet(segment(CLIENT, SERVER, SYN))
    told = make.pcap([make.Record(0, frame), make.Record(0, b"", 60)], kind=kind, order=order)
    parser = parser_class(100, 1 << 20, 1 << 20, False)
    parser.begin_file(0)
    data = told + b"\0" * 240
    assert (parser.feed(data), parser.damaged()) == (len(told), True)
    assert parser.end_file(240) == (len(told), "zeros in place of a packet", 0)
    counts = dict(zip(columns.COUNTS, columns.COUNTS_LAYOUT.unpack(parser.counts()), strict=True))
    assert (counts["packets"], counts["connections"]) == (2, 1)
