/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * The record that crosses from kernel to user space, and the key under which every
 * event is counted. watch/kernel/wire.py reads the same layout; tests/kernel/test_event_abi.py lets the
 * compiler judge that they agree. No padding, no pointers, no bitfields.
 */
#ifndef HOLDFAST_EVENT_H
#define HOLDFAST_EVENT_H

#define EVENT_ABI 2
#define COMM_BYTES 16
#define PAYLOAD_BYTES 32
#define KERNEL_FRAMES 14
#define USER_FRAMES 8

enum kind {
	KIND_RESET_SENT = 1,
	KIND_RESET_RECEIVED,
	KIND_RST_ARRIVED,
	KIND_RST_LEFT,
	KIND_REJECTED,
	KIND_SELF_RESET,
	KIND_ERROR,
};

/* What decides the cause, as bits, so that it can be counted without detail. */
enum shape {
	SHAPE_PROVOKED = 1 << 0, /* answers a segment ... */
	SHAPE_SYN = 1 << 1,	 /* ... that had these flags */
	SHAPE_ACK = 1 << 2,
	SHAPE_FIN = 1 << 3,
	SHAPE_DATA = 1 << 4,   /* ... and a payload */
	SHAPE_SOCKET = 1 << 5, /* a socket was involved */
	SHAPE_LINGER_ZERO = 1 << 6,
	SHAPE_LINGER2_NEGATIVE = 1 << 7,
	SHAPE_ORPHANED = 1 << 8,   /* SOCK_DEAD */
	SHAPE_UNACCEPTED = 1 << 9, /* never had a struct socket */
	SHAPE_OWNED = 1 << 10,	   /* the socket lock is held by a process */
	SHAPE_EXITING = 1 << 11,   /* who closed it was in do_exit */
	SHAPE_SHUTDOWN =
		1 << 12, /* both directions shut: on its way through close */
	SHAPE_MPTCP = 1 << 13,
	SHAPE_EARLIER =
		1 << 14, /* these addresses were closed here before ... */
	SHAPE_EARLIER_SERVED =
		1 << 15, /* ... having carried bytes both ways ... */
	SHAPE_EARLIER_IDLE = 1 << 16, /* ... and silent when closed */
	SHAPE_IN_WINDOW = 1 << 17,    /* a RST in the receive window ... */
	SHAPE_EXACT = 1 << 18,	      /* ... at exactly RCV.NXT */
	SHAPE_USER_TIMEOUT = 1 << 19,
	SHAPE_UNACKED = 1 << 20,     /* sent bytes were not acknowledged */
	SHAPE_ESTABLISHED = 1 << 21, /* it had been established */
	SHAPE_FORWARDED = 1 << 22, /* the segment was bound for another host */
	SHAPE_QUEUE_FULL = 1
			   << 23, /* the listener's accept queue had no room */
	SHAPE_ACKS_US = 1 << 24,  /* the answer acknowledges our SYN, no more */
};

struct tally_key {
	__u32 netns;
	__u32 shape;
	__u8 kind;
	__u8 state;
	__u8 state_before;
	__u8 family;
	__s16 reason; /* enum sk_rst_reason of this kernel, -1 where it gives none */
	__u16 error;
};

struct process {
	__u32 pid; /* the kernel's tgid; 0 is nobody */
	__u32 uid;
	__u64 cgroup_id;
	char comm[COMM_BYTES];
};

struct segment {
	__u32 seq, ack;
	__u16 window, ip_id;
	__u16 payload_bytes;
	__u8 flags, ttl;
	__u8 options_bytes;
	__u8 has_timestamp;
	__u8 version; /* 4, 6; 0 is no segment */
	__u8 pad[5];
	__u8 payload[PAYLOAD_BYTES];
};

struct earlier {
	__u64 closed_ns;       /* 0 is none */
	struct process owner;  /* who closed it, else who opened it */
	struct process opener; /* nobody where that is the owner */
	__u64 bytes_sent, bytes_received;
	__u32 idle_ticks;
	__u16 error;
	__u8 state_before;
	__u8 exiting; /* the owner was in do_exit */
};

struct event {
	struct tally_key key;
	__u64 mono_ns;
	__u64 cookie;
	__u8 local[16], peer[16];    /* IPv4 as ::ffff:a.b.c.d */
	__u16 local_port, peer_port; /* host byte order */
	__u8 abi;
	__u8 shutdown;
	__u8 retransmits;
	__u8 probes;
	struct process opener, closer;
	__u64 opened_ns, established_ns;
	__u64 bytes_sent, bytes_received;
	__u32 srtt_us, min_rtt_us;
	__u32 send_ago_ticks, receive_ago_ticks; /* jiffies; ~0 is never */
	__u32 unread_bytes, unsent_bytes, unacked_bytes, user_timeout_ms;
	__u32 rcv_nxt, rcv_wnd, snd_una, snd_nxt;
	__u8 baseline_ttl;
	__u8 pad[3];
	__u32 drop_reason;
	struct segment segment;
	struct earlier earlier;
	__u64 kernel_stack[KERNEL_FRAMES];
	__u64 user_stack[USER_FRAMES];
};

_Static_assert(sizeof(struct tally_key) == 16, "tally_key has a hole");
_Static_assert(sizeof(struct process) == 32, "process has a hole");
_Static_assert(sizeof(struct segment) == 56, "segment has a hole");
_Static_assert(sizeof(struct earlier) == 96, "earlier has a hole");
_Static_assert(sizeof(struct event) % 8 == 0, "event is not whole words");

#endif
