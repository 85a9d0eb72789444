// SPDX-License-Identifier: Apache-2.0
/*
 * recv and send on one socket: tried first, waited for only on EAGAIN. MSG_DONTWAIT makes that hold for
 * blocking sockets too, so nobody's O_NONBLOCK is touched.
 */
#define _GNU_SOURCE /* POLLRDHUP */
#include "native_receive.h"
#include "native_usage.h"
#include "native_wait.h"

#include <errno.h>
#include <poll.h>
#include <sys/socket.h>

/* POLLRDHUP: the end of the peer's stream wakes a reader even where SO_RCVLOWAT asks for more. */
#define READABLE (POLLIN | POLLRDHUP)

struct transfer {
	void *data;
	size_t size_bytes;
	bool out;
};

static ssize_t attempt(int fd, const struct transfer *one)
{
	if (one->out)
		return send(fd, one->data, one->size_bytes,
			    MSG_DONTWAIT | MSG_NOSIGNAL);
	return recv(fd, one->data, one->size_bytes, MSG_DONTWAIT);
}

/* Bytes moved, or an enum wait_end below zero. */
static ssize_t move_bytes(struct wait *wait, const struct transfer *one)
{
	enum wait_end end;
	ssize_t moved;
	int error;

	if (!one->size_bytes) /* a Unix socket would wait all the same */
		return 0;
	for (;;) {
		Py_BEGIN_ALLOW_THREADS;
		moved = attempt(wait->fd, one);
		error = errno;
		Py_END_ALLOW_THREADS;
		if (moved >= 0)
			return moved;
		end = wait_after(wait, error);
		if (end != WAIT_READY)
			return end;
	}
}

/* From the arguments sock, deadline, wake_fd: read before the first system call. */
static int wait_parse(struct wait *wait, PyObject *sock, PyObject *deadline,
		      PyObject *wake_fd, short events)
{
	if (wait_open(wait, sock, events))
		return -1;
	wait->own = deadline == Py_None;
	if (!wait->own && asked_deadline(deadline, &wait->deadline_s))
		return -1;
	if (wake_fd != Py_None) {
		wait->wake_fd = (int)PyLong_AsLong(wake_fd);
		if (wait->wake_fd == -1 && PyErr_Occurred())
			return -1;
	}
	return 0;
}

static PyObject *move_buffer(PyObject *const *args, Py_ssize_t count, bool out)
{
	struct transfer one = { .out = out };
	struct wait wait;
	Py_buffer buffer;
	ssize_t moved;

	if (count != 4) {
		PyErr_SetString(PyExc_TypeError,
				"expected sock, buffer, deadline, wake_fd");
		return NULL;
	}
	if (wait_parse(&wait, args[0], args[2], args[3],
		       out ? POLLOUT : READABLE))
		return NULL;
	if (PyObject_GetBuffer(args[1], &buffer,
			       out ? PyBUF_SIMPLE : PyBUF_WRITABLE))
		return NULL;
	one.data = buffer.buf;
	one.size_bytes = (size_t)buffer.len;
	moved = move_bytes(&wait, &one);
	PyBuffer_Release(&buffer);
	return moved == WAIT_FAILED ? NULL : PyLong_FromSsize_t(moved);
}

PyObject *receive_into(PyObject *module, PyObject *const *args,
		       Py_ssize_t count)
{
	return move_buffer(args, count, false);
}

static PyObject *send_from(PyObject *module, PyObject *const *args,
			   Py_ssize_t count)
{
	return move_buffer(args, count, true);
}

PyObject *receive(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
	struct transfer one = { .out = false };
	struct wait wait;
	PyObject *bytes;
	Py_ssize_t size;
	ssize_t moved;

	if (count != 4) {
		PyErr_SetString(PyExc_TypeError,
				"expected sock, size, deadline, wake_fd");
		return NULL;
	}
	size = asked_size(args[1]);
	if (size < 0)
		return NULL;
	if (wait_parse(&wait, args[0], args[2], args[3], READABLE))
		return NULL;
	bytes = PyBytes_FromStringAndSize(NULL, size);
	if (!bytes)
		return NULL;
	one.data = PyBytes_AS_STRING(bytes);
	one.size_bytes = (size_t)size;
	moved = move_bytes(&wait, &one);
	if (moved < 0) {
		Py_DECREF(bytes);
		return moved == WAIT_FAILED ? NULL : PyLong_FromSsize_t(moved);
	}
	if (moved != size)
		_PyBytes_Resize(&bytes, moved);
	return bytes;
}

PyMethodDef receive_methods[] = {
	{ "receive", (PyCFunction)(void (*)(void))receive, METH_FASTCALL,
	  "receive(sock, size, deadline, wake_fd, /)\n--\n\n"
	  "Up to size bytes; -1 when the deadline has passed, -2 when woken." },
	{ "receive_into", (PyCFunction)(void (*)(void))receive_into,
	  METH_FASTCALL,
	  "receive_into(sock, buffer, deadline, wake_fd, /)\n--\n\n"
	  "How many bytes came; -1 when the deadline has passed, -2 when woken." },
	{ "send_from", (PyCFunction)(void (*)(void))send_from, METH_FASTCALL,
	  "send_from(sock, buffer, deadline, wake_fd, /)\n--\n\n"
	  "How many bytes the kernel took; -1 when the deadline has passed, -2 when woken." },
	{ NULL, NULL, 0, NULL },
};
