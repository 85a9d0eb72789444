// SPDX-License-Identifier: Apache-2.0
/*
 * Waiting for a socket: one absolute deadline, signals served and never counted, and a descriptor that
 * another thread can wake.
 */
#define _GNU_SOURCE /* ppoll */
#include "native.h"

#include <errno.h>
#include <math.h>
#include <poll.h>
#include <time.h>

/* How soon a socket that another thread has closed is noticed: its old file goes on being polled. */
#define SLICE_S 0.5

static double now_s(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* The descriptor of a socket; -1 with an exception set, EBADF for one that is closed. */
int sock_fd(PyObject *sock)
{
	PyObject *number;
	long fd;

	if (PyLong_CheckExact(sock)) {
		number = Py_NewRef(sock);
	} else {
		static PyObject *name;

		if (!name)
			name = PyUnicode_InternFromString("fileno");
		number = name ? PyObject_CallMethodNoArgs(sock, name) : NULL;
		if (!number)
			return -1;
	}
	fd = PyLong_AsLong(number);
	Py_DECREF(number);
	if (fd < 0 || fd > INT_MAX) {
		if (!PyErr_Occurred()) {
			errno = EBADF;
			PyErr_SetFromErrno(PyExc_OSError);
		}
		return -1;
	}
	return (int)fd;
}

int patience_init(struct patience *limit, PyObject *sock, PyObject *deadline,
		  PyObject *wake_fd)
{
	limit->sock = sock;
	limit->own = deadline == Py_None;
	limit->deadline_s = INFINITY;
	limit->wake_fd = -1;
	if (!limit->own) {
		limit->deadline_s = PyFloat_AsDouble(deadline);
		if (limit->deadline_s == -1.0 && PyErr_Occurred())
			return -1;
		if (isnan(limit->deadline_s)) {
			PyErr_SetString(PyExc_ValueError,
					"the deadline is not a number");
			return -1;
		}
	}
	if (wake_fd != Py_None) {
		limit->wake_fd = (int)PyLong_AsLong(wake_fd);
		if (limit->wake_fd == -1 && PyErr_Occurred())
			return -1;
	}
	return 0;
}

/* No deadline was given: the socket's own timeout begins to count now. */
static int adopt_timeout(struct patience *limit)
{
	PyObject *timeout;
	double seconds;

	if (!limit->own)
		return 0;
	limit->own = false;
	if (PyLong_CheckExact(limit->sock))
		return 0;
	timeout = PyObject_CallMethod(limit->sock, "gettimeout", NULL);
	if (!timeout)
		return -1;
	if (timeout == Py_None) {
		Py_DECREF(timeout);
		return 0;
	}
	seconds = PyFloat_AsDouble(timeout);
	Py_DECREF(timeout);
	if (seconds == -1.0 && PyErr_Occurred())
		return -1;
	if (seconds <= 0) {
		errno = EAGAIN;
		PyErr_SetFromErrno(PyExc_OSError);
		return -1;
	}
	limit->deadline_s = now_s() + seconds;
	return 0;
}

static struct timespec span(double seconds)
{
	struct timespec wait = { .tv_sec = (time_t)seconds };

	wait.tv_nsec = (long)((seconds - (double)wait.tv_sec) * 1e9);
	return wait;
}

/*
 * Returns when the socket has any of these events, an error or a hang-up, and leaves its descriptor in
 * *fd, read anew: the call that follows reports what it was.
 */
enum wait_end await_events(struct patience *limit, int *fd, short events)
{
	if (adopt_timeout(limit))
		return WAIT_FAILED;
	for (;;) {
		struct pollfd polled[] = {
			{ .fd = *fd, .events = events },
			{ .fd = limit->wake_fd, .events = POLLIN },
		};
		double left_s = limit->deadline_s - now_s();
		struct timespec wait;
		int ready, failed;

		/* The last look is at the socket, not at the clock. */
		wait = span(left_s <= 0	     ? 0 :
			    left_s < SLICE_S ? left_s :
					       SLICE_S);
		Py_BEGIN_ALLOW_THREADS ready =
			ppoll(polled, limit->wake_fd < 0 ? 1 : 2, &wait, NULL);
		failed = errno;
		Py_END_ALLOW_THREADS if (ready < 0 && failed != EINTR)
		{
			errno = failed;
			PyErr_SetFromErrno(PyExc_OSError);
			return WAIT_FAILED;
		}
		if (ready < 0 && PyErr_CheckSignals())
			return WAIT_FAILED;
		if (ready > 0 && polled[1].revents)
			return WAIT_WOKEN;
		*fd = sock_fd(limit->sock);
		if (*fd < 0)
			return WAIT_FAILED;
		if (ready > 0)
			return WAIT_READY;
		if (left_s <= 0)
			return WAIT_DEADLINE;
	}
}
