// SPDX-License-Identifier: Apache-2.0
/*
 * From a frame to a segment: link, VLAN, MPLS, IP, tunnels, TCP. Every length is what the IP header says,
 * since a capture may be cut short; a total length of 0 (offloaded segments) is what the wire says.
 */
#include "capture.h"

#include <string.h>

enum { /* link types, tcpdump.org/linktypes.html */
       LINK_NULL = 0,
       LINK_ETHERNET = 1,
       LINK_RAW_BSD = 12,
       LINK_RAW_OPENBSD = 14,
       LINK_RAW = 101,
       LINK_LOOP = 108,
       LINK_COOKED = 113,
       LINK_IPV4 = 228,
       LINK_IPV6 = 229,
       LINK_COOKED_2 = 276
};

enum { ETHER_IPV4 = 0x0800, ETHER_IPV6 = 0x86dd, ETHER_BRIDGED = 0x6558 };

enum {
	PROTO_HOP = 0,
	PROTO_ICMP = 1,
	PROTO_IPIP = 4,
	PROTO_TCP = 6,
	PROTO_UDP = 17,
	PROTO_IPV6 = 41,
	PROTO_ROUTING = 43,
	PROTO_FRAGMENT = 44,
	PROTO_GRE = 47,
	PROTO_AH = 51,
	PROTO_ICMPV6 = 58,
	PROTO_OPTIONS = 60,
	PROTO_MOBILITY = 135,
	PROTO_HIP = 139,
	PROTO_SHIM6 = 140
};

enum { PORT_VXLAN = 4789, PORT_VXLAN_LINUX = 8472, PORT_GENEVE = 6081 };

/* What is left of a packet: bytes that were captured, bytes that were on the wire. */
struct walk {
	struct capture *it;
	struct counts *counts;
	const uint8_t *at;
	uint32_t kept, wire;
	uint8_t wraps, tunnel;
	uint16_t vlan;
	uint32_t tunnel_id;
};

/* The IP header above what is walked now. */
struct ip {
	const uint8_t *src, *dst;
	uint32_t total_bytes;
	uint16_t id;
	uint8_t ttl;
	bool v4, dont_fragment;
};

static uint16_t be16(const uint8_t *at)
{
	return (uint16_t)(at[0] << 8 | at[1]);
}

static uint32_t be32(const uint8_t *at)
{
	uint32_t value;

	memcpy(&value, at, sizeof(value));
	return __builtin_bswap32(value);
}

static uint32_t be24(const uint8_t *at)
{
	return (uint32_t)at[0] << 16 | be16(at + 1);
}

static bool skip(struct walk *w, uint32_t bytes)
{
	if (w->kept < bytes) {
		w->counts->cut++;
		return false;
	}
	w->at += bytes;
	w->kept -= bytes;
	w->wire -= w->wire < bytes ? w->wire : bytes;
	return true;
}

/* Whether these bytes were captured; counted as cut if not. */
static bool has(const struct walk *w, uint32_t bytes)
{
	if (w->kept >= bytes)
		return true;
	w->counts->cut++;
	return false;
}

static bool too_deep(struct walk *w)
{
	if (++w->wraps <= MAX_WRAPS)
		return false;
	w->counts->malformed++;
	return true;
}

static void walk_ether(struct walk *w);
static void walk_type(struct walk *w, uint16_t type);
static void walk_proto(struct walk *w, struct ip *ip, uint8_t proto);

/* ---- TCP */

/* In two words, since the hash reads them as such right after: from smaller stores they would come late. */
static void map_address(uint8_t out[16], const uint8_t *from, bool v4)
{
	uint64_t word[2] = { 0 };
	uint32_t address;

	if (v4) {
		memcpy(&address, from, sizeof(address));
		word[1] = (uint64_t)address << 32 | 0xffff0000;
	} else {
		memcpy(word, from, sizeof(word));
	}
	memcpy(out, word, sizeof(word));
}

static void set_key(struct segment *seg, const struct walk *w,
		    const struct ip *ip, const uint8_t *ports)
{
	uint16_t src = be16(ports), dst = be16(ports + 2);
	uint32_t a = be32(ip->src), b = be32(ip->dst);
	int order = a == b ? 0 : a > b ? 1 : -1;

	if (order == 0 && !ip->v4)
		order = memcmp(ip->src, ip->dst, 16);
	seg->from = order > 0 || (order == 0 && src > dst);
	map_address(seg->key.addr[seg->from], ip->src, ip->v4);
	map_address(seg->key.addr[!seg->from], ip->dst, ip->v4);
	seg->key.port[seg->from] = src;
	seg->key.port[!seg->from] = dst;
	seg->key.tunnel_id = w->tunnel_id;
}

static void read_mptcp(struct segment *seg, const uint8_t *option,
		       uint8_t length)
{
	uint8_t subtype;

	seg->options |= OPTION_MPTCP;
	if (length < 3)
		return;
	subtype = option[2] >> 4;
	if (subtype == 7)
		seg->options |= OPTION_MPTCP_FASTCLOSE;
	if (subtype == 8 && length >= 4) {
		seg->options |= OPTION_MPTCP_RST;
		seg->mptcp_reason = option[3];
	}
}

static void read_sack(struct segment *seg, const uint8_t *option,
		      uint8_t length)
{
	for (uint8_t at = 2; at + 8 <= length; at = (uint8_t)(at + 8)) {
		uint32_t right = be32(option + at + 4);

		if (!(seg->options & OPTION_SACK) ||
		    (int32_t)(right - seg->sack_right) > 0)
			seg->sack_right = right;
		seg->options |= OPTION_SACK;
	}
}

static void read_option(struct segment *seg, const uint8_t *option,
			uint8_t length)
{
	switch (option[0]) {
	case 2:
		if (length == 4) {
			seg->options |= OPTION_MSS;
			seg->mss = be16(option + 2);
			return;
		}
		break;
	case 3:
		if (length == 3) {
			seg->options |= OPTION_WINDOW_SCALE;
			/* RFC 7323 2.3: more than 14 counts as 14. */
			seg->window_scale = option[2] > 14 ? 14 : option[2];
			return;
		}
		break;
	case 4:
		seg->options |= OPTION_SACK_PERMITTED;
		return;
	case 5:
		read_sack(seg, option, length);
		return;
	case 8:
		if (length == 10) {
			seg->options |= OPTION_TIMESTAMP;
			seg->ts_val = be32(option + 2);
			seg->ts_ecr = be32(option + 6);
			return;
		}
		break;
	case 19:
		seg->options |= OPTION_MD5;
		return;
	case 29:
		seg->options |= OPTION_AO;
		return;
	case 30:
		read_mptcp(seg, option, length);
		return;
	case 34:
		seg->options |= OPTION_FAST_OPEN;
		return;
	default:
		seg->options |= OPTION_OTHER;
		return;
	}
	seg->options |= OPTION_MALFORMED;
}

static void read_options(struct segment *seg, const uint8_t *at, uint32_t kept)
{
	const uint8_t *end = at + seg->options_bytes;
	const uint8_t *known =
		at + (kept < seg->options_bytes ? kept : seg->options_bytes);

	/* What nearly every segment has: two NOPs and a timestamp. */
	if (known - at >= 12 && be32(at) == 0x0101080a) {
		seg->options |= OPTION_TIMESTAMP;
		seg->ts_val = be32(at + 4);
		seg->ts_ecr = be32(at + 8);
		at += 12;
	}
	while (at < known && at[0] != 0) {
		if (at[0] == 1) {
			at++;
			continue;
		}
		if (at + 1 < end && at + 1 >= known)
			break;
		if (at + 1 >= end || at[1] < 2 || at[1] > end - at) {
			seg->options |= OPTION_MALFORMED;
			return;
		}
		if (at[1] > known - at)
			break;
		read_option(seg, at, at[1]);
		at += at[1];
	}
	if (known < end && (at >= known || at[0] != 0))
		seg->options |= OPTION_CUT;
}

static uint8_t content_of(const uint8_t *at, uint32_t kept, uint32_t length)
{
	static const char methods[][5] = { "GET ", "POST", "PUT ",
					   "HEAD", "DELE", "OPTI",
					   "PATC", "CONN", "PRI " };

	if (length == 0)
		return CONTENT_NONE;
	if (kept < (length < 6 ? length : 6))
		return CONTENT_CUT;
	if (length < 6)
		return CONTENT_OTHER;
	if (at[1] == 3 && at[0] >= 0x14 && at[0] <= 0x17) {
		if (at[0] == 0x15)
			return CONTENT_TLS_ALERT;
		return at[0] == 0x16 && at[5] == 1 ? CONTENT_TLS_CLIENT_HELLO :
						     CONTENT_TLS_OTHER;
	}
	if (at[0] < 'C' || at[0] > 'P')
		return CONTENT_OTHER;
	if (memcmp(at, "HTTP", 4) == 0)
		return CONTENT_HTTP_RESPONSE;
	for (size_t i = 0; i < sizeof(methods) / sizeof(methods[0]); i++) {
		if (memcmp(at, methods[i], 4) == 0)
			return CONTENT_HTTP_REQUEST;
	}
	return CONTENT_OTHER;
}

/* The next place in the queue, with what every kind of packet has. */
static struct segment *begin_segment(struct walk *w, const struct ip *ip)
{
	struct capture *it = w->it;
	struct segment *seg;

	seg = &it->queue[it->added % QUEUE];
	seg->time_ns = it->time_ns;
	seg->offset = it->record_offset;
	seg->number = it->counts.packets;
	seg->origin = it->packet_origin;
	seg->ip_bytes = ip->total_bytes;
	seg->ip_id = ip->id;
	seg->ttl = ip->ttl;
	seg->v4 = ip->v4;
	seg->dont_fragment = ip->dont_fragment;
	seg->vlan = w->vlan;
	seg->tunnel = w->tunnel;
	seg->options = 0;
	seg->icmp_kind = 0;
	return seg;
}

static void walk_tcp(struct walk *w, struct ip *ip)
{
	struct segment *seg;
	const uint8_t *at = w->at;
	uint32_t header;

	if (w->wire < 20) {
		w->counts->malformed++;
		return;
	}
	if (!has(w, 20))
		return;
	header = (at[12] >> 4) * 4u;
	if (header < 20 || header > w->wire) {
		w->counts->malformed++;
		return;
	}
	seg = begin_segment(w, ip);
	set_key(seg, w, ip, at);
	seg->seq = be32(at + 4);
	seg->ack = be32(at + 8);
	seg->flags = be16(at + 12) & 0x1ff;
	seg->window = be16(at + 14);
	seg->payload_bytes = w->wire - header;
	seg->options_bytes = (uint8_t)(header - 20);
	if (header > 20)
		read_options(seg, at + 20, w->kept - 20);
	seg->payload = at + header;
	seg->payload_kept = w->kept > header ? w->kept - header : 0;
	if (seg->payload_kept > seg->payload_bytes)
		seg->payload_kept = seg->payload_bytes;
	seg->content =
		content_of(seg->payload, seg->payload_kept, seg->payload_bytes);
	w->counts->tcp++;
	table_add(w->it, seg);
}

/* ---- ICMP errors, which quote the segment that they are about */

static void walk_quote(struct walk *w, struct ip *outer, uint8_t kind,
		       uint8_t code, uint32_t mtu)
{
	struct ip ip = { .v4 = outer->v4 };
	const uint8_t *at = w->at;
	struct segment *seg;
	uint32_t header = 40;

	if (!has(w, ip.v4 ? 20 : 40))
		return;
	if (ip.v4)
		header = (at[0] & 15) * 4u;
	if (at[0] >> 4 != (ip.v4 ? 4 : 6) || header < 20) {
		w->counts->malformed++;
		return;
	}
	if (at[ip.v4 ? 9 : 6] != PROTO_TCP ||
	    (ip.v4 && be16(at + 6) & 0x1fff)) {
		w->counts->not_tcp++;
		return;
	}
	if (!has(w, header + 8))
		return;
	ip.src = at + (ip.v4 ? 12 : 8);
	ip.dst = at + (ip.v4 ? 16 : 24);
	seg = begin_segment(w, outer);
	set_key(seg, w, &ip, at + header);
	seg->seq = be32(at + header + 4);
	seg->icmp_kind = kind;
	seg->icmp_code = code;
	seg->mtu = mtu;
	map_address(seg->reporter, outer->src, outer->v4);
	w->counts->icmp_errors++;
	table_add(w->it, seg);
}

static void walk_icmp(struct walk *w, struct ip *ip)
{
	const uint8_t *at = w->at;
	uint32_t mtu = 0;
	bool error;

	if (!has(w, 8))
		return;
	if (ip->v4)
		error = at[0] == 3 || at[0] == 4 || at[0] == 11 || at[0] == 12;
	else
		error = at[0] >= 1 && at[0] <= 4;
	if (!error) {
		w->counts->not_tcp++;
		return;
	}
	if (ip->v4 && at[0] == 3 && at[1] == 4)
		mtu = be16(at + 6);
	if (!ip->v4 && at[0] == 2)
		mtu = be32(at + 4);
	skip(w, 8);
	walk_quote(w, ip, at[0], at[1], mtu);
}

/* ---- tunnels */

static void walk_gre(struct walk *w)
{
	uint16_t bits, type;
	uint32_t header = 4, id = 0;

	if (!has(w, 4))
		return;
	bits = be16(w->at);
	type = be16(w->at + 2);
	if (bits & 0x4007) { /* routing, or another version (PPTP) */
		w->counts->not_tcp++;
		return;
	}
	header += (bits & 0x8000 ? 4 : 0) + (bits & 0x2000 ? 4 : 0) +
		  (bits & 0x1000 ? 4 : 0);
	if (!has(w, header))
		return;
	if (bits & 0x2000)
		id = be32(w->at + (bits & 0x8000 ? 8 : 4));
	skip(w, header);
	w->tunnel = TUNNEL_GRE;
	w->tunnel_id = id;
	walk_type(w, type);
}

static void walk_udp(struct walk *w)
{
	uint16_t port, type;
	uint32_t header;

	if (!has(w, 8))
		return;
	port = be16(w->at + 2);
	if (port != PORT_VXLAN && port != PORT_VXLAN_LINUX &&
	    port != PORT_GENEVE) {
		w->counts->not_tcp++;
		return;
	}
	if (!skip(w, 8) || !has(w, 8))
		return;
	if (port != PORT_GENEVE) {
		if (!(w->at[0] & 8)) {
			w->counts->not_tcp++;
			return;
		}
		w->tunnel = TUNNEL_VXLAN;
		w->tunnel_id = be24(w->at + 4);
		skip(w, 8);
		walk_type(w, ETHER_BRIDGED);
		return;
	}
	if (w->at[0] >> 6) {
		w->counts->not_tcp++;
		return;
	}
	header = 8 + (w->at[0] & 0x3f) * 4u;
	type = be16(w->at + 2);
	w->tunnel = TUNNEL_GENEVE;
	w->tunnel_id = be24(w->at + 4);
	if (skip(w, header))
		walk_type(w, type);
}

/* ---- IP */

static void walk_ipv4(struct walk *w)
{
	const uint8_t *at = w->at;
	struct ip ip = { .v4 = true };
	uint32_t header, total;

	if (!has(w, 20))
		return;
	header = (at[0] & 15) * 4u;
	total = be16(at + 2);
	if (total == 0)
		total = w->wire;
	if (at[0] >> 4 != 4 || header < 20 || total < header) {
		w->counts->malformed++;
		return;
	}
	if (be16(at + 6) & 0x1fff) {
		w->counts->fragments++;
		return;
	}
	ip.src = at + 12;
	ip.dst = at + 16;
	ip.total_bytes = total;
	ip.id = be16(at + 4);
	ip.ttl = at[8];
	ip.dont_fragment = at[6] >> 6 & 1;
	if (!skip(w, header))
		return;
	w->wire = total - header;
	walk_proto(w, &ip, at[9]);
}

/* Whether a header follows that has its own next header and length; then *proto and *header are set. */
static bool is_extension(const struct walk *w, uint8_t proto, uint32_t *header)
{
	switch (proto) {
	case PROTO_HOP:
	case PROTO_ROUTING:
	case PROTO_OPTIONS:
	case PROTO_MOBILITY:
	case PROTO_HIP:
	case PROTO_SHIM6:
		*header = (w->at[1] + 1u) * 8;
		return true;
	case PROTO_AH:
		*header = (w->at[1] + 2u) * 4;
		return true;
	case PROTO_FRAGMENT:
		*header = 8;
		return true;
	default:
		return false;
	}
}

static bool has_header(uint8_t proto)
{
	return proto == PROTO_HOP || proto == PROTO_ROUTING ||
	       proto == PROTO_OPTIONS || proto == PROTO_MOBILITY ||
	       proto == PROTO_HIP || proto == PROTO_SHIM6 ||
	       proto == PROTO_AH || proto == PROTO_FRAGMENT;
}

static void walk_ipv6(struct walk *w)
{
	const uint8_t *at = w->at;
	struct ip ip = { .v4 = false };
	uint32_t header, left;
	uint8_t proto;

	if (!has(w, 40))
		return;
	if (at[0] >> 4 != 6) {
		w->counts->malformed++;
		return;
	}
	left = be16(at + 4);
	if (left == 0)
		left = w->wire > 40 ? w->wire - 40 : 0;
	ip.src = at + 8;
	ip.dst = at + 24;
	ip.total_bytes = left + 40;
	ip.ttl = at[7];
	proto = at[6];
	skip(w, 40);
	w->wire = left;
	while (has_header(proto)) {
		if (too_deep(w) || !has(w, 8))
			return;
		if (!is_extension(w, proto, &header))
			return;
		if (proto == PROTO_FRAGMENT && be16(w->at + 2) & 0xfff8) {
			w->counts->fragments++;
			return;
		}
		if (header > w->wire) {
			w->counts->malformed++;
			return;
		}
		proto = w->at[0];
		if (!skip(w, header))
			return;
	}
	walk_proto(w, &ip, proto);
}

static void walk_proto(struct walk *w, struct ip *ip, uint8_t proto)
{
	switch (proto) {
	case PROTO_TCP:
		walk_tcp(w, ip);
		return;
	case PROTO_ICMP:
	case PROTO_ICMPV6:
		if (ip->v4 == (proto == PROTO_ICMP)) {
			walk_icmp(w, ip);
			return;
		}
		break;
	case PROTO_UDP:
		walk_udp(w);
		return;
	case PROTO_GRE:
		walk_gre(w);
		return;
	case PROTO_IPIP:
	case PROTO_IPV6:
		w->tunnel = TUNNEL_IPIP;
		w->tunnel_id = 0;
		walk_type(w, proto == PROTO_IPIP ? ETHER_IPV4 : ETHER_IPV6);
		return;
	}
	w->counts->not_tcp++;
}

/* ---- links */

/* What has no type of its own: the first four bits say which IP it is. */
static void walk_raw(struct walk *w)
{
	if (!has(w, 1))
		return;
	if (w->at[0] >> 4 == 4)
		walk_ipv4(w);
	else if (w->at[0] >> 4 == 6)
		walk_ipv6(w);
	else
		w->counts->not_ip++;
}

static void walk_mpls(struct walk *w)
{
	bool last;

	do {
		if (too_deep(w) || !has(w, 4))
			return;
		last = w->at[2] & 1;
		skip(w, 4);
	} while (!last);
	walk_raw(w);
}

static void walk_vlan(struct walk *w)
{
	uint16_t type;

	if (!has(w, 4))
		return;
	w->vlan = be16(w->at) & 0xfff;
	type = be16(w->at + 2);
	skip(w, 4);
	walk_type(w, type);
}

static void walk_pppoe(struct walk *w)
{
	uint16_t proto;

	if (!has(w, 8))
		return;
	proto = be16(w->at + 6);
	skip(w, 8);
	if (proto == 0x0021)
		walk_ipv4(w);
	else if (proto == 0x0057)
		walk_ipv6(w);
	else
		w->counts->not_ip++;
}

static void walk_type(struct walk *w, uint16_t type)
{
	if (too_deep(w))
		return;
	switch (type) {
	case ETHER_IPV4:
		walk_ipv4(w);
		return;
	case ETHER_IPV6:
		walk_ipv6(w);
		return;
	case 0x8100:
	case 0x88a8:
	case 0x9100:
	case 0x9200:
		walk_vlan(w);
		return;
	case 0x8847:
	case 0x8848:
		walk_mpls(w);
		return;
	case 0x8864:
		walk_pppoe(w);
		return;
	case ETHER_BRIDGED:
		walk_ether(w);
		return;
	default:
		w->counts->not_ip++;
	}
}

static void walk_ether(struct walk *w)
{
	uint16_t type;

	if (!has(w, 14))
		return;
	type = be16(w->at + 12);
	skip(w, 14);
	walk_type(w, type);
}

/* Links with a fixed header and the type somewhere in it. */
static void walk_cooked(struct walk *w, uint32_t header, uint32_t type_at)
{
	uint16_t type;

	if (!has(w, header))
		return;
	type = be16(w->at + type_at);
	skip(w, header);
	walk_type(w, type);
}

/* The family is in the byte order of whoever captured; its numbers for IPv6 differ by system. */
static void walk_loopback(struct walk *w)
{
	uint32_t family;

	if (!has(w, 4))
		return;
	family = be32(w->at);
	if (family > 0xffff)
		family = __builtin_bswap32(family);
	skip(w, 4);
	if (family == 2)
		walk_ipv4(w);
	else if (family == 10 || family == 24 || family == 28 || family == 30)
		walk_ipv6(w);
	else
		w->counts->not_ip++;
}

/* Count one packet; if it is a segment, it joins the queue. */
void capture_walk(struct capture *it, uint32_t link, const uint8_t *data,
		  uint32_t captured, uint32_t original)
{
	struct walk w = { .it = it,
			  .counts = &it->counts,
			  .at = data,
			  .kept = captured,
			  .wire = original < captured ? captured : original };

	switch (link) {
	case LINK_ETHERNET:
		walk_ether(&w);
		return;
	case LINK_RAW:
	case LINK_RAW_BSD:
	case LINK_RAW_OPENBSD:
	case LINK_IPV4:
	case LINK_IPV6:
		walk_raw(&w);
		return;
	case LINK_COOKED:
		walk_cooked(&w, 16, 14);
		return;
	case LINK_COOKED_2:
		walk_cooked(&w, 20, 0);
		return;
	case LINK_NULL:
	case LINK_LOOP:
		walk_loopback(&w);
		return;
	default:
		it->counts.unknown_link++;
	}
}
