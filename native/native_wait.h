/* SPDX-License-Identifier: Apache-2.0 */
/* Waits for a socket until a time, never for a number of attempts. */
#ifndef HOLDFAST_NATIVE_WAIT_H
#define HOLDFAST_NATIVE_WAIT_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdbool.h>

enum wait_end {
	WAIT_READY = 0,	    /* try again */
	WAIT_DEADLINE = -1, /* time is up */
	WAIT_WOKEN = -2,    /* by another thread */
	WAIT_FAILED = -3,   /* a Python exception is set */
};

struct wait {
	PyObject *sock; /* asked for its descriptor again after each wait */
	int fd;
	short events;
	double deadline_s; /* CLOCK_MONOTONIC; infinity, or -infinity for no wait */
	bool own; /* nobody gave a deadline: the socket's timeout is the limit */
	int wake_fd; /* readable when another thread cancels; -1 for none */
	bool polled; /* poll has called the socket ready already */
};

/* A wait without a deadline; -1 with OSError (EBADF) set if the socket is closed. */
int wait_open(struct wait *wait, PyObject *sock, short events);

/*
 * What follows an errno of the socket. EAGAIN: wait. EINTR: serve the signal, which counts as nothing. Any
 * other is raised. The call that follows WAIT_READY reports what it was: data, an error, a hang-up, or
 * nothing, after a signal or half a second.
 */
enum wait_end wait_after(struct wait *wait, int error);

#endif
