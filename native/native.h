/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of holdfast._native share. */
#ifndef HOLDFAST_NATIVE_H
#define HOLDFAST_NATIVE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdbool.h>

extern PyMethodDef receive_methods[];
int add_capture(PyObject *module);

/* Why a wait ended without the socket being ready. */
enum wait_end {
	WAIT_READY = 0,
	WAIT_DEADLINE = -1,
	WAIT_WOKEN = -2,
	WAIT_FAILED = -3, /* a Python exception is set */
};

/* A limit on waiting; read off a call's arguments before its first system call. */
struct patience {
	PyObject *sock;	   /* asked for its descriptor again after each wait */
	double deadline_s; /* CLOCK_MONOTONIC, absolute; INFINITY waits */
	bool own; /* the caller gave no deadline: the socket's timeout is the limit */
	int wake_fd; /* readable when another thread cancels; -1 for none */
};

int patience_init(struct patience *limit, PyObject *sock, PyObject *deadline,
		  PyObject *wake_fd);
int sock_fd(PyObject *sock);
enum wait_end await_events(struct patience *limit, int *fd, short events);

#endif
