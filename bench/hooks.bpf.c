// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * Two kinds of programs to measure with. Empty ones at our hooks: what the kernel says
 * they take is what its own timing takes. And the least that finds a RST, at the
 * two hooks that could look at each arriving packet.
 */
#include "../bpf/core.h"

#define ETHERNET_BYTES 14

SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(empty_state, struct sock *sk, int before, int after)
{
	return 0;
}

SEC("tp_btf/net_dev_queue")
int BPF_PROG(empty_left, struct sk_buff *skb)
{
	return 0;
}

SEC("cgroup_skb/ingress")
int empty_arrived(struct __sk_buff *skb)
{
	return 1;
}

static __always_inline bool is_rst(struct __sk_buff *skb, __u32 ip)
{
	unsigned char *packet = (void *)(long)skb->data + ip;
	struct ipv4_header *v4 = (void *)packet;
	struct tcp_header *tcp = (void *)(v4 + 1);

	/* Options, IPv6 and packets in pieces would need more: this is the least. */
	return (void *)(tcp + 1) <= (void *)(long)skb->data_end &&
	       v4->version_ihl == 0x45 && v4->protocol == IPPROTO_TCP &&
	       tcp->flags & TCP_FLAG_RST;
}

__u64 seen;

SEC("cgroup_skb/ingress")
int look_cgroup(struct __sk_buff *skb)
{
	if (is_rst(skb, 0))
		__sync_fetch_and_add(&seen, 1);
	return 1;
}

SEC("tc")
int look_tc(struct __sk_buff *skb)
{
	if (is_rst(skb, ETHERNET_BYTES))
		__sync_fetch_and_add(&seen, 1);
	return -1; /* TC_ACT_UNSPEC: on to the next filter */
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
