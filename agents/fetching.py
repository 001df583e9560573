"""Records out of fetched bytes, without losing those before a bad batch.

When a record batch fails (a wrong checksum, too large to inflate), aiokafka's ``getall`` drops the
records that it read before it and moves past them at the next call [read in 0.14.0]. Here the good
ones are handed out first; the bad batch then stands at the front and stops its partition alone.
"""

from __future__ import annotations

from typing import Any

from aiokafka import TopicPartition
from aiokafka.consumer import fetcher
from aiokafka.errors import CorruptRecordException

from agents.inflate import BatchCorrupt, BatchTooLarge
from pipeline.domain.errors import AuditTrailError


class PartitionHalted(AuditTrailError):
    """One partition cannot be read on; the message says at which offset and why."""

    def __init__(self, partition: TopicPartition, offset: int, why: str) -> None:
        super().__init__(f"the record batch at offset {offset} {why}")
        self.partition = partition
        self.offset = offset


class SafePartitionRecords(fetcher.PartitionRecords):  # type: ignore[misc]
    """Ends in front of a batch that cannot be read, and raises only when it is the first."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._given = 0

    def __next__(self) -> Any:
        try:
            record = super().__next__()
        except BatchTooLarge as error:
            why = str(error)
        except (BatchCorrupt, CorruptRecordException) as error:
            why = f"is corrupt ({error})"
        else:
            self._given += 1
            return record
        if self._given:
            raise StopIteration
        raise PartitionHalted(self._tp, self.next_fetch_offset, why)


def install() -> None:
    """Make aiokafka's fetcher use it, process-wide."""
    fetcher.PartitionRecords = SafePartitionRecords
