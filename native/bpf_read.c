// SPDX-License-Identifier: Apache-2.0
/* Reading what the kernel side wrote: counters, records, run times. */
#include "bpf_object.h"

#include <bpf/bpf.h>
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

const char sums_doc[] =
	"sums(map)\n--\n\n"
	"All keys of a per-CPU map of u64 with their values added up:\n"
	"dict of bytes to int. A snapshot per key, not of the map.";

PyObject *object_sums(Object *self, PyObject *args)
{
	int cpus = libbpf_num_possible_cpus(), fd, cpu;
	unsigned long long *values, sum;
	PyObject *result, *number;
	char key[64], *before = NULL;
	struct bpf_map *map;
	const char *name;
	__u32 bytes;

	if (!PyArg_ParseTuple(args, "s", &name))
		return NULL;
	map = find_map(self, name);
	if (!map)
		return NULL;
	fd = bpf_map__fd(map);
	bytes = bpf_map__key_size(map);
	if (fd < 0 || bytes > sizeof(key) || cpus < 1 ||
	    bpf_map__value_size(map) != sizeof(*values))
		return PyErr_Format(PyExc_ValueError,
				    "%s is not a loaded map of counters", name);
	values = calloc((size_t)cpus, sizeof(*values));
	result = values ? PyDict_New() : PyErr_NoMemory();
	while (result && !bpf_map_get_next_key(fd, before, key)) {
		before = key;
		if (bpf_map_lookup_elem(fd, key, values))
			continue; /* deleted meanwhile */
		for (sum = 0, cpu = 0; cpu < cpus; cpu++)
			sum += values[cpu];
		number = Py_BuildValue("(y#K)", key, (Py_ssize_t)bytes, sum);
		if (!number ||
		    PyDict_SetItem(result, PyTuple_GET_ITEM(number, 0),
				   PyTuple_GET_ITEM(number, 1)))
			Py_CLEAR(result);
		Py_XDECREF(number);
	}
	free(values);
	return result;
}

const char drain_doc[] =
	"drain(map, plenty, keep)\n--\n\n"
	"Empty the ring buffer of `struct event`. If more than `plenty` records\n"
	"are in it, of those alike only the first `keep` are returned and the\n"
	"others are counted. Alike are those with one tally key and process, and\n"
	"one port at the same end.\n\n"
	"Returns (records: bytes, folded), folded a dict of (tally key, local port,\n"
	"peer port, pid), 0 for what varies, to the count. At most 4096 records are\n"
	"returned; what is left waits in the ring.";

static PyObject *folded_dict(const struct ring *ring)
{
	PyObject *result = PyDict_New(), *pair;
	size_t i;

	for (i = 0; result && ring->folding && i < RING_KEYS; i++) {
		const struct ring_count *c = &ring->counts[i];

		if (!c->folded)
			continue;
		pair = Py_BuildValue("((y#HHI)n)", &c->key.tally,
				     (Py_ssize_t)sizeof(c->key.tally),
				     c->key.local_port, c->key.peer_port,
				     c->key.pid, (Py_ssize_t)c->folded);
		if (!pair || PyDict_SetItem(result, PyTuple_GET_ITEM(pair, 0),
					    PyTuple_GET_ITEM(pair, 1)))
			Py_CLEAR(result);
		Py_XDECREF(pair);
	}
	return result;
}

PyObject *object_drain(Object *self, PyObject *args)
{
	Py_ssize_t plenty, keep;
	struct bpf_map *map;
	const char *name;
	PyObject *folded;
	int error;

	if (!PyArg_ParseTuple(args, "snn", &name, &plenty, &keep))
		return NULL;
	map = find_map(self, name);
	if (!map)
		return NULL;
	if (plenty < 0 || keep < 1)
		return PyErr_Format(PyExc_ValueError,
				    "nobody keeps %zd records, or %zd of alike",
				    plenty, keep);
	if (self->ring && self->ring->map_fd != bpf_map__fd(map))
		return PyErr_Format(PyExc_ValueError,
				    "another ring than before");
	if (!self->ring)
		self->ring = ring_new(bpf_map__fd(map));
	if (!self->ring)
		return raise_errno(errno, "reading ring", name);
	Py_BEGIN_ALLOW_THREADS;
	error = ring_drain(self->ring, (size_t)plenty, (size_t)keep);
	Py_END_ALLOW_THREADS;
	if (error)
		return raise_errno(-error, "reading ring", name);
	folded = folded_dict(self->ring);
	if (!folded)
		return NULL;
	return Py_BuildValue(
		"(y#N)", self->ring->records,
		(Py_ssize_t)(self->ring->used * sizeof(*self->ring->records)),
		folded);
}

const char statistics_doc[] =
	"statistics()\n--\n\n"
	"Of each loaded program (runs, nanoseconds) since load; zeros\n"
	"unless enable_statistics() is held.";

PyObject *object_statistics(Object *self, PyObject *unused)
{
	struct bpf_program *program;
	PyObject *result, *pair;

	if (object_closed(self))
		return NULL;
	result = PyDict_New();
	if (!result)
		return NULL;
	bpf_object__for_each_program (program, self->object) {
		struct bpf_prog_info info = {};
		__u32 bytes = sizeof(info);
		int fd = bpf_program__fd(program);

		if (fd < 0 || bpf_obj_get_info_by_fd(fd, &info, &bytes))
			continue;
		pair = Py_BuildValue("(KK)", info.run_cnt, info.run_time_ns);
		if (!pair ||
		    PyDict_SetItemString(result, bpf_program__name(program),
					 pair)) {
			Py_XDECREF(pair);
			Py_DECREF(result);
			return NULL;
		}
		Py_DECREF(pair);
	}
	return result;
}

const char skipped_doc[] =
	"skipped()\n--\n\n"
	"Runs of the programs that the kernel left out, because an interrupt\n"
	"came while the same program ran on that CPU (Linux 5.12).";

PyObject *object_skipped(Object *self, PyObject *unused)
{
	unsigned long long sum = 0;
	struct bpf_program *program;

	if (object_closed(self))
		return NULL;
	bpf_object__for_each_program (program, self->object) {
		struct bpf_prog_info info = {};
		__u32 bytes = sizeof(info);
		int fd = bpf_program__fd(program);

		if (fd >= 0 && !bpf_obj_get_info_by_fd(fd, &info, &bytes))
			sum += info.recursion_misses;
	}
	return PyLong_FromUnsignedLongLong(sum);
}
