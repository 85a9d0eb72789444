// SPDX-License-Identifier: Apache-2.0
/*
 * A buffer that is filled at its end and emptied at its start. Its memory is a bytearray that is never
 * resized, only replaced: views of it may be out, in the hands of an event loop. An empty one has none, so
 * that a connection which is silent costs nothing.
 */
#define _GNU_SOURCE /* memmem */
#include "native_inbox.h"
#include "native_usage.h"

#include <stdbool.h>
#include <string.h>
#include <structmember.h>

/* What one read takes at most. */
#define CAPACITY_BYTES ((Py_ssize_t)1 << 16)

static char *head(const struct inbox *inbox)
{
	return (char *)inbox->memory.buf + inbox->begin;
}

static void move_to_front(struct inbox *inbox, char *memory)
{
	Py_ssize_t here = inbox_length(inbox);

	if (here)
		memmove(memory, head(inbox), (size_t)here);
	inbox->searched = inbox->searched > inbox->begin ?
				  inbox->searched - inbox->begin :
				  0;
	inbox->begin = 0;
	inbox->end = here;
}

/* New memory, with what is here at its front. On failure nothing has changed. */
static int allot(struct inbox *inbox, Py_ssize_t size_bytes)
{
	PyObject *store = PyByteArray_FromStringAndSize(NULL, size_bytes);
	Py_buffer memory;
	int failed;

	if (!store)
		return -1;
	failed = PyObject_GetBuffer(store, &memory, PyBUF_WRITABLE);
	Py_DECREF(store); /* memory has its own reference */
	if (failed)
		return -1;
	move_to_front(inbox, memory.buf);
	PyBuffer_Release(&inbox->memory);
	inbox->memory = memory;
	return 0;
}

/* More memory, unless half of it can be had by moving: each byte is moved a bounded number of times. */
static int make_room(struct inbox *inbox)
{
	Py_ssize_t here = inbox_length(inbox);

	if (inbox->begin > inbox->memory.len / 2) {
		move_to_front(inbox, inbox->memory.buf);
		return 0;
	}
	if (here > PY_SSIZE_T_MAX / 2) {
		PyErr_NoMemory();
		return -1;
	}
	return allot(inbox,
		     here + (here > CAPACITY_BYTES ? here : CAPACITY_BYTES));
}

/* Whether somebody else holds a view of the memory, and perhaps is about to say add(). */
static bool view_is_out(const struct inbox *inbox)
{
	return inbox->memory.obj &&
	       ((PyByteArrayObject *)inbox->memory.obj)->ob_exports > 1;
}

static void drop(struct inbox *inbox, Py_ssize_t size)
{
	inbox->begin += size;
	if (inbox->begin < inbox->end)
		return;
	inbox->begin = inbox->end = inbox->searched = 0;
	if (view_is_out(inbox))
		return;
	PyBuffer_Release(&inbox->memory);
	inbox->memory = (Py_buffer){ 0 };
}

PyObject *inbox_take(struct inbox *inbox, Py_ssize_t size)
{
	PyObject *data = PyBytes_FromStringAndSize(head(inbox), size);

	if (data)
		drop(inbox, size);
	return data;
}

static Py_ssize_t lesser(Py_ssize_t a, Py_ssize_t b)
{
	return a < b ? a : b;
}

/* ---- methods */

static PyObject *inbox_new(PyTypeObject *type, PyObject *args, PyObject *named)
{
	if (PyTuple_GET_SIZE(args) || (named && PyDict_GET_SIZE(named))) {
		PyErr_SetString(PyExc_TypeError, "Inbox takes no arguments");
		return NULL;
	}
	return type->tp_alloc(type, 0);
}

static void inbox_dealloc(PyObject *self)
{
	struct inbox *inbox = (struct inbox *)self;

	PyBuffer_Release(&inbox->memory);
	Py_XDECREF(inbox->delimiter);
	Py_TYPE(self)->tp_free(self);
}

static Py_ssize_t inbox_len(PyObject *self)
{
	return inbox_length((struct inbox *)self);
}

static PyObject *inbox_space(PyObject *self, PyObject *unused)
{
	struct inbox *inbox = (struct inbox *)self;
	PyObject *whole, *space;

	if (inbox->end == inbox->memory.len && make_room(inbox))
		return NULL;
	whole = PyMemoryView_FromObject(inbox->memory.obj);
	if (!whole || !inbox->end)
		return whole;
	space = PySequence_GetSlice(whole, inbox->end, inbox->memory.len);
	Py_DECREF(whole);
	return space;
}

static PyObject *inbox_add(PyObject *self, PyObject *number)
{
	struct inbox *inbox = (struct inbox *)self;
	Py_ssize_t count = PyNumber_AsSsize_t(number, NULL);

	if (count == -1 && PyErr_Occurred())
		return NULL;
	if (count < 0 || count > inbox->memory.len - inbox->end) {
		refuse("%S bytes do not fit into the space of the inbox",
		       number);
		return NULL;
	}
	inbox->end += count;
	Py_RETURN_NONE;
}

static PyObject *inbox_peek(PyObject *self, PyObject *number)
{
	struct inbox *inbox = (struct inbox *)self;
	Py_ssize_t size = asked_size(number);

	if (size < 0)
		return NULL;
	return PyBytes_FromStringAndSize(head(inbox),
					 lesser(size, inbox_length(inbox)));
}

static PyObject *inbox_take_up_to(PyObject *self, PyObject *number)
{
	struct inbox *inbox = (struct inbox *)self;
	Py_ssize_t size = asked_size(number);

	if (size < 0)
		return NULL;
	return inbox_take(inbox, lesser(size, inbox_length(inbox)));
}

static PyObject *inbox_take_into(PyObject *self, PyObject *to)
{
	struct inbox *inbox = (struct inbox *)self;
	Py_ssize_t size;
	Py_buffer buffer;

	if (PyObject_GetBuffer(to, &buffer, PyBUF_WRITABLE))
		return NULL;
	size = lesser(buffer.len, inbox_length(inbox));
	if (size)
		memmove(buffer.buf, head(inbox), (size_t)size);
	drop(inbox, size);
	PyBuffer_Release(&buffer);
	return PyLong_FromSsize_t(size);
}

static PyObject *inbox_take_exactly(PyObject *self, PyObject *number)
{
	struct inbox *inbox = (struct inbox *)self;
	Py_ssize_t size = asked_size(number);

	if (size < 0)
		return NULL;
	if (size > inbox_length(inbox))
		Py_RETURN_NONE;
	return inbox_take(inbox, size);
}

/* Remember what is looked for; another delimiter may begin in what was searched. */
static int look_for(struct inbox *inbox, PyObject *delimiter)
{
	if (!PyBytes_Check(delimiter)) {
		PyErr_Format(PyExc_TypeError,
			     "the delimiter must be bytes, not %s",
			     Py_TYPE(delimiter)->tp_name);
		return -1;
	}
	if (!PyBytes_GET_SIZE(delimiter)) {
		refuse("the delimiter is empty; give the bytes that end a frame",
		       NULL);
		return -1;
	}
	if (inbox->delimiter &&
	    PyBytes_GET_SIZE(delimiter) == PyBytes_GET_SIZE(inbox->delimiter) &&
	    !memcmp(PyBytes_AS_STRING(delimiter),
		    PyBytes_AS_STRING(inbox->delimiter),
		    (size_t)PyBytes_GET_SIZE(delimiter)))
		return 0;
	Py_XSETREF(inbox->delimiter, Py_NewRef(delimiter));
	inbox->searched = 0;
	return 0;
}

static PyObject *limit_exceeded(PyObject *self, PyObject *limit)
{
	PyObject *class = error_class("LimitExceeded"), *error = NULL;
	PyObject *partial = class ? inbox_peek(self, limit) : NULL;

	if (partial)
		error = PyObject_CallFunctionObjArgs(class, partial, limit,
						     NULL);
	if (error)
		PyErr_SetObject(class, error);
	Py_XDECREF(error);
	Py_XDECREF(partial);
	Py_XDECREF(class);
	return NULL;
}

static PyObject *inbox_take_until(PyObject *self, PyObject *const *args,
				  Py_ssize_t count)
{
	struct inbox *inbox = (struct inbox *)self;
	Py_ssize_t limit, from, to, size;
	char *found = NULL, *memory;

	if (count != 2)
		return PyErr_Format(PyExc_TypeError,
				    "expected delimiter, limit");
	limit = PyNumber_AsSsize_t(args[1], NULL);
	if ((limit == -1 && PyErr_Occurred()) || look_for(inbox, args[0]))
		return NULL;
	memory = inbox->memory.buf;
	size = PyBytes_GET_SIZE(args[0]);
	from = inbox->searched > inbox->begin ? inbox->searched : inbox->begin;
	to = inbox->begin + lesser(limit, inbox_length(inbox));
	if (to > from)
		found = memmem(memory + from, (size_t)(to - from),
			       PyBytes_AS_STRING(args[0]), (size_t)size);
	if (found) {
		inbox->searched = 0;
		return inbox_take(inbox, found + size - head(inbox));
	}
	if (inbox_length(inbox) >= limit)
		return limit_exceeded(self, args[1]);
	/* The last bytes may be the beginning of a delimiter. */
	from = inbox->end - size + 1;
	inbox->searched = from > inbox->begin ? from : inbox->begin;
	Py_RETURN_NONE;
}

static PyObject *inbox_capacity(PyObject *self, void *closure)
{
	return PyLong_FromSsize_t(((struct inbox *)self)->memory.len);
}

static PyMethodDef inbox_methods[] = {
	{ "space", inbox_space, METH_NOARGS,
	  "space($self, /)\n--\n\n"
	  "Where to put what comes next; at least one byte. Say add() after filling it." },
	{ "add", inbox_add, METH_O,
	  "add($self, count, /)\n--\n\ncount bytes were put into space()." },
	{ "peek", inbox_peek, METH_O,
	  "peek($self, n, /)\n--\n\nUp to n bytes, left where they are." },
	{ "take", inbox_take_up_to, METH_O,
	  "take($self, n, /)\n--\n\nUp to n bytes." },
	{ "take_into", inbox_take_into, METH_O,
	  "take_into($self, buffer, /)\n--\n\n"
	  "How many bytes were put at the start of buffer." },
	{ "take_exactly", inbox_take_exactly, METH_O,
	  "take_exactly($self, n, /)\n--\n\nn bytes, None while there are fewer." },
	{ "take_until", (PyCFunction)(void (*)(void))inbox_take_until,
	  METH_FASTCALL,
	  "take_until($self, delimiter, limit, /)\n--\n\n"
	  "Everything to the end of the first delimiter, None while it has not come." },
	{ NULL, NULL, 0, NULL },
};

static PyMemberDef inbox_members[] = {
	{ "reserve_bytes", T_PYSSIZET, offsetof(struct inbox, reserve_bytes), 0,
	  "Only what exceeds this may be taken without telling the protocol." },
	{ NULL },
};

static PyGetSetDef inbox_properties[] = {
	{ "capacity_bytes", inbox_capacity, NULL,
	  "The memory that it occupies now.", NULL },
	{ NULL },
};

static PySequenceMethods inbox_as_sequence = { .sq_length = inbox_len };

/* No part in garbage collection: what it refers to, bytes and a bytearray, refers to nothing. */
PyTypeObject inbox_type = {
	PyVarObject_HEAD_INIT(NULL, 0).tp_name = "holdfast._native.Inbox",
	.tp_doc = "Bytes that were received and not yet taken.",
	.tp_basicsize = sizeof(struct inbox),
	.tp_flags = Py_TPFLAGS_DEFAULT,
	.tp_new = inbox_new,
	.tp_dealloc = inbox_dealloc,
	.tp_as_sequence = &inbox_as_sequence,
	.tp_methods = inbox_methods,
	.tp_members = inbox_members,
	.tp_getset = inbox_properties,
};
