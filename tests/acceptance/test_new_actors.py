"""People whom nobody knows yet appear in five topics at once, before two workers: one key each.

Needs the servers that AUDIT_* name (the local stack).
"""

from __future__ import annotations

import os
import time
from uuid import UUID, uuid4

import psycopg
import pytest
from confluent_kafka import Producer
from psycopg.rows import TupleRow

from pipeline.domain.logs import SERVICE_FAMILIES
from pipeline.entrypoints.cli.schema_ids import registered_ids
from pipeline.importers.encode import EventEncoder
from pipeline.settings import load_settings
from pipeline.testing import an_actor, an_event
from tests.chaos.processes import cli, wait_until, worker

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

TENANT = "newcomers"
PEOPLE = 100
PARTITIONS = 4


@pytest.mark.skipif("AUDIT_KAFKA_BOOTSTRAP" not in os.environ, reason="no servers: run make test")
def test_a_new_actor_in_five_topics_at_once_gets_one_key() -> None:
    cli("migrate")
    cli("tenants", "add", TENANT)
    settings = load_settings()
    families = SERVICE_FAMILIES
    encoder = EventEncoder(registered_ids(settings))
    people: dict[UUID, str] = {}
    with psycopg.connect(
        settings.database_admin_url.get_secret_value(), autocommit=True
    ) as database:

        def select(what: str) -> list[TupleRow]:
            return database.execute(what, [TENANT]).fetchall()  # type: ignore[arg-type]

        keys_before = len(select("SELECT FROM audit_user WHERE tenant = %s"))
        with worker() as one, worker() as two:
            wait_until(
                # Each partition of the services' topics is somebody's; the trail's own is one.
                lambda: sorted(len(each.partitions()) for each in (one, two)) == [10, 11],
                90,
                lambda: f"half of the partitions each; {one.state()} {two.state()}",
            )
            sending = Producer({"bootstrap.servers": settings.kafka_bootstrap, "linger.ms": 50})
            now_us = int(time.time() * 1e6)
            for person in range(PEOPLE):
                name = f"{uuid4()}"
                for number, family in enumerate(families):
                    event_id = uuid4()
                    people[event_id] = name
                    event = an_event(
                        family,
                        event_id=str(event_id),
                        occurred_at=now_us,
                        tenant=TENANT,
                        actor=an_actor(name, tenant=TENANT),
                    )
                    # By key all five would be in partitions of one number, and those are one worker's.
                    partition = (person + number) % PARTITIONS
                    record = encoder.encode(family, event)
                    sending.produce(record.topic, record.value, record.key, partition)
            assert sending.flush(30) == 0
            found = "SELECT event_id, actor_ref FROM audit_logs WHERE tenant = %s"
            wait_until(
                lambda: people.keys() <= {event_id for event_id, _ref in select(found)},
                90,
                lambda: f"{len(people)} events; {len(select(found))}",
            )
        refs = {event_id: ref for event_id, ref in select(found) if event_id in people}
        keys = len(select("SELECT FROM audit_user WHERE tenant = %s")) - keys_before

    of_person: dict[str, set[UUID]] = {}
    for event_id, name in people.items():
        of_person.setdefault(name, set()).add(refs[event_id])
    assert {len(each) for each in of_person.values()} == {1}
    assert len(set(refs.values())) == PEOPLE
    assert keys == PEOPLE
