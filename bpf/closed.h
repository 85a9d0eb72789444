/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Connections this host closed: late segments are told from unknown ones by it. Each
 * address has four places to be in; the connection closed longest ago makes room. An LRU
 * hash keeps the latest more exactly, but costs 300 ns more at every close.
 */
#ifndef HOLDFAST_CLOSED_H
#define HOLDFAST_CLOSED_H

#define CLOSED_BITS 14
#define CLOSED_WAYS 4 /* a power of two */

struct closed_connection {
	struct earlier was;
	struct tuple tuple;
};

struct closed_set {
	__u64 closed_ns[CLOSED_WAYS];
	struct closed_connection ways[CLOSED_WAYS];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1 << CLOSED_BITS);
	__type(key, __u32);
	__type(value, struct closed_set);
} closed SEC(".maps");

static __always_inline struct closed_set *closed_set(const struct tuple *t)
{
	const __u64 *word = (const __u64 *)t;
	__u64 hash = 0;
	__u32 index;
	__u32 i;

#pragma unroll
	for (i = 0; i < sizeof(*t) / sizeof(*word); i++)
		hash = (hash ^ word[i]) * 0x9e3779b97f4a7c15ULL;
	index = hash >> (64 - CLOSED_BITS);
	return bpf_map_lookup_elem(&closed, &index);
}

/*
 * A place to describe a connection that closes now; its addresses are to be written last,
 * so that no CPU takes it for whole before. Two CPUs that close at once may take the same.
 */
static __always_inline struct closed_connection *
closed_take(const struct tuple *t, __u64 now_ns)
{
	struct closed_set *set = closed_set(t);
	struct closed_connection *place;
	__u32 oldest = 0, i;

	if (!set)
		return NULL;
#pragma unroll
	for (i = 1; i < CLOSED_WAYS; i++)
		if (set->closed_ns[i] < set->closed_ns[oldest])
			oldest = i;
	oldest &= CLOSED_WAYS - 1;
	set->closed_ns[oldest] = now_ns;
	place = &set->ways[oldest];
	*(volatile __u16 *)&place->tuple.local_port = 0;
	return place;
}

static __always_inline __u64 tuple_differs(const struct tuple *a,
					   const struct tuple *b)
{
	const __u64 *x = (const __u64 *)a, *y = (const __u64 *)b;

	return (x[0] ^ y[0]) | (x[1] ^ y[1]) | (x[2] ^ y[2]) | (x[3] ^ y[3]) |
	       (x[4] ^ y[4]);
}

/*
 * Where the connection on these addresses that was closed last is, CLOSED_WAYS if
 * nowhere. Not static: the verifier then looks at it once, and not once for each path.
 */
__noinline __u32 closed_way(const struct tuple *t)
{
	__u32 way = CLOSED_WAYS, i;
	struct closed_set *set;
	__u64 latest_ns = 0;

	if (!t)
		return CLOSED_WAYS;
	set = closed_set(t);
	if (!set)
		return CLOSED_WAYS;
#pragma unroll
	for (i = 0; i < CLOSED_WAYS; i++) {
		if (set->closed_ns[i] <= latest_ns ||
		    tuple_differs(&set->ways[i].tuple, t))
			continue;
		latest_ns = set->closed_ns[i];
		way = i;
	}
	return way;
}

static __always_inline struct earlier *closed_find(const struct tuple *t)
{
	__u32 way = closed_way(t);
	struct closed_set *set;

	if (way >= CLOSED_WAYS)
		return NULL;
	set = closed_set(t);
	return set ? &set->ways[way & (CLOSED_WAYS - 1)].was : NULL;
}

#endif
