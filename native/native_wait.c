// SPDX-License-Identifier: Apache-2.0
/*
 * Waiting for a socket: one absolute deadline, signals served and never counted, and a descriptor that
 * another thread can wake.
 */
#define _GNU_SOURCE /* ppoll */
#include "native_wait.h"

#include <errno.h>
#include <math.h>
#include <poll.h>
#include <time.h>

/* A socket that another thread has closed goes on being polled: look again this often. */
#define SLICE_S 0.5
#define NAP_S 0.001

static double now_s(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static int raise_errno(int error)
{
	errno = error;
	PyErr_SetFromErrno(PyExc_OSError);
	return -1;
}

/* Ask the socket for its descriptor. */
static int look_up(struct wait *wait)
{
	static PyObject *name;
	PyObject *number;
	long fd;

	if (!name)
		name = PyUnicode_InternFromString("fileno");
	number = name ? PyObject_CallMethodNoArgs(wait->sock, name) : NULL;
	if (!number)
		return -1;
	fd = PyLong_AsLong(number);
	Py_DECREF(number);
	if (fd == -1 && PyErr_Occurred())
		return -1;
	if (fd < 0 || fd > INT_MAX)
		return raise_errno(EBADF);
	wait->fd = (int)fd;
	return 0;
}

int wait_open(struct wait *wait, PyObject *sock, short events)
{
	*wait = (struct wait){
		.sock = sock,
		.events = events,
		.deadline_s = INFINITY,
		.wake_fd = -1,
	};
	return look_up(wait);
}

/* No deadline was given: the socket's own timeout begins to count now. */
static int adopt_timeout(struct wait *wait)
{
	static PyObject *name;
	PyObject *timeout;
	double seconds;

	wait->own = false;
	if (!name)
		name = PyUnicode_InternFromString("gettimeout");
	timeout = name ? PyObject_CallMethodNoArgs(wait->sock, name) : NULL;
	if (!timeout)
		return -1;
	seconds = timeout == Py_None ? INFINITY : PyFloat_AsDouble(timeout);
	Py_DECREF(timeout);
	if (seconds == -1.0 && PyErr_Occurred())
		return -1;
	if (seconds <= 0)
		return raise_errno(EAGAIN);
	wait->deadline_s = now_s() + seconds;
	return 0;
}

/* poll without the interpreter lock; -1 with an exception set. */
static int poll_for(struct pollfd *polled, nfds_t count, double span_s)
{
	struct timespec span = { .tv_sec = (time_t)span_s };
	int ready, error;

	span.tv_nsec = (long)((span_s - (double)span.tv_sec) * 1e9);
	Py_BEGIN_ALLOW_THREADS;
	ready = ppoll(polled, count, &span, NULL);
	error = errno;
	Py_END_ALLOW_THREADS;
	/* Each time: one that another thread took, or that came between two polls, interrupts no poll. */
	if (PyErr_CheckSignals())
		return -1;
	if (ready >= 0)
		return ready;
	return error == EINTR ? 0 : raise_errno(error);
}

static enum wait_end wait_ready(struct wait *wait)
{
	struct pollfd polled[] = {
		{ .fd = wait->wake_fd, .events = POLLIN },
		/* A negative descriptor is passed over. */
		{ .fd = wait->fd, .events = wait->events },
	};
	double left_s;
	int ready;

	if (wait->own && adopt_timeout(wait))
		return WAIT_FAILED;
	if (wait->deadline_s == -INFINITY)
		return WAIT_DEADLINE;
	left_s = wait->deadline_s - now_s();
	if (!(left_s > 0)) /* not a number: it would never pass */
		return WAIT_DEADLINE;
	/*
	 * Ready, and still EAGAIN: an unread error queue keeps POLLERR set, and a Unix
	 * socket without a peer is writable though the receiver is full. Polling it
	 * again would spin.
	 */
	if (wait->polled)
		ready = poll_for(polled, 1, fmin(left_s, NAP_S));
	else
		ready = poll_for(polled, 2, fmin(left_s, SLICE_S));
	if (ready < 0)
		return WAIT_FAILED;
	if (ready && polled[0].revents)
		return WAIT_WOKEN;
	wait->polled = ready > 0;
	return look_up(wait) ? WAIT_FAILED : WAIT_READY;
}

enum wait_end wait_after(struct wait *wait, int error)
{
	if (error == EAGAIN || error == EWOULDBLOCK)
		return wait_ready(wait);
	if (error != EINTR) {
		raise_errno(error);
		return WAIT_FAILED;
	}
	/* A signal's handler may raise, and may have closed the socket. */
	return PyErr_CheckSignals() || look_up(wait) ? WAIT_FAILED : WAIT_READY;
}
