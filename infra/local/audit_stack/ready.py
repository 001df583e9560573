"""Waiting until servers can really work for a client."""

import time
from collections import deque
from threading import Event

from audit_stack.errors import NotReady, StackError
from audit_stack.servers.base import Server
from audit_stack.stack import Stack
from audit_stack.supervise import Supervisor

PAUSE_S = 0.1
LOG_TAIL_LINES = 12
# What supervisord says of a server that it gave up.
GIVEN_UP = ("FATAL", "STOPPED", "UNKNOWN")


def wait_ready(
    stack: Stack, server: Server, supervisor: Supervisor, cancelled: Event | None = None
) -> None:
    """Return when ``server`` is ready.

    Raises:
        StackError: It ended, or took longer than the setting allows; with the end of its log.
            Also when ``cancelled`` is set meanwhile.
    """
    deadline = time.monotonic() + stack.settings.ready_timeout_s
    while True:
        if cancelled is not None and cancelled.is_set():
            message = "cancelled"
            raise StackError(message)
        try:
            server.probe(stack)
        except NotReady as reason:
            state, _ = supervisor.states()[server.name]
            if state in GIVEN_UP:
                raise StackError(_complaint(stack, server, "does not start")) from reason
            if time.monotonic() > deadline:
                verdict = f"is not ready after {stack.settings.ready_timeout_s:.0f} s ({reason})"
                raise StackError(_complaint(stack, server, verdict)) from reason
            time.sleep(PAUSE_S)
        else:
            return


def _complaint(stack: Stack, server: Server, verdict: str) -> str:
    log = stack.layout.log(server.name)
    tail: deque[str] = deque(maxlen=LOG_TAIL_LINES)
    if log.exists():
        with log.open(encoding="utf-8", errors="replace") as lines:
            tail.extend(line.rstrip() for line in lines)
    return "\n".join([f"{server.title} {verdict}; the end of {log}:", *tail])
