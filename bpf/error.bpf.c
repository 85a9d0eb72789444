// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * Reports the error a socket is left with: timeouts and ICMP answers send no RST, so
 * this is all there is to see. Hook: inet_sk_error_report (5.14). Cost: per error only.
 */

/*
 * During connect() the socket is locked and an ICMP answer cannot set sk_err: the error is
 * only in the queue when this hook runs, and connect() fails with it (IPv4).
 */
static __always_inline __u16 queued_error(const struct sock *sk)
{
	const struct sk_buff *last = BPF_CORE_READ(sk, sk_error_queue.prev);
	const struct sock_exterr_skb *report;

	if (!last || (void *)last == (void *)&sk->sk_error_queue)
		return 0;
	report = (const void *)last->cb;
	return BPF_CORE_READ(report, ee.ee_errno);
}

/*
 * tcp_done_with_error() (6.10) wakes the program before it reports: one that polls
 * SO_ERROR, which takes no lock, may have cleared sk_err by then.
 */
static __always_inline __u16 taken_error(const struct connection *c)
{
	return c ? c->error : 0;
}

SEC("tp_btf/inet_sk_error_report")
int BPF_PROG(error_reported, struct sock *sk)
{
	struct tally_key key = { .kind = KIND_ERROR, .reason = -1 };
	struct connection *c;
	struct tuple t = {};
	struct event *e;

	if (sk->sk_protocol != IPPROTO_TCP)
		return 0;
	c = bpf_sk_storage_get(&connections, sk, NULL, 0);
	key.state = sk->__sk_common.skc_state;
	key.error = sk->sk_err;
	if (!key.error && key.state == TCP_SYN_SENT)
		key.error = queued_error(sk);
	if (!key.error && key.state == TCP_CLOSE)
		key.error = taken_error(c);
	/* tcp_disconnect() reports once more, when it has cleared all. */
	if (c)
		c->error = 0;
	if (!key.error)
		return 0;
	key.netns = sock_netns(sk);
	key.shape = sock_shape((__u64)untyped(ctx, 0));
	if (c)
		key_set_connection(&key, c);
	e = event_begin(&key);
	if (!e)
		return 0;
	sock_tuple(sk, &t);
	event_set_tuple(e, &t);
	event_set_sock(e, sk);
	e->cookie = bpf_get_socket_cookie(sk);
	if (c)
		event_set_connection(e, c);
	event_submit(e);
	return 0;
}
