// SPDX-License-Identifier: Apache-2.0
/*
 * libFuzzer target for the capture core: any bytes with little memory, twice: as a file, fed in pieces of any
 * size, and as a block of a live interface's ring. `make fuzz` builds and runs it.
 */
#include "capture.h"

#include <stdlib.h>
#include <string.h>

static const uint64_t SEED[4] = { 1, 2, 3, 4 };

/* Each piece is copied to memory of exactly its size, so that the sanitizer sees a read beyond it. */
static size_t feed(struct capture *it, const uint8_t *data, size_t length)
{
	uint8_t *piece = malloc(length ? length : 1);
	size_t taken;

	if (!piece)
		return 0;
	memcpy(piece, data, length);
	taken = capture_feed(it, piece, length);
	free(piece);
	return taken;
}

static void read_file(const uint8_t *data, size_t size, size_t step)
{
	struct capture *it = capture_new(SEED, 8, 1024, 4096, true);
	size_t begin = 0, end = 0;

	if (!it)
		return;
	capture_begin_file(it, 0);
	while (end < size && !it->damage) {
		end = size - end < step ? size : end + step;
		begin += feed(it, data + begin, end - begin);
	}
	capture_end_file(it, size - begin);
	while (capture_finish(it))
		it->rows.length = it->records.length = 0;
	if (it->counts.packets < it->counts.tcp)
		abort();
	capture_free(it);
}

/* A block of a live interface's ring, which the kernel lays out; its offsets are believed no more than a file's. */
static void read_block(const uint8_t *data, size_t size)
{
	struct capture *it = capture_new(SEED, 8, 1024, 4096, true);
	uint8_t *block = malloc(size ? size : 1);

	if (it && block) {
		memcpy(block, data, size);
		capture_begin_live(it, 1);
		capture_ring_block(it, block, size, true);
		capture_tick(it, INT64_MAX);
		while (capture_finish(it))
			it->rows.length = it->records.length = 0;
	}
	free(block);
	capture_free(it);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const size_t steps[] = { 1, 7, 64, 1500, 1 << 20 };

	if (size < 1)
		return 0;
	read_file(data + 1, size - 1, steps[data[0] % 5]);
	read_block(data + 1, size - 1);
	return 0;
}
