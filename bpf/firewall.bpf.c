// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * Reports RSTs that leave this host although its TCP did not send them, and whether a
 * netfilter rule did. Hooks: net_dev_queue (per packet that leaves) and kfree_skb
 * (per dropped packet; 5.17). Cost: a packet of a TCP socket is let go after a few loads.
 */

/* SKB_DROP_REASON_NETFILTER_DROP of this kernel, by name from BTF. */
const volatile int netfilter_drop = -1;

/* A RST has no payload, or a short text (RFC 9293 3.5.3): longer packets are none. */
#define RST_PACKET_MAX 256
/* Between what belongs together on one CPU; an interrupt may come between. */
#define SAME_ANSWER_NS 100000000ULL
/* A RST may wait for the neighbour's address before it leaves. */
#define REJECT_NS 3000000000ULL

#define LOOPBACK_IFINDEX 1

/* What is remembered of a segment that netfilter dropped. */
struct dropped {
	__u64 mono_ns;
	struct process owner;
	struct segment segment;
	__u32 shape;
	__u32 pad;
};

/* Of a firewall's drops the latest: a RST for one of them is its REJECT. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, struct tuple);
	__type(value, struct dropped);
} drops SEC(".maps");

/* The RST that something else than TCP sent last, on this CPU. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct last_reset);
} foreign_reset SEC(".maps");

static __always_inline bool tuple_same(const struct tuple *a,
				       const struct tuple *b)
{
	const __u64 *x = (const __u64 *)a, *y = (const __u64 *)b;

	/* The ports are the last word; the namespace of a forwarded packet may differ. */
	return x[0] == y[0] && x[1] == y[1] && x[2] == y[2] && x[3] == y[3] &&
	       a->local_port == b->local_port && a->peer_port == b->peer_port;
}

static __always_inline void tuple_swap(struct tuple *t)
{
	struct tuple was = *t;

	__builtin_memcpy(t->local, was.peer, 16);
	__builtin_memcpy(t->peer, was.local, 16);
	t->local_port = was.peer_port;
	t->peer_port = was.local_port;
}

static __always_inline void reject_report(const struct tuple *t,
					  const struct dropped *drop)
{
	struct tally_key key = { .kind = KIND_REJECTED, .reason = -1 };
	struct event *e;

	key.netns = t->netns;
	key.shape = drop->shape;
	key.family = drop->segment.version;
	e = event_begin(&key);
	if (!e)
		return;
	event_set_tuple(e, t);
	e->segment = drop->segment;
	e->opener = drop->owner;
	event_submit(e);
}

static __always_inline void foreign_report(const struct tuple *t,
					   const struct segment *s)
{
	struct tally_key key = { .kind = KIND_RST_LEFT, .reason = -1 };
	struct event *e;

	key.netns = t->netns;
	key.shape = segment_shape(s);
	key.family = s->version;
	e = event_begin(&key);
	if (!e)
		return;
	event_set_tuple(e, t);
	e->segment = *s;
	event_submit(e);
}

static __always_inline void rst_left(struct sk_buff *skb)
{
	struct last_reset *passive, *foreign;
	__u64 now = bpf_ktime_get_ns();
	struct segment s = {};
	struct dropped *drop;
	struct tuple t = {};
	__u32 zero = 0;

	if (!packet_segment(skb, &s, &t) || !(s.flags & TCP_FLAG_RST))
		return;
	/* Seen from the end it claims to come from. */
	tuple_swap(&t);
	t.netns = skb_netns(skb);
	passive = bpf_map_lookup_elem(&passive_reset, &zero);
	if (passive && now - passive->mono_ns < SAME_ANSWER_NS &&
	    tuple_same(&passive->tuple, &t)) {
		passive->mono_ns = 0;
		return;
	}
	foreign_report(&t, &s);
	drop = bpf_map_lookup_elem(&drops, &t);
	if (drop && now - drop->mono_ns < REJECT_NS) {
		reject_report(&t, drop);
		bpf_map_delete_elem(&drops, &t);
		return;
	}
	foreign = bpf_map_lookup_elem(&foreign_reset, &zero);
	if (foreign) {
		foreign->tuple = t;
		foreign->mono_ns = now;
	}
}

SEC("tp_btf/net_dev_queue")
int BPF_PROG(segment_left, struct sk_buff *skb)
{
	struct sock *sk = skb->sk;
	__u8 state;

	/* A forwarded packet (it came in by an interface) is not ours. */
	if (skb->len > RST_PACKET_MAX || skb->skb_iif)
		return 0;
	if (sk) {
		state = sk->__sk_common.skc_state;
		if (state == TCP_TIME_WAIT || state == TCP_NEW_SYN_RECV)
			return 0;
		if (sk->sk_protocol == IPPROTO_TCP &&
		    sk->sk_type == SOCK_STREAM)
			return 0;
	}
	if (skb->protocol != bpf_htons(ETH_P_IP) &&
	    skb->protocol != bpf_htons(ETH_P_IPV6))
		return 0;
	rst_left(skb);
	return 0;
}

static __always_inline __u32 route_shape(const struct sk_buff *skb)
{
	struct dst_entry *dst =
		(struct dst_entry *)(BPF_CORE_READ(skb, _skb_refdst) &
				     SKB_DST_PTRMASK);

	/* A route to this host itself leads to the loopback device. */
	if (!dst || BPF_CORE_READ(dst, dev, ifindex) == LOOPBACK_IFINDEX)
		return 0;
	return SHAPE_FORWARDED;
}

/* Whose connection it was: a segment for an established socket has found it by now. */
static __always_inline void drop_owner(struct sk_buff *skb,
				       struct dropped *drop)
{
	struct sock *sk = skb->sk;
	struct connection *c;

	if (!sk || sk->__sk_common.skc_state != TCP_ESTABLISHED)
		return;
	c = bpf_sk_storage_get(&connections, sk, NULL, 0);
	if (c)
		drop->owner = c->opener;
}

SEC("tp_btf/kfree_skb")
int BPF_PROG(segment_dropped, struct sk_buff *skb, void *location, int reason)
{
	struct last_reset *foreign;
	struct dropped drop = {};
	struct tuple t = {};
	__u32 zero = 0;

	if (reason != netfilter_drop || !packet_segment(skb, &drop.segment, &t))
		return 0;
	t.netns = skb_netns(skb);
	drop.mono_ns = bpf_ktime_get_ns();
	drop.shape = segment_shape(&drop.segment) | route_shape(skb);
	drop_owner(skb, &drop);
	/* REJECT sends its RST first and drops the segment next, on the same CPU ... */
	foreign = bpf_map_lookup_elem(&foreign_reset, &zero);
	if (foreign && drop.mono_ns - foreign->mono_ns < SAME_ANSWER_NS &&
	    tuple_same(&foreign->tuple, &t)) {
		foreign->mono_ns = 0;
		reject_report(&t, &drop);
		return 0;
	}
	/* ... unless the RST has to wait: then rst_left() finds this. */
	bpf_map_update_elem(&drops, &t, &drop, BPF_ANY);
	return 0;
}
