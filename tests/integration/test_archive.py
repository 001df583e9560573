"""The archive on a real S3 gateway: what is stored, how it is cut and locked."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from io import BytesIO

import fastavro
import pytest
from botocore.exceptions import ClientError

from pipeline.domain.errors import Unavailable
from pipeline.domain.merkle import merkle_root
from sinks.archive_format import ObjectInfo, archive_key, blobs_key
from tests.archive_support import (
    STORED_AT_US,
    Gateway,
    LedgerLog,
    a_ref,
    an_event,
    facts,
    new_log,
    open_gateway,
)

pytestmark = [pytest.mark.integration, pytest.mark.anyio]


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def shared_gateway(anyio_backend: str) -> AsyncIterator[Gateway]:
    async with open_gateway() as gateway:
        yield gateway


@pytest.fixture
def gateway(shared_gateway: Gateway) -> Iterator[Gateway]:
    yield shared_gateway
    shared_gateway.s3.lose = lambda: ""
    shared_gateway.s3.delay_s = lambda: 0.0


@pytest.fixture
def ledger() -> LedgerLog:
    return LedgerLog(new_log(), 20)


async def test_leaves_come_back_as_they_were(gateway: Gateway, ledger: LedgerLog) -> None:
    ledger.events[3].blobs = ()
    ledger.events[4].actor_ref = None

    durable = await gateway.destination(ledger).write([ledger.range(0, 12), ledger.range(12)])

    assert durable == {1: 20}
    (stored,) = await gateway.stored(ledger.name)
    assert [facts(event) for event in stored.events] == [facts(event) for event in ledger.events]


async def test_any_avro_library_reads_the_object(gateway: Gateway, ledger: LedgerLog) -> None:
    await gateway.destination(ledger).write([ledger.range(0)])

    found = await gateway.s3.get(gateway.archive, archive_key(ledger.name, 0))

    assert found is not None
    read = [datum["event"] for datum in fastavro.reader(BytesIO(found.body))]  # type: ignore[index,call-overload]
    assert read == [event.canonical for event in ledger.events]
    info = ObjectInfo.from_metadata(found.metadata)
    assert info.root == merkle_root([event.leaf_hash for event in ledger.events])
    assert (info.first_leaf, info.last_leaf, info.records) == (0, 19, 20)
    assert (info.first_offset, info.next_offset) == (10, 49)


async def test_a_locked_version_cannot_be_deleted(gateway: Gateway, ledger: LedgerLog) -> None:
    await gateway.destination(ledger).write([ledger.range(0)])
    key = archive_key(ledger.name, 0)
    version = gateway.s3.client.head_object(Bucket=gateway.archive, Key=key)["VersionId"]

    with pytest.raises(ClientError, match="AccessDenied"):
        gateway.s3.client.delete_object(Bucket=gateway.archive, Key=key, VersionId=version)


async def test_the_lock_lasts_for_the_longest_retention(gateway: Gateway) -> None:
    stored_at_us = int(datetime.now(UTC).timestamp()) * 1_000_000
    ledger = LedgerLog(new_log())
    for leaf, tenant in enumerate(["short", "long", "short"]):
        ledger.events.append(an_event(leaf, tenant=tenant, stored_at_us=stored_at_us))
    days = {"short": 30, "long": 400}

    await gateway.destination(ledger, retention_days=days.__getitem__).write([ledger.range(0)])

    head = gateway.s3.client.head_object(Bucket=gateway.archive, Key=archive_key(ledger.name, 0))
    stored_at = datetime.fromtimestamp(stored_at_us / 1e6, UTC)
    assert head["ObjectLockMode"] == "GOVERNANCE"
    assert head["ObjectLockRetainUntilDate"] == stored_at + timedelta(days=400)
    vaulted = gateway.s3.client.head_object(Bucket=gateway.vault, Key=blobs_key(ledger.name, 0))
    assert "ObjectLockMode" not in vaulted


async def test_leaves_past_their_retention_are_locked_all_the_same(gateway: Gateway) -> None:
    ledger = LedgerLog(new_log())
    ledger.events.append(an_event(0, stored_at_us=STORED_AT_US - 10**15))

    durable = await gateway.destination(ledger).write([ledger.range(0)])

    assert durable == {1: 1}


async def test_an_object_is_cut_at_its_number_of_leaves(
    gateway: Gateway, ledger: LedgerLog
) -> None:
    destination = gateway.destination(ledger, max_events=8, max_age_s=60.0)

    durable = await destination.write([ledger.range(0, 5), ledger.range(5)])

    assert durable == {1: 16}
    assert await gateway.cuts(ledger.name) == [(0, 8), (8, 16)]


async def test_an_object_is_cut_at_its_size(gateway: Gateway) -> None:
    ledger = LedgerLog(new_log(), 600)
    destination = gateway.destination(ledger, max_bytes=100_000, max_age_s=60.0)

    durable = await destination.write([ledger.range(0)])

    assert durable == {1: 500}
    assert await gateway.cuts(ledger.name) == [(0, 250), (250, 500)]


async def test_an_object_is_cut_when_its_oldest_leaf_is_old(
    gateway: Gateway, ledger: LedgerLog
) -> None:
    clock_s = [100.0]
    destination = gateway.destination(ledger, max_age_s=10.0, clock=lambda: clock_s[0])
    assert destination.due_in_s() is None

    assert await destination.write([ledger.range(0, 4)]) == {}
    clock_s[0] = 107.0
    assert await destination.write([ledger.range(4, 6)]) == {}
    assert destination.due_in_s() == pytest.approx(3.0)
    clock_s[0] = 110.0
    assert destination.due_in_s() == 0

    assert await destination.write([]) == {1: 6}
    assert destination.due_in_s() is None


async def test_the_largest_log_is_cut_when_memory_is_full(
    gateway: Gateway, ledger: LedgerLog
) -> None:
    large = LedgerLog(new_log(), 300, log_id=2)
    destination = gateway.destination(ledger, max_age_s=60.0, held_max_bytes=150_000)

    durable = await destination.write([ledger.range(0, 10), large.range(0), ledger.range(10)])

    assert durable == {2: 300}
    assert destination.held_bytes < 150_000


async def test_leaves_given_again_are_stored_once(gateway: Gateway, ledger: LedgerLog) -> None:
    destination = gateway.destination(ledger, max_age_s=60.0, max_events=10)

    await destination.write([ledger.range(0, 7)])
    await destination.write([ledger.range(0, 12)])
    again = await destination.write([ledger.range(0, 12)])

    assert again == {1: 10}
    assert await gateway.cuts(ledger.name) == [(0, 10)]


async def test_a_gap_is_a_bug(gateway: Gateway, ledger: LedgerLog) -> None:
    destination = gateway.destination(ledger, max_age_s=60.0)
    await destination.write([ledger.range(0, 7)])

    with pytest.raises(ValueError, match="leaves 7 to 8 missing"):
        await destination.write([ledger.range(9)])
    destination.forget(1)
    assert await destination.write([ledger.range(9)]) == {}


async def test_keys_are_escrowed_before_anything_is_stored(
    gateway: Gateway, ledger: LedgerLog
) -> None:
    asked: list[set[bytes]] = []

    async def refuse(refs: set[bytes]) -> None:
        asked.append(set(refs))
        raise Unavailable("postgres")

    with pytest.raises(Unavailable, match="postgres"):
        await gateway.destination(ledger, ensure_escrowed=refuse).write([ledger.range(0)])

    assert asked == [{a_ref(1)}]
    assert await gateway.s3.head(gateway.vault, blobs_key(ledger.name, 0)) is None


async def test_a_log_revoked_during_a_put_reports_nothing(
    gateway: Gateway, ledger: LedgerLog
) -> None:
    async def revoke(_: set[bytes]) -> None:
        destination.forget(1)

    destination = gateway.destination(ledger, ensure_escrowed=revoke)

    assert await destination.write([ledger.range(0)]) == {}
    assert destination.due_in_s() is None
