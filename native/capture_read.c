// SPDX-License-Identifier: Apache-2.0
/*
 * A file from its descriptor, piece by piece, without handing each piece over. A piece is small enough to be in the
 * cache still when it is parsed, and is read to where a page begins: the kernel copies to an odd address up to
 * seven times slower. What was not taken of it is put just before the next.
 */
#include "capture.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum {
	PAGE_BYTES = 4096,
	PIECE_BYTES = 1 << 18,
	/* More than the longest record, which may be left over. */
	HEAD_BYTES = MAX_PACKET_BYTES + (1 << 16),
	RESULT_BYTES = 1 << 20
};

/* Whoever waits for results, or wants to stop, waits so long at most (or for one piece). */
#define AT_ONCE_NS (NANOSECONDS / 50)

static int64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * NANOSECONDS + now.tv_nsec;
}

/* One piece; what read() gave. */
static ssize_t read_piece(struct capture *it, int fd)
{
	uint8_t *into = it->pieces + HEAD_BYTES;
	ssize_t count = read(fd, into, PIECE_BYTES);
	size_t taken;

	if (count <= 0)
		return count;
	taken = capture_feed(it, into - it->left, it->left + (size_t)count);
	it->left += (size_t)count - taken;
	/* Only then is what was left less than a record. */
	if (!it->damage && !it->out_of_memory)
		memmove(into - it->left, into + count - it->left, it->left);
	return count;
}

/*
 * Read on, and take what is complete, until there were so many bytes, many results, or some time has passed; gives
 * how many bytes were read, 0 at the end, -1 with errno set. The rest of a packet is kept for the next call.
 */
ssize_t capture_read(struct capture *it, int fd, size_t most_bytes)
{
	int64_t until_ns = now_ns() + AT_ONCE_NS;
	ssize_t total = 0, count;

	if (it->damage || it->out_of_memory)
		return 0;
	if (!it->pieces)
		it->pieces =
			aligned_alloc(PAGE_BYTES, HEAD_BYTES + PIECE_BYTES);
	if (!it->pieces) {
		it->out_of_memory = true;
		return -1;
	}
	do {
		count = read_piece(it, fd);
		if (count <= 0)
			return total ? total : count;
		total += count;
	} while (!it->damage && !it->out_of_memory &&
		 (size_t)total < most_bytes &&
		 it->rows.length + it->records.length < RESULT_BYTES &&
		 now_ns() < until_ns);
	return total;
}
