// SPDX-License-Identifier: Apache-2.0
/*
 * The last packets of each flow, in chunks from one bounded pool. A packet's place in its flow says where in a
 * chunk it lies; a flow has more and more chunks until there may be no more, and then begins again with the first.
 */
#include "capture.h"

#include <stdlib.h>
#ifdef __x86_64__
#include <immintrin.h>
#endif

struct chunk {
	struct kept_packet packet[CHUNK_PACKETS];
};

enum { SLAB_CHUNKS = SLAB_BYTES / sizeof(struct chunk), NO_CHUNK = 0xffffffff };

struct ring_pool {
	struct chunk **slabs;
	uint32_t *free; /* last freed, first used */
	uint32_t slab_count, made, free_count;
	uint64_t held, max;
};

struct ring_pool *ring_pool_new(uint64_t bytes)
{
	struct ring_pool *it = calloc(1, sizeof(*it));

	if (!it)
		return NULL;
	it->max = bytes / sizeof(struct chunk);
	return it;
}

void ring_pool_free(struct ring_pool *it)
{
	if (!it)
		return;
	for (uint32_t i = 0; i < it->slab_count; i++)
		free(it->slabs[i]);
	free(it->slabs);
	free(it->free);
	free(it);
}

static struct chunk *chunk_at(const struct ring_pool *it, uint32_t index)
{
	return &it->slabs[index / SLAB_CHUNKS][index % SLAB_CHUNKS];
}

static bool more_chunks(struct ring_pool *it)
{
	uint32_t count = it->slab_count;
	uint32_t *moved = realloc(it->free, ((size_t)count + 1) * SLAB_CHUNKS *
						    sizeof(*moved));

	if (!moved)
		return false;
	it->free = moved;
	if (!slab_list_grow(&it->slabs, count))
		return false;
	it->slabs[count] = slab_new(SLAB_CHUNKS * sizeof(struct chunk));
	if (!it->slabs[count])
		return false;
	it->slab_count++;
	return true;
}

static uint32_t new_chunk(struct ring_pool *it)
{
	if (!it->free_count && it->made == it->slab_count * SLAB_CHUNKS &&
	    !more_chunks(it))
		return NO_CHUNK;
	it->held++;
	return it->free_count ? it->free[--it->free_count] : it->made++;
}

static void free_chunk(struct ring_pool *it, uint32_t index)
{
	it->free[it->free_count++] = index;
	it->held--;
}

/* To the next chunk: one more, or none any more for this flow, and from then on its ring goes round. */
static bool step(struct capture *capture, struct flow *flow)
{
	struct ring_pool *it = capture->rings;
	struct flow_rare *rare = rare_of(flow);
	bool room = it->held < it->max;
	uint32_t index = NO_CHUNK;

	if (!flow->chunks ||
	    (!flow->ring_goes_round && room && flow->chunks < RING_CHUNKS))
		index = new_chunk(it);
	if (index != NO_CHUNK) {
		flow->at_chunk = flow->chunks++;
		flow->chunk = rare->chunk[flow->at_chunk] = index;
		return true;
	}
	if (!flow->chunks) {
		capture->out_of_memory = true;
		return false;
	}
	flow->ring_goes_round = true;
	if (flow->chunks < RING_CHUNKS && !flow->ring_is_short) {
		flow->ring_is_short = true;
		capture->counts.without_packets++;
	}
	flow->at_chunk = (uint8_t)((flow->at_chunk + 1) % flow->chunks);
	flow->chunk = rare->chunk[flow->at_chunk];
	return true;
}

/* ---- one packet */

void kept_packet_fill(struct kept_packet *kept, const struct segment *seg,
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

#ifdef __x86_64__
static uint64_t pair(uint32_t low, uint32_t high)
{
	return (uint64_t)high << 32 | low;
}

/*
 * The same, past the caches: of a hundred packets in rings one is read again, and to fetch its line first,
 * only to write all of it, would cost more than everything else that is done with a segment.
 */
static void write_past_caches(struct kept_packet *kept,
			      const struct segment *seg, uint32_t place)
{
	long long *out = (long long *)kept;
	uint32_t bits = (uint32_t)seg->flags | (uint32_t)seg->options << 9 |
			(uint32_t)seg->content << 23 |
			(uint32_t)seg->from << 26 | (uint32_t)seg->v4 << 27 |
			(uint32_t)seg->dont_fragment << 28;
	uint64_t rest = (uint64_t)seg->window | (uint64_t)seg->ip_id << 16 |
			(uint64_t)seg->origin << 32 | (uint64_t)seg->ttl << 48 |
			(uint64_t)seg->options_bytes << 56;

	_mm_stream_si64(out, seg->time_ns);
	_mm_stream_si64(out + 1, (long long)seg->offset);
	_mm_stream_si64(out + 2, (long long)seg->number);
	_mm_stream_si64(out + 3, (long long)pair(place, seg->seq));
	_mm_stream_si64(out + 4, (long long)pair(seg->ack, seg->payload_bytes));
	_mm_stream_si64(out + 5, (long long)pair(seg->ts_val, seg->ts_ecr));
	_mm_stream_si64(out + 6, (long long)pair(seg->sack_right, bits));
	_mm_stream_si64(out + 7, (long long)rest);
}
#else
#define write_past_caches kept_packet_fill
#endif

/*
 * Keep the flow's next packet, which has this place; false without memory. A ring grows while its flow needs it
 * and the pool has room; the first chunk is always given, so that every flow remembers something.
 */
bool ring_keep(struct capture *capture, struct flow *flow,
	       const struct segment *seg, uint32_t place)
{
	if ((place % CHUNK_PACKETS == 0 || !flow->chunks) &&
	    !step(capture, flow))
		return false;
	write_past_caches(&chunk_at(capture->rings, flow->chunk)
				   ->packet[place % CHUNK_PACKETS],
			  seg, place);
	return true;
}

/* The first place that the ring may hold when this one was the last; what was dropped before may be after it. */
uint32_t ring_first(const struct flow *flow, uint32_t place)
{
	uint32_t size = flow->chunks * CHUNK_PACKETS;

	if (flow->ring_goes_round)
		return place + 1 - size;
	return place - place % CHUNK_PACKETS + CHUNK_PACKETS - size;
}

/* Copy so many packets from the first place on; this one is the last that was written. */
void ring_copy(const struct capture *capture, const struct flow *flow,
	       uint32_t place, uint32_t first, uint32_t count,
	       struct kept_packet *out)
{
	const struct flow_rare *rare = rare_of(flow);
	/* Chunks are counted from where the one that is written now was one round ago. */
	uint32_t begin = place / CHUNK_PACKETS - flow->chunks;

	for (uint32_t at = first; at != first + count; at++) {
		uint32_t step = at / CHUNK_PACKETS - begin;
		uint32_t chunk =
			rare->chunk[(flow->at_chunk + step) % flow->chunks];

		*out++ = chunk_at(capture->rings, chunk)
				 ->packet[at % CHUNK_PACKETS];
	}
}

/* Keep but the chunk that is being written: the flow ended well, and nobody will ask for more. */
void ring_shrink(struct capture *capture, struct flow *flow)
{
	struct flow_rare *rare = rare_of(flow);

	for (uint8_t i = 0; i < flow->chunks; i++) {
		if (i != flow->at_chunk)
			free_chunk(capture->rings, rare->chunk[i]);
	}
	rare->chunk[0] = flow->chunk;
	flow->chunks = 1;
	flow->at_chunk = 0;
	flow->ring_goes_round = false;
}

/* All that the ring holds is kept elsewhere, or not wanted any more. */
void ring_drop(struct capture *capture, struct flow *flow)
{
	const struct flow_rare *rare = rare_of(flow);

	for (uint8_t i = 0; i < flow->chunks; i++)
		free_chunk(capture->rings, rare->chunk[i]);
	flow->chunks = 0;
	flow->ring_goes_round = false;
}
