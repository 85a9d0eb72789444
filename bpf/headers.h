/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Reading a TCP segment out of an skb's headers, by probe: it may have come, be leaving or
 * be on its way to another host.
 */
#ifndef HOLDFAST_HEADERS_H
#define HOLDFAST_HEADERS_H

/*
 * Where the TCP header is, found from the IP header: netfilter's REJECT leaves the skb's own
 * transport_header unset. NULL if this is not TCP.
 */
static __always_inline const unsigned char *
tcp_after_ip(const unsigned char *ip, const struct ipv4_header *v4)
{
	struct ipv6_header v6;

	if (v4->version_ihl >> 4 == 4)
		return v4->protocol == IPPROTO_TCP ?
			       ip + (v4->version_ihl & 15) * 4 :
			       NULL;
	if (bpf_probe_read_kernel(&v6, sizeof(v6), ip) ||
	    v6.next_header != IPPROTO_TCP)
		return NULL;
	return ip + sizeof(v6);
}

/* A segment from its headers; fills the tuple as its receiver sees it. */
static __always_inline bool headers_segment(const unsigned char *ip,
					    const unsigned char *th,
					    struct segment *s, struct tuple *t)
{
	struct ipv6_header v6;
	struct ipv4_header v4;
	struct tcp_header tcp;
	__u32 total, headers;

	if (bpf_probe_read_kernel(&v4, sizeof(v4), ip) ||
	    bpf_probe_read_kernel(&tcp, sizeof(tcp), th))
		return false;
	if (v4.version_ihl >> 4 == 4) {
		s->version = 4;
		s->ttl = v4.ttl;
		s->ip_id = bpf_ntohs(v4.id);
		address_of_ipv4(t->local, v4.destination);
		address_of_ipv4(t->peer, v4.source);
		total = bpf_ntohs(v4.total_bytes);
	} else {
		if (bpf_probe_read_kernel(&v6, sizeof(v6), ip))
			return false;
		s->version = 6;
		s->ttl = v6.hop_limit;
		__builtin_memcpy(t->local, v6.destination, 16);
		__builtin_memcpy(t->peer, v6.source, 16);
		total = bpf_ntohs(v6.payload_bytes) + sizeof(v6);
	}
	t->local_port = bpf_ntohs(tcp.destination);
	t->peer_port = bpf_ntohs(tcp.source);
	s->seq = bpf_ntohl(tcp.seq);
	s->ack = bpf_ntohl(tcp.ack);
	s->flags = tcp.flags;
	s->window = bpf_ntohs(tcp.window);
	s->options_bytes = (tcp.offset >> 4) * 4 - sizeof(tcp);
	headers = (th - ip) + sizeof(tcp) + s->options_bytes;
	s->payload_bytes = total > headers ? total - headers : 0;
	return true;
}

/* The segment that TCP was given: its headers are where the skb says. */
static __always_inline bool received_segment(const struct sk_buff *skb,
					     struct segment *s, struct tuple *t)
{
	const unsigned char *head = BPF_CORE_READ(skb, head);

	return headers_segment(head + BPF_CORE_READ(skb, network_header),
			       head + BPF_CORE_READ(skb, transport_header), s,
			       t);
}

/* The segment in any IP packet; false if it is not TCP. */
static __always_inline bool packet_segment(const struct sk_buff *skb,
					   struct segment *s, struct tuple *t)
{
	const unsigned char *ip, *th;
	struct ipv4_header v4;
	__be16 protocol = BPF_CORE_READ(skb, protocol);

	/* Other families leave network_header at their own payload. */
	if (protocol != bpf_htons(ETH_P_IP) &&
	    protocol != bpf_htons(ETH_P_IPV6))
		return false;
	ip = BPF_CORE_READ(skb, head) + BPF_CORE_READ(skb, network_header);
	if (bpf_probe_read_kernel(&v4, sizeof(v4), ip))
		return false;
	th = tcp_after_ip(ip, &v4);
	return th && headers_segment(ip, th, s, t);
}

/* The bits a segment adds. */
__noinline __u32 flags_shape(__u32 flags, __u32 payload_bytes)
{
	__u32 shape = SHAPE_PROVOKED;

	if (flags & TCP_FLAG_SYN)
		shape |= SHAPE_SYN;
	if (flags & TCP_FLAG_ACK)
		shape |= SHAPE_ACK;
	if (flags & TCP_FLAG_FIN)
		shape |= SHAPE_FIN;
	if (payload_bytes)
		shape |= SHAPE_DATA;
	return shape;
}

static __always_inline __u32 segment_shape(const struct segment *s)
{
	return flags_shape(s->flags, s->payload_bytes);
}

#endif
