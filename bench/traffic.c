// SPDX-License-Identifier: Apache-2.0
/*
 * traffic connect SECONDS   connect, 64 bytes there and back, close; over and over
 * traffic abort SECONDS     the same, but the client closes with SO_LINGER 0: a reset
 * traffic bulk SECONDS      one connection, as many bytes as it takes
 *
 * Both ends are in this process, on 127.0.0.1 of the namespace it runs in: the client in
 * the first thread, the server in a second. Prints how many (connections, bytes) and
 * how many nanoseconds that lasted.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MESSAGE_BYTES 64
#define CHUNK_BYTES (128 * 1024)

static struct sockaddr_in address = { .sin_family = AF_INET };
static int listener;
static bool bulk, abortive;
static char sent_chunk[CHUNK_BYTES], received_chunk[CHUNK_BYTES];

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

static void *serve(void *unused)
{
	char message[MESSAGE_BYTES];
	ssize_t got;
	int s;

	for (;;) {
		s = accept(listener, NULL, NULL);
		if (s < 0)
			fail("accept");
		while (bulk && read(s, received_chunk, CHUNK_BYTES) > 0)
			;
		while (!bulk && (got = read(s, message, sizeof(message))) > 0)
			if (write(s, message, (size_t)got) != got)
				fail("server write");
		close(s);
	}
	return unused;
}

static int dial(void)
{
	int one = 1, s = socket(AF_INET, SOCK_STREAM, 0);

	if (s < 0 || connect(s, (struct sockaddr *)&address, sizeof(address)))
		fail("connect");
	setsockopt(s, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	return s;
}

static uint64_t echo_once(void)
{
	char message[MESSAGE_BYTES] = "holdfast";
	struct linger none = { .l_onoff = 1 };
	int s = dial();

	if (write(s, message, sizeof(message)) != sizeof(message) ||
	    recv(s, message, sizeof(message), MSG_WAITALL) != sizeof(message))
		fail("echo");
	if (abortive)
		setsockopt(s, SOL_SOCKET, SO_LINGER, &none, sizeof(none));
	close(s);
	return 1;
}

static uint64_t repeat(uint64_t end)
{
	uint64_t done = 0;
	ssize_t wrote;
	int s;

	if (!bulk) {
		while (now_ns() < end)
			done += echo_once();
		return done;
	}
	s = dial();
	while (now_ns() < end) {
		wrote = write(s, sent_chunk, CHUNK_BYTES);
		if (wrote < 0)
			fail("write");
		done += (uint64_t)wrote;
	}
	close(s);
	return done;
}

int main(int argc, char **argv)
{
	socklen_t bytes = sizeof(address);
	uint64_t begin, done;
	pthread_t server;

	if (argc != 3)
		return 2;
	bulk = !strcmp(argv[1], "bulk");
	abortive = !strcmp(argv[1], "abort");
	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	listener = socket(AF_INET, SOCK_STREAM, 0);
	if (bind(listener, (struct sockaddr *)&address, bytes) ||
	    listen(listener, 128) ||
	    getsockname(listener, (struct sockaddr *)&address, &bytes))
		fail("listen");
	if (pthread_create(&server, NULL, serve, NULL))
		fail("pthread_create");
	begin = now_ns();
	done = repeat(begin + (uint64_t)(atof(argv[2]) * 1e9));
	printf("%llu %llu\n", (unsigned long long)done,
	       (unsigned long long)(now_ns() - begin));
	return 0;
}
