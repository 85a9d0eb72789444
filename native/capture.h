/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Captures to flows, in one pass and bounded memory; nothing here knows Python.
 *
 * capture_feed() takes the bytes of a file as they come, frames them into packets (capture_file.c), walks
 * their headers (capture_link.c, capture_ip.c, capture_segment.c) and queues the segments, which the flow table (capture_table.c)
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

/* The two ends in a fixed order, so that both directions have one key. */
struct flow_key {
	uint8_t addr[2][16];
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
	int64_t first_rst_ns;
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

/* One end of a flow: what is read or changed for nearly every segment of either end, a cache line. */
struct side {
	uint32_t next_seq, highest_ack, window_bytes, packets, data_packets;
	uint32_t zeek_start, zeek_last, zeek_ack;
	int64_t last_ns, last_data_ns;
	uint64_t payload_bytes;
	uint16_t seen, ip_id_last;
	uint8_t ttl_last, window_scale, zeek_state, zeek_before;
};
_Static_assert(sizeof(struct side) == 64, "a cache line");

/* What is changed for nearly every segment of this end; both ends share a cache line. */
struct side_sums {
	uint64_t ip_bytes;
	uint32_t ip_id_zero, ip_id_steps, dont_fragment;
	uint32_t last; /* digest of its last segment, to know a copy of it */
	uint32_t sack_right, first_seq;
};
_Static_assert(sizeof(struct side_sums) == 32, "half a cache line");

/* What its first and last segments say. */
struct side_rare {
	int64_t first_ns;
	uint32_t isn, fin_seq, syns, fins, rsts;
	uint32_t zeek_last_syn, zeek_last_fin, zeek_last_rst;
	uint16_t syn_options, syn_flags, syn_window, syn_payload_bytes, mss,
		ip_id_first;
	uint8_t ttl_first, ttl_min, ttl_max, rst_ttl;
};

/* Of a flow in which something went wrong. */
struct trouble {
	struct side_trouble {
		uint32_t retransmits, duplicates, ahead, unseen_bytes,
			keep_alives, zero_windows;
		uint32_t zeek_gaps, zeek_retransmits, zeek_zero_windows;
	} side[2];
};

/*
 * What the usual segment of an established connection does not need: in the same slab as the flow, behind all
 * flows. The first line is for the segments around a handshake, too.
 */
struct flow_rare {
	uint32_t chunk[RING_CHUNKS];
	uint32_t previous, next; /* in its list */
	int64_t ack_ns;
	uint32_t backwards, source;
	uint16_t vlan;
	uint8_t tunnel, simultaneous, client_by;
	uint8_t zeek_fins, zeek_length, spare;

	char zeek_history[32];
	struct evidence *evidence;
	struct trouble *trouble;
	uint64_t first_number;
	int64_t first_ns, syn_ns, syn_ack_ns;
	struct side_rare side[2];
};
_Static_assert(sizeof(struct flow_rare) == 256 &&
		       offsetof(struct flow_rare, zeek_history) == 64,
	       "four cache lines");

/* The ends are in the order of the key. */
struct flow {
	struct flow_key key;
	int64_t last_ns;
	uint32_t places;
	uint32_t chunk; /* of its ring, the one that is being written */
	uint16_t zeek_letters;
	uint8_t chunks : 4, ring_goes_round : 1, ring_is_short : 1, live : 1;
	uint8_t at_chunk; /* which of them that is */
	uint8_t waiting : 3, fins : 2, beyond_syn : 1, has_window_scale : 1,
		has_evidence : 1;
	uint8_t closed; /* 1 or 2: by that end's RST; 3: by FINs both ways */
	uint8_t seen : 4, client : 1, originator : 1, steady : 1;

	struct side side[2];
	struct side_sums sums[2];
} __attribute__((aligned(64)));
_Static_assert(sizeof(struct flow) == 256, "four cache lines");

/* A huge page; the fuzzer makes it small, to see each flow's bounds sooner. */
#ifndef SLAB_BYTES
#define SLAB_BYTES (2 << 20)
#endif

enum {
	SLAB_FLOWS = (SLAB_BYTES - 64) /
		     (sizeof(struct flow) + sizeof(struct flow_rare))
};

/* Aligned to its size, so that a flow knows its slab. It never moves, so a flow has one address. */
struct slab {
	struct flow flows[SLAB_FLOWS];
	struct flow_rare rare[SLAB_FLOWS];
	uint32_t number;
};
_Static_assert(sizeof(struct slab) <= SLAB_BYTES, "as much as is there");

static inline struct slab *slab_of(const struct flow *flow)
{
	return (struct slab *)((uintptr_t)flow & ~(uintptr_t)(SLAB_BYTES - 1));
}

static inline struct flow_rare *rare_of(const struct flow *flow)
{
	struct slab *slab = slab_of(flow);

	return &slab->rare[flow - slab->flows];
}

/* How many of the segments before this place were no RSTs; all RSTs that were counted are before it. */
static inline uint32_t others_before(const struct flow *flow, uint32_t place)
{
	const struct side_rare *side = rare_of(flow)->side;

	return place - side[0].rsts - side[1].rsts;
}

/* A hash of two words: multiply, and fold the product. */
static inline uint64_t fold(uint64_t a, uint64_t b)
{
	unsigned __int128 product = (unsigned __int128)a * b;

	return (uint64_t)product ^ (uint64_t)(product >> 64);
}

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
void table_add(struct capture *it, struct segment *seg);
void table_drain(struct capture *it);
void table_expire(struct capture *it, int64_t now_ns, uint32_t most);
bool table_finish(struct capture *it);
void table_wait(struct table *it, struct flow *flow, enum waiting list);
void table_charge(struct table *it, size_t evidence_bytes);

/* capture_ring.c */
struct ring_pool *ring_pool_new(uint64_t bytes);
void ring_pool_free(struct ring_pool *it);
struct kept_packet *ring_slot(struct capture *it, struct flow *flow,
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

/* capture_flow.c */
void flow_begin(struct flow *flow, const struct segment *seg,
		const struct capture *it);
struct side_trouble *flow_trouble(struct capture *it, struct flow *flow,
				  uint8_t end);
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
bool zeek_is_steady(const struct flow *flow);
bool zeek_is_ordinary(const struct flow *flow, const struct segment *seg);
void zeek_count(struct capture *it, struct flow *flow,
		const struct segment *seg);
const char *zeek_conclude(const struct flow *flow);

/* capture_give.c */
void give_flow(struct capture *it, struct flow *flow, uint8_t ended_by);

#endif
