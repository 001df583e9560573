"""What the SDK says of itself: a name and facts, readable as they are and as fields of a record."""

from __future__ import annotations

import logging

log = logging.getLogger("audit_sdk")


def log_event(level: int, event: str, **facts: object) -> None:
    """Log ``event`` with facts, none of which may hold an event's content.

    The message has the facts in it (``audit_events_lost events=3 why='…'``), for handlers that show no
    other fields; ``extra`` has them one by one.
    """
    told = "".join(f" {name}={value!r}" for name, value in facts.items())
    log.log(level, "%s%s", event, told, extra=facts)
