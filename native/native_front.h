/* SPDX-License-Identifier: Apache-2.0 */
/* Compiled fronts of Python functions: the usual case without the function, all else by calling it. */
#ifndef HOLDFAST_NATIVE_FRONT_H
#define HOLDFAST_NATIVE_FRONT_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdbool.h>

struct front {
	PyObject_HEAD
	vectorcallfunc call;
	PyObject *plain; /* the Python function */
	PyObject *ended; /* called as ended(sock, error or None) */
	PyObject *dict;	 /* its name, documentation and signature */
};

extern PyTypeObject front_type;
extern PyTypeObject awaited_type;

/*
 * The deadline, borrowed, of a call with `count` positional arguments and perhaps deadline=. NULL
 * without an exception for any other call: the Python function knows what to say of it.
 */
PyObject *front_deadline(PyObject *const *args, size_t flagged, PyObject *names,
			 Py_ssize_t count);

PyObject *front_take(PyObject *self, PyObject *const *args, size_t flagged,
		     PyObject *names);
PyObject *front_take_exactly(PyObject *self, PyObject *const *args,
			     size_t flagged, PyObject *names);

#endif
