// SPDX-License-Identifier: Apache-2.0
/* The capture core for Python: one object that is fed bytes, without the GIL, and gives bytes. */
#include "native_capture.h"
#include "capture.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>

struct py_capture {
	PyObject_HEAD
	struct capture *capture;
	bool busy; /* another thread is inside, without the GIL */
};

static int enter(struct py_capture *self)
{
	if (self->busy || !self->capture) {
		PyErr_SetString(PyExc_RuntimeError,
				"another thread is feeding this capture");
		return -1;
	}
	self->busy = true;
	return 0;
}

/* None, or NULL with MemoryError: what was lost cannot be counted any more. */
static PyObject *leave(struct py_capture *self, PyObject *result)
{
	self->busy = false;
	if (!self->capture->out_of_memory)
		return result;
	Py_XDECREF(result);
	return PyErr_NoMemory();
}

static PyObject *make(PyTypeObject *type, PyObject *args, PyObject *keywords)
{
	unsigned int max_flows;
	unsigned long long ring_bytes, evidence_bytes;
	int rows;
	uint64_t seed[4];
	struct py_capture *self;

	if (!PyArg_ParseTuple(args, "IKKp", &max_flows, &ring_bytes,
			      &evidence_bytes, &rows))
		return NULL;
	if (max_flows < 1 || max_flows > 1u << 28) {
		PyErr_SetString(PyExc_ValueError,
				"max_flows must be from 1 to 2**28");
		return NULL;
	}
	if (getrandom(seed, sizeof(seed), 0) != sizeof(seed))
		return PyErr_SetFromErrno(PyExc_OSError);
	self = (struct py_capture *)type->tp_alloc(type, 0);
	if (!self)
		return NULL;
	self->capture =
		capture_new(seed, max_flows, ring_bytes, evidence_bytes, rows);
	if (!self->capture) {
		Py_DECREF(self);
		return PyErr_NoMemory();
	}
	return (PyObject *)self;
}

static void drop(struct py_capture *self)
{
	PyTypeObject *type = Py_TYPE(self);

	capture_free(self->capture);
	type->tp_free(self);
	Py_DECREF(type);
}

static PyObject *begin_file(struct py_capture *self, PyObject *source)
{
	unsigned long number = PyLong_AsUnsignedLong(source);

	if (PyErr_Occurred() || enter(self))
		return NULL;
	capture_begin_file(self->capture, (uint32_t)number);
	return leave(self, Py_NewRef(Py_None));
}

static PyObject *begin_live(struct py_capture *self, PyObject *link)
{
	unsigned long number = PyLong_AsUnsignedLong(link);

	if (PyErr_Occurred() || enter(self))
		return NULL;
	capture_begin_live(self->capture, (uint32_t)number);
	return leave(self, Py_NewRef(Py_None));
}

static PyObject *feed(struct py_capture *self, PyObject *data)
{
	Py_buffer view;
	size_t taken;

	if (PyObject_GetBuffer(data, &view, PyBUF_SIMPLE))
		return NULL;
	if (enter(self)) {
		PyBuffer_Release(&view);
		return NULL;
	}
	Py_BEGIN_ALLOW_THREADS taken =
		capture_feed(self->capture, view.buf, (size_t)view.len);
	Py_END_ALLOW_THREADS PyBuffer_Release(&view);
	return leave(self, PyLong_FromSize_t(taken));
}

/* Read on; what was asked of a signal's handler is done in between. */
static PyObject *read_on(struct py_capture *self, PyObject *args)
{
	int fd, error = 0;
	Py_ssize_t most_bytes;
	ssize_t count;

	if (!PyArg_ParseTuple(args, "in", &fd, &most_bytes))
		return NULL;
	if (most_bytes < 1) {
		PyErr_SetString(PyExc_ValueError,
				"most_bytes must be positive");
		return NULL;
	}
	if (enter(self))
		return NULL;
	do {
		Py_BEGIN_ALLOW_THREADS count =
			capture_read(self->capture, fd, (size_t)most_bytes);
		error = errno;
		Py_END_ALLOW_THREADS
	} while (count < 0 && error == EINTR && !PyErr_CheckSignals());
	if (count >= 0 || self->capture->out_of_memory)
		return leave(self, PyLong_FromSsize_t(count));
	errno = error;
	if (!PyErr_Occurred())
		PyErr_SetFromErrno(PyExc_OSError);
	return leave(self, NULL);
}

static PyObject *ring_block(struct py_capture *self, PyObject *args)
{
	Py_buffer view;
	int twice;

	if (!PyArg_ParseTuple(args, "y*p", &view, &twice))
		return NULL;
	if (enter(self)) {
		PyBuffer_Release(&view);
		return NULL;
	}
	Py_BEGIN_ALLOW_THREADS capture_ring_block(self->capture, view.buf,
						  (size_t)view.len, twice);
	Py_END_ALLOW_THREADS PyBuffer_Release(&view);
	return leave(self, Py_NewRef(Py_None));
}

static PyObject *tick(struct py_capture *self, PyObject *now_ns)
{
	long long now = PyLong_AsLongLong(now_ns);

	if (PyErr_Occurred() || enter(self))
		return NULL;
	capture_tick(self->capture, now);
	return leave(self, Py_NewRef(Py_None));
}

static PyObject *damaged(struct py_capture *self, PyObject *none)
{
	return PyBool_FromLong(self->capture->damage != NULL);
}

static PyObject *end_file(struct py_capture *self, PyObject *left_bytes)
{
	size_t left = PyLong_AsSize_t(left_bytes);
	struct capture *it = self->capture;

	if (PyErr_Occurred() || enter(self))
		return NULL;
	capture_end_file(it, left);
	if (!it->damage)
		return leave(self, Py_NewRef(Py_None));
	return leave(self,
		     Py_BuildValue("(Kzi)", (unsigned long long)it->offset,
				   it->damage,
				   it->format == FORMAT_UNKNOWN ||
					   (it->format == FORMAT_BROKEN &&
					    !it->offset)));
}

static PyObject *finish(struct py_capture *self, PyObject *none)
{
	bool more;

	if (enter(self))
		return NULL;
	Py_BEGIN_ALLOW_THREADS more = capture_finish(self->capture);
	Py_END_ALLOW_THREADS return leave(self, PyBool_FromLong(more));
}

static PyObject *take_buffer(struct buffer *buffer)
{
	PyObject *bytes = PyBytes_FromStringAndSize((const char *)buffer->bytes,
						    (Py_ssize_t)buffer->length);

	if (bytes)
		buffer->length = 0;
	return bytes;
}

static PyObject *records(struct py_capture *self, PyObject *none)
{
	if (enter(self))
		return NULL;
	return leave(self, take_buffer(&self->capture->records));
}

static PyObject *rows(struct py_capture *self, PyObject *none)
{
	if (enter(self))
		return NULL;
	return leave(self, take_buffer(&self->capture->rows));
}

static PyObject *counts(struct py_capture *self, PyObject *none)
{
	const struct counts *of = &self->capture->counts;

	return PyBytes_FromStringAndSize((const char *)of, sizeof(*of));
}

static PyMethodDef methods[] = {
	{ "begin_file", (PyCFunction)begin_file, METH_O,
	  "Expect a file from its first byte." },
	{ "begin_live", (PyCFunction)begin_live, METH_O,
	  "Expect packets of this link type." },
	{ "feed", (PyCFunction)feed, METH_O,
	  "Take what is complete; gives how many bytes." },
	{ "read", (PyCFunction)read_on, METH_VARARGS,
	  "Read this file on, and take what is complete; gives how many bytes were read, 0 at the end." },
	{ "ring_block", (PyCFunction)ring_block, METH_VARARGS,
	  "Take a block of a TPACKET_V3 ring." },
	{ "tick", (PyCFunction)tick, METH_O,
	  "Give flows that have waited long enough at this time." },
	{ "damaged", (PyCFunction)damaged, METH_NOARGS,
	  "Whether the file stopped making sense." },
	{ "end_file", (PyCFunction)end_file, METH_O,
	  "None, or where and what the damage was, and whether it is no capture." },
	{ "finish", (PyCFunction)finish, METH_NOARGS,
	  "Give open flows, some at a time; whether there are more." },
	{ "records", (PyCFunction)records, METH_NOARGS,
	  "Flows with a RST that are complete." },
	{ "rows", (PyCFunction)rows, METH_NOARGS,
	  "All flows that are complete." },
	{ "counts", (PyCFunction)counts, METH_NOARGS,
	  "What was counted so far." },
	{ NULL },
};

static PyType_Slot slots[] = {
	{ Py_tp_new, make },
	{ Py_tp_dealloc, drop },
	{ Py_tp_methods, methods },
	{ Py_tp_doc,
	  (void *)"Capture(max_flows, ring_bytes, evidence_bytes, rows): packets to flows." },
	{ 0 },
};

static PyType_Spec spec = {
	.name = "holdfast._native.Capture",
	.basicsize = sizeof(struct py_capture),
	.flags = Py_TPFLAGS_DEFAULT,
	.slots = slots,
};

int add_capture(PyObject *module)
{
	PyObject *type = PyType_FromSpec(&spec);
	int failed;

	if (!type)
		return -1;
	failed = PyModule_AddObjectRef(module, "Capture", type);
	Py_DECREF(type);
	return failed;
}
