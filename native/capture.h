/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Captures to flows, in one pass and bounded memory; nothing here knows Python.
 *
 * capture_feed() takes the bytes of a file as they come, frames them into packets (capture_file.c), walks
 * their headers (capture_link.c) and queues the segments, which the flow table (capture_table.c)
 * finds a flow for and capture_flow.c counts into it; capture_evidence.c keeps what surrounds a RST. What is
 * finished is written to two buffers (capture_give.c): a row for each flow, and a record with its last
 * packets for each flow with a RST.
 *
 * Every input byte is hostile: each length is checked before it is used, each store has a bound.
 */
#ifndef HOLDFAST_CAPTURE_H
#define HOLDFAST_CAPTURE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "capture_facts.h"

enum {
	/* Segments on their way: each waits for its slot, then for its flow. */
	QUEUE = 32,
	SLOT_AHEAD = 8,
	FLOW_AHEAD = 16,
	CHUNK_PACKETS = 4,
	RING_PACKETS = 32,
	RING_CHUNKS = RING_PACKETS / CHUNK_PACKETS,
	AFTER_RST_PACKETS = 16,
	MAX_PACKETS = 128,
	MAX_RSTS = 8,
	MAX_ICMP = 4,
	MAX_INTERFACES = 1024, /* in one section of a pcapng file */
	/* Pairs of file and interface; the last stands for all that came when the others were taken. */
	MAX_ORIGINS = 65536,
	NO_ORIGIN = MAX_ORIGINS - 1,
	MAX_WRAPS = 8,		   /* tunnels and headers around a segment */
	MAX_PACKET_BYTES = 1 << 20 /* no link has longer packets */
};

_Static_assert(FLOW_AHEAD < QUEUE && (QUEUE & (QUEUE - 1)) == 0,
	       "room to fill one");

#define NANOSECONDS 1000000000LL
#define LINGER_NS (10 * NANOSECONDS) /* a closed flow waits for late packets */
#define OPENING_NS (130 * NANOSECONDS) /* more than Linux waits between SYNs */
#define DUPLICATE_NS (NANOSECONDS / 1000)

enum { FIN = 1, SYN = 2, RST = 4, PSH = 8, ACK = 16 };

/* Bits of flow.Option. */
enum {
	OPTION_MSS = 1,
	OPTION_WINDOW_SCALE = 2,
	OPTION_SACK_PERMITTED = 4,
	OPTION_SACK = 8,
	OPTION_TIMESTAMP = 16,
	OPTION_MPTCP = 32,
	OPTION_MPTCP_RST = 64,
	OPTION_MPTCP_FASTCLOSE = 128,
	OPTION_FAST_OPEN = 256,
	OPTION_MD5 = 512,
	OPTION_AO = 1024,
	OPTION_OTHER = 2048,
	OPTION_MALFORMED = 4096,
	OPTION_CUT = 8192
};

/* flow.Content */
enum {
	CONTENT_NONE,
	CONTENT_OTHER,
	CONTENT_TLS_CLIENT_HELLO,
	CONTENT_TLS_ALERT,
	CONTENT_TLS_OTHER,
	CONTENT_HTTP_REQUEST,
	CONTENT_HTTP_RESPONSE,
	CONTENT_CUT
};

enum { TUNNEL_NONE, TUNNEL_IPIP, TUNNEL_GRE, TUNNEL_VXLAN, TUNNEL_GENEVE };

/* The two ends in a fixed order, so that both directions have one key. */
struct flow_key {
	uint8_t addr[2][16];
	uint16_t port[2];
	uint32_t tunnel_id;
};

/* One segment, or one ICMP error that quotes a segment (then icmp_kind is not 0). */
struct segment {
	struct flow_key key;
	int64_t time_ns;
	uint64_t offset, number;
	uint32_t seq, ack, payload_bytes, ip_bytes;
	uint32_t ts_val, ts_ecr, sack_right;
	uint16_t window, flags, ip_id, options, mss, vlan, origin;
	uint32_t hash;
	uint8_t from; /* which end of the key sent it (or the quoted segment) */
	uint8_t ttl, options_bytes, window_scale, content, tunnel;
	uint8_t mptcp_reason;
	bool v4, dont_fragment;
	uint8_t icmp_kind, icmp_code;
	uint32_t mtu;
	uint8_t reporter[16];
	const uint8_t *payload; /* into the bytes being fed */
	uint32_t payload_kept;
};

/* A packet as the ring keeps it: one cache line. */
struct kept_packet {
	int64_t time_ns;
	uint64_t offset, number;
	uint32_t place, seq, ack, payload_bytes, ts_val, ts_ecr, sack_right;
	uint32_t flags : 9, options : 14, content : 3, from : 1, v4 : 1,
		dont_fragment : 1, spare : 3;
	uint16_t window, ip_id, origin;
	uint8_t ttl, options_bytes;
};
_Static_assert(sizeof(struct kept_packet) == 64, "a cache line");

struct kept_rst {
	struct kept_packet packet;
	struct moment_facts moment[2]; /* by end of the key */
	uint32_t others_before;
	uint16_t mptcp_reason, payload_bytes;
	uint8_t payload[RST_PAYLOAD_BYTES];
};

struct kept_icmp {
	int64_t time_ns;
	uint64_t offset, number;
	uint32_t mtu, quoted_seq;
	uint16_t origin;
	uint8_t kind, code, v4, from;
	uint8_t reporter[16];
};

/* What only a flow with a RST or an ICMP error has. */
struct evidence {
	struct kept_packet *packets;
	struct kept_rst *rsts;
	struct kept_icmp *icmp;
	uint32_t left_out, next_place;
	uint8_t count, rst_count, icmp_count;
	uint8_t room, rst_room, icmp_room;
	uint8_t after_left;
};

enum { NO_FLOW = 0xffffffff };

/* Closed; closed, with evidence; saw only SYNs; has evidence and lives on. All but the last have a time limit. */
enum waiting {
	WAITING_NOT,
	WAITING_CLOSED,
	WAITING_TOLD,
	WAITING_OPENING,
	WAITING_EVIDENCE,
	WAITING_LISTS
};

/*
 * One end of a flow: what nearly every segment changes, in two cache lines. The first is read for the segments
 * of the other end as well.
 */
struct side {
	uint32_t next_seq, highest_ack, window_bytes, packets, data_packets;
	uint32_t zeek_start, zeek_last, zeek_ack;
	int64_t last_ns, last_data_ns;
	uint64_t payload_bytes;
	uint16_t seen, ip_id_last;
	uint8_t ttl_last, window_scale, zeek_state, zeek_before;

	uint64_t ip_bytes;
	int64_t first_ns;
	uint32_t ip_id_zero, ip_id_steps, dont_fragment;
	/* its last segment, to know a copy of it */
	uint32_t last_seq, last_ack, last_payload_bytes;
	uint16_t last_flags, last_ip_id;
	uint32_t sack_right, isn, fin_seq, first_seq;
	uint32_t spare;
};
_Static_assert(sizeof(struct side) == 128, "two cache lines");

/* The rest of it. */
struct side_rare {
	uint32_t syns, fins, rsts;
	uint32_t retransmits, duplicates, ahead, unseen_bytes, keep_alives,
		zero_windows;
	uint32_t zeek_last_syn, zeek_last_fin, zeek_last_rst;
	uint32_t zeek_gaps, zeek_retransmits, zeek_zero_windows;
	uint16_t syn_options, syn_flags, syn_window, syn_payload_bytes, mss,
		ip_id_first;
	uint8_t ttl_first, ttl_min, ttl_max, rst_ttl;
	bool zeek_fin;
};

/* The ends are in the order of the key. */
struct flow {
	struct flow_key key;
	int64_t last_ns;
	uint32_t places, others; /* others: not RSTs */
	uint8_t ring_size, chunks;
	uint8_t client, originator, fins, waiting;
	uint8_t closed; /* 1 or 2: by that end's RST; 3: by FINs both ways */
	bool beyond_syn : 1, has_window_scale : 1, live : 1, short_ring : 1;

	uint32_t chunk[RING_CHUNKS];
	struct evidence *evidence;
	uint32_t previous, next; /* in its list */
	uint32_t index, zeek_letters;
	uint32_t ring_base; /* place of the first packet in the ring */
	uint16_t seen;
	uint8_t zeek_length, client_by;

	struct side side[2];
	struct side_rare rare[2];

	uint64_t first_number;
	int64_t first_ns, syn_ns, syn_ack_ns, ack_ns, first_rst_ns;
	uint32_t source, backwards, hash;
	uint16_t vlan;
	uint8_t tunnel, simultaneous;
	char zeek_history[32];
} __attribute__((aligned(64)));
_Static_assert(offsetof(struct flow, side) == 128, "two cache lines");

struct buffer {
	uint8_t *bytes;
	size_t length, room;
};

struct interface {
	uint32_t link;
	uint32_t snap_bytes;
	uint16_t origin;
	uint8_t resolution; /* if_tsresol as it is in the file */
	int64_t offset_s;
	uint64_t dropped;
};

enum format { FORMAT_UNKNOWN, FORMAT_PCAP, FORMAT_PCAPNG, FORMAT_BROKEN };

struct origin {
	uint32_t source, interface;
};

struct table;

struct capture {
	struct counts counts;
	/* the file */
	enum format format;
	bool swapped, nanoseconds, modified, live;
	uint32_t link, source, interface_count;
	uint16_t origin;
	uint64_t offset; /* of the next byte to be fed */
	uint64_t skip;	 /* bytes of a block that nobody needs */
	const char
		*damage; /* why it stopped making sense, NULL while it does */
	struct interface interfaces[MAX_INTERFACES];
	struct origin *origins;
	uint32_t origin_count,
		file_origin; /* the latter: of its first interface */
	/* the packet being walked */
	uint64_t record_offset;
	int64_t time_ns;
	uint16_t packet_origin;
	/* segments on their way to the table, and how many came how far */
	struct segment queue[QUEUE];
	uint32_t added, fetched, taken;
	struct table *table;
	bool want_rows;
	struct buffer rows, records;
	bool out_of_memory;
};

/* capture_file.c */
struct capture *capture_new(const uint64_t seed[4], uint32_t max_flows,
			    uint64_t ring_bytes, uint64_t evidence_bytes,
			    bool want_rows);
void capture_free(struct capture *it);
void capture_begin_file(struct capture *it, uint32_t source);
void capture_begin_live(struct capture *it, uint32_t link);
size_t capture_feed(struct capture *it, const uint8_t *data, size_t length);
void capture_end_file(struct capture *it, size_t left_bytes);
void capture_packet(struct capture *it, const uint8_t *data, uint32_t captured,
		    uint32_t original, int64_t time_ns, uint32_t link);
void capture_flush(struct capture *it);
bool capture_finish(struct capture *it);

/* capture_live.c */
void capture_ring_block(struct capture *it, const uint8_t *block, size_t length,
			bool twice);
void capture_tick(struct capture *it, int64_t now_ns);

/* capture_link.c */
void capture_walk(struct capture *it, uint32_t link, const uint8_t *data,
		  uint32_t captured, uint32_t original);

/* capture_table.c */
struct table *table_new(const uint64_t seed[4], uint32_t max_flows,
			uint64_t ring_bytes, uint64_t evidence_bytes);
void table_free(struct table *it);
void table_add(struct capture *it, struct segment *seg);
void table_drain(struct capture *it);
void table_expire(struct capture *it, int64_t now_ns, uint32_t most);
bool table_finish(struct capture *it);
struct kept_packet *table_ring_slot(struct capture *it, struct flow *flow,
				    uint32_t place);
void table_ring_shrink(struct table *it, struct flow *flow);
void table_ring_drop(struct table *it, struct flow *flow);
const struct kept_packet *
table_ring_at(const struct table *it, const struct flow *flow, uint32_t place);
void table_wait(struct table *it, struct flow *flow, enum waiting list);
void table_charge(struct table *it, size_t evidence_bytes);

/* capture_flow.c */
void flow_begin(struct flow *flow, const struct segment *seg,
		const struct capture *it);
bool flow_is_reused(const struct flow *flow, const struct segment *seg);
void flow_count(struct capture *it, struct flow *flow,
		const struct segment *seg);
void flow_count_icmp(struct capture *it, struct flow *flow,
		     const struct segment *seg);

/* capture_evidence.c */
size_t evidence_bytes(const struct evidence *it);
void evidence_free(struct evidence *it);
void evidence_add_rst(struct capture *it, struct flow *flow,
		      const struct segment *seg, uint32_t place);
void evidence_add_icmp(struct capture *it, struct flow *flow,
		       const struct segment *seg);
void evidence_follow(struct capture *it, struct flow *flow, uint32_t place,
		     bool rst);
void kept_packet_fill(struct kept_packet *kept, const struct segment *seg,
		      uint32_t place);

/* capture_zeek.c */
void zeek_begin(struct flow *flow, const struct segment *seg);
bool zeek_is_ordinary(const struct flow *flow, const struct segment *seg);
void zeek_count(struct flow *flow, const struct segment *seg);
const char *zeek_conclude(const struct flow *flow);

/* capture_give.c */
void give_flow(struct capture *it, struct flow *flow, uint8_t ended_by);

#endif
