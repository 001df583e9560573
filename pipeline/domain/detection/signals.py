"""What a range of leaves holds for one counter: the message between the two stages.

A signal has no name, address or IP: groups and values are subject_refs and keyed hashes, places are
whole degrees. It names the range that it is of, so that a counter ignores what it has.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from pipeline.domain.detection.cells import Cell

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
    cells: Mapping[int, Cell]

    @property
    def key(self) -> Key:
        """Which counter it is for; the topic's key is this, joined by a line feed."""
        return (self.rule, self.tenant, self.group)

    def as_plain(self) -> list[Any]:
        """Lists, texts and integers alone."""
        cells = [[bucket, self.cells[bucket].as_plain()] for bucket in sorted(self.cells)]
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
        read = {bucket: Cell.of_plain(cell) for bucket, cell in cells}
        return cls(rule, tenant, group, log, first, following, read)

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
    cells = {bucket: cell.copy() for bucket, cell in one.cells.items()}
    for bucket, cell in other.cells.items():
        if bucket in cells:
            cells[bucket].merge(cell)
        else:
            cells[bucket] = cell.copy()
    first, following = min(one.first, other.first), max(one.next, other.next)
    return Signal(*one.key, one.log, first, following, cells)
