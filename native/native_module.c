// SPDX-License-Identifier: Apache-2.0
/*
 * holdfast._native: system calls on sockets for which Python's own layer costs too much, and the packets of
 * captures. Each concern has a file and a method table of its own; policy and errors live in Python.
 */
#include "native.h"
#include "native_datagrams.h"

static struct PyModuleDef module = {
	PyModuleDef_HEAD_INIT,
	.m_name = "holdfast._native",
	.m_doc = "System calls on sockets, as far as Holdfast needs them fast.",
	.m_size = -1,
};

PyMODINIT_FUNC PyInit__native(void)
{
	PyObject *made = PyModule_Create(&module);

	if (!made)
		return NULL;
	if (PyModule_AddFunctions(made, datagram_methods) ||
	    PyModule_AddFunctions(made, receive_methods) || add_capture(made) ||
	    PyModule_AddIntConstant(made, "DEADLINE", WAIT_DEADLINE) ||
	    PyModule_AddIntConstant(made, "WOKEN", WAIT_WOKEN))
		Py_CLEAR(made);
	return made;
}
