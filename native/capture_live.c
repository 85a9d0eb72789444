// SPDX-License-Identifier: Apache-2.0
/* The packets of one block of an AF_PACKET ring (TPACKET_V3), as the kernel lays them out. */
#include "capture.h"

#include <linux/if_packet.h>
#include <string.h>

/* One packet in the block; gives where the next one is, 0 at the end. */
static uint32_t ring_packet(struct capture *it, const uint8_t *at, size_t left,
			    bool twice)
{
	struct tpacket3_hdr header;
	struct sockaddr_ll from;
	size_t from_at = TPACKET_ALIGN(sizeof(header));

	if (left < from_at + sizeof(from))
		return 0;
	memcpy(&header, at, sizeof(header));
	memcpy(&from, at + from_at, sizeof(from));
	if (header.tp_mac > left || header.tp_snaplen > left - header.tp_mac)
		return 0;
	/* What a host sends to itself passes here twice. */
	if (!twice || from.sll_pkttype != PACKET_OUTGOING)
		capture_packet(it, at + header.tp_mac, header.tp_snaplen,
			       header.tp_len,
			       header.tp_sec * NANOSECONDS + header.tp_nsec,
			       it->link);
	return header.tp_next_offset;
}

/* twice: it is the loopback interface. */
void capture_ring_block(struct capture *it, const uint8_t *block, size_t length,
			bool twice)
{
	struct tpacket_block_desc head;
	uint32_t step;
	size_t at;

	if (length < sizeof(head))
		return;
	memcpy(&head, block, sizeof(head));
	at = head.hdr.bh1.offset_to_first_pkt;
	for (uint32_t i = 0; i < head.hdr.bh1.num_pkts && at < length; i++) {
		step = ring_packet(it, block + at, length - at, twice);
		if (!step)
			break;
		at += step;
	}
	capture_flush(it);
}

/* Flows that may be given at one tick; there are many a second. */
enum { TICK_ENDS = 4096 };

/* Time passes without packets, too: give the flows that have waited long enough. */
void capture_tick(struct capture *it, int64_t now_ns)
{
	capture_flush(it);
	wait_expire(it, now_ns, TICK_ENDS);
}
