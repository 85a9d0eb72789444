/* SPDX-License-Identifier: Apache-2.0 */
/* Bytes that were received and not yet taken: holdfast.hold.inbox_portable, compiled. */
#ifndef HOLDFAST_NATIVE_INBOX_H
#define HOLDFAST_NATIVE_INBOX_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

struct inbox {
	PyObject_HEAD
	/* Of a bytearray, which cannot be resized while this is held; of nothing if it is empty. */
	Py_buffer memory;
	Py_ssize_t begin, end;
	Py_ssize_t searched; /* no delimiter begins before this place */
	Py_ssize_t reserve_bytes;
	PyObject *delimiter; /* looked for last; NULL for none */
};

extern PyTypeObject inbox_type;

static inline Py_ssize_t inbox_length(const struct inbox *inbox)
{
	return inbox->end - inbox->begin;
}

/* The first `size` bytes, of which there must be so many; NULL with MemoryError, nothing taken. */
PyObject *inbox_take(struct inbox *inbox, Py_ssize_t size);

#endif
