// SPDX-License-Identifier: Apache-2.0
#include "bpf_ring.h"

#include <bpf/libbpf.h>
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* Not an error: the buffer is full and the rest waits in the ring. */
#define RING_FULL (-EXFULL)

_Static_assert(sizeof(struct ring_key) == 24, "ring_key has a hole");

static size_t key_hash(const struct ring_key *key)
{
	uint64_t words[sizeof(*key) / sizeof(uint64_t)], hash = 0;
	size_t i;

	/* Word by word: in a flood this is half of what a record costs. */
	memcpy(words, key, sizeof(words));
	for (i = 0; i < sizeof(words) / sizeof(*words); i++) {
		hash = (hash ^ words[i]) * 0x9e3779b97f4a7c15ULL;
		hash ^= hash >>
			32; /* a product's low bits know low bits only */
	}
	return (size_t)hash;
}

/* The place of a key: where it is counted, or a free one. */
static struct ring_count *count_of(struct ring *ring,
				   const struct ring_key *key)
{
	size_t i = key_hash(key);
	struct ring_count *count;

	for (;; i++) {
		count = &ring->counts[i & (RING_KEYS - 1)];
		if (!count->kept || !memcmp(&count->key, key, sizeof(*key)))
			return count;
	}
}

/* Whether one more may be kept; if not, it is counted as folded. */
static bool count_admits(const struct ring *ring, struct ring_count *count)
{
	if (count->kept < ring->keep)
		return true;
	count->folded++;
	return false;
}

/* Looked up anew: the place found before may have been taken meanwhile. */
static void count_kept(struct ring *ring, const struct ring_key *key)
{
	struct ring_count *count = count_of(ring, key);

	if (!count->kept) {
		/* Too many kinds at once: it is kept, and never folded. */
		if (ring->counts_used > RING_KEYS / 2)
			return;
		count->key = *key;
		ring->counts_used++;
	}
	count->kept++;
}

/*
 * Whether to keep a record. Alike are those with the same tally, process and port at one
 * end: the other end of a flood has a port of its own each time. Only what is kept makes
 * a place in the table, so that the flood does not fill it.
 */
static bool record_kept(struct ring *ring, const struct event *e)
{
	struct ring_key local = {
		.tally = e->key,
		.pid = e->closer.pid ? e->closer.pid : e->opener.pid,
		.local_port = e->local_port,
	};
	struct ring_key peer = { .tally = e->key,
				 .pid = local.pid,
				 .peer_port = e->peer_port };
	struct ring_key any = { .tally = e->key };

	if (!count_admits(ring, count_of(ring, &local)) ||
	    !count_admits(ring, count_of(ring, &peer)))
		return false;
	if (ring->apart < RING_APART_MAX) {
		ring->apart++;
		count_kept(ring, &local);
		count_kept(ring, &peer);
		return true;
	}
	if (!count_admits(ring, count_of(ring, &any)))
		return false;
	count_kept(ring, &any);
	return true;
}

/* There are more than we can afford: fold those that are kept already, too. */
static void ring_fold(struct ring *ring)
{
	size_t found = ring->used, i;

	ring->folding = true;
	ring->used = 0;
	for (i = 0; i < found; i++)
		if (record_kept(ring, &ring->records[i]))
			ring->records[ring->used++] = ring->records[i];
}

static int record_take(void *context, void *data, size_t size)
{
	const struct event *e = data;
	struct ring *ring = context;

	if (size < sizeof(*e))
		return -EPROTO;
	/* Folded records fill nothing: without a bound a flood would keep us. */
	ring->taken++;
	if (!ring->folding && ring->used == ring->plenty)
		ring_fold(ring);
	if (!ring->folding || record_kept(ring, e))
		ring->records[ring->used++] = *e;
	/* Whoever can afford more than fits is given it in parts. */
	if (ring->used == RING_RECORDS_MAX || ring->taken == RING_TAKEN_MAX)
		return RING_FULL;
	return 0;
}

struct ring *ring_new(int map_fd)
{
	struct ring *ring = calloc(1, sizeof(*ring));

	if (!ring)
		return NULL;
	ring->map_fd = map_fd;
	ring->records = malloc(RING_RECORDS_MAX * sizeof(*ring->records));
	if (ring->records)
		ring->buffer =
			ring_buffer__new(map_fd, record_take, ring, NULL);
	if (!ring->buffer) {
		ring_free(ring);
		return NULL;
	}
	return ring;
}

int ring_drain(struct ring *ring, size_t plenty, size_t keep)
{
	int error;

	ring->plenty = plenty;
	ring->keep = keep;
	ring->used = 0;
	ring->taken = 0;
	ring->apart = 0;
	if (ring->folding)
		memset(ring->counts, 0, sizeof(ring->counts));
	ring->folding = false;
	ring->counts_used = 0;
	error = ring_buffer__consume(ring->buffer);
	return error < 0 && error != RING_FULL ? error : 0;
}

void ring_free(struct ring *ring)
{
	if (!ring)
		return;
	ring_buffer__free(ring->buffer);
	free(ring->records);
	free(ring);
}
