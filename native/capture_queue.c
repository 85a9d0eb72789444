// SPDX-License-Identifier: Apache-2.0
/*
 * Segments on their way to the table, in a queue, so that their cache misses overlap: for each that is added,
 * what the segments before it need next is sent for.
 */
#include "capture_table.h"

static void fetch_lines(const void *first, size_t bytes)
{
	for (size_t at = 0; at < bytes; at += 64)
		__builtin_prefetch((const char *)first + at, 1);
}

/* Send for all of a flow, which is about to begin or to end. */
void fetch_whole(const struct flow *flow)
{
	fetch_lines(flow, sizeof(struct whole_flow));
}

/* Send for what this segment will read and write, if its flow is the likely one and it is a usual segment. */
static void fetch(const struct table *it, struct segment *seg)
{
	struct flow *flow = index_likely(it, seg->hash);

	seg->likely = flow;
	if (!flow && it->free_flow != NO_FLOW)
		flow = flow_at(it, it->free_flow);
	if (!flow)
		return;
	if (!seg->likely || seg->flags & (SYN | FIN | RST))
		fetch_whole(flow);
	else
		fetch_lines(flow, sizeof(*flow));
}

/* Send for the rest of a flow whose handshake is not over yet, or where a letter of its history is due. */
static void fetch_rest(const struct segment *seg)
{
	const struct flow *flow = seg->likely;

	if (flow && (!flow->steady || zeek_is_first(flow, seg)))
		fetch_lines(rare_of(flow), 192);
}

static void fetch_next(struct capture *capture)
{
	fetch(capture->table, &capture->queue[capture->fetched++ % QUEUE]);
}

static void fetch_next_rest(struct capture *capture)
{
	fetch_rest(&capture->queue[capture->rested++ % QUEUE]);
}

static void take_next(struct capture *capture)
{
	const struct segment *seg = &capture->queue[capture->taken++ % QUEUE];

	if (!capture->out_of_memory)
		table_take(capture, seg);
}

/*
 * The segment that was just written to the queue belongs to it: send for its slot of the index, for the flow
 * of one whose slot has come, and count one whose flow has come. So some lines are on their way at any time.
 */
void queue_add(struct capture *capture, struct segment *seg)
{
	struct table *it = capture->table;

	seg->hash = index_hash(it, &seg->key);
	__builtin_prefetch(&it->slots[seg->hash & it->mask]);
	capture->added++;
	if (capture->added - capture->fetched > SLOT_AHEAD)
		fetch_next(capture);
	if (capture->added - capture->rested > REST_AHEAD)
		fetch_next_rest(capture);
	if (capture->added - capture->taken > FLOW_AHEAD)
		take_next(capture);
}

/* Count all that were added. */
void queue_drain(struct capture *capture)
{
	while (capture->fetched != capture->added)
		fetch_next(capture);
	while (capture->rested != capture->added)
		fetch_next_rest(capture);
	while (capture->taken != capture->added)
		take_next(capture);
}
