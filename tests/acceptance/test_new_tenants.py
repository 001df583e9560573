"""Tenants that are added one right after the other, each with an event at once."""

from __future__ import annotations

import subprocess
from uuid import uuid4

import pytest

from pipeline.codec.wire import frame
from pipeline.entrypoints.cli.tenants import add_tenants
from pipeline.settings import Settings
from pipeline.testing import an_actor
from tests.acceptance.records import (
    FAMILY,
    TOPIC,
    an_acme_event,
    body,
    letters,
    publish,
    ready,
    stored,
    wait_until,
)

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]


def test_a_tenant_may_publish_as_soon_as_it_is_added(
    settings: Settings, registered: dict[str, int], worker: subprocess.Popen[bytes]
) -> None:
    wait_until(lambda: ready().get("ready"))
    sent = {}
    for _ in range(6):
        tenant = f"new-{uuid4().hex[:8]}"
        event = an_acme_event(tenant=tenant, actor=an_actor(tenant=tenant))
        value = frame(registered[FAMILY], body(event))
        add_tenants(settings, [tenant])
        (offset,) = publish(settings, 1, value)
        sent[event["event_id"]] = (TOPIC, 1, offset)

    wait_until(
        lambda: stored(settings, set(sent)) == set(sent) or set(sent.values()) & letters().keys()
    )

    assert set(sent.values()) & letters().keys() == set()
    assert worker.poll() is None
