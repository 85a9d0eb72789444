// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * Reports RSTs that reach a socket, obeyed or not, and notes the TTL of handshakes.
 * Hook: cgroup_skb/ingress at the root of the cgroup v2 tree: it sees the socket too.
 * Cost: per packet, one look at the flags; `--no-segments` leaves it out.
 */

#define IPPROTO_HOPOPTS 0
#define IPPROTO_ROUTING 43
#define IPPROTO_DSTOPTS 60
#define EXTENSION_HEADERS_MAX 4

#define TCPOPT_NOP 1
#define TCPOPT_TIMESTAMP 8
#define OPTIONS_MAX 40

static __always_inline bool has_timestamp(struct __sk_buff *skb, __u32 at,
					  __u32 bytes)
{
	__u8 o[4];

	/* Linux writes NOP NOP TIMESTAMP 10; others may begin with it. */
	if (bytes < 10 || bpf_skb_load_bytes(skb, at, o, sizeof(o)))
		return false;
	return o[0] == TCPOPT_TIMESTAMP ||
	       (o[0] == TCPOPT_NOP && o[1] == TCPOPT_NOP &&
		o[2] == TCPOPT_TIMESTAMP);
}

static __always_inline void payload_read(struct __sk_buff *skb, __u32 at,
					 struct segment *s)
{
	__u32 bytes = s->payload_bytes;

	if (!bytes)
		return;
	if (bytes > PAYLOAD_BYTES)
		bytes = PAYLOAD_BYTES;
	/*
	 * 1 to 32, in a form in which 6.1's verifier sees both bounds and the
	 * compiler does not optimise the mask away.
	 */
	bytes--;
	barrier_var(bytes);
	bytes &= PAYLOAD_BYTES - 1;
	bpf_skb_load_bytes(skb, at, s->payload, bytes + 1);
}

/* Offset of the TCP header, 0 if this is not TCP. */
static __always_inline __u32 tcp_offset(struct __sk_buff *skb)
{
	void *data = (void *)(long)skb->data;
	void *end = (void *)(long)skb->data_end;
	struct ipv4_header *v4 = data;
	struct ipv6_header *v6 = data;
	__u32 at = sizeof(*v6);
	__u8 next, part[2];
	int i;

	if ((void *)(v4 + 1) > end)
		return 0;
	if (v4->version_ihl >> 4 == 4)
		return v4->protocol == IPPROTO_TCP ?
			       (v4->version_ihl & 15) * 4 :
			       0;
	if ((void *)(v6 + 1) > end)
		return 0;
	next = v6->next_header;
	for (i = 0; i < EXTENSION_HEADERS_MAX; i++) {
		if (next == IPPROTO_TCP)
			return at;
		if (next != IPPROTO_HOPOPTS && next != IPPROTO_ROUTING &&
		    next != IPPROTO_DSTOPTS)
			return 0;
		if (bpf_skb_load_bytes(skb, at, part, sizeof(part)))
			return 0;
		next = part[0];
		at += (part[1] + 1) * 8;
	}
	return 0;
}

/* The segment in `skb`, whose TCP header is at `at`; the tuple as its receiver sees it. */
static __always_inline bool arrived_segment(struct __sk_buff *skb, __u32 at,
					    struct segment *s, struct tuple *t)
{
	struct ipv6_header v6;
	struct ipv4_header v4;
	struct tcp_header tcp;
	__u32 headers;

	if (bpf_skb_load_bytes(skb, 0, &v4, sizeof(v4)) ||
	    bpf_skb_load_bytes(skb, at, &tcp, sizeof(tcp)))
		return false;
	if (v4.version_ihl >> 4 == 4) {
		s->version = 4;
		s->ttl = v4.ttl;
		s->ip_id = bpf_ntohs(v4.id);
		address_of_ipv4(t->local, v4.destination);
		address_of_ipv4(t->peer, v4.source);
	} else {
		if (bpf_skb_load_bytes(skb, 0, &v6, sizeof(v6)))
			return false;
		s->version = 6;
		s->ttl = v6.hop_limit;
		__builtin_memcpy(t->local, v6.destination, 16);
		__builtin_memcpy(t->peer, v6.source, 16);
	}
	t->local_port = bpf_ntohs(tcp.destination);
	t->peer_port = bpf_ntohs(tcp.source);
	s->seq = bpf_ntohl(tcp.seq);
	s->ack = bpf_ntohl(tcp.ack);
	s->flags = tcp.flags;
	s->window = bpf_ntohs(tcp.window);
	s->options_bytes = (tcp.offset >> 4) * 4 - sizeof(tcp);
	headers = at + sizeof(tcp) + s->options_bytes;
	s->payload_bytes = skb->len > headers ? skb->len - headers : 0;
	s->has_timestamp =
		has_timestamp(skb, at + sizeof(tcp), s->options_bytes);
	payload_read(skb, headers, s);
	return true;
}

static __always_inline __u32 window_shape(const struct tcp_sock *tp, __u32 seq)
{
	__u32 ahead = seq - BPF_CORE_READ(tp, rcv_nxt);

	if (!ahead)
		return SHAPE_EXACT | SHAPE_IN_WINDOW;
	return ahead < BPF_CORE_READ(tp, rcv_wnd) ? SHAPE_IN_WINDOW : 0;
}

static __always_inline void rst_arrived(struct __sk_buff *skb,
					struct bpf_sock *full,
					const struct segment *s,
					struct tuple *t)
{
	struct tally_key key = { .kind = KIND_RST_ARRIVED, .reason = -1 };
	struct tcp_sock *tp = bpf_skc_to_tcp_sock(full);
	struct sock *sk = (struct sock *)tp;
	struct connection *c;
	struct event *e;

	if (!tp)
		return;
	c = bpf_sk_storage_get(&connections, full, NULL,
			       BPF_SK_STORAGE_GET_F_CREATE);
	if (c) {
		c->rst = *s;
		c->rst_ns = bpf_ktime_get_ns();
	}
	key.netns = sock_netns(sk);
	key.state = BPF_CORE_READ(sk, __sk_common.skc_state);
	key.shape = segment_shape(s) | window_shape(tp, s->seq) | SHAPE_SOCKET;
	key.family = s->version;
	e = event_begin(&key);
	if (!e)
		return;
	event_set_tuple(e, t);
	e->segment = *s;
	e->cookie = bpf_get_socket_cookie(skb);
	if (key.state != TCP_LISTEN)
		event_set_sock(e, sk);
	if (c)
		event_set_connection(e, c);
	event_submit(e);
}

/* What is looked at in each packet. */
struct glance {
	__u32 at; /* offset of the TCP header */
	__be16 source, destination;
	__u8 flags, ttl;
};

static __always_inline bool packet_glance(struct __sk_buff *skb,
					  struct glance *g)
{
	struct ipv4_header *v4 = (void *)(long)skb->data;
	struct tcp_header *tcp = (void *)(v4 + 1), copy;
	struct ipv6_header *v6 = (void *)v4;

	/* Nearly every packet: IPv4 without options. */
	if ((void *)(tcp + 1) <= (void *)(long)skb->data_end &&
	    v4->version_ihl == 0x45) {
		if (v4->protocol != IPPROTO_TCP)
			return false;
		g->at = sizeof(*v4);
		g->ttl = v4->ttl;
	} else {
		g->at = tcp_offset(skb);
		if (!g->at ||
		    bpf_skb_load_bytes(skb, g->at, &copy, sizeof(copy)))
			return false;
		tcp = &copy;
		if ((void *)(v6 + 1) > (void *)(long)skb->data_end)
			return false;
		g->ttl = v4->version_ihl >> 4 == 4 ? v4->ttl : v6->hop_limit;
	}
	g->source = tcp->source;
	g->destination = tcp->destination;
	g->flags = tcp->flags;
	return true;
}

/* A segment for a listener: if it completes a handshake, its TTL is the baseline. */
static __always_inline void greeting_arrived(const struct glance *g)
{
	struct last_greeting *last;
	__u32 zero = 0;

	last = bpf_map_lookup_elem(&last_greeting, &zero);
	if (!last)
		return;
	last->local_port = bpf_ntohs(g->destination);
	last->peer_port = bpf_ntohs(g->source);
	last->ttl = g->ttl;
}

/* The answer to our SYN. */
static __always_inline void answer_arrived(struct bpf_sock *sk,
					   const struct glance *g)
{
	struct connection *c;

	sk = bpf_sk_fullsock(sk);
	c = sk ? bpf_sk_storage_get(&connections, sk, NULL, 0) : NULL;
	if (c && !c->baseline_ttl)
		c->baseline_ttl = g->ttl;
}

/* Apart, so that other packets do not pay for the room it needs. */
static __noinline int rst_told(struct __sk_buff *skb, __u32 at)
{
	struct bpf_sock *sk = skb->sk;
	struct segment s = {};
	struct tuple t = {};

	sk = sk ? bpf_sk_fullsock(sk) : NULL;
	if (sk && arrived_segment(skb, at, &s, &t))
		rst_arrived(skb, sk, &s, &t);
	return 1;
}

SEC("cgroup_skb/ingress")
int segment_arrived(struct __sk_buff *skb)
{
	struct bpf_sock *sk = skb->sk;
	struct glance g;

	if (!sk || !packet_glance(skb, &g))
		return 1;
	if (g.flags & TCP_FLAG_RST)
		return rst_told(skb, g.at);
	if (sk->state == TCP_LISTEN)
		greeting_arrived(&g);
	else if (g.flags & TCP_FLAG_SYN)
		answer_arrived(sk, &g);
	return 1;
}
