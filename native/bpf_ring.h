// SPDX-License-Identifier: Apache-2.0
/*
 * Empties a BPF ring buffer in bounded memory: in a flood, records that are alike are
 * counted and only the first few are kept. No Python here, so that it runs without
 * the interpreter lock.
 */
#ifndef HOLDFAST_RING_H
#define HOLDFAST_RING_H

#include <stddef.h>

#define RING_RECORDS_MAX 4096
#define RING_TAKEN_MAX (1 << 16) /* records looked at in one drain */
#define RING_KEYS 1024		 /* a power of two */
#define RING_KEY_BYTES 32
#define RING_RECORD_BYTES 65536

struct ring_buffer;

struct ring_key {
	unsigned char bytes[RING_KEY_BYTES];
	size_t seen; /* 0 is a free slot */
};

struct ring {
	struct ring_buffer *buffer;
	size_t record_bytes, key_bytes, keep;
	int map_fd;
	unsigned char *records;
	size_t used; /* bytes in records */
	size_t taken;
	struct ring_key keys[RING_KEYS];
	size_t keys_used;
};

/* NULL and errno on failure. Records shorter than record_bytes are refused. */
struct ring *ring_new(int map_fd, size_t record_bytes, size_t key_bytes);

/* Fill records and keys anew. 0, or a negative errno. */
int ring_drain(struct ring *ring, size_t keep);

void ring_free(struct ring *ring);

#endif
