// SPDX-License-Identifier: Apache-2.0
/*
 * The loop that is often written around recv(): five attempts, a pause that doubles, resets logged. Its
 * faults are meant: test_naive_loop.py shows them beside what Holdfast does.
 */
#include <errno.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <time.h>

#define ATTEMPTS 5
#define FIRST_PAUSE_NS (1000 * 1000)
#define LONGEST_PAUSE_NS (8000 * 1000)

static int resets_logged; /* a program would print a line */

int naive_resets_logged(void)
{
	return resets_logged;
}

/* What recv() returned, or -1 with errno when the attempts are spent. */
ssize_t naive_recv(int fd, void *buffer, size_t size_bytes)
{
	struct timespec pause = { .tv_nsec = FIRST_PAUSE_NS };
	int attempt;

	for (attempt = 0; attempt < ATTEMPTS; attempt++) {
		ssize_t got = recv(fd, buffer, size_bytes, 0);

		if (got >= 0)
			return got;
		if (errno == EINTR)
			continue;
		if (errno == EAGAIN) {
			nanosleep(&pause, NULL);
			pause.tv_nsec *= 2;
			if (pause.tv_nsec > LONGEST_PAUSE_NS)
				pause.tv_nsec = LONGEST_PAUSE_NS;
			errno = EAGAIN;
			continue;
		}
		if (errno == ECONNRESET)
			resets_logged++;
		return -1;
	}
	return -1;
}
