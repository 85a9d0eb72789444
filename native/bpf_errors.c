// SPDX-License-Identifier: Apache-2.0
#include "bpf_object.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define LOG_BYTES 16384

/* libbpf's messages since the last call, the verifier's verdict among them. */
static char log_text[LOG_BYTES];
static size_t log_used;

int log_append(enum libbpf_print_level level, const char *format, va_list args)
{
	int wrote;

	if (level == LIBBPF_DEBUG || log_used >= LOG_BYTES - 1)
		return 0;
	wrote = vsnprintf(log_text + log_used, LOG_BYTES - log_used, format,
			  args);
	if (wrote > 0)
		log_used += (size_t)wrote;
	if (log_used > LOG_BYTES - 1)
		log_used = LOG_BYTES - 1;
	return 0;
}

PyObject *raise_errno(int error, const char *doing, const char *what)
{
	PyObject *message, *value;

	message = PyUnicode_FromFormat("%s %s: %s%s%s", doing, what,
				       strerror(error), log_used ? "\n" : "",
				       log_text);
	if (!message)
		return NULL;
	value = Py_BuildValue("(iN)", error, message);
	if (value) {
		PyErr_SetObject(PyExc_OSError, value);
		Py_DECREF(value);
	}
	return NULL;
}

void log_clear(void)
{
	log_used = 0;
	log_text[0] = '\0';
}
