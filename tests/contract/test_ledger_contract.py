"""What every ledger promises (``sinks.base.Ledger``), held to by PostgreSQL and by the fake."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.domain.errors import ChainBroken, OutOfPosition
from pipeline.domain.merkle import EMPTY_ROOT, merkle_root
from pipeline.domain.records import LogHead, SealedEvent
from sinks.base import READ_BYTES, ReusedIds
from sinks.ledger import PostgresLedger
from sinks.memory import MemoryLedger
from tests.ledger_support import (
    Database,
    a_batch,
    a_sealed_event,
    anyio_backend,
    database,
    template,
)
from tests.sizes import examples

__all__ = ["anyio_backend", "database", "template"]  # fixtures

pytestmark = pytest.mark.anyio

AnyLedger = PostgresLedger | MemoryLedger
TOPIC = "audit.raw.authentication"


@pytest.fixture(params=["memory", pytest.param("postgres", marks=pytest.mark.integration)])
async def ledger(request: pytest.FixtureRequest) -> AsyncIterator[AnyLedger]:
    made: AnyLedger
    if request.param == "memory":
        made = MemoryLedger()
    else:
        scratch: Database = request.getfixturevalue("database")
        made = PostgresLedger(scratch.urls["writer"])
    await made.open()
    yield made
    await made.close()


async def open_log(ledger: AnyLedger, partition: int = 0, topic_id: str = "t-1") -> LogHead:
    return await ledger.open_log(TOPIC, partition, cluster_id="c-1", topic_id=topic_id)


async def leaves(ledger: AnyLedger, head: LogHead) -> Sequence[SealedEvent]:
    return (await ledger.read(head.log_id, 0, limit=10_000)).events


async def test_a_new_log_is_empty_and_keeps_its_place(ledger: AnyLedger) -> None:
    first = await open_log(ledger)
    again = await open_log(ledger)

    assert (first.size, first.next_offset, first.root) == (0, 0, EMPTY_ROOT)
    assert again == first
    assert (await open_log(ledger, partition=1)).log_id != first.log_id


async def test_another_topic_of_the_same_name_stops_the_log_until_a_new_epoch(
    ledger: AnyLedger,
) -> None:
    old = await open_log(ledger)

    with pytest.raises(ChainBroken):
        await open_log(ledger, topic_id="t-2")
    new = await ledger.open_epoch(TOPIC, 0, cluster_id="c-1", topic_id="t-2")

    assert (new.name.epoch, new.size, new.next_offset) == (2, 0, 0)
    assert await open_log(ledger, topic_id="t-2") == new
    assert await ledger.open_epoch(TOPIC, 0, cluster_id="c-1", topic_id="t-2") == new
    assert new.log_id != old.log_id


async def test_an_epoch_that_the_archive_has_begins_where_it_began(ledger: AnyLedger) -> None:
    await open_log(ledger)

    lost = {"cluster_id": "c-1", "topic_id": "t-2", "first_offset": 500, "end_offset": 900}
    new = await ledger.open_epoch(TOPIC, 0, **lost, begins_at=100)

    assert (new.name.epoch, new.next_offset) == (2, 100)


async def test_accepted_events_become_leaves_in_order(ledger: AnyLedger) -> None:
    head = await open_log(ledger)
    events = [a_sealed_event(offset) for offset in range(7)]

    [first] = await ledger.write([a_batch(head, events[:3])])
    [second] = await ledger.write([a_batch(first.head, events[3:])])

    assert (first.accepted.first_leaf, second.accepted.first_leaf) == (0, 3)
    assert list(second.accepted.events) == events[3:]
    assert all(event.stored_at_us > 0 for event in events)
    assert (second.head.size, second.head.next_offset) == (7, 7)
    assert second.head.root == merkle_root([event.leaf_hash for event in events])
    assert await ledger.head(head.log_id) == second.head
    stored = await leaves(ledger, head)
    assert [event.canonical for event in stored] == [event.canonical for event in events]


async def test_what_is_read_is_what_was_written(ledger: AnyLedger) -> None:
    head = await open_log(ledger)
    event = a_sealed_event(0, text='Zoë "\u2028\\\U0001f600', occurred_at_us=1_760_000_000_123_457)
    anonymous = a_sealed_event(1, actor_ref=None, blobs=[], sealed={}, clear={"imported": True})
    anonymous.actor_ref = None
    await ledger.write([a_batch(head, [event, anonymous])])

    found = await ledger.read(head.log_id, 0, limit=10)

    assert (found.log_id, found.name, found.first_leaf) == (head.log_id, head.name, 0)
    for read, written in zip(found.events, [event, anonymous], strict=True):
        for field in SealedEvent.__slots__:
            if field not in ("opened", "blobs"):
                assert getattr(read, field) == getattr(written, field), field
        assert list(read.blobs) == list(written.blobs)
        assert read.opened == {}


async def test_reading_is_bounded_and_may_be_empty(ledger: AnyLedger) -> None:
    head = await open_log(ledger)
    await ledger.write([a_batch(head, [a_sealed_event(offset) for offset in range(5)])])

    middle = await ledger.read(head.log_id, 1, limit=3)
    beyond = await ledger.read(head.log_id, 5, limit=3)

    assert [event.offset for event in middle.events] == [1, 2, 3]
    assert (beyond.first_leaf, list(beyond.events)) == (5, [])


async def test_a_batch_that_arrives_again_changes_nothing(ledger: AnyLedger) -> None:
    head = await open_log(ledger)
    batch = a_batch(head, [a_sealed_event(0), a_sealed_event(2)], dead=[1])
    [first] = await ledger.write([batch])

    [again] = await ledger.write([batch])

    assert (first.skipped, again.skipped, again.duplicates) == (0, 3, 0)
    assert list(again.accepted.events) == []
    assert again.head == first.head
    assert again.accepted.first_leaf == first.head.size


async def test_a_batch_that_is_partly_stored_adds_the_rest(ledger: AnyLedger) -> None:
    head = await open_log(ledger)
    await ledger.write([a_batch(head, [a_sealed_event(offset) for offset in range(3)])])

    later = a_batch(head, [a_sealed_event(offset) for offset in range(1, 6)], start=1)
    [outcome] = await ledger.write([later])

    assert (outcome.skipped, outcome.accepted.first_leaf) == (2, 3)
    assert [event.offset for event in await leaves(ledger, head)] == [0, 1, 2, 3, 4, 5]


async def test_a_batch_beyond_the_position_stores_nothing_of_the_call(ledger: AnyLedger) -> None:
    here, there = await open_log(ledger, 0), await open_log(ledger, 1)
    good = a_batch(here, [a_sealed_event(0)])
    ahead = a_batch(there, [a_sealed_event(9)], start=9)

    with pytest.raises(OutOfPosition) as caught:
        await ledger.write([good, ahead])

    assert caught.value.next_offset == 0
    assert (await ledger.head(here.log_id)).size == 0


async def test_a_batch_without_an_accepted_event_still_advances(ledger: AnyLedger) -> None:
    head = await open_log(ledger)

    [dead] = await ledger.write([a_batch(head, [], dead=[0, 1])])
    [holes] = await ledger.write([a_batch(dead.head, [], end=9)])

    assert (dead.head.next_offset, dead.head.size) == (2, 0)
    assert (holes.head.next_offset, holes.head.root) == (9, EMPTY_ROOT)


async def test_two_batches_of_one_log_follow_each_other(ledger: AnyLedger) -> None:
    head = await open_log(ledger)
    first = a_batch(head, [a_sealed_event(0), a_sealed_event(1)])
    second = a_batch(head, [a_sealed_event(2)], start=2)

    outcomes = await ledger.write([first, second])

    assert [outcome.accepted.first_leaf for outcome in outcomes] == [0, 2]
    assert outcomes[1].head.next_offset == 3
    assert len(await leaves(ledger, head)) == 3


async def test_an_equal_event_is_a_duplicate_wherever_it_arrives(ledger: AnyLedger) -> None:
    here, there = await open_log(ledger, 0), await open_log(ledger, 1)
    moment = {"event_id": UUID(int=50), "occurred_at_us": 1_760_000_000_000_000}
    [first] = await ledger.write([a_batch(here, [a_sealed_event(0, **moment)])])

    same_log = a_batch(first.head, [a_sealed_event(1, **moment), a_sealed_event(2)])
    other_log = a_batch(there, [a_sealed_event(10, **moment), a_sealed_event(11)], start=0)
    outcomes = await ledger.write([same_log, other_log])

    assert [outcome.duplicates for outcome in outcomes] == [1, 1]
    assert [event.offset for event in await leaves(ledger, here)] == [0, 2]
    assert [event.offset for event in await leaves(ledger, there)] == [11]


async def test_equal_events_within_one_call_are_stored_once(ledger: AnyLedger) -> None:
    here, there = await open_log(ledger, 0), await open_log(ledger, 1)
    moment = {"event_id": UUID(int=50), "occurred_at_us": 1_760_000_000_000_000}

    twice = a_batch(here, [a_sealed_event(0, **moment), a_sealed_event(1, **moment)])
    across = a_batch(there, [a_sealed_event(0, **moment)])
    outcomes = await ledger.write([twice, across])

    assert [outcome.duplicates for outcome in outcomes] == [1, 1]
    assert len(await leaves(ledger, here)) == 1
    assert len(await leaves(ledger, there)) == 0


async def test_a_reused_id_is_named_and_nothing_of_the_call_is_stored(ledger: AnyLedger) -> None:
    here, there = await open_log(ledger, 0), await open_log(ledger, 1)
    [first] = await ledger.write([a_batch(here, [a_sealed_event(0, event_id=UUID(int=50))])])
    forged = a_sealed_event(2, event_id=UUID(int=50), text="another")
    beside = a_sealed_event(1)

    with pytest.raises(ReusedIds) as caught:
        await ledger.write(
            [a_batch(first.head, [beside, forged]), a_batch(there, [a_sealed_event(30)], start=0)]
        )

    assert dict(caught.value.events) == {here.name: [forged]}
    assert await ledger.head(here.log_id) == first.head
    assert (await ledger.head(there.log_id)).size == 0
    [mended] = await ledger.write([a_batch(first.head, [beside], dead=[2])])
    assert (mended.head.size, mended.head.next_offset) == (2, 3)


async def test_a_reused_id_within_one_call_names_the_later_event(ledger: AnyLedger) -> None:
    head = await open_log(ledger)
    first = a_sealed_event(0, event_id=UUID(int=50))
    second = a_sealed_event(1, event_id=UUID(int=50), text="another")

    with pytest.raises(ReusedIds) as caught:
        await ledger.write([a_batch(head, [first, second])])

    assert dict(caught.value.events) == {head.name: [second]}


async def test_a_batch_of_an_unknown_log_is_refused(ledger: AnyLedger) -> None:
    head = await open_log(ledger)
    other = LogHead(999, head.name, 0, 0)

    with pytest.raises(ChainBroken):
        await ledger.write([a_batch(other, [a_sealed_event(0)])])


async def test_follower_positions_only_move_forward(ledger: AnyLedger) -> None:
    head = await open_log(ledger)

    await ledger.write([a_batch(head, [a_sealed_event(offset) for offset in range(6)])])

    before = await ledger.position("index", head.log_id)
    await ledger.advance("index", {head.log_id: 5})
    await ledger.advance("index", {head.log_id: 3})
    await ledger.advance("archive", {})

    assert (before, await ledger.position("index", head.log_id)) == (0, 5)
    assert await ledger.position("archive", head.log_id) == 0


async def test_no_follower_is_further_than_the_log(ledger: AnyLedger) -> None:
    # What a follower had stored before the database was rolled back.
    head = await open_log(ledger)
    await ledger.write([a_batch(head, [a_sealed_event(0), a_sealed_event(1)])])

    await ledger.advance("index", {head.log_id: 1_000})

    assert await ledger.position("index", head.log_id) == 2


async def test_a_read_is_bounded_by_bytes_and_gives_one_leaf_at_least(ledger: AnyLedger) -> None:
    head = await open_log(ledger)
    small = [a_sealed_event(offset) for offset in range(100)]
    large = [a_sealed_event(100 + offset, text="x" * (READ_BYTES // 3)) for offset in range(7)]
    huge = a_sealed_event(107, text="x" * (2 * READ_BYTES))
    await ledger.write([a_batch(head, [*small, *large, huge])])

    sizes, leaf = [], 0
    while found := (await ledger.read(head.log_id, leaf, limit=1_000)).events:
        sizes.append(len(found))
        leaf += len(found)

    assert sizes == [103, 3, 2]  # up to the first one beyond the bound


async def test_leaves_of_the_archive_come_back_as_they_were(ledger: AnyLedger) -> None:
    original = MemoryLedger(now_us=lambda: 1_760_000_005_000_000)
    events = [a_sealed_event(offset) for offset in (0, 1, 4, 5, 7)]
    source = await open_log(original)
    [written] = await original.write([a_batch(source, events, dead=[2])])
    head = await open_log(ledger)
    archived = await original.read(source.log_id, 0, limit=10)

    for first, last, next_offset in ((0, 2, 2), (2, 5, 8)):
        part = archived.from_leaf(first)
        part = type(part)(head.log_id, head.name, first, part.events[: last - first])
        restored = await ledger.restore(part, next_offset=next_offset)

    assert (restored.size, restored.next_offset) == (5, 8)
    assert restored.root == written.head.root
    stored = await leaves(ledger, head)
    assert [event.stored_at_us for event in stored] == [1_760_000_005_000_000] * 5
    [resumed] = await ledger.write([a_batch(restored, [a_sealed_event(8)])])
    assert resumed.accepted.first_leaf == 5


async def test_leaves_that_do_not_continue_the_log_are_not_restored(ledger: AnyLedger) -> None:
    head = await open_log(ledger)
    [written] = await ledger.write([a_batch(head, [a_sealed_event(0), a_sealed_event(1)])])
    stored = await ledger.read(head.log_id, 0, limit=10)
    elsewhere = type(stored)(head.log_id, head.name, 2, [a_sealed_event(2, event_id=UUID(int=1))])

    for leaves_, next_offset in ((stored, 2), (elsewhere, 3)):
        with pytest.raises(ChainBroken):
            await ledger.restore(leaves_, next_offset=next_offset)

    assert await ledger.head(head.log_id) == written.head


@asynccontextmanager
async def fresh_ledger(kind: str, request: pytest.FixtureRequest) -> AsyncIterator[AnyLedger]:
    """For properties: one database for all examples, and a partition of its own for each."""
    if kind == "memory":
        yield MemoryLedger()
        return
    scratch: Database = request.getfixturevalue("database")
    ledger = PostgresLedger(scratch.urls["writer"])
    await ledger.open()
    try:
        yield ledger
    finally:
        await ledger.close()


@pytest.mark.parametrize(
    "kind", ["memory", pytest.param("postgres", marks=pytest.mark.integration)]
)
@settings(
    max_examples=examples(40),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    fates=st.lists(
        st.sampled_from(["event", "dead", "hole", "duplicate"]), min_size=1, max_size=24
    ),
    cuts=st.lists(st.tuples(st.integers(0, 24), st.integers(0, 24)), max_size=12),
)
async def test_replays_in_any_cut_store_each_record_once(
    kind: str,
    request: pytest.FixtureRequest,
    fates: list[str],
    cuts: list[tuple[int, int]],
) -> None:
    example = uuid4()  # a log and ids of its own in the database that all examples share

    def event(offset: int) -> SealedEvent:
        number = offset if fates[offset] == "event" else fates.index("event")
        return a_sealed_event(
            offset,
            event_id=UUID(int=example.int ^ number),
            occurred_at_us=1_760_000_000_000_000 + number,
        )

    if "event" not in fates:
        fates = ["event", *fates]
    first_event = fates.index("event")
    fates = ["hole" if f == "duplicate" and i < first_event else f for i, f in enumerate(fates)]
    async with fresh_ledger(kind, request) as ledger:
        head = await ledger.open_log(str(example), 0, cluster_id="c-1", topic_id="t-1")
        start = 0
        for begin, length in [*cuts, (0, len(fates))]:
            start = min(begin, (await ledger.head(head.log_id)).next_offset)
            end = min(start + length, len(fates))
            fate = {offset: fates[offset] for offset in range(start, end)}
            batch = a_batch(
                head,
                [event(offset) for offset, what in fate.items() if what in ("event", "duplicate")],
                dead=[offset for offset, what in fate.items() if what == "dead"],
                start=start,
                end=end,
            )
            await ledger.write([batch])
        after = await ledger.head(head.log_id)
        stored = await leaves(ledger, head)

    expected = [offset for offset, what in enumerate(fates) if what == "event"]
    assert [event.offset for event in stored] == expected
    assert after.next_offset == len(fates)
    assert after.root == merkle_root([event.leaf_hash for event in stored])
