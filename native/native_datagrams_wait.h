// SPDX-License-Identifier: Apache-2.0
/* Waits for a socket until a time, never for a number of attempts. */
#ifndef HOLDFAST_NATIVE_DATAGRAMS_WAIT_H
#define HOLDFAST_NATIVE_DATAGRAMS_WAIT_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdbool.h>

struct wait {
	PyObject *sock; /* asked for its descriptor again after each wait */
	int fd;
	short events;
	double deadline_s; /* CLOCK_MONOTONIC; infinity, or -infinity for no wait */
	bool woken;	   /* poll has called the socket ready already */
};

/* Fill in sock and fd; -1 with OSError (EBADF) set if the socket is closed. */
int wait_open(struct wait *wait, PyObject *sock);

/*
 * To be called when the socket said EAGAIN. 1: try again; 0: the time is up; -1: an exception,
 * from a signal handler or because another thread closed the socket. A signal whose handler
 * does not raise only makes it recompute the time.
 */
int wait_ready(struct wait *wait);

#endif
