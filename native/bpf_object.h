// SPDX-License-Identifier: Apache-2.0
/* What the parts of holdfast._bpf share: the object, and how libbpf's failures are told. */
#ifndef HOLDFAST_BPF_OBJECT_H
#define HOLDFAST_BPF_OBJECT_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <bpf/libbpf.h>
#include <stdarg.h>
#include <stdbool.h>

#include "bpf_ring.h"

#define LINKS_MAX 32

typedef struct {
	PyObject_HEAD
	struct bpf_object *object;
	struct bpf_link *links[LINKS_MAX];
	int links_used;
	struct ring *ring;
	bool loaded;
} Object;

/* libbpf_print_fn_t: keeps what libbpf says, for the next failure. */
int log_append(enum libbpf_print_level level, const char *format, va_list args);

/* Forget what libbpf has said. */
void log_clear(void);

/* Raise OSError(error, "DOING WHAT: ..."), with libbpf's words below; NULL. */
PyObject *raise_errno(int error, const char *doing, const char *what);

/* Whether the object is closed; if so, with ValueError set. */
bool object_closed(Object *self);

/* The map of that name, or NULL with KeyError or ValueError set. */
struct bpf_map *find_map(Object *self, const char *name);

/* Methods that read what the kernel side wrote: see their documentation. */
extern const char sums_doc[], drain_doc[], statistics_doc[], skipped_doc[];
PyObject *object_sums(Object *self, PyObject *args);
PyObject *object_drain(Object *self, PyObject *args);
PyObject *object_statistics(Object *self, PyObject *unused);
PyObject *object_skipped(Object *self, PyObject *unused);

#endif
