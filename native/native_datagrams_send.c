// SPDX-License-Identifier: Apache-2.0
/*
 * Sends many datagrams for one sendmmsg; a run of equal size to one address goes as a single
 * message that the kernel cuts (UDP_SEGMENT). No error and no progress is lost.
 */
#define _GNU_SOURCE
#include "native_datagrams.h"
#include "native_datagrams_address.h"
#include "native_wait.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <poll.h>
#include <string.h>

#define PIECES 64 /* also what kernels before 6.9 let UDP_SEGMENT cut */
#define RUN_BYTES 65000

/* Up to PIECES datagrams, and the messages that carry them. */
struct load {
	size_t pieces, messages;
	Py_buffer buffers[PIECES];
	struct sockaddr_storage names[PIECES];
	int name_bytes[PIECES];
	struct iovec parts[PIECES];
	struct mmsghdr headers[PIECES];
	union {
		char bytes[CMSG_SPACE(sizeof(uint16_t))];
		struct cmsghdr aligned;
	} controls[PIECES];
};

/* One call's wishes and how far it has come. */
struct post {
	struct wait wait;
	int family;
	bool segment; /* UDP_SEGMENT may be tried */
	bool peer;
	PyObject *items;
	Py_ssize_t sent;
};

static void load_release(struct load *load)
{
	while (load->pieces)
		PyBuffer_Release(&load->buffers[--load->pieces]);
}

static int piece_add(struct load *load, PyObject *item, int family)
{
	size_t at = load->pieces;
	int bytes;

	if (!PyTuple_Check(item) || PyTuple_GET_SIZE(item) != 2) {
		PyErr_SetString(PyExc_TypeError,
				"a message is a tuple (data, address)");
		return -1;
	}
	bytes = address_parse(PyTuple_GET_ITEM(item, 1), family,
			      &load->names[at]);
	if (bytes < 0)
		return -1;
	if (PyObject_GetBuffer(PyTuple_GET_ITEM(item, 0), &load->buffers[at],
			       PyBUF_SIMPLE))
		return -1;
	load->name_bytes[at] = bytes;
	load->parts[at].iov_base = load->buffers[at].buf;
	load->parts[at].iov_len = (size_t)load->buffers[at].len;
	load->pieces++;
	return 0;
}

/* Take the datagrams from `post->sent` on; the list may have become shorter meanwhile. */
static int load_fill(struct load *load, const struct post *post)
{
	Py_ssize_t at = post->sent;
	PyObject *item;
	int failed;

	while (load->pieces < PIECES &&
	       at < PySequence_Fast_GET_SIZE(post->items)) {
		item = Py_NewRef(PySequence_Fast_GET_ITEM(post->items, at));
		failed = piece_add(load, item, post->family);
		Py_DECREF(item);
		if (!failed) {
			at++;
			continue;
		}
		/* What precedes the faulty one is sent first. */
		if (!load->pieces)
			return -1;
		PyErr_Clear();
		break;
	}
	return 0;
}

/* How many from `first` on may go as one: equal in size and address, the last may be shorter. */
static size_t run_length(const struct load *load, size_t first)
{
	size_t size = load->parts[first].iov_len, total = size, at = first + 1;

	if (!size)
		return 1;
	for (; at < load->pieces; at++) {
		total += load->parts[at].iov_len;
		if (load->parts[at].iov_len > size ||
		    !load->parts[at].iov_len || total > RUN_BYTES ||
		    load->name_bytes[at] != load->name_bytes[first] ||
		    memcmp(&load->names[at], &load->names[first],
			   (size_t)load->name_bytes[first]))
			break;
		if (load->parts[at].iov_len < size)
			return at + 1 - first;
	}
	return at - first;
}

static void message_set(struct load *load, size_t first, size_t run)
{
	struct msghdr *header = &load->headers[load->messages].msg_hdr;
	uint16_t size = (uint16_t)load->parts[first].iov_len;
	struct cmsghdr *item;

	memset(header, 0, sizeof(*header));
	header->msg_name = load->name_bytes[first] ? &load->names[first] : NULL;
	header->msg_namelen = (socklen_t)load->name_bytes[first];
	header->msg_iov = &load->parts[first];
	header->msg_iovlen = run;
	if (run > 1) {
		header->msg_control = load->controls[load->messages].bytes;
		header->msg_controllen = CMSG_SPACE(sizeof(size));
		item = CMSG_FIRSTHDR(header);
		item->cmsg_level = SOL_UDP;
		item->cmsg_type = UDP_SEGMENT;
		item->cmsg_len = CMSG_LEN(sizeof(size));
		memcpy(CMSG_DATA(item), &size, sizeof(size));
	}
	load->messages++;
}

static void load_plan(struct load *load, bool segment)
{
	size_t first, run;

	load->messages = 0;
	for (first = 0; first < load->pieces; first += run) {
		run = segment ? run_length(load, first) : 1;
		message_set(load, first, run);
	}
}

/*
 * Datagrams sent; *error says why not all. sendmmsg does not tell an error that comes after
 * its first message: called again, it says it of the message that failed. With a peer,
 * that error can be an ICMP answer, which is told only once: so there one at a time.
 */
static size_t load_send(struct load *load, const struct post *post,
			bool *segmented, int *error)
{
	size_t done = 0, pieces = 0;
	int got;

	*error = 0;
	while (done < load->messages) {
		got = sendmmsg(
			post->wait.fd, &load->headers[done],
			post->peer ? 1 : (unsigned int)(load->messages - done),
			MSG_DONTWAIT | MSG_NOSIGNAL);
		if (got < 0) {
			*error = errno;
			*segmented = load->headers[done].msg_hdr.msg_iovlen > 1;
			break;
		}
		while (got-- > 0)
			pieces += load->headers[done++].msg_hdr.msg_iovlen;
	}
	return pieces;
}

/* What a kernel, a device or a route says that cannot cut, or not at this size. */
static bool refuses_segments(int error)
{
	return error == EIO || error == EINVAL || error == EMSGSIZE ||
	       error == EOPNOTSUPP;
}

/* WAIT_READY: go on. */
static enum wait_end post_some(struct post *post, struct load *load)
{
	bool segmented = false;
	int error;

	load->pieces = 0;
	if (load_fill(load, post))
		return WAIT_FAILED;
	load_plan(load, post->segment);
	Py_BEGIN_ALLOW_THREADS;
	post->sent += (Py_ssize_t)load_send(load, post, &segmented, &error);
	Py_END_ALLOW_THREADS;
	load_release(load);
	if (!error)
		return PyErr_CheckSignals() ? WAIT_FAILED : WAIT_READY;
	if (segmented && refuses_segments(error)) {
		post->segment = false;
		return WAIT_READY;
	}
	return wait_after(&post->wait, error);
}

/* Set `sent_messages` on the exception that is being raised. */
static void tell_progress(Py_ssize_t sent)
{
	PyObject *type, *error, *trace, *count = NULL;

	PyErr_Fetch(&type, &error, &trace);
	PyErr_NormalizeException(&type, &error, &trace);
	count = PyLong_FromSsize_t(sent);
	if (!count || PyObject_SetAttrString(error, "sent_messages", count))
		PyErr_Clear(); /* the first exception matters more */
	Py_XDECREF(count);
	PyErr_Restore(type, error, trace);
}

static bool has_peer(int fd)
{
	struct sockaddr_storage name;
	socklen_t length = sizeof(name);

	return !getpeername(fd, (struct sockaddr *)&name, &length);
}

const char send_datagrams_doc[] =
	"send_datagrams(sock, family, segment, messages, deadline_s, /)\n--\n\n"
	"Send (data, address) pairs; gives how many went before the deadline.\n\n"
	"An exception has sent_messages.";

PyObject *send_datagrams(PyObject *module, PyObject *const *args,
			 Py_ssize_t count)
{
	enum wait_end end = WAIT_READY;
	struct post post = { 0 };
	struct load load;

	if (count != 5)
		return PyErr_Format(PyExc_TypeError,
				    "send_datagrams takes 5 arguments");
	if (wait_open(&post.wait, args[0], POLLOUT))
		return NULL;
	post.family = (int)PyLong_AsLong(args[1]);
	post.segment = PyObject_IsTrue(args[2]) > 0;
	post.wait.deadline_s = PyFloat_AsDouble(args[4]);
	if (PyErr_Occurred())
		return NULL;
	post.items = PySequence_Fast(args[3], "messages are a sequence");
	if (!post.items)
		return NULL;
	post.peer = has_peer(post.wait.fd);
	while (end == WAIT_READY &&
	       post.sent < PySequence_Fast_GET_SIZE(post.items))
		end = post_some(&post, &load);
	Py_DECREF(post.items);
	if (end == WAIT_FAILED) {
		tell_progress(post.sent);
		return NULL;
	}
	return PyLong_FromSsize_t(post.sent);
}
