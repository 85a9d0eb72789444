// SPDX-License-Identifier: Apache-2.0
/* What is kept of a flow with a RST or an ICMP error: those, what was known when they came, and the packets around them. */
#include "capture.h"

#include <stdlib.h>
#include <string.h>

_Static_assert(sizeof(struct evidence) == 40 &&
		       sizeof(struct kept_rst) == 264 &&
		       sizeof(struct kept_icmp) == 56,
	       "portable/evidence.py charges the same");

size_t evidence_bytes(const struct evidence *it)
{
	return sizeof(*it) + it->room * sizeof(*it->packets) +
	       it->rst_room * sizeof(*it->rsts) +
	       it->icmp_room * sizeof(*it->icmp);
}

void evidence_free(struct evidence *it)
{
	if (!it)
		return;
	free(it->packets);
	free(it->rsts);
	free(it->icmp);
	free(it);
}

static struct evidence *evidence_of(struct capture *capture, struct flow *flow)
{
	if (!flow->evidence) {
		flow->evidence = calloc(1, sizeof(*flow->evidence));
		if (flow->evidence)
			table_charge(capture->table, sizeof(*flow->evidence));
		else
			capture->out_of_memory = true;
	}
	return flow->evidence;
}

/* Make room for this many of a list: the next power of two, since most flows need few and some need all. */
static bool make_room(struct capture *capture, void *list, uint8_t *room,
		      uint32_t wanted, size_t size)
{
	uint32_t now = *room ? *room : 1;
	void *moved;

	if (wanted <= *room)
		return true;
	while (now < wanted)
		now *= 2;
	moved = realloc(*(void **)list, now * size);
	if (!moved) {
		capture->out_of_memory = true;
		return false;
	}
	table_charge(capture->table, (now - *room) * size);
	*(void **)list = moved;
	*room = (uint8_t)now;
	return true;
}

/* Keep what the ring remembers up to this place and is not kept yet. */
static void keep_packets(struct capture *capture, struct flow *flow,
			 uint32_t place)
{
	struct evidence *it = flow->evidence;
	uint32_t remembered = flow->ring_size ? flow->ring_size :
						flow->chunks * CHUNK_PACKETS;
	uint32_t at = it->next_place, count;

	if (at < flow->ring_base)
		at = flow->ring_base;
	if (place + 1 > remembered && at < place + 1 - remembered)
		at = place + 1 - remembered;
	count = it->count + (place + 1 - at);
	if (!make_room(capture, &it->packets, &it->room,
		       count < MAX_PACKETS ? count : MAX_PACKETS,
		       sizeof(*it->packets)))
		return;
	for (; at <= place; at++) {
		if (it->count == MAX_PACKETS)
			it->left_out++;
		else
			it->packets[it->count++] =
				*table_ring_at(capture->table, flow, at);
	}
	it->next_place = place + 1;
}

void kept_packet_fill(struct kept_packet *kept, const struct segment *seg,
		      uint32_t place)
{
	kept->time_ns = seg->time_ns;
	kept->offset = seg->offset;
	kept->number = seg->number;
	kept->place = place;
	kept->seq = seg->seq;
	kept->ack = seg->ack;
	kept->payload_bytes = seg->payload_bytes;
	kept->ts_val = seg->ts_val;
	kept->ts_ecr = seg->ts_ecr;
	kept->sack_right = seg->sack_right;
	kept->flags = seg->flags;
	kept->options = seg->options;
	kept->content = seg->content;
	kept->from = seg->from;
	kept->v4 = seg->v4;
	kept->dont_fragment = seg->dont_fragment;
	kept->spare = 0;
	kept->window = seg->window;
	kept->ip_id = seg->ip_id;
	kept->origin = seg->origin;
	kept->ttl = seg->ttl;
	kept->options_bytes = seg->options_bytes;
}

static void moment_of(struct moment_facts *moment, const struct flow *flow,
		      uint8_t end)
{
	const struct side *side = &flow->side[end];

	moment->last_ns = side->last_ns;
	moment->last_data_ns = side->last_data_ns;
	moment->payload_bytes = side->payload_bytes;
	moment->next_seq = side->next_seq;
	moment->last_ack = side->highest_ack;
	moment->window_bytes = side->window_bytes;
	moment->sack_right = side->sack_right;
	moment->packets = side->packets;
	moment->data_packets = side->data_packets;
	moment->rsts = flow->rare[end].rsts;
	moment->fins = flow->rare[end].fins;
	moment->ip_id = side->ip_id_last;
	moment->seen = side->seen;
	moment->ttl = side->ttl_last;
}

static void describe_rst(struct kept_rst *rst, const struct flow *flow,
			 const struct segment *seg, uint32_t place)
{
	*rst = (struct kept_rst){ .others_before = flow->others };
	kept_packet_fill(&rst->packet, seg, place);
	moment_of(&rst->moment[0], flow, 0);
	moment_of(&rst->moment[1], flow, 1);
	rst->mptcp_reason = seg->options & OPTION_MPTCP_RST ?
				    seg->mptcp_reason :
				    UINT16_MAX;
	rst->payload_bytes = (uint16_t)(seg->payload_kept < RST_PAYLOAD_BYTES ?
						seg->payload_kept :
						RST_PAYLOAD_BYTES);
	memcpy(rst->payload, seg->payload, rst->payload_bytes);
}

/* Note what was known when this RST came; it is not counted yet. */
void evidence_add_rst(struct capture *capture, struct flow *flow,
		      const struct segment *seg, uint32_t place)
{
	struct evidence *it = evidence_of(capture, flow);

	if (!it || it->rst_count == MAX_RSTS ||
	    !make_room(capture, &it->rsts, &it->rst_room, it->rst_count + 1u,
		       sizeof(*it->rsts)))
		return;
	describe_rst(&it->rsts[it->rst_count++], flow, seg, place);
}

/* Keep the packet at this place, the last, if it is a RST or one of those that follow one. */
void evidence_follow(struct capture *capture, struct flow *flow, uint32_t place,
		     bool rst)
{
	struct evidence *it = flow->evidence;

	if (rst)
		it->after_left = AFTER_RST_PACKETS + 1;
	if (!it->after_left)
		return;
	it->after_left--;
	keep_packets(capture, flow, place);
	if (rst)
		table_ring_drop(capture->table, flow);
}

void evidence_add_icmp(struct capture *capture, struct flow *flow,
		       const struct segment *seg)
{
	struct evidence *it = evidence_of(capture, flow);
	struct kept_icmp *kept;

	if (!it || it->icmp_count == MAX_ICMP ||
	    !make_room(capture, &it->icmp, &it->icmp_room, it->icmp_count + 1u,
		       sizeof(*it->icmp)))
		return;
	kept = &it->icmp[it->icmp_count++];
	kept->time_ns = seg->time_ns;
	kept->offset = seg->offset;
	kept->number = seg->number;
	kept->mtu = seg->mtu;
	kept->quoted_seq = seg->seq;
	kept->origin = seg->origin;
	kept->kind = seg->icmp_kind;
	kept->code = seg->icmp_code;
	kept->v4 = seg->v4;
	kept->from = seg->from;
	memcpy(kept->reporter, seg->reporter, sizeof(kept->reporter));
	/* An ICMP error is worth the packets around it as much as a RST is. */
	it->after_left = AFTER_RST_PACKETS;
	if (flow->places)
		keep_packets(capture, flow, flow->places - 1);
}
