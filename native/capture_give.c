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
	out->after_packets = flow->others - kept->others_before;
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

static void fill_row(struct flow_row *row, struct flow *flow, uint8_t ended_by)
{
	uint8_t client = flow->client;

	zeek_conclude(flow);
	row->flow = flow->facts;
	memcpy(row->flow.client, flow->key.addr[client], 16);
	memcpy(row->flow.server, flow->key.addr[!client], 16);
	row->flow.client_port = flow->key.port[client];
	row->flow.server_port = flow->key.port[!client];
	row->flow.ended_by = ended_by;
	row->client = flow->side[client];
	row->server = flow->side[!client];
}

/* RSTs, packets and ICMP errors of a flow behind its row. */
static void give_evidence(struct capture *it, const struct flow *flow,
			  const struct flow_row *row)
{
	const struct evidence *from = flow->evidence;
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
	bool reset = flow->side[0].rsts || flow->side[1].rsts;
	struct flow_row row;
	uint8_t *at;

	it->counts.reset_connections += reset;
	if (!it->want_rows && !flow->evidence)
		return;
	fill_row(&row, flow, ended_by);
	if (it->want_rows) {
		at = extend(it, &it->rows, sizeof(row));
		if (at)
			memcpy(at, &row, sizeof(row));
	}
	if (flow->evidence)
		give_evidence(it, flow, &row);
}
