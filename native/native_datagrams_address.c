// SPDX-License-Identifier: Apache-2.0
#include "native_datagrams_address.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/un.h>

#define SEEN_BITS 8
#define FLOW_MAX 0xfffff /* RFC 8200 3: 20 bits */
#define PATH_AT offsetof(struct sockaddr_un, sun_path)

/* Peers seen lately, one to a slot; a flood of new ones only makes it miss. */
static struct seen {
	struct sockaddr_in6 name; /* the larger of the two that are kept */
	socklen_t length;
	PyObject *object;
} seen[1 << SEEN_BITS];

static struct seen *seen_slot(const void *name, socklen_t length)
{
	uint64_t hash = 0, word;
	socklen_t at;

	for (at = 0; at + sizeof(word) <= length; at += sizeof(word)) {
		memcpy(&word, (const char *)name + at, sizeof(word));
		hash = (hash ^ word) * 0x9e3779b97f4a7c15;
	}
	return &seen[hash >> (64 - SEEN_BITS)];
}

static PyObject *inet_object(const struct sockaddr_storage *name)
{
	const struct sockaddr_in *v4 = (const void *)name;
	const struct sockaddr_in6 *v6 = (const void *)name;
	char host[INET6_ADDRSTRLEN];

	if (name->ss_family == AF_INET) {
		inet_ntop(AF_INET, &v4->sin_addr, host, sizeof(host));
		return Py_BuildValue("(si)", host, ntohs(v4->sin_port));
	}
	inet_ntop(AF_INET6, &v6->sin6_addr, host, sizeof(host));
	return Py_BuildValue("(siII)", host, ntohs(v6->sin6_port),
			     ntohl(v6->sin6_flowinfo), v6->sin6_scope_id);
}

static PyObject *unix_object(const struct sockaddr_un *name, socklen_t length)
{
	size_t bytes;

	if (length <= PATH_AT)
		Py_RETURN_NONE;
	bytes = length - PATH_AT;
	if (bytes > sizeof(name->sun_path))
		bytes = sizeof(name->sun_path);
	if (!name->sun_path[0])
		return PyBytes_FromStringAndSize(name->sun_path,
						 (Py_ssize_t)bytes);
	return PyUnicode_DecodeFSDefaultAndSize(
		name->sun_path, (Py_ssize_t)strnlen(name->sun_path, bytes));
}

PyObject *address_object(const struct sockaddr_storage *name, socklen_t length)
{
	struct seen *slot;
	PyObject *made;

	if (length < sizeof(name->ss_family))
		Py_RETURN_NONE;
	if (name->ss_family == AF_UNIX)
		return unix_object((const void *)name, length);
	if (name->ss_family != AF_INET && name->ss_family != AF_INET6)
		Py_RETURN_NONE;
	if (length > sizeof(slot->name))
		length = sizeof(slot->name);
	slot = seen_slot(name, length);
	if (slot->object && slot->length == length &&
	    !memcmp(&slot->name, name, length))
		return Py_NewRef(slot->object);
	made = inet_object(name);
	if (!made)
		return NULL;
	memcpy(&slot->name, name, length);
	slot->length = length;
	Py_XSETREF(slot->object, Py_NewRef(made));
	return made;
}

static int parse_inet(PyObject *address, int family,
		      struct sockaddr_storage *name)
{
	struct sockaddr_in *v4 = (void *)name;
	struct sockaddr_in6 *v6 = (void *)name;
	long long port, flow = 0, scope = 0;
	const char *host;

	if (!PyTuple_Check(address)) {
		PyErr_SetString(PyExc_TypeError,
				"an address of this socket is a tuple");
		return -1;
	}
	if (!PyArg_ParseTuple(address, family == AF_INET ? "sL" : "sL|LL",
			      &host, &port, &flow, &scope))
		return -1;
	if (port < 0 || port > UINT16_MAX || flow < 0 || flow > FLOW_MAX ||
	    scope < 0 || scope > UINT32_MAX) {
		PyErr_Format(PyExc_ValueError,
			     "a number is out of range in the address %R",
			     address);
		return -1;
	}
	memset(name, 0, sizeof(*v6));
	name->ss_family = (sa_family_t)family;
	v4->sin_port = htons((uint16_t)port); /* at the same place in both */
	if (inet_pton(family, host,
		      family == AF_INET ? (void *)&v4->sin_addr :
					  (void *)&v6->sin6_addr) != 1) {
		PyErr_Format(PyExc_ValueError, "'%s' is no numeric %s address",
			     host, family == AF_INET ? "IPv4" : "IPv6");
		return -1;
	}
	if (family == AF_INET)
		return sizeof(*v4);
	v6->sin6_flowinfo = htonl((uint32_t)flow);
	v6->sin6_scope_id = (uint32_t)scope;
	return sizeof(*v6);
}

static int parse_unix(PyObject *address, struct sockaddr_un *name)
{
	PyObject *path = NULL;
	Py_ssize_t bytes;
	char *text;

	if (PyUnicode_Check(address))
		path = PyUnicode_EncodeFSDefault(address);
	else if (PyBytes_Check(address))
		path = Py_NewRef(address);
	else
		PyErr_SetString(PyExc_TypeError,
				"an address of this socket is a str or bytes");
	if (!path)
		return -1;
	PyBytes_AsStringAndSize(path, &text, &bytes);
	/* An abstract name may fill all; a path needs its NUL. */
	if (bytes < 1 ||
	    bytes > (Py_ssize_t)sizeof(name->sun_path) - (text[0] != 0)) {
		Py_DECREF(path);
		PyErr_SetString(PyExc_ValueError,
				"a Unix address has 1 to 107 bytes");
		return -1;
	}
	memset(name, 0, sizeof(*name));
	name->sun_family = AF_UNIX;
	memcpy(name->sun_path, text, (size_t)bytes);
	Py_DECREF(path);
	return (int)(PATH_AT + (size_t)bytes + (name->sun_path[0] != 0));
}

int address_parse(PyObject *address, int family, struct sockaddr_storage *name)
{
	if (address == Py_None)
		return 0;
	if (family == AF_UNIX)
		return parse_unix(address, (void *)name);
	return parse_inet(address, family, name);
}
