// SPDX-License-Identifier: Apache-2.0
/*
 * capture_floor FILE read | walk: the least that reading a pcap costs: its bytes into aligned memory, or that and a
 * look at the TCP flags of each packet (Ethernet, IPv4 and IPv6). Prints what it counted.
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { HEAD = 1 << 17, CHUNK = 1 << 20 };

static uint64_t packets, resets;

static void look(const uint8_t *frame, uint32_t length)
{
	uint32_t ip;

	if (length < 14 + 40)
		return;
	if (frame[12] == 0x08)
		ip = (frame[14] & 15) * 4u;
	else
		ip = 40;
	if (14 + ip + 14 <= length)
		resets += frame[14 + ip + 13] >> 2 & 1;
}

/* Gives how many bytes were whole packets. */
static size_t walk(const uint8_t *at, size_t left)
{
	size_t taken = 0;
	uint32_t length;

	while (left - taken >= 16) {
		memcpy(&length, at + taken + 8, 4);
		if (length > HEAD - 16 || left - taken - 16 < length)
			break;
		look(at + taken + 16, length);
		packets++;
		taken += 16 + length;
	}
	return taken;
}

int main(int count, char **arguments)
{
	uint8_t *memory = aligned_alloc(4096, HEAD + CHUNK),
		*begin = memory + HEAD;
	int fd = count == 3 ? open(arguments[1], O_RDONLY) : -1;
	int all = count == 3 && !strcmp(arguments[2], "walk"), first = 24;
	ssize_t got;

	if (fd < 0 || !memory)
		return 2;
	while ((got = read(fd, memory + HEAD, CHUNK)) > 0) {
		uint8_t *end = memory + HEAD + got;
		size_t left;

		if (!all)
			continue;
		begin += first;
		first = 0;
		begin += walk(begin, (size_t)(end - begin));
		left = (size_t)(end - begin);
		begin = memory + HEAD - left;
		memmove(begin, end - left, left);
	}
	printf("%llu packets, %llu resets\n", (unsigned long long)packets,
	       (unsigned long long)resets);
	return got < 0;
}
