"""What a range of leaves holds for one counter: the message between the two stages.

A signal has no name, address or IP: groups and values are subject_refs and keyed hashes, places are
whole degrees. It names the range that it is of, so that a counter ignores what it has.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple
from zlib import crc32

from pipeline.domain.detection.cells import PlainCell, merge_plain

VERSION: Final = 1
Key = tuple[str, str, str]  # rule, tenant, group


class Signal(NamedTuple):
    """Cells by bucket number, of leaves ``first`` to ``next - 1`` of one log.

    ``log`` is the log's id; with ``/intake`` behind it ``first`` and ``next`` are offsets.
    """

    rule: str
    tenant: str
    group: str
    log: str
    first: int
    next: int
    cells: Mapping[int, PlainCell]

    @property
    def key(self) -> Key:
        """Which counter it is for; the topic's key is this, joined by a line feed."""
        return (self.rule, self.tenant, self.group)

    def as_plain(self) -> list[Any]:
        """Lists, texts and integers alone."""
        cells = [[bucket, self.cells[bucket]] for bucket in sorted(self.cells)]
        head = [VERSION, self.rule, self.tenant, self.group]
        return [*head, self.log, self.first, self.next, cells]

    @classmethod
    def of_plain(cls, plain: Sequence[Any]) -> Signal:
        """The signal that ``as_plain`` wrote.

        Raises:
            ValueError: It is of another version.
        """
        version, rule, tenant, group, log, first, following, cells = plain
        if version != VERSION:
            raise ValueError(f"signal of version {version}, not {VERSION}")
        return cls(rule, tenant, group, log, first, following, dict(cells))

    def to_bytes(self) -> bytes:
        """As the topic holds it."""
        return json.dumps(self.as_plain(), separators=(",", ":")).encode()

    @classmethod
    def from_bytes(cls, text: bytes) -> Signal:
        """Raises ``ValueError``: see ``of_plain``."""
        return cls.of_plain(json.loads(text))


def merge(one: Signal, other: Signal) -> Signal:
    """Two abutting ranges of one log as one.

    Raises:
        ValueError: They are of different counters or logs, or their ranges overlap.
    """
    if one.key != other.key or one.log != other.log:
        raise ValueError("signals of different counters or logs")
    if max(one.first, other.first) < min(one.next, other.next):
        raise ValueError("signals of overlapping ranges")
    cells = dict(one.cells)
    for bucket, cell in other.cells.items():
        cells[bucket] = merge_plain(cells[bucket], cell) if bucket in cells else cell
    first, following = min(one.first, other.first), max(one.next, other.next)
    return Signal(*one.key, one.log, first, following, cells)


def pack(signals: Sequence[Signal]) -> bytes:
    """Several signals as one message, such as all of a range that go to one partition."""
    plain = [signal.as_plain() for signal in signals]
    return json.dumps(plain, separators=(",", ":")).encode()


def unpack(text: bytes) -> list[Signal]:
    """The signals of ``pack``. Raises ``ValueError``: see ``Signal.of_plain``."""
    return [Signal.of_plain(plain) for plain in json.loads(text)]


def shard(key: Key, shards: int) -> int:
    """Which of so many partitions a counter belongs to: the same in every process and release."""
    return crc32("\n".join(key).encode()) % shards
