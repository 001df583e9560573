"""A program that publishes through the Python SDK, run by the tests as a process of its own.

``sdk_program.py WHAT COUNT [OPTIONS]``: the ids of the events that were accepted go to stdout, a line
each. OPTIONS are the client's, as JSON.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import time
from collections.abc import Iterator

from audit_sdk import Audit

ACTOR = {"type": "user", "tenant": "acme", "id_type": "user_id"}


def events(audit: Audit, count: int) -> Iterator[str]:
    """Log-ins of so many people, one after the other."""
    for number in range(count):
        yield audit.login(actor={**ACTOR, "id": f"sdk-{number % 50}"})


def say(event_id: str) -> None:
    """At once: the process may be killed."""
    os.write(1, f"{event_id}\n".encode())


def publish(audit: Audit, count: int) -> None:
    """And end, without a word to the client."""
    for event_id in events(audit, count):
        say(event_id)


def main() -> None:
    what, count = sys.argv[1], int(sys.argv[2])
    options = json.loads(sys.argv[3]) if len(sys.argv) > 3 else {}
    audit = Audit("sdk-test", tenant="acme", **{"close_timeout_s": 30.0} | options)
    for event_id in events(audit, count):
        say(event_id)
        if what == "steadily":
            time.sleep(0.005)
    if what == "fork":
        child = os.fork()
        for event_id in events(audit, count):
            say(event_id)
        if child == 0:
            sys.exit(0)  # with what atexit holds
        os.waitpid(child, 0)
    elif what == "child":
        child = multiprocessing.get_context("fork").Process(target=publish, args=(audit, count))
        child.start()
        child.join()
    elif what == "wait":
        os.write(2, b"published\n")
        time.sleep(60)
    elif what == "exit":
        sys.exit(0)  # nobody closes


if __name__ == "__main__":
    main()
