/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Reading facts out of sockets and tasks, and what is remembered of each connection.
 * Sockets are read by probe, which is safe for typed and untyped hooks alike.
 */
#ifndef HOLDFAST_SOCKET_H
#define HOLDFAST_SOCKET_H

/* What is remembered about a connection while its socket lives. */
struct connection {
	struct process opener;
	struct process
		closer; /* nobody until a call of another process ends it */
	__u64 opened_ns, established_ns;
	__u64 rst_ns; /* when segment arrived; 0 is never */
	struct segment rst;
	__u8 state_before;
	__u8 baseline_ttl;
	__u8 exiting; /* the closer was in do_exit */
	__u8 pad;
	__u16 error; /* sk_err when it was closed */
	__u8 pad2[2];
};

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	/* CLONE: an accepted socket starts with what its listener knew. */
	__uint(map_flags, BPF_F_NO_PREALLOC | BPF_F_CLONE);
	__type(key, int);
	__type(value, struct connection);
} connections SEC(".maps");

/* Set where hooks are untyped and cannot reach socket storage (below 6.14). */
const volatile bool index_sockets = false;

/* The same by the socket's address. Closing refreshes it, just before a reset. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, __u64);
	__type(value, struct connection);
} sockets SEC(".maps");

struct tuple {
	__u8 local[16], peer[16];
	__u32 netns;
	__u16 local_port, peer_port;
} __attribute__((aligned(8))); /* hashed and compared by words */

static __always_inline struct tcp_sock *tcp_of(const struct sock *sk)
{
	return (struct tcp_sock *)sk;
}

static __always_inline void address_of_ipv4(__u8 *out, const void *four)
{
	__builtin_memset(out, 0, 10);
	out[10] = out[11] = 0xff;
	__builtin_memcpy(out + 12, four, 4);
}

static __always_inline __u32 sock_netns(const struct sock *sk)
{
	return BPF_CORE_READ(sk, __sk_common.skc_net.net, ns.inum);
}

/* include/linux/skbuff.h: the lowest bit says whether a reference is held. */
#define SKB_DST_PTRMASK ~1UL

static __always_inline struct dst_entry *skb_dst(const struct sk_buff *skb)
{
	return (struct dst_entry *)(BPF_CORE_READ(skb, _skb_refdst) &
				    SKB_DST_PTRMASK);
}

/* TCP clears skb->dev once it has found the socket; the route still leads to the namespace. */
static __always_inline __u32 skb_netns(const struct sk_buff *skb)
{
	struct net_device *dev = BPF_CORE_READ(skb, dev);

	if (!dev)
		dev = BPF_CORE_READ(skb_dst(skb), dev);
	return BPF_CORE_READ(dev, nd_net.net, ns.inum);
}

static __always_inline void sock_tuple(const struct sock *sk, struct tuple *t)
{
	struct inet_sock *inet = (struct inet_sock *)sk;
	__be32 four;

	t->netns = sock_netns(sk);
	/* skc_num is 0 once an unbound socket is closed; inet_sport survives (T6). */
	t->local_port = bpf_ntohs(BPF_CORE_READ(inet, inet_sport));
	t->peer_port = bpf_ntohs(BPF_CORE_READ(sk, __sk_common.skc_dport));
	if (BPF_CORE_READ(sk, __sk_common.skc_family) == AF_INET6) {
		BPF_CORE_READ_INTO(&t->local, sk, __sk_common.skc_v6_rcv_saddr);
		BPF_CORE_READ_INTO(&t->peer, sk, __sk_common.skc_v6_daddr);
		return;
	}
	four = BPF_CORE_READ(inet, inet_saddr);
	address_of_ipv4(t->local, &four);
	four = BPF_CORE_READ(sk, __sk_common.skc_daddr);
	address_of_ipv4(t->peer, &four);
}

static __always_inline void task_process(struct task_struct *task,
					 struct process *p)
{
	p->pid = task->tgid;
	p->uid = task->cred->uid.val;
	p->cgroup_id = task->cgroups->dfl_cgrp->kn->id;
	BPF_CORE_READ_INTO(&p->comm, task, group_leader, comm);
}

static __always_inline void current_process(struct process *p)
{
	task_process(bpf_get_current_task_btf(), p);
}

/* Whether current is a process: a kernel thread works for somebody else. */
static __always_inline bool current_is_process(void)
{
	return !(bpf_get_current_task_btf()->flags & PF_KTHREAD);
}

/*
 * An argument of a typed hook as a plain address. Facts are read from it by probe; the
 * typed pointer is for helpers that take a socket.
 */
static __always_inline void *untyped(unsigned long long *ctx, int argument)
{
	void *address = NULL;

	bpf_probe_read_kernel(&address, sizeof(address), &ctx[argument]);
	return address;
}

/*
 * The bits a socket adds. Global, so that the verifier follows its branches once and not
 * in every combination with the caller's: inlined it finds more than a million.
 */
__noinline __u32 sock_shape(__u64 address)
{
	const struct sock *sk = (const struct sock *)address;
	unsigned long flags = BPF_CORE_READ(sk, __sk_common.skc_flags);
	struct tcp_sock *tp = tcp_of(sk);
	__u32 shape = SHAPE_SOCKET;

	if (flags & (1UL << SOCK_LINGER) && !BPF_CORE_READ(sk, sk_lingertime))
		shape |= SHAPE_LINGER_ZERO;
	if (BPF_CORE_READ(tp, linger2) < 0)
		shape |= SHAPE_LINGER2_NEGATIVE;
	if (flags & (1UL << SOCK_DEAD))
		shape |= SHAPE_ORPHANED;
	else if (!BPF_CORE_READ(sk, sk_socket))
		shape |= SHAPE_UNACCEPTED;
	if (BPF_CORE_READ(sk, sk_lock.owned))
		shape |= SHAPE_OWNED;
	if (BPF_CORE_READ(sk, sk_shutdown) == SHUTDOWN_MASK)
		shape |= SHAPE_SHUTDOWN;
	if (BPF_CORE_READ(tp, is_mptcp))
		shape |= SHAPE_MPTCP;
	if (BPF_CORE_READ(tp, inet_conn.icsk_user_timeout))
		shape |= SHAPE_USER_TIMEOUT;
	if (BPF_CORE_READ(tp, snd_nxt) != BPF_CORE_READ(tp, snd_una))
		shape |= SHAPE_UNACKED;
	return shape;
}

static __always_inline void event_set_tuple(struct event *e,
					    const struct tuple *t)
{
	__builtin_memcpy(e->local, t->local, 16);
	__builtin_memcpy(e->peer, t->peer, 16);
	e->local_port = t->local_port;
	e->peer_port = t->peer_port;
}

/* Jiffies since then, ~0 if it never was: 0 is what the kernel starts with. */
static __always_inline __u32 ticks_since(__u32 then)
{
	return then ? (__u32)bpf_jiffies64() - then : ~0U;
}

static __always_inline void event_set_sock(struct event *e,
					   const struct sock *sk)
{
	struct tcp_sock *tp = tcp_of(sk);
	__u32 write_seq = BPF_CORE_READ(tp, write_seq);

	e->snd_nxt = BPF_CORE_READ(tp, snd_nxt);
	e->snd_una = BPF_CORE_READ(tp, snd_una);
	e->rcv_nxt = BPF_CORE_READ(tp, rcv_nxt);
	e->rcv_wnd = BPF_CORE_READ(tp, rcv_wnd);
	/* close() flushes the receive queue before it resets, but not COPIED_SEQ. */
	e->unread_bytes = e->rcv_nxt - BPF_CORE_READ(tp, copied_seq);
	e->unsent_bytes = write_seq - e->snd_nxt;
	e->unacked_bytes = e->snd_nxt - e->snd_una;
	e->bytes_sent = BPF_CORE_READ(tp, bytes_sent) -
			BPF_CORE_READ(tp, bytes_retrans);
	e->bytes_received = BPF_CORE_READ(tp, bytes_received);
	/* srtt_us is stored times 8 (include/linux/tcp.h). */
	e->srtt_us = BPF_CORE_READ(tp, srtt_us) >> 3;
	e->min_rtt_us = BPF_CORE_READ(tp, rtt_min.s[0].v);
	e->send_ago_ticks = ticks_since(BPF_CORE_READ(tp, lsndtime));
	e->receive_ago_ticks =
		ticks_since(BPF_CORE_READ(tp, inet_conn.icsk_ack.lrcvtime));
	e->user_timeout_ms = BPF_CORE_READ(tp, inet_conn.icsk_user_timeout);
	e->retransmits = BPF_CORE_READ(tp, inet_conn.icsk_retransmits);
	e->probes = BPF_CORE_READ(tp, inet_conn.icsk_probes_out);
	e->shutdown = BPF_CORE_READ(sk, sk_shutdown);
}

static __always_inline void key_set_connection(struct tally_key *key,
					       const struct connection *c)
{
	key->state_before = c->state_before;
	if (c->established_ns)
		key->shape |= SHAPE_ESTABLISHED;
	if (c->exiting)
		key->shape |= SHAPE_EXITING;
}

static __always_inline void event_set_connection(struct event *e,
						 const struct connection *c)
{
	e->opener = c->opener;
	e->closer = c->closer;
	e->opened_ns = c->opened_ns;
	e->established_ns = c->established_ns;
	e->baseline_ttl = c->baseline_ttl;
}

#endif
