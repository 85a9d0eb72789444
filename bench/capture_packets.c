// SPDX-License-Identifier: Apache-2.0
/*
 * capture_packets PACKETS LIVE SEED: a pcap on standard output. LIVE connections at any time, in random turns: handshake,
 * a request, an answer in several segments, and an end; one in a hundred ends with a RST instead of FINs,
 * one in ten is IPv6. Payload is random, so it does not compress.
 */
#include <arpa/inet.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FIN = 1, SYN = 2, RST = 4, PSH = 8, ACK = 16, MAX_PAYLOAD = 1448 };

struct connection {
	uint8_t client[16], server[16];
	uint16_t port, server_port, id[2];
	uint32_t seq[2]; /* next of client and server */
	uint32_t step, data_steps;
	int v6, reset;
};

static uint64_t state;
static uint8_t noise[1 << 16];

static uint64_t chance(void)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state;
}

static void put32(uint8_t *at, uint32_t value)
{
	value = htonl(value);
	memcpy(at, &value, 4);
}

static void put16(uint8_t *at, uint16_t value)
{
	value = htons(value);
	memcpy(at, &value, 2);
}

static void begin(struct connection *it)
{
	uint64_t a = chance(), b = chance();

	memset(it, 0, sizeof(*it));
	it->v6 = chance() % 10 == 0;
	it->reset = chance() % 100 == 0;
	memcpy(it->client + 8, &a, 8);
	memcpy(it->server + 8, &b, 8);
	it->client[0] = it->server[0] = 0x20;
	it->server[15] &= 0x3f;
	it->port = (uint16_t)(32768 + chance() % 28000);
	it->server_port = 443;
	it->seq[0] = (uint32_t)chance();
	it->seq[1] = (uint32_t)chance();
	it->data_steps = 2 + chance() % 10;
}

/* One frame in buffer; gives its length. */
static uint32_t frame(struct connection *it, uint8_t *out, int from,
		      uint16_t flags, uint32_t payload)
{
	uint32_t ip_header = it->v6 ? 40 : 20, tcp_header = 32;
	uint8_t *ip = out + 14, *tcp = ip + ip_header;
	const uint8_t *src = from ? it->server : it->client,
		      *dst = from ? it->client : it->server;

	memset(out, 2, 12);
	put16(out + 12, it->v6 ? 0x86dd : 0x0800);
	if (it->v6) {
		put32(ip, 6u << 28);
		put16(ip + 4, (uint16_t)(tcp_header + payload));
		ip[6] = 6;
		ip[7] = from ? 57 : 64;
		memcpy(ip + 8, src, 16);
		memcpy(ip + 24, dst, 16);
	} else {
		memset(ip, 0, 20);
		ip[0] = 0x45;
		put16(ip + 2, (uint16_t)(20 + tcp_header + payload));
		put16(ip + 4, it->id[from]++);
		ip[6] = 0x40;
		ip[8] = from ? 57 : 64;
		ip[9] = 6;
		memcpy(ip + 12, src + 12, 4);
		memcpy(ip + 16, dst + 12, 4);
	}
	put16(tcp, from ? it->server_port : it->port);
	put16(tcp + 2, from ? it->port : it->server_port);
	put32(tcp + 4, it->seq[from]);
	put32(tcp + 8, flags & ACK ? it->seq[!from] : 0);
	put16(tcp + 12, (uint16_t)(8 << 12 | flags));
	put16(tcp + 14, 501);
	put32(tcp + 16, 0);
	put32(tcp + 20, 0x0101080a);
	put32(tcp + 24, it->step);
	put32(tcp + 28, it->step);
	memcpy(tcp + tcp_header,
	       noise + chance() % (sizeof(noise) - MAX_PAYLOAD), payload);
	it->seq[from] +=
		payload + (flags & SYN ? 1 : 0) + (flags & FIN ? 1 : 0);
	return 14 + ip_header + tcp_header + payload;
}

static uint32_t next(struct connection *it, uint8_t *out)
{
	uint32_t step = it->step++, last = 4 + 2 * it->data_steps;

	if (step == 0)
		return frame(it, out, 0, SYN, 0);
	if (step == 1)
		return frame(it, out, 1, SYN | ACK, 0);
	if (step == 2)
		return frame(it, out, 0, ACK, 0);
	if (step == 3)
		return frame(it, out, 0, PSH | ACK, 100 + chance() % 400);
	if (step < last)
		return step % 2 ? frame(it, out, 0, ACK, 0) :
				  frame(it, out, 1, PSH | ACK,
					200 + chance() % (MAX_PAYLOAD - 200));
	if (it->reset)
		return frame(it, out, step % 2, RST | ACK, 0);
	if (step == last)
		return frame(it, out, 1, FIN | ACK, 0);
	if (step == last + 1)
		return frame(it, out, 0, FIN | ACK, 0);
	return frame(it, out, 1, ACK, 0);
}

static int is_over(const struct connection *it)
{
	uint32_t last = 4 + 2 * it->data_steps;

	return it->step > last + (it->reset ? 0 : 2);
}

int main(int count, char **arguments)
{
	static uint8_t out[1 << 12];
	uint32_t header[6] = { 0xa1b2c3d4, 2 | 4 << 16, 0, 0, 262144, 1 };
	long packets = count == 4 ? atol(arguments[1]) : 0,
	     live = count == 4 ? atol(arguments[2]) : 0;
	struct connection *all =
		live > 0 ? calloc((size_t)live, sizeof(*all)) : NULL;

	if (!all || packets <= 0)
		return 2;
	state = strtoull(arguments[3], NULL, 10) | 1;
	for (size_t i = 0; i < sizeof(noise); i++)
		noise[i] = (uint8_t)chance();
	for (long i = 0; i < live; i++)
		begin(&all[i]);
	fwrite(header, sizeof(header), 1, stdout);
	for (long i = 0; i < packets; i++) {
		struct connection *it = &all[chance() % (uint64_t)live];
		uint32_t length = next(it, out);
		uint32_t record[4] = { (uint32_t)(1700000000 + i / 100000),
				       (uint32_t)(i % 100000 * 10), length,
				       length };

		fwrite(record, sizeof(record), 1, stdout);
		fwrite(out, length, 1, stdout);
		if (is_over(it))
			begin(it);
	}
	return fflush(stdout) ? 1 : 0;
}
