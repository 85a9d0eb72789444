/* SPDX-License-Identifier: Apache-2.0 */
/* What callers ask for, and what is said of a wrong wish. */
#ifndef HOLDFAST_NATIVE_USAGE_H
#define HOLDFAST_NATIVE_USAGE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

/* A class of holdfast.errors, which is loaded only when something is wrong. */
PyObject *error_class(const char *name);

/* Raise UsageError; the format takes at most one object. */
void refuse(const char *format, PyObject *about);

/* A size that a caller asks for, clipped to what a size can be; -1 with an exception. */
Py_ssize_t asked_size(PyObject *number);

/* A deadline in seconds; -1 with an exception unless it is a number. */
int asked_deadline(PyObject *number, double *deadline_s);

#endif
