/* SPDX-License-Identifier: Apache-2.0 */
/* What both kinds of capture files are read with. */
#ifndef HOLDFAST_CAPTURE_FILE_H
#define HOLDFAST_CAPTURE_FILE_H

#include "capture.h"

#include <string.h>

enum { PCAPNG_MAGIC = 0x0a0d0d0a };

/* The file makes no sense from here on; 0, for so many bytes were taken. */
static inline size_t broken(struct capture *it, const char *what)
{
	it->format = FORMAT_BROKEN;
	it->damage = what;
	return 0;
}

static inline uint32_t u32(const struct capture *it, const uint8_t *at)
{
	uint32_t value;

	memcpy(&value, at, sizeof(value));
	return it->swapped ? __builtin_bswap32(value) : value;
}

static inline uint16_t u16(const struct capture *it, const uint8_t *at)
{
	uint16_t value;

	memcpy(&value, at, sizeof(value));
	return it->swapped ? __builtin_bswap16(value) : value;
}

/* capture_file.c */
uint16_t capture_origin(struct capture *it, uint32_t interface);

/* capture_pcapng.c */
size_t pcapng_block(struct capture *it, const uint8_t *at, size_t left);

#endif
