"""The key journal is read to its end, whatever stands in it that is none of the trail's."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from agents import journal
from pipeline.domain.escrow import encode_entries
from pipeline.domain.logs import KEY_JOURNAL_TOPIC
from pipeline.settings import Settings
from tests.archive_support import an_entry

FIRST = 5


class Consumer:
    """aiokafka's, over records in memory from offset ``FIRST`` on."""

    values: Sequence[bytes | None] = ()

    def __init__(self, **_: Any) -> None:
        self._position = FIRST

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    def assign(self, _partitions: Any) -> None: ...

    async def beginning_offsets(self, partitions: Any) -> dict[Any, int]:
        return dict.fromkeys(partitions, FIRST)

    async def end_offsets(self, partitions: Any) -> dict[Any, int]:
        return dict.fromkeys(partitions, FIRST + len(self.values))

    def seek(self, _partition: Any, offset: int) -> None:
        self._position = offset

    async def position(self, _partition: Any) -> int:
        return self._position

    async def getmany(self, partition: Any, **_: Any) -> dict[Any, list[Any]]:
        records = [
            SimpleNamespace(partition=0, offset=at, value=self.values[at - FIRST])
            for at in range(self._position, FIRST + len(self.values))
        ]
        self._position += len(records)
        return {partition: records}


@pytest.mark.anyio
async def test_a_foreign_record_is_logged_with_its_place_and_the_keys_behind_it_are_found(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(journal, "AIOKafkaConsumer", Consumer)
    before, behind = an_entry(1), an_entry(2)
    Consumer.values = [encode_entries([before]), b"hello", encode_entries([behind])]

    with caplog.at_level(logging.ERROR):
        found = [each async for each in journal.read_journal(Settings(), 0)]

    assert found == [(6, [before]), (7, []), (8, [behind])]
    (line,) = caplog.records
    assert line.levelno == logging.ERROR
    assert line.getMessage() == "journal_record_foreign"
    assert f"{KEY_JOURNAL_TOPIC}:0:6" in str(vars(line))
    assert "hello" not in str(vars(line))
