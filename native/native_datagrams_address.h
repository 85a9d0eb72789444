// SPDX-License-Identifier: Apache-2.0
/* Socket addresses as the module `socket` writes them: IPv4, IPv6 and Unix. */
#ifndef HOLDFAST_NATIVE_DATAGRAMS_ADDRESS_H
#define HOLDFAST_NATIVE_DATAGRAMS_ADDRESS_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <sys/socket.h>

/*
 * A new reference to (host, port), (host, port, flow, scope), a path, an abstract name or
 * None. Peers seen lately get the same object again.
 */
PyObject *address_object(const struct sockaddr_storage *name, socklen_t length);

/*
 * Write the address of a socket of this family; 0 is no address (None). -1 with ValueError
 * or TypeError set. Hosts are numeric: a batch never waits for a name server.
 */
int address_parse(PyObject *address, int family, struct sockaddr_storage *name);

#endif
