// SPDX-License-Identifier: Apache-2.0
/* conn_state as Zeek would log it for a flow that has ended. */
#include "capture.h"

#include <string.h>

static bool sent_nothing(const struct flow *flow, uint8_t from)
{
	const struct side *end = &flow->side[from], *peer = &flow->side[!from];
	uint32_t size;

	if (end->zeek_before == SYN_SENT && end->zeek_state == RESET &&
	    peer->zeek_state == INACTIVE && end->zeek_ack - end->zeek_start > 1)
		return true;
	size = (int32_t)(end->zeek_last - end->zeek_ack) > 0 ? end->zeek_last :
							       end->zeek_ack;
	return size - end->zeek_start <=
	       (rare_of(flow)->zeek_fins >> from & 1 ? 2 : 1);
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
	const struct side *orig = &flow->side[flow->originator];
	const struct side *resp = &flow->side[!flow->originator];
	bool silent_orig =
		orig->zeek_state == INACTIVE || orig->zeek_state == PARTIAL;
	bool silent_resp =
		resp->zeek_state == INACTIVE || resp->zeek_state == PARTIAL;

	if (resp->zeek_state == RESET) {
		if (orig->zeek_state == SYN_SENT ||
		    orig->zeek_state == SYN_ACK_SENT ||
		    (orig->zeek_state == RESET && sent_nothing(flow, 0) &&
		     sent_nothing(flow, 1)))
			return "REJ";
		return silent_orig ? "RSTRH" : "RSTR";
	}
	if (orig->zeek_state == RESET) {
		if (!silent_resp)
			return "RSTO";
		return is_lone_syn(rare_of(flow)->zeek_history) ? "RSTOS0" :
								  "OTH";
	}
	if (orig->zeek_state == CLOSED && resp->zeek_state == CLOSED)
		return "SF";
	if (orig->zeek_state == CLOSED)
		return silent_resp ? "SH" : "S2";
	if (resp->zeek_state == CLOSED)
		return silent_orig ? "SHR" : "S3";
	if (orig->zeek_state == SYN_SENT && resp->zeek_state == INACTIVE)
		return "S0";
	return orig->zeek_state == ESTABLISHED &&
			       resp->zeek_state == ESTABLISHED ?
		       "S1" :
		       "OTH";
}
