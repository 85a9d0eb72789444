// SPDX-License-Identifier: Apache-2.0
/* conn_state as Zeek would log it for a flow that has ended. */
#include "capture.h"

#include <string.h>

static bool sent_nothing(const struct flow *flow, uint8_t from)
{
	const struct zeek_end *end = &rare_of(flow)->zeek[from];
	const struct zeek_end *peer = &rare_of(flow)->zeek[!from];
	uint32_t size;

	if (end->before == SYN_SENT && end->state == RESET &&
	    peer->state == INACTIVE && end->ack - end->start > 1)
		return true;
	size = (int32_t)(end->last - end->ack) > 0 ? end->last : end->ack;
	return size - end->start <= (end->fin ? 2 : 1);
}

/* S, then no answer that counts, then R. */
static bool is_lone_syn(const char *history)
{
	if (*history == '^')
		history++;
	if (*history++ != 'S')
		return false;
	history += strcspn(history, "HAFGIQR");
	return *history == 'R';
}

/* conn_state of a flow that has ended. */
const char *zeek_conclude(const struct flow *flow)
{
	const struct zeek_end *orig = &rare_of(flow)->zeek[flow->originator];
	const struct zeek_end *resp = &rare_of(flow)->zeek[!flow->originator];
	bool silent_orig = orig->state == INACTIVE || orig->state == PARTIAL;
	bool silent_resp = resp->state == INACTIVE || resp->state == PARTIAL;

	if (resp->state == RESET) {
		if (orig->state == SYN_SENT || orig->state == SYN_ACK_SENT ||
		    (orig->state == RESET && sent_nothing(flow, 0) &&
		     sent_nothing(flow, 1)))
			return "REJ";
		return silent_orig ? "RSTRH" : "RSTR";
	}
	if (orig->state == RESET) {
		if (!silent_resp)
			return "RSTO";
		return is_lone_syn(rare_of(flow)->zeek_history) ? "RSTOS0" :
								  "OTH";
	}
	if (orig->state == CLOSED && resp->state == CLOSED)
		return "SF";
	if (orig->state == CLOSED)
		return silent_resp ? "SH" : "S2";
	if (resp->state == CLOSED)
		return silent_orig ? "SHR" : "S3";
	if (orig->state == SYN_SENT && resp->state == INACTIVE)
		return "S0";
	return orig->state == ESTABLISHED && resp->state == ESTABLISHED ? "S1" :
									  "OTH";
}
