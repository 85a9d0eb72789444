/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HOLDFAST_NATIVE_CAPTURE_H
#define HOLDFAST_NATIVE_CAPTURE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

/* Adds the types that read captures; -1 with an exception set. */
int add_capture(PyObject *module);

#endif
