// SPDX-License-Identifier: Apache-2.0
/*
 * The flow table: an index of 8-byte slots (linear probing, seeded hash) over slabs of flows, and one pool
 * of packet chunks for their rings. Segments queue for it, so that their cache misses overlap.
 *
 * Lists in the order of last activity say whose time is up: closed flows, and those that saw only SYNs. A few
 * of them end at each segment, so that nobody is handed very many at once; who is met before its turn ends
 * then. All others stay until the capture ends, or the table is full: then the longest silent of a sample is
 * given early, and counted.
 */
#include "capture.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* A huge page; the fuzzer makes it small, to see each flow's bounds sooner. */
#ifndef SLAB_BYTES
#define SLAB_BYTES (2 << 20)
#endif

struct chunk {
	struct kept_packet packet[CHUNK_PACKETS];
};

enum {
	SLAB_FLOWS = SLAB_BYTES / sizeof(struct flow),
	CHUNK_SLAB = SLAB_BYTES / sizeof(struct chunk),
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
	struct flow **slabs;
	uint32_t slab_count, made, free_flow, finished;
	struct chunk **chunk_slabs;
	uint32_t chunk_slab_count, chunks_made;
	uint32_t *free_chunks, free_chunk_count; /* last freed, first used */
	uint64_t chunks_held, max_chunks;
	struct list waiting[WAITING_LISTS];
	/* Before this nobody's time is up; INT64_MIN: look again. */
	int64_t due_ns;
	uint64_t evidence_bytes, max_evidence_bytes; /* of all live flows */
	uint64_t sample; /* state of the generator that picks whom to evict */
};

struct table *table_new(const uint64_t seed[4], uint32_t max_flows,
			uint64_t ring_bytes, uint64_t evidence_bytes)
{
	struct table *it = calloc(1, sizeof(*it));

	if (!it)
		return NULL;
	memcpy(it->seed, seed, sizeof(it->seed));
	it->sample = seed[3] | 1;
	it->max_flows = max_flows;
	it->max_chunks = ring_bytes / sizeof(struct chunk);
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
	return &it->slabs[index / SLAB_FLOWS][index % SLAB_FLOWS];
}

void table_free(struct table *it)
{
	if (!it)
		return;
	for (uint32_t i = 0; i < it->made; i++) {
		if (flow_at(it, i)->live)
			evidence_free(flow_at(it, i)->evidence);
	}
	for (uint32_t i = 0; i < it->slab_count; i++)
		free(it->slabs[i]);
	for (uint32_t i = 0; i < it->chunk_slab_count; i++)
		free(it->chunk_slabs[i]);
	free(it->slabs);
	free(it->chunk_slabs);
	free(it->free_chunks);
	free(it->slots);
	free(it);
}

/* ---- hash: two rounds of multiply and fold per word pair, with a seed nobody outside knows */

static uint64_t fold(uint64_t a, uint64_t b)
{
	unsigned __int128 product = (unsigned __int128)a * b;

	return (uint64_t)product ^ (uint64_t)(product >> 64);
}

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

/* ---- memory: slabs never move, so a flow has one address */

/* Huge pages, where the kernel gives them: flows are visited in random order. */
static void *slab(size_t bytes)
{
	size_t rounded = (bytes + SLAB_BYTES - 1) & ~(size_t)(SLAB_BYTES - 1);
	void *made = aligned_alloc(SLAB_BYTES, rounded);

	if (made)
		madvise(made, rounded, MADV_HUGEPAGE);
	return made;
}

/* Room for one more pointer, in steps of powers of two. */
static bool more_slabs(void *list, uint32_t count)
{
	void **slabs = *(void ***)list;

	if (count & (count - 1))
		return true;
	slabs = realloc(slabs,
			(count ? 2 * (size_t)count : 1) * sizeof(*slabs));
	if (slabs)
		*(void ***)list = slabs;
	return slabs != NULL;
}

static uint32_t new_flow(struct table *it)
{
	uint32_t index = it->free_flow;

	if (index != NO_FLOW) {
		it->free_flow = flow_at(it, index)->next;
		return index;
	}
	if (it->made == it->slab_count * SLAB_FLOWS) {
		if (!more_slabs(&it->slabs, it->slab_count))
			return NO_FLOW;
		it->slabs[it->slab_count] =
			slab(SLAB_FLOWS * sizeof(struct flow));
		if (!it->slabs[it->slab_count])
			return NO_FLOW;
		it->slab_count++;
	}
	return it->made++;
}

static struct chunk *chunk_at(const struct table *it, uint32_t index)
{
	return &it->chunk_slabs[index / CHUNK_SLAB][index % CHUNK_SLAB];
}

static bool more_chunks(struct table *it)
{
	uint32_t count = it->chunk_slab_count;
	uint32_t *frees = realloc(it->free_chunks,
				  (count + 1) * CHUNK_SLAB * sizeof(*frees));

	if (!frees)
		return false;
	it->free_chunks = frees;
	if (!more_slabs(&it->chunk_slabs, count))
		return false;
	it->chunk_slabs[count] = slab(CHUNK_SLAB * sizeof(struct chunk));
	if (!it->chunk_slabs[count])
		return false;
	it->chunk_slab_count++;
	return true;
}

static uint32_t new_chunk(struct table *it)
{
	if (it->free_chunk_count) {
		it->chunks_held++;
		return it->free_chunks[--it->free_chunk_count];
	}
	if (it->chunks_made == it->chunk_slab_count * CHUNK_SLAB &&
	    !more_chunks(it))
		return NO_FLOW;
	it->chunks_held++;
	return it->chunks_made++;
}

/* ---- rings */

static uint32_t ring_position(const struct flow *flow, uint32_t place)
{
	uint32_t at = place - flow->ring_base;

	return flow->ring_size ? at % flow->ring_size : at;
}

static struct kept_packet *ring_packet(const struct table *it,
				       const struct flow *flow, uint32_t place)
{
	uint32_t at = ring_position(flow, place);

	return &chunk_at(it, flow->chunk[at / CHUNK_PACKETS])
			->packet[at % CHUNK_PACKETS];
}

/* One more chunk, or none any more for this flow: from then on its ring goes round. */
static bool grow_ring(struct capture *capture, struct flow *flow)
{
	struct table *it = capture->table;
	bool room = it->chunks_held < it->max_chunks;
	uint32_t index = NO_FLOW;

	if (flow->chunks < RING_CHUNKS && (room || !flow->chunks))
		index = new_chunk(it);
	if (index != NO_FLOW) {
		flow->chunk[flow->chunks++] = index;
		return true;
	}
	if (!flow->chunks) {
		capture->out_of_memory = true;
		return false;
	}
	flow->ring_size = (uint8_t)(flow->chunks * CHUNK_PACKETS);
	if (flow->ring_size < RING_PACKETS && !flow->short_ring) {
		flow->short_ring = true;
		capture->counts.without_packets++;
	}
	return true;
}

/*
 * Where the packet at this place of the flow is kept. A ring grows while its flow needs it and the pool has
 * room; the first chunk is always given, so that every flow remembers something.
 */
struct kept_packet *table_ring_slot(struct capture *capture, struct flow *flow,
				    uint32_t place)
{
	if (!flow->ring_size &&
	    place - flow->ring_base == flow->chunks * CHUNK_PACKETS &&
	    !grow_ring(capture, flow))
		return NULL;
	return ring_packet(capture->table, flow, place);
}

/* The packet at this place, which is one of the last ring_size. */
const struct kept_packet *table_ring_at(const struct table *it,
					const struct flow *flow, uint32_t place)
{
	return ring_packet(it, flow, place);
}

static void free_chunk(struct table *it, uint32_t index)
{
	it->free_chunks[it->free_chunk_count++] = index;
	it->chunks_held--;
}

/* Of a flow that ended well only the last chunk is kept: nobody will ask for more. */
void table_ring_shrink(struct table *it, struct flow *flow)
{
	uint32_t last = flow->places - 1, at = ring_position(flow, last);
	uint32_t kept = flow->chunk[at / CHUNK_PACKETS];

	for (uint8_t i = 0; i < flow->chunks; i++) {
		if (flow->chunk[i] != kept)
			free_chunk(it, flow->chunk[i]);
	}
	flow->chunk[0] = kept;
	flow->chunks = 1;
	flow->ring_size = 0;
	flow->ring_base = last - at % CHUNK_PACKETS;
}

/* All that the ring holds is kept elsewhere. */
void table_ring_drop(struct table *it, struct flow *flow)
{
	for (uint8_t i = 0; i < flow->chunks; i++)
		free_chunk(it, flow->chunk[i]);
	flow->chunks = flow->ring_size = 0;
	flow->ring_base = flow->places;
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

	if (flow->waiting == WAITING_NOT)
		return;
	it->due_ns = INT64_MIN;
	if (flow->previous == NO_FLOW)
		list->first = flow->next;
	else
		flow_at(it, flow->previous)->next = flow->next;
	if (flow->next == NO_FLOW)
		list->last = flow->previous;
	else
		flow_at(it, flow->next)->previous = flow->previous;
	flow->waiting = WAITING_NOT;
}

/* Put the flow at the end of this list, since it was active just now. */
void table_wait(struct table *it, struct flow *flow, enum waiting to)
{
	struct list *list = &it->waiting[to];

	if (flow->waiting == to && (to == WAITING_NOT || flow->next == NO_FLOW))
		return;
	unlink_flow(it, flow);
	if (to == WAITING_NOT)
		return;
	flow->waiting = (uint8_t)to;
	flow->previous = list->last;
	flow->next = NO_FLOW;
	if (list->last == NO_FLOW) {
		list->first = flow->index;
		it->due_ns = INT64_MIN;
	} else {
		flow_at(it, list->last)->next = flow->index;
	}
	list->last = flow->index;
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
	made = slab(count * sizeof(*made));
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

	give_flow(capture, flow, ended_by);
	unlink_flow(it, flow);
	remove_slot(it, flow->hash, flow->index);
	table_ring_drop(it, flow);
	if (flow->evidence) {
		it->evidence_bytes -= evidence_bytes(flow->evidence);
		evidence_free(flow->evidence);
	}
	flow->live = false;
	flow->evidence = NULL;
	flow->next = it->free_flow;
	it->free_flow = flow->index;
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
	flow->index = index;
	flow->hash = seg->hash;
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

/* Send for all of a flow, which is about to begin or to end. */
static void fetch_whole(const struct flow *flow)
{
	for (size_t at = 0; at < sizeof(*flow); at += 64)
		__builtin_prefetch((const char *)flow + at, 1);
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
		if (flow->next != NO_FLOW)
			fetch_whole(flow_at(it, flow->next));
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

/* Send for what this segment will read and write. */
static void fetch(const struct table *it, const struct segment *seg)
{
	const struct flow *flow = likely(it, seg->hash);
	const struct side *side;

	if (!flow && it->free_flow != NO_FLOW)
		fetch_whole(flow_at(it, it->free_flow));
	if (!flow)
		return;
	if (seg->flags & (SYN | FIN | RST)) {
		fetch_whole(flow);
		return;
	}
	side = flow->side;
	__builtin_prefetch(flow, 1);
	__builtin_prefetch(flow->chunk, 1);
	__builtin_prefetch(&side[seg->from], 1);
	__builtin_prefetch(&side[seg->from].ip_bytes, 1);
	__builtin_prefetch(&side[!seg->from], 1);
}

static void fetch_next(struct capture *capture)
{
	fetch(capture->table, &capture->queue[capture->fetched++ % QUEUE]);
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
	if (capture->added - capture->taken > FLOW_AHEAD)
		take_next(capture);
}

/* Count all that were added. */
void table_drain(struct capture *capture)
{
	while (capture->fetched != capture->added)
		fetch_next(capture);
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
