"""The state of one counter, as a table keeps it. Size: at most ``CELLS_MAX`` cells, or a bounded memory.

A cell with no distinct values is about 60 bytes as text, each distinct value about 25 more.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from pipeline.domain.detection.cells import Cell
from pipeline.domain.detection.rules import (
    BUCKETS,
    DAY_US,
    MINUTE_US,
    TIMED,
    WINDOWED,
    Kind,
    Rule,
)

VERSION: Final = 1
# How late, at least, an event may come after a newer one of its group and still complete a window.
LATE_US: Final = 10 * MINUTE_US
HISTORY_KEPT: Final = 168  # buckets of BASELINE that had events
CELLS_MAX: Final = 4 * BUCKETS + 1


@dataclass(slots=True)
class Row:
    """The state of one (rule, tenant, group).

    ``logs``: per log what follows the last range that was counted. ``memory``: what a kind knows beyond
    its cells, lists and integers alone. ``too_late``: buckets that came after their windows were gone.
    """

    logs: dict[str, int] = field(default_factory=dict)
    cells: dict[int, Cell] = field(default_factory=dict)
    memory: dict[str, Any] = field(default_factory=dict)
    alerted_us: int | None = None
    newest_us: int = 0
    too_late: int = 0

    def as_plain(self) -> list[Any]:
        """Lists, texts and integers alone."""
        return [
            VERSION,
            [list(pair) for pair in sorted(self.logs.items())],
            [[bucket, self.cells[bucket].as_plain()] for bucket in sorted(self.cells)],
            self.memory,
            self.alerted_us,
            self.newest_us,
            self.too_late,
        ]

    @classmethod
    def of_plain(cls, plain: Sequence[Any]) -> Row:
        """The row that ``as_plain`` wrote.

        Raises:
            ValueError: It is of another version.
        """
        version, logs, cells, memory, alerted_us, newest_us, too_late = plain
        if version != VERSION:
            raise ValueError(f"counter of version {version}, not {VERSION}")
        read = {bucket: Cell.of_plain(cell) for bucket, cell in cells}
        return cls(dict(logs), read, memory, alerted_us, newest_us, too_late)

    def to_bytes(self) -> bytes:
        """As the table holds it."""
        return json.dumps(self.as_plain(), separators=(",", ":")).encode()

    @classmethod
    def from_bytes(cls, text: bytes) -> Row:
        """Raises ``ValueError``: see ``of_plain``."""
        return cls.of_plain(json.loads(text))


def kept_buckets(rule: Rule) -> int:
    """How many buckets before the newest one a counter keeps."""
    if rule.kind in WINDOWED:
        late = max(LATE_US // rule.bucket_us, BUCKETS)
        return BUCKETS + min(late, CELLS_MAX - BUCKETS - 1)
    if rule.kind is Kind.HOURS:
        return 24
    return 2


def expires_us(rule: Rule, row: Row) -> int:
    """When, in event time, a counter can leave its table: nothing that it knows matters any more."""
    lasting = max(rule.timespan_us, rule.learn_us, kept_buckets(rule) * rule.bucket_us)
    if rule.kind is Kind.BASELINE:
        lasting = HISTORY_KEPT * rule.bucket_us
    elif rule.kind in TIMED:
        lasting = max(lasting, DAY_US)
    return row.newest_us + lasting + rule.dedup_us
