// SPDX-License-Identifier: Apache-2.0
/*
 * history as Zeek would log it for the same flow, since its users know it; and the states of both ends, from
 * which capture_zeek_state.c concludes conn_state. The rules are those of its TCPSessionAdapter and conn/main.zeek
 * (6.x); checksums are not verified (zeek -C), and a gap is an acknowledgment of bytes that were never captured.
 */
#include "capture.h"

#include <string.h>

/* Letters that are written once, or again only when their sequence number differs. */
enum {
	WROTE_SYN = 1,
	WROTE_FIN = 2,
	WROTE_RST = 4,
	WROTE_DATA = 8,
	WROTE_ACK = 16,
	WROTE_FIN_RST = 32,
	WROTE_MULTI = 64
};

/* A SYN or RST further away than this does not move what is expected. */
#define FAR (1 << 20)

/* Ports of protocols that Zeek knows: it takes them for the server's when it saw no SYN. */
static bool is_server_port(uint16_t port)
{
	static const uint16_t ports[] = {
		20,   21,   22,	  23,	25,   53,   80,	  81,	88,
		102,  110,  135,  139,	143,  161,  389,  443,	445,
		502,  514,  515,  585,	587,  614,  631,  636,	666,
		989,  990,  992,  993,	995,  1080, 1434, 1812, 1883,
		2811, 3128, 3268, 3269, 3306, 3389, 5060, 5072, 5222,
		5223, 5269, 5355, 5432, 5671, 6379, 6665, 6666, 6667,
		6668, 6669, 6697, 8000, 8080, 8888, 20000
	};

	for (size_t i = 0; i < sizeof(ports) / sizeof(ports[0]); i++) {
		if (ports[i] == port)
			return true;
	}
	return false;
}

static void write_letter(struct flow *flow, char letter)
{
	struct flow_rare *rare = rare_of(flow);

	if (rare->zeek_length < sizeof(rare->zeek_history) - 1)
		rare->zeek_history[rare->zeek_length++] = letter;
}

static void write_by(struct flow *flow, uint8_t end, char letter)
{
	write_letter(flow,
		     end == flow->originator ? letter : (char)(letter | 0x20));
}

/* The bit of zeek_letters for this kind by this end; without a branch, since who sends what is anybody's guess. */
static inline uint32_t letter_bit(const struct flow *flow, uint8_t end,
				  uint32_t kind)
{
	return kind << 8 * (end ^ flow->originator);
}

/* Write the letter unless this end wrote one of its kind; gives whether it had. */
static bool wrote(struct flow *flow, uint8_t end, uint32_t kind, char letter)
{
	uint32_t bit = letter_bit(flow, end, kind);

	if (flow->zeek_letters & bit)
		return true;
	flow->zeek_letters |= (uint16_t)bit;
	write_by(flow, end, letter);
	return false;
}

/* The first time, the 10th, the 100th ... */
static void write_scaled(struct flow *flow, uint8_t end, uint32_t *count,
			 char letter)
{
	uint32_t at = ++*count;

	while (at % 10 == 0 && at)
		at /= 10;
	if (at == 1)
		write_by(flow, end, letter);
}

void zeek_begin(struct flow *flow, const struct segment *seg)
{
	uint16_t src = seg->key.port[seg->from],
		 dst = seg->key.port[!seg->from];
	bool flip = false;

	if ((!(seg->flags & SYN) || seg->flags & ACK) && is_server_port(src))
		flip = is_server_port(dst) ? !(seg->flags & SYN) && src < dst :
					     true;
	flow->originator = flip ? !seg->from : seg->from;
	if (flip)
		write_letter(flow, '^');
}

static void become(struct zeek_end *end, enum zeek_state state)
{
	if (end->state == state)
		return;
	end->before = end->state;
	end->state = (uint8_t)state;
}

static void start_at(struct zeek_end *end, uint32_t seq, uint32_t last)
{
	end->start = end->ack = seq;
	end->last = last;
}

static void begin_end(struct zeek_end *end, const struct segment *seg,
		      uint32_t past)
{
	bool syn = seg->flags & SYN;

	switch (end->state) {
	case INACTIVE:
		if (syn)
			start_at(end, seg->seq, past);
		else
			start_at(end, seg->seq - 1, seg->seq);
		break;
	case SYN_SENT:
	case SYN_ACK_SENT:
		if (syn && seg->seq != end->start)
			start_at(end, seg->seq, past);
		break;
	case ESTABLISHED:
	case PARTIAL:
		if (syn)
			start_at(end, seg->seq, past);
		break;
	case RESET:
		if (syn && end->before == INACTIVE)
			start_at(end, seg->seq, past);
		break;
	}
}

static void write_flag(struct flow *flow, uint8_t from, uint32_t kind,
		       char letter, uint32_t seq, uint32_t *last)
{
	if (wrote(flow, from, kind, letter) && seq != *last)
		write_by(flow, from, letter);
	*last = seq;
}

static void write_history(struct flow *flow, struct zeek_end *end,
			  const struct segment *seg)
{
	uint16_t flags = seg->flags & (SYN | FIN | RST);
	uint32_t seq = seg->seq - end->start;

	if (flags == SYN)
		write_flag(flow, seg->from, WROTE_SYN,
			   seg->flags & ACK ? 'H' : 'S', seq, &end->last_syn);
	else if (flags == FIN)
		write_flag(flow, seg->from, WROTE_FIN, 'F',
			   seq + seg->payload_bytes, &end->last_fin);
	else if (flags == RST)
		write_flag(flow, seg->from, WROTE_RST, 'R', seq,
			   &end->last_rst);
	else if ((flags & (FIN | RST)) == (FIN | RST))
		wrote(flow, seg->from, WROTE_FIN_RST, 'I');
	else if (flags)
		wrote(flow, seg->from, WROTE_MULTI, 'Q');
	else if (seg->payload_bytes)
		wrote(flow, seg->from, WROTE_DATA, 'D');
	else if (seg->flags & ACK)
		wrote(flow, seg->from, WROTE_ACK, 'A');
}

static void take_ack(struct capture *capture, struct flow *flow,
		     struct zeek_end *end, struct zeek_end *peer,
		     const struct segment *seg)
{
	struct side_trouble *trouble;
	int32_t ahead;

	if (peer->state == INACTIVE) {
		start_at(peer, seg->ack - 1, seg->ack - 1);
		return;
	}
	ahead = (int32_t)(seg->ack - peer->ack);
	if ((int32_t)(seg->ack - peer->start) < 0 || seg->flags & RST ||
	    ahead <= 0 || (seg->ack == 0 && ahead > FAR))
		return;
	if ((int32_t)(seg->ack - peer->last) > 0 && end->state == ESTABLISHED &&
	    peer->state == ESTABLISHED && !(seg->flags & FIN)) {
		trouble = flow_trouble(capture, flow, !seg->from);
		if (trouble)
			write_scaled(flow, !seg->from, &trouble->zeek_gaps,
				     'G');
	}
	peer->ack = seg->ack;
}

static void take_sequence(struct capture *capture, struct flow *flow,
			  struct zeek_end *end, const struct segment *seg,
			  uint32_t past)
{
	struct side_trouble *trouble;
	int32_t ahead = (int32_t)(past - end->last);

	if (seg->flags & (SYN | RST) && (ahead > FAR || ahead < -FAR))
		return;
	if (seg->flags & FIN && end->last == end->start + 1)
		end->last = past;
	else if (end->state == RESET)
		return;
	else if (ahead > 0)
		end->last = past;
	else if (seg->payload_bytes) {
		trouble = flow_trouble(capture, flow, seg->from);
		if (trouble)
			write_scaled(flow, seg->from,
				     &trouble->zeek_retransmits, 'T');
	}
}

/* The SYN comes after the SYN with ACK that answers it: what was taken for the responder began it. */
static void flip(struct flow *flow)
{
	flow->originator = !flow->originator;
	flow->zeek_letters =
		(uint16_t)(flow->zeek_letters << 8 | flow->zeek_letters >> 8);
	write_letter(flow, '^');
}

static void first_syn(struct flow *flow, struct zeek_end *end,
		      struct zeek_end *peer, const struct segment *seg)
{
	if (seg->from == flow->originator) {
		become(end, seg->flags & ACK ? SYN_ACK_SENT : SYN_SENT);
		return;
	}
	if (!(seg->flags & ACK) && peer->state == SYN_ACK_SENT &&
	    seg->seq == end->start) {
		flip(flow);
		become(peer, ESTABLISHED);
	}
	if (peer->state == SYN_SENT)
		become(peer, ESTABLISHED);
	become(end, ESTABLISHED);
}

static void from_inactive(struct flow *flow, struct zeek_end *end,
			  struct zeek_end *peer, const struct segment *seg)
{
	if (seg->flags & SYN)
		first_syn(flow, end, peer, seg);
	if (seg->flags & FIN)
		become(end, CLOSED);
	if (seg->flags & RST)
		become(end, RESET);
	if (end->state != INACTIVE)
		return;
	/* Some stacks acknowledge a SYN before they answer it. */
	if (seg->from != flow->originator && !seg->payload_bytes &&
	    peer->state == SYN_SENT)
		return;
	become(end, seg->flags & ACK && peer->state == ESTABLISHED ?
			    ESTABLISHED :
			    PARTIAL);
}

static void from_established(struct zeek_end *end, struct zeek_end *peer,
			     uint16_t flags)
{
	if (flags & SYN && !(flags & ACK) && end->state == PARTIAL &&
	    peer->state == INACTIVE)
		become(end, SYN_SENT);
	if (flags & FIN && !(flags & RST)) {
		become(end, CLOSED);
		/* FIN, RST, and now the peer's FIN: it ended well after all. */
		if (peer->state == RESET && peer->before == CLOSED)
			become(peer, CLOSED);
	}
	if (flags & RST)
		become(end, RESET);
}

static void move(struct flow *flow, struct zeek_end *end, struct zeek_end *peer,
		 const struct segment *seg)
{
	switch (end->state) {
	case INACTIVE:
		from_inactive(flow, end, peer, seg);
		break;
	case SYN_SENT:
	case SYN_ACK_SENT:
		if (seg->flags & FIN)
			become(end, CLOSED);
		if (seg->flags & RST)
			become(end, RESET);
		break;
	case ESTABLISHED:
	case PARTIAL:
		from_established(end, peer, seg->flags);
		break;
	case CLOSED:
		if (seg->flags & RST && peer->state != CLOSED)
			become(end, RESET);
		break;
	}
}

/*
 * Whether what comes in order changes nothing but last and ack, and these are what struct side has, too: then
 * they are not kept until something else comes.
 */
bool zeek_is_steady(const struct flow *flow)
{
	const struct zeek_end *zeek = rare_of(flow)->zeek;
	const struct side *side = flow->side;

	return zeek[0].state == ESTABLISHED && zeek[1].state == ESTABLISHED &&
	       zeek[0].last == side[0].next_seq &&
	       zeek[1].last == side[1].next_seq &&
	       zeek[0].ack == side[1].highest_ack &&
	       zeek[1].ack == side[0].highest_ack;
}

void zeek_settle(struct flow *flow)
{
	for (int i = 0; i < 2; i++)
		flow->side[i].zeek_start = rare_of(flow)->zeek[i].start;
}

/* The flow is not steady any more. */
void zeek_catch_up(struct flow *flow)
{
	struct zeek_end *zeek = rare_of(flow)->zeek;

	for (int i = 0; i < 2; i++) {
		zeek[i].last = flow->side[i].next_seq;
		zeek[i].ack = flow->side[!i].highest_ack;
	}
}

/* Whether take_ack() takes this of a steady connection: after 2^31 bytes it looks as if before the first. */
bool zeek_takes_ack(const struct flow *flow, const struct segment *seg)
{
	return seg->ack != 0 &&
	       (int32_t)(seg->ack - flow->side[!seg->from].zeek_start) >= 0;
}

static inline uint32_t kind_of(const struct segment *seg)
{
	return seg->payload_bytes ? WROTE_DATA : WROTE_ACK;
}

/* Whether an ordinary segment is the first of its kind from this end. */
bool zeek_is_first(const struct flow *flow, const struct segment *seg)
{
	return !(flow->zeek_letters &
		 letter_bit(flow, seg->from, kind_of(seg)));
}

void zeek_count_ordinary(struct flow *flow, const struct segment *seg)
{
	wrote(flow, seg->from, kind_of(seg), seg->payload_bytes ? 'D' : 'A');
}

void zeek_count(struct capture *capture, struct flow *flow,
		const struct segment *seg)
{
	struct zeek_end *end = &rare_of(flow)->zeek[seg->from],
			*peer = &rare_of(flow)->zeek[!seg->from];
	struct side_trouble *trouble;
	uint32_t length = (seg->flags & RST ? 0 : seg->payload_bytes) +
			  (seg->flags & SYN ? 1 : 0) +
			  (seg->flags & FIN ? 1 : 0);
	uint32_t past = seg->seq + length;

	if (end->state == INACTIVE || seg->flags & SYN)
		begin_end(end, seg, past);
	write_history(flow, end, seg);
	if (seg->window == 0 && !(seg->flags & RST) && peer->state != CLOSED &&
	    end->state != RESET) {
		trouble = flow_trouble(capture, flow, seg->from);
		if (trouble)
			write_scaled(flow, seg->from,
				     &trouble->zeek_zero_windows, 'W');
	}
	if (seg->flags & FIN)
		end->fin = true;
	if (seg->flags & ACK)
		take_ack(capture, flow, end, peer, seg);
	take_sequence(capture, flow, end, seg, past);
	if (end->state == INACTIVE || seg->flags & (SYN | FIN | RST))
		move(flow, end, peer, seg);
}
