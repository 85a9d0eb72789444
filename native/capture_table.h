/* SPDX-License-Identifier: Apache-2.0 */
/* The flow table from inside. */
#ifndef HOLDFAST_CAPTURE_TABLE_H
#define HOLDFAST_CAPTURE_TABLE_H

#include "capture.h"

#include <string.h>

struct list {
	uint32_t first, last;
};

struct table {
	uint64_t seed[4];
	uint64_t *slots; /* hash << 32 | flow; 0 is free */
	uint32_t mask, count, max_flows;
	union slab **slabs;
	uint32_t slab_count, made, free_flow, finished;
	struct list waiting[WAITING_LISTS];
	/* Before this nobody's time is up; INT64_MIN: look again. */
	int64_t due_ns;
	uint64_t evidence_bytes, max_evidence_bytes; /* of all live flows */
	uint64_t sample; /* state of the generator that picks whom to evict */
};

static inline struct flow *flow_at(const struct table *it, uint32_t index)
{
	return &it->slabs[index / SLAB_FLOWS]->flows[index % SLAB_FLOWS].flow;
}

static inline uint32_t index_of(const struct flow *flow)
{
	const union slab *slab = slab_of(flow);

	return slab->number * SLAB_FLOWS +
	       (uint32_t)((const struct whole_flow *)flow - slab->flows);
}

static inline bool same_key(const struct flow_key *a, const struct flow_key *b)
{
	return memcmp(a, b, sizeof(*a)) == 0;
}
_Static_assert(sizeof(struct flow_key) == 40, "keys are compared as bytes");

/* capture_index.c */
bool index_new(struct table *it);
uint32_t index_hash(const struct table *it, const struct flow_key *key);
bool index_make_room(struct table *it);
void index_insert(struct table *it, uint32_t hash, uint32_t flow);
void index_remove(struct table *it, uint32_t hash, uint32_t flow);
struct flow *index_find(const struct table *it, const struct flow_key *key,
			uint32_t hash);
struct flow *index_likely(const struct table *it, uint32_t hash);

/* capture_wait.c */
void wait_no_more(struct table *it, struct flow *flow);
bool wait_is_over(const struct flow *flow, int64_t now_ns);
uint8_t wait_how_over(const struct flow *flow);

/* capture_queue.c */
void fetch_whole(const struct flow *flow);

/* capture_table.c */
void table_end_flow(struct capture *it, struct flow *flow, uint8_t ended_by);
void table_take(struct capture *it, const struct segment *seg);

#endif
