/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * What all variants of the hook on sent resets share: gathering the deciding facts and the
 * record. Arguments are plain addresses, see untyped().
 */
#ifndef HOLDFAST_SENT_H
#define HOLDFAST_SENT_H

/* The RST that TCP is about to send in answer to a segment, on this CPU. */
struct last_reset {
	struct tuple tuple;
	__u64 mono_ns;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct last_reset);
} passive_reset SEC(".maps");

static __always_inline __u32 earlier_shape(const struct earlier *was)
{
	__u32 shape = SHAPE_EARLIER;

	if (was->bytes_sent && was->bytes_received)
		shape |= SHAPE_EARLIER_SERVED;
	if (was->idle_ticks >= idle_ticks)
		shape |= SHAPE_EARLIER_IDLE;
	return shape;
}

/* For untyped hooks: what is known of a socket, by its address. */
static __always_inline struct connection *connection_of(const struct sock *sk)
{
	__u64 address = (__u64)sk;

	return sk ? bpf_map_lookup_elem(&sockets, &address) : NULL;
}

/* The bits that only a passive reset in these two states can have. */
__noinline __u32 handshake_shape(__u64 address, __u32 state, __u32 ack)
{
	const struct sock *sk = (const struct sock *)address;
	struct tcp_sock *tp = tcp_of(sk);
	__u32 una;

	/* sk_acceptq_is_full() */
	if (state == TCP_LISTEN &&
	    BPF_CORE_READ(sk, sk_ack_backlog) >
		    BPF_CORE_READ(sk, sk_max_ack_backlog))
		return SHAPE_QUEUE_FULL;
	if (state != TCP_SYN_SENT)
		return 0;
	/* RFC 9293 3.10.7.3: SND.UNA < SEG.ACK =< SND.NXT */
	una = BPF_CORE_READ(tp, snd_una);
	return ack - una - 1 < BPF_CORE_READ(tp, snd_nxt) - una ?
		       SHAPE_ACKS_US :
		       0;
}

static __always_inline void passive_remember(const struct tuple *t)
{
	struct last_reset *last;
	__u32 zero = 0;

	last = bpf_map_lookup_elem(&passive_reset, &zero);
	if (!last)
		return;
	last->tuple = *t;
	last->mono_ns = bpf_ktime_get_ns();
}

/* Everything but the stacks, which only an active reset needs. */
static __always_inline struct event *reset_begin(const struct sock *sk,
						 const struct sk_buff *skb,
						 int reason,
						 struct connection *c)
{
	struct tally_key key = { .kind = KIND_RESET_SENT, .reason = reason };
	struct earlier *was = NULL;
	struct segment s = {};
	struct tuple t = {};
	bool full = false;
	struct event *e;

	if (sk) {
		key.state = BPF_CORE_READ(sk, __sk_common.skc_state);
		key.netns = sock_netns(sk);
		/* A TIME_WAIT or request mini-socket has none of the fields below. */
		full = key.state != TCP_TIME_WAIT &&
		       key.state != TCP_NEW_SYN_RECV;
	}
	if (skb) {
		received_segment(skb, &s, &t);
		key.shape |= segment_shape(&s);
		if (!key.netns)
			key.netns = skb_netns(skb);
		t.netns = key.netns;
		passive_remember(&t);
		/* A listener answers for connections that are gone, too. */
		if (!full || key.state == TCP_LISTEN) {
			was = closed_find(&t);
			if (was)
				key.shape |= earlier_shape(was);
		}
	} else if (sk) {
		sock_tuple(sk, &t);
	}
	if (full)
		key.shape |= sock_shape((__u64)sk);
	if (full && skb)
		key.shape |= handshake_shape((__u64)sk, key.state, s.ack);
	/* In a timer or softirq, current is whoever was interrupted (T4). */
	if (!skb && key.shape & (SHAPE_OWNED | SHAPE_UNACCEPTED) &&
	    BPF_CORE_READ((struct task_struct *)bpf_get_current_task(), flags) &
		    PF_EXITING)
		key.shape |= SHAPE_EXITING;
	if (c)
		key_set_connection(&key, c);
	key.family = s.version;
	e = event_begin(&key);
	if (!e)
		return NULL;
	event_set_tuple(e, &t);
	e->segment = s;
	if (was)
		e->earlier = *was;
	if (full && key.state != TCP_LISTEN)
		event_set_sock(e, sk);
	if (c)
		event_set_connection(e, c);
	return e;
}

static __always_inline void reset_end(void *ctx, struct event *e,
				      const struct sk_buff *skb)
{
	if (!skb) {
		bpf_get_stack(ctx, e->kernel_stack, sizeof(e->kernel_stack), 0);
		if (e->key.shape & (SHAPE_OWNED | SHAPE_UNACCEPTED)) {
			if (current_is_process())
				current_process(&e->closer);
			bpf_get_stack(ctx, e->user_stack, sizeof(e->user_stack),
				      BPF_F_USER_STACK);
		}
	}
	event_submit(e);
}

#endif
