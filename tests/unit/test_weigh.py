"""Batches whose records or headers would take many times their bytes, and headers that are no text."""

from __future__ import annotations

from contextlib import suppress
from functools import cache
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.consumer import fetcher
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from hypothesis import given, settings
from hypothesis import strategies as st

from agents import fetching, inflate
from agents.fetching import BoundedFetchResult, HeavyRecords, PartitionHalted, SafePartitionRecords
from agents.weigh import LIGHT_BYTES, BatchTooLarge, check_records, first_heavy

TP = TopicPartition("audit.raw.authentication", 0)
LIMIT = 8 << 20
RECORDS_AT = 61
GZIP, PLAIN = 1, 0
NAME = "zzzz"


def a_batch(*records: tuple[bytes | None, list[tuple[str, bytes]]], codec: int = PLAIN) -> bytes:
    """(value, headers) of each record, from offset 0 on."""
    builder = DefaultRecordBatchBuilder(2, codec, 0, -1, -1, -1, 1 << 26)
    for offset, (value, headers) in enumerate(records):
        builder.append(offset, timestamp=1, key=None, value=value, headers=headers)
    return bytes(builder.build())


def read(records: Any) -> SafePartitionRecords:
    return SafePartitionRecords(TP, records, [], 0, None, None, False, fetcher.READ_UNCOMMITTED)


BOMBS = ("one record of many headers", "many records of nothing")


@cache
def a_bomb(name: str, codec: int = PLAIN) -> bytes:
    """A little more than is passed without a look."""
    if name == BOMBS[0]:
        return a_batch((b"x", [("", b"")] * 530_000), codec=codec)
    return a_batch(*[(None, [])] * 135_000, codec=codec)


@pytest.mark.parametrize("bomb", BOMBS)
def test_records_that_would_take_too_much_are_refused_before_they_are_made(bomb: str) -> None:
    records = a_bomb(bomb)[RECORDS_AT:]
    assert LIGHT_BYTES < len(records) < LIMIT

    with pytest.raises(BatchTooLarge):
        check_records(records, LIMIT)


@pytest.mark.parametrize("codec", [GZIP, PLAIN])
@pytest.mark.parametrize("bomb", BOMBS)
def test_a_heavy_batch_halts_its_partition_after_those_before_it(
    bomb: str, codec: int, installed: None
) -> None:
    good, bad = a_batch((b"good", [("trace", b"1")])), a_bomb(bomb, codec)
    fetch = read(fetcher.MemoryRecords(good + bad))

    assert [record.value for record in fetch] == [b"good"]
    with pytest.raises(PartitionHalted, match="memory"):
        list(read(fetcher.MemoryRecords(bad)))


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the worker does, and taken back."""
    for name in ("MemoryRecords", "PartitionRecords", "FetchResult"):
        monkeypatch.setattr(fetcher, name, getattr(fetcher, name))
    fetching.install(LIMIT // inflate.MEMORY_FACTOR)
    inflate.install(LIMIT // inflate.MEMORY_FACTOR)


@settings(max_examples=20, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.none() | st.binary(max_size=300),
            st.lists(st.tuples(st.text(max_size=9), st.binary(max_size=9)), max_size=4),
        ),
        min_size=1,
        max_size=20,
    )
)
def test_what_is_within_the_bound_passes_and_its_weight_is_that_of_its_parts(
    records: list[tuple[bytes | None, list[tuple[str, bytes]]]],
) -> None:
    filler = (bytes(LIGHT_BYTES), [])
    batch = a_batch(*records, filler)
    headers = sum(len(each) for _value, each in records)
    own = len(batch) - RECORDS_AT

    check_records(batch[RECORDS_AT:], own + 200 * (len(records) + 1) + 100 * headers)
    with pytest.raises(BatchTooLarge):
        check_records(batch[RECORDS_AT:], own + 200 * len(records) + 100 * headers)


@settings(max_examples=20, deadline=None)
@given(st.binary(max_size=64))
def test_noise_is_weighed_or_left_to_the_parser(noise: bytes) -> None:
    with suppress(BatchTooLarge):  # more headers than there can be: a parser would look for them
        check_records(noise + bytes(LIGHT_BYTES), LIMIT + LIGHT_BYTES * 300)
    first_heavy(noise + bytes(LIGHT_BYTES), LIMIT)


def test_the_heavy_batch_fails_in_its_turn() -> None:
    light = a_batch((b"x", []))
    heavy = a_bomb(BOMBS[1])
    fetched = light + light + heavy + light

    assert first_heavy(fetched, LIMIT) == 2
    assert first_heavy(light * 3, LIMIT) is None
    records = HeavyRecords(fetched, 2)
    assert [records.next_batch() is not None for _ in range(2)] == [True, True]
    assert records.has_next()
    with pytest.raises(BatchTooLarge):
        records.next_batch()


def test_a_header_whose_name_is_no_text_halts_its_partition() -> None:
    batch = a_batch((b"x", [(NAME, b"1")])).replace(NAME.encode(), b"\xff\xfe\xfd\xfc")
    good = a_batch((b"good", []))

    with pytest.raises(PartitionHalted, match="cannot be parsed"):
        list(read(MemoryRecords(batch)))
    assert [record.value for record in read(MemoryRecords(good + batch))] == [b"good"]


def test_headers_count_in_the_size_of_a_fetch() -> None:
    class Fetched(BoundedFetchResult):
        def check_assignment(self, tp: TopicPartition) -> bool:
            return True

        def _update_position(self) -> None:
            """Nobody asks for it."""

    headers = [("name", b"value")] * 10
    fetch = read(MemoryRecords(a_batch(*[(b"x", headers)] * 5)))
    fetched = Fetched(TP, assignment=None, partition_records=fetch, backoff=0)
    BoundedFetchResult.begin(2_000)

    records = fetched.getall(100)

    assert len(records) == 2
    assert records.size_bytes == 2 * (200 + 1 + 10 * (100 + 9))
