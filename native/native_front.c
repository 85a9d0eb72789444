// SPDX-License-Identifier: Apache-2.0
/*
 * holdfast._native.Front stands before a documented, typed Python function. It does the usual case itself
 * and calls the function for the rest: other arguments, TLS sockets, what has to be waited for.
 */
#include "native_front.h"
#include "native_receive.h"

#include <stddef.h>
#include <string.h>

/* socket.socket itself; a subclass may be an SSLSocket, or do anything. */
static PyObject *plain_socket;

PyObject *front_deadline(PyObject *const *args, size_t flagged, PyObject *names,
			 Py_ssize_t count)
{
	if (PyVectorcall_NARGS(flagged) != count)
		return NULL;
	if (!names)
		return Py_None;
	if (PyTuple_GET_SIZE(names) != 1 ||
	    PyUnicode_CompareWithASCIIString(PyTuple_GET_ITEM(names, 0),
					     "deadline"))
		return NULL;
	return args[count];
}

/* Hand the exception that is set, if it is the socket's, to ended(sock, error). */
static PyObject *tell_error(struct front *front, PyObject *sock)
{
	PyObject *type, *error, *trace, *result;

	if (!PyErr_ExceptionMatches(PyExc_OSError))
		return NULL;
	PyErr_Fetch(&type, &error, &trace);
	PyErr_NormalizeException(&type, &error, &trace);
	if (trace)
		PyException_SetTraceback(error, trace);
	result = PyObject_CallFunctionObjArgs(front->ended, sock, error, NULL);
	Py_XDECREF(type);
	Py_XDECREF(error);
	Py_XDECREF(trace);
	return result;
}

typedef PyObject *(*receiver)(PyObject *module, PyObject *const *args,
			      Py_ssize_t count);

static PyObject *front_receiver(PyObject *self, PyObject *const *args,
				size_t flagged, PyObject *names, receiver call)
{
	struct front *front = (struct front *)self;
	PyObject *deadline = front_deadline(args, flagged, names, 2), *result;

	if (!deadline || (PyObject *)Py_TYPE(args[0]) != plain_socket)
		return PyObject_Vectorcall(front->plain, args, flagged, names);
	result = call(NULL,
		      (PyObject *[]){ args[0], args[1], deadline, Py_None }, 4);
	if (!result)
		return tell_error(front, args[0]);
	if (PyLong_CheckExact(result) && PyLong_AsLong(result) < 0) {
		Py_DECREF(result);
		result = PyObject_CallFunctionObjArgs(front->ended, args[0],
						      Py_None, NULL);
	}
	return result;
}

static PyObject *front_receive(PyObject *self, PyObject *const *args,
			       size_t flagged, PyObject *names)
{
	return front_receiver(self, args, flagged, names, receive);
}

static PyObject *front_receive_into(PyObject *self, PyObject *const *args,
				    size_t flagged, PyObject *names)
{
	return front_receiver(self, args, flagged, names, receive_into);
}

/* ---- the type */

static const struct {
	const char *name;
	vectorcallfunc call;
} usual_cases[] = {
	{ "receive", front_receive },
	{ "receive_into", front_receive_into },
	{ "take", front_take },
	{ "take_exactly", front_take_exactly },
};

static PyObject *front_new(PyTypeObject *type, PyObject *args, PyObject *named)
{
	PyObject *plain, *ended = Py_None, *module;
	vectorcallfunc call = NULL;
	struct front *front;
	const char *name;
	size_t i;

	if (!PyArg_ParseTuple(args, "sO|O", &name, &plain, &ended))
		return NULL;
	for (i = 0; i < Py_ARRAY_LENGTH(usual_cases); i++)
		if (!strcmp(name, usual_cases[i].name))
			call = usual_cases[i].call;
	if (!call)
		return PyErr_Format(PyExc_ValueError, "no usual case %s", name);
	if (!plain_socket) {
		module = PyImport_ImportModule("socket");
		if (module)
			plain_socket = PyObject_GetAttrString(module, "socket");
		Py_XDECREF(module);
		if (!plain_socket)
			return NULL;
	}
	front = (struct front *)type->tp_alloc(type, 0);
	if (!front)
		return NULL;
	front->call = call;
	front->plain = Py_NewRef(plain);
	front->ended = Py_NewRef(ended);
	return (PyObject *)front;
}

static int front_traverse(PyObject *self, visitproc visit, void *arg)
{
	struct front *front = (struct front *)self;

	Py_VISIT(front->plain);
	Py_VISIT(front->ended);
	Py_VISIT(front->dict);
	return 0;
}

static int front_clear(PyObject *self)
{
	struct front *front = (struct front *)self;

	/* plain and ended stay, as in a tuple: any cycle through them has a dict in it. */
	Py_CLEAR(front->dict);
	return 0;
}

static void front_dealloc(PyObject *self)
{
	struct front *front = (struct front *)self;

	PyObject_GC_UnTrack(self);
	Py_CLEAR(front->plain);
	Py_CLEAR(front->ended);
	Py_CLEAR(front->dict);
	Py_TYPE(self)->tp_free(self);
}

/* A method, as a function in a class is. */
static PyObject *front_get(PyObject *self, PyObject *of, PyObject *class)
{
	return of && of != Py_None ? PyMethod_New(self, of) : Py_NewRef(self);
}

static PyObject *front_repr(PyObject *self)
{
	return PyUnicode_FromFormat("<compiled front of %R>",
				    ((struct front *)self)->plain);
}

/* Found again by its name, as a function is: for pickle and copy. */
static PyObject *front_reduce(PyObject *self, PyObject *unused)
{
	return PyObject_GetAttrString(self, "__qualname__");
}

static PyMethodDef front_methods[] = {
	{ "__reduce__", front_reduce, METH_NOARGS, NULL },
	{ NULL, NULL, 0, NULL },
};

static PyGetSetDef front_properties[] = {
	{ "__dict__", PyObject_GenericGetDict, PyObject_GenericSetDict, NULL,
	  NULL },
	{ NULL },
};

PyTypeObject front_type = {
	PyVarObject_HEAD_INIT(NULL, 0).tp_name = "holdfast._native.Front",
	.tp_doc = "Front(usual_case, function, ended=None, /)\n--\n\n"
		  "A function whose usual case is compiled.",
	.tp_basicsize = sizeof(struct front),
	.tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC |
		    Py_TPFLAGS_HAVE_VECTORCALL | Py_TPFLAGS_METHOD_DESCRIPTOR,
	.tp_vectorcall_offset = offsetof(struct front, call),
	.tp_dictoffset = offsetof(struct front, dict),
	.tp_call = PyVectorcall_Call,
	.tp_getattro = PyObject_GenericGetAttr,
	.tp_setattro = PyObject_GenericSetAttr,
	.tp_descr_get = front_get,
	.tp_new = front_new,
	.tp_traverse = front_traverse,
	.tp_clear = front_clear,
	.tp_dealloc = front_dealloc,
	.tp_repr = front_repr,
	.tp_methods = front_methods,
	.tp_getset = front_properties,
};
