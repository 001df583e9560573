"""What the SDK says is readable where only the message is shown, and as fields."""

from __future__ import annotations

import logging

import pytest
from audit_sdk.logs import log_event


def test_facts_are_in_the_message_and_in_fields(caplog: pytest.LogCaptureFixture) -> None:
    log_event(logging.ERROR, "audit_events_lost", events=3, why="broker: _TRANSPORT")

    [record] = caplog.records
    assert record.getMessage() == "audit_events_lost events=3 why='broker: _TRANSPORT'"
    assert (record.name, record.__dict__["events"]) == ("audit_sdk", 3)
