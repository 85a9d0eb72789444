// SPDX-License-Identifier: Apache-2.0
/*
 * holdfast._native: what is done for each message, where Python's own layer costs too much. Each concern
 * has a file of its own; policy and errors live in Python.
 */
#include "native_receive.h"
#include "native_datagrams.h"
#include "native_front.h"
#include "native_inbox.h"
#include "native_wait.h"

static struct PyModuleDef module = {
	PyModuleDef_HEAD_INIT,
	.m_name = "holdfast._native",
	.m_doc = "What Holdfast does for each message.",
	.m_size = -1,
};

PyMODINIT_FUNC PyInit__native(void)
{
	PyObject *made = PyModule_Create(&module);

	if (!made)
		return NULL;
	if (PyType_Ready(&awaited_type) ||
	    PyModule_AddType(made, &front_type) ||
	    PyModule_AddType(made, &inbox_type) ||
	    PyModule_AddFunctions(made, datagram_methods) ||
	    PyModule_AddFunctions(made, receive_methods) ||
	    PyModule_AddIntConstant(made, "DEADLINE", WAIT_DEADLINE) ||
	    PyModule_AddIntConstant(made, "WOKEN", WAIT_WOKEN))
		Py_CLEAR(made);
	return made;
}
