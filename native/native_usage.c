// SPDX-License-Identifier: Apache-2.0
/* The checks that Python has in holdfast.hold.asked: same answers, same sentences. */
#include "native_usage.h"

#include <math.h>

PyObject *error_class(const char *name)
{
	PyObject *errors = PyImport_ImportModule("holdfast.errors");
	/* Interned: Python's cache of attributes keeps each new string that one is asked for by. */
	PyObject *key = PyUnicode_InternFromString(name);
	PyObject *found = errors && key ? PyObject_GetAttr(errors, key) : NULL;

	Py_XDECREF(key);
	Py_XDECREF(errors);
	return found;
}

void refuse(const char *format, PyObject *about)
{
	PyObject *usage_error = error_class("UsageError");

	if (usage_error)
		PyErr_Format(usage_error, format, about);
	Py_XDECREF(usage_error);
}

Py_ssize_t asked_size(PyObject *number)
{
	Py_ssize_t size = PyNumber_AsSsize_t(number, NULL);

	if (size >= 0 || PyErr_Occurred())
		return size;
	refuse("%S bytes were asked for; ask for 0 or more", number);
	return -1;
}

int asked_deadline(PyObject *number, double *deadline_s)
{
	*deadline_s = PyFloat_AsDouble(number);
	if (*deadline_s == -1.0 && PyErr_Occurred())
		return -1;
	if (!isnan(*deadline_s))
		return 0;
	refuse("the deadline is %S; give seconds of time.monotonic(), or None",
	       number);
	return -1;
}
