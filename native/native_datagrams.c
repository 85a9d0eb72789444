// SPDX-License-Identifier: Apache-2.0
/*
 * Receives many datagrams for one recvmmsg, into scratch memory (then copied into bytes) or
 * into the caller's own. Memory is bounded by the scratch, whatever is asked for or arrives.
 */
#define _GNU_SOURCE
#include "native_datagrams.h"
#include "native_datagrams_address.h"
#include "native_wait.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define SLOTS 64
/* Room for one datagram of any size, and for what UDP_GRO joins. */
#define ROOM_BYTES 65536
/* Slots a power of two apart would all fall on the same lines of the cache. */
#define STAGGER_BYTES 192
#define SCRATCH_BYTES (SLOTS * (ROOM_BYTES + STAGGER_BYTES))
/* The segment size comes after SO_TIMESTAMPING, SO_RXQ_OVFL, SO_MARK ...: 192 bytes. */
#define CONTROL_BYTES 256
#define HUGE_PAGE_BYTES (1UL << 21)

/* What recvmmsg writes to. One is kept for the next call. */
struct rack {
	struct mmsghdr messages[SLOTS];
	struct iovec parts[SLOTS];
	struct sockaddr_storage names[SLOTS];
	union {
		char bytes[CONTROL_BYTES];
		struct cmsghdr aligned;
	} controls[SLOTS];
	/* Where the slots point, and the room they have. */
	char *memory;
	size_t stride, room, control_bytes;
	char scratch[SCRATCH_BYTES];
};

static struct rack *spare;

/* One call's wishes, and where its results go. */
struct take {
	struct wait wait;
	bool control;	/* not for Unix: no room, so no descriptors reach us */
	PyObject *view; /* the caller's memory; None for scratch */
	Py_buffer memory;
	size_t room, stride, wanted, max_bytes;
	PyObject *out, *cut;
};

static struct rack *rack_get(void)
{
	size_t bytes =
		(sizeof(*spare) + HUGE_PAGE_BYTES - 1) & ~(HUGE_PAGE_BYTES - 1);
	struct rack *rack = spare;

	spare = NULL;
	if (rack)
		return rack;
	rack = aligned_alloc(HUGE_PAGE_BYTES, bytes); /* taken when touched */
	if (!rack) {
		PyErr_NoMemory();
		return NULL;
	}
	/* Each slot starts on a page of its own: small ones cost a tenth of the time, in misses. */
	madvise(rack, bytes, MADV_HUGEPAGE);
	rack->memory = NULL;
	return rack;
}

static void rack_put(struct rack *rack)
{
	if (spare)
		free(rack);
	else
		spare = rack;
}

static void slot_clear(struct rack *rack, size_t slot)
{
	struct msghdr *header = &rack->messages[slot].msg_hdr;

	header->msg_namelen = sizeof(rack->names[slot]);
	header->msg_controllen = rack->control_bytes;
	header->msg_flags = 0;
}

/* Point all slots at memory; nothing to do if they do already, as from call to call. */
static void rack_aim(struct rack *rack, const struct take *take, char *memory)
{
	size_t control_bytes = take->control ? CONTROL_BYTES : 0, i;
	struct msghdr *header;

	if (rack->memory == memory && rack->stride == take->stride &&
	    rack->room == take->room && rack->control_bytes == control_bytes)
		return;
	rack->memory = memory;
	rack->stride = take->stride;
	rack->room = take->room;
	rack->control_bytes = control_bytes;
	for (i = 0; i < SLOTS; i++) {
		header = &rack->messages[i].msg_hdr;
		rack->parts[i].iov_base = memory + i * take->stride;
		rack->parts[i].iov_len = take->room;
		header->msg_name = &rack->names[i];
		header->msg_iov = &rack->parts[i];
		header->msg_iovlen = 1;
		header->msg_control = rack->controls[i].bytes;
		slot_clear(rack, i);
	}
}

/* The size of the datagrams that UDP_GRO joined in this message; 0 if it is a single one. */
static size_t segment_bytes(struct msghdr *header)
{
	struct cmsghdr *item;
	int bytes;

	for (item = CMSG_FIRSTHDR(header); item;
	     item = CMSG_NXTHDR(header, item)) {
		if (item->cmsg_level != SOL_UDP || item->cmsg_type != UDP_GRO ||
		    item->cmsg_len < CMSG_LEN(sizeof(bytes)))
			continue;
		memcpy(&bytes, CMSG_DATA(item), sizeof(bytes));
		return bytes > 0 ? (size_t)bytes : 0;
	}
	return 0;
}

static PyObject *payload_object(struct take *take, const char *at, size_t bytes)
{
	PyObject *from, *to, *range, *made = NULL;
	Py_ssize_t offset;

	if (take->view == Py_None)
		return PyBytes_FromStringAndSize(at, (Py_ssize_t)bytes);
	offset = at - (char *)take->memory.buf;
	from = PyLong_FromSsize_t(offset);
	to = PyLong_FromSsize_t(offset + (Py_ssize_t)bytes);
	range = from && to ? PySlice_New(from, to, NULL) : NULL;
	if (range)
		made = PyObject_GetItem(take->view, range);
	Py_XDECREF(range);
	Py_XDECREF(to);
	Py_XDECREF(from);
	return made;
}

static size_t lesser(size_t a, size_t b)
{
	return a < b ? a : b;
}

/* How many datagrams a message holds: several if UDP_GRO joined them, which are all of *step bytes. */
static size_t message_datagrams(struct mmsghdr *message, size_t *step)
{
	*step = segment_bytes(&message->msg_hdr);
	if (!*step || *step >= message->msg_len) {
		*step = message->msg_len;
		return 1;
	}
	return (message->msg_len + *step - 1) / *step;
}

/* Note that the datagram at this place of `out` is not whole. */
static int cut_append(struct take *take, Py_ssize_t place)
{
	PyObject *number = PyLong_FromSsize_t(place);
	int failed = number ? PyList_Append(take->cut, number) : -1;

	Py_XDECREF(number);
	return failed;
}

/* Put (payload, address) of each datagram of a message into `fresh`, whose first will be at `place` of `out`. */
static int message_put(struct take *take, struct mmsghdr *message,
		       PyObject *fresh, Py_ssize_t *filled)
{
	struct msghdr *header = &message->msg_hdr;
	const char *memory = header->msg_iov->iov_base;
	/* With MSG_TRUNC, what was sent, even if it had no room. */
	size_t left = message->msg_len, room = header->msg_iov->iov_len;
	size_t step, count = message_datagrams(message, &step), size, kept;
	PyObject *address, *payload, *pair;

	address = address_object(header->msg_name, header->msg_namelen);
	if (!address)
		return -1;
	for (; count; count--) {
		size = lesser(step, left);
		kept = lesser(lesser(size, room), take->max_bytes);
		if (kept < size &&
		    cut_append(take, PyList_GET_SIZE(take->out) + *filled))
			break;
		payload = payload_object(take, memory, kept);
		if (!payload)
			break;
		pair = PyTuple_New(2);
		if (!pair) {
			Py_DECREF(payload);
			break;
		}
		PyTuple_SET_ITEM(pair, 0, payload);
		PyTuple_SET_ITEM(pair, 1, Py_NewRef(address));
		PyList_SET_ITEM(fresh, (*filled)++, pair);
		memory += lesser(size, room);
		room -= lesser(size, room);
		left -= size;
	}
	Py_DECREF(address);
	return count ? -1 : 0;
}

/* Append what all these messages hold, at once: a list that grows one by one moves again and again. */
static int messages_append(struct take *take, struct mmsghdr *messages, int got)
{
	Py_ssize_t total = 0, filled = 0, end = PyList_GET_SIZE(take->out);
	PyObject *fresh;
	size_t step;
	int i, failed = 0;

	for (i = 0; i < got; i++)
		total += (Py_ssize_t)message_datagrams(&messages[i], &step);
	fresh = PyList_New(total);
	if (!fresh)
		return -1;
	for (i = 0; i < got && !failed; i++)
		failed = message_put(take, &messages[i], fresh, &filled);
	failed = failed || PyList_SetSlice(take->out, end, end, fresh);
	Py_DECREF(fresh);
	return failed ? -1 : 0;
}

/* The error that recvmmsg met after the last datagram and kept on the socket; 0 for none. */
static int error_pending(int fd)
{
	socklen_t length = sizeof(int);
	int error = 0;

	if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length))
		return 0;
	return error;
}

/* Messages received, -1 with an exception; *error says why there are no more. */
static int rack_fill(struct rack *rack, struct take *take, size_t taken,
		     int *error)
{
	size_t count = lesser(take->wanted - taken, SLOTS);
	char *memory = rack->scratch;
	int got, i, failed;

	if (take->view != Py_None)
		memory = (char *)take->memory.buf + taken * take->stride;
	else
		count = lesser(count, SCRATCH_BYTES / take->stride);
	rack_aim(rack, take, memory);
	Py_BEGIN_ALLOW_THREADS;
	got = recvmmsg(take->wait.fd, rack->messages, (unsigned int)count,
		       MSG_DONTWAIT | MSG_TRUNC, NULL);
	*error = got < 0 ? errno : 0;
	/*
	 * Fewer than asked for: the queue is empty, or there was an error. It would be
	 * told to whoever calls next, or overwritten, so it is fetched now.
	 */
	if (got > 0 && (size_t)got < count) {
		*error = error_pending(take->wait.fd);
		*error = *error ? *error : EAGAIN;
	}
	Py_END_ALLOW_THREADS;
	if (got <= 0)
		return 0;
	failed = messages_append(take, rack->messages, got);
	for (i = 0; i < got; i++)
		slot_clear(rack, (size_t)i);
	return failed ? -1 : got;
}

/* An errno that came too late for this call or 0; an enum wait_end below zero. */
static int take_all(struct rack *rack, struct take *take)
{
	size_t taken = 0;
	enum wait_end end;
	int got, error;

	while (taken < take->wanted) {
		got = rack_fill(rack, take, taken, &error);
		if (got < 0)
			return WAIT_FAILED;
		taken += (size_t)got;
		if (!error)
			continue;
		/* A signal's handler may raise: not while we hold datagrams. */
		if (taken)
			return error == EAGAIN || error == EINTR ? 0 : error;
		end = wait_after(&take->wait, error);
		if (end != WAIT_READY)
			return end;
	}
	return 0;
}

/* Fill `take` from the arguments; what they mean was checked in Python. */
static int take_parse(struct take *take, PyObject *const *args)
{
	size_t slot_bytes;

	if (wait_open(&take->wait, args[0], POLLIN))
		return -1;
	take->control = PyObject_IsTrue(args[1]) > 0;
	take->view = args[2];
	slot_bytes = PyLong_AsSize_t(args[3]);
	take->wanted = PyLong_AsSize_t(args[4]);
	take->max_bytes = PyLong_AsSize_t(args[5]);
	take->wait.deadline_s = PyFloat_AsDouble(args[6]);
	take->out = args[7];
	take->cut = args[8];
	if (PyErr_Occurred())
		return -1;
	if (!PyList_Check(take->out) || !PyList_Check(take->cut) ||
	    slot_bytes < 1 || slot_bytes > SCRATCH_BYTES / 2) {
		PyErr_SetString(PyExc_ValueError, "no way to hold datagrams");
		return -1;
	}
	take->room = take->stride = slot_bytes;
	if (take->view == Py_None) {
		/* A smaller limit must not cut what UDP_GRO joined. */
		take->room = slot_bytes < ROOM_BYTES ? ROOM_BYTES : slot_bytes;
		take->stride = (take->room + 63) / 64 * 64 + STAGGER_BYTES;
		return 0;
	}
	if (PyObject_GetBuffer(take->view, &take->memory, PyBUF_WRITABLE))
		return -1;
	if ((size_t)take->memory.len / slot_bytes >= take->wanted)
		return 0;
	PyBuffer_Release(&take->memory);
	PyErr_SetString(PyExc_ValueError, "the memory has too few slots");
	return -1;
}

static const char recv_datagrams_doc[] =
	"recv_datagrams(sock, control, into, slot_bytes, max_messages, max_bytes,\n"
	"               deadline_s, out, cut, /)\n--\n\n"
	"Append (payload, address) pairs to out and the places of cut ones to cut.\n\n"
	"Gives an errno that came after the last of them (0 for none), or None\n"
	"if nothing came before the deadline.";

static PyObject *recv_datagrams(PyObject *module, PyObject *const *args,
				Py_ssize_t count)
{
	struct take take = { 0 };
	struct rack *rack;
	int result = WAIT_FAILED;

	if (count != 9)
		return PyErr_Format(PyExc_TypeError,
				    "recv_datagrams takes 9 arguments");
	if (take_parse(&take, args))
		return NULL;
	rack = rack_get();
	if (rack) {
		result = take_all(rack, &take);
		rack_put(rack);
	}
	if (take.memory.obj)
		PyBuffer_Release(&take.memory);
	if (result == WAIT_FAILED)
		return NULL;
	if (result == WAIT_DEADLINE)
		Py_RETURN_NONE;
	return PyLong_FromLong(result);
}

PyMethodDef datagram_methods[] = {
	{ "recv_datagrams", (PyCFunction)(void (*)(void))recv_datagrams,
	  METH_FASTCALL, recv_datagrams_doc },
	{ "send_datagrams", (PyCFunction)(void (*)(void))send_datagrams,
	  METH_FASTCALL, send_datagrams_doc },
	{ NULL, NULL, 0, NULL },
};
