// SPDX-License-Identifier: Apache-2.0
/*
 * flood INTERFACE SECONDS RATE < FRAMES
 *
 * Sends ready-made Ethernet frames (each preceded by its length, 16 bits in host order)
 * over and over, past the queueing discipline: RATE of them each second, or, if RATE is
 * 0, as many as the kernel takes. Prints how many were sent and how many nanoseconds that
 * lasted. Nothing is computed here: what a frame says was decided by whoever made it.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define FRAMES_MAX 65536
#define FRAME_BYTES_MAX 256
#define BATCH 64

static unsigned char frames[FRAMES_MAX][FRAME_BYTES_MAX];
static struct iovec parts[FRAMES_MAX];
static struct mmsghdr messages[FRAMES_MAX];
static unsigned int frames_read, interface;
static uint64_t duration_ns;

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static void read_frames(void)
{
	uint16_t bytes;

	while (frames_read < FRAMES_MAX &&
	       fread(&bytes, sizeof(bytes), 1, stdin) == 1) {
		unsigned int i = frames_read++;

		if (bytes > FRAME_BYTES_MAX ||
		    fread(frames[i], bytes, 1, stdin) != 1)
			fail("reading a frame");
		parts[i].iov_base = frames[i];
		parts[i].iov_len = bytes;
		messages[i].msg_hdr.msg_iov = &parts[i];
		messages[i].msg_hdr.msg_iovlen = 1;
	}
	if (!frames_read)
		fail("no frames");
}

static int open_socket(void)
{
	struct sockaddr_ll address = { .sll_family = AF_PACKET,
				       .sll_ifindex = (int)interface };
	int one = 1, s = socket(AF_PACKET, SOCK_RAW, 0);

	if (s < 0 || bind(s, (struct sockaddr *)&address, sizeof(address)))
		fail("packet socket");
	if (setsockopt(s, SOL_PACKET, PACKET_QDISC_BYPASS, &one, sizeof(one)))
		fail("PACKET_QDISC_BYPASS");
	return s;
}

/* Sleeps until `due`, unless that has passed. */
static void wait_until(uint64_t due)
{
	struct timespec t = { .tv_sec = (time_t)(due / 1000000000),
			      .tv_nsec = (long)(due % 1000000000) };

	clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL);
}

static uint64_t send_all(int s, uint64_t begin, double rate)
{
	uint64_t end = begin + duration_ns, sent = 0;
	unsigned int at = 0, batch;
	int took;

	while (now_ns() < end) {
		batch = frames_read - at < BATCH ? frames_read - at : BATCH;
		took = sendmmsg(s, &messages[at], batch, 0);
		if (took < 0)
			fail("sendmmsg");
		sent += (uint64_t)took;
		at = (at + (unsigned int)took) % frames_read;
		if (rate > 0)
			wait_until(begin +
				   (uint64_t)((double)sent / rate * 1e9));
	}
	return sent;
}

int main(int argc, char **argv)
{
	uint64_t begin, sent;

	if (argc != 4)
		return 2;
	interface = if_nametoindex(argv[1]);
	if (!interface)
		fail(argv[1]);
	duration_ns = (uint64_t)(atof(argv[2]) * 1e9);
	read_frames();
	begin = now_ns();
	sent = send_all(open_socket(), begin, atof(argv[3]));
	printf("%llu %llu\n", (unsigned long long)sent,
	       (unsigned long long)(now_ns() - begin));
	return 0;
}
