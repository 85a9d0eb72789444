// SPDX-License-Identifier: Apache-2.0
/*
 * recv and send on one socket: tried first, waited for only on EAGAIN. MSG_DONTWAIT makes that hold for
 * blocking sockets too, so nobody's O_NONBLOCK is touched.
 */
#include "native.h"

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
static ssize_t move_bytes(struct patience *limit, const struct transfer *one)
{
	int fd = sock_fd(limit->sock);

	/* A Unix socket would wait all the same. */
	if (fd >= 0 && !one->size_bytes)
		return 0;
	while (fd >= 0) {
		enum wait_end end;
		ssize_t moved;
		int failed;

		Py_BEGIN_ALLOW_THREADS moved = attempt(fd, one);
		failed = errno;
		Py_END_ALLOW_THREADS if (moved >= 0) return moved;
		if (failed == EINTR) {
			/* A handler may have closed the socket. */
			if (PyErr_CheckSignals() ||
			    (fd = sock_fd(limit->sock)) < 0)
				return WAIT_FAILED;
			continue;
		}
		if (failed != EAGAIN && failed != EWOULDBLOCK) {
			errno = failed;
			PyErr_SetFromErrno(PyExc_OSError);
			return WAIT_FAILED;
		}
		end = await_events(limit, &fd, one->out ? POLLOUT : READABLE);
		if (end != WAIT_READY)
			return end;
	}
	return WAIT_FAILED;
}

static PyObject *move_buffer(PyObject *const *args, Py_ssize_t count, bool out)
{
	struct patience limit;
	struct transfer one = { .out = out };
	Py_buffer buffer;
	ssize_t moved;

	if (count != 4) {
		PyErr_SetString(PyExc_TypeError,
				"expected sock, buffer, deadline, wake_fd");
		return NULL;
	}
	if (patience_init(&limit, args[0], args[2], args[3]))
		return NULL;
	if (PyObject_GetBuffer(args[1], &buffer,
			       out ? PyBUF_SIMPLE : PyBUF_WRITABLE))
		return NULL;
	one.data = buffer.buf;
	one.size_bytes = (size_t)buffer.len;
	moved = move_bytes(&limit, &one);
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
	struct patience limit;
	struct transfer one = { .out = false };
	PyObject *bytes;
	Py_ssize_t size;
	ssize_t moved;

	if (count != 4) {
		PyErr_SetString(PyExc_TypeError,
				"expected sock, size, deadline, wake_fd");
		return NULL;
	}
	size = PyNumber_AsSsize_t(args[1], PyExc_OverflowError);
	if (size == -1 && PyErr_Occurred())
		return NULL;
	if (size < 0) {
		PyErr_SetString(PyExc_ValueError, "the size is negative");
		return NULL;
	}
	if (patience_init(&limit, args[0], args[2], args[3]))
		return NULL;
	bytes = PyBytes_FromStringAndSize(NULL, size);
	if (!bytes)
		return NULL;
	one.data = PyBytes_AS_STRING(bytes);
	one.size_bytes = (size_t)size;
	moved = move_bytes(&limit, &one);
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
