"""For schemathesis: what a JSON Schema cannot say of a batch. Loaded by ``SCHEMATHESIS_HOOKS``.

An id of the right form becomes one of now (ids of other times are refused), a text token goes (the header
has it), and labels are cut to their bounds, which are bytes where a schema counts characters.
"""

from __future__ import annotations

import json
import re
from typing import Any

import schemathesis
from audit_sdk import contract
from audit_sdk.identity import now_us, uuid7

UUID7 = re.compile("[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
LIMITS = contract().limits


@schemathesis.serializer("text/plain")
def as_json(_context: Any, value: Any) -> bytes:
    """A batch is JSON, whatever the type is named."""
    return value if isinstance(value, bytes) else json.dumps(value).encode()


@schemathesis.hook
def before_call(_context: Any, case: Any, _kwargs: Any) -> None:
    body = case.body
    if not isinstance(body, dict):
        return
    if isinstance(body.get("token"), str) and "Authorization" in (case.headers or {}):
        del body["token"]
    events = body.get("events")
    for event in events if isinstance(events, list) else ():
        if isinstance(event, dict):
            _make_current(event)


def _make_current(event: dict[str, Any]) -> None:
    event_id = event.get("event_id")
    if isinstance(event_id, str) and UUID7.fullmatch(event_id):
        event["event_id"] = uuid7(now_us())
    labels = event.get("labels")
    if isinstance(labels, dict) and all(isinstance(one, str) for one in labels.values()):
        event["labels"] = {
            _cut(name, LIMITS.label_key_bytes): _cut(value, LIMITS.label_value_bytes)
            for name, value in labels.items()
        }


def _cut(text: str, most: int) -> str:
    """To a number of bytes, if its characters are within it."""
    return text if len(text) > most else text.encode()[:most].decode(errors="ignore")
