// SPDX-License-Identifier: Apache-2.0
/* Many datagrams for one system call. */
#ifndef HOLDFAST_NATIVE_DATAGRAMS_H
#define HOLDFAST_NATIVE_DATAGRAMS_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

extern PyMethodDef datagram_methods[];

extern const char send_datagrams_doc[];
PyObject *send_datagrams(PyObject *module, PyObject *const *args,
			 Py_ssize_t count);

#endif
