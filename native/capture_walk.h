/* SPDX-License-Identifier: Apache-2.0 */
/* One packet while its headers are walked, from the outermost to the segment. */
#ifndef HOLDFAST_CAPTURE_WALK_H
#define HOLDFAST_CAPTURE_WALK_H

#include "capture.h"

#include <endian.h>
#include <string.h>

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

static inline uint16_t be16(const uint8_t *at)
{
	return (uint16_t)(at[0] << 8 | at[1]);
}

static inline uint32_t be32(const uint8_t *at)
{
	uint32_t value;

	memcpy(&value, at, sizeof(value));
	return be32toh(value);
}

static inline uint32_t be24(const uint8_t *at)
{
	return (uint32_t)at[0] << 16 | be16(at + 1);
}

static inline bool skip(struct walk *w, uint32_t bytes)
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
static inline bool has(const struct walk *w, uint32_t bytes)
{
	if (w->kept >= bytes)
		return true;
	w->counts->cut++;
	return false;
}

static inline bool too_deep(struct walk *w)
{
	if (++w->wraps <= MAX_WRAPS)
		return false;
	w->counts->malformed++;
	return true;
}

/* capture_link.c */
void walk_type(struct walk *w, uint16_t type);

/* capture_ip.c */
void walk_ipv4(struct walk *w);
void walk_ipv6(struct walk *w);

/* capture_segment.c */
void walk_tcp(struct walk *w, const struct ip *ip);
void walk_icmp(struct walk *w, const struct ip *ip);

#endif
