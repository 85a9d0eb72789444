/* SPDX-License-Identifier: Apache-2.0 */
/* What is remembered of one flow: a part of capture.h. */
#ifndef HOLDFAST_CAPTURE_FLOW_H
#define HOLDFAST_CAPTURE_FLOW_H

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

/* Closed; closed, with evidence; saw only SYNs; has evidence and lives on. All but the last have a time limit. */
enum waiting {
	WAITING_NOT,
	WAITING_CLOSED,
	WAITING_TOLD,
	WAITING_OPENING,
	WAITING_EVIDENCE,
	WAITING_LISTS
};

/* side.zeek_state */
enum zeek_state {
	INACTIVE,
	SYN_SENT,
	SYN_ACK_SENT,
	PARTIAL,
	ESTABLISHED,
	CLOSED,
	RESET
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
 * What the usual segment of an established connection does not need. It lies right behind its flow, in the same
 * page. The first line is for the segments around a handshake, too.
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

struct whole_flow {
	struct flow flow;
	struct flow_rare rare;
};

enum { SLAB_FLOWS = SLAB_BYTES / sizeof(struct whole_flow) };

/*
 * Aligned to its size, so that a flow knows its slab. It never moves, so a flow has one address. Where its first
 * flow would be is its number, so that a flow's index is split without a division.
 */
union slab {
	uint32_t number;
	struct whole_flow flows[SLAB_FLOWS];
};
_Static_assert(sizeof(union slab) == SLAB_BYTES &&
		       (SLAB_FLOWS & (SLAB_FLOWS - 1)) == 0,
	       "indices are split by shifts");

/* An index that no flow has. */
enum { NO_FLOW = 0 };

static inline union slab *slab_of(const struct flow *flow)
{
	return (union slab *)((uintptr_t)flow & ~(uintptr_t)(SLAB_BYTES - 1));
}

static inline struct flow_rare *rare_of(const struct flow *flow)
{
	return &((struct whole_flow *)flow)->rare;
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

#endif
