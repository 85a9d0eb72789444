/* SPDX-License-Identifier: Apache-2.0 */
/* recv and send on one socket. */
#ifndef HOLDFAST_NATIVE_RECEIVE_H
#define HOLDFAST_NATIVE_RECEIVE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

extern PyMethodDef receive_methods[];

PyObject *receive(PyObject *module, PyObject *const *args, Py_ssize_t count);
PyObject *receive_into(PyObject *module, PyObject *const *args,
		       Py_ssize_t count);

#endif
