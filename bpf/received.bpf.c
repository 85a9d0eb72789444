// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * Reports each reset that a socket of this host obeys. Hook: tcp_receive_reset (4.15),
 * typed: its socket is never NULL. Cost: per reset only.
 */

/* A RST that arrived this long ago or earlier did not cause the reset at hand. */
#define RST_FRESH_NS 2000000000ULL

SEC("tp_btf/tcp_receive_reset")
int BPF_PROG(reset_received, struct sock *sk)
{
	struct tally_key key = { .kind = KIND_RESET_RECEIVED, .reason = -1 };
	const struct segment *rst = NULL;
	struct connection *c;
	struct tuple t = {};
	struct event *e;

	c = bpf_sk_storage_get(&connections, sk, NULL, 0);
	key.state = sk->__sk_common.skc_state;
	key.netns = sock_netns(sk);
	key.shape = sock_shape((__u64)untyped(ctx, 0));
	if (c) {
		key_set_connection(&key, c);
		if (c->rst_ns && bpf_ktime_get_ns() - c->rst_ns < RST_FRESH_NS)
			rst = &c->rst;
	}
	if (rst)
		key.shape |= segment_shape(rst);
	else if (segments)
		/* T1: tcp_reset() also runs when data arrives after close. */
		key.kind = KIND_SELF_RESET;
	e = event_begin(&key);
	if (!e)
		return 0;
	sock_tuple(sk, &t);
	event_set_tuple(e, &t);
	event_set_sock(e, sk);
	e->cookie = bpf_get_socket_cookie(sk);
	if (rst)
		e->segment = *rst;
	if (c)
		event_set_connection(e, c);
	event_submit(e);
	return 0;
}
