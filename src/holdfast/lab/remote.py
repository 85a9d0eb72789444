"""The lab's end of a control socket: ask a process of the lab to do something and get its answer."""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import os
import select
import signal
import socket
from typing import Any

from holdfast.lab.label import ScenarioFailed

ANSWER_WITHIN_S = 20.0


class Remote:
    """One process of the lab: its pid and its verbs."""

    def __init__(self, control: socket.socket, pid: int) -> None:
        self._control = control
        self._control.settimeout(ANSWER_WITHIN_S)
        try:
            self._pidfd = os.pidfd_open(pid)
        except OSError as problem:
            self._control.close()  # whereupon the process ends by itself
            raise ScenarioFailed(f"process {pid} cannot be held: {problem.strerror}") from problem
        self.pid = pid
        self.alive = True

    def ask(self, verb: str, **arguments: Any) -> Any:
        """Have the process do something.

        Raises:
            ScenarioFailed: it could not, did not answer, or is gone.
        """
        self._send(verb, arguments)
        try:
            return self._answer(verb)
        except OSError as problem:
            raise ScenarioFailed(f"process {self.pid} gave no answer to {verb}: {problem}") from problem

    def spawn(self, comm: str) -> tuple[socket.socket, int]:
        """Fork a process beside this one; gives its control socket and pid."""
        self._send("spawn", {"comm": comm})
        _, descriptors, _, _ = socket.recv_fds(self._control, 16, 1)
        if not descriptors:  # the kernel leaves out what would be one descriptor too many
            raise ScenarioFailed(f"process {self.pid} spawned a process without a way to reach it")
        return socket.socket(fileno=descriptors[0]), self._answer("spawn")

    def kill(self) -> None:
        """Send this very process SIGKILL and wait until it is gone."""
        signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        self.await_exit()

    def stop(self) -> None:
        """Stop the process as SIGSTOP does; its kernel goes on acknowledging for it."""
        signal.pidfd_send_signal(self._pidfd, signal.SIGSTOP)

    def resume(self) -> None:
        """Let a stopped process go on."""
        signal.pidfd_send_signal(self._pidfd, signal.SIGCONT)

    def exit(self) -> None:
        """Have the process end by itself, and wait until it is gone."""
        self._send("exit", {})
        self.await_exit()

    def become(self, *argv: str) -> None:
        """Have the process run another program, and wait until that has ended."""
        self._send("become", {"argv": argv})
        self.await_exit()

    def await_exit(self, wait_s: float = 5.0) -> None:
        """Wait until the process is gone."""
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        if not poll.poll(wait_s * 1000):
            raise ScenarioFailed(f"process {self.pid} did not end within {wait_s:g} s")
        self.alive = False

    def release(self) -> None:
        """Close our ends of the control socket, whereupon the process ends by itself."""
        self._control.close()
        os.close(self._pidfd)

    def _send(self, verb: str, arguments: dict[str, Any]) -> None:
        try:
            self._control.send(json.dumps({"verb": verb, **arguments}).encode())
        except OSError as problem:
            raise ScenarioFailed(f"process {self.pid} is gone and cannot {verb}: {problem}") from problem

    def _answer(self, verb: str) -> Any:
        message = self._control.recv(1 << 20)
        if not message:
            raise ScenarioFailed(f"process {self.pid} ended during {verb}")
        answer = json.loads(message)
        if "refused" in answer:
            raise ScenarioFailed(f"{verb}: {answer['refused']}")
        return answer["value"]
