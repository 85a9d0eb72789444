// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * Remembers who opened each connection, who closed it, and what it was when it was closed.
 * Hook: inet_sock_set_state (4.16), typed: its socket is never NULL. It is called
 * about five times per socket and decides in a few loads whether there is work.
 * Cost: published by `make bench`; for it, fields are read by plain loads, which a typed
 * pointer allows, and not by probe.
 */

/*
 * The segment that a listener got last, on this CPU: when a connection is established, it
 * is the ACK that made it so, for nothing else is received in between.
 */
struct last_greeting {
	__u16 local_port, peer_port;
	__u8 ttl;
	__u8 pad[3];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct last_greeting);
} last_greeting SEC(".maps");

const volatile bool segments = true;
/* Silence after which closing counts as closing an idle connection, in jiffies. */
const volatile __u32 idle_ticks = 25;

static __always_inline void connection_index(struct sock *sk,
					     const struct connection *c)
{
	__u64 address = (__u64)sk;

	if (!index_sockets)
		return;
	/* An untyped hook can read a cookie, but not have one made. */
	bpf_get_socket_cookie(sk);
	bpf_map_update_elem(&sockets, &address, c, BPF_ANY);
}

static __always_inline void connection_open(struct sock *sk)
{
	struct connection *c;

	c = bpf_sk_storage_get(&connections, sk, NULL,
			       BPF_SK_STORAGE_GET_F_CREATE);
	if (!c) {
		loss_count(LOSS_CONNECTION);
		return;
	}
	/* A socket may be dialled again after a failure: forget the last one. */
	__builtin_memset(c, 0, sizeof(*c));
	/* connect() and listen() run in the process that asked. */
	current_process(&c->opener);
	c->opened_ns = bpf_ktime_get_ns();
	connection_index(sk, c);
}

/* sock_tuple() by plain loads. */
static __always_inline void typed_tuple(const struct tcp_sock *tp,
					struct tuple *t)
{
	const struct inet_sock *inet = &tp->inet_conn.icsk_inet;
	const struct sock_common *common = &inet->sk.__sk_common;
	__be32 four;

	t->netns = common->skc_net.net->ns.inum;
	t->local_port = bpf_ntohs(inet->inet_sport);
	t->peer_port = bpf_ntohs(common->skc_dport);
	if (common->skc_family == AF_INET6) {
		BPF_CORE_READ_INTO(&t->local, common, skc_v6_rcv_saddr);
		BPF_CORE_READ_INTO(&t->peer, common, skc_v6_daddr);
		return;
	}
	four = inet->inet_saddr;
	address_of_ipv4(t->local, &four);
	four = common->skc_daddr;
	address_of_ipv4(t->peer, &four);
}

/* The TTL of the segment that completed this accepted connection's handshake. */
static __always_inline void baseline_take(struct sock *sk, struct connection *c)
{
	struct last_greeting *last;
	__u32 zero = 0;

	last = bpf_map_lookup_elem(&last_greeting, &zero);
	if (!last || last->peer_port != bpf_ntohs(sk->__sk_common.skc_dport) ||
	    last->local_port != sk->__sk_common.skc_num)
		return;
	c->baseline_ttl = last->ttl;
}

static __always_inline void connection_established(struct sock *sk, int before)
{
	struct connection *c = bpf_sk_storage_get(&connections, sk, NULL, 0);

	if (!c)
		return;
	c->established_ns = bpf_ktime_get_ns();
	if (before == TCP_SYN_RECV) {
		c->opened_ns = c->established_ns;
		if (segments)
			baseline_take(sk, c);
	}
	connection_index(sk, c);
}

/*
 * close() and shutdown() hold the socket's lock while they change its state, and so does
 * nothing that a softirq runs.
 */
static __always_inline void closer_take(const struct sock *sk,
					struct connection *c)
{
	struct task_struct *task = bpf_get_current_task_btf();

	if (!sk->sk_lock.owned || task->flags & PF_KTHREAD)
		return;
	c->exiting = !!(task->flags & PF_EXITING);
	/* Mostly it is who opened it: describing a process costs most of all this. */
	if ((__u32)task->tgid != c->opener.pid)
		task_process(task, &c->closer);
}

/* Our FIN is due: by the process that closes, mostly a worker that did not open it. */
static __always_inline void connection_shut(struct sock *sk)
{
	struct connection *c = bpf_sk_storage_get(&connections, sk, NULL,
						  BPF_SK_STORAGE_GET_F_CREATE);

	if (!c)
		return;
	closer_take(sk, c);
	connection_index(sk, c);
}

static __always_inline void closed_remember(struct sock *sk,
					    const struct connection *c)
{
	struct tcp_sock *tp = bpf_skc_to_tcp_sock(sk);
	struct closed_connection *place;
	__u64 now_ns = bpf_ktime_get_ns();
	__u32 sent, received;
	struct tuple t = {};

	if (!tp)
		return;
	typed_tuple(tp, &t);
	place = closed_take(&t, now_ns);
	if (!place)
		return;
	sent = ticks_since(tp->lsndtime);
	received = ticks_since(tp->inet_conn.icsk_ack.lrcvtime);
	place->was.closed_ns = now_ns;
	place->was.owner = c->closer.pid ? c->closer : c->opener;
	place->was.opener.pid = 0;
	if (c->closer.pid && c->closer.pid != c->opener.pid)
		place->was.opener = c->opener;
	place->was.exiting = c->exiting;
	place->was.bytes_sent = tp->bytes_sent - tp->bytes_retrans;
	place->was.bytes_received = tp->bytes_received;
	place->was.idle_ticks = sent < received ? sent : received;
	place->was.error = sk->sk_err;
	place->was.state_before = c->state_before;
	barrier();
	place->tuple = t;
}

static __always_inline void connection_closed(struct sock *sk, int before)
{
	struct connection *c = bpf_sk_storage_get(&connections, sk, NULL, 0);

	if (!c)
		return;
	c->state_before = before;
	c->error = sk->sk_err;
	/* close() that sends no FIN; ss -K and its like do not shut a socket before (tcp_abort). */
	if (!c->closer.pid && sk->sk_shutdown == SHUTDOWN_MASK)
		closer_take(sk, c);
	connection_index(sk, c);
	if (before != TCP_LISTEN)
		closed_remember(sk, c);
}

SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(state_changed, struct sock *sk, int before, int after)
{
	if (after != TCP_CLOSE && after != TCP_SYN_SENT &&
	    after != TCP_LISTEN && after != TCP_ESTABLISHED &&
	    after != TCP_FIN_WAIT1 && after != TCP_LAST_ACK)
		return 0;
	if (sk->sk_protocol != IPPROTO_TCP)
		return 0;
	if (after == TCP_CLOSE)
		connection_closed(sk, before);
	else if (after == TCP_ESTABLISHED)
		connection_established(sk, before);
	else if (after == TCP_FIN_WAIT1 || after == TCP_LAST_ACK)
		connection_shut(sk);
	else
		connection_open(sk);
	return 0;
}
