// SPDX-License-Identifier: Apache-2.0
/* Memory in large pieces that never move: huge pages where the kernel gives them, for what is visited at random. */
#include "capture.h"

#include <stdlib.h>
#include <sys/mman.h>

/* So many bytes, aligned to SLAB_BYTES, not cleared; NULL without memory. */
void *slab_new(size_t bytes)
{
	size_t rounded = (bytes + SLAB_BYTES - 1) & ~(size_t)(SLAB_BYTES - 1);
	void *made = aligned_alloc(SLAB_BYTES, rounded);

	if (made)
		madvise(made, rounded, MADV_HUGEPAGE);
	return made;
}

/* Room for one more pointer in this list of so many, in steps of powers of two. */
bool slab_list_grow(void *list, uint32_t count)
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
