"""Kafka as a verification reads it: records counted by offset, dead letters by where they come from."""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, cast

from pipeline.codec.dead_letter_format import read_label
from pipeline.compliance.verify_intake import Letters
from pipeline.domain.errors import ConfigurationError
from pipeline.domain.logs import DEAD_LETTER_TOPIC, LogName
from pipeline.entrypoints.cli.kafka import read_topic, topic_marks
from pipeline.entrypoints.cli.repair import topic_identity

if TYPE_CHECKING:
    from confluent_kafka import Message

    from pipeline.settings import Settings

# Ranges so near to each other are read in one go: a consumer costs as much as so many records.
_NEAR_OFFSETS: Final = 10_000
# A letter is acknowledged before its row is committed, which may wait for an outage to end.
_MARGIN: Final = timedelta(hours=1)
_NEVER: Final = datetime.max.replace(tzinfo=UTC)

# Source offsets by log, and by partition of the letters' topic since when it has all of them.
_AllLetters = tuple[dict[LogName, list[int]], dict[int, datetime | None]]


class KafkaTopics:
    """``pipeline.compliance.verify_intake.Topics``: consumers of their own, in threads."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._topic_ids: dict[str, str | None] = {}
        self._letters: _AllLetters | None = None

    async def counts(
        self, name: LogName, topic_id: str, ranges: Sequence[tuple[int, int]]
    ) -> list[int | None]:
        return await asyncio.to_thread(self._counts, name, topic_id, ranges)

    async def letters(self, name: LogName) -> Letters:
        if self._letters is None:
            self._letters = await asyncio.to_thread(self._read_letters)
        offsets, since = self._letters
        # A letter goes to the partition with its source partition's number, modulo their count.
        complete = since.get(name.partition % max(len(since), 1))
        return Letters(offsets.get(name, []), complete)

    def _counts(
        self, name: LogName, topic_id: str, ranges: Sequence[tuple[int, int]]
    ) -> list[int | None]:
        if self._topic_id(name.topic) != topic_id:
            return [None] * len(ranges)
        low, _high = topic_marks(self._settings, name.topic).get(name.partition, (0, 0))
        counts = [0 if first >= low else None for first, _end in ranges]
        begins = [first for first, _end in ranges]
        for first, end in _joined([one for one in ranges if one[0] >= low]):
            span = {name.partition: (first, end)}
            for message in read_topic(self._settings, name.topic, span):
                offset = message.offset() or 0
                at = bisect_right(begins, offset) - 1
                if at >= 0 and offset < ranges[at][1] and (count := counts[at]) is not None:
                    counts[at] = count + 1
        return counts

    def _read_letters(self) -> _AllLetters:
        try:
            marks = topic_marks(self._settings, DEAD_LETTER_TOPIC)
        except ConfigurationError:
            return {}, {}  # no such topic: every letter that the ledger speaks of is missing
        since: dict[int, datetime | None] = {
            partition: None if low == 0 else _NEVER for partition, (low, _high) in marks.items()
        }
        offsets: dict[LogName, set[int]] = {}
        for message in read_topic(self._settings, DEAD_LETTER_TOPIC):
            partition = message.partition() or 0
            at = since[partition]
            if at is not None:
                written = datetime.fromtimestamp(message.timestamp()[1] / 1000, UTC) + _MARGIN
                since[partition] = min(at, written)
            try:
                identity = read_label(message.key(), message.value() or b"", _headers(message)).id
            except ValueError:
                continue  # none of the trail's
            name = LogName(identity.topic, identity.partition, identity.epoch)
            offsets.setdefault(name, set()).add(identity.offset)
        return {name: sorted(found) for name, found in offsets.items()}, since

    def _topic_id(self, topic: str) -> str | None:
        if topic not in self._topic_ids:
            try:
                self._topic_ids[topic] = topic_identity(self._settings, topic)[1]
            except ConfigurationError:
                self._topic_ids[topic] = None
        return self._topic_ids[topic]


def _joined(ranges: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Ranges that lie near to each other as one, in their order."""
    held: tuple[int, int] | None = None
    for first, end in ranges:
        if held is not None and first - held[1] <= _NEAR_OFFSETS:
            held = held[0], end
            continue
        if held is not None:
            yield held
        held = first, end
    if held is not None:
        yield held


def _headers(message: Message) -> list[tuple[str, bytes | None]]:
    # The client's type allows for more than it ever gives for a fetched record.
    return cast("list[tuple[str, bytes | None]]", message.headers() or [])
