// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * Reports each RST that this host's TCP sends. Hook: tcp_send_reset (4.15; with a reason
 * since 6.10) in the variant that this kernel takes safely. Cost: per reset only.
 */

static __always_inline bool sock_is_full(const struct sock *sk)
{
	__u8 state = BPF_CORE_READ(sk, __sk_common.skc_state);

	return state != TCP_TIME_WAIT && state != TCP_NEW_SYN_RECV;
}

/* 6.14 and later: below, the verifier takes sk and skb for never NULL (T10). */
SEC("tp_btf/tcp_send_reset")
int BPF_PROG(reset_sent, struct sock *sk, struct sk_buff *skb, int reason)
{
	struct connection *c = NULL;
	struct event *e;
	__u64 cookie = 0;

	if (sk && sock_is_full(sk)) {
		c = bpf_sk_storage_get(&connections, sk, NULL, 0);
		cookie = bpf_get_socket_cookie(sk);
	}
	e = reset_begin(untyped(ctx, 0), untyped(ctx, 1), reason, c);
	if (!e)
		return 0;
	e->cookie = cookie;
	reset_end(ctx, e, skb);
	return 0;
}

/* 6.10 to 6.13: untyped arguments, read by probe only. */
SEC("raw_tp/tcp_send_reset")
int reset_sent_untyped(struct bpf_raw_tracepoint_args *ctx)
{
	struct sock *sk = (struct sock *)ctx->args[0];
	struct sk_buff *skb = (struct sk_buff *)ctx->args[1];
	struct event *e = reset_begin(sk, skb, ctx->args[2], connection_of(sk));

	if (!e)
		return 0;
	if (sk)
		e->cookie = BPF_CORE_READ(sk, __sk_common.skc_cookie.counter);
	reset_end(ctx, e, skb);
	return 0;
}

/* 4.15 to 6.9: no reason, and only for full sockets. */
SEC("raw_tp/tcp_send_reset")
int reset_sent_unreasoned(struct bpf_raw_tracepoint_args *ctx)
{
	struct sock *sk = (struct sock *)ctx->args[0];
	struct event *e;

	/* The passive ones come through passive_sent_v4 and _v6, complete. */
	if (!sk || ctx->args[1])
		return 0;
	e = reset_begin(sk, NULL, -1, connection_of(sk));
	if (!e)
		return 0;
	e->cookie = BPF_CORE_READ(sk, __sk_common.skc_cookie.counter);
	reset_end(ctx, e, NULL);
	return 0;
}

/* Whether the segment has RST set: the kernel answers none, and says so after this hook. */
static __always_inline bool is_rst(const struct sk_buff *skb)
{
	const unsigned char *tcp =
		BPF_CORE_READ(skb, head) + BPF_CORE_READ(skb, transport_header);
	__u8 flags = 0;

	bpf_probe_read_kernel(&flags, sizeof(flags),
			      tcp + offsetof(struct tcp_header, flags));
	return flags & TCP_FLAG_RST;
}

static __always_inline void passive_sent(unsigned long long *ctx,
					 struct sock *sk, struct sk_buff *skb)
{
	struct connection *c = NULL;
	struct event *e;

	if (is_rst(untyped(ctx, 1)))
		return;
	if (sk && sock_is_full(sk))
		c = bpf_sk_storage_get(&connections, sk, NULL, 0);
	e = reset_begin(untyped(ctx, 0), untyped(ctx, 1), -1, c);
	if (e)
		reset_end(ctx, e, skb);
}

/* Below 6.10 the tracepoint is silent without a full socket; these functions are not. */
SEC("fentry/tcp_v4_send_reset")
int BPF_PROG(passive_sent_v4, struct sock *sk, struct sk_buff *skb)
{
	passive_sent(ctx, sk, skb);
	return 0;
}

SEC("fentry/tcp_v6_send_reset")
int BPF_PROG(passive_sent_v6, struct sock *sk, struct sk_buff *skb)
{
	passive_sent(ctx, sk, skb);
	return 0;
}
