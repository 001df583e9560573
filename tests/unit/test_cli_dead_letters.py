"""Dead letters of the command line: labels are held for all, what they keep for few at once."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import pytest
from confluent_kafka import Message

from pipeline.codec.dead_letter_format import KEY_BYTES, LetterId, seal_dead_letter
from pipeline.domain.errors import AuditTrailError, Reason
from pipeline.domain.records import DeadLetter
from pipeline.entrypoints.cli import dead_letters
from pipeline.entrypoints.cli.dead_letters import (
    Selection,
    StoredLetter,
    originals,
    pieces,
    read_letters,
    select,
)
from pipeline.settings import Settings

KEY = bytes(KEY_BYTES)
MIB = 1024 * 1024
TOPIC = "audit.raw.authentication"
Ranges = Mapping[int, tuple[int, int]]


@dataclass(slots=True)
class ARecord:
    offset: int
    value: bytes | None
    timestamp: int = 1_700_000_000_000
    key: bytes | None = b"acme/u1"
    headers: list[tuple[str, bytes]] = field(default_factory=list)


@dataclass
class Topic:
    """A topic of three partitions whose letters are made when they are read."""

    letters: int
    value_bytes: int = 100
    read: list[Ranges | None] = field(default_factory=list)
    gone: frozenset[int] = frozenset()

    def __call__(
        self, _settings: Settings, _topic: str, ranges: Ranges | None = None
    ) -> Iterator[Message]:
        self.read.append(ranges)
        for number in range(self.letters):
            partition, offset = number % 3, number // 3
            first, end = (0, self.letters) if ranges is None else ranges.get(partition, (0, 0))
            if first <= offset < end and (ranges is None or number not in self.gone):
                yield self._message(number, partition, offset)

    def _message(self, number: int, partition: int, offset: int) -> Message:
        record = ARecord(number, b"%d " % number + bytes(self.value_bytes))
        sealed = seal_dead_letter(DeadLetter(TOPIC, 0, record, Reason.TRUNCATED, ""), KEY)
        return Message(
            partition=partition,
            offset=offset,
            key=sealed.key,
            value=sealed.value,
            headers=sealed.headers,
        )


def all_of(topic: Topic, monkeypatch: pytest.MonkeyPatch) -> list[StoredLetter]:
    monkeypatch.setattr(dead_letters, "read_topic", topic)
    return select(read_letters(Settings()), Selection())


def keys_of(letters: list[StoredLetter]) -> dict[LetterId, bytes]:
    return {letter.label.id: KEY for letter in letters}


def test_a_list_of_letters_holds_nothing_of_what_they_keep(monkeypatch: pytest.MonkeyPatch) -> None:
    tracemalloc.start()
    letters = all_of(Topic(60, value_bytes=MIB), monkeypatch)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert len(letters) == 60
    assert all(letter.label.size_bytes > MIB for letter in letters)
    assert peak_bytes < 16 * MIB  # of 60 MiB


def test_what_letters_keep_is_read_in_their_order_and_so_much_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    topic = Topic(20, value_bytes=10_000)
    letters = all_of(topic, monkeypatch)
    monkeypatch.setattr(dead_letters, "_AT_ONCE_BYTES", 60_000)
    keys = keys_of(letters)
    del keys[letters[4].label.id]

    found = [
        (letter, original)
        for piece in pieces(letters)
        for letter, original in originals(Settings(), piece, keys)
    ]

    assert [letter for letter, _ in found] == letters
    assert [number for number, (_, original) in enumerate(found) if original is None] == [4]
    assert all(
        original is None or (original.value or b"").startswith(b"%d " % number)
        for number, (_, original) in enumerate(found)
    )
    assert len(topic.read) == 1 + 4  # five of 10 kB go into 60 kB
    assert all(sum(letter.sealed_bytes for letter in piece) <= 60_000 for piece in pieces(letters))


def test_a_letter_that_is_larger_than_a_piece_is_read_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    letters = all_of(Topic(3, value_bytes=10_000), monkeypatch)
    monkeypatch.setattr(dead_letters, "_AT_ONCE_BYTES", 1_000)

    assert [len(piece) for piece in pieces(letters)] == [1, 1, 1]


def test_a_letter_that_has_left_the_topic_meanwhile_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    letters = all_of(Topic(3, gone=frozenset({1})), monkeypatch)

    with pytest.raises(AuditTrailError, match="no longer in its topic"):
        list(originals(Settings(), letters, keys_of(letters)))
