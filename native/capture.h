/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Captures to flows, in one pass and bounded memory; nothing here knows Python.
 *
 * capture_feed() takes the bytes of a file as they come (or from capture_read.c), frames them into packets
 * (capture_file.c, capture_pcapng.c), walks their headers (capture_link.c, capture_ip.c, capture_segment.c) and queues the
 * segments (capture_queue.c). The table (capture_table.c) finds or begins the flow of each (capture_index.c),
 * capture_flow.c counts it, capture_ring.c remembers it, capture_evidence.c keeps what surrounds a RST, and
 * capture_wait.c says whose time is up. What is finished is written to two buffers (capture_give.c): a row for
 * each flow, and a record with its last packets for each flow with a RST.
 *
 * Every input byte is hostile: each length is checked before it is used, each store has a bound.
 */
#ifndef HOLDFAST_CAPTURE_H
#define HOLDFAST_CAPTURE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "capture_facts.h"

enum {
	/* Segments on their way: each waits for its slot, then for its flow. */
	QUEUE = 32,
	SLOT_AHEAD = 8,
	REST_AHEAD = 12,
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

/*
 * The two ends in a fixed order, so that both directions have one key. Addresses are as on the wire, but in words:
 * the hash reads them right after they are written, and what is read in other pieces than it was written comes late.
 */
struct flow_key {
	uint64_t addr[2][2];
	uint16_t port[2];
	uint32_t tunnel_id;
};

struct flow;

/* One segment, or one ICMP error that quotes a segment (then icmp_kind is not 0). */
struct segment {
	struct flow_key key;
	int64_t time_ns;
	uint64_t offset, number;
	uint32_t seq, ack, payload_bytes, ip_bytes;
	uint32_t ts_val, ts_ecr, sack_right;
	uint16_t window, flags, ip_id, options, mss, vlan, origin;
	uint32_t hash;
	struct flow *likely; /* the flow of this hash when it was looked up */
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

#include "capture_flow.h"

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
struct ring_pool;

struct capture {
	struct counts counts;
	/* the file */
	enum format format;
	bool swapped, nanoseconds, modified, live;
	uint32_t link, source, interface_count;
	uint16_t origin;
	uint64_t offset; /* of the next byte to be fed */
	uint64_t skip;	 /* bytes of a block that nobody needs */
	uint8_t *pieces; /* capture_read()'s own, and how much of it was left */
	size_t left;
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
	uint32_t added, fetched, rested, taken;
	struct table *table;
	struct ring_pool *rings;
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

/* capture_read.c */
ssize_t capture_read(struct capture *it, int fd, size_t most_bytes);

/* capture_live.c */
void capture_ring_block(struct capture *it, const uint8_t *block, size_t length,
			bool twice);
void capture_tick(struct capture *it, int64_t now_ns);

/* capture_link.c */
void capture_walk(struct capture *it, uint32_t link, const uint8_t *data,
		  uint32_t captured, uint32_t original);

/* capture_table.c */
struct table *table_new(const uint64_t seed[4], uint32_t max_flows,
			uint64_t evidence_bytes);
void table_free(struct table *it);
bool table_finish(struct capture *it);

/* capture_queue.c */
void queue_add(struct capture *it, struct segment *seg);
void queue_drain(struct capture *it);

/* capture_wait.c */
void wait_expire(struct capture *it, int64_t now_ns, uint32_t most);
void wait_in(struct table *it, struct flow *flow, enum waiting list);
void wait_charge(struct table *it, size_t evidence_bytes);

/* capture_ring.c */
struct ring_pool *ring_pool_new(uint64_t bytes);
void ring_pool_free(struct ring_pool *it);
bool ring_keep(struct capture *it, struct flow *flow, const struct segment *seg,
	       uint32_t place);
void kept_packet_fill(struct kept_packet *kept, const struct segment *seg,
		      uint32_t place);
uint32_t ring_first(const struct flow *flow, uint32_t place);
void ring_copy(const struct capture *it, const struct flow *flow,
	       uint32_t place, uint32_t first, uint32_t count,
	       struct kept_packet *out);
void ring_shrink(struct capture *it, struct flow *flow);
void ring_drop(struct capture *it, struct flow *flow);

/* capture_slab.c */
void *slab_new(size_t bytes);
bool slab_list_grow(void *list, uint32_t count);

/* capture_begin.c */
void flow_begin(struct flow *flow, const struct segment *seg);
bool flow_is_reused(const struct flow *flow, const struct segment *seg);
void flow_learn_client(struct flow *flow, const struct segment *seg);
void flow_count_syn(struct flow *flow, const struct segment *seg);

/* capture_flow.c */
struct side_trouble *flow_trouble(struct capture *it, struct flow *flow,
				  uint8_t end);
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

/* capture_zeek.c, capture_zeek_state.c */
void zeek_begin(struct flow *flow, const struct segment *seg);
bool zeek_is_steady(const struct flow *flow);
void zeek_settle(struct flow *flow);
void zeek_catch_up(struct flow *flow);
bool zeek_takes_ack(const struct flow *flow, const struct segment *seg);
bool zeek_is_first(const struct flow *flow, const struct segment *seg);
void zeek_count_ordinary(struct flow *flow, const struct segment *seg);
void zeek_count(struct capture *it, struct flow *flow,
		const struct segment *seg);
const char *zeek_conclude(const struct flow *flow);

/* capture_give.c */
void give_flow(struct capture *it, struct flow *flow, uint8_t ended_by);

#endif
