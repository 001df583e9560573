"""What the index's tests share: sealed events as the worker makes them, and the real server."""

from __future__ import annotations

import os
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID, uuid4

import orjson
import pytest
from elasticsearch import AsyncElasticsearch

import avro_schemas
from pipeline.domain.logs import LogName
from pipeline.domain.records import LeafRange, SealedEvent
from pipeline.keys.seal import open_blob, seal
from pipeline.keys.subjects import SubjectKey
from pipeline.testing import OCCURRED_AT_US, an_event
from sinks.bulk import BulkClient, connect, prepare_index
from sinks.documents import Documents
from sinks.index import IndexDestination
from tests.proxy import FaultProxy

LATE_AFTER_S = 86_400
KEY = SubjectKey(UUID(int=7), b"k" * 32)
# What the sealing policy decides: these values stay in the event, all others leave it.
_CLEAR = {
    family: frozenset(leaf.path for leaf in avro_schemas.leaves(family) if leaf.pii == "none")
    for family in avro_schemas.families()
}

_RECORDS = ("targets", "resources", "data_subjects", "changes")


def flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Paths and values of an event, as the decoder gives them; nothing for null."""
    found: dict[str, Any] = {}
    for name, inner in value.items():
        path = prefix + name
        if isinstance(inner, dict) and name not in ("labels", "metadata"):
            found |= flat(inner, f"{path}.")
        elif isinstance(inner, list) and name in _RECORDS:
            for index, record in enumerate(inner):
                found |= flat(record, f"{path}.{index}.")
        elif inner is not None and name not in _RECORDS:
            found[path] = inner
    return found


def seal_event(
    family: str,
    event: Mapping[str, Any],
    *,
    offset: int = 0,
    added: Mapping[str, Any] | None = None,
    key: SubjectKey = KEY,
) -> SealedEvent:
    """The event as it leaves the ledger, its personal data sealed to one subject.

    ``added`` are sealed values of a newer schema, by path.
    """
    values = flat(event)
    clear = {p: v for p, v in values.items() if re.sub(r"\.\d+\.", ".*.", p) in _CLEAR[family]}
    opened = {path: value for path, value in values.items() if path not in clear}
    opened |= added or {}
    event_id = UUID(clear["event_id"]).bytes
    canonical, leaf_hash, blobs, _ = seal(family, event_id, clear, [(key, opened)])
    return SealedEvent(
        event_id=event_id,
        family=family,
        occurred_at_us=clear["occurred_at"],
        offset=offset,
        broker_timestamp_ms=clear["occurred_at"] // 1000 + 20,
        schema_id=3,
        clear=clear,
        opened=opened,
        canonical=canonical,
        leaf_hash=leaf_hash,
        blobs=blobs,
        actor_ref=key.ref if "actor.id" in opened else None,
        stored_at_us=clear["occurred_at"] + 50_000,
    )


def as_caught_up(event: SealedEvent, *, erased: bool = False) -> SealedEvent:
    """The event as it comes back from the ledger: canonical bytes and blobs read again."""
    opened = {} if erased else open_blob(KEY, event.event_id, event.blobs[0])
    facts = {name: getattr(event, name) for name in SealedEvent.__slots__}
    facts["clear"] = orjson.loads(event.canonical)["clear"]
    facts["opened"] = opened
    return SealedEvent(**facts)


def sign_ins(
    count: int,
    *,
    at_us: int = OCCURRED_AT_US,
    step_us: int = 1_000_000,
    key: SubjectKey = KEY,
    **changes: Any,
) -> list[SealedEvent]:
    """Sign-ins a second apart, each with an id of its own."""
    return [
        seal_event(
            "authentication",
            an_event(
                "authentication",
                event_id=str(uuid4()),
                occurred_at=at_us + number * step_us,
                **changes,
            ),
            offset=number,
            key=key,
        )
        for number in range(count)
    ]


def a_range(events: list[SealedEvent], *, log_id: int = 1, first_leaf: int = 0) -> LeafRange:
    return LeafRange(log_id, LogName("audit.raw.authentication", log_id), first_leaf, events)


class Counts:
    """An observer of the index that remembers."""

    def __init__(self) -> None:
        self.refused = 0
        self.retried = 0

    def index_refused(self, documents: int = 1) -> None:
        self.refused += documents

    def index_retried(self, documents: int = 1) -> None:
        self.retried += documents


class IndexServer:
    """A server reached by a line, and indices of a prefix that nobody else uses."""

    def __init__(self, client: AsyncElasticsearch, line: FaultProxy, prefix: str) -> None:
        self.client = client
        self.line = line
        self.prefix = prefix
        self.counts = Counts()
        self.url = line.url

    def destination(self, *, bulk_max_bytes: int = 5 << 20) -> IndexDestination:
        """A destination of its own, as another worker has it."""
        over_line = connect(self.url, username="", password="", ca_file=None, timeout_s=10)
        return IndexDestination(
            BulkClient(over_line),
            Documents(late_after_s=LATE_AFTER_S),
            self.counts,
            prefix=self.prefix,
            bulk_max_bytes=bulk_max_bytes,
            retry_first_s=0.01,
            retry_max_s=0.1,
        )

    async def documents(self) -> list[dict[str, Any]]:
        """Every document, with its index and id, in the order of log and leaf."""
        await self.client.indices.refresh(index=f"{self.prefix}-*")
        found = await self.client.search(
            index=f"{self.prefix}-*", size=10_000, sort=["audit.log", "audit.leaf_index"]
        )
        return list(found["hits"]["hits"])

    async def count(self, **query: Any) -> int:
        """How many documents a query finds."""
        await self.client.indices.refresh(index=f"{self.prefix}-*")
        found = await self.client.count(index=f"{self.prefix}-*", query=query)
        return int(found["count"])


@asynccontextmanager
async def open_index_server() -> AsyncIterator[IndexServer]:
    """The stack's Elasticsearch with the template of a fresh prefix; removed afterwards."""
    url = os.environ.get("AUDIT_ELASTICSEARCH_URL")
    if not url:
        pytest.skip("AUDIT_ELASTICSEARCH_URL is not set: start the local stack")
    line = FaultProxy(url)
    client = connect(url, username="", password="", ca_file=None, timeout_s=20)
    prefix = f"test-{uuid4().hex[:12]}"
    try:
        await prepare_index(client, prefix, replicas=0, refresh_s=1.0)
        yield IndexServer(client, line, prefix)
    finally:
        names = await client.indices.get(index=f"{prefix}-*", allow_no_indices=True)
        for name in names:
            await client.indices.delete(index=name)
        await client.indices.delete_index_template(name=prefix)
        await client.close()
        line.close()
