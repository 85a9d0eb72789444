// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * Names the owners of sockets that were open before we started. Hook: the task_file
 * iterator (5.8; bpf_sock_from_file since 5.11), read once. Cost: once, a fraction of
 * a microsecond per open file.
 */

SEC("iter/task_file")
int socket_found(struct bpf_iter__task_file *ctx)
{
	struct task_struct *task = ctx->task;
	struct file *file = ctx->file;
	struct connection *c;
	struct socket *socket;
	struct sock *sk;
	__u8 state;

	if (!task || !file)
		return 0;
	socket = bpf_sock_from_file(file);
	if (!socket)
		return 0;
	sk = socket->sk;
	if (!sk || sk->sk_protocol != IPPROTO_TCP || sk->sk_type != SOCK_STREAM)
		return 0;
	state = sk->__sk_common.skc_state;
	if (state == TCP_CLOSE)
		return 0;
	c = bpf_sk_storage_get(&connections, sk, NULL,
			       BPF_SK_STORAGE_GET_F_CREATE);
	/* Whoever opened it since we attached is known better than this. */
	if (!c || c->opener.pid)
		return 0;
	task_process(task, &c->opener);
	return 0;
}
