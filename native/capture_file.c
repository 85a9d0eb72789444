// SPDX-License-Identifier: Apache-2.0
/*
 * From the bytes of a pcap or pcapng file to packets. The caller feeds what it has and keeps what was not
 * consumed, so a packet always lies in one piece.
 */
#include "capture.h"

#include <stdlib.h>
#include <string.h>

enum {
	PCAP_HEADER = 24,
	PCAP_RECORD = 16,
	PCAP_RECORD_MODIFIED = 24, /* Kuznetzov's: interface, protocol, type */
	BLOCK_MIN = 12,
	BLOCK_SECTION = 0x0a0d0d0a,
	BLOCK_INTERFACE = 1,
	BLOCK_PACKET = 2, /* obsolete */
	BLOCK_SIMPLE = 3,
	BLOCK_STATISTICS = 5,
	BLOCK_ENHANCED = 6,
	MAX_SECTION_BYTES = 1 << 20
};

struct capture *capture_new(const uint64_t seed[4], uint32_t max_flows,
			    uint64_t ring_bytes, uint64_t evidence_bytes,
			    bool want_rows)
{
	struct capture *it = calloc(1, sizeof(*it));

	if (!it)
		return NULL;
	it->want_rows = want_rows;
	it->origins = malloc(MAX_ORIGINS * sizeof(*it->origins));
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
	free(it->rows.bytes);
	free(it->records.bytes);
	free(it);
}

/* A number for (file, interface); the sections of a file share those of equal index. */
static uint16_t origin_of(struct capture *it, uint32_t interface)
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
	it->offset = it->skip = 0;
	it->interface_count = 0;
	it->damage = NULL;
	it->live = false;
	it->file_origin = it->origin_count;
	it->origin = it->packet_origin = origin_of(it, 0);
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

static size_t broken(struct capture *it, const char *what)
{
	it->format = FORMAT_BROKEN;
	it->damage = what;
	return 0;
}

static uint32_t u32(const struct capture *it, const uint8_t *at)
{
	uint32_t value;

	memcpy(&value, at, sizeof(value));
	return it->swapped ? __builtin_bswap32(value) : value;
}

static uint16_t u16(const struct capture *it, const uint8_t *at)
{
	uint16_t value;

	memcpy(&value, at, sizeof(value));
	return it->swapped ? __builtin_bswap16(value) : value;
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

/* ---- pcapng */

/* Ticks of an interface's clock to ns, modulo 2^64 where a hostile file overflows it. */
static int64_t clock_ns(const struct interface *of, uint64_t ticks)
{
	uint8_t power = of->resolution & 0x7f;
	unsigned __int128 ns = ticks;

	if (of->resolution & 0x80) {
		ns = ns * (uint64_t)NANOSECONDS >> power;
	} else {
		for (; power < 9; power++)
			ns *= 10;
		for (; power > 9 && ns; power--)
			ns /= 10;
	}
	return (int64_t)((uint64_t)ns +
			 (uint64_t)of->offset_s * (uint64_t)NANOSECONDS);
}

static uint64_t u64(const struct capture *it, const uint8_t *at)
{
	uint64_t value;

	memcpy(&value, at, sizeof(value));
	return it->swapped ? __builtin_bswap64(value) : value;
}

/* The next option of a block, which *at is moved past; NULL at the end. */
static const uint8_t *next_option(const struct capture *it, const uint8_t **at,
				  const uint8_t *end, uint16_t *code,
				  uint16_t *size)
{
	const uint8_t *value;
	size_t padded;

	if (end - *at < 4)
		return NULL;
	*code = u16(it, *at);
	*size = u16(it, *at + 2);
	value = *at + 4;
	if (*code == 0 || *size > end - value)
		return NULL;
	padded = (*size + 3u) & ~3u;
	*at = padded < (size_t)(end - value) ? value + padded : end;
	return value;
}

static void read_interface(struct capture *it, const uint8_t *body,
			   uint32_t length)
{
	struct interface *made;
	const uint8_t *at = body + 8, *value;
	uint16_t code, size;

	if (length < 8 || it->interface_count == MAX_INTERFACES)
		return;
	made = &it->interfaces[it->interface_count];
	*made = (struct interface){ .link = u16(it, body),
				    .snap_bytes = u32(it, body + 4),
				    .resolution = 6 };
	made->origin = origin_of(it, it->interface_count++);
	while ((value = next_option(it, &at, body + length, &code, &size))) {
		if (code == 9 && size == 1)
			made->resolution = value[0];
		if (code == 14 && size == 8)
			made->offset_s = (int64_t)u64(it, value);
	}
}

/* What the capturing program says it lost; each report of an interface takes the place of the one before. */
static void read_statistics(struct capture *it, const uint8_t *body,
			    uint32_t length)
{
	const uint8_t *at = body + 12, *value;
	uint64_t dropped = 0;
	uint16_t code, size;
	bool said = false;

	if (length < 12 || u32(it, body) >= it->interface_count)
		return;
	while ((value = next_option(it, &at, body + length, &code, &size))) {
		if ((code == 5 || code == 7) && size == 8) {
			dropped += u64(it, value);
			said = true;
		}
	}
	if (!said)
		return;
	it->counts.dropped += dropped - it->interfaces[u32(it, body)].dropped;
	it->interfaces[u32(it, body)].dropped = dropped;
	it->counts.drop_reports++;
}

static void from_interface(struct capture *it, uint32_t index,
			   const uint8_t *data, uint32_t captured,
			   uint32_t original, uint64_t ticks)
{
	/* Nobody described it, so nobody can read its packets. */
	static const struct interface none = { .link = UINT32_MAX,
					       .resolution = 6 };
	const struct interface *of = &none;

	it->packet_origin = it->origin;
	if (index < it->interface_count) {
		of = &it->interfaces[index];
		it->packet_origin = of->origin;
	}
	capture_packet(it, data, captured, original, clock_ns(of, ticks),
		       of->link);
}

/* A packet block's body; false if its lengths contradict. */
static bool packet_block(struct capture *it, uint32_t type, const uint8_t *body,
			 uint32_t length)
{
	uint32_t captured, index;
	uint64_t ticks;

	if (length < 20)
		return false;
	index = type == BLOCK_PACKET ? u16(it, body) : u32(it, body);
	ticks = (uint64_t)u32(it, body + 4) << 32 | u32(it, body + 8);
	captured = u32(it, body + 12);
	if (captured > length - 20)
		return false;
	from_interface(it, index, body + 20, captured, u32(it, body + 16),
		       ticks);
	return true;
}

static bool simple_block(struct capture *it, const uint8_t *body,
			 uint32_t length)
{
	uint32_t original, captured;

	if (length < 4)
		return false;
	original = u32(it, body);
	captured = length - 4;
	if (captured > original)
		captured = original;
	if (it->interface_count && it->interfaces[0].snap_bytes &&
	    captured > it->interfaces[0].snap_bytes)
		captured = it->interfaces[0].snap_bytes;
	/* A simple packet has no time: it gets that of the packet before it. */
	if (!it->interface_count)
		return false;
	it->packet_origin = it->interfaces[0].origin;
	capture_packet(it, body + 4, captured, original, it->time_ns,
		       it->interfaces[0].link);
	return true;
}

static bool begin_section(struct capture *it, const uint8_t *at)
{
	uint32_t order;

	memcpy(&order, at + 8, sizeof(order));
	it->swapped = order == 0x4d3c2b1a;
	it->interface_count = 0;
	return it->swapped || order == 0x1a2b3c4d;
}

static size_t pcapng_block(struct capture *it, const uint8_t *at, size_t left)
{
	uint32_t type, length, body;
	bool fine = true;

	if (left < BLOCK_MIN)
		return 0;
	memcpy(&type, at, sizeof(type)); /* reads the same in both orders */
	if (type == BLOCK_SECTION && !begin_section(it, at))
		return broken(it, "a section in no known byte order");
	if (type != BLOCK_SECTION)
		type = u32(it, at);
	length = u32(it, at + 4);
	if (length < BLOCK_MIN || length % 4)
		return broken(it, "a block with an impossible length");
	if (length > MAX_PACKET_BYTES + 4096) {
		if (type == BLOCK_ENHANCED || type == BLOCK_SIMPLE ||
		    type == BLOCK_PACKET || type == BLOCK_SECTION ||
		    type == BLOCK_INTERFACE)
			return broken(it, "a block of more than 1 MiB");
		it->skip = length;
		return left < length ? left : length;
	}
	if (left < length)
		return 0;
	if (u32(it, at + length - 4) != length)
		return broken(it, "a block whose two lengths differ");
	body = length - BLOCK_MIN;
	if (type == BLOCK_ENHANCED || type == BLOCK_PACKET)
		fine = packet_block(it, type, at + 8, body);
	else if (type == BLOCK_SIMPLE)
		fine = simple_block(it, at + 8, body);
	else if (type == BLOCK_INTERFACE)
		read_interface(it, at + 8, body);
	else if (type == BLOCK_STATISTICS)
		read_statistics(it, at + 8, body);
	if (!fine)
		return broken(it, "a packet block whose lengths contradict");
	return length;
}

/* ---- the file */

static size_t begin(struct capture *it, const uint8_t *at, size_t left)
{
	uint32_t magic;

	if (left < 4)
		return 0;
	memcpy(&magic, at, sizeof(magic));
	if (magic == BLOCK_SECTION) {
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

/* The file has no more bytes than those that were fed and not taken. */
void capture_end_file(struct capture *it, size_t left_bytes)
{
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
