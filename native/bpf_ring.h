// SPDX-License-Identifier: Apache-2.0
/*
 * Empties a BPF ring buffer in bounded memory. What a drain finds is kept whole, unless it
 * is more than the caller can afford: then records that are alike are counted and only
 * the first few are kept. No Python here, so that it runs without the interpreter lock.
 */
#ifndef HOLDFAST_RING_H
#define HOLDFAST_RING_H

#include <linux/types.h>
#include <stddef.h>

#include "../bpf/event.h"

#define RING_RECORDS_MAX 4096
#define RING_TAKEN_MAX (1 << 16) /* records looked at in one drain */
#define RING_KEYS 4096		 /* a power of two */
/* Ports and processes told apart in one folding drain: many of them are a flood too. */
#define RING_APART_MAX 512

struct ring_buffer;

/* What records have in common: their tally, and with it a port at one end and a process. */
struct ring_key {
	struct tally_key tally;
	__u32 pid; /* who closed or, if that is unknown, opened; 0 is nobody */
	__u16 local_port, peer_port; /* at most one of them; 0 is any */
};

struct ring_count {
	struct ring_key key;
	size_t kept, folded; /* nothing kept is a free place */
};

struct ring {
	struct ring_buffer *buffer;
	int map_fd;
	size_t plenty, keep;
	struct event *records;
	size_t used; /* records kept */
	size_t taken;
	size_t apart; /* records kept for their port and process */
	int folding;
	struct ring_count counts[RING_KEYS];
	size_t counts_used;
};

/* NULL and errno on failure. Records shorter than struct event are refused. */
struct ring *ring_new(int map_fd);

/*
 * Fill records and counts anew. Beyond `plenty` records, of those alike only `keep` are
 * kept. 0, or a negative errno.
 */
int ring_drain(struct ring *ring, size_t plenty, size_t keep);

void ring_free(struct ring *ring);

#endif
