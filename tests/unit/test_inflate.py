"""Bounded decompression, and fetched records that survive a bad batch behind them."""

from __future__ import annotations

import gzip
import tracemalloc
from types import SimpleNamespace
from typing import Any

import cramjam
import lz4.frame
import pytest
import zstandard
from aiokafka import TopicPartition
from aiokafka.consumer import fetcher
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords

from agents.fetching import BoundedFetchResult, PartitionHalted, SafePartitionRecords
from agents.inflate import BatchCorrupt, bounded, install
from agents.weigh import RECORD_BYTES, BatchTooLarge

LIMIT = 100_000
CODECS = {
    "gzip_decode": gzip.compress,
    "zstd_decode": zstandard.ZstdCompressor().compress,
    "lz4_decode": lz4.frame.compress,
    "snappy_decode": lambda data: bytes(cramjam.snappy.compress_raw(data)),
}
TP = TopicPartition("audit.raw.authentication", 0)


@pytest.mark.parametrize("codec", CODECS)
def test_what_fits_comes_out_whole(codec: str) -> None:
    data = bytes(range(256)) * 100

    assert bounded(LIMIT)[codec](CODECS[codec](data)) == data


@pytest.mark.parametrize("codec", CODECS)
def test_500_mb_are_refused_without_being_made(codec: str) -> None:
    size = 500_000_000 if codec != "snappy_decode" else 50_000_000
    bomb = CODECS[codec](bytes(size))

    tracemalloc.start()
    with pytest.raises(BatchTooLarge):
        bounded(LIMIT)[codec](bomb)
    _now, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert peak < 50 * LIMIT


@pytest.mark.parametrize("codec", CODECS)
def test_noise_is_corrupt(codec: str) -> None:
    with pytest.raises((BatchCorrupt, BatchTooLarge)):
        bounded(LIMIT)[codec](b"\xff\xff\xff\xff\x0fno such stream")


def test_xerial_blocks_are_bounded_together() -> None:
    block = bytes(cramjam.snappy.compress_raw(bytes(60_000)))
    framed = b"\x82SNAPPY\x00" + bytes(8) + (len(block).to_bytes(4, "big") + block) * 2

    assert bounded(LIMIT * 2)["snappy_decode"](framed) == bytes(120_000)
    with pytest.raises(BatchTooLarge):
        bounded(LIMIT)["snappy_decode"](framed)


def a_fetch(*batches: tuple[int, bytes]) -> SafePartitionRecords:
    """Record batches of one record each, at these offsets, gzip."""
    raw = b""
    for offset, value in batches:
        builder = DefaultRecordBatchBuilder(
            magic=2,
            compression_type=1,
            is_transactional=False,
            producer_id=-1,
            producer_epoch=-1,
            base_sequence=-1,
            batch_size=1 << 24,
        )
        builder.append(0, timestamp=1, key=None, value=value, headers=[])
        batch = bytearray(builder.build())
        batch[:8] = offset.to_bytes(8, "big")
        raw += bytes(batch)
    return SafePartitionRecords(
        TP, MemoryRecords(raw), [], batches[0][0], None, None, False, fetcher.READ_UNCOMMITTED
    )


def drained(fetched: Any) -> list[int]:
    return [record.offset for record in fetched]


class Fetched(BoundedFetchResult):
    """Of a partition that is assigned and stands where the fetch began."""

    def check_assignment(self, tp: TopicPartition) -> bool:
        return True

    def _update_position(self) -> None:
        """Nobody asks for it."""


def test_a_fetch_is_taken_out_up_to_a_size_over_all_partitions() -> None:
    install(LIMIT)
    one, two = (
        Fetched(
            TP,
            assignment=None,
            partition_records=a_fetch(*((offset, bytes(1_000)) for offset in range(5))),
            backoff=0,
        )
        for _ in range(2)
    )
    taken = []
    for _ in range(5):
        BoundedFetchResult.begin(2_500 + 3 * RECORD_BYTES)
        taken.append([drained(one.getall(100)), drained(two.getall(100))])

    assert taken == [[[0, 1, 2], []], [[3, 4], [0]], [[], [1, 2, 3]], [[], [4]], [[], []]]


def test_a_fetch_gives_no_more_records_than_asked_for_and_knows_their_size() -> None:
    install(LIMIT)
    fetch = a_fetch(*((offset, bytes(1_000)) for offset in range(5)))
    fetched = Fetched(TP, assignment=None, partition_records=fetch, backoff=0)
    BoundedFetchResult.begin(LIMIT)

    records = fetched.getall(3)

    assert (drained(records), records.size_bytes) == ([0, 1, 2], 3 * (1_000 + RECORD_BYTES))


def test_records_before_a_bad_batch_are_handed_out_first() -> None:
    install(LIMIT)
    fetched = a_fetch((7, b"a"), (8, b"b"), (9, bytes(10 * LIMIT)), (10, b"c"))

    assert drained(fetched) == [7, 8]
    assert fetched.next_fetch_offset == 9


def test_a_bad_batch_in_front_halts_its_partition_at_its_offset() -> None:
    install(LIMIT)

    with pytest.raises(PartitionHalted) as halted:
        drained(a_fetch((9, bytes(10 * LIMIT))))

    assert (halted.value.partition, halted.value.offset) == (TP, 9)


def test_aiokafka_still_looks_where_we_put_things() -> None:
    install(LIMIT)

    assert fetcher.PartitionRecords.__module__ in ("agents.fetching", "aiokafka.consumer.fetcher")
    assert SimpleNamespace(**bounded(LIMIT)).gzip_decode(gzip.compress(b"x")) == b"x"
