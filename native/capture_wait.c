// SPDX-License-Identifier: Apache-2.0
/*
 * Whose time is up. Closed flows and those that saw only SYNs wait in lists, in the order of last activity. A
 * few of them end at each segment, so that nobody is handed very many at once; who is met before its turn ends
 * then. All others stay until the capture ends, or there is no room for them.
 */
#include "capture_table.h"

void wait_no_more(struct table *it, struct flow *flow)
{
	struct list *list = &it->waiting[flow->waiting];
	const struct flow_rare *rare = rare_of(flow);

	if (flow->waiting == WAITING_NOT)
		return;
	if (rare->previous == NO_FLOW) {
		list->first = rare->next;
		it->due_ns = INT64_MIN;
	} else {
		rare_of(flow_at(it, rare->previous))->next = rare->next;
	}
	if (rare->next == NO_FLOW)
		list->last = rare->previous;
	else
		rare_of(flow_at(it, rare->next))->previous = rare->previous;
	flow->waiting = WAITING_NOT;
}

/* Put the flow at the end of this list, since it was active just now. */
void wait_in(struct table *it, struct flow *flow, enum waiting to)
{
	struct list *list = &it->waiting[to];
	struct flow_rare *rare = rare_of(flow);
	uint32_t index;

	if (flow->waiting == to && (to == WAITING_NOT || rare->next == NO_FLOW))
		return;
	wait_no_more(it, flow);
	if (to == WAITING_NOT)
		return;
	index = index_of(flow);
	flow->waiting = to;
	rare->previous = list->last;
	rare->next = NO_FLOW;
	if (list->last == NO_FLOW) {
		list->first = index;
		it->due_ns = INT64_MIN;
	} else {
		rare_of(flow_at(it, list->last))->next = index;
	}
	list->last = index;
}

void wait_charge(struct table *it, size_t bytes)
{
	it->evidence_bytes += bytes;
	if (it->evidence_bytes > it->max_evidence_bytes)
		it->due_ns = INT64_MIN;
}

static int64_t limit_of(const struct flow *flow)
{
	return flow->waiting == WAITING_OPENING ? OPENING_NS : LINGER_NS;
}

bool wait_is_over(const struct flow *flow, int64_t now_ns)
{
	int64_t silent_ns;

	if (flow->waiting == WAITING_NOT || flow->waiting == WAITING_EVIDENCE)
		return false;
	return !__builtin_sub_overflow(now_ns, flow->last_ns, &silent_ns) &&
	       silent_ns > limit_of(flow);
}

uint8_t wait_how_over(const struct flow *flow)
{
	return flow->waiting == WAITING_OPENING ? ENDED_IDLE : ENDED_CLOSED;
}

/*
 * Give flows of this list whose time is up, oldest first, and *most at most; gives when the time of the next is
 * up.
 */
static int64_t expire_list(struct capture *capture, enum waiting which,
			   int64_t now_ns, uint32_t *most)
{
	struct table *it = capture->table;
	int64_t due_ns;
	uint32_t next;

	while (it->waiting[which].first != NO_FLOW) {
		struct flow *flow = flow_at(it, it->waiting[which].first);

		if (!wait_is_over(flow, now_ns))
			return __builtin_add_overflow(flow->last_ns,
						      limit_of(flow), &due_ns) ?
				       INT64_MIN :
				       due_ns;
		if (!*most)
			return INT64_MIN;
		--*most;
		next = rare_of(flow)->next;
		if (next != NO_FLOW)
			fetch_whole(flow_at(it, next));
		table_end_flow(capture, flow, wait_how_over(flow));
	}
	return INT64_MAX;
}

/*
 * Evidence is at its bound: give whoever has some and is closed, the longest first. Nothing is lost by it
 * unless more comes of the same connection. Only if there is none, give one that is open.
 */
static void relieve(struct capture *capture, int64_t now_ns)
{
	struct table *it = capture->table;

	while (it->evidence_bytes > it->max_evidence_bytes) {
		uint32_t told = it->waiting[WAITING_TOLD].first;
		uint32_t open = it->waiting[WAITING_EVIDENCE].first;
		struct flow *flow;

		if (told == NO_FLOW && open == NO_FLOW)
			return;
		flow = flow_at(it, told != NO_FLOW ? told : open);
		if (wait_is_over(flow, now_ns)) {
			table_end_flow(capture, flow, wait_how_over(flow));
		} else if (told != NO_FLOW) {
			capture->counts.hurried++;
			table_end_flow(capture, flow, ENDED_HURRIED);
		} else {
			capture->counts.evicted++;
			table_end_flow(capture, flow, ENDED_EVICTED);
		}
	}
}

/* Give flows whose time is up, so many at most, and those for which there is no room. */
void wait_expire(struct capture *capture, int64_t now_ns, uint32_t most)
{
	struct table *it = capture->table;
	int64_t due_ns = INT64_MAX;

	if (now_ns < it->due_ns)
		return;
	for (int i = WAITING_CLOSED; i <= WAITING_OPENING; i++) {
		int64_t mine_ns = expire_list(capture, i, now_ns, &most);

		due_ns = mine_ns < due_ns ? mine_ns : due_ns;
	}
	relieve(capture, now_ns);
	it->due_ns = due_ns;
}
