// SPDX-License-Identifier: Apache-2.0
/* What is kept of a flow with a RST or an ICMP error: those, what was known when they came, and the packets around them. */
#include "capture.h"

#include <stdlib.h>
#include <string.h>

_Static_assert(sizeof(struct evidence) == 48 &&
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
	struct flow_rare *rare = rare_of(flow);

	if (!flow->has_evidence) {
		rare->evidence = calloc(1, sizeof(*rare->evidence));
		if (!rare->evidence) {
			capture->out_of_memory = true;
			return NULL;
		}
		flow->has_evidence = true;
		wait_charge(capture->table, sizeof(*rare->evidence));
	}
	return rare->evidence;
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
	wait_charge(capture->table, (now - *room) * size);
	*(void **)list = moved;
	*room = (uint8_t)now;
	return true;
}

/* Keep what the ring remembers up to this place and is not kept yet. */
static void keep_packets(struct capture *capture, struct flow *flow,
			 uint32_t place)
{
	struct evidence *it = rare_of(flow)->evidence;
	uint32_t first = ring_first(flow, place), count, room;

	if (first < it->next_place)
		first = it->next_place;
	count = first <= place ? place + 1 - first : 0;
	room = MAX_PACKETS - it->count;
	if (count > room) {
		it->left_out += count - room;
		count = room;
	}
	it->next_place = place + 1;
	if (!make_room(capture, &it->packets, &it->room, it->count + count,
		       sizeof(*it->packets)))
		return;
	ring_copy(capture, flow, place, first, count, it->packets + it->count);
	it->count += (uint8_t)count;
}

static void moment_of(struct moment_facts *moment, const struct flow *flow,
		      uint8_t end)
{
	const struct side *side = &flow->side[end];
	const struct side_rare *rare = &rare_of(flow)->side[end];

	moment->last_ns = side->last_ns;
	moment->last_data_ns = side->last_data_ns;
	moment->payload_bytes = side->payload_bytes;
	moment->next_seq = side->next_seq;
	moment->last_ack = side->highest_ack;
	moment->window_bytes = window_bytes(side);
	moment->sack_right = rare->sack_right;
	moment->packets = side->packets;
	moment->data_packets = side->data_packets;
	moment->rsts = rare->rsts;
	moment->fins = rare->fins;
	moment->ip_id = side->ip_id_last;
	moment->seen = side->seen;
	moment->ttl = side->ttl_last;
}

static void describe_rst(struct kept_rst *rst, const struct flow *flow,
			 const struct segment *seg, uint32_t place)
{
	*rst = (struct kept_rst){ .others_before = others_before(flow, place) };
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
	if (!it->rst_count)
		it->first_rst_ns = seg->time_ns;
	describe_rst(&it->rsts[it->rst_count++], flow, seg, place);
}

/* Keep the packet at this place, the last, if it is a RST or one of those that follow one. */
void evidence_follow(struct capture *capture, struct flow *flow, uint32_t place,
		     bool rst)
{
	struct evidence *it = rare_of(flow)->evidence;

	if (rst)
		it->after_left = AFTER_RST_PACKETS + 1;
	if (!it->after_left)
		return;
	it->after_left--;
	keep_packets(capture, flow, place);
	if (rst)
		ring_drop(capture, flow);
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
