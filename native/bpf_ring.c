// SPDX-License-Identifier: Apache-2.0
#include "bpf_ring.h"

#include <bpf/libbpf.h>
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* Not an error: the buffer is full and the rest waits in the ring. */
#define RING_FULL (-EXFULL)

static uint64_t key_hash(const unsigned char *bytes, size_t length)
{
	uint64_t hash = 14695981039346656037ULL; /* FNV-1a */

	while (length--)
		hash = (hash ^ *bytes++) * 1099511628211ULL;
	return hash;
}

/* How often this key was seen in this drain, now included. */
static size_t key_count(struct ring *ring, const unsigned char *key)
{
	size_t i = key_hash(key, ring->key_bytes);
	struct ring_key *k;

	for (;; i++) {
		k = &ring->keys[i & (RING_KEYS - 1)];
		if (k->seen && !memcmp(k->bytes, key, ring->key_bytes))
			return ++k->seen;
		if (!k->seen)
			break;
	}
	/* Too many kinds at once: keep the record, do not fold it. */
	if (ring->keys_used > RING_KEYS / 2)
		return 1;
	memcpy(k->bytes, key, ring->key_bytes);
	ring->keys_used++;
	return ++k->seen;
}

static int record_take(void *context, void *data, size_t size)
{
	struct ring *ring = context;

	if (size < ring->record_bytes)
		return -EPROTO;
	/* Folded records fill nothing: without a bound a flood would keep us. */
	ring->taken++;
	if (key_count(ring, data) <= ring->keep) {
		memcpy(ring->records + ring->used, data, ring->record_bytes);
		ring->used += ring->record_bytes;
	}
	if (ring->used == RING_RECORDS_MAX * ring->record_bytes ||
	    ring->taken == RING_TAKEN_MAX)
		return RING_FULL;
	return 0;
}

struct ring *ring_new(int map_fd, size_t record_bytes, size_t key_bytes)
{
	struct ring *ring = calloc(1, sizeof(*ring));

	if (!ring)
		return NULL;
	ring->map_fd = map_fd;
	ring->record_bytes = record_bytes;
	ring->key_bytes = key_bytes;
	ring->records = malloc(RING_RECORDS_MAX * record_bytes);
	if (ring->records)
		ring->buffer =
			ring_buffer__new(map_fd, record_take, ring, NULL);
	if (!ring->buffer) {
		ring_free(ring);
		return NULL;
	}
	return ring;
}

int ring_drain(struct ring *ring, size_t keep)
{
	int error;

	ring->keep = keep;
	ring->used = 0;
	ring->taken = 0;
	if (ring->keys_used)
		memset(ring->keys, 0, sizeof(ring->keys));
	ring->keys_used = 0;
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
