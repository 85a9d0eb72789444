/* SPDX-License-Identifier: Apache-2.0 */
/* What Python reads, byte for byte: src/holdfast/watch/capture/columns.py names the same fields. */
#ifndef HOLDFAST_CAPTURE_FACTS_H
#define HOLDFAST_CAPTURE_FACTS_H

#include <stdint.h>

enum { RST_PAYLOAD_BYTES = 64 };

/* side_facts.seen: which fields hold something. */
enum {
	SEEN_ISN = 1,
	SEEN_NEXT = 2,
	SEEN_ACK = 4,
	SEEN_WINDOW = 8,
	SEEN_FIN = 16,
	SEEN_SACK = 32,
	SEEN_MSS = 64,
	SEEN_WINDOW_SCALE = 128,
	SEEN_TIMESTAMPS = 256,
	SEEN_IP_ID = 512,
	SEEN_DATA = 1024,
	SEEN_ANY = 2048,
	SEEN_BEYOND_SYN = 4096 /* something that is neither SYN nor RST */
};

struct side_facts {
	uint64_t payload_bytes, ip_bytes;
	int64_t first_ns, last_ns, last_data_ns;
	uint32_t packets, data_packets, syns, fins, rsts;
	uint32_t retransmits, duplicates, ahead, unseen_bytes, keep_alives,
		zero_windows;
	uint32_t ip_id_zero, ip_id_steps, dont_fragment;
	uint32_t isn, first_seq, next_seq, highest_ack, window_bytes, fin_seq,
		sack_right;
	uint16_t syn_options, syn_flags, syn_window, syn_payload_bytes, mss;
	uint16_t ip_id_first, ip_id_last, seen;
	uint8_t window_scale, ttl_first, ttl_last, ttl_min, ttl_max, rst_ttl;
	uint8_t spare[6];
};
_Static_assert(sizeof(struct side_facts) == 152, "no holes");

/* flow_facts.seen */
enum {
	SEEN_SYN_TIME = 1,
	SEEN_SYN_ACK_TIME = 2,
	SEEN_ACK_TIME = 4,
	SEEN_RST_TIME = 8
};

enum client_by { BY_SYN = 1, BY_SYN_ACK, BY_PORT, BY_FIRST };
enum ended_by {
	ENDED_CAPTURE,
	ENDED_CLOSED,
	ENDED_REUSED,
	ENDED_IDLE,
	ENDED_EVICTED,
	ENDED_HURRIED
};

struct flow_facts {
	uint8_t client[16], server[16];
	uint16_t client_port, server_port;
	uint8_t client_by, ended_by, tunnel, simultaneous;
	uint32_t tunnel_id, source;
	uint64_t first_number;
	int64_t first_ns, last_ns, syn_ns, syn_ack_ns, ack_ns, first_rst_ns;
	uint32_t backwards;
	uint16_t vlan, seen;
	char zeek_history[32];
	char zeek_state[8];
};
_Static_assert(sizeof(struct flow_facts) == 152, "no holes");

/* One row of the columns, and the head of a record. */
struct flow_row {
	struct flow_facts flow;
	struct side_facts client, server;
};
_Static_assert(sizeof(struct flow_row) == 456, "no holes");

struct record_head {
	uint32_t bytes; /* of the whole record */
	uint32_t packets, rsts, icmp_errors, packets_left_out, spare;
};

enum { PACKET_FROM_CLIENT = 1, PACKET_V4 = 2, PACKET_DONT_FRAGMENT = 4 };

struct packet_facts {
	int64_t time_ns;
	uint64_t offset, number; /* offset: all ones without one */
	uint32_t source, interface, place;
	uint32_t seq, ack, payload_bytes, ts_val, ts_ecr, sack_right;
	uint16_t window, flags, ip_id, options;
	uint8_t ttl, options_bytes, content, bits;
};
_Static_assert(sizeof(struct packet_facts) == 72, "no holes");

/* What was known of one end just before a RST. */
struct moment_facts {
	int64_t last_ns, last_data_ns;
	uint64_t payload_bytes;
	uint32_t next_seq, last_ack, window_bytes, sack_right;
	uint32_t packets, data_packets, rsts, fins;
	uint16_t ip_id, seen;
	uint8_t ttl, spare[3];
};
_Static_assert(sizeof(struct moment_facts) == 64, "no holes");

struct rst_facts {
	struct packet_facts packet;
	struct moment_facts sender, receiver;
	uint32_t after_packets;
	uint16_t mptcp_reason,
		payload_bytes; /* mptcp_reason: all ones without one */
	uint8_t payload[RST_PAYLOAD_BYTES];
};
_Static_assert(sizeof(struct rst_facts) == 272, "no holes");

struct icmp_facts {
	int64_t time_ns;
	uint64_t offset, number;
	uint32_t source, mtu, quoted_seq;
	uint8_t kind, code, v6, about_client;
	uint8_t reporter[16];
};
_Static_assert(sizeof(struct icmp_facts) == 56, "no holes");

/* Each packet is in exactly one of the counts from tcp on. */
struct counts {
	uint64_t packets, bytes;
	int64_t first_ns, last_ns;
	uint64_t connections, reset_connections;
	uint64_t tcp, not_ip, not_tcp, icmp_errors, fragments, cut, malformed,
		unknown_link;
	uint64_t evicted, hurried, without_packets, unplaced;
	uint64_t dropped, drop_reports; /* as the file's own statistics say */
};

#endif
