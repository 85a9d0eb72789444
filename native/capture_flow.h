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

/* zeek_end.state */
enum zeek_state {
	INACTIVE,
	SYN_SENT,
	SYN_ACK_SENT,
	PARTIAL,
	ESTABLISHED,
	CLOSED,
	RESET
};

/* One end as Zeek sees it; of a steady flow, last and ack are known from struct side instead. */
struct zeek_end {
	uint32_t start, last, ack;
	uint32_t last_syn, last_fin, last_rst;
	uint8_t state, before;
	bool fin;
};

/* One end of a flow: all that a usual segment of either end reads or changes, a cache line. */
struct side {
	uint32_t next_seq, highest_ack, packets, data_packets;
	uint32_t last; /* digest of its last segment, to know a copy of it */
	uint32_t
		zeek_start; /* as in struct zeek_end, while the flow is steady */
	uint64_t payload_bytes, ip_bytes;
	int64_t last_ns, last_data_ns;
	uint16_t seen, ip_id_last, window;
	uint8_t ttl_last;
	uint8_t window_scale : 4, window_is_scaled : 1;
};
_Static_assert(sizeof(struct side) == 64, "a cache line");

/* What its first and last segments say, and how many were not as most are. */
struct side_rare {
	int64_t first_ns;
	uint32_t first_seq, isn, fin_seq, sack_right, syns, fins, rsts;
	/* Of those that count for IP IDs: zeros; no step from the one before; without don't-fragment. */
	uint32_t ip_id_zero, ip_id_other, may_fragment;
	uint16_t syn_options, syn_flags, syn_window, syn_payload_bytes, mss,
		ip_id_first;
	uint8_t ttl_first, ttl_min, ttl_max, rst_ttl;
};
_Static_assert(sizeof(struct side_rare) == 64, "a cache line");

/* Of a flow in which something went wrong. */
struct trouble {
	struct side_trouble {
		uint32_t retransmits, duplicates, ahead, unseen_bytes,
			keep_alives, zero_windows;
		uint32_t zeek_gaps, zeek_retransmits, zeek_zero_windows;
	} side[2];
	uint32_t backwards;
};

/*
 * What the usual segment of an established connection does not need. It lies right behind its flow, in the same
 * page. The first three lines are for the segments around a handshake, too.
 */
struct flow_rare {
	uint32_t chunk[RING_CHUNKS];
	uint32_t previous, next; /* in its list */
	int64_t ack_ns;
	uint16_t vlan, origin;
	uint8_t tunnel, simultaneous, client_by, zeek_length;
	struct evidence *evidence;

	struct zeek_end zeek[2];
	struct trouble *trouble;

	char zeek_history[32];
	uint64_t first_number;
	int64_t first_ns, syn_ns, syn_ack_ns;

	struct side_rare side[2];
};
_Static_assert(sizeof(struct flow_rare) == 320 &&
		       offsetof(struct flow_rare, zeek) == 64 &&
		       offsetof(struct flow_rare, zeek_history) == 128,
	       "five cache lines");

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
} __attribute__((aligned(64)));
_Static_assert(sizeof(struct flow) == 192, "three cache lines");

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

static inline uint32_t window_bytes(const struct side *side)
{
	return (uint32_t)side->window
	       << (side->window_is_scaled ? side->window_scale : 0);
}

/* A hash of two words: multiply, and fold the product. */
static inline uint64_t fold(uint64_t a, uint64_t b)
{
	unsigned __int128 product = (unsigned __int128)a * b;

	return (uint64_t)product ^ (uint64_t)(product >> 64);
}

#endif
