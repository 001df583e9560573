"""Records out of fetched bytes, without losing those before a bad batch.

When a record batch fails (a wrong checksum, too large to inflate), aiokafka's ``getall`` drops the
records that it read before it and moves past them at the next call [read in 0.14.0]. Here the good
ones are handed out first; the bad batch then stands at the front and stops its partition alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, cast

from aiokafka import TopicPartition
from aiokafka.consumer import fetcher
from aiokafka.errors import CorruptRecordException
from aiokafka.record.memory_records import MemoryRecords

from agents.inflate import MEMORY_FACTOR, BatchCorrupt
from agents.weigh import HEADER_BYTES, RECORD_BYTES, BatchTooLarge, first_heavy
from pipeline.domain.errors import AuditTrailError
from pipeline.domain.logs import RAW_TOPICS


class PartitionHalted(AuditTrailError):
    """One partition cannot be read on; the message says at which offset and why."""

    def __init__(self, partition: TopicPartition, offset: int, why: str) -> None:
        super().__init__(f"the record batch at offset {offset} {why}")
        self.partition = partition
        self.offset = offset


class SafePartitionRecords(fetcher.PartitionRecords):  # type: ignore[misc]
    """Ends in front of a batch that cannot be read, and raises only when it is the first.

    Records of raw topics stay as the compiled parser gives them (``pipeline.domain.records.Record``):
    copying each into a ``ConsumerRecord`` costs more than parsing it.
    """

    def __init__(self, tp: TopicPartition, *args: Any, **kwargs: Any) -> None:
        self._given = False
        self._is_raw = tp.topic in RAW_TOPICS
        super().__init__(tp, *args, **kwargs)

    def __iter__(self) -> Iterator[Any]:
        return cast("Iterator[Any]", self._records_iterator)  # no Python call per record

    def _unpack_records(self) -> Iterator[Any]:
        try:
            yield from super()._unpack_records()
        except BatchTooLarge as error:
            why = str(error)
        except (BatchCorrupt, CorruptRecordException) as error:
            why = f"is corrupt ({error})"
        except (ValueError, IndexError) as error:  # a header's name that is not UTF-8, for one
            why = f"cannot be parsed ({type(error).__name__})"
        else:
            return
        if not self._given:
            raise PartitionHalted(self._tp, self.next_fetch_offset, why)

    def _consumer_record(self, tp: TopicPartition, record: Any) -> Any:
        self._given = True
        return record if self._is_raw else super()._consumer_record(tp, record)


class Records(list[Any]):
    """The records that one fetch gives of a partition, and about what they take in memory."""

    size_bytes = 0


class BoundedFetchResult(fetcher.FetchResult):  # type: ignore[misc]
    """Takes out records up to a size: a fetch of a few kilobytes may inflate to gigabytes, in batches
    that are each within their bound. The size is of raw topics: a reader of another topic neither
    waits for room nor takes any.
    """

    # Of the fetch under way; the record that fills it still goes along.
    room_bytes: ClassVar[int] = 0
    _partition_records: SafePartitionRecords | None

    @classmethod
    def begin(cls, room_bytes: int) -> None:
        """The next call of ``fetched_records`` may take so many bytes over all partitions."""
        cls.room_bytes = room_bytes

    def getall(self, max_records: int | None = None) -> list[Any]:
        if self._topic_partition.topic not in RAW_TOPICS:
            return cast("list[Any]", super().getall(max_records))
        records, room_bytes = Records(), BoundedFetchResult.room_bytes
        if not self.check_assignment(self._topic_partition) or self._partition_records is None:
            return records
        if room_bytes <= 0:
            return records  # they wait for the next fetch
        size_bytes, take, is_full = 0, records.append, False
        for record in self._partition_records:
            take(record)
            size_bytes += RECORD_BYTES + len(record.value or b"") + len(record.key or b"")
            if record.headers:
                size_bytes += _header_bytes(record.headers)
            is_full = size_bytes >= room_bytes or len(records) == max_records
            if is_full:
                break
        self._update_position()
        if not is_full:
            self._partition_records = None
        records.size_bytes = size_bytes
        BoundedFetchResult.room_bytes -= size_bytes
        return records


class HeavyRecords:
    """``MemoryRecords`` of a fetch whose batch ``heavy`` must not be made: it fails in its turn."""

    def __init__(self, fetched: bytes, heavy: int) -> None:
        self._records = MemoryRecords(fetched)
        self._left = heavy

    def has_next(self) -> bool:
        return bool(self._records.has_next())

    def next_batch(self) -> Any:
        if not self._left:
            raise BatchTooLarge("would take too much memory: too many headers or records")
        self._left -= 1
        return self._records.next_batch()


def _header_bytes(headers: Any) -> int:
    return sum(HEADER_BYTES + len(name) + len(value or b"") for name, value in headers)


def install(inflate_max_bytes: int) -> None:
    """Make aiokafka's fetcher use them, process-wide."""
    limit = MEMORY_FACTOR * inflate_max_bytes

    def memory_records(fetched: bytes) -> Any:
        heavy = first_heavy(fetched, limit)
        return MemoryRecords(fetched) if heavy is None else HeavyRecords(fetched, heavy)

    fetcher.MemoryRecords = memory_records
    fetcher.PartitionRecords = SafePartitionRecords
    fetcher.FetchResult = BoundedFetchResult
