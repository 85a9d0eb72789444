// SPDX-License-Identifier: Apache-2.0
/* The least that receiving costs: recv() in a loop, one call a message. */
#include <sys/socket.h>
#include <sys/types.h>

/* 0 when all came, -1 on an error or an early end. */
int drain(int fd, void *buffer, size_t size_bytes, size_t left_bytes)
{
	while (left_bytes) {
		ssize_t got = recv(fd, buffer, size_bytes, 0);

		if (got <= 0)
			return -1;
		left_bytes -= (size_t)got;
	}
	return 0;
}
