/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Counting comes before reserving: totals stay exact when the ring is full, and what
 * the ring could not take is counted as lost.
 */
#ifndef HOLDFAST_EMIT_H
#define HOLDFAST_EMIT_H

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 16 * 1024 * 1024);
} ring SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(max_entries, 8192);
	__type(key, struct tally_key);
	__type(value, __u64);
} tallies SEC(".maps");

enum loss {
	LOSS_RING, /* no room for the record: its detail is lost, its count is not */
	LOSS_TALLY, /* no room for a new key: counted here, without its cause */
	LOSS_CONNECTION, /* no memory to remember a connection's owner */
	LOSS_MAX,
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, LOSS_MAX);
	__type(key, __u32);
	__type(value, __u64);
} losses SEC(".maps");

static __always_inline void loss_count(__u32 what)
{
	__u64 *lost = bpf_map_lookup_elem(&losses, &what);

	if (lost)
		(*lost)++;
}

static __always_inline void tally(const struct tally_key *key)
{
	__u64 *count = bpf_map_lookup_elem(&tallies, key);
	__u64 one = 1;

	if (count) {
		/* Per CPU; a program that interrupts itself is skipped by the kernel. */
		(*count)++;
		return;
	}
	if (bpf_map_update_elem(&tallies, key, &one, BPF_NOEXIST))
		loss_count(LOSS_TALLY);
}

/* A cleared record with its key and time set, or NULL after counting the loss. */
static __always_inline struct event *event_begin(const struct tally_key *key)
{
	struct event *e;

	tally(key);
	e = bpf_ringbuf_reserve(&ring, sizeof(*e), 0);
	if (!e) {
		loss_count(LOSS_RING);
		return NULL;
	}
	/* The ring does not clear memory: an old record would show through. */
	__builtin_memset(e, 0, sizeof(*e));
	e->key = *key;
	e->mono_ns = bpf_ktime_get_ns();
	e->abi = EVENT_ABI;
	return e;
}

static __always_inline void event_submit(struct event *e)
{
	/* User space reads on a timer: a wake-up per record costs more than the record. */
	bpf_ringbuf_submit(e, BPF_RB_NO_WAKEUP);
}

#endif
