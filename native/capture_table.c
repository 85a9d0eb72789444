// SPDX-License-Identifier: Apache-2.0
/*
 * The flow table: an index of 8-byte slots (linear probing, seeded hash) over slabs of flows. Segments queue
 * for it, so that their cache misses overlap.
 *
 * Lists in the order of last activity say whose time is up: closed flows, and those that saw only SYNs. A few
 * of them end at each segment, so that nobody is handed very many at once; who is met before its turn ends
 * then. All others stay until the capture ends, or the table is full: then the longest silent of a sample is
 * given early, and counted.
 */
#include "capture.h"

#include <stdlib.h>
#include <string.h>

enum {
	FIRST_SLOTS = 4096,
	EVICT_SAMPLE = 16,
	/* More than one, since each segment may begin a flow. */
	SEGMENT_ENDS = 4,
	FINISH_BYTES = 4 << 20
};

struct list {
	uint32_t first, last;
};

struct table {
	uint64_t seed[4];
	uint64_t *slots; /* hash << 32 | flow + 1; 0 is free */
	uint32_t mask, count, max_flows;
	struct slab **slabs;
	uint32_t slab_count, made, free_flow, finished;
	struct list waiting[WAITING_LISTS];
	/* Before this nobody's time is up; INT64_MIN: look again. */
	int64_t due_ns;
	uint64_t evidence_bytes, max_evidence_bytes; /* of all live flows */
	uint64_t sample; /* state of the generator that picks whom to evict */
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
	it->mask = FIRST_SLOTS - 1;
	it->slots = calloc(FIRST_SLOTS, sizeof(*it->slots));
	it->free_flow = NO_FLOW;
	for (int i = 0; i < WAITING_LISTS; i++)
		it->waiting[i].first = it->waiting[i].last = NO_FLOW;
	if (!it->slots) {
		free(it);
		return NULL;
	}
	return it;
}

static struct flow *flow_at(const struct table *it, uint32_t index)
{
	return &it->slabs[index / SLAB_FLOWS]->flows[index % SLAB_FLOWS];
}

static uint32_t index_of(const struct flow *flow)
{
	const struct slab *slab = slab_of(flow);

	return slab->number * SLAB_FLOWS + (uint32_t)(flow - slab->flows);
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

/* ---- hash: two rounds of multiply and fold per word pair, with a seed nobody outside knows */

static uint32_t table_hash(const struct table *it, const struct flow_key *key)
{
	uint64_t word[4], rest;

	memcpy(word, key->addr, sizeof(word));
	rest = (uint64_t)key->port[0] << 48 | (uint64_t)key->port[1] << 32 |
	       key->tunnel_id;
	rest = fold(word[0] ^ it->seed[0], word[1] ^ it->seed[1]) ^
	       fold(word[2] ^ it->seed[2], word[3] ^ it->seed[3]) ^ rest;
	rest = fold(rest ^ it->seed[1], it->seed[2] | 1);
	return (uint32_t)(rest ^ rest >> 32);
}

static bool same_key(const struct flow_key *a, const struct flow_key *b)
{
	return memcmp(a, b, sizeof(*a)) == 0;
}
_Static_assert(sizeof(struct flow_key) == 40, "keys are compared as bytes");

static uint32_t new_flow(struct table *it)
{
	uint32_t index = it->free_flow;

	if (index != NO_FLOW) {
		it->free_flow = rare_of(flow_at(it, index))->next;
		return index;
	}
	if (it->made == it->slab_count * SLAB_FLOWS) {
		if (!slab_list_grow(&it->slabs, it->slab_count))
			return NO_FLOW;
		it->slabs[it->slab_count] = slab_new(sizeof(struct slab));
		if (!it->slabs[it->slab_count])
			return NO_FLOW;
		it->slabs[it->slab_count]->number = it->slab_count;
		it->slab_count++;
	}
	return it->made++;
}

void table_charge(struct table *it, size_t bytes)
{
	it->evidence_bytes += bytes;
	if (it->evidence_bytes > it->max_evidence_bytes)
		it->due_ns = INT64_MIN;
}

/* ---- lists */

static void unlink_flow(struct table *it, struct flow *flow)
{
	struct list *list = &it->waiting[flow->waiting];
	const struct flow_rare *rare = rare_of(flow);

	if (flow->waiting == WAITING_NOT)
		return;
	it->due_ns = INT64_MIN;
	if (rare->previous == NO_FLOW)
		list->first = rare->next;
	else
		rare_of(flow_at(it, rare->previous))->next = rare->next;
	if (rare->next == NO_FLOW)
		list->last = rare->previous;
	else
		rare_of(flow_at(it, rare->next))->previous = rare->previous;
	flow->waiting = WAITING_NOT;
}

/* Put the flow at the end of this list, since it was active just now. */
void table_wait(struct table *it, struct flow *flow, enum waiting to)
{
	struct list *list = &it->waiting[to];
	struct flow_rare *rare = rare_of(flow);
	uint32_t index;

	if (flow->waiting == to && (to == WAITING_NOT || rare->next == NO_FLOW))
		return;
	unlink_flow(it, flow);
	if (to == WAITING_NOT)
		return;
	index = index_of(flow);
	flow->waiting = to;
	rare->previous = list->last;
	rare->next = NO_FLOW;
	if (list->last == NO_FLOW) {
		list->first = index;
		it->due_ns = INT64_MIN;
	} else {
		rare_of(flow_at(it, list->last))->next = index;
	}
	list->last = index;
}

/* ---- index */

static uint64_t slot_of(uint32_t hash, uint32_t index)
{
	return (uint64_t)hash << 32 | (index + 1);
}

static void insert(struct table *it, uint32_t hash, uint32_t index)
{
	uint32_t at = hash & it->mask;

	while (it->slots[at])
		at = (at + 1) & it->mask;
	it->slots[at] = slot_of(hash, index);
}

/* Free slots, on huge pages as soon as they fill one. */
static uint64_t *new_slots(size_t count)
{
	uint64_t *made;

	if (count * sizeof(*made) < SLAB_BYTES)
		return calloc(count, sizeof(*made));
	made = slab_new(count * sizeof(*made));
	if (made)
		memset(made, 0, count * sizeof(*made));
	return made;
}

static bool grow(struct table *it)
{
	uint64_t *old = it->slots;
	uint32_t size = it->mask + 1;

	it->slots = new_slots((size_t)size * 2);
	if (!it->slots) {
		it->slots = old;
		return false;
	}
	it->mask = size * 2 - 1;
	for (uint32_t i = 0; i < size; i++) {
		if (old[i])
			insert(it, (uint32_t)(old[i] >> 32),
			       (uint32_t)old[i] - 1);
	}
	free(old);
	return true;
}

static struct flow *find(const struct table *it, const struct flow_key *key,
			 uint32_t hash)
{
	for (uint32_t at = hash & it->mask; it->slots[at];
	     at = (at + 1) & it->mask) {
		struct flow *flow;

		if (it->slots[at] >> 32 != hash)
			continue;
		flow = flow_at(it, (uint32_t)it->slots[at] - 1);
		if (same_key(&flow->key, key))
			return flow;
	}
	return NULL;
}

/* Close the gap behind a removed slot: what probed past it moves up. */
static void remove_slot(struct table *it, uint32_t hash, uint32_t index)
{
	uint32_t hole = hash & it->mask, at;

	while (it->slots[hole] != slot_of(hash, index))
		hole = (hole + 1) & it->mask;
	for (at = (hole + 1) & it->mask; it->slots[at];
	     at = (at + 1) & it->mask) {
		uint32_t home = (uint32_t)(it->slots[at] >> 32) & it->mask;

		if (((at - home) & it->mask) >= ((at - hole) & it->mask)) {
			it->slots[hole] = it->slots[at];
			hole = at;
		}
	}
	it->slots[hole] = 0;
}

/* ---- the life of a flow */

static void end_flow(struct capture *capture, struct flow *flow,
		     uint8_t ended_by)
{
	struct table *it = capture->table;
	struct flow_rare *rare = rare_of(flow);
	uint32_t index = index_of(flow);

	give_flow(capture, flow, ended_by);
	unlink_flow(it, flow);
	remove_slot(it, table_hash(it, &flow->key), index);
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

/* The table is full, so every flow that was ever made is live. */
static void evict(struct capture *capture)
{
	struct table *it = capture->table;
	struct flow *oldest = NULL;

	for (int i = 0; i < EVICT_SAMPLE; i++) {
		struct flow *flow =
			flow_at(it, (uint32_t)(pick(it) % it->made));

		if (!oldest || flow->last_ns < oldest->last_ns)
			oldest = flow;
	}
	capture->counts.evicted++;
	end_flow(capture, oldest, ENDED_EVICTED);
}

static struct flow *begin_flow(struct capture *capture,
			       const struct segment *seg)
{
	struct table *it = capture->table;
	struct flow *flow;
	uint32_t index;

	if (it->count == it->max_flows)
		evict(capture);
	if ((uint64_t)it->count * 2 > it->mask && !grow(it) &&
	    it->count + 1 > it->mask)
		index = NO_FLOW;
	else
		index = new_flow(it);
	if (index == NO_FLOW) {
		capture->out_of_memory = true;
		return NULL;
	}
	flow = flow_at(it, index);
	memset(flow, 0, sizeof(*flow));
	memset(rare_of(flow), 0, sizeof(struct flow_rare));
	flow->live = true;
	flow_begin(flow, seg, capture);
	insert(it, seg->hash, index);
	it->count++;
	capture->counts.connections++;
	return flow;
}

static int64_t limit_of(const struct flow *flow)
{
	return flow->waiting == WAITING_OPENING ? OPENING_NS : LINGER_NS;
}

static bool is_over(const struct flow *flow, int64_t now_ns)
{
	int64_t silent_ns;

	if (flow->waiting == WAITING_NOT || flow->waiting == WAITING_EVIDENCE)
		return false;
	return !__builtin_sub_overflow(now_ns, flow->last_ns, &silent_ns) &&
	       silent_ns > limit_of(flow);
}

static uint8_t how_over(const struct flow *flow)
{
	return flow->waiting == WAITING_OPENING ? ENDED_IDLE : ENDED_CLOSED;
}

static void fetch_lines(const void *first, size_t bytes)
{
	for (size_t at = 0; at < bytes; at += 64)
		__builtin_prefetch((const char *)first + at, 1);
}

/* Send for all of a flow, which is about to begin or to end. */
static void fetch_whole(const struct flow *flow)
{
	fetch_lines(flow, sizeof(*flow));
	fetch_lines(rare_of(flow), sizeof(struct flow_rare));
}

/*
 * Give flows of this list whose time is up, oldest first, and *most at most; gives when the time of the next is
 * up.
 */
static int64_t expire_list(struct capture *capture, enum waiting which,
			   int64_t now_ns, uint32_t *most)
{
	struct table *it = capture->table;
	int64_t due_ns;
	uint32_t next;

	while (it->waiting[which].first != NO_FLOW) {
		struct flow *flow = flow_at(it, it->waiting[which].first);

		if (!is_over(flow, now_ns))
			return __builtin_add_overflow(flow->last_ns,
						      limit_of(flow), &due_ns) ?
				       INT64_MIN :
				       due_ns;
		if (!*most)
			return INT64_MIN;
		--*most;
		next = rare_of(flow)->next;
		if (next != NO_FLOW)
			fetch_whole(flow_at(it, next));
		end_flow(capture, flow, how_over(flow));
	}
	return INT64_MAX;
}

/*
 * Evidence is at its bound: give whoever has some and is closed, the longest first. Nothing is lost by it
 * unless more comes of the same connection. Only if there is none, give one that is open.
 */
static void relieve(struct capture *capture, int64_t now_ns)
{
	struct table *it = capture->table;

	while (it->evidence_bytes > it->max_evidence_bytes) {
		uint32_t told = it->waiting[WAITING_TOLD].first;
		uint32_t open = it->waiting[WAITING_EVIDENCE].first;
		struct flow *flow;

		if (told == NO_FLOW && open == NO_FLOW)
			return;
		flow = flow_at(it, told != NO_FLOW ? told : open);
		if (is_over(flow, now_ns)) {
			end_flow(capture, flow, how_over(flow));
		} else if (told != NO_FLOW) {
			capture->counts.hurried++;
			end_flow(capture, flow, ENDED_HURRIED);
		} else {
			capture->counts.evicted++;
			end_flow(capture, flow, ENDED_EVICTED);
		}
	}
}

/* Give flows whose time is up, so many at most, and those for which there is no room. */
void table_expire(struct capture *capture, int64_t now_ns, uint32_t most)
{
	struct table *it = capture->table;
	int64_t due_ns = INT64_MAX;

	if (now_ns < it->due_ns)
		return;
	for (int i = WAITING_CLOSED; i <= WAITING_OPENING; i++) {
		int64_t mine_ns = expire_list(capture, i, now_ns, &most);

		due_ns = mine_ns < due_ns ? mine_ns : due_ns;
	}
	relieve(capture, now_ns);
	it->due_ns = due_ns;
}

static void take(struct capture *capture, const struct segment *seg)
{
	struct flow *flow;

	table_expire(capture, seg->time_ns, SEGMENT_ENDS);
	flow = seg->likely;
	if (!flow || !flow->live || !same_key(&flow->key, &seg->key))
		flow = find(capture->table, &seg->key, seg->hash);
	if (flow && is_over(flow, seg->time_ns)) {
		end_flow(capture, flow, how_over(flow));
		flow = NULL;
	}
	if (seg->icmp_kind) {
		if (flow)
			flow_count_icmp(capture, flow, seg);
		return;
	}
	if (flow && flow_is_reused(flow, seg)) {
		end_flow(capture, flow, ENDED_REUSED);
		flow = NULL;
	}
	if (!flow)
		flow = begin_flow(capture, seg);
	if (flow)
		flow_count(capture, flow, seg);
}

/* The flow that is most likely meant, to fetch its memory; NULL if there is none. */
static struct flow *likely(const struct table *it, uint32_t hash)
{
	for (uint32_t at = hash & it->mask; it->slots[at];
	     at = (at + 1) & it->mask) {
		if (it->slots[at] >> 32 == hash)
			return flow_at(it, (uint32_t)it->slots[at] - 1);
	}
	return NULL;
}

/* Send for what this segment will read and write, if its flow is the likely one and it is a usual segment. */
static void fetch(const struct table *it, struct segment *seg)
{
	struct flow *flow = likely(it, seg->hash);

	seg->likely = flow;
	if (!flow && it->free_flow != NO_FLOW)
		flow = flow_at(it, it->free_flow);
	if (!flow)
		return;
	if (!seg->likely || seg->flags & (SYN | FIN | RST))
		fetch_whole(flow);
	else
		fetch_lines(flow, sizeof(*flow));
}

/* Send for the rest of a flow whose handshake is not over yet. */
static void fetch_rest(const struct segment *seg)
{
	const struct flow *flow = seg->likely;

	if (flow && !flow->steady)
		fetch_lines(rare_of(flow), 128);
}

static void fetch_next(struct capture *capture)
{
	fetch(capture->table, &capture->queue[capture->fetched++ % QUEUE]);
}

static void fetch_next_rest(struct capture *capture)
{
	fetch_rest(&capture->queue[capture->rested++ % QUEUE]);
}

static void take_next(struct capture *capture)
{
	const struct segment *seg = &capture->queue[capture->taken++ % QUEUE];

	if (!capture->out_of_memory)
		take(capture, seg);
}

/*
 * The segment that was just written to the queue belongs to it: send for its slot of the index, for the flow
 * of one whose slot has come, and count one whose flow has come. So some lines are on their way at any time.
 */
void table_add(struct capture *capture, struct segment *seg)
{
	struct table *it = capture->table;

	seg->hash = table_hash(it, &seg->key);
	__builtin_prefetch(&it->slots[seg->hash & it->mask]);
	capture->added++;
	if (capture->added - capture->fetched > SLOT_AHEAD)
		fetch_next(capture);
	if (capture->added - capture->rested > REST_AHEAD)
		fetch_next_rest(capture);
	if (capture->added - capture->taken > FLOW_AHEAD)
		take_next(capture);
}

/* Count all that were added. */
void table_drain(struct capture *capture)
{
	while (capture->fetched != capture->added)
		fetch_next(capture);
	while (capture->rested != capture->added)
		fetch_next_rest(capture);
	while (capture->taken != capture->added)
		take_next(capture);
}

/* The capture has ended: give what is live, oldest entry first, some at a time; true while there is more. */
bool table_finish(struct capture *capture)
{
	struct table *it = capture->table;

	while (it->finished < it->made) {
		struct flow *flow = flow_at(it, it->finished++);

		if (flow->live)
			end_flow(capture, flow, ENDED_CAPTURE);
		if (capture->rows.length + capture->records.length >=
		    FINISH_BYTES)
			break;
	}
	return it->finished < it->made;
}
