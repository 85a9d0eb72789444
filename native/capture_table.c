// SPDX-License-Identifier: Apache-2.0
/*
 * The flow table: flows in slabs that never move, from their first segment to their end. If it is full, the
 * longest silent of a sample is given early, and counted.
 */
#include "capture_table.h"

#include <stdlib.h>
#include <string.h>

enum {
	EVICT_SAMPLE = 16,
	/* More than one, since each segment may begin a flow. */
	SEGMENT_ENDS = 4,
	FINISH_BYTES = 4 << 20
};

struct table *table_new(const uint64_t seed[4], uint32_t max_flows,
			uint64_t evidence_bytes)
{
	struct table *it = calloc(1, sizeof(*it));

	if (!it)
		return NULL;
	memcpy(it->seed, seed, sizeof(it->seed));
	it->sample = seed[3] | 1;
	it->max_flows = max_flows;
	it->max_evidence_bytes = evidence_bytes;
	if (!index_new(it)) {
		free(it);
		return NULL;
	}
	return it;
}

/* What belongs to a flow and lies elsewhere. */
static void free_parts(struct flow *flow)
{
	struct flow_rare *rare = rare_of(flow);

	evidence_free(rare->evidence);
	free(rare->trouble);
	rare->evidence = NULL;
	rare->trouble = NULL;
}

void table_free(struct table *it)
{
	if (!it)
		return;
	for (uint32_t i = 0; i < it->made; i++) {
		if (flow_at(it, i)->live)
			free_parts(flow_at(it, i));
	}
	for (uint32_t i = 0; i < it->slab_count; i++)
		free(it->slabs[i]);
	free(it->slabs);
	free(it->slots);
	free(it);
}

static uint32_t new_flow(struct table *it)
{
	uint32_t index = it->free_flow;
	union slab *slab;

	if (index != NO_FLOW) {
		it->free_flow = rare_of(flow_at(it, index))->next;
		return index;
	}
	if (it->made == it->slab_count * SLAB_FLOWS) {
		if (!slab_list_grow(&it->slabs, it->slab_count))
			return NO_FLOW;
		slab = slab_new(sizeof(*slab));
		if (!slab)
			return NO_FLOW;
		it->slabs[it->slab_count] = slab;
		slab->flows[0] = (struct whole_flow){ .flow.live = false };
		slab->number = it->slab_count++;
		it->made++;
	}
	return it->made++;
}

void table_end_flow(struct capture *capture, struct flow *flow,
		    uint8_t ended_by)
{
	struct table *it = capture->table;
	struct flow_rare *rare = rare_of(flow);
	uint32_t index = index_of(flow);

	give_flow(capture, flow, ended_by);
	wait_no_more(it, flow);
	index_remove(it, index_hash(it, &flow->key), index);
	ring_drop(capture, flow);
	if (flow->has_evidence)
		it->evidence_bytes -= evidence_bytes(rare->evidence);
	free_parts(flow);
	flow->live = false;
	rare->next = it->free_flow;
	it->free_flow = index;
	it->count--;
}

static uint64_t pick(struct table *it)
{
	it->sample ^= it->sample << 13;
	it->sample ^= it->sample >> 7;
	it->sample ^= it->sample << 17;
	return it->sample;
}

/* The table is full, so every place that was ever made is a live flow, but the first of each slab. */
static void evict(struct capture *capture)
{
	struct table *it = capture->table;
	struct flow *oldest = NULL;

	for (int i = 0; i < EVICT_SAMPLE || !oldest; i++) {
		struct flow *flow =
			flow_at(it, (uint32_t)(pick(it) % it->made));

		if (flow->live && (!oldest || flow->last_ns < oldest->last_ns))
			oldest = flow;
	}
	capture->counts.evicted++;
	table_end_flow(capture, oldest, ENDED_EVICTED);
}

static struct flow *begin_flow(struct capture *capture,
			       const struct segment *seg)
{
	struct table *it = capture->table;
	struct flow *flow;
	uint32_t index;

	if (it->count == it->max_flows)
		evict(capture);
	index = index_make_room(it) ? new_flow(it) : NO_FLOW;
	if (index == NO_FLOW) {
		capture->out_of_memory = true;
		return NULL;
	}
	flow = flow_at(it, index);
	memset(flow, 0, sizeof(struct whole_flow));
	flow->live = true;
	flow_begin(flow, seg);
	index_insert(it, seg->hash, index);
	it->count++;
	capture->counts.connections++;
	return flow;
}

/* Count a segment whose turn has come. */
void table_take(struct capture *capture, const struct segment *seg)
{
	struct flow *flow;

	wait_expire(capture, seg->time_ns, SEGMENT_ENDS);
	flow = seg->likely;
	if (!flow || !flow->live || !same_key(&flow->key, &seg->key))
		flow = index_find(capture->table, &seg->key, seg->hash);
	if (flow && wait_is_over(flow, seg->time_ns)) {
		table_end_flow(capture, flow, wait_how_over(flow));
		flow = NULL;
	}
	if (seg->icmp_kind) {
		if (flow)
			flow_count_icmp(capture, flow, seg);
		return;
	}
	if (flow && flow_is_reused(flow, seg)) {
		table_end_flow(capture, flow, ENDED_REUSED);
		flow = NULL;
	}
	if (!flow)
		flow = begin_flow(capture, seg);
	if (flow)
		flow_count(capture, flow, seg);
}

/* The capture has ended: give what is live, oldest entry first, some at a time; true while there is more. */
bool table_finish(struct capture *capture)
{
	struct table *it = capture->table;

	while (it->finished < it->made) {
		struct flow *flow = flow_at(it, it->finished++);

		if (flow->live)
			table_end_flow(capture, flow, ENDED_CAPTURE);
		if (capture->rows.length + capture->records.length >=
		    FINISH_BYTES)
			break;
	}
	return it->finished < it->made;
}
