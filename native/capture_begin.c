// SPDX-License-Identifier: Apache-2.0
/* How a flow begins: with which segment, who is its client, and what the SYNs of its ends say. */
#include "capture.h"

static void guess_client(struct flow *flow, const struct segment *seg)
{
	struct flow_rare *rare = rare_of(flow);
	uint16_t own = seg->key.port[seg->from],
		 other = seg->key.port[!seg->from];

	if (seg->flags & RST || !(seg->flags & SYN)) {
		rare->client_by = own == other ? BY_FIRST : BY_PORT;
		flow->client = own < other ? !seg->from : seg->from;
	} else {
		rare->client_by = seg->flags & ACK ? BY_SYN_ACK : BY_SYN;
		flow->client = seg->flags & ACK ? !seg->from : seg->from;
	}
}

/* A handshake that comes late (reordered, or a new vantage) corrects a guess. */
void flow_learn_client(struct flow *flow, const struct segment *seg)
{
	if (seg->flags & SYN && !(seg->flags & RST) &&
	    rare_of(flow)->client_by > BY_SYN_ACK)
		guess_client(flow, seg);
}

void flow_begin(struct flow *flow, const struct segment *seg)
{
	struct flow_rare *rare = rare_of(flow);

	flow->key = seg->key;
	rare->tunnel = seg->tunnel;
	rare->vlan = seg->vlan;
	rare->origin = seg->origin;
	rare->first_number = seg->number;
	rare->first_ns = flow->last_ns = seg->time_ns;
	guess_client(flow, seg);
	zeek_begin(flow, seg);
}

/* Whether this SYN opens another connection between the same ends. */
bool flow_is_reused(const struct flow *flow, const struct segment *seg)
{
	const struct side *side = &flow->side[seg->from];
	const struct side_rare *rare = &rare_of(flow)->side[seg->from];

	if ((seg->flags & (SYN | ACK | RST)) != SYN)
		return false;
	if (side->seen & SEEN_ISN)
		return rare->isn != seg->seq;
	return flow->closed || side->packets > rare->rsts;
}

void flow_count_syn(struct flow *flow, const struct segment *seg)
{
	struct flow_rare *all = rare_of(flow);
	struct side *side = &flow->side[seg->from];
	struct side_rare *rare = &all->side[seg->from];
	uint8_t seen = seg->flags & ACK ? SEEN_SYN_ACK_TIME : SEEN_SYN_TIME;

	if (!(flow->seen & seen)) {
		flow->seen |= seen;
		if (seg->flags & ACK)
			all->syn_ack_ns = seg->time_ns;
		else
			all->syn_ns = seg->time_ns;
	}
	if (rare->syns++)
		return;
	side->seen |= SEEN_ISN;
	rare->isn = seg->seq;
	rare->syn_flags = seg->flags;
	rare->syn_options = seg->options;
	rare->syn_window = seg->window;
	rare->syn_payload_bytes = (uint16_t)(seg->payload_bytes < UINT16_MAX ?
						     seg->payload_bytes :
						     UINT16_MAX);
	if (seg->options & OPTION_MSS) {
		side->seen |= SEEN_MSS;
		rare->mss = seg->mss;
	}
	if (seg->options & OPTION_WINDOW_SCALE) {
		side->seen |= SEEN_WINDOW_SCALE;
		side->window_scale = seg->window_scale;
	}
	flow->has_window_scale = (flow->side[0].seen & flow->side[1].seen &
				  SEEN_WINDOW_SCALE) != 0;
	all->simultaneous =
		all->side[0].syns && all->side[1].syns &&
		!((all->side[0].syn_flags | all->side[1].syn_flags) & ACK);
}
