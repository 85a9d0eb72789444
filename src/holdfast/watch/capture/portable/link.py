"""From a frame to a segment: link, VLAN, MPLS, IP, tunnels, TCP."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from holdfast.watch.capture.flow import Tunnel
from holdfast.watch.capture.portable.options import content_of, number, read_options
from holdfast.watch.capture.portable.segment import U32, Counts, Key, Segment

MAX_WRAPS = 8
MAPPED = b"\0" * 10 + b"\xff\xff"

_IPV4, _IPV6, _BRIDGED = 0x0800, 0x86DD, 0x6558
_HOP, _ICMP, _IPIP, _TCP, _UDP, _IN_IPV6, _FRAGMENT, _GRE, _AH, _ICMPV6 = 0, 1, 4, 6, 17, 41, 44, 47, 51, 58
_EXTENSIONS = {_HOP, 43, 60, 135, 139, 140, _AH, _FRAGMENT}
_VXLAN_PORTS, _GENEVE_PORT = (4789, 8472), 6081


class _Counted(Exception):
    """The packet ends here; its reason is a name in Counts."""


@dataclass(slots=True)
class _Ip:
    src: bytes
    dst: bytes
    total_bytes: int
    ip_id: int
    ttl: int
    v4: bool
    dont_fragment: bool


@dataclass(slots=True)
class Frame:
    """A captured packet, and what every segment in it says of it."""

    time_ns: int
    offset: int
    number: int
    origin: tuple[int, int]


class _Walk:
    """What is left of a packet: bytes that were captured, bytes that were on the wire."""

    def __init__(self, frame: Frame, data: bytes, wire_bytes: int) -> None:
        self.frame, self.data, self.wire_bytes = frame, data, wire_bytes
        self.wraps = 0
        self.tunnel, self.tunnel_id, self.vlan = int(Tunnel.NONE), 0, 0

    def need(self, size: int) -> bytes:
        if len(self.data) < size:
            raise _Counted("cut")
        return self.data

    def skip(self, size: int) -> bytes:
        """Step over so many bytes, and give them."""
        passed = self.need(size)[:size]
        self.data = self.data[size:]
        self.wire_bytes = max(0, self.wire_bytes - size)
        return passed

    def deeper(self) -> None:
        self.wraps += 1
        if self.wraps > MAX_WRAPS:
            raise _Counted("malformed")

    # ---- links

    def ether(self) -> Segment:
        return self.type(number(self.skip(14)[12:14]))

    def raw(self) -> Segment:
        version = self.need(1)[0] >> 4
        if version == 4:
            return self.ipv4()
        if version == 6:
            return self.ipv6()
        raise _Counted("not_ip")

    def cooked(self) -> Segment:
        return self.type(number(self.skip(16)[14:16]))

    def cooked_2(self) -> Segment:
        return self.type(number(self.skip(20)[:2]))

    def loopback(self) -> Segment:
        family = number(self.skip(4))
        if family > 0xFFFF:  # the byte order of whoever captured it
            family = number(family.to_bytes(4, "little"))
        if family == 2:
            return self.ipv4()
        if family in (10, 24, 28, 30):
            return self.ipv6()
        raise _Counted("not_ip")

    def type(self, kind: int) -> Segment:
        self.deeper()
        if kind == _IPV4:
            return self.ipv4()
        if kind == _IPV6:
            return self.ipv6()
        if kind in (0x8100, 0x88A8, 0x9100, 0x9200):
            tag = self.skip(4)
            self.vlan = number(tag[:2]) & 0xFFF
            return self.type(number(tag[2:]))
        if kind in (0x8847, 0x8848):
            return self.mpls()
        if kind == 0x8864:
            return self.pppoe()
        if kind == _BRIDGED:
            return self.ether()
        raise _Counted("not_ip")

    def mpls(self) -> Segment:
        last = False
        while not last:
            self.deeper()
            last = bool(self.skip(4)[2] & 1)
        return self.raw()

    def pppoe(self) -> Segment:
        proto = number(self.skip(8)[6:])
        if proto == 0x0021:
            return self.ipv4()
        if proto == 0x0057:
            return self.ipv6()
        raise _Counted("not_ip")

    # ---- IP

    def ipv4(self) -> Segment:
        head = self.need(20)
        header = (head[0] & 15) * 4
        total = number(head[2:4]) or self.wire_bytes
        if head[0] >> 4 != 4 or header < 20 or total < header:
            raise _Counted("malformed")
        if number(head[6:8]) & 0x1FFF:
            raise _Counted("fragments")
        ip = _Ip(head[12:16], head[16:20], total, number(head[4:6]), head[8], True, bool(head[6] & 0x40))
        self.skip(header)
        self.wire_bytes = total - header
        return self.proto(ip, head[9])

    def ipv6(self) -> Segment:
        head = self.need(40)
        if head[0] >> 4 != 6:
            raise _Counted("malformed")
        left = number(head[4:6]) or max(0, self.wire_bytes - 40)
        ip = _Ip(head[8:24], head[24:40], left + 40, 0, head[7], False, False)
        proto = head[6]
        self.skip(40)
        self.wire_bytes = left
        while proto in _EXTENSIONS:
            self.deeper()
            extension = self.need(8)
            size = (extension[1] + 1) * 8
            if proto == _AH:
                size = (extension[1] + 2) * 4
            elif proto == _FRAGMENT:
                size = 8
                if number(extension[2:4]) & 0xFFF8:
                    raise _Counted("fragments")
            if size > self.wire_bytes:
                raise _Counted("malformed")
            proto = extension[0]
            self.skip(size)
        return self.proto(ip, proto)

    def proto(self, ip: _Ip, proto: int) -> Segment:
        if proto == _TCP:
            return self.tcp(ip)
        if proto == (_ICMP if ip.v4 else _ICMPV6):
            return self.icmp(ip)
        if proto == _UDP:
            return self.udp()
        if proto == _GRE:
            return self.gre()
        if proto in (_IPIP, _IN_IPV6):
            self.tunnel, self.tunnel_id = int(Tunnel.IPIP), 0
            return self.type(_IPV4 if proto == _IPIP else _IPV6)
        raise _Counted("not_tcp")

    # ---- tunnels

    def gre(self) -> Segment:
        head = self.need(4)
        bits, kind = number(head[:2]), number(head[2:4])
        if bits & 0x4007:  # routing, or another version
            raise _Counted("not_tcp")
        size = 4 + 4 * bool(bits & 0x8000) + 4 * bool(bits & 0x2000) + 4 * bool(bits & 0x1000)
        head = self.skip(size)
        key_at = 8 if bits & 0x8000 else 4
        self.tunnel = int(Tunnel.GRE)
        self.tunnel_id = number(head[key_at : key_at + 4]) if bits & 0x2000 else 0
        return self.type(kind)

    def udp(self) -> Segment:
        port = number(self.need(8)[2:4])
        if port not in _VXLAN_PORTS and port != _GENEVE_PORT:
            raise _Counted("not_tcp")
        self.skip(8)
        head = self.need(8)
        if port != _GENEVE_PORT:
            if not head[0] & 8:
                raise _Counted("not_tcp")
            self.tunnel, self.tunnel_id = int(Tunnel.VXLAN), number(head[4:7])
            self.skip(8)
            return self.type(_BRIDGED)
        if head[0] >> 6:
            raise _Counted("not_tcp")
        self.tunnel, self.tunnel_id = int(Tunnel.GENEVE), number(head[4:7])
        self.skip(8 + (head[0] & 0x3F) * 4)
        return self.type(number(head[2:4]))

    # ---- TCP and ICMP errors

    def key(self, ip: _Ip, ports: bytes) -> tuple[Key, int]:
        """The key of a flow, and which end of it is the source."""
        low = MAPPED if ip.v4 else b""
        src = (low + ip.src, number(ports[:2]))
        dst = (low + ip.dst, number(ports[2:4]))
        if src > dst:
            return Key((dst, src), self.tunnel_id), 1
        return Key((src, dst), self.tunnel_id), 0

    def segment(self, ip: _Ip, key: Key, sender: int, seq: int) -> Segment:
        frame = self.frame
        return Segment(
            key=key,
            sender=sender,
            time_ns=frame.time_ns,
            offset=frame.offset,
            number=frame.number,
            origin=frame.origin,
            ttl=ip.ttl,
            ip_id=ip.ip_id,
            ip_bytes=ip.total_bytes & U32,
            v4=ip.v4,
            dont_fragment=ip.dont_fragment,
            vlan=self.vlan,
            tunnel=self.tunnel,
            seq=seq,
        )

    def tcp(self, ip: _Ip) -> Segment:
        if self.wire_bytes < 20:
            raise _Counted("malformed")
        head = self.need(20)
        header = (head[12] >> 4) * 4
        if header < 20 or header > self.wire_bytes:
            raise _Counted("malformed")
        key, sender = self.key(ip, head)
        seg = self.segment(ip, key, sender, number(head[4:8]))
        seg.ack = number(head[8:12])
        seg.flags = number(head[12:14]) & 0x1FF
        seg.window = number(head[14:16])
        seg.payload_bytes = self.wire_bytes - header
        seg.options_bytes = header - 20
        read_options(seg, self.data[20:header], seg.options_bytes)
        seg.payload = self.data[header : header + seg.payload_bytes]
        seg.content = content_of(seg.payload, seg.payload_bytes)
        return seg

    def icmp(self, ip: _Ip) -> Segment:
        head = self.need(8)
        kind, code = head[0], head[1]
        if kind not in ((3, 4, 11, 12) if ip.v4 else (1, 2, 3, 4)):
            raise _Counted("not_tcp")
        mtu = 0
        if ip.v4 and (kind, code) == (3, 4):
            mtu = number(head[6:8])
        if not ip.v4 and kind == 2:
            mtu = number(head[4:8])
        self.skip(8)
        quoted, header = self.quote(ip.v4)
        key, sender = self.key(quoted, self.data[header:])
        seg = self.segment(ip, key, sender, number(self.data[header + 4 : header + 8]))
        seg.icmp_kind, seg.icmp_code, seg.mtu = kind, code, mtu
        seg.reporter = (MAPPED if ip.v4 else b"") + ip.src
        return seg

    def quote(self, v4: bool) -> tuple[_Ip, int]:
        """The quoted IP header and its length."""
        head = self.need(20 if v4 else 40)
        header = (head[0] & 15) * 4 if v4 else 40
        if head[0] >> 4 != (4 if v4 else 6) or header < 20:
            raise _Counted("malformed")
        if head[9 if v4 else 6] != _TCP or (v4 and number(head[6:8]) & 0x1FFF):
            raise _Counted("not_tcp")
        self.need(header + 8)
        src, dst = (head[12:16], head[16:20]) if v4 else (head[8:24], head[24:40])
        return _Ip(src, dst, 0, 0, 0, v4, False), header


_LINKS: dict[int, Callable[[_Walk], Segment]] = {
    0: _Walk.loopback,
    1: _Walk.ether,
    12: _Walk.raw,
    14: _Walk.raw,
    101: _Walk.raw,
    108: _Walk.loopback,
    113: _Walk.cooked,
    228: _Walk.raw,
    229: _Walk.raw,
    276: _Walk.cooked_2,
}


def walk(counts: Counts, link: int, frame: Frame, data: bytes, wire_bytes: int) -> Segment | None:
    """The segment in this packet; None if there is none, which is counted."""
    start = _LINKS.get(link)
    if start is None:
        counts.unknown_link += 1
        return None
    try:
        seg = start(_Walk(frame, data, max(wire_bytes, len(data))))
    except _Counted as reason:
        name = str(reason)
        setattr(counts, name, getattr(counts, name) + 1)
        return None
    if seg.icmp_kind:
        counts.icmp_errors += 1
    else:
        counts.tcp += 1
    return seg
