"""A person whose values are planted in every place, and a search through every interface for them."""

from __future__ import annotations

import asyncio
import json
import subprocess
import time
import urllib.request
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg

from pipeline.domain.logs import (
    DEAD_LETTER_TOPIC,
    KEY_JOURNAL_TOPIC,
    RAW_PREFIX,
    RAW_TOPICS,
    REDACTIONS_TOPIC,
    SERVICE_FAMILIES,
    LogName,
    changelog_topic,
)
from pipeline.entrypoints.cli.kafka import read_topic
from pipeline.entrypoints.cli.publishing import Publisher
from pipeline.entrypoints.cli.schema_ids import registered_ids
from pipeline.entrypoints.cli.stores import archive_reader, call_keys, object_store
from pipeline.importers.encode import EventEncoder
from pipeline.keys.provider import load_provider
from pipeline.keys.seal import open_blob
from pipeline.keys.subjects import SubjectKeys
from pipeline.settings import Settings
from pipeline.testing import a_data_subject, a_target, an_actor, an_event
from sinks.s3 import S3
from sinks.subject_store import SubjectStore
from tests.acceptance.records import originals

TENANT = "acme"
_FIRST_LEAVES = """
SELECT name, min(leaf_index) FROM audit_logs JOIN log_heads USING (log_id)
WHERE stored_at >= %s GROUP BY name
"""


class Person:
    """Somebody whose id, name and address hold one token that nothing else holds."""

    def __init__(self) -> None:
        self.token = f"planted{uuid4().hex[:12]}"
        self.since = datetime.now(UTC) - timedelta(seconds=1)  # nothing older can hold the token
        self.id = f"u-{self.token}"
        self.email = f"{self.token}@example.com"

    def actor(self) -> dict[str, Any]:
        return an_actor(self.id, tenant=TENANT, name=f"Name {self.token}", email=self.email)

    def events(
        self, each: int, *, occurred_at: int | None = None
    ) -> list[tuple[str, dict[str, Any]]]:
        """In every family, as actor, target and data subject, beside another person."""
        now = int(time.time() * 1e6)
        made = []
        for family in SERVICE_FAMILIES:
            for number in range(each):
                at = occurred_at if occurred_at is not None else now - 1_000_000 + number
                facts: dict[str, Any] = {
                    "event_id": str(uuid4()),
                    "occurred_at": at,
                    "tenant": TENANT,
                    "actor": self.actor(),
                    "reason": f"because of {self.token}",
                    "labels": {"seen": self.token},
                    "targets": [a_target("u-beside", tenant=TENANT, name="Somebody Beside")],
                }
                if number % 3 == 1:
                    facts["actor"] = an_actor("u-beside", tenant=TENANT, name="Somebody Beside")
                    facts |= {"reason": "on request", "labels": {}}
                    facts["targets"] = [
                        a_target(
                            self.id, tenant=TENANT, name=f"Name {self.token}", email=self.email
                        )
                    ]
                elif number % 3 == 2:
                    facts["actor"] = an_actor("u-beside", tenant=TENANT, name="Somebody Beside")
                    facts |= {"reason": "on request", "labels": {}, "targets": []}
                    facts["data_subjects"] = [a_data_subject(self.id, tenant=TENANT)]
                made.append((family, an_event(family, **facts)))
        return made


def publish(settings: Settings, events: Iterable[tuple[str, dict[str, Any]]]) -> list[str]:
    """Publish, acknowledged; the event ids."""
    encoder = EventEncoder(registered_ids(settings))
    ids = []
    with Publisher(settings) as publisher:
        for family, event in events:
            record = encoder.encode(family, event)
            publisher.publish(record.topic, key=record.key, value=record.value)
            ids.append(event["event_id"])
    return ids


def publish_bad(settings: Settings, person: Person) -> None:
    """A letter that names the person as a target, and one that nobody can decode, by its key."""
    encoder = EventEncoder(registered_ids(settings))
    event = an_event(
        "authentication",
        event_id=str(uuid4()),
        occurred_at=int(time.time() * 1e6),
        tenant="nobodys-tenant",
        actor=an_actor("u-beside", tenant=TENANT),
        targets=[a_target(person.id, tenant=TENANT, name=person.token)],
    )
    record = encoder.encode("authentication", event)
    with Publisher(settings) as publisher:
        publisher.publish(record.topic, key=record.key, value=record.value)
        publisher.publish(
            f"{RAW_PREFIX}data-access",
            key=f"{TENANT}/{person.id}".encode(),
            value=b"\x00\x00\x00\x00\x01" + person.token.encode(),
        )


def places(settings: Settings, person: Person, logs: Sequence[bytes] = ()) -> dict[str, int]:
    """Where the person's token is found, and how often; empty: nowhere. ``logs``: what processes wrote."""
    token = person.token
    found = {
        "database": _database(settings, token),
        "opened blobs": asyncio.run(_opened(settings, token)),
        "index": _index(settings, token),
        "topics": sum(
            any(token.encode() in part for part in (message.key() or b"", message.value() or b""))
            for topic in (
                *RAW_TOPICS,
                DEAD_LETTER_TOPIC,
                KEY_JOURNAL_TOPIC,
                REDACTIONS_TOPIC,
                changelog_topic(settings.consumer_group),
            )
            for message in read_topic(settings, topic)
        ),
        "dead letters": dead_letters(settings, person),
        "buckets": asyncio.run(_buckets(settings, token, person.since)),
        "processes": sum(log.count(token.encode()) for log in logs),
    }
    return {place: count for place, count in found.items() if count}


def dead_letters(settings: Settings, person: Person) -> int:
    """How many letters open to something of the person."""
    return sum(person.token.encode() in (value or b"") for value in originals(settings).values())


def _database(settings: Settings, token: str) -> int:
    dump = subprocess.run(
        ["pg_dump", "--data-only", settings.database_admin_url.get_secret_value()],
        capture_output=True,
        check=True,
    ).stdout
    return dump.count(token.encode()) + dump.count(token.encode().hex().encode())


def keys_of(settings: Settings, store: SubjectStore) -> SubjectKeys:
    async def no_journal(_entries: Any) -> None:
        raise AssertionError

    return SubjectKeys(load_provider(settings), store, no_journal, cache_size=10_000)


async def _opened(settings: Settings, token: str) -> int:
    """What the keys that are left open, in the ledger."""
    url = settings.database_url.get_secret_value()
    with psycopg.connect(url) as connection:
        rows = connection.execute(
            "SELECT l.event_id, b.subject_ref, b.nonce, b.ciphertext FROM audit_blobs b"
            " JOIN leaves l USING (log_id, leaf_index)"
        ).fetchall()
    return await _open(settings, token, [(row[0].bytes, row[1].bytes, *row[2:]) for row in rows])


async def _open(settings: Settings, token: str, rows: Sequence[Any]) -> int:
    from pipeline.domain.records import SealedBlob

    store = SubjectStore(settings.database_url.get_secret_value())
    try:
        keys = await keys_of(settings, store).by_ref({UUID(bytes=row[1]) for row in rows})
    finally:
        await store.close()
    found = 0
    for event_id, ref, nonce, ciphertext in rows:
        key = keys.get(UUID(bytes=ref))
        if key is not None:
            found += token in json.dumps(
                open_blob(key, event_id, SealedBlob(ref, nonce, ciphertext))
            )
    return found


def _index(settings: Settings, token: str) -> int:
    """Every document whole, and a full-text search besides."""
    base = f"{settings.elasticsearch_url}/{settings.index_prefix}-*"
    urllib.request.urlopen(urllib.request.Request(f"{base}/_refresh", method="POST")).read()
    with urllib.request.urlopen(f"{base}/_search?size=10000") as answer:
        hits = json.load(answer)["hits"]
    assert hits["total"]["value"] <= 10_000
    with urllib.request.urlopen(f"{base}/_search?q=*{token}*") as answer:
        searched = json.load(answer)["hits"]["total"]["value"]
    return sum(token in json.dumps(hit) for hit in hits["hits"]) + int(searched)


async def _buckets(settings: Settings, token: str, since: datetime) -> int:
    """Object bodies as they are, archived leaves with their blobs opened, and every key in the vault."""
    found = 0
    async with object_store(settings) as objects:
        for bucket in (settings.s3_vault_bucket, settings.s3_archive_bucket):
            for key in _written(objects, bucket, since):
                stored = await objects.get(bucket, key)
                assert stored is not None
                found += token.encode() in stored.body + json.dumps(dict(stored.metadata)).encode()
        reader = archive_reader(settings, objects)
        with psycopg.connect(settings.database_url.get_secret_value()) as connection:
            logs = connection.execute(_FIRST_LEAVES, [since]).fetchall()
        rows: list[Any] = []
        for name, first_leaf in logs:
            async for archived in reader.ranges(LogName.parse(name), first_leaf):
                for event in (await reader.read(archived, 0)).events:
                    found += token in event.canonical.decode()
                    rows += [(event.event_id, *blob) for blob in event.blobs]
    return found + await _open(settings, token, rows)


def _written(objects: S3, bucket: str, since: datetime) -> list[str]:
    """The keys that were written since a time."""
    pages = objects.client.get_paginator("list_objects_v2").paginate(Bucket=bucket)
    listed = [found for page in pages for found in page.get("Contents", [])]
    return [found["Key"] for found in listed if found["LastModified"] >= since]


def refs(settings: Settings, person: Person) -> list[tuple[UUID, bool]]:
    """The person's references by generation, and whether each has a key."""
    from pipeline.keys.subjects import Subject, subject_message

    subject = Subject(TENANT, "user_id", person.id)
    digest = load_provider(settings).mac(subject_message(subject))
    with psycopg.connect(settings.database_admin_url.get_secret_value()) as connection:
        rows = connection.execute(
            "SELECT subject_ref, wrapped_key IS NOT NULL FROM audit_user WHERE subject_hash = %s"
            " ORDER BY generation",
            [digest],
        )
        return [(ref, bool(lives)) for ref, lives in rows]


def sealed_to(settings: Settings, ids: Sequence[str]) -> dict[str, set[str]]:
    """event id → the references that its values are sealed to."""
    with psycopg.connect(settings.database_url.get_secret_value()) as connection:
        rows = connection.execute(
            "SELECT event_id::text, event -> 'sealed' FROM audit_logs WHERE event_id = ANY (%s::uuid[])",
            [list(ids)],
        )
        return {event_id: set(sealed) for event_id, sealed in rows}


def escrowed_refs(settings: Settings) -> set[bytes]:
    """Every subject with a key in the vault's escrow or in the journal."""
    from pipeline.domain.escrow import decode_entries
    from sinks.vault import Vault

    async def read() -> set[bytes]:
        async with object_store(settings) as objects:
            vault = Vault(objects, settings.s3_vault_bucket)
            return {
                entry.subject_ref
                async for _name, entries in vault.read_escrow()
                for entry in entries
            }

    journal = {
        entry.subject_ref
        for message in read_topic(settings, KEY_JOURNAL_TOPIC)
        for entry in decode_entries(message.value() or b"")
    }
    return asyncio.run(read()) | journal


def living(settings: Settings) -> int:
    """Tenants, so that a test fails early without one."""
    return len(call_keys(settings, lambda store: store.list_tenants()))
