// SPDX-License-Identifier: Apache-2.0
/*
 * holdfast._bpf: a thin face of libbpf. It opens one object, chooses programs, attaches
 * them and empties the ring buffer. Policy lives in Python.
 */
#include "bpf_object.h"

#include <bpf/bpf.h>
#include <bpf/btf.h>
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

bool object_closed(Object *self)
{
	if (self->object)
		return false;
	PyErr_SetString(PyExc_ValueError, "the BPF object is closed");
	return true;
}

static void object_release(Object *self)
{
	ring_free(self->ring);
	self->ring = NULL;
	while (self->links_used)
		bpf_link__destroy(self->links[--self->links_used]);
	bpf_object__close(self->object);
	self->object = NULL;
	self->loaded = false;
}

static void object_dealloc(Object *self)
{
	object_release(self);
	Py_TYPE(self)->tp_free((PyObject *)self);
}

static int object_init(Object *self, PyObject *args, PyObject *kwargs)
{
	static char *names[] = { "path", NULL };
	const char *path;
	struct bpf_object *object;

	if (!PyArg_ParseTupleAndKeywords(args, kwargs, "s", names, &path))
		return -1;
	log_clear();
	object = bpf_object__open(path);
	if (!object) {
		raise_errno(errno, "opening", path);
		return -1;
	}
	object_release(self);
	self->object = object;
	return 0;
}

struct bpf_map *find_map(Object *self, const char *name)
{
	struct bpf_map *map;

	if (object_closed(self))
		return NULL;
	map = bpf_object__find_map_by_name(self->object, name);
	if (!map)
		PyErr_Format(PyExc_KeyError, "no BPF map named %s", name);
	return map;
}

static struct bpf_program *find_program(Object *self, const char *name)
{
	struct bpf_program *program;

	if (object_closed(self))
		return NULL;
	program = bpf_object__find_program_by_name(self->object, name);
	if (!program)
		PyErr_Format(PyExc_KeyError, "no BPF program named %s", name);
	return program;
}

/* The offset of a variable in .rodata, from the object's own BTF (NULL if it has none); or -1. */
static long constant_offset(const struct btf *btf, const char *name,
			    Py_ssize_t bytes)
{
	const struct btf_var_secinfo *variable;
	const struct btf_type *section, *t;
	int id, i;

	if (!btf)
		return -1;
	id = btf__find_by_name_kind(btf, ".rodata", BTF_KIND_DATASEC);
	if (id < 0)
		return -1;
	section = btf__type_by_id(btf, id);
	variable = btf_var_secinfos(section);
	for (i = 0; i < btf_vlen(section); i++, variable++) {
		t = btf__type_by_id(btf, variable->type);
		if (!strcmp(btf__name_by_offset(btf, t->name_off), name))
			return (Py_ssize_t)variable->size == bytes ?
				       (long)variable->offset :
				       -1;
	}
	return -1;
}

PyDoc_STRVAR(set_constant_doc,
	     "set_constant(name, value)\n--\n\n"
	     "Set a `const volatile` before load; value has exactly its size.");

static PyObject *object_set_constant(Object *self, PyObject *args)
{
	const char *name, *value;
	struct bpf_map *map;
	Py_ssize_t bytes;
	size_t size = 0;
	char *memory;
	long offset;

	if (!PyArg_ParseTuple(args, "sy#", &name, &value, &bytes) ||
	    object_closed(self))
		return NULL;
	map = bpf_object__find_map_by_name(self->object, ".rodata");
	/* The programs have it by then; newer libbpf maps it read-only. */
	if (self->loaded)
		return PyErr_Format(PyExc_ValueError,
				    "%s is set too late: the object is loaded",
				    name);
	memory = map ? (char *)bpf_map__initial_value(map, &size) : NULL;
	offset = constant_offset(bpf_object__btf(self->object), name, bytes);
	if (!memory || offset < 0 || (size_t)offset + (size_t)bytes > size)
		return PyErr_Format(PyExc_KeyError,
				    "no BPF constant %s of %zd bytes", name,
				    bytes);
	memcpy(memory + offset, value, (size_t)bytes);
	Py_RETURN_NONE;
}

PyDoc_STRVAR(set_max_entries_doc, "set_max_entries(map, entries)\n--\n\n"
				  "Size a map before load (bytes for a ring).");

static PyObject *object_set_max_entries(Object *self, PyObject *args)
{
	const char *name;
	long long entries;
	struct bpf_map *map;
	int error;

	/* Not "I": it takes a number out of range without a word. */
	if (!PyArg_ParseTuple(args, "sL", &name, &entries))
		return NULL;
	map = find_map(self, name);
	if (!map)
		return NULL;
	if (entries < 1 || entries > UINT32_MAX)
		return PyErr_Format(PyExc_ValueError, "no map has %lld entries",
				    entries);
	error = bpf_map__set_max_entries(map, (__u32)entries);
	if (error)
		return raise_errno(-error, "sizing map", name);
	Py_RETURN_NONE;
}

PyDoc_STRVAR(load_doc,
	     "load(programs)\n--\n\n"
	     "Verify and load these programs and no others.\n\n"
	     "Raises OSError with libbpf's and the verifier's words.");

static PyObject *object_load(Object *self, PyObject *args)
{
	struct bpf_program *program;
	PyObject *names, *name;
	Py_ssize_t found = 0;
	int wanted, error;

	if (!PyArg_ParseTuple(args, "O", &names) || object_closed(self))
		return NULL;
	bpf_object__for_each_program (program, self->object) {
		name = PyUnicode_FromString(bpf_program__name(program));
		wanted = name ? PySequence_Contains(names, name) : -1;
		Py_XDECREF(name);
		if (wanted < 0)
			return NULL;
		bpf_program__set_autoload(program, wanted);
		found += wanted;
	}
	/* A name misspelt would else be a program silently missing. */
	if (found != PySequence_Size(names))
		return PyErr_Format(PyExc_KeyError,
				    "not every one of %R is a BPF program",
				    names);
	log_clear();
	Py_BEGIN_ALLOW_THREADS;
	error = bpf_object__load(self->object);
	Py_END_ALLOW_THREADS;
	if (error)
		return raise_errno(-error, "loading", "BPF programs");
	self->loaded = true;
	Py_RETURN_NONE;
}

static PyObject *keep_link(Object *self, struct bpf_link *link,
			   const char *name)
{
	if (!link)
		return raise_errno(errno, "attaching", name);
	self->links[self->links_used++] = link;
	Py_RETURN_NONE;
}

PyDoc_STRVAR(attach_doc,
	     "attach(program, cgroup_fd=-1)\n--\n\n"
	     "Attach one program, to a cgroup if it is a cgroup program.\n"
	     "It is detached by close() or when the process ends.");

static PyObject *object_attach(Object *self, PyObject *args)
{
	struct bpf_program *program;
	struct bpf_link *link;
	const char *name;
	int cgroup = -1;

	if (!PyArg_ParseTuple(args, "s|i", &name, &cgroup))
		return NULL;
	program = find_program(self, name);
	if (!program)
		return NULL;
	if (self->links_used == LINKS_MAX)
		return raise_errno(ENOSPC, "attaching", name);
	log_clear();
	link = cgroup < 0 ? bpf_program__attach(program) :
			    bpf_program__attach_cgroup(program, cgroup);
	return keep_link(self, link, name);
}

PyDoc_STRVAR(iterate_doc, "iterate(program)\n--\n\n"
			  "Run an iterator program once over all its objects.");

static PyObject *object_iterate(Object *self, PyObject *args)
{
	struct bpf_program *program;
	struct bpf_link *link;
	const char *name;
	char buffer[256];
	ssize_t got;
	int fd;

	if (!PyArg_ParseTuple(args, "s", &name))
		return NULL;
	program = find_program(self, name);
	if (!program)
		return NULL;
	log_clear();
	link = bpf_program__attach_iter(program, NULL);
	if (!link)
		return raise_errno(errno, "attaching", name);
	fd = bpf_iter_create(bpf_link__fd(link));
	got = fd;
	Py_BEGIN_ALLOW_THREADS;
	while (got >= 0 && (got = read(fd, buffer, sizeof(buffer))) > 0)
		;
	Py_END_ALLOW_THREADS;
	if (got < 0)
		raise_errno(errno, "running", name);
	if (fd >= 0)
		close(fd);
	bpf_link__destroy(link);
	if (got < 0)
		return NULL;
	Py_RETURN_NONE;
}

static PyObject *object_close(Object *self, PyObject *unused)
{
	object_release(self);
	Py_RETURN_NONE;
}

static PyMethodDef object_methods[] = {
	{ "set_constant", (PyCFunction)object_set_constant, METH_VARARGS,
	  set_constant_doc },
	{ "set_max_entries", (PyCFunction)object_set_max_entries, METH_VARARGS,
	  set_max_entries_doc },
	{ "load", (PyCFunction)object_load, METH_VARARGS, load_doc },
	{ "attach", (PyCFunction)object_attach, METH_VARARGS, attach_doc },
	{ "iterate", (PyCFunction)object_iterate, METH_VARARGS, iterate_doc },
	{ "sums", (PyCFunction)object_sums, METH_VARARGS, sums_doc },
	{ "drain", (PyCFunction)object_drain, METH_VARARGS, drain_doc },
	{ "statistics", (PyCFunction)object_statistics, METH_NOARGS,
	  statistics_doc },
	{ "skipped", (PyCFunction)object_skipped, METH_NOARGS, skipped_doc },
	{ "close", (PyCFunction)object_close, METH_NOARGS,
	  "close()\n--\n\nDetach everything and free the object." },
	{ NULL, NULL, 0, NULL },
};

static PyTypeObject object_type = {
	PyVarObject_HEAD_INIT(NULL, 0).tp_name = "holdfast._bpf.Object",
	.tp_doc = "Object(path)\n--\n\n"
		  "One BPF object file. Use it from one thread at a time.",
	.tp_basicsize = sizeof(Object),
	.tp_flags = Py_TPFLAGS_DEFAULT,
	.tp_new = PyType_GenericNew,
	.tp_init = (initproc)object_init,
	.tp_dealloc = (destructor)object_dealloc,
	.tp_methods = object_methods,
};

static PyObject *enable_statistics(PyObject *module, PyObject *unused)
{
	int fd = bpf_enable_stats(BPF_STATS_RUN_TIME);

	if (fd < 0)
		return raise_errno(errno, "enabling", "BPF statistics");
	return PyLong_FromLong(fd);
}

static PyMethodDef module_methods[] = {
	{ "enable_statistics", enable_statistics, METH_NOARGS,
	  "enable_statistics()\n--\n\n"
	  "Have the kernel time BPF programs while the returned file descriptor is open." },
	{ NULL, NULL, 0, NULL },
};

static struct PyModuleDef module = {
	PyModuleDef_HEAD_INIT,
	.m_name = "holdfast._bpf",
	.m_doc = "libbpf, as far as Holdfast needs it.",
	.m_size = -1,
	.m_methods = module_methods,
};

PyMODINIT_FUNC PyInit__bpf(void)
{
	PyObject *made;

	libbpf_set_print(log_append);
	libbpf_set_strict_mode(LIBBPF_STRICT_ALL);
	made = PyModule_Create(&module);
	if (made && PyModule_AddType(made, &object_type))
		Py_CLEAR(made);
	return made;
}
