// SPDX-License-Identifier: Apache-2.0
/* From a frame to the packet in it: link types, VLAN, MPLS, PPPoE. */
#include "capture_walk.h"

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

static void walk_ether(struct walk *w);

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

void walk_type(struct walk *w, uint16_t type)
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

/* What nearly every packet is: Ethernet, IPv4 without options, TCP; and its headers were captured. */
static bool is_usual(const uint8_t *at, uint32_t captured)
{
	return captured >= 54 && be16(at + 12) == ETHER_IPV4 &&
	       at[14] == 0x45 && at[23] == PROTO_TCP &&
	       !(be16(at + 20) & 0x1fff) && be16(at + 16) >= 40;
}

/* The same as walk_ether() for such a packet, with one check in place of ten. */
static void walk_usual(struct walk *w)
{
	const uint8_t *at = w->at;
	struct ip ip = { .src = at + 26,
			 .dst = at + 30,
			 .total_bytes = be16(at + 16),
			 .id = be16(at + 18),
			 .ttl = at[22],
			 .v4 = true,
			 .dont_fragment = at[20] >> 6 & 1 };

	w->at += 34;
	w->kept -= 34;
	w->wire = ip.total_bytes - 20;
	walk_tcp(w, &ip);
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
		if (is_usual(data, captured))
			walk_usual(&w);
		else
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
