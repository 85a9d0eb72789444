/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * The kernel types we read, and of them only the fields we read. CO-RE finds each
 * field by name in the running kernel's BTF, so the order and the gaps do not matter.
 */
#ifndef HOLDFAST_CORE_H
#define HOLDFAST_CORE_H

typedef signed char __s8;
typedef unsigned char __u8;
typedef short __s16;
typedef unsigned short __u16;
typedef int __s32;
typedef unsigned int __u32;
typedef long long __s64;
typedef unsigned long long __u64;
typedef __u16 __be16;
typedef __u32 __be32;
typedef __u16 __sum16;
typedef __u32 __wsum;
typedef __u8 u8;
typedef __u16 u16;
typedef __u32 u32;
typedef __u64 u64;
#include <stdbool.h>

#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_tracing.h>

#define AF_INET 2
#define AF_INET6 10
#define ETH_P_IP 0x0800
#define ETH_P_IPV6 0x86dd
#define IPPROTO_TCP 6
#define SOCK_STREAM 1
#define PF_EXITING 0x4
#define PF_KTHREAD 0x200000

/* include/net/tcp_states.h */
#define TCP_ESTABLISHED 1
#define TCP_SYN_SENT 2
#define TCP_SYN_RECV 3
#define TCP_FIN_WAIT1 4
#define TCP_TIME_WAIT 6
#define TCP_CLOSE 7
#define TCP_LAST_ACK 9
#define TCP_LISTEN 10
#define TCP_NEW_SYN_RECV 12

/* include/net/sock.h, enum sock_flags: the first entries have not moved since 2.6 */
#define SOCK_DEAD 0
#define SOCK_LINGER 4

/* include/net/sock.h: both directions are shut, as close() does first */
#define SHUTDOWN_MASK 3

#define TCP_FLAG_FIN 0x01
#define TCP_FLAG_SYN 0x02
#define TCP_FLAG_RST 0x04
#define TCP_FLAG_ACK 0x10

#pragma clang attribute push(__attribute__((preserve_access_index)), \
			     apply_to = record)

struct ns_common {
	unsigned int inum;
};

struct net {
	struct ns_common ns;
};

typedef struct {
	struct net *net;
} possible_net_t;

struct in6_addr {
	union {
		__u8 u6_addr8[16];
	} in6_u;
};

typedef struct {
	__s64 counter;
} atomic64_t;

struct sock_common {
	__be32 skc_daddr;
	__be32 skc_rcv_saddr;
	__be16 skc_dport;
	__u16 skc_num;
	unsigned short skc_family;
	volatile unsigned char skc_state;
	possible_net_t skc_net;
	struct in6_addr skc_v6_daddr;
	struct in6_addr skc_v6_rcv_saddr;
	atomic64_t skc_cookie;
	unsigned long skc_flags;
};

typedef struct {
	int owned;
} socket_lock_t;

typedef struct {
	u32 val;
} kuid_t;

struct sock;

struct socket {
	struct sock *sk;
};

struct sk_buff;

struct sk_buff_head {
	struct sk_buff *prev;
};

struct sock {
	struct sock_common __sk_common;
	struct sk_buff_head sk_error_queue;
	int sk_err;
	struct socket *sk_socket;
	socket_lock_t sk_lock;
	kuid_t sk_uid;
	u16 sk_protocol;
	u16 sk_type;
	u8 sk_shutdown;
	unsigned long sk_lingertime;
	u32 sk_ack_backlog;
	u32 sk_max_ack_backlog;
};

struct inet_sock {
	struct sock sk;
	__be32 inet_saddr;
	__be16 inet_sport;
};

struct inet_connection_sock {
	struct inet_sock icsk_inet;
	__u8 icsk_retransmits;
	__u8 icsk_probes_out;
	struct {
		__u32 lrcvtime;
	} icsk_ack;
	u32 icsk_user_timeout;
};

struct minmax_sample {
	u32 t;
	u32 v;
};

struct minmax {
	struct minmax_sample s[3];
};

struct tcp_sock {
	struct inet_connection_sock inet_conn;
	u32 copied_seq;
	struct minmax rtt_min;
	u64 bytes_sent;
	u32 write_seq;
	u32 lsndtime;
	u32 rcv_nxt;
	u32 snd_nxt;
	u32 snd_una;
	u32 srtt_us;
	u32 rcv_wnd;
	u64 bytes_received;
	u64 bytes_retrans;
	int linger2;
	bool is_mptcp;
};

struct sock_extended_err {
	__u32 ee_errno;
};

/* What an skb in the error queue has in its cb[] (include/linux/errqueue.h). */
struct sock_exterr_skb {
	struct sock_extended_err ee;
};

struct net_device {
	possible_net_t nd_net;
	int ifindex;
};

struct dst_entry {
	struct net_device *dev;
};

struct sk_buff {
	struct net_device *dev;
	struct sock *sk;
	char cb[48];
	unsigned long _skb_refdst;
	unsigned int len;
	unsigned char *head;
	unsigned char *data;
	int skb_iif;
	__be16 protocol;
	__u16 transport_header;
	__u16 network_header;
};

struct kernfs_node {
	u64 id;
};

struct cgroup {
	struct kernfs_node *kn;
};

struct css_set {
	struct cgroup *dfl_cgrp;
};

struct cred {
	kuid_t uid;
};

struct task_struct {
	unsigned int flags;
	int tgid;
	struct task_struct *group_leader;
	const struct cred *cred;
	char comm[16];
	struct css_set *cgroups;
};

struct file;

struct seq_file;

struct bpf_iter_meta {
	struct seq_file *seq;
	u64 session_id;
	u64 seq_num;
};

struct bpf_iter__task_file {
	struct bpf_iter_meta *meta;
	struct task_struct *task;
	u32 fd;
	struct file *file;
};

#pragma clang attribute pop

/* Headers on the wire. They have no BTF relocation: their layout is in the RFCs. */
struct ipv4_header {
	__u8 version_ihl, tos;
	__be16 total_bytes, id, fragment;
	__u8 ttl, protocol;
	__sum16 checksum;
	__u8 source[4], destination[4];
};

struct ipv6_header {
	__be32 version_class_flow;
	__be16 payload_bytes;
	__u8 next_header, hop_limit;
	__u8 source[16], destination[16];
};

struct tcp_header {
	__be16 source, destination;
	__be32 seq, ack;
	__u8 offset, flags;
	__be16 window, checksum, urgent;
};

#endif
