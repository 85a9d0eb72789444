// SPDX-License-Identifier: Apache-2.0
/* What one segment adds to its flow. portable.py says the same in Python, and a test compares them. */
#include "capture.h"

#include <stdlib.h>
#include <string.h>

/* An acknowledgment may run this far ahead of what was captured before it is taken for nonsense. */
#define MAX_UNSEEN_BYTES (1 << 24)

static bool after(uint32_t a, uint32_t b)
{
	return (int32_t)(a - b) > 0;
}

static uint32_t length_of(const struct segment *seg)
{
	return seg->payload_bytes + (seg->flags & SYN ? 1 : 0) +
	       (seg->flags & FIN ? 1 : 0);
}

/* ---- who is the client */

static void guess_client(struct flow *flow, const struct segment *seg)
{
	uint16_t own = seg->key.port[seg->from],
		 other = seg->key.port[!seg->from];

	if (seg->flags & RST || !(seg->flags & SYN)) {
		flow->facts.client_by = own == other ? BY_FIRST : BY_PORT;
		flow->client = own < other ? !seg->from : seg->from;
	} else {
		flow->facts.client_by = seg->flags & ACK ? BY_SYN_ACK : BY_SYN;
		flow->client = seg->flags & ACK ? !seg->from : seg->from;
	}
}

/* A handshake that comes late (reordered, or a new vantage) corrects a guess. */
static void learn_client(struct flow *flow, const struct segment *seg)
{
	if (flow->facts.client_by <= BY_SYN_ACK || !(seg->flags & SYN) ||
	    seg->flags & RST)
		return;
	guess_client(flow, seg);
}

void flow_begin(struct flow *flow, const struct segment *seg,
		const struct capture *it)
{
	flow->key = seg->key;
	flow->facts.tunnel = seg->tunnel;
	flow->facts.tunnel_id = seg->key.tunnel_id;
	flow->facts.vlan = seg->vlan;
	flow->facts.source = it->origins[seg->origin].source;
	flow->facts.first_number = seg->number;
	flow->facts.first_ns = flow->facts.last_ns = seg->time_ns;
	guess_client(flow, seg);
	zeek_begin(flow, seg);
}

/* Whether this SYN opens another connection between the same ends. */
bool flow_is_reused(const struct flow *flow, const struct segment *seg)
{
	const struct side_facts *side = &flow->side[seg->from];

	if ((seg->flags & (SYN | ACK | RST)) != SYN)
		return false;
	if (side->seen & SEEN_ISN)
		return side->isn != seg->seq;
	return flow->closed || side->packets > side->rsts;
}

/* ---- RSTs and what surrounds them */

size_t evidence_bytes(const struct evidence *it)
{
	return sizeof(*it) + it->room * sizeof(*it->packets) +
	       (it->rsts ? MAX_RSTS * sizeof(*it->rsts) : 0);
}

static struct evidence *evidence_of(struct capture *capture, struct flow *flow)
{
	if (!flow->evidence) {
		flow->evidence = calloc(1, sizeof(*flow->evidence));
		if (flow->evidence)
			table_charge(capture->table,
				     evidence_bytes(flow->evidence));
		else
			capture->out_of_memory = true;
	}
	return flow->evidence;
}

static bool make_room(struct capture *capture, struct evidence *it)
{
	uint32_t room = it->room ? it->room * 2 : RING_PACKETS / 2;
	struct kept_packet *packets;

	if (it->count < it->room)
		return true;
	packets = realloc(it->packets, room * sizeof(*packets));
	if (!packets) {
		capture->out_of_memory = true;
		return false;
	}
	table_charge(capture->table, (room - it->room) * sizeof(*packets));
	it->packets = packets;
	it->room = room;
	return true;
}

/* Keep what the ring remembers up to this place and is not kept yet. */
static void keep_packets(struct capture *capture, struct flow *flow,
			 uint32_t place)
{
	struct evidence *it = flow->evidence;
	uint32_t remembered = flow->ring_size ? flow->ring_size :
						flow->chunks * CHUNK_PACKETS;
	uint32_t at = it->next_place;

	if (place + 1 > remembered && at < place + 1 - remembered)
		at = place + 1 - remembered;
	for (; at <= place; at++) {
		if (it->count == MAX_PACKETS)
			it->left_out++;
		else if (make_room(capture, it))
			it->packets[it->count++] =
				*table_ring_at(capture->table, flow, at);
		else
			return;
	}
	it->next_place = place + 1;
}

static void moment_of(struct moment_facts *moment,
		      const struct side_facts *side)
{
	moment->last_ns = side->last_ns;
	moment->last_data_ns = side->last_data_ns;
	moment->payload_bytes = side->payload_bytes;
	moment->next_seq = side->next_seq;
	moment->last_ack = side->highest_ack;
	moment->window_bytes = side->window_bytes;
	moment->sack_right = side->sack_right;
	moment->packets = side->packets;
	moment->data_packets = side->data_packets;
	moment->rsts = side->rsts;
	moment->fins = side->fins;
	moment->ip_id = side->ip_id_last;
	moment->seen = side->seen;
	moment->ttl = side->ttl_last;
}

static void describe_rst(struct capture *capture, struct flow *flow,
			 const struct segment *seg,
			 const struct kept_packet *packet)
{
	struct evidence *it = flow->evidence;
	struct kept_rst *rst;

	if (!it->rsts) {
		it->rsts = calloc(MAX_RSTS, sizeof(*it->rsts));
		if (!it->rsts) {
			capture->out_of_memory = true;
			return;
		}
		table_charge(capture->table, MAX_RSTS * sizeof(*it->rsts));
	}
	if (it->rst_count == MAX_RSTS)
		return;
	rst = &it->rsts[it->rst_count++];
	rst->packet = *packet;
	moment_of(&rst->moment[0], &flow->side[0]);
	moment_of(&rst->moment[1], &flow->side[1]);
	rst->others_before = flow->others;
	rst->mptcp_reason = seg->options & OPTION_MPTCP_RST ?
				    seg->mptcp_reason :
				    UINT16_MAX;
	rst->payload_bytes = (uint16_t)(seg->payload_kept < RST_PAYLOAD_BYTES ?
						seg->payload_kept :
						RST_PAYLOAD_BYTES);
	memcpy(rst->payload, seg->payload, rst->payload_bytes);
}

static void count_rst(struct flow *flow, struct side_facts *side,
		      const struct segment *seg)
{
	if (!(flow->facts.seen & SEEN_RST_TIME)) {
		flow->facts.seen |= SEEN_RST_TIME;
		flow->facts.first_rst_ns = seg->time_ns;
	}
	if (side->rsts++ == 0)
		side->rst_ttl = seg->ttl;
	flow->closed = (uint8_t)(1 + seg->from);
}

/* ---- one direction */

static void count_syn(struct flow *flow, struct side_facts *side,
		      const struct segment *seg)
{
	struct flow_facts *facts = &flow->facts;
	uint16_t seen = seg->flags & ACK ? SEEN_SYN_ACK_TIME : SEEN_SYN_TIME;

	if (!(facts->seen & seen)) {
		facts->seen |= seen;
		if (seg->flags & ACK)
			facts->syn_ack_ns = seg->time_ns;
		else
			facts->syn_ns = seg->time_ns;
	}
	if (side->syns++ || side->seen & SEEN_ISN)
		return;
	side->seen |= SEEN_ISN;
	side->isn = seg->seq;
	side->syn_flags = seg->flags;
	side->syn_options = seg->options;
	side->syn_window = seg->window;
	side->syn_payload_bytes = (uint16_t)(seg->payload_bytes < UINT16_MAX ?
						     seg->payload_bytes :
						     UINT16_MAX);
	if (seg->options & OPTION_MSS) {
		side->seen |= SEEN_MSS;
		side->mss = seg->mss;
	}
	if (seg->options & OPTION_WINDOW_SCALE) {
		side->seen |= SEEN_WINDOW_SCALE;
		side->window_scale = seg->window_scale;
	}
	flow->has_window_scale =
		flow->side[0].seen & flow->side[1].seen & SEEN_WINDOW_SCALE;
	if (!(seg->flags & ACK) && flow->side[0].syns && flow->side[1].syns &&
	    !((flow->side[0].syn_flags | flow->side[1].syn_flags) & ACK))
		facts->simultaneous = 1;
}

static void count_sequence(struct side_facts *side, const struct segment *seg)
{
	uint32_t length = length_of(seg), end = seg->seq + length;

	if (!(side->seen & SEEN_NEXT)) {
		side->seen |= SEEN_NEXT;
		side->first_seq = seg->seq;
		side->next_seq = end;
		return;
	}
	if (length == 0) {
		side->keep_alives +=
			seg->seq + 1 == side->next_seq && seg->flags == ACK;
		return;
	}
	side->ahead += after(seg->seq, side->next_seq);
	if (after(end, side->next_seq))
		side->next_seq = end;
	else if (seg->payload_bytes == 1 && seg->seq + 1 == side->next_seq)
		side->keep_alives++;
	else if (seg->payload_bytes)
		side->retransmits++;
}

static void count_ack(struct flow *flow, struct side_facts *side,
		      struct side_facts *other, const struct segment *seg)
{
	uint32_t ahead;

	if (!(side->seen & SEEN_ACK)) {
		side->seen |= SEEN_ACK;
		side->highest_ack = seg->ack;
	} else if (after(seg->ack, side->highest_ack)) {
		side->highest_ack = seg->ack;
	}
	if (side->seen & SEEN_SACK &&
	    !after(side->sack_right, side->highest_ack))
		side->seen &= (uint16_t)~SEEN_SACK;
	if (seg->options & OPTION_SACK &&
	    after(seg->sack_right, side->highest_ack) &&
	    (!(side->seen & SEEN_SACK) ||
	     after(seg->sack_right, side->sack_right))) {
		side->seen |= SEEN_SACK;
		side->sack_right = seg->sack_right;
	}
	/* While there are only SYNs, an odd acknowledgment belongs to an older connection. */
	ahead = seg->ack - other->next_seq;
	if (other->seen & SEEN_NEXT &&
	    other->packets > other->syns + other->rsts && ahead &&
	    ahead < MAX_UNSEEN_BYTES) {
		other->unseen_bytes += ahead;
		other->next_seq = seg->ack;
	}
	if (!(flow->facts.seen & SEEN_ACK_TIME) &&
	    flow->facts.seen & SEEN_SYN_ACK_TIME && !(seg->flags & SYN) &&
	    seg->from == flow->client) {
		flow->facts.seen |= SEEN_ACK_TIME;
		flow->facts.ack_ns = seg->time_ns;
	}
}

static void count_ip(struct side_facts *side, const struct segment *seg)
{
	uint16_t step = (uint16_t)(seg->ip_id - side->ip_id_last);

	if (!(side->seen & SEEN_ANY)) {
		side->ttl_first = side->ttl_min = side->ttl_max = seg->ttl;
		side->ip_id_first = seg->ip_id;
		step = 0;
	}
	side->seen |= SEEN_ANY;
	side->ttl_last = seg->ttl;
	if (seg->ttl < side->ttl_min)
		side->ttl_min = seg->ttl;
	if (seg->ttl > side->ttl_max)
		side->ttl_max = seg->ttl;
	if (!seg->v4)
		return;
	side->seen |= SEEN_IP_ID;
	side->ip_id_zero += seg->ip_id == 0;
	side->ip_id_steps += step >= 1 && step <= 100;
	side->ip_id_last = seg->ip_id;
	side->dont_fragment += seg->dont_fragment;
}

static void count_other(struct flow *flow, struct side_facts *side,
			struct side_facts *other, const struct segment *seg)
{
	if (seg->flags & SYN)
		count_syn(flow, side, seg);
	count_sequence(side, seg);
	if (seg->flags & ACK)
		count_ack(flow, side, other, seg);
	if (seg->flags & FIN) {
		side->fins++;
		side->seen |= SEEN_FIN;
		side->fin_seq = seg->seq + seg->payload_bytes;
		flow->fins |= (uint8_t)(1 << seg->from);
	}
	side->seen |= SEEN_WINDOW;
	side->window_bytes = seg->window;
	if (flow->has_window_scale && !(seg->flags & SYN))
		side->window_bytes <<= side->window_scale;
	side->zero_windows += seg->window == 0 && !(seg->flags & SYN);
	if (seg->options & OPTION_TIMESTAMP && !(seg->flags & SYN))
		side->seen |= SEEN_TIMESTAMPS;
	count_ip(side, seg);
	flow->others++;
	/* Whoever goes on after its own RST did not send it, or the RST was not the end. */
	if (flow->closed == 1 + seg->from)
		flow->closed = 0;
	if (flow->fins == 3 && !flow->closed)
		flow->closed = 3;
}

static void count_copy(struct flow *flow, struct side_facts *side,
		       const struct segment *seg)
{
	struct flow_last *last = &flow->last[seg->from];
	int64_t passed_ns;

	if (side->packets && last->seq == seg->seq && last->ack == seg->ack &&
	    last->flags == seg->flags &&
	    last->payload_bytes == seg->payload_bytes &&
	    last->ip_id == seg->ip_id && (seg->ip_id || length_of(seg)) &&
	    !__builtin_sub_overflow(seg->time_ns, last->time_ns, &passed_ns) &&
	    passed_ns >= 0 && passed_ns <= DUPLICATE_NS)
		side->duplicates++;
	last->time_ns = seg->time_ns;
	last->seq = seg->seq;
	last->ack = seg->ack;
	last->payload_bytes = seg->payload_bytes;
	last->flags = seg->flags;
	last->ip_id = seg->ip_id;
}

static void count_packet(struct flow *flow, struct side_facts *side,
			 const struct segment *seg)
{
	if (side->packets++ == 0)
		side->first_ns = seg->time_ns;
	side->last_ns = seg->time_ns;
	side->ip_bytes += seg->ip_bytes;
	if (seg->payload_bytes && !(seg->flags & RST)) {
		side->data_packets++;
		side->payload_bytes += seg->payload_bytes;
		side->seen |= SEEN_DATA;
		side->last_data_ns = seg->time_ns;
	}
}

static void keep_in_ring(struct kept_packet *kept, const struct segment *seg,
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

static void wait_on(struct capture *capture, struct flow *flow)
{
	const struct side_facts *side = flow->side;

	if (flow->closed)
		table_wait(capture->table, flow, WAITING_CLOSED);
	else if (flow->evidence)
		table_wait(capture->table, flow, WAITING_EVIDENCE);
	else if (side[0].packets == side[0].syns &&
		 side[1].packets == side[1].syns)
		table_wait(capture->table, flow, WAITING_OPENING);
	else if (flow->waiting)
		table_wait(capture->table, flow, WAITING_NOT);
}

void flow_count(struct capture *capture, struct flow *flow,
		const struct segment *seg)
{
	struct side_facts *side = &flow->side[seg->from],
			  *other = &flow->side[!seg->from];
	uint32_t place = flow->places++;
	struct kept_packet *kept = table_ring_slot(capture, flow, place);
	bool rst = seg->flags & RST;

	if (!kept)
		return;
	keep_in_ring(kept, seg, place);
	if (rst && evidence_of(capture, flow))
		describe_rst(capture, flow, seg, kept);
	learn_client(flow, seg);
	zeek_count(flow, seg);
	if (seg->time_ns < flow->facts.last_ns)
		flow->facts.backwards++;
	else
		flow->facts.last_ns = seg->time_ns;
	count_copy(flow, side, seg);
	count_packet(flow, side, seg);
	if (rst)
		count_rst(flow, side, seg);
	else
		count_other(flow, side, other, seg);
	if (flow->evidence) {
		if (rst)
			flow->evidence->after_left = AFTER_RST_PACKETS + 1;
		if (flow->evidence->after_left) {
			flow->evidence->after_left--;
			keep_packets(capture, flow, place);
		}
	}
	wait_on(capture, flow);
}

void flow_count_icmp(struct capture *capture, struct flow *flow,
		     const struct segment *seg)
{
	struct evidence *it = evidence_of(capture, flow);
	struct kept_icmp *kept;

	if (!it || it->icmp_count == MAX_ICMP)
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
	wait_on(capture, flow);
}
