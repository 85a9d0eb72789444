// SPDX-License-Identifier: Apache-2.0
/*
 * What a front of an `async def` method gives: an awaitable that takes from the inbox when it is awaited,
 * and, if not enough is there, goes on as the coroutine of the Python method. Everything that can be done
 * to a coroutine can be done to it; nothing is taken before it is awaited, so a task that is cancelled
 * before it begins loses nothing.
 */
#include "native_front.h"
#include "native_inbox.h"

#include <math.h>

enum stage {
	FRESH,	   /* not awaited yet */
	DELEGATED, /* the coroutine goes on, and is suspended */
	RUNNING,   /* the coroutine is being run */
	DONE,
};

struct awaited {
	PyObject_HEAD
	struct front *front;
	PyObject *stream, *size, *deadline;
	PyObject *coroutine; /* while DELEGATED or RUNNING */
	enum stage stage;
	bool exactly;
};

/* Waiting for nothing, only one that is wrong makes a difference. */
static bool deadline_is_plain(PyObject *deadline)
{
	return deadline == Py_None || (PyFloat_CheckExact(deadline) &&
				       !isnan(PyFloat_AS_DOUBLE(deadline)));
}

/* The bytes asked for; NULL without an exception if this is not the usual case. */
static PyObject *take_now(struct awaited *one)
{
	static PyObject *name;
	Py_ssize_t size, here;
	struct inbox *inbox;
	PyObject *found, *data = NULL;

	if (!PyLong_CheckExact(one->size) || !deadline_is_plain(one->deadline))
		return NULL;
	size = PyLong_AsSsize_t(one->size);
	if (size < 0) {
		PyErr_Clear();
		return NULL;
	}
	if (!name && !(name = PyUnicode_InternFromString("inbox")))
		return NULL;
	found = PyObject_GetAttr(one->stream, name);
	if (!found)
		return NULL;
	inbox = (struct inbox *)found;
	if (Py_IS_TYPE(found, &inbox_type)) {
		here = inbox_length(inbox);
		if (!one->exactly && size > here)
			size = here;
		/* None of it: there is something to be waited for, or to be checked. */
		if (size && size <= here && here - size >= inbox->reserve_bytes)
			data = inbox_take(inbox, size);
	}
	Py_DECREF(found);
	return data;
}

static int delegate(struct awaited *one)
{
	static PyObject *names;

	if (!names && !(names = Py_BuildValue("(s)", "deadline")))
		return -1;
	one->coroutine = PyObject_Vectorcall(
		one->front->plain,
		(PyObject *[]){ one->stream, one->size, one->deadline }, 2,
		names);
	return one->coroutine ? 0 : -1;
}

/* Before a step of the coroutine: -1 with an exception if there can be none. */
static int step(struct awaited *one)
{
	if (one->stage == DELEGATED) {
		one->stage = RUNNING;
		return 0;
	}
	if (one->stage == RUNNING)
		PyErr_SetString(PyExc_ValueError,
				"coroutine already executing");
	else
		PyErr_SetString(PyExc_RuntimeError,
				"cannot reuse already awaited coroutine");
	return -1;
}

static void stepped(struct awaited *one, bool over)
{
	one->stage = over ? DONE : DELEGATED;
	if (over)
		Py_CLEAR(one->coroutine);
}

static PySendResult awaited_send(PyObject *self, PyObject *value,
				 PyObject **result)
{
	struct awaited *one = (struct awaited *)self;
	PySendResult how;

	*result = NULL;
	if (one->stage == FRESH) {
		if (value != Py_None) {
			PyErr_SetString(PyExc_TypeError,
					"can't send non-None value to a "
					"just-started coroutine");
			return PYGEN_ERROR;
		}
		one->stage = DONE;
		*result = take_now(one);
		if (*result)
			return PYGEN_RETURN;
		if (PyErr_Occurred() || delegate(one))
			return PYGEN_ERROR;
		one->stage = DELEGATED;
	}
	if (step(one))
		return PYGEN_ERROR;
	how = PyIter_Send(one->coroutine, value, result);
	stepped(one, how != PYGEN_NEXT);
	return how;
}

/* ---- the same for callers that know only exceptions */

static PyObject *awaited_send_method(PyObject *self, PyObject *value)
{
	PyObject *result;

	if (awaited_send(self, value, &result) == PYGEN_RETURN) {
		PyErr_SetObject(PyExc_StopIteration, result);
		Py_CLEAR(result);
	}
	return result;
}

#if PY_VERSION_HEX >= 0x030c0000
/*
 * From 3.12 on the interpreter does not ask am_send but takes the result out of a StopIteration, and to
 * make one costs more than all the rest. So one is kept, for as long as nobody else has seen it.
 */
static PyStopIterationObject *stop;

static bool stop_is_ours(void)
{
	return stop && Py_REFCNT(stop) == 1 && !stop->traceback &&
	       !stop->context;
}

static PyObject *awaited_next(PyObject *self)
{
	PyObject *result;

	if (awaited_send(self, Py_None, &result) != PYGEN_RETURN)
		return result;
	if (!stop_is_ours())
		Py_XSETREF(stop, (PyStopIterationObject *)PyObject_CallNoArgs(
					 PyExc_StopIteration));
	if (stop) {
		Py_XSETREF(stop->value, result);
		PyErr_SetRaisedException(Py_NewRef((PyObject *)stop));
	} else {
		Py_DECREF(result);
	}
	return NULL;
}

/* The interpreter has the result: the kept exception must not keep it, too. */
static void stop_forget(void)
{
	if (stop_is_ours() && stop->value != Py_None)
		Py_XSETREF(stop->value, Py_NewRef(Py_None));
}
#else
static PyObject *awaited_next(PyObject *self)
{
	return awaited_send_method(self, Py_None);
}

static void stop_forget(void)
{
}
#endif

/* Raise what throw() was given: an exception, or a class and perhaps a value and a traceback. */
static PyObject *raise_given(PyObject *const *args, Py_ssize_t count)
{
	PyObject *error = args[0], *trace = count > 2 ? args[2] : Py_None;

	if (PyExceptionClass_Check(error)) {
		if (count > 1 && PyExceptionInstance_Check(args[1]))
			error = Py_NewRef(args[1]);
		else if (count > 1 && args[1] != Py_None)
			error = PyObject_CallOneArg(error, args[1]);
		else
			error = PyObject_CallNoArgs(error);
		if (!error)
			return NULL;
	} else {
		Py_INCREF(error);
	}
	if (!PyExceptionInstance_Check(error))
		PyErr_SetString(PyExc_TypeError,
				"exceptions must be classes or instances "
				"deriving from BaseException");
	else if (trace == Py_None || !PyException_SetTraceback(error, trace))
		PyErr_SetObject((PyObject *)Py_TYPE(error), error);
	Py_DECREF(error);
	return NULL;
}

static PyObject *awaited_throw(PyObject *self, PyObject *const *args,
			       Py_ssize_t count)
{
	struct awaited *one = (struct awaited *)self;
	PyObject *throw, *result = NULL;

	if (count < 1 || count > 3)
		return PyErr_Format(PyExc_TypeError,
				    "throw expected 1 to 3 arguments");
	if (one->stage == FRESH) {
		one->stage = DONE;
		return raise_given(args, count);
	}
	if (step(one))
		return NULL;
	throw = PyObject_GetAttrString(one->coroutine, "throw");
	if (throw)
		result = PyObject_Vectorcall(throw, args, (size_t)count, NULL);
	Py_XDECREF(throw);
	stepped(one, !result);
	return result;
}

static PyObject *awaited_close(PyObject *self, PyObject *unused)
{
	struct awaited *one = (struct awaited *)self;
	PyObject *result;

	if (one->stage == FRESH)
		one->stage = DONE;
	if (one->stage == DONE)
		Py_RETURN_NONE;
	if (step(one))
		return NULL;
	result = PyObject_CallMethod(one->coroutine, "close", NULL);
	stepped(one, true);
	return result;
}

static PyObject *awaited_await(PyObject *self)
{
	struct awaited *one = (struct awaited *)self;

	if (one->stage == DELEGATED || one->stage == RUNNING) {
		PyErr_SetString(PyExc_RuntimeError,
				"coroutine is being awaited already");
		return NULL;
	}
	return Py_NewRef(self);
}

/* ---- the type */

/* The name that a task shows for what it runs. */
static PyObject *awaited_name(PyObject *self, void *attribute)
{
	struct awaited *one = (struct awaited *)self;

	return PyObject_GetAttrString(one->front->plain, attribute);
}

/* A forgotten `await` is told as for a coroutine. */
static void awaited_finalize(PyObject *self)
{
	struct awaited *one = (struct awaited *)self;
	PyObject *type, *error, *trace, *name;

	if (one->stage != FRESH)
		return;
	PyErr_Fetch(&type, &error, &trace);
	name = awaited_name(self, "__qualname__");
	if (!name || PyErr_WarnFormat(PyExc_RuntimeWarning, 1,
				      "coroutine '%S' was never awaited", name))
		PyErr_WriteUnraisable(self);
	Py_XDECREF(name);
	PyErr_Restore(type, error, trace);
}

static int awaited_traverse(PyObject *self, visitproc visit, void *arg)
{
	struct awaited *one = (struct awaited *)self;

	Py_VISIT(one->front);
	Py_VISIT(one->stream);
	Py_VISIT(one->size);
	Py_VISIT(one->deadline);
	Py_VISIT(one->coroutine);
	return 0;
}

static int awaited_clear(PyObject *self)
{
	struct awaited *one = (struct awaited *)self;

	one->stage = DONE;
	Py_CLEAR(one->coroutine);
	Py_CLEAR(one->stream);
	Py_CLEAR(one->size);
	Py_CLEAR(one->deadline);
	return 0; /* the front stays until the end: it tells the name */
}

static void awaited_dealloc(PyObject *self)
{
	struct awaited *one = (struct awaited *)self;

	if (one->stage == FRESH && PyObject_CallFinalizerFromDealloc(self))
		return; /* somebody has kept it */
	PyObject_GC_UnTrack(self);
	awaited_clear(self);
	Py_CLEAR(one->front);
	PyObject_GC_Del(self);
	stop_forget();
}

static PyObject *awaited_make(PyObject *self, PyObject *const *args,
			      size_t flagged, PyObject *names, bool exactly)
{
	PyObject *deadline = front_deadline(args, flagged, names, 2);
	struct front *front = (struct front *)self;
	struct awaited *one;

	if (!deadline)
		return PyObject_Vectorcall(front->plain, args, flagged, names);
	one = PyObject_GC_New(struct awaited, &awaited_type);
	if (!one)
		return NULL;
	one->front = (struct front *)Py_NewRef(self);
	one->stream = Py_NewRef(args[0]);
	one->size = Py_NewRef(args[1]);
	one->deadline = Py_NewRef(deadline);
	one->coroutine = NULL;
	one->stage = FRESH;
	one->exactly = exactly;
	PyObject_GC_Track(one);
	return (PyObject *)one;
}

PyObject *front_take(PyObject *self, PyObject *const *args, size_t flagged,
		     PyObject *names)
{
	return awaited_make(self, args, flagged, names, false);
}

PyObject *front_take_exactly(PyObject *self, PyObject *const *args,
			     size_t flagged, PyObject *names)
{
	return awaited_make(self, args, flagged, names, true);
}

static PyMethodDef awaited_methods[] = {
	{ "send", awaited_send_method, METH_O, NULL },
	{ "throw", (PyCFunction)(void (*)(void))awaited_throw, METH_FASTCALL,
	  NULL },
	{ "close", awaited_close, METH_NOARGS, NULL },
	{ NULL, NULL, 0, NULL },
};

static PyGetSetDef awaited_properties[] = {
	{ "__name__", awaited_name, NULL, NULL, "__name__" },
	{ "__qualname__", awaited_name, NULL, NULL, "__qualname__" },
	{ NULL },
};

static PyAsyncMethods awaited_as_async = {
	.am_await = awaited_await,
	.am_send = awaited_send,
};

PyTypeObject awaited_type = {
	PyVarObject_HEAD_INIT(NULL, 0).tp_name = "holdfast._native.Awaited",
	.tp_doc = "A receive that can be awaited, as a coroutine can.",
	.tp_basicsize = sizeof(struct awaited),
	.tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC |
		    Py_TPFLAGS_DISALLOW_INSTANTIATION,
	.tp_as_async = &awaited_as_async,
	.tp_iternext = awaited_next,
	.tp_methods = awaited_methods,
	.tp_getset = awaited_properties,
	.tp_traverse = awaited_traverse,
	.tp_clear = awaited_clear,
	.tp_dealloc = awaited_dealloc,
	.tp_finalize = awaited_finalize,
};
