// SPDX-License-Identifier: Apache-2.0
/*
 * From the bytes of a pcap or pcapng file to packets. The caller feeds what it has and keeps what was not
 * consumed, so a packet always lies in one piece.
 */
#include "capture_file.h"

#include <stdlib.h>
#include <string.h>

enum {
	PCAP_HEADER = 24,
	PCAP_RECORD = 16,
	PCAP_RECORD_MODIFIED = 24 /* Kuznetzov's: interface, protocol, type */
};

struct capture *capture_new(const uint64_t seed[4], uint32_t max_flows,
			    uint64_t ring_bytes, uint64_t evidence_bytes,
			    bool want_rows)
{
	struct capture *it = calloc(1, sizeof(*it));

	if (!it)
		return NULL;
	it->want_rows = want_rows;
	it->origins = calloc(MAX_ORIGINS, sizeof(*it->origins));
	it->table = table_new(seed, max_flows, evidence_bytes);
	it->rings = ring_pool_new(ring_bytes);
	if (!it->origins || !it->table || !it->rings) {
		capture_free(it);
		return NULL;
	}
	return it;
}

void capture_free(struct capture *it)
{
	if (!it)
		return;
	table_free(it->table);
	ring_pool_free(it->rings);
	free(it->origins);
	free(it->pieces);
	free(it->rows.bytes);
	free(it->records.bytes);
	free(it);
}

/* A number for (file, interface); the sections of a file share those of equal index. */
uint16_t capture_origin(struct capture *it, uint32_t interface)
{
	uint32_t origin = it->file_origin + interface;

	if (origin >= it->origin_count && it->origin_count < MAX_ORIGINS)
		it->origins[it->origin_count++] =
			(struct origin){ it->source, interface };
	return (uint16_t)(origin < NO_ORIGIN ? origin : NO_ORIGIN);
}

void capture_begin_file(struct capture *it, uint32_t source)
{
	it->format = FORMAT_UNKNOWN;
	it->source = source;
	it->offset = it->skip = it->left = 0;
	it->interface_count = 0;
	it->damage = NULL;
	it->live = false;
	it->file_origin = it->origin_count;
	it->origin = it->packet_origin = capture_origin(it, 0);
}

void capture_begin_live(struct capture *it, uint32_t link)
{
	capture_begin_file(it, 0);
	it->live = true;
	it->link = link;
	it->record_offset = UINT64_MAX;
}

/* ---- one packet */

void capture_packet(struct capture *it, const uint8_t *data, uint32_t captured,
		    uint32_t original, int64_t time_ns, uint32_t link)
{
	struct counts *counts = &it->counts;

	if (original < captured)
		original = captured;
	if (counts->packets++ == 0)
		counts->first_ns = counts->last_ns = time_ns;
	if (time_ns < counts->first_ns)
		counts->first_ns = time_ns;
	if (time_ns > counts->last_ns)
		counts->last_ns = time_ns;
	counts->bytes += original;
	counts->unplaced += it->packet_origin == NO_ORIGIN;
	it->time_ns = time_ns;
	capture_walk(it, link, data, captured, original);
}

/* ---- pcap */

static bool pcap_magic(struct capture *it, uint32_t magic)
{
	it->nanoseconds = magic == 0xa1b23c4d;
	it->modified = magic == 0xa1b2cd34;
	return magic == 0xa1b2c3d4 || it->nanoseconds || it->modified;
}

/* One record; 0 if more bytes are needed or it is damaged. */
static size_t pcap_record(struct capture *it, const uint8_t *at, size_t left)
{
	uint32_t header = it->modified ? PCAP_RECORD_MODIFIED : PCAP_RECORD;
	uint32_t captured, original, fraction;
	int64_t time_ns;

	if (left < header)
		return 0;
	captured = u32(it, at + 8);
	original = u32(it, at + 12);
	if (captured > MAX_PACKET_BYTES)
		return broken(it, "a packet of more than 1 MiB");
	/* A packet of 1970 has a length: this was never written. */
	if (!captured && !original && !u32(it, at) && !u32(it, at + 4))
		return broken(it, "zeros in place of a packet");
	if (left - header < captured)
		return 0;
	/* Its headers will be there when this packet is done. */
	__builtin_prefetch(at + header + captured);
	__builtin_prefetch(at + header + captured + 64);
	fraction = u32(it, at + 4);
	time_ns = u32(it, at) * NANOSECONDS +
		  (int64_t)fraction * (it->nanoseconds ? 1 : 1000);
	capture_packet(it, at + header, captured, original, time_ns, it->link);
	return header + captured;
}

/* ---- the file */

static size_t begin(struct capture *it, const uint8_t *at, size_t left)
{
	uint32_t magic;

	if (left < 4)
		return 0;
	memcpy(&magic, at, sizeof(magic));
	if (magic == PCAPNG_MAGIC) {
		it->format = FORMAT_PCAPNG;
		return 0;
	}
	it->swapped = !pcap_magic(it, magic);
	if (it->swapped && !pcap_magic(it, __builtin_bswap32(magic)))
		return broken(it, "neither pcap nor pcapng");
	if (left < PCAP_HEADER)
		return 0;
	/* The upper bits tell of checksums, which nobody reads. */
	it->link = u32(it, at + 20) & 0x0fffffff;
	it->format = FORMAT_PCAP;
	return PCAP_HEADER;
}

static size_t next(struct capture *it, const uint8_t *at, size_t left)
{
	it->record_offset = it->offset;
	switch (it->format) {
	case FORMAT_PCAP:
		return pcap_record(it, at, left);
	case FORMAT_PCAPNG:
		return pcapng_block(it, at, left);
	default:
		return 0;
	}
}

/*
 * Take what is complete of these bytes; gives how many were taken. The rest must be fed again, with more
 * behind it. Where damage is set nothing more is taken: offset is where it began.
 */
size_t capture_feed(struct capture *it, const uint8_t *data, size_t length)
{
	size_t at = 0, taken;

	if (it->format == FORMAT_UNKNOWN) {
		at = begin(it, data, length);
		it->offset += at;
		if (it->format == FORMAT_UNKNOWN || it->format == FORMAT_BROKEN)
			return at;
	}
	while (at < length && !it->out_of_memory) {
		if (it->skip) {
			taken = it->skip < length - at ? (size_t)it->skip :
							 length - at;
			it->skip -= taken;
		} else {
			taken = next(it, data + at, length - at);
			if (it->skip)
				it->skip -= taken;
		}
		if (!taken)
			break;
		at += taken;
		it->offset += taken;
	}
	capture_flush(it);
	return at;
}

/* The file has no more bytes than those that were fed and not taken, and what capture_read() has left. */
void capture_end_file(struct capture *it, size_t left_bytes)
{
	left_bytes += it->left;
	if (it->damage)
		return;
	if (it->format == FORMAT_UNKNOWN)
		it->damage = left_bytes || it->offset ?
				     "neither pcap nor pcapng" :
				     "an empty file";
	else if (left_bytes || it->skip)
		it->damage = "the file ends inside a packet";
}

void capture_flush(struct capture *it)
{
	queue_drain(it);
}

/* Give open flows, as many as a caller likes to hold at once; true while there are more. */
bool capture_finish(struct capture *it)
{
	capture_flush(it);
	return table_finish(it);
}
