// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * What segment.bpf.c learns from every packet, learnt where the kernel has the segment in
 * its hands anyway. Hooks: fentry (5.5; tcp_reset with its segment 5.11), where the
 * kernel allows it. Cost: none per packet.
 */
/* Reasons of this kernel to drop a segment, by name from BTF. */
const volatile int no_socket_drop = -1;
const volatile int foreign_drop = -1;	/* netfilter */
const volatile int in_window_drop = -1; /* answered by a challenge ACK */

SEC("fentry/tcp_reset")
int BPF_PROG(reset_entered, struct sock *sk, struct sk_buff *skb)
{
	struct segment s = {};
	struct connection *c;
	struct tuple t = {};

	/* T1: also called when data came after close; then skb is no RST. */
	if (!received_segment(untyped(ctx, 1), &s, &t) ||
	    !(s.flags & TCP_FLAG_RST))
		return 0;
	c = bpf_sk_storage_get(&connections, sk, NULL,
			       BPF_SK_STORAGE_GET_F_CREATE);
	if (!c)
		return 0;
	c->rst = s;
	c->rst_ns = bpf_ktime_get_ns();
	return 0;
}

static __always_inline void baseline_note(void *ctx, int skb, struct sock *sk)
{
	struct connection *c = bpf_sk_storage_get(&connections, sk, NULL, 0);
	struct segment s = {};
	struct tuple t = {};

	if (c && received_segment(untyped(ctx, skb), &s, &t))
		c->baseline_ttl = s.ttl;
}

/* The SYN-ACK for a connection we dial. */
SEC("fentry/tcp_finish_connect")
int BPF_PROG(connect_finished, struct sock *sk, struct sk_buff *skb)
{
	baseline_note(ctx, 1, sk);
	return 0;
}

/* The ACK that makes a connection out of a request, given to the new socket. */
SEC("fentry/tcp_child_process")
int BPF_PROG(connection_accepted, struct sock *listener, struct sock *child,
	     struct sk_buff *skb)
{
	baseline_note(ctx, 2, child);
	return 0;
}

/* A RST that TCP drops, having a socket for it, is one that it did not obey. */
SEC("tp_btf/kfree_skb")
int BPF_PROG(rst_dropped, struct sk_buff *skb, void *location, int reason)
{
	struct tally_key key = { .kind = KIND_RST_ARRIVED, .reason = -1 };
	struct segment s = {};
	struct tuple t = {};
	struct event *e;

	if (reason == no_socket_drop || reason == foreign_drop ||
	    !packet_segment(skb, &s, &t) || !(s.flags & TCP_FLAG_RST))
		return 0;
	key.netns = skb_netns(skb);
	if (!key.netns)
		return 0;
	key.family = s.version;
	key.shape = segment_shape(&s);
	if (reason == in_window_drop)
		key.shape |= SHAPE_IN_WINDOW;
	e = event_begin(&key);
	if (!e)
		return 0;
	event_set_tuple(e, &t);
	e->segment = s;
	e->drop_reason = reason;
	event_submit(e);
	return 0;
}
