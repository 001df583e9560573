"""The index destination on a real Elasticsearch: refusals, outages, months, searches."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID, uuid4

import aiohttp
import pytest
from aiohttp import web
from hypothesis import HealthCheck, given, settings

import avro_schemas
from pipeline.domain.errors import ConfigurationError, Unavailable
from pipeline.domain.records import SealedEvent
from pipeline.testing import OCCURRED_AT_US, a_target, an_actor, an_event, events
from sinks.bulk import connect, prepare_index
from sinks.documents import Documents
from sinks.index_fields import mapping
from tests.index_support import (
    LATE_AFTER_S,
    IndexServer,
    a_range,
    as_caught_up,
    open_index_server,
    seal_event,
    sign_ins,
)
from tests.proxy import Fault

pytestmark = [pytest.mark.integration, pytest.mark.anyio]
NOVEMBER_ENDS_US = 1_764_547_200_000_000


@pytest.fixture
async def server() -> AsyncIterator[IndexServer]:
    async with open_index_server() as opened:
        yield opened


async def write(server: IndexServer, events: list[SealedEvent], **options: Any) -> None:
    destination = server.destination(**options)
    try:
        assert await destination.write([a_range(events)]) == {1: len(events)}
    finally:
        await destination.close()


def refusable(event: SealedEvent) -> SealedEvent:
    """The event with a value that its field in the mapping does not take."""
    event.opened = {**event.opened, "source.port": "not a number, and personal"}
    return event


async def test_a_refused_document_is_a_stub_and_its_neighbours_are_whole(
    server: IndexServer,
) -> None:
    events = sign_ins(7)
    refusable(events[3])

    await write(server, events)

    documents = [hit["_source"] for hit in await server.documents()]
    assert [document["audit.leaf_index"] for document in documents] == list(range(7))
    assert documents[3]["audit.index_refused"] == "document_parsing_exception"
    assert "personal" not in json.dumps(documents[3])
    assert documents[3]["event.id"] == str(UUID(bytes=events[3].event_id))
    assert sum("user.id" in document for document in documents) == 6
    assert server.counts.refused == 1


async def test_bulk_in_which_every_document_is_refused_is_all_stubs(server: IndexServer) -> None:
    await write(server, [refusable(event) for event in sign_ins(20)])

    assert await server.count(exists={"field": "audit.index_refused"}) == 20


async def test_document_that_is_there_stays_as_it_is(server: IndexServer) -> None:
    events = sign_ins(5)
    await write(server, events)
    first = await server.documents()

    await write(server, [as_caught_up(event, erased=True) for event in events])

    assert await server.documents() == first


async def test_months_are_made_when_their_first_event_comes(server: IndexServer) -> None:
    events = sign_ins(6, at_us=NOVEMBER_ENDS_US - 3)
    events += sign_ins(2, at_us=OCCURRED_AT_US)
    for number, event in enumerate(events[:6]):
        event.occurred_at_us = NOVEMBER_ENDS_US - 3 + number

    await write(server, events, bulk_max_bytes=3_000)

    by_index = [hit["_index"].removeprefix(server.prefix) for hit in await server.documents()]
    assert sorted(by_index) == 2 * ["-2025.10"] + 3 * ["-2025.11"] + 3 * ["-2025.12"]


async def test_two_workers_may_make_the_same_month_at_once(server: IndexServer) -> None:
    halves = sign_ins(40), sign_ins(40)

    await asyncio.gather(*(write(server, half, bulk_max_bytes=2_000) for half in halves))

    assert len(await server.documents()) == 80


async def test_lost_answer_is_an_outage_and_giving_again_doubles_nothing(
    server: IndexServer,
) -> None:
    events = sign_ins(30)
    destination = server.destination()
    await destination.write([a_range(events[:10])])
    server.line.answers_to_lose = 1

    with pytest.raises(Unavailable):
        await destination.write([a_range(events[10:], first_leaf=10)])
    await destination.write([a_range(events[10:], first_leaf=10)])
    await destination.close()

    found = [hit["_source"]["audit.leaf_index"] for hit in await server.documents()]
    assert found == list(range(30))


async def test_down_then_up_then_all_there(server: IndexServer) -> None:
    events = sign_ins(10)
    destination = server.destination()

    server.line.set(Fault.DOWN)
    for _ in range(3):
        with pytest.raises(Unavailable):
            await destination.write([a_range(events)])
    server.line.set(Fault.NONE)
    await destination.write([a_range(events)])
    await destination.close()

    assert len(await server.documents()) == 10


async def test_disk_full_is_waited_for_then_an_outage_and_never_a_stub(
    server: IndexServer,
) -> None:
    events = sign_ins(10)
    await write(server, events[:5])
    block = {"index.blocks.read_only_allow_delete": True}  # as the server sets it at 95 % of disk
    await server.client.indices.put_settings(index=f"{server.prefix}-*", settings=block)

    with pytest.raises(Unavailable):
        await write(server, events)
    retried = server.counts.retried
    unblock = {"index.blocks.read_only_allow_delete": None}
    await server.client.indices.put_settings(index=f"{server.prefix}-*", settings=unblock)
    await write(server, events)

    assert retried > 0
    assert len(await server.documents()) == 10
    assert server.counts.refused == 0


async def test_closed_month_is_an_outage_and_not_a_reason_for_stubs(server: IndexServer) -> None:
    events = sign_ins(3)
    await write(server, events[:1])
    await server.client.indices.close(index=f"{server.prefix}-2025.10")

    with pytest.raises(Unavailable, match="index_closed_exception"):
        await write(server, events)

    assert server.counts.refused == 0


async def test_a_proxy_that_takes_small_bodies_only_gets_small_bodies(
    server: IndexServer,
) -> None:
    async with _narrow_proxy(server.url, max_bytes=10_000) as url:
        server.url = url
        events = sign_ins(40)
        events[7].opened = {**events[7].opened, "description": "x" * 12_000}

        await write(server, events)

    documents = [hit["_source"] for hit in await server.documents()]
    assert [document["audit.leaf_index"] for document in documents] == list(range(40))
    assert documents[7]["audit.index_refused"] == "request_too_large"
    assert server.counts.refused == 1


async def test_every_event_that_a_schema_allows_is_taken(server: IndexServer) -> None:
    sealed = [
        seal_event(family, {**event, "event_id": str(uuid4())})
        for family in avro_schemas.families()
        for event in _examples(family, 60)
    ]

    await write(server, sealed)

    assert len(await server.documents()) == len(sealed)
    assert server.counts.refused == 0


@pytest.mark.parametrize(
    "query",
    [
        {"term": {"user.id": "u-1"}},
        {"term": {"user.email": "ann@example.com"}},
        {"term": {"related.user": "u-2"}},
        {"term": {"user.target.id": "u-2"}},
        {"term": {"user.effective.id": "u-3"}},
        {"term": {"source.ip": "192.0.2.0/24"}},
        {"term": {"related.ip": "192.0.2.9"}},
        {"range": {"event.severity": {"gte": 4}}},
        {"term": {"event.category": "authentication"}},
        {"term": {"event.outcome": "failure"}},
        {"term": {"organization.id": "acme"}},
        {"match": {"message": "door"}},
        {"term": {"labels.team": "red"}},
        {"term": {"labels.a.b": "dotted"}},
        {"term": {"audit.unmapped.email": "careless@example.com"}},
        {"term": {"audit.unmapped.badges.0.name": "gold"}},
        {"term": {"audit.leaf_index": 0}},
        {"term": {"audit.imported": False}},
        {
            "range": {
                "@timestamp": {"gte": "2025-10-09T08:53:20.000001Z", "lt": "2025-10-09T09:00:00Z"}
            }
        },
        {"query_string": {"query": "Ann"}},
    ],
    ids=str,
)
async def test_finds_an_event_by(rich: IndexServer, query: dict[str, Any]) -> None:
    assert await rich.count(**query) == 1


async def test_metadata_is_kept_and_not_searchable(rich: IndexServer) -> None:
    hits = await rich.documents()

    assert hits[0]["_source"]["audit.metadata"] == {"a.b": "kept", ".": "", "": "too"}
    assert await rich.count(query_string={"query": "kept"}) == 0


@pytest.fixture
async def rich(server: IndexServer) -> IndexServer:
    """One event with everything that analysts search for, and one without."""
    event = an_event(
        "authentication",
        event_id=str(uuid4()),
        occurred_at=OCCURRED_AT_US + 1,
        outcome="failure",
        severity="high",
        description="Left the door open",
        actor=an_actor("u-1", name="Ann", email="ann@example.com"),
        targets=[a_target("u-2"), a_target("u-3", relation="on_behalf_of")],
        source={"ip": "192.0.2.9", "port": 443},
        labels={"team": "red", "a.b": "dotted", "a": "x"},
        metadata={"a.b": "kept", ".": "", "": "too"},
    )
    added = {"email": "careless@example.com", "badges.0.name": "gold"}
    sealed = seal_event("authentication", event, added=added)
    other = an_event(
        "admin-action",
        event_id=str(uuid4()),
        tenant="globex",
        occurred_at=OCCURRED_AT_US,
        actor=an_actor("u-8"),
        imported=True,
    )
    await write(server, [sealed, seal_event("admin-action", other)])
    return server


async def test_document_of_catch_up_is_the_one_of_the_hot_path(server: IndexServer) -> None:
    events = sign_ins(5, actor=an_actor(name="Ann"), labels={"b": "2", "a": "1"})

    await write(server, events)

    documents = Documents(late_after_s=LATE_AFTER_S)
    log = "audit.raw.authentication/1/1"
    for leaf, (hit, event) in enumerate(zip(await server.documents(), events, strict=True)):
        caught_up = documents.document(as_caught_up(event), log, leaf)
        assert json.loads(caught_up) == hit["_source"]


async def test_preparing_again_changes_nothing_and_reaches_existing_months(
    server: IndexServer,
) -> None:
    await write(server, sign_ins(1))
    index = f"{server.prefix}-2025.10"
    before = await server.client.indices.get_mapping(index=index)

    await prepare_index(server.client, server.prefix, replicas=0, refresh_s=1.0)

    assert await server.client.indices.get_mapping(index=index) == before


async def test_month_made_without_the_template_is_strict_too(server: IndexServer) -> None:
    await server.client.indices.delete_index_template(name=server.prefix)

    await write(server, sign_ins(1))
    made = await server.client.indices.get_mapping(index=f"{server.prefix}-2025.10")
    await prepare_index(server.client, server.prefix, replicas=0, refresh_s=1.0)

    assert made[f"{server.prefix}-2025.10"]["mappings"] == mapping()


async def test_template_that_outranks_ours_is_refused_at_the_start(server: IndexServer) -> None:
    name = f"{server.prefix}-rival"
    await server.client.indices.put_index_template(
        name=name,
        index_patterns=[f"{server.prefix}-2*"],
        priority=900,
        template={"mappings": {"dynamic": True}},
    )

    try:
        with pytest.raises(ConfigurationError, match="outranks"):
            await prepare_index(server.client, server.prefix, replicas=0, refresh_s=1.0)
    finally:
        await server.client.indices.delete_index_template(name=name)


async def test_preparing_without_a_server_is_an_outage() -> None:
    client = connect("http://127.0.0.1:9", username="", password="", ca_file=None, timeout_s=1)

    try:
        with pytest.raises(Unavailable):
            await prepare_index(client, "audit-events", replicas=0, refresh_s=1.0)
    finally:
        await client.close()


@asynccontextmanager
async def _narrow_proxy(target: str, *, max_bytes: int) -> AsyncIterator[str]:
    """Answers 413 to longer bodies, as proxies in front of a cluster do; passes on the others."""

    async def pass_on(request: web.Request) -> web.Response:
        body = await request.read()
        url = f"{target}{request.raw_path}"
        headers = {k: v for k, v in request.headers.items() if k.lower() != "content-length"}
        async with session.request(request.method, url, data=body, headers=headers) as answer:
            passed = {k: v for k, v in answer.headers.items() if k.startswith(("X-", "Content-T"))}
            return web.Response(body=await answer.read(), status=answer.status, headers=passed)

    application = web.Application(client_max_size=max_bytes)
    application.router.add_route("*", "/{path:.*}", pass_on)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    async with aiohttp.ClientSession() as session:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


def _examples(family: str, count: int) -> list[dict[str, Any]]:
    """So many different events of the family, the odd ones among them."""
    found: list[dict[str, Any]] = []

    @settings(max_examples=count, database=None, suppress_health_check=list(HealthCheck))
    @given(events(family))
    def collect(event: dict[str, Any]) -> None:
        found.append(event)

    collect()
    return found
