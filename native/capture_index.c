// SPDX-License-Identifier: Apache-2.0
/* From a key to its flow: slots of 8 bytes with linear probing and a seeded hash. */
#include "capture_table.h"

#include <stdlib.h>

enum { FIRST_SLOTS = 4096 };

/* Two rounds of multiply and fold per word pair, with a seed nobody outside knows. */
uint32_t index_hash(const struct table *it, const struct flow_key *key)
{
	const uint64_t *a = key->addr[0], *b = key->addr[1];
	uint64_t rest;

	rest = (uint64_t)key->port[0] << 48 | (uint64_t)key->port[1] << 32 |
	       key->tunnel_id;
	rest = fold(a[0] ^ it->seed[0], a[1] ^ it->seed[1]) ^
	       fold(b[0] ^ it->seed[2], b[1] ^ it->seed[3]) ^ rest;
	rest = fold(rest ^ it->seed[1], it->seed[2] | 1);
	return (uint32_t)(rest ^ rest >> 32);
}

static uint64_t slot_of(uint32_t hash, uint32_t index)
{
	return (uint64_t)hash << 32 | index;
}

void index_insert(struct table *it, uint32_t hash, uint32_t index)
{
	uint32_t at = hash & it->mask;

	while (it->slots[at])
		at = (at + 1) & it->mask;
	it->slots[at] = slot_of(hash, index);
}

/* Free slots, on a huge page as soon as they would take many small ones. */
static uint64_t *new_slots(size_t count)
{
	uint64_t *made;

	if (count * sizeof(*made) < SLAB_BYTES / 8)
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
			index_insert(it, (uint32_t)(old[i] >> 32),
				     (uint32_t)old[i]);
	}
	free(old);
	return true;
}

bool index_new(struct table *it)
{
	it->mask = FIRST_SLOTS - 1;
	it->slots = calloc(FIRST_SLOTS, sizeof(*it->slots));
	return it->slots != NULL;
}

/* Room for one more flow: half of the slots stay free, and one of them at least. */
bool index_make_room(struct table *it)
{
	return (uint64_t)it->count * 2 <= it->mask || grow(it) ||
	       it->count + 1 <= it->mask;
}

struct flow *index_find(const struct table *it, const struct flow_key *key,
			uint32_t hash)
{
	for (uint32_t at = hash & it->mask; it->slots[at];
	     at = (at + 1) & it->mask) {
		struct flow *flow;

		if (it->slots[at] >> 32 != hash)
			continue;
		flow = flow_at(it, (uint32_t)it->slots[at]);
		if (same_key(&flow->key, key))
			return flow;
	}
	return NULL;
}

/* Close the gap behind a removed slot: what probed past it moves up. */
void index_remove(struct table *it, uint32_t hash, uint32_t index)
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

/* The flow that is most likely meant, to fetch its memory; NULL if there is none. */
struct flow *index_likely(const struct table *it, uint32_t hash)
{
	for (uint32_t at = hash & it->mask; it->slots[at];
	     at = (at + 1) & it->mask) {
		if (it->slots[at] >> 32 == hash)
			return flow_at(it, (uint32_t)it->slots[at]);
	}
	return NULL;
}
