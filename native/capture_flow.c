// SPDX-License-Identifier: Apache-2.0
/* What one segment adds to its flow. portable/flow.py says the same in Python, and a test compares them. */
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

/* What went wrong with what this end sends; NULL without memory. */
struct side_trouble *flow_trouble(struct capture *capture, struct flow *flow,
				  uint8_t end)
{
	struct flow_rare *rare = rare_of(flow);

	if (!rare->trouble)
		rare->trouble = calloc(1, sizeof(*rare->trouble));
	if (rare->trouble)
		return &rare->trouble->side[end];
	capture->out_of_memory = true;
	return NULL;
}

/* Count one more of this kind of trouble at this end. */
#define TROUBLE(capture, flow, end, kind)                 \
	do {                                              \
		struct side_trouble *trouble_ =           \
			flow_trouble(capture, flow, end); \
		if (trouble_)                             \
			trouble_->kind++;                 \
	} while (0)

static void count_backwards(struct capture *capture, struct flow *flow)
{
	if (flow_trouble(capture, flow, 0))
		rare_of(flow)->trouble->backwards++;
}

static void count_rst(struct flow *flow, const struct segment *seg)
{
	struct side_rare *rare = &rare_of(flow)->side[seg->from];

	flow->seen |= SEEN_RST_TIME;
	if (rare->rsts++ == 0)
		rare->rst_ttl = seg->ttl;
	flow->closed = (uint8_t)(1 + seg->from);
}

/* ---- one direction */

static void count_sequence(struct capture *capture, struct flow *flow,
			   const struct segment *seg)
{
	struct side *side = &flow->side[seg->from];
	uint32_t length = length_of(seg), end = seg->seq + length;

	if (!(side->seen & SEEN_NEXT)) {
		side->seen |= SEEN_NEXT;
		rare_of(flow)->side[seg->from].first_seq = seg->seq;
		side->next_seq = end;
		return;
	}
	if (length == 0) {
		if (seg->seq + 1 == side->next_seq && seg->flags == ACK)
			TROUBLE(capture, flow, seg->from, keep_alives);
		return;
	}
	if (after(seg->seq, side->next_seq))
		TROUBLE(capture, flow, seg->from, ahead);
	if (after(end, side->next_seq))
		side->next_seq = end;
	else if (seg->payload_bytes == 1 && seg->seq + 1 == side->next_seq)
		TROUBLE(capture, flow, seg->from, keep_alives);
	else if (seg->payload_bytes)
		TROUBLE(capture, flow, seg->from, retransmits);
}

static void count_sack(struct flow *flow, const struct segment *seg)
{
	struct side *side = &flow->side[seg->from];
	uint32_t *right = &rare_of(flow)->side[seg->from].sack_right;

	if (side->seen & SEEN_SACK && !after(*right, side->highest_ack))
		side->seen &= (uint16_t)~SEEN_SACK;
	if (seg->options & OPTION_SACK &&
	    after(seg->sack_right, side->highest_ack) &&
	    (!(side->seen & SEEN_SACK) || after(seg->sack_right, *right))) {
		side->seen |= SEEN_SACK;
		*right = seg->sack_right;
	}
}

static void count_ack(struct capture *capture, struct flow *flow,
		      const struct segment *seg)
{
	struct side_trouble *trouble;
	struct side *side = &flow->side[seg->from];
	struct side *other = &flow->side[!seg->from];
	uint32_t ahead;

	if (!(side->seen & SEEN_ACK)) {
		side->seen |= SEEN_ACK;
		side->highest_ack = seg->ack;
	} else if (after(seg->ack, side->highest_ack)) {
		side->highest_ack = seg->ack;
	}
	if (side->seen & SEEN_SACK || seg->options & OPTION_SACK)
		count_sack(flow, seg);
	/* While there are only SYNs, an odd acknowledgment belongs to an older connection. */
	ahead = seg->ack - other->next_seq;
	if (ahead && ahead < MAX_UNSEEN_BYTES &&
	    other->seen & SEEN_BEYOND_SYN) {
		trouble = flow_trouble(capture, flow, !seg->from);
		if (trouble)
			trouble->unseen_bytes += ahead;
		other->next_seq = seg->ack;
	}
	if (!(flow->seen & SEEN_ACK_TIME) && flow->seen & SEEN_SYN_ACK_TIME &&
	    !(seg->flags & SYN) && seg->from == flow->client) {
		flow->seen |= SEEN_ACK_TIME;
		rare_of(flow)->ack_ns = seg->time_ns;
	}
}

static void count_ttl(struct flow *flow, const struct segment *seg)
{
	struct side *side = &flow->side[seg->from];
	struct side_rare *rare = &rare_of(flow)->side[seg->from];

	if (!(side->seen & SEEN_ANY)) {
		rare->ttl_first = rare->ttl_min = rare->ttl_max = seg->ttl;
		rare->ip_id_first = side->ip_id_last = seg->ip_id;
	}
	side->seen |= SEEN_ANY;
	side->ttl_last = seg->ttl;
	if (seg->ttl < rare->ttl_min)
		rare->ttl_min = seg->ttl;
	if (seg->ttl > rare->ttl_max)
		rare->ttl_max = seg->ttl;
}

/* Only what is not as in most segments is counted, so that most need not fetch the place for it. */
static inline void count_ip_id(struct flow *flow, const struct segment *seg)
{
	struct side *side = &flow->side[seg->from];
	struct side_rare *rare = &rare_of(flow)->side[seg->from];
	uint16_t step = (uint16_t)(seg->ip_id - side->ip_id_last);

	if (!(side->seen & SEEN_IP_ID)) {
		if (!seg->v4)
			return;
		/* Those before were IPv6, between addresses that are mapped from IPv4. */
		rare->ip_id_other = side->packets - 1 - rare->rsts;
		rare->may_fragment = rare->ip_id_other;
		side->seen |= SEEN_IP_ID;
	}
	if (seg->v4)
		side->ip_id_last = seg->ip_id;
	if (seg->v4 && seg->ip_id == 0)
		rare->ip_id_zero++;
	if (!seg->v4 || step < 1 || step > 100)
		rare->ip_id_other++;
	if (!seg->dont_fragment)
		rare->may_fragment++;
}

static inline void note_window(struct flow *flow, const struct segment *seg)
{
	struct side *side = &flow->side[seg->from];

	side->window = seg->window;
	side->window_is_scaled = flow->has_window_scale && !(seg->flags & SYN);
}

static void count_window(struct capture *capture, struct flow *flow,
			 const struct segment *seg)
{
	struct side *side = &flow->side[seg->from];

	side->seen |= SEEN_WINDOW;
	note_window(flow, seg);
	if (seg->flags & SYN)
		return;
	if (seg->window == 0)
		TROUBLE(capture, flow, seg->from, zero_windows);
	side->seen |= SEEN_BEYOND_SYN;
	flow->beyond_syn = true;
	if (seg->options & OPTION_TIMESTAMP)
		side->seen |= SEEN_TIMESTAMPS;
}

static void count_fin(struct flow *flow, const struct segment *seg)
{
	struct side_rare *rare = &rare_of(flow)->side[seg->from];

	rare->fins++;
	rare->fin_seq = seg->seq + seg->payload_bytes;
	flow->side[seg->from].seen |= SEEN_FIN;
	flow->fins |= 1 << seg->from;
}

static void count_other(struct capture *capture, struct flow *flow,
			const struct segment *seg)
{
	const struct side *side = &flow->side[seg->from];

	if (seg->flags & SYN)
		flow_count_syn(flow, seg);
	count_sequence(capture, flow, seg);
	if (seg->flags & ACK)
		count_ack(capture, flow, seg);
	count_window(capture, flow, seg);
	if (seg->ttl != side->ttl_last || !(side->seen & SEEN_ANY))
		count_ttl(flow, seg);
	count_ip_id(flow, seg);
	if (seg->flags & FIN)
		count_fin(flow, seg);
	/* Whoever goes on after its own RST did not send it, or the RST was not the end. */
	if (flow->closed == 1 + seg->from)
		flow->closed = 0;
	if (flow->fins == 3 && !flow->closed) {
		flow->closed = 3;
		if (!flow->has_evidence)
			ring_shrink(capture, flow);
	}
}

static inline void count_copy(struct capture *capture, struct flow *flow,
			      const struct segment *seg)
{
	struct side *side = &flow->side[seg->from];
	uint32_t digest = (uint32_t)fold(
		((uint64_t)seg->seq << 32 | seg->ack) ^ 0x9e3779b97f4a7c15,
		((uint64_t)seg->payload_bytes << 32 |
		 (uint32_t)seg->flags << 16 | seg->ip_id) ^
			0xd1b54a32d192ed03);
	int64_t passed_ns;

	if (digest == side->last && side->packets &&
	    (seg->ip_id || length_of(seg)) &&
	    !__builtin_sub_overflow(seg->time_ns, side->last_ns, &passed_ns) &&
	    passed_ns >= 0 && passed_ns <= DUPLICATE_NS)
		TROUBLE(capture, flow, seg->from, duplicates);
	side->last = digest;
}

static inline void count_packet(struct flow *flow, const struct segment *seg)
{
	struct side *side = &flow->side[seg->from];

	if (side->packets++ == 0)
		rare_of(flow)->side[seg->from].first_ns = seg->time_ns;
	side->last_ns = seg->time_ns;
	side->ip_bytes += seg->ip_bytes;
	if (seg->payload_bytes && !(seg->flags & RST)) {
		side->data_packets++;
		side->payload_bytes += seg->payload_bytes;
		side->seen |= SEEN_DATA;
		side->last_data_ns = seg->time_ns;
	}
}

static void wait_on(struct capture *capture, struct flow *flow)
{
	enum waiting list = WAITING_NOT;

	if (flow->closed)
		list = flow->has_evidence ? WAITING_TOLD : WAITING_CLOSED;
	else if (flow->has_evidence)
		list = WAITING_EVIDENCE;
	else if (!flow->beyond_syn)
		list = WAITING_OPENING;
	if (list || flow->waiting)
		wait_in(capture->table, flow, list);
}

/* Whether an established connection is in a state that the next segment in order does not change. */
static bool is_steady(const struct flow *flow)
{
	enum { KNOWN = SEEN_NEXT | SEEN_ACK | SEEN_WINDOW | SEEN_ANY };

	return !flow->waiting && flow->seen & SEEN_ACK_TIME &&
	       (flow->side[0].seen & (KNOWN | SEEN_SACK)) == KNOWN &&
	       (flow->side[1].seen & (KNOWN | SEEN_SACK)) == KNOWN &&
	       zeek_is_steady(flow);
}

static void settle(struct flow *flow)
{
	flow->steady = is_steady(flow);
	if (flow->steady)
		zeek_settle(flow);
}

static void unsettle(struct flow *flow)
{
	if (flow->steady)
		zeek_catch_up(flow);
	flow->steady = false;
}

/*
 * Whether it is what most segments are: the next in order on an established connection, no flag but ACK and
 * PSH, nothing about it that is news. Then most questions above have a known answer.
 */
static bool is_ordinary(const struct flow *flow, const struct segment *seg)
{
	const struct side *side = &flow->side[seg->from];
	const struct side *other = &flow->side[!seg->from];

	return flow->steady && (seg->flags & ~PSH) == ACK &&
	       seg->seq == side->next_seq &&
	       !after(seg->ack, other->next_seq) &&
	       !after(side->highest_ack, seg->ack) &&
	       seg->ttl == side->ttl_last && seg->window != 0 &&
	       !(seg->options & OPTION_SACK) && seg->time_ns >= flow->last_ns &&
	       zeek_takes_ack(flow, seg);
}

static void count_ordinary(struct capture *capture, struct flow *flow,
			   const struct segment *seg)
{
	struct side *side = &flow->side[seg->from];

	zeek_count_ordinary(flow, seg);
	side->next_seq = seg->seq + seg->payload_bytes;
	side->highest_ack = seg->ack;
	side->seen |= SEEN_BEYOND_SYN;
	note_window(flow, seg);
	flow->last_ns = seg->time_ns;
	count_copy(capture, flow, seg);
	count_packet(flow, seg);
	if (seg->options & OPTION_TIMESTAMP)
		side->seen |= SEEN_TIMESTAMPS;
	count_ip_id(flow, seg);
}

void flow_count(struct capture *capture, struct flow *flow,
		const struct segment *seg)
{
	uint32_t place = flow->places++;
	bool rst = seg->flags & RST;

	if (!ring_keep(capture, flow, seg, place))
		return;
	if (is_ordinary(flow, seg)) {
		count_ordinary(capture, flow, seg);
		return;
	}
	unsettle(flow);
	if (rst)
		evidence_add_rst(capture, flow, seg, place);
	flow_learn_client(flow, seg);
	zeek_count(capture, flow, seg);
	if (seg->time_ns < flow->last_ns)
		count_backwards(capture, flow);
	else
		flow->last_ns = seg->time_ns;
	count_copy(capture, flow, seg);
	count_packet(flow, seg);
	if (rst)
		count_rst(flow, seg);
	else
		count_other(capture, flow, seg);
	if (flow->has_evidence)
		evidence_follow(capture, flow, place, rst);
	wait_on(capture, flow);
	settle(flow);
}

void flow_count_icmp(struct capture *capture, struct flow *flow,
		     const struct segment *seg)
{
	unsettle(flow);
	evidence_add_icmp(capture, flow, seg);
	wait_on(capture, flow);
}
