// SPDX-License-Identifier: Apache-2.0
/*
 * What C needs to empty a UDP socket, loaded into the process that measures: by recvmmsg
 * and by recvfrom, with addresses and without looking at them.
 */
#define _GNU_SOURCE
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>

#define SLOTS 64
#define SLOT_BYTES 2048

static char memory[SLOTS][SLOT_BYTES];
static struct sockaddr_storage names[SLOTS];
static struct iovec parts[SLOTS];
static struct mmsghdr messages[SLOTS];

/* Datagrams received until there are no more. */
long drain_recvmmsg(int fd)
{
	long total = 0;
	int got, i;

	for (;;) {
		for (i = 0; i < SLOTS; i++) {
			parts[i].iov_base = memory[i];
			parts[i].iov_len = SLOT_BYTES;
			memset(&messages[i], 0, sizeof(messages[i]));
			messages[i].msg_hdr.msg_iov = &parts[i];
			messages[i].msg_hdr.msg_iovlen = 1;
			messages[i].msg_hdr.msg_name = &names[i];
			messages[i].msg_hdr.msg_namelen = sizeof(names[i]);
		}
		got = recvmmsg(fd, messages, SLOTS, MSG_DONTWAIT, NULL);
		if (got <= 0)
			return total;
		total += got;
	}
}

long drain_recvfrom(int fd)
{
	socklen_t length = sizeof(names[0]);
	long total = 0;

	while (recvfrom(fd, memory[0], SLOT_BYTES, MSG_DONTWAIT,
			(struct sockaddr *)&names[0], &length) >= 0) {
		length = sizeof(names[0]);
		total++;
	}
	return total;
}
