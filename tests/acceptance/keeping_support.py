"""What the tests of holds, redaction and expiry share: events with planted values, and where they are."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, TypeVar
from uuid import UUID, uuid4

import psycopg

import avro_schemas
from pipeline.codec import wire
from pipeline.domain.records import SealedEvent
from pipeline.entrypoints.cli.keeping import Tools, open_tools
from pipeline.entrypoints.cli.stores import searching
from pipeline.settings import Settings
from pipeline.testing import an_actor, an_event
from sinks.archive_format import ObjectInfo, blobs_key
from sinks.archive_reader import read_blobs
from tests.acceptance.records import ROOT, body, publish, wait_until

Answer = TypeVar("Answer")
CARD = "4111 1111 1111 1111"


@dataclass(frozen=True)
class Run:
    """A command that ended: its exit status and what it wrote."""

    status: int
    out: str
    err: str

    @property
    def rows(self) -> list[dict[str, Any]]:
        return json.loads(self.out)  # type: ignore[no-any-return]


def run_cli(*words: str, **env: str) -> Run:
    """A command, whatever its exit status."""
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.entrypoints.cli", *words],
        capture_output=True,
        check=False,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT}/sdk/python", **env},
        timeout=120,
        text=True,
    )
    return Run(done.returncode, done.stdout, done.stderr)


def a_change(person: str, *, at_us: int | None = None, **changes: Any) -> dict[str, Any]:
    """A profile update by a person of acme: a card number that goes, and a city that stays."""
    return an_event(
        "profile-update",
        **{
            "event_id": str(uuid4()),
            "occurred_at": int(time.time() * 1e6) if at_us is None else at_us,
            "tenant": "acme",
            "actor": an_actor(person, tenant="acme", email=f"{person}@example.org"),
            "changes": [
                {"path": "card", "old": f"card {CARD} of {person}", "new": None},
                {"path": "city", "old": "Bonn", "new": "Ghent"},
            ],
            **changes,
        },
    )


def send(settings: Settings, ids: Mapping[str, int], *events: dict[str, Any]) -> list[UUID]:
    """Publish profile updates and wait until every store has them; their ids."""
    schema = avro_schemas.load("profile-update")
    values = [wire.frame(ids["profile-update"], body(event, schema)) for event in events]
    publish(settings, 0, *values, topic="audit.raw.profile-update")
    wanted = [UUID(event["event_id"]) for event in events]
    wait_until(lambda: followed(settings, wanted), 60)
    return wanted


def followed(settings: Settings, events: list[UUID]) -> bool:
    with connect(settings) as connection:
        row = connection.execute(
            "SELECT count(*) FROM leaves WHERE event_id = ANY (%s) AND 2 = (SELECT count(*)"
            " FROM follower_position f WHERE f.log_id = leaves.log_id AND next_leaf > leaf_index"
            " AND follower IN ('index', 'archive'))",
            [events],
        ).fetchone()
    return bool(row and row[0] == len(events))


def connect(settings: Settings, role: str = "writer") -> psycopg.Connection[Any]:
    """To the ledger, as a role."""
    url = {
        "writer": settings.database_url,
        "redactor": settings.database_redactor_url,
        "admin": settings.database_admin_url,
    }[role]
    return psycopg.connect(url.get_secret_value(), autocommit=True)


def with_tools(
    settings: Settings, work: Callable[[Tools], Awaitable[Answer]], *, now: datetime | None = None
) -> Answer:
    """One coroutine with everything open; at another time, if it is given."""

    async def run() -> Answer:
        async with open_tools(settings) as tools:
            if now is not None:
                keeping = replace(tools.keeping, now=lambda: now)
                return await work(replace(tools, keeping=keeping))
            return await work(tools)

    return asyncio.run(run())


@dataclass(frozen=True)
class Seen:
    """One event as the stores show it."""

    event: SealedEvent
    opened: Mapping[str, Any]
    vault_blobs: list[Any]
    document: Mapping[str, Any] | None


def look(settings: Settings, event_id: UUID) -> Seen:
    """An event in the ledger (opened), in the vault and in the index."""

    async def ask(tools: Tools) -> Seen:
        from pipeline.domain.records import LeafRange
        from sinks.opening import BlobOpener

        keeping = tools.keeping
        log, leaf, _tenant = await keeping.candidates.place(event_id)
        [(_leaf, event)] = [one async for one in keeping.candidates.events(log, [leaf])]
        await BlobOpener(keeping.keys)(LeafRange(log.log_id, log.name, leaf, [event]))
        [(found, _leaves)] = [one async for one in keeping.objects(log, [leaf])]
        stored = await tools.objects.get(
            settings.s3_vault_bucket, blobs_key(log.name, found.info.first_leaf)
        )
        assert stored is not None
        blobs = read_blobs(ObjectInfo.from_metadata(stored.metadata), stored)
        return Seen(event, event.opened, list(blobs.get(leaf, [])), document(settings, event_id))

    return with_tools(settings, ask)


def document(settings: Settings, event_id: UUID) -> Mapping[str, Any] | None:
    with searching(settings) as client:
        pattern = f"{settings.index_prefix}-*"
        client.indices.refresh(index=pattern)
        hits = client.search(index=pattern, query={"ids": {"values": [str(event_id)]}})["hits"]
        return hits["hits"][0]["_source"] if hits["hits"] else None
