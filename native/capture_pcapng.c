// SPDX-License-Identifier: Apache-2.0
/* The blocks of a pcapng file. */
#include "capture_file.h"

enum {
	BLOCK_MIN = 12,
	BLOCK_SECTION = PCAPNG_MAGIC,
	BLOCK_INTERFACE = 1,
	BLOCK_PACKET = 2, /* obsolete */
	BLOCK_SIMPLE = 3,
	BLOCK_STATISTICS = 5,
	BLOCK_ENHANCED = 6
};

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
	made->origin = capture_origin(it, it->interface_count++);
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

/* One block; 0 if more bytes are needed or it is damaged. */
size_t pcapng_block(struct capture *it, const uint8_t *at, size_t left)
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
