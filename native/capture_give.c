// SPDX-License-Identifier: Apache-2.0
/* Finished flows, as the bytes that Python reads: client first, no pointers, nothing of the table. */
#include "capture.h"

#include <stdlib.h>
#include <string.h>

/* Room for so many bytes at the end of the buffer; NULL without memory. */
static uint8_t *extend(struct capture *it, struct buffer *buffer, size_t bytes)
{
	size_t room = buffer->room ? buffer->room : 1 << 16;
	uint8_t *at;

	while (room < buffer->length + bytes)
		room *= 2;
	if (room != buffer->room) {
		at = realloc(buffer->bytes, room);
		if (!at) {
			it->out_of_memory = true;
			return NULL;
		}
		buffer->bytes = at;
		buffer->room = room;
	}
	at = buffer->bytes + buffer->length;
	buffer->length += bytes;
	return at;
}

static void fill_packet(const struct capture *it, const struct flow *flow,
			struct packet_facts *out,
			const struct kept_packet *kept)
{
	*out = (struct packet_facts){
		.time_ns = kept->time_ns,
		.offset = kept->offset,
		.number = kept->number,
		.source = it->origins[kept->origin].source,
		.interface = it->origins[kept->origin].interface,
		.place = kept->place,
		.seq = kept->seq,
		.ack = kept->ack,
		.payload_bytes = kept->payload_bytes,
		.ts_val = kept->options & OPTION_TIMESTAMP ? kept->ts_val : 0,
		.ts_ecr = kept->options & OPTION_TIMESTAMP ? kept->ts_ecr : 0,
		.sack_right =
			kept->options & OPTION_SACK ? kept->sack_right : 0,
		.window = kept->window,
		.flags = kept->flags,
		.ip_id = kept->ip_id,
		.options = kept->options,
		.ttl = kept->ttl,
		.options_bytes = kept->options_bytes,
		.content = kept->content,
	};
	if (kept->from == flow->client)
		out->bits |= PACKET_FROM_CLIENT;
	if (kept->v4)
		out->bits |= PACKET_V4;
	if (kept->dont_fragment)
		out->bits |= PACKET_DONT_FRAGMENT;
}

static void fill_rst(const struct capture *it, const struct flow *flow,
		     struct rst_facts *out, const struct kept_rst *kept)
{
	uint8_t from = kept->packet.from;

	fill_packet(it, flow, &out->packet, &kept->packet);
	out->sender = kept->moment[from];
	out->receiver = kept->moment[!from];
	out->after_packets =
		others_before(flow, flow->places) - kept->others_before;
	out->mptcp_reason = kept->mptcp_reason;
	out->payload_bytes = kept->payload_bytes;
	memcpy(out->payload, kept->payload, sizeof(out->payload));
}

static void fill_icmp(const struct capture *it, const struct flow *flow,
		      struct icmp_facts *out, const struct kept_icmp *kept)
{
	*out = (struct icmp_facts){
		.time_ns = kept->time_ns,
		.offset = kept->offset,
		.number = kept->number,
		.source = it->origins[kept->origin].source,
		.mtu = kept->mtu,
		.quoted_seq = kept->quoted_seq,
		.kind = kept->kind,
		.code = kept->code,
		.v6 = !kept->v4,
		.about_client = kept->from == flow->client,
	};
	memcpy(out->reporter, kept->reporter, sizeof(out->reporter));
}

static void fill_side(struct side_facts *out, const struct flow *flow,
		      uint8_t end)
{
	static const struct side_trouble none;
	const struct flow_rare *all = rare_of(flow);
	const struct side *side = &flow->side[end];
	const struct side_rare *rare = &all->side[end];
	const struct side_trouble *trouble =
		all->trouble ? &all->trouble->side[end] : &none;
	/* Segments whose IP IDs and don't-fragment bits count: all but RSTs, if any is IPv4. */
	uint32_t counted =
		side->seen & SEEN_IP_ID ? side->packets - rare->rsts : 0;

	*out = (struct side_facts){
		.payload_bytes = side->payload_bytes,
		.ip_bytes = side->ip_bytes,
		.first_ns = rare->first_ns,
		.last_ns = side->last_ns,
		.last_data_ns = side->last_data_ns,
		.packets = side->packets,
		.data_packets = side->data_packets,
		.syns = rare->syns,
		.fins = rare->fins,
		.rsts = rare->rsts,
		.retransmits = trouble->retransmits,
		.duplicates = trouble->duplicates,
		.ahead = trouble->ahead,
		.unseen_bytes = trouble->unseen_bytes,
		.keep_alives = trouble->keep_alives,
		.zero_windows = trouble->zero_windows,
		.ip_id_zero = rare->ip_id_zero,
		.ip_id_steps = counted - rare->ip_id_other,
		.dont_fragment = counted - rare->may_fragment,
		.isn = rare->isn,
		.first_seq = rare->first_seq,
		.next_seq = side->next_seq,
		.highest_ack = side->highest_ack,
		.window_bytes = window_bytes(side),
		.fin_seq = rare->fin_seq,
		.sack_right = rare->sack_right,
		.syn_options = rare->syn_options,
		.syn_flags = rare->syn_flags,
		.syn_window = rare->syn_window,
		.syn_payload_bytes = rare->syn_payload_bytes,
		.mss = rare->mss,
		.ip_id_first = rare->ip_id_first,
		.ip_id_last = side->ip_id_last,
		.seen = side->seen,
		.window_scale = side->window_scale,
		.ttl_first = rare->ttl_first,
		.ttl_last = side->ttl_last,
		.ttl_min = rare->ttl_min,
		.ttl_max = rare->ttl_max,
		.rst_ttl = rare->rst_ttl,
	};
}

static void fill_row(const struct capture *it, struct flow_row *row,
		     const struct flow *flow, uint8_t ended_by)
{
	const struct flow_rare *rare = rare_of(flow);
	uint8_t client = flow->client;

	row->flow = (struct flow_facts){
		.client_port = flow->key.port[client],
		.server_port = flow->key.port[!client],
		.client_by = rare->client_by,
		.ended_by = ended_by,
		.tunnel = rare->tunnel,
		.simultaneous = rare->simultaneous,
		.tunnel_id = flow->key.tunnel_id,
		.source = it->origins[rare->origin].source,
		.first_number = rare->first_number,
		.first_ns = rare->first_ns,
		.last_ns = flow->last_ns,
		.syn_ns = rare->syn_ns,
		.syn_ack_ns = rare->syn_ack_ns,
		.ack_ns = rare->ack_ns,
		.first_rst_ns =
			rare->evidence ? rare->evidence->first_rst_ns : 0,
		.backwards = rare->trouble ? rare->trouble->backwards : 0,
		.vlan = rare->vlan,
		.seen = flow->seen,
	};
	memcpy(row->flow.client, flow->key.addr[client], 16);
	memcpy(row->flow.server, flow->key.addr[!client], 16);
	memcpy(row->flow.zeek_history, rare->zeek_history,
	       sizeof(rare->zeek_history));
	strncpy(row->flow.zeek_state, zeek_conclude(flow),
		sizeof(row->flow.zeek_state) - 1);
	fill_side(&row->client, flow, client);
	fill_side(&row->server, flow, !client);
}

/* RSTs, packets and ICMP errors of a flow behind its row. */
static void give_evidence(struct capture *it, const struct flow *flow,
			  const struct flow_row *row)
{
	const struct evidence *from = rare_of(flow)->evidence;
	struct record_head head = { .packets = from->count,
				    .rsts = from->rst_count,
				    .icmp_errors = from->icmp_count,
				    .packets_left_out = from->left_out };
	uint8_t *at;

	head.bytes = (uint32_t)(sizeof(head) + sizeof(*row) +
				head.packets * sizeof(struct packet_facts) +
				head.rsts * sizeof(struct rst_facts) +
				head.icmp_errors * sizeof(struct icmp_facts));
	at = extend(it, &it->records, head.bytes);
	if (!at)
		return;
	memcpy(at, &head, sizeof(head));
	at += sizeof(head);
	memcpy(at, row, sizeof(*row));
	at += sizeof(*row);
	for (uint32_t i = 0; i < head.packets;
	     i++, at += sizeof(struct packet_facts))
		fill_packet(it, flow, (struct packet_facts *)at,
			    &from->packets[i]);
	for (uint32_t i = 0; i < head.rsts; i++, at += sizeof(struct rst_facts))
		fill_rst(it, flow, (struct rst_facts *)at, &from->rsts[i]);
	for (uint32_t i = 0; i < head.icmp_errors;
	     i++, at += sizeof(struct icmp_facts))
		fill_icmp(it, flow, (struct icmp_facts *)at, &from->icmp[i]);
}

void give_flow(struct capture *it, struct flow *flow, uint8_t ended_by)
{
	bool reset = flow->seen & SEEN_RST_TIME;
	struct flow_row row;
	uint8_t *at;

	it->counts.reset_connections += reset;
	if (!it->want_rows && !flow->has_evidence)
		return;
	if (flow->steady)
		zeek_catch_up(flow);
	fill_row(it, &row, flow, ended_by);
	if (it->want_rows) {
		at = extend(it, &it->rows, sizeof(row));
		if (at)
			memcpy(at, &row, sizeof(row));
	}
	if (flow->has_evidence)
		give_evidence(it, flow, &row);
}
