// SPDX-License-Identifier: Apache-2.0
/* Stands between a program and libc: the next calls fail as a test says. Loaded with LD_PRELOAD. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>

static struct {
	char name[16];
	int after, times, error;
} plan;
static int calls;

/* The calls of this name after the first `after` fail with `error`, `times` of them. */
void inject(const char *name, int after, int times, int error)
{
	strncpy(plan.name, name, sizeof(plan.name) - 1);
	plan.after = after;
	plan.times = times;
	plan.error = error;
	calls = 0;
}

static int fails(const char *name)
{
	if (strcmp(name, plan.name))
		return 0;
	if (calls++ < plan.after || plan.times == 0)
		return 0;
	plan.times--;
	errno = plan.error;
	return 1;
}

ssize_t recv(int fd, void *data, size_t size, int flags)
{
	ssize_t (*real)(int, void *, size_t, int) = dlsym(RTLD_NEXT, "recv");

	return fails("recv") ? -1 : real(fd, data, size, flags);
}

ssize_t send(int fd, const void *data, size_t size, int flags)
{
	ssize_t (*real)(int, const void *, size_t, int) = dlsym(RTLD_NEXT, "send");

	return fails("send") ? -1 : real(fd, data, size, flags);
}

int ppoll(struct pollfd *fds, nfds_t count, const struct timespec *wait, const sigset_t *mask)
{
	int (*real)(struct pollfd *, nfds_t, const struct timespec *, const sigset_t *) =
		dlsym(RTLD_NEXT, "ppoll");

	return fails("poll") ? -1 : real(fds, count, wait, mask);
}

int poll(struct pollfd *fds, nfds_t count, int wait_ms)
{
	int (*real)(struct pollfd *, nfds_t, int) = dlsym(RTLD_NEXT, "poll");

	return fails("poll") ? -1 : real(fds, count, wait_ms);
}
