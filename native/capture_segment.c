// SPDX-License-Identifier: Apache-2.0
/* From a TCP header, or an ICMP error that quotes one, to a segment in the queue. */
#include "capture_walk.h"

#include <string.h>

/* ---- TCP */

static void map_address(uint64_t word[2], const uint8_t *from, bool v4)
{
	if (v4) {
		word[0] = 0;
		word[1] = htobe64(0xffffULL << 32 | be32(from));
	} else {
		memcpy(word, from, 16);
	}
}

static void set_key(struct segment *seg, const struct walk *w,
		    const struct ip *ip, const uint8_t *ports)
{
	uint16_t src = be16(ports), dst = be16(ports + 2);
	uint32_t a = be32(ip->src), b = be32(ip->dst);
	bool from;

	if (a != b)
		from = a > b;
	else if (ip->v4 || memcmp(ip->src, ip->dst, 16) == 0)
		from = src > dst;
	else
		from = memcmp(ip->src, ip->dst, 16) > 0;
	seg->from = from;
	map_address(seg->key.addr[from], ip->src, ip->v4);
	map_address(seg->key.addr[!from], ip->dst, ip->v4);
	seg->key.port[from] = src;
	seg->key.port[!from] = dst;
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

void walk_tcp(struct walk *w, const struct ip *ip)
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
	queue_add(w->it, seg);
}

/* ---- ICMP errors, which quote the segment that they are about */

static void walk_quote(struct walk *w, const struct ip *outer, uint8_t kind,
		       uint8_t code, uint32_t mtu)
{
	struct ip ip = { .v4 = outer->v4 };
	const uint8_t *at = w->at;
	struct segment *seg;
	uint64_t reporter[2];
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
	map_address(reporter, outer->src, outer->v4);
	memcpy(seg->reporter, reporter, sizeof(reporter));
	w->counts->icmp_errors++;
	queue_add(w->it, seg);
}

void walk_icmp(struct walk *w, const struct ip *ip)
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
