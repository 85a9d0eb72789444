// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * One object, so that the concerns share their maps. Which programs load is decided
 * in watch/kernel/load.py from the running kernel's BTF.
 */
#include "core.h"
#include "event.h"
#include "emit.h"
#include "socket.h"
#include "headers.h"
#include "closed.h"
#include "state.bpf.c"
#include "sent.h"
#include "sent.bpf.c"
#include "received.bpf.c"
#include "segment.bpf.c"
#include "function.bpf.c"
#include "firewall.bpf.c"
#include "error.bpf.c"
#include "existing.bpf.c"

char LICENSE[] SEC("license") = "Dual BSD/GPL";
