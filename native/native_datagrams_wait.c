// SPDX-License-Identifier: Apache-2.0
#define _GNU_SOURCE
#include "native_datagrams_wait.h"

#include <errno.h>
#include <math.h>
#include <poll.h>
#include <time.h>

/* A socket closed by another thread goes on being polled: look again this often. */
#define SLICE_S 0.5
#define NAP_S 0.001

static double now_s(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

int wait_open(struct wait *wait, PyObject *sock)
{
	static PyObject *name;
	PyObject *number;
	long fd;

	if (!name)
		name = PyUnicode_InternFromString("fileno");
	number = name ? PyObject_CallMethodNoArgs(sock, name) : NULL;
	if (!number)
		return -1;
	fd = PyLong_AsLong(number);
	Py_DECREF(number);
	if (fd == -1 && PyErr_Occurred())
		return -1;
	if (fd < 0 || fd > INT_MAX) {
		errno = EBADF;
		PyErr_SetFromErrno(PyExc_OSError);
		return -1;
	}
	wait->sock = sock;
	wait->fd = (int)fd;
	return 0;
}

/* poll for so long without the interpreter lock; -1 with an exception set. */
static int poll_for(struct pollfd *polled, double span_s)
{
	struct timespec span = { .tv_sec = (time_t)span_s };
	int ready, error;

	span.tv_nsec = (long)((span_s - (double)span.tv_sec) * 1e9);
	Py_BEGIN_ALLOW_THREADS;
	ready = ppoll(polled, polled ? 1 : 0, &span, NULL);
	error = errno;
	Py_END_ALLOW_THREADS;
	if (ready >= 0)
		return ready;
	if (error == EINTR)
		return PyErr_CheckSignals() ? -1 : 0;
	errno = error;
	PyErr_SetFromErrno(PyExc_OSError);
	return -1;
}

int wait_ready(struct wait *wait)
{
	struct pollfd polled = { .fd = wait->fd, .events = wait->events };
	double left_s = INFINITY;
	int ready;

	if (wait->deadline_s == -INFINITY)
		return 0;
	if (wait->deadline_s != INFINITY)
		left_s = wait->deadline_s - now_s();
	if (left_s <= 0)
		return 0;
	/*
	 * Ready, and still EAGAIN: an unread error queue keeps POLLERR set, and a Unix
	 * socket without a peer is writable though the receiver is full. Polling it
	 * again would spin.
	 */
	if (wait->woken)
		ready = poll_for(NULL, fmin(left_s, NAP_S));
	else
		ready = poll_for(&polled, fmin(left_s, SLICE_S));
	wait->woken = ready > 0;
	return ready < 0 || wait_open(wait, wait->sock) ? -1 : 1;
}
