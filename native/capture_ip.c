// SPDX-License-Identifier: Apache-2.0
/*
 * From an IP header to what it carries, through extension headers and tunnels. Every length is what the IP
 * header says, since a capture may be cut short; a total length of 0 (offloaded segments) is what the wire says.
 */
#include "capture_walk.h"

enum { PORT_VXLAN = 4789, PORT_VXLAN_LINUX = 8472, PORT_GENEVE = 6081 };

static void walk_proto(struct walk *w, const struct ip *ip, uint8_t proto);

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

void walk_ipv4(struct walk *w)
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

static bool is_extension(uint8_t proto)
{
	return proto == PROTO_HOP || proto == PROTO_ROUTING ||
	       proto == PROTO_OPTIONS || proto == PROTO_MOBILITY ||
	       proto == PROTO_HIP || proto == PROTO_SHIM6 ||
	       proto == PROTO_AH || proto == PROTO_FRAGMENT;
}

/* The length of an extension header, of which two bytes at least were captured. */
static uint32_t extension_bytes(const uint8_t *at, uint8_t proto)
{
	if (proto == PROTO_FRAGMENT)
		return 8;
	if (proto == PROTO_AH)
		return (at[1] + 2u) * 4;
	return (at[1] + 1u) * 8;
}

void walk_ipv6(struct walk *w)
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
	while (is_extension(proto)) {
		if (too_deep(w) || !has(w, 8))
			return;
		header = extension_bytes(w->at, proto);
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

static void walk_proto(struct walk *w, const struct ip *ip, uint8_t proto)
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
